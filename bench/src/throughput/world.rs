//! Virtual time: two hosts on a cable, and the clock that moves from event to event.

use std::time::Duration;

use outrider_drivers::memory::{LinkConfig, MemoryPort, cable};
use outrider_drivers::port::Port;
use outrider_drivers::time::Instant;

use super::flow::Meter;
use crate::error::BenchError;

/// Rounds at one instant before the hosts are taken to be stuck.
const ROUNDS_PER_INSTANT_MAX: u32 = 1_000_000;

/// What the hosts have done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    /// Payload bytes delivered in order to the receiving application.
    pub(super) bytes: u64,
    /// Frames the sender handed to its port.
    pub(super) sender_frames: u64,
    /// Frames the receiver handed to its port.
    pub(super) receiver_frames: u64,
    /// Segments sent again, where the stack tells.
    pub(super) retransmits: Option<u64>,
    /// Frames for which the queue of the link had no room, both ways.
    pub(super) queue_drops: u64,
}

impl Counters {
    /// Those of the two ports.
    pub(super) fn of_ports(sender: &MemoryPort, receiver: &MemoryPort) -> Self {
        let dropped = |port: &MemoryPort| {
            let link = port.link_statistics();
            link.dropped_queue_frames + link.dropped_overrun_frames
        };
        Counters {
            sender_frames: sender.statistics().tx_frames,
            receiver_frames: receiver.statistics().tx_frames,
            queue_drops: dropped(sender) + dropped(receiver),
            ..Counters::default()
        }
    }

    /// What was done since `earlier`.
    pub(super) fn since(&self, earlier: &Counters) -> Counters {
        Counters {
            bytes: self.bytes - earlier.bytes,
            sender_frames: self.sender_frames - earlier.sender_frames,
            receiver_frames: self.receiver_frames - earlier.receiver_frames,
            retransmits: self.retransmits.zip(earlier.retransmits).map(|(now, then)| now - then),
            queue_drops: self.queue_drops - earlier.queue_drops,
        }
    }
}

/// Two hosts on a cable. The first opens connections and sends, the second receives.
pub(super) trait Hosts {
    /// Begins one more connection.
    ///
    /// # Errors
    /// When the sender refuses.
    fn connect(&mut self, now: Instant) -> Result<(), BenchError>;

    /// Connections on which the sender may send.
    fn established(&mut self) -> usize;

    /// Gives the connection begun as number `index` so many bytes more to send.
    fn feed(&mut self, now: Instant, index: usize, bytes: usize);

    /// Lets both hosts do something; returns whether one of them has more to do at `now`.
    ///
    /// # Errors
    /// When a port or a connection failed.
    fn poll(&mut self, now: Instant) -> Result<bool, BenchError>;

    /// When something happens by itself next.
    fn next_event(&self, now: Instant) -> Option<Instant>;

    /// What the receiving application has got, and when.
    fn received(&self) -> &Meter;

    /// Totals.
    fn counters(&self, now: Instant) -> Counters;
}

/// Hosts and their clock.
pub(super) struct World {
    pub(super) hosts: Box<dyn Hosts>,
    pub(super) now: Instant,
    /// Time between two looks of the hosts at what has happened; zero: they see each event at its instant.
    poll_every: Duration,
}

impl World {
    pub(super) fn new(hosts: Box<dyn Hosts>, poll_every: Duration) -> Self {
        World { hosts, now: Instant::from_millis(1), poll_every }
    }

    /// When the hosts look at what happens at `event`.
    fn look_at(&self, event: Instant) -> Instant {
        let step = u64::try_from(self.poll_every.as_nanos()).unwrap_or(u64::MAX);
        let nanos = event.as_nanos();
        Instant::from_nanos(if step == 0 { nanos } else { nanos.div_ceil(step).saturating_mul(step) })
    }

    /// Lets the hosts do all they can at the present instant.
    fn settle(&mut self) -> Result<(), BenchError> {
        for _ in 0..ROUNDS_PER_INSTANT_MAX {
            if !self.hosts.poll(self.now)? {
                return Ok(());
            }
        }
        Err(BenchError::failed(format!("the hosts are busy without end at {:?}; report this", self.now)))
    }

    /// Runs to `limit`.
    pub(super) fn run_to(&mut self, limit: Instant) -> Result<(), BenchError> {
        loop {
            self.settle()?;
            let next = self.hosts.next_event(self.now).map(|event| self.look_at(event));
            match next.filter(|next| *next <= limit) {
                Some(next) if next > self.now => self.now = next,
                Some(_) => {}
                None if self.now < limit => self.now = limit,
                None => return Ok(()),
            }
        }
    }

    /// Opens connections until there are `count`, some at a time.
    pub(super) fn open(&mut self, count: usize) -> Result<(), BenchError> {
        /// Connections begun at an instant: far less than fills the queue of any link.
        const AT_ONCE: usize = 64;
        const STEP: Duration = Duration::from_micros(200);
        const LIMIT: Duration = Duration::from_secs(60);
        let give_up = self.now + LIMIT;
        let mut begun = 0;
        while self.hosts.established() < count {
            let batch = AT_ONCE.min(count - begun);
            for _ in 0..batch {
                self.hosts.connect(self.now)?;
            }
            begun += batch;
            self.run_to(self.now + STEP)?;
            if self.now >= give_up {
                let open = self.hosts.established();
                return Err(BenchError::failed(format!(
                    "only {open} of {count} connections opened within {} s; try a lower --loss",
                    LIMIT.as_secs()
                )));
            }
        }
        Ok(())
    }
}

/// The cable between the hosts.
pub(super) fn plug(link: &LinkConfig, seed: u64) -> (MemoryPort, MemoryPort) {
    cable(link.clone(), link.clone(), seed)
}
