//! Round trips of one small unit, by who carries it: the bare port, our TCP over such a port, the kernel's TCP.
//!
//! Each run has a link of its own; a run begins to count after its first [`WARM_UP`].

mod kernel;
mod outrider;
mod raw;

use std::time::Duration;

use clap::ValueEnum;
use outrider_drivers::time::Instant;
use outrider_stack::shard::Polling;

use crate::error::BenchError;
use crate::measure::Latencies;
use crate::node::{ADAPTIVE, now};
use crate::under_load::Point;

/// Rounds before this time do not count.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);
/// How long the first answer may take, and any other.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Who carries the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Carrier {
    /// The port itself, without TCP.
    Raw,
    /// Outrider's TCP over such a port; both ends answer on their shards.
    Outrider,
    /// The kernel's TCP over the same middle; its readers spin, with SO_BUSY_POLL, when polling is busy (afxdp).
    Kernel,
}

impl Carrier {
    /// As options and results spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Carrier::Raw => "raw",
            Carrier::Outrider => "outrider",
            Carrier::Kernel => "kernel",
        }
    }
}

/// How both ends wait for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wait {
    /// They look without end.
    Busy,
    /// They look for a moment and then sleep.
    Adaptive,
}

impl Wait {
    /// What it is to a shard.
    pub(crate) fn polling(self) -> Polling {
        match self {
            Wait::Busy => Polling::Busy,
            Wait::Adaptive => ADAPTIVE,
        }
    }

    /// As options and results spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Wait::Busy => "busy",
            Wait::Adaptive => "adaptive",
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) point: &'a Point,
    pub(crate) wait: Wait,
    /// Payload: of the frame behind its header, or of TCP.
    pub(crate) bytes: usize,
    pub(crate) length: Duration,
    pub(crate) seed: u64,
}

impl Plan<'_> {
    /// Measures `carrier`.
    pub(crate) fn run(&self, carrier: Carrier) -> Result<Latencies, BenchError> {
        match carrier {
            Carrier::Raw => raw::run(self),
            Carrier::Outrider => outrider::run(self),
            Carrier::Kernel => kernel::run(self),
        }
    }
}

/// Counts rounds from the end of the warm-up to the end of the run.
#[derive(Debug)]
struct Rounds {
    from: Instant,
    until: Instant,
    latencies: Latencies,
}

impl Rounds {
    /// Begins now.
    fn start(length: Duration) -> Self {
        let from = now() + WARM_UP;
        Rounds { from, until: from + length, latencies: Latencies::default() }
    }

    /// A round has ended; returns whether there is to be another.
    fn record(&mut self, began: Instant, ended: Instant) -> bool {
        if began >= self.from {
            self.latencies.record(ended - began);
        }
        ended < self.until
    }
}
