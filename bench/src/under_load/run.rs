//! One run: a world is built, loaded, measured and taken down.

use std::sync::Arc;
use std::time::Duration;

use super::pair::{Pair, PairPlan};
use super::tally::{Counts, Recent, Samples, Tally};
use super::{Point, Variant};
use crate::error::BenchError;
use crate::host::cpu_seconds;
use crate::node::{Signal, now};
use crate::stop;

/// Load runs this long before anything counts: congestion control has found the rate by then.
pub(crate) const WARM_UP: Duration = Duration::from_millis(500);
/// Between settling the window and its begin.
const WINDOW_LEAD: Duration = Duration::from_millis(20);
/// How long heartbeats that were due within the window are waited for after it.
const DRAIN_PATIENCE: Duration = Duration::from_secs(3);
/// Between looks at whether they have arrived.
const DRAIN_STEP: Duration = Duration::from_millis(2);
/// Between live lines.
const SECOND: Duration = Duration::from_secs(1);

/// What one run is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) point: Point,
    pub(crate) variant: Variant,
    pub(crate) seed: u64,
    /// Measured; the warm-up comes before it.
    pub(crate) length: Duration,
}

/// A live report.
#[derive(Clone, Debug)]
pub(crate) struct Second {
    /// Time since the last one.
    pub(super) passed: Duration,
    /// Whether it counts, or belongs to the warm-up.
    pub(super) measuring: bool,
    /// Payload received in it, bits per second.
    pub(super) goodput_bps: f64,
    /// Heartbeats in it.
    pub(super) recent: Recent,
}

/// What one run measured.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) samples: Samples,
    pub(crate) counts: Counts,
    pub(crate) payload_bytes: u64,
    /// Frame bytes that the receiver's port took off the link.
    pub(crate) link_bytes: u64,
    pub(crate) time: Duration,
    pub(crate) cpu_seconds: f64,
    pub(crate) retransmits: u64,
}

/// What is measured: two ends with load and heartbeats between them.
pub(crate) trait Subject {
    /// What both ends count in.
    fn tally(&self) -> &Tally;
    /// Raised when the connection is lost.
    fn lost(&self) -> &Signal;
    /// Frame bytes that the receiver took off the link.
    fn link_bytes(&self) -> u64;
    /// Segments that the sender has repeated; of QUIC, packets that it took for lost.
    fn retransmits(&self) -> u64;
}

impl Subject for Pair {
    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn lost(&self) -> &Signal {
        &self.session.lost
    }

    fn link_bytes(&self) -> u64 {
        match (self.lab.hosts(), self.receiver.shards()) {
            (Some(hosts), _) => hosts.received_bytes(),
            (None, Some(shards)) => shards.statistics().port().rx_bytes,
            (None, None) => 0,
        }
    }

    fn retransmits(&self) -> u64 {
        self.connection.occupancy().send.retransmits
    }
}

/// The subject while it is measured.
struct World<'a> {
    subject: &'a dyn Subject,
}

/// Readings at an instant; differences of two are what was measured between them.
struct Reading {
    at: outrider_drivers::time::Instant,
    payload_bytes: u64,
    link_bytes: u64,
    retransmits: u64,
    cpu_seconds: f64,
}

impl Plan {
    /// Runs it; `each_second` is called about every second.
    pub(super) fn run(&self, each_second: &mut dyn FnMut(&Second)) -> Result<Measured, BenchError> {
        let Plan { point, variant, seed, .. } = *self;
        #[cfg(feature = "peers")]
        if variant.is_peer() {
            return crate::peers::run(self, each_second);
        }
        let plan = PairPlan { point, variant, seed, health: None };
        let mut pair = Pair::connect(plan, plan.lab()?, |receiver| Arc::new(receiver))?;
        pair.connect_separately()?;
        let traffic = pair.start(true)?;
        let measured = self.measure(&pair, each_second);
        pair.take_down(traffic)?;
        measured
    }

    /// Measures what is running, load and heartbeats included.
    pub(crate) fn measure(
        &self,
        subject: &dyn Subject,
        each_second: &mut dyn FnMut(&Second),
    ) -> Result<Measured, BenchError> {
        let world = World { subject };
        let window = &subject.tally().window;
        world.pass(WARM_UP, false, each_second)?;
        // Both ends of the window are settled before the first heartbeat in it is due: then no heartbeat is counted
        // by one node and not by the other.
        let from = now() + WINDOW_LEAD;
        window.open(from);
        window.close(from + self.length);
        world.pass(from - now(), false, each_second)?;
        let before = world.read();
        world.pass(from + self.length - now(), true, each_second)?;
        let after = world.read();
        world.drain();
        Ok(world.measured(&before, &after))
    }
}

impl World<'_> {
    /// Lets `length` pass, reporting about every second.
    fn pass(
        &self,
        length: Duration,
        measuring: bool,
        each_second: &mut dyn FnMut(&Second),
    ) -> Result<(), BenchError> {
        let end = now() + length;
        loop {
            stop::check()?;
            let (began, bytes) = (now(), self.subject.tally().payload_bytes());
            let left = end - began;
            if left.is_zero() {
                return Ok(());
            }
            if self.subject.lost().wait(left.min(SECOND)) {
                return Err(BenchError::failed("the connection was lost while it was measured"));
            }
            let passed = now() - began;
            let received = self.subject.tally().payload_bytes() - bytes;
            each_second(&Second {
                passed,
                measuring,
                goodput_bps: received as f64 * 8.0 / passed.as_secs_f64(),
                recent: self.subject.tally().take_recent(),
            });
        }
    }

    fn read(&self) -> Reading {
        Reading {
            at: now(),
            payload_bytes: self.subject.tally().payload_bytes(),
            link_bytes: self.subject.link_bytes(),
            retransmits: self.subject.retransmits(),
            cpu_seconds: cpu_seconds(),
        }
    }

    /// Waits for heartbeats that were due within the window and are still on their way. The load goes on meanwhile.
    fn drain(&self) {
        let deadline = now() + DRAIN_PATIENCE;
        loop {
            let counts = self.subject.tally().counts();
            if counts.received >= counts.sent || now() >= deadline {
                return;
            }
            std::thread::sleep(DRAIN_STEP);
        }
    }

    fn measured(&self, before: &Reading, after: &Reading) -> Measured {
        Measured {
            samples: self.subject.tally().distributions(),
            counts: self.subject.tally().counts(),
            payload_bytes: after.payload_bytes - before.payload_bytes,
            link_bytes: after.link_bytes - before.link_bytes,
            time: after.at - before.at,
            cpu_seconds: after.cpu_seconds - before.cpu_seconds,
            retransmits: after.retransmits - before.retransmits,
        }
    }
}
