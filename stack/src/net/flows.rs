//! From a 4-tuple to the index of its connection.
//!
//! A map of eight bytes a flow: an index, and a tag made of the 4-tuple. The 4-tuple itself stands in the connection,
//! which whoever finds it wants to look at anyway; a tag of 32 bits rarely lies. Places are tried one after the other
//! (linear probing), so that a search stays within a line of the cache or two.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use outrider_drivers::cache;

use super::key::FlowKey;

/// Places at first; always a power of two.
const PLACES_MIN: usize = 16;
/// Of so many places so many are in use at most.
const FULL: (usize, usize) = (5, 4);
const VACANT: u64 = u64::MAX;

/// The map. Indexes are less than `u32::MAX`.
pub(super) struct Flows {
    /// Tag in the upper half, index in the lower.
    places: Box<[u64]>,
    used: usize,
    hasher: FixedState,
}

impl Flows {
    pub(super) fn new(seed: u64) -> Self {
        Flows { places: vec![VACANT; PLACES_MIN].into(), used: 0, hasher: FixedState::with_seed(seed) }
    }

    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// What stands for `key` in the map.
    pub(super) fn tag(&self, key: &FlowKey) -> u64 {
        self.hasher.hash_one(key) >> 32
    }

    /// Where the search for a tag begins.
    fn home(&self, tag: u64) -> usize {
        (tag >> (u32::BITS - self.places.len().trailing_zeros())) as usize
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }

    /// Asks for where the search for a tag begins.
    pub(super) fn prefetch(&self, tag: u64) {
        cache::prefetch(&self.places[self.home(tag)]);
    }

    /// The first index with this tag: most likely that of the 4-tuple that it stands for.
    pub(super) fn guess(&self, tag: u64) -> Option<u32> {
        self.place_of(tag, |_| true).map(|place| self.places[place] as u32)
    }

    /// The index that was inserted for `key`; `is` says of an index whether it is `key`'s.
    pub(super) fn find(&self, key: &FlowKey, is: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = self.tag(key);
        self.place_of(tag, is).map(|place| self.places[place] as u32)
    }

    fn place_of(&self, tag: u64, is: impl Fn(u32) -> bool) -> Option<usize> {
        let mut place = self.home(tag);
        loop {
            let held = self.places[place];
            if held == VACANT {
                return None;
            }
            if held >> 32 == tag && is(held as u32) {
                return Some(place);
            }
            place = self.after(place);
        }
    }

    /// Adds `key`, which is not there.
    pub(super) fn insert(&mut self, key: &FlowKey, index: u32) {
        if (self.used + 1) * FULL.0 > self.places.len() * FULL.1 {
            let larger = vec![VACANT; self.places.len() * 2].into();
            let held = std::mem::replace(&mut self.places, larger);
            held.iter().filter(|held| **held != VACANT).for_each(|held| self.put(*held));
        }
        self.put(self.tag(key) << 32 | u64::from(index));
        self.used += 1;
    }

    fn put(&mut self, held: u64) {
        let mut place = self.home(held >> 32);
        while self.places[place] != VACANT {
            place = self.after(place);
        }
        self.places[place] = held;
    }

    /// Removes `key`, whose index is `index`.
    pub(super) fn remove(&mut self, key: &FlowKey, index: u32) {
        let Some(mut hole) = self.place_of(self.tag(key), |held| held == index) else { return };
        self.used -= 1;
        // What follows moves up where its search would otherwise end at the hole.
        let mut place = self.after(hole);
        while self.places[place] != VACANT {
            let home = self.home(self.places[place] >> 32);
            let mask = self.places.len() - 1;
            if (place.wrapping_sub(home) & mask) >= (place.wrapping_sub(hole) & mask) {
                self.places[hole] = self.places[place];
                hole = place;
            }
            place = self.after(place);
        }
        self.places[hole] = VACANT;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::SocketAddr;

    use super::{FlowKey, Flows};

    fn key(number: u32) -> FlowKey {
        let [a, b, c, d] = number.to_be_bytes();
        let remote: SocketAddr = ([10, a, b, c], 1 + u16::from(d)).into();
        FlowKey::new("10.0.0.1:7".parse().unwrap(), remote)
    }

    #[test]
    fn it_finds_what_a_map_of_the_library_finds() {
        let (mut flows, mut expected) = (Flows::new(1), HashMap::new());
        let mut state = 7u64;
        for _ in 0..60_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (state >> 40) as u32 % 3_000;
            match expected.remove(&number) {
                Some(index) => flows.remove(&key(number), index),
                None => {
                    flows.insert(&key(number), number * 3);
                    expected.insert(number, number * 3);
                }
            }
            let sought = (state >> 20) as u32 % 3_000;
            let found = flows.find(&key(sought), |index| index == sought * 3);
            assert_eq!(found, expected.get(&sought).copied());
            assert_eq!(flows.len(), expected.len());
        }
        for (number, index) in expected {
            assert_eq!(flows.find(&key(number), |found| found == index), Some(index));
            flows.remove(&key(number), index);
        }
        assert!(flows.places.iter().all(|place| *place == super::VACANT) && flows.len() == 0);
    }
}
