//! Whose turn it is to transmit: a fair queue with a fast lane for urgent connections.

use outrider_drivers::cache;

use crate::growth::lengthen;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Ordinary = 0,
    Urgent = 1,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
    lane: Option<Lane>,
}

const FREE: Link = Link { previous: NONE, next: NONE, lane: None };

/// Connection indexes in two doubly linked lists; each index is in at most one of them, so the memory is bounded by
/// the number of connections. Every operation takes constant time.
#[derive(Debug)]
pub(super) struct ReadyQueue {
    links: Vec<Link>,
    heads: [u32; 2],
    tails: [u32; 2],
}

impl ReadyQueue {
    pub(super) fn new() -> Self {
        ReadyQueue { links: Vec::new(), heads: [NONE; 2], tails: [NONE; 2] }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heads == [NONE; 2]
    }

    /// Asks for the place of `index`: see [`cache`].
    pub(super) fn prefetch(&self, index: u32) {
        self.links.get(index as usize).into_iter().for_each(cache::prefetch);
    }

    /// The lane that `index` waits in, if it waits.
    pub(super) fn lane(&self, index: u32) -> Option<Lane> {
        self.links.get(index as usize)?.lane
    }

    /// Appends `index` to `lane`. One that waits already keeps its place, or moves up to the urgent lane.
    pub(super) fn push(&mut self, index: u32, lane: Lane) {
        if self.lane(index) >= Some(lane) {
            return;
        }
        self.remove(index);
        lengthen(&mut self.links, index as usize + 1, FREE);
        let tail = std::mem::replace(&mut self.tails[lane as usize], index);
        self.links[index as usize] = Link { previous: tail, next: NONE, lane: Some(lane) };
        match tail {
            NONE => self.heads[lane as usize] = index,
            _ => self.links[tail as usize].next = index,
        }
    }

    /// Puts `index`, which was just taken, back to where it was: the head of `lane`.
    pub(super) fn put_back(&mut self, index: u32, lane: Lane) {
        self.remove(index);
        let head = std::mem::replace(&mut self.heads[lane as usize], index);
        self.links[index as usize] = Link { previous: NONE, next: head, lane: Some(lane) };
        match head {
            NONE => self.tails[lane as usize] = index,
            _ => self.links[head as usize].previous = index,
        }
    }

    /// Takes the first of the urgent lane, else of the ordinary one.
    pub(super) fn pop(&mut self) -> Option<(u32, Lane)> {
        for lane in [Lane::Urgent, Lane::Ordinary] {
            let head = self.heads[lane as usize];
            if head != NONE {
                self.remove(head);
                return Some((head, lane));
            }
        }
        None
    }

    /// Takes `index` out if it waits.
    pub(super) fn remove(&mut self, index: u32) {
        let Some(link) = self.links.get_mut(index as usize) else { return };
        let Link { previous, next, lane: Some(lane) } = std::mem::replace(link, FREE) else { return };
        match previous {
            NONE => self.heads[lane as usize] = next,
            _ => self.links[previous as usize].next = next,
        }
        match next {
            NONE => self.tails[lane as usize] = previous,
            _ => self.links[next as usize].previous = previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Lane, ReadyQueue};

    fn drain(queue: &mut ReadyQueue) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop().map(|(index, _)| index)).collect()
    }

    #[test]
    fn first_come_first_served_but_urgent_first() {
        let mut queue = ReadyQueue::new();
        for index in [4, 2, 9] {
            queue.push(index, Lane::Ordinary);
        }
        queue.push(7, Lane::Urgent);
        queue.push(9, Lane::Urgent);
        queue.push(4, Lane::Ordinary);
        queue.push(7, Lane::Ordinary);
        assert_eq!(drain(&mut queue), [7, 9, 4, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn put_back_and_remove_keep_the_order() {
        let mut queue = ReadyQueue::new();
        for index in 0..4 {
            queue.push(index, Lane::Ordinary);
        }
        assert_eq!(queue.pop(), Some((0, Lane::Ordinary)));
        queue.put_back(0, Lane::Ordinary);
        queue.remove(2);
        queue.remove(2);
        queue.remove(100);
        assert_eq!(queue.lane(2), None);
        queue.push(2, Lane::Ordinary);
        assert_eq!(drain(&mut queue), [0, 1, 3, 2]);
        queue.put_back(1, Lane::Urgent);
        assert_eq!(drain(&mut queue), [1]);
    }
}
