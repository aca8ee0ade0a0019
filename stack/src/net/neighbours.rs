//! The neighbour cache: IP addresses on the link and their Ethernet addresses (RFC 826, RFC 4861 section 7).
//!
//! Learned from answers to our own requests and from requests addressed to us, never from plain data. Bounded:
//! entries that only others made us learn go first. An entry that was not confirmed for the reachable time is asked
//! for again while it stays in use; one that does not answer is forgotten.

use core::time::Duration;
use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::fast::FixedState;

use super::config::StackConfig;
use super::frame::Mac;
use crate::time::Instant;

/// What the cache says of a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// Its Ethernet address.
    Known(Mac),
    /// It is being asked for: wait for [`Outcome`].
    Pending,
}

/// What became of a next hop that somebody waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It answered; these connections waited.
    Resolved(Vec<u32>),
    /// It did not answer the last request; these connections waited. They may wait again.
    Failed(Vec<u32>),
}

#[derive(Debug)]
struct Entry {
    mac: Option<Mac>,
    /// Asked for again from here on.
    trusted_until: Instant,
    last_used: Instant,
    /// Whether this end ever wanted it.
    wanted: bool,
    probe: Option<Probe>,
    waiting: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    sent: u32,
    next: Instant,
}

/// The cache. Input: [`Self::resolve`], [`Self::learn`], [`Self::expire`]; output: [`Self::take_request`] (call until
/// `None` after each input), [`Self::next_timeout`].
#[derive(Debug)]
pub(super) struct Neighbours {
    entries: HashMap<IpAddr, Entry, FixedState>,
    /// Addresses with a probe; few at any time.
    probing: Vec<IpAddr>,
    requests: Vec<IpAddr>,
    entries_max: usize,
    reachable: Duration,
    retry: Duration,
    requests_max: u32,
    evicted: u64,
}

impl Neighbours {
    pub(super) fn new(config: &StackConfig, seed: u64) -> Self {
        Neighbours {
            entries: HashMap::with_hasher(FixedState::with_seed(seed)),
            probing: Vec::new(),
            requests: Vec::new(),
            entries_max: config.neighbours_max,
            reachable: config.neighbour_reachable,
            retry: config.neighbour_retry,
            requests_max: config.neighbour_requests_max,
            evicted: 0,
        }
    }

    /// The Ethernet address of `address`. If it is not known, a request goes out, and the connection `waiter` is
    /// named in the [`Outcome`] (at most once, so it must not ask again before).
    pub(super) fn resolve(&mut self, now: Instant, address: IpAddr, waiter: u32) -> Resolution {
        let entry = match self.entries.get_mut(&address) {
            Some(entry) => entry,
            None => {
                self.make_room(true);
                self.entries.entry(address).or_insert_with(|| Entry::empty(now))
            }
        };
        entry.last_used = now;
        entry.wanted = true;
        if entry.probe.is_none() && (entry.mac.is_none() || entry.trusted_until <= now) {
            entry.probe = Some(Probe { sent: 1, next: now + self.retry });
            self.probing.push(address);
            self.requests.push(address);
        }
        match entry.mac {
            Some(mac) => Resolution::Known(mac),
            None => {
                entry.waiting.push(waiter);
                Resolution::Pending
            }
        }
    }

    /// Whether there is an entry for `address`: it is known, or it was asked for.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.entries.contains_key(&address)
    }

    /// The address, if it is known; asks nobody.
    #[cfg(test)]
    pub(super) fn peek(&self, address: IpAddr) -> Option<Mac> {
        self.entries.get(&address)?.mac
    }

    /// `address` said that `mac` is its Ethernet address: in an answer (`solicited`, taken only if we asked or know
    /// it), or in a request addressed to us.
    pub(super) fn learn(
        &mut self,
        now: Instant,
        address: IpAddr,
        mac: Mac,
        solicited: bool,
    ) -> Option<Outcome> {
        if !self.entries.contains_key(&address) && (solicited || !self.make_room(false)) {
            return None;
        }
        let entry = self.entries.entry(address).or_insert_with(|| Entry::empty(now));
        entry.mac = Some(mac);
        entry.trusted_until = now + self.reachable;
        if entry.probe.take().is_some() {
            self.probing.retain(|probing| *probing != address);
        }
        let waiting = std::mem::take(&mut entry.waiting);
        (!waiting.is_empty()).then_some(Outcome::Resolved(waiting))
    }

    /// Sends the requests that are due again, and gives up on those that were sent often enough.
    pub(super) fn expire(&mut self, now: Instant, outcomes: &mut Vec<Outcome>) {
        let Neighbours { entries, probing, requests, retry, requests_max, .. } = self;
        probing.retain(|address| {
            let Some(entry) = entries.get_mut(address) else { return false };
            let Some(probe) = entry.probe.as_mut().filter(|probe| probe.next <= now) else {
                return entry.probe.is_some();
            };
            if probe.sent < *requests_max {
                probe.sent += 1;
                probe.next = now + *retry;
                requests.push(*address);
                return true;
            }
            let waiting = std::mem::take(&mut entry.waiting);
            entries.remove(address);
            outcomes.push(Outcome::Failed(waiting));
            false
        });
    }

    /// When [`Self::expire`] wants to be called.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let probes = self.probing.iter().filter_map(|address| self.entries.get(address)?.probe);
        probes.map(|probe| probe.next).min()
    }

    /// The next address to send a request for.
    pub(super) fn take_request(&mut self) -> Option<IpAddr> {
        self.requests.pop()
    }

    /// Whether no request waits to be sent.
    pub(super) fn is_quiet(&self) -> bool {
        self.requests.is_empty()
    }

    /// How many entries were forgotten for want of room since the last call.
    pub(super) fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// Makes room for one more entry: the one unused for longest, first among those nobody here wanted. For an entry
    /// that this end did not ask for, one that it did ask for is never given up. Entries with waiters stay.
    fn make_room(&mut self, wanted: bool) -> bool {
        if self.entries.len() < self.entries_max {
            return true;
        }
        let candidates = self.entries.iter().filter(|(_, entry)| entry.waiting.is_empty());
        let candidates = candidates.filter(|(_, entry)| wanted || !entry.wanted);
        let oldest = candidates.min_by_key(|(address, entry)| (entry.wanted, entry.last_used, **address));
        let Some(address) = oldest.map(|(address, _)| *address) else { return false };
        self.entries.remove(&address);
        self.probing.retain(|probing| *probing != address);
        self.evicted += 1;
        true
    }
}

impl Entry {
    fn empty(now: Instant) -> Self {
        Entry {
            mac: None,
            trusted_until: now,
            last_used: now,
            wanted: false,
            probe: None,
            waiting: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::net::{IpAddr, Ipv4Addr};

    use super::{Neighbours, Outcome, Resolution};
    use crate::net::config::StackConfig;
    use crate::time::Instant;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn cache(entries_max: usize) -> Neighbours {
        Neighbours::new(&StackConfig { neighbours_max: entries_max, ..StackConfig::default() }, 1)
    }

    fn host(n: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    fn expire(cache: &mut Neighbours, now: Instant) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        cache.expire(now, &mut outcomes);
        outcomes
    }

    #[test]
    fn asks_three_times_then_gives_up() {
        let mut cache = cache(8);
        assert_eq!(cache.resolve(at(0), host(2), 7), Resolution::Pending);
        for second in 1..=2 {
            assert_eq!(cache.take_request(), Some(host(2)));
            assert_eq!(cache.take_request(), None);
            assert_eq!(cache.next_timeout(), Some(at(second)));
            assert!(expire(&mut cache, at(second)).is_empty());
        }
        assert_eq!(cache.take_request(), Some(host(2)));
        assert_eq!(expire(&mut cache, at(3)), [Outcome::Failed(vec![7])]);
        assert_eq!(cache.next_timeout(), None);
        assert_eq!(cache.take_request(), None);
    }

    #[test]
    fn an_answer_releases_the_waiters_and_is_asked_for_again_when_old() {
        let mut cache = cache(8);
        cache.resolve(at(0), host(2), 7);
        cache.resolve(at(0), host(2), 8);
        assert_eq!(cache.learn(at(0), host(2), MAC, true), Some(Outcome::Resolved(vec![7, 8])));
        assert_eq!(cache.take_request(), Some(host(2)));
        assert_eq!(cache.resolve(at(29), host(2), 7), Resolution::Known(MAC));
        assert_eq!(cache.take_request(), None);
        assert_eq!(cache.resolve(at(30), host(2), 7), Resolution::Known(MAC), "used while it is asked for");
        assert_eq!(cache.take_request(), Some(host(2)));
        assert_eq!(cache.learn(at(30), host(2), MAC, true), None);
        assert_eq!(cache.next_timeout(), None);
    }

    #[test]
    fn unasked_answers_teach_nothing_and_requests_do() {
        let mut cache = cache(8);
        assert_eq!(cache.learn(at(0), host(2), MAC, true), None);
        assert_eq!(cache.peek(host(2)), None);
        assert_eq!(cache.learn(at(0), host(2), MAC, false), None);
        assert_eq!(cache.peek(host(2)), Some(MAC));
    }

    #[test]
    fn a_flood_of_requests_does_not_push_out_a_neighbour_in_use() {
        let mut cache = cache(4);
        cache.resolve(at(0), host(2), 7);
        cache.learn(at(0), host(2), MAC, true);
        for n in 10..200 {
            cache.learn(at(1) + Duration::from_millis(n.into()), host(n), MAC, false);
        }
        assert_eq!(cache.peek(host(2)), Some(MAC));
        assert_eq!(cache.peek(host(199)), Some(MAC));
        assert_eq!(cache.take_evicted(), 187);
        assert_eq!(cache.entries.len(), 4);
    }

    #[test]
    fn a_request_does_not_push_out_what_this_end_asked_for() {
        let mut cache = cache(1);
        cache.resolve(at(0), host(2), 7);
        cache.learn(at(0), host(2), MAC, true);
        cache.learn(at(9), host(3), MAC, false);
        assert_eq!((cache.peek(host(2)), cache.peek(host(3))), (Some(MAC), None));
        assert_eq!(cache.resolve(at(9), host(3), 8), Resolution::Pending, "but a need of our own does");
        assert_eq!((cache.entries.len(), cache.take_evicted()), (1, 1));
    }
}
