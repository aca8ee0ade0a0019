//! Two stacks on a cable in virtual time, endpoints that check what they get, and hand-made frames.
//!
//! Everything follows from a seed: [`seeds`] runs a story for several and names the one that failed;
//! `OUTRIDER_SEED=n` runs only that one.

#![allow(dead_code, unreachable_pub)]

pub mod attacker;
pub mod endpoints;
pub mod raw;

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use outrider_drivers::memory::{LinkConfig, MemoryPort, cable};
use outrider_drivers::port::Port;
use outrider_stack::net::{Stack, StackConfig};
use outrider_stack::time::Instant;

/// Polls at one instant before the pair is taken to be stuck in a loop.
const POLLS_PER_INSTANT_MAX: u32 = 100_000;

/// Runs `story` for `count` seeds (or for the one in `OUTRIDER_SEED`), and says which one failed.
pub fn seeds(count: u64, story: impl Fn(u64)) {
    let chosen =
        std::env::var("OUTRIDER_SEED").ok().map(|text| text.parse().expect("OUTRIDER_SEED is a number"));
    for seed in chosen.map_or(0..count, |seed: u64| seed..seed + 1) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| story(seed))) {
            eprintln!("failed with seed {seed}; run only this one with OUTRIDER_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

/// A stack and its end of the cable.
pub struct Host {
    pub stack: Stack,
    pub port: MemoryPort,
    next: Option<Instant>,
    polled_at: Instant,
}

impl Drop for Host {
    /// Whoever is still connected at the end of the story is told.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stack.fail(self.polled_at);
        }
    }
}

impl Host {
    pub fn new(config: StackConfig, port: MemoryPort, seed: u64) -> Self {
        let stack = Stack::new(config, port.info(), seed).expect("the configuration of the test is right");
        Host { stack, port, next: None, polled_at: Instant::ZERO }
    }

    /// Polls once; returns the work done.
    pub fn poll(&mut self, now: Instant) -> usize {
        let poll = self.stack.poll(now, &mut self.port).expect("the cable stays plugged in");
        self.next = poll.next;
        self.polled_at = now;
        poll.work
    }

    /// When something happens here next.
    pub fn next_event(&self, now: Instant) -> Option<Instant> {
        [self.next, self.port.next_arrival(now)].into_iter().flatten().min()
    }
}

/// Two hosts on a cable, 10.0.0.1 and 10.0.0.2 (and fd00::1, fd00::2), in virtual time.
pub struct Pair {
    pub now: Instant,
    pub a: Host,
    pub b: Host,
    polls_at_now: u32,
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address of the test")
}

/// The configuration of host number `host` (1 or 2).
pub fn host_config(host: u8) -> StackConfig {
    let v4: IpAddr = format!("10.0.0.{host}").parse().unwrap();
    let v6: IpAddr = format!("fd00::{host}").parse().unwrap();
    StackConfig::new([(v4, 24), (v6, 64)])
}

/// A link of 1 Gbit/s and 50 us, without faults.
pub fn gigabit() -> LinkConfig {
    LinkConfig {
        rate_bits_per_second: 1_000_000_000,
        delay: Duration::from_micros(50),
        ..LinkConfig::default()
    }
}

/// The same with every fault a network has.
pub fn faulty() -> LinkConfig {
    LinkConfig {
        loss: 0.01,
        reorder: 0.02,
        reorder_delay: Duration::from_micros(300),
        duplicate: 0.01,
        corrupt: 0.005,
        ..gigabit()
    }
}

impl Pair {
    pub fn new(seed: u64, link: LinkConfig) -> Self {
        Pair::with(seed, link.clone(), link, host_config(1), host_config(2))
    }

    pub fn with(seed: u64, a_to_b: LinkConfig, b_to_a: LinkConfig, a: StackConfig, b: StackConfig) -> Self {
        let (port_a, port_b) = cable(a_to_b, b_to_a, seed);
        Pair {
            now: Instant::from_millis(1),
            a: Host::new(a, port_a, seed.wrapping_mul(2) + 1),
            b: Host::new(b, port_b, seed.wrapping_mul(2) + 2),
            polls_at_now: 0,
        }
    }

    /// Lets both hosts do all they can at the present instant.
    pub fn settle(&mut self) {
        while self.a.poll(self.now) + self.b.poll(self.now) > 0
            || self.next_event().is_some_and(|next| next <= self.now)
        {
            self.polls_at_now += 1;
            assert!(self.polls_at_now < POLLS_PER_INSTANT_MAX, "busy without end at {:?}", self.now);
        }
    }

    fn next_event(&self) -> Option<Instant> {
        [self.a.next_event(self.now), self.b.next_event(self.now)].into_iter().flatten().min()
    }

    /// Settles, then moves time to the next event, at most to `limit`. Returns whether there was an event by then.
    pub fn step(&mut self, limit: Instant) -> bool {
        self.settle();
        let next = self.next_event().filter(|next| *next <= limit);
        let to = next.unwrap_or(limit);
        assert!(to >= self.now, "time does not go back");
        if to > self.now {
            self.polls_at_now = 0;
        }
        self.now = to;
        next.is_some()
    }

    /// Runs for `duration` of virtual time.
    pub fn run_for(&mut self, duration: Duration) {
        let limit = self.now + duration;
        while self.step(limit) {}
        self.settle();
    }

    /// Runs until `done`, and fails the test if that takes more than `limit` of virtual time.
    #[track_caller]
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Pair) -> bool) {
        let end = self.now + limit;
        loop {
            self.settle();
            if done(self) {
                return;
            }
            assert!(self.step(end), "not done after {limit:?} of virtual time");
        }
    }
}
