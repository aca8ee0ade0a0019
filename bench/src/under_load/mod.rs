//! The main experiment: heartbeats on a connection that is saturated with messages.
//!
//! A *point* is one setting of every option, a *variant* one way to send heartbeats. The variants of a point alternate
//! in *slices* of a few seconds, each in a world of its own (nodes, link, connection), so that whatever else the
//! machine does meets all of them alike.

mod ends;
mod heartbeats;
mod load;
mod slice;
mod tally;

use std::time::Duration;

use clap::ValueEnum;
use outrider_messenger::transport::KernelConfig;
use outrider_stack::tcp::congestion::Algorithm;

use crate::error::BenchError;
use crate::lab::{Lab, LinkKind};
use crate::progress::Progress;
use crate::report::{Heartbeat, HeartbeatResult, Ratio};
use crate::table;
use crate::units::{Rate, Share, Size, Span};

pub(crate) use ends::{Departures, Receiver, Sender};
pub(crate) use heartbeats::{Heartbeats, OPS, register};
pub(crate) use load::{Load, RightOfWay};
use slice::Slice;
pub(crate) use slice::{
    CONNECT_PATIENCE, PORT, PREFIX, RECEIVER, SENDER, WARM_UP, dial, dial_separate, start_nodes,
};
pub(crate) use tally::{Counts, Samples, Tally};

/// How heartbeats travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// Out of band: at the head of the next segment.
    Oob,
    /// In order, as messages of default priority.
    Fifo,
    /// On a connection of their own; over --link afxdp, of the kernel's sockets.
    Separate,
    /// Out of band over a kernel socket with a low unsent mark: what `oob` is over --link kernel (kernel, afxdp).
    Lowat,
}

impl Variant {
    /// As options and results spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Variant::Oob => "oob",
            Variant::Fifo => "fifo",
            Variant::Separate => "separate",
            Variant::Lowat => "lowat",
        }
    }

    /// Refuses what `link` cannot carry.
    pub(crate) fn check(self, link: LinkKind) -> Result<(), BenchError> {
        if self == Variant::Lowat && !self.is_over_sockets(link) {
            return Err(BenchError::usage(format!(
                "--variant lowat is about the kernel's sockets, and --link {} has none; give --link kernel or afxdp",
                link.name()
            )));
        }
        Ok(())
    }

    /// Whether the ends of `link` are the kernel's sockets for it, and not ports with our own TCP: what our design is
    /// compared with is done as it is done today.
    fn is_over_sockets(self, link: LinkKind) -> bool {
        match link {
            LinkKind::Kernel => true,
            LinkKind::Afxdp => matches!(self, Variant::Lowat | Variant::Separate),
            LinkKind::Memory | LinkKind::Tap => false,
        }
    }

    /// Builds the link of `point` with the ends that it needs.
    pub(crate) fn lab(self, point: &Point, seed: u64) -> Result<Lab, BenchError> {
        let addresses = [(SENDER, PREFIX), (RECEIVER, PREFIX)];
        if self.is_over_sockets(point.link) {
            Lab::between_hosts(point, addresses)
        } else {
            Lab::of_ports(point, seed)
        }
    }

    /// How the kernel's sockets are used where they carry it: with little left to the kernel where heartbeats go out of
    /// band, and as the system has them otherwise.
    pub(crate) fn kernel_config(self, congestion: Algorithm) -> KernelConfig {
        let congestion = Some(congestion.name().to_owned());
        let config = KernelConfig { congestion, ..KernelConfig::default() };
        match self {
            Variant::Oob | Variant::Lowat => config,
            Variant::Fifo | Variant::Separate => KernelConfig { unsent_low_water_bytes: None, ..config },
        }
    }
}

/// One setting of every option.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// What carries the frames.
    pub(crate) link: LinkKind,
    /// Rate of the bottleneck.
    pub(crate) rate: Rate,
    /// One way.
    pub(crate) delay: Span,
    /// Bottleneck queue.
    pub(crate) queue: Size,
    /// Share of frames lost, each way.
    pub(crate) loss: Share,
    /// Between heartbeats.
    pub(crate) interval: Span,
    /// Congestion control of both ends.
    pub(crate) congestion: Algorithm,
    /// Payload of a message of the load.
    pub(crate) message_size: Size,
    /// Bytes a connection may hold, unsent and in flight.
    pub(crate) send_budget: Size,
}

/// A heartbeat experiment at one point.
#[derive(Debug)]
pub(crate) struct Experiment<'a> {
    /// The setting.
    pub(crate) point: Point,
    /// Its name among the results: the values of those options that were given as lists.
    pub(crate) name: serde_json::Map<String, serde_json::Value>,
    /// What is compared.
    pub(crate) variants: &'a [Variant],
    /// Measured per variant.
    pub(crate) length: Duration,
    /// Seed of the first slice; each further one takes the next.
    pub(crate) seed: u64,
    /// Print a line per second (on a terminal).
    pub(crate) live: bool,
}

/// Length of a slice that alternation aims at, and slices per variant at most.
const SLICE: Duration = Duration::from_secs(2);
const SLICES_MAX: u32 = 100;

impl Experiment<'_> {
    /// Slices per variant.
    fn slices(&self) -> u32 {
        let wanted = (self.length.as_secs_f64() / SLICE.as_secs_f64()).round();
        (wanted as u32).clamp(1, SLICES_MAX)
    }

    /// Wall time it will take, for the progress bar.
    pub(crate) fn duration(&self) -> Duration {
        (self.length + WARM_UP * self.slices()) * self.variants.len() as u32
    }

    /// Runs all slices; results come in the order of `variants`.
    pub(crate) fn run(&self, progress: &Progress) -> Result<Vec<HeartbeatResult>, BenchError> {
        let slices = self.slices();
        let mut sums = vec![Slice::default(); self.variants.len()];
        let mut seed = self.seed;
        for number in 1..=slices {
            for (variant, sum) in self.variants.iter().zip(&mut sums) {
                progress.set(format!(
                    "{} over {}, {number} of {slices}",
                    variant.name(),
                    self.point.link.name()
                ));
                let plan =
                    slice::Plan { point: self.point, variant: *variant, seed, length: self.length / slices };
                sum.add(&plan.run(&mut |second| {
                    progress.advance(second.passed);
                    if self.live && second.measuring {
                        progress.line(&live_line(variant.name(), second));
                    }
                })?);
                seed = seed.wrapping_add(1);
            }
        }
        Ok(self.variants.iter().zip(&sums).map(|(variant, sum)| self.result(*variant, sum)).collect())
    }

    fn result(&self, variant: Variant, sum: &Slice) -> HeartbeatResult {
        let seconds = sum.measured.as_secs_f64();
        let rate = self.point.rate.0;
        let received = sum.counts.received;
        HeartbeatResult {
            variant: variant.name(),
            point: self.name.clone(),
            goodput_bps: sum.payload_bytes as f64 * 8.0 / seconds,
            link_utilisation: (rate > 0).then(|| sum.link_bytes as f64 * 8.0 / seconds / rate as f64),
            heartbeat: Heartbeat {
                sent: sum.counts.sent,
                received,
                superseded: sum.counts.superseded,
                parts_per_message: sum.counts.parts_received as f64 / received.max(1) as f64,
                one_way_us: sum.samples.one_way.percentiles(),
                rtt_us: sum.samples.rtt.percentiles(),
            },
            occupancy_bytes: sum.samples.occupancy.spread(),
            cpu_seconds: sum.cpu_seconds,
            seconds,
            retransmits: sum.retransmits,
        }
    }
}

fn live_line(variant: &str, second: &slice::Second) -> String {
    let delays = match second.recent.one_way.percentiles() {
        Some(delays) => format!("p50 {:>9}  max {:>9}", table::micros(delays.p50), table::micros(delays.max)),
        None => "none arrived".to_owned(),
    };
    format!(
        "{variant:<5} heartbeat {delays}   goodput {:>12}   occupancy at most {:>9}",
        table::bits_per_second(second.goodput_bps),
        table::bytes(second.recent.occupancy_max)
    )
}

/// Sets every variant against the first, `oob` where there is one.
pub(crate) fn ratios(results: &[HeartbeatResult]) -> Vec<Ratio> {
    let Some(base) = results.iter().find(|r| r.variant == "oob").or(results.first()) else {
        return Vec::new();
    };
    results.iter().filter(|r| r.variant != base.variant).filter_map(|r| Ratio::between(base, r)).collect()
}

/// Fails if a result shows that nothing came through: then the experiment has not taken place.
pub(crate) fn check(results: &[HeartbeatResult]) -> Result<(), BenchError> {
    for result in results {
        if result.heartbeat.received == 0 || result.goodput_bps == 0.0 {
            return Err(BenchError::failed(format!(
                "{}: of {} heartbeats {} arrived, goodput {:.0} bit/s; try a longer --seconds, less --loss or a larger --queue",
                result.variant, result.heartbeat.sent, result.heartbeat.received, result.goodput_bps
            )));
        }
    }
    Ok(())
}
