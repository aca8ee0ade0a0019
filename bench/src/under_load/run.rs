//! One run: a world is built, loaded, measured and taken down.

use std::sync::Arc;
use std::time::Duration;

use super::pair::{Pair, PairPlan};
use super::tally::{Counts, Recent, Samples};
use super::{Point, Variant};
use crate::error::BenchError;
use crate::host::cpu_seconds;
use crate::node::now;
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
pub(super) struct Plan {
    pub(super) point: Point,
    pub(super) variant: Variant,
    pub(super) seed: u64,
    /// Measured; the warm-up comes before it.
    pub(super) length: Duration,
}

/// A live report.
#[derive(Clone, Debug)]
pub(super) struct Second {
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

/// The pair while it is measured.
struct World {
    pair: Pair,
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
        let plan = PairPlan { point, variant, seed, health: None };
        let mut pair = Pair::connect(plan, plan.lab()?, |receiver| Arc::new(receiver))?;
        pair.connect_separately()?;
        let traffic = pair.start(true)?;
        let world = World { pair };
        let measured = self.measure(&world, each_second);
        world.pair.take_down(traffic)?;
        measured
    }

    fn measure(&self, world: &World, each_second: &mut dyn FnMut(&Second)) -> Result<Measured, BenchError> {
        world.pass(WARM_UP, false, each_second)?;
        // Both ends of the window are settled before the first heartbeat in it is due: then no heartbeat is counted
        // by one node and not by the other.
        let from = now() + WINDOW_LEAD;
        world.pair.tally.window.open(from);
        world.pair.tally.window.close(from + self.length);
        world.pass(from - now(), false, each_second)?;
        let before = world.read();
        world.pass(from + self.length - now(), true, each_second)?;
        let after = world.read();
        world.drain();
        Ok(world.measured(&before, &after))
    }
}

impl World {
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
            let (began, bytes) = (now(), self.pair.tally.payload_bytes());
            let left = end - began;
            if left.is_zero() {
                return Ok(());
            }
            if self.pair.session.lost.wait(left.min(SECOND)) {
                return Err(BenchError::failed("the connection was lost while it was measured"));
            }
            let passed = now() - began;
            let received = self.pair.tally.payload_bytes() - bytes;
            each_second(&Second {
                passed,
                measuring,
                goodput_bps: received as f64 * 8.0 / passed.as_secs_f64(),
                recent: self.pair.tally.take_recent(),
            });
        }
    }

    fn read(&self) -> Reading {
        Reading {
            at: now(),
            payload_bytes: self.pair.tally.payload_bytes(),
            link_bytes: self.link_bytes(),
            retransmits: self.pair.connection.occupancy().send.retransmits,
            cpu_seconds: cpu_seconds(),
        }
    }

    /// Frame bytes that the receiver took off the link.
    fn link_bytes(&self) -> u64 {
        match (self.pair.lab.hosts(), self.pair.receiver.shards()) {
            (Some(hosts), _) => hosts.received_bytes(),
            (None, Some(shards)) => shards.statistics().port().rx_bytes,
            (None, None) => 0,
        }
    }

    /// Waits for heartbeats that were due within the window and are still on their way. The load goes on meanwhile.
    fn drain(&self) {
        let deadline = now() + DRAIN_PATIENCE;
        loop {
            let counts = self.pair.tally.counts();
            if counts.received >= counts.sent || now() >= deadline {
                return;
            }
            std::thread::sleep(DRAIN_STEP);
        }
    }

    fn measured(&self, before: &Reading, after: &Reading) -> Measured {
        Measured {
            samples: self.pair.tally.distributions(),
            counts: self.pair.tally.counts(),
            payload_bytes: after.payload_bytes - before.payload_bytes,
            link_bytes: after.link_bytes - before.link_bytes,
            time: after.at - before.at,
            cpu_seconds: after.cpu_seconds - before.cpu_seconds,
            retransmits: after.retransmits - before.retransmits,
        }
    }
}
