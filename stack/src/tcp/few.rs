//! A queue that most often holds one item, or none.

use std::collections::VecDeque;
use std::iter::Chain;
use std::{collections::vec_deque, option};

/// A queue whose first item, when there was none, is kept in the queue itself, not behind a pointer: of many connections
/// that each send a little now and then, each has one, and what a pointer leads to would be waited for.
#[derive(Debug)]
pub(crate) struct Few<T> {
    /// Before all others. What came when there were others stays with those, also when it becomes the first.
    first: Option<T>,
    rest: VecDeque<T>,
}

impl<T> Few<T> {
    pub(crate) const fn new() -> Self {
        Few { first: None, rest: VecDeque::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.apart() + self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.is_empty()
    }

    /// Items there is memory for behind a pointer.
    pub(crate) fn capacity(&self) -> usize {
        self.rest.capacity()
    }

    /// How many items are not with the rest.
    fn apart(&self) -> usize {
        usize::from(self.first.is_some())
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.first.as_ref().or_else(|| self.rest.front())
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.first.as_mut().or_else(|| self.rest.front_mut())
    }

    pub(crate) fn back(&self) -> Option<&T> {
        self.rest.back().or(self.first.as_ref())
    }

    pub(crate) fn back_mut(&mut self) -> Option<&mut T> {
        self.rest.back_mut().or(self.first.as_mut())
    }

    #[inline]
    pub(crate) fn push_back(&mut self, item: T) {
        if self.is_empty() {
            self.first = Some(item);
        } else {
            self.rest.push_back(item);
        }
    }

    /// Takes the first item off; unlike for a queue that is asked for it, nobody needs that.
    #[inline]
    pub(crate) fn drop_front(&mut self) {
        if self.first.take().is_none() {
            self.rest.pop_front();
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        match index.checked_sub(self.apart()) {
            Some(index) => self.rest.get(index),
            None => self.first.as_ref(),
        }
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        match index.checked_sub(self.apart()) {
            Some(index) => self.rest.get_mut(index),
            None => self.first.as_mut(),
        }
    }

    /// Puts `item` behind the one at `index`, which there is.
    pub(crate) fn insert_behind(&mut self, index: usize, item: T) {
        self.rest.insert(index + 1 - self.apart(), item);
    }

    /// Index of the first item of which `is_before` does not hold, where it holds of none behind that.
    pub(crate) fn partition_point(&self, mut is_before: impl FnMut(&T) -> bool) -> usize {
        if self.first.as_ref().is_some_and(|first| !is_before(first)) {
            return 0;
        }
        self.apart() + self.rest.partition_point(is_before)
    }

    pub(crate) fn iter(&self) -> Chain<option::Iter<'_, T>, vec_deque::Iter<'_, T>> {
        self.first.iter().chain(&self.rest)
    }

    pub(crate) fn iter_mut(&mut self) -> Chain<option::IterMut<'_, T>, vec_deque::IterMut<'_, T>> {
        self.first.iter_mut().chain(&mut self.rest)
    }

    /// Keeps memory for no more than `capacity` items behind a pointer, or for those that are there.
    pub(crate) fn shrink_to(&mut self, capacity: usize) {
        self.rest.shrink_to(capacity);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use outrider_drivers::rng::Rng;

    use super::Few;

    #[test]
    fn it_does_what_a_queue_does() {
        for seed in 0..50 {
            let mut rng = Rng::new(seed);
            let (mut few, mut queue) = (Few::new(), VecDeque::new());
            for step in 0..300u64 {
                match rng.below(4) {
                    0 => {
                        few.drop_front();
                        queue.pop_front();
                    }
                    1 if !queue.is_empty() => {
                        // Such as lies between its neighbours.
                        let index = rng.below(queue.len() as u64) as usize;
                        let item = queue[index];
                        few.insert_behind(index, item);
                        queue.insert(index + 1, item);
                    }
                    _ if rng.below(queue.len() as u64 + 1) < 3 => {
                        few.push_back(step);
                        queue.push_back(step);
                    }
                    _ => {}
                }
                let name = format!("seed {seed} step {step}");
                assert!(few.iter().eq(&queue), "{name}");
                assert!(few.iter_mut().eq(&mut queue), "{name}");
                assert_eq!((few.len(), few.is_empty()), (queue.len(), queue.is_empty()), "{name}");
                assert_eq!((few.front(), few.back()), (queue.front(), queue.back()), "{name}");
                assert_eq!(few.front_mut(), queue.front_mut(), "{name}");
                assert_eq!(few.back_mut(), queue.back_mut(), "{name}");
                for index in 0..=queue.len() {
                    assert_eq!(few.get(index), queue.get(index), "{name}");
                    assert_eq!(few.get_mut(index), queue.get_mut(index), "{name}");
                }
                let bound = rng.below(step + 1);
                let expected = queue.partition_point(|item| *item < bound);
                assert_eq!(few.partition_point(|item| *item < bound), expected, "{name}");
            }
        }
    }

    #[test]
    fn one_at_a_time_takes_no_memory() {
        let mut few = Few::new();
        for item in 0..100 {
            few.push_back(item);
            few.drop_front();
        }
        assert_eq!(few.capacity(), 0);
        few.push_back(0);
        few.push_back(1);
        few.drop_front();
        assert_eq!((few.capacity() > 0, few.front()), (true, Some(&1)));
    }
}
