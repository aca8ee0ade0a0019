//! The main experiment: heartbeats on a connection that is saturated with messages.
//!
//! A *point* is one setting of every option, a *variant* one way to send heartbeats. The variants of a point take turns in
//! *runs*, each in a world of its own (nodes, link, connection), so that whatever else the machine does meets all of them
//! alike.

mod ends;
mod heartbeats;
mod load;
mod pair;
mod run;
mod tally;

use std::time::Duration;

use clap::ValueEnum;
use outrider_messenger::transport::KernelConfig;
use outrider_stack::tcp::congestion::Algorithm;

use crate::error::BenchError;
use crate::lab::LinkKind;
use crate::report::{Heartbeat, HeartbeatResult};
use crate::runs::{Key, Ratio, Repeated, Session};
use crate::table;
use crate::units::{Rate, Share, Size, Span};

pub(crate) use ends::{Departures, Receiver, Sender};
pub(crate) use heartbeats::{OPS, register};
pub(crate) use load::{Load, RightOfWay};
pub(crate) use pair::{CONNECT_PATIENCE, PORT, Pair, PairPlan, RECEIVER, SENDER, Traffic};
use run::Measured;
pub(crate) use run::WARM_UP;
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
    pub(crate) fn is_over_sockets(self, link: LinkKind) -> bool {
        match link {
            LinkKind::Kernel => true,
            LinkKind::Afxdp => matches!(self, Variant::Lowat | Variant::Separate),
            LinkKind::Memory | LinkKind::Tap => false,
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
    /// Measured in each run.
    pub(crate) length: Duration,
    /// Seed of the first turn; each further one takes the next.
    pub(crate) seed: u64,
    /// Print a line per second (on a terminal).
    pub(crate) live: bool,
}

impl Experiment<'_> {
    /// Wall time that one run of every variant takes, for the progress bar.
    pub(crate) fn duration(&self) -> Duration {
        (self.length + WARM_UP) * self.variants.len() as u32
    }

    /// Runs it; results come in the order of `variants`.
    pub(crate) fn run(&self, session: &mut Session) -> Result<Vec<Repeated<HeartbeatResult>>, BenchError> {
        session.medians(self.variants, |variant, turn, progress| {
            progress.set(format!("{} over {}, run {turn}", variant.name(), self.point.link.name()));
            let seed = turn.seed(self.seed);
            let plan = run::Plan { point: self.point, variant: *variant, seed, length: self.length };
            let measured = plan.run(&mut |second| {
                progress.advance(second.passed);
                if self.live && second.measuring {
                    progress.line(&live_line(variant.name(), second));
                }
            })?;
            Ok(self.result(*variant, &measured))
        })
    }

    fn result(&self, variant: Variant, measured: &Measured) -> HeartbeatResult {
        let seconds = measured.time.as_secs_f64();
        let rate = self.point.rate.0;
        let received = measured.counts.received;
        HeartbeatResult {
            variant: variant.name(),
            point: self.name.clone(),
            goodput_bps: measured.payload_bytes as f64 * 8.0 / seconds,
            link_utilisation: (rate > 0).then(|| measured.link_bytes as f64 * 8.0 / seconds / rate as f64),
            heartbeat: Heartbeat {
                sent: measured.counts.sent,
                received,
                superseded: measured.counts.superseded,
                parts_per_message: measured.counts.parts_received as f64 / received.max(1) as f64,
                one_way_us: measured.samples.one_way.percentiles(),
                rtt_us: measured.samples.rtt.percentiles(),
            },
            occupancy_bytes: measured.samples.occupancy.spread(),
            cpu_seconds: measured.cpu_seconds,
            seconds,
            retransmits: measured.retransmits,
        }
    }
}

fn live_line(variant: &str, second: &run::Second) -> String {
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

/// What is compared.
const RATIOS: [Key; 4] = [
    Key::new("one_way_p50", "heartbeat.one_way_us.p50"),
    Key::new("one_way_p99", "heartbeat.one_way_us.p99"),
    Key::new("one_way_max", "heartbeat.one_way_us.max"),
    Key::new("goodput", "goodput_bps"),
];

/// Sets every variant of a point against the first, `oob` where there is one.
pub(crate) fn ratios(results: &[Repeated<HeartbeatResult>], noise: f64) -> Vec<Ratio> {
    let Some(base) = results.iter().find(|r| r.variant == "oob").or(results.first()) else {
        return Vec::new();
    };
    let others = results.iter().filter(|result| result.variant != base.variant);
    others
        .map(|other| {
            let of = format!("{}/{}", other.variant, base.variant);
            Ratio::between(of, &other.point, [other, base], &RATIOS, noise)
        })
        .collect()
}

/// Fails if a result shows that nothing came through: then the experiment has not taken place.
pub(crate) fn check(results: &[Repeated<HeartbeatResult>]) -> Result<(), BenchError> {
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
