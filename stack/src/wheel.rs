//! A hierarchical timer wheel: one timer per connection, armed and re-armed in a few nanoseconds.
//!
//! Level 0 has 64 slots of one tick (1.024 us); each level above has slots 64 times as wide, up to the whole range
//! of [`Instant`]. A timer sits on the level of the highest bit in which its tick differs from the present one, so
//! every timer on a level is due before every timer on the levels above it. Deadlines are kept to the nanosecond:
//! a timer fires at the first [`Wheel::expire`] with `now >= deadline`, and never before.
//!
//! A timer that is put off, or stopped, stays where it is until time reaches its slot, and is moved then: the timers of
//! TCP are put off with every segment, and nearly all of them are never due.

use core::cell::Cell;

use outrider_drivers::cache;

use crate::growth::lengthen;
use crate::time::Instant;

const TICK_BITS: u32 = 10;
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(LEVEL_BITS) as usize;
/// [`Wheel::next_deadline`] looks at no more timers than this in a slot of an upper level.
const SCAN_MAX: usize = 16;
const NONE: u32 = u32::MAX;
const UNLINKED: u16 = u16::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    /// When it is due; [`Instant::FAR_FUTURE`] if it was stopped.
    deadline: Instant,
    previous: u32,
    next: u32,
    /// Level and slot in one number, or [`UNLINKED`].
    place: u16,
}

const FREE: Node = Node { deadline: Instant::FAR_FUTURE, previous: NONE, next: NONE, place: UNLINKED };

/// Timers named by small indexes. Memory: 24 bytes per index ever used, and 2.4 kB.
///
/// Input: [`Self::arm`], [`Self::disarm`]. Output: [`Self::next_deadline`], then [`Self::expire`] at that instant.
#[derive(Debug)]
pub struct Wheel {
    nodes: Vec<Node>,
    heads: Box<[u32]>,
    occupied: [u64; LEVELS],
    /// All ticks before this one have been expired.
    present: u64,
    armed: usize,
    /// The slot that is due first and the earliest deadline in it, as found last, until something in it changes, or a slot
    /// before it gets a timer: with many timers most changes are elsewhere, and looking again means to fetch them.
    first: Cell<Option<(u16, Instant)>>,
}

impl Wheel {
    /// An empty wheel, for deadlines after `now`.
    pub fn new(now: Instant) -> Self {
        Wheel {
            nodes: Vec::new(),
            heads: vec![NONE; LEVELS * SLOTS].into_boxed_slice(),
            occupied: [0; LEVELS],
            present: tick(now),
            armed: 0,
            first: Cell::new(None),
        }
    }

    /// Timers armed.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// When the timer `index` is due, if it is armed.
    pub fn deadline(&self, index: u32) -> Option<Instant> {
        let node = self.nodes.get(index as usize)?;
        (node.deadline != Instant::FAR_FUTURE).then_some(node.deadline)
    }

    /// Asks for where the timer `index` is kept: see [`cache`].
    pub(crate) fn prefetch(&self, index: u32) {
        self.nodes.get(index as usize).into_iter().for_each(cache::prefetch);
    }

    /// Sets the timer `index` to `deadline`, in place of what it was set to. A deadline in the past is due at once, one
    /// in the far future never.
    pub fn arm(&mut self, index: u32, deadline: Instant) {
        lengthen(&mut self.nodes, index as usize + 1, FREE);
        let node = &mut self.nodes[index as usize];
        let was_armed = std::mem::replace(&mut node.deadline, deadline) != Instant::FAR_FUTURE;
        let is_armed = deadline != Instant::FAR_FUTURE;
        self.armed = self.armed + usize::from(is_armed) - usize::from(was_armed);
        let place = node.place;
        self.forget_first(place);
        if place == UNLINKED {
            if is_armed {
                self.link(index, self.place(deadline));
            }
        } else if tick(deadline) < self.slot_start(usize::from(place)) {
            self.unlink(index);
            self.link(index, self.place(deadline));
        }
    }

    /// Stops the timer `index` if it is armed.
    pub fn disarm(&mut self, index: u32) {
        if (index as usize) < self.nodes.len() {
            self.arm(index, Instant::FAR_FUTURE);
        }
    }

    /// Something changes in the slot `place`.
    fn forget_first(&mut self, place: u16) {
        if self.first.get().is_some_and(|(first, _)| place <= first) {
            self.first.set(None);
        }
    }

    fn unlink(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        let Node { previous, next, place, .. } = *node;
        node.place = UNLINKED;
        self.forget_first(place);
        if previous == NONE {
            self.heads[usize::from(place)] = next;
        } else {
            self.nodes[previous as usize].next = next;
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if self.heads[usize::from(place)] == NONE {
            self.occupied[usize::from(place) / SLOTS] &= !(1 << (usize::from(place) % SLOTS));
        }
    }

    /// When [`Self::expire`] should be called next: the earliest deadline.
    ///
    /// Where more than sixteen timers share the first slot of an upper level, the answer is the start of that slot,
    /// which is early, never late; expiring then spreads them over the level below, so that a crowd costs at most
    /// one early call per level. It is early as well, the end of the first slot, where all timers in that were put off.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.armed == 0 {
            return None;
        }
        if let Some((_, earliest)) = self.first.get() {
            return Some(earliest);
        }
        let place = self.first_place()?;
        let earliest = self.earliest_in(place);
        self.first.set(Some((place as u16, earliest)));
        Some(earliest)
    }

    /// The earliest deadline in the slot `place`, or its start: see [`Self::next_deadline`].
    fn earliest_in(&self, place: usize) -> Instant {
        // Within one tick all are due at once, and only the exact instant makes the first of them fire.
        let scan_max = if place < SLOTS { usize::MAX } else { SCAN_MAX };
        let end = self.slot_start(place).saturating_add(1 << ((place / SLOTS) as u32 * LEVEL_BITS));
        let mut earliest = Instant::from_nanos(end.saturating_mul(1 << TICK_BITS));
        let mut cursor = self.heads[place];
        for _ in 0..scan_max {
            if cursor == NONE {
                return earliest;
            }
            let node = &self.nodes[cursor as usize];
            earliest = earliest.min(node.deadline);
            cursor = node.next;
        }
        if cursor == NONE {
            return earliest;
        }
        Instant::from_nanos(self.slot_start(place) << TICK_BITS).min(earliest)
    }

    /// Stops every timer with `deadline <= now` and appends its index to `fired`.
    pub fn expire(&mut self, now: Instant, fired: &mut Vec<u32>) {
        let target = tick(now);
        while let Some(place) = self.first_place() {
            let start = self.slot_start(place);
            if start > target {
                break;
            }
            // The slot's start lies at or behind `target`, so time has entered the slot.
            self.present = self.present.max(start);
            if place < SLOTS {
                self.expire_slot(place, now, fired);
                if self.heads[place] != NONE {
                    return; // what is left is due later within this very tick
                }
            } else {
                self.spread(place);
            }
        }
        self.present = self.present.max(target);
    }

    fn expire_slot(&mut self, place: usize, now: Instant, fired: &mut Vec<u32>) {
        let mut cursor = self.heads[place];
        while cursor != NONE {
            let Node { deadline, next, .. } = self.nodes[cursor as usize];
            if deadline <= now {
                self.unlink(cursor);
                self.nodes[cursor as usize].deadline = Instant::FAR_FUTURE;
                self.armed -= 1;
                fired.push(cursor);
            } else if tick(deadline) > self.present {
                self.unlink(cursor);
                self.link_again(cursor, deadline);
            }
            cursor = next;
        }
    }

    /// Moves the timers of an upper slot that time has reached to the levels below.
    fn spread(&mut self, place: usize) {
        self.first.set(None);
        let mut cursor = std::mem::replace(&mut self.heads[place], NONE);
        self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
        while cursor != NONE {
            let Node { deadline, next, .. } = self.nodes[cursor as usize];
            self.nodes[cursor as usize].place = UNLINKED;
            self.link_again(cursor, deadline);
            cursor = next;
        }
    }

    /// Links what was taken out of its slot because that has come, unless it was stopped meanwhile.
    fn link_again(&mut self, index: u32, deadline: Instant) {
        if deadline != Instant::FAR_FUTURE {
            self.link(index, self.place(deadline));
        }
    }

    fn link(&mut self, index: u32, place: u16) {
        self.forget_first(place);
        let head = std::mem::replace(&mut self.heads[usize::from(place)], index);
        if head != NONE {
            self.nodes[head as usize].previous = index;
        }
        let node = &mut self.nodes[index as usize];
        node.previous = NONE;
        node.next = head;
        node.place = place;
        self.occupied[usize::from(place) / SLOTS] |= 1 << (usize::from(place) % SLOTS);
    }

    fn place(&self, deadline: Instant) -> u16 {
        let due = tick(deadline).max(self.present);
        let differing = due ^ self.present;
        let level = (u64::BITS - (differing | 1).leading_zeros() - 1) / LEVEL_BITS;
        let slot = (due >> (level * LEVEL_BITS)) as usize % SLOTS;
        (level as usize * SLOTS + slot) as u16
    }

    /// The occupied slot that is due first.
    fn first_place(&self) -> Option<usize> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        Some(level * SLOTS + self.occupied[level].trailing_zeros() as usize)
    }

    /// First tick of a slot: the bits above its level are those of the present, by the way `place` chooses levels.
    fn slot_start(&self, place: usize) -> u64 {
        let shift = (place / SLOTS) as u32 * LEVEL_BITS;
        let above = (self.present >> shift) & !(SLOTS as u64 - 1);
        (above | (place % SLOTS) as u64) << shift
    }
}

fn tick(instant: Instant) -> u64 {
    instant.as_nanos() >> TICK_BITS
}

#[cfg(test)]
#[path = "wheel_tests.rs"]
mod tests;
