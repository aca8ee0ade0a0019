//! `pingpong`: round trips of something small, by who carries it.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::pump::bare_point;
use crate::cli::Common;
use crate::error::BenchError;
use crate::host::Host;
use crate::lab::LinkKind;
use crate::measure::{Latencies, Percentiles};
use crate::pingpong::{Carrier, Plan, WARM_UP, Wait};
use crate::progress::Progress;
use crate::report::{Report, check_writable, publish};
use crate::table;
use crate::units::{Rate, Size};

/// Measured per variant unless `--seconds` says otherwise.
const SECONDS: f64 = 3.0;
/// Variants take turns in slices of this length, so that whatever else the machine does meets all of them alike.
const SLICE: Duration = Duration::from_millis(500);
/// What fits into one frame of an MTU of 1500 with every header of TCP.
const BYTES_MAX: u64 = 1400;

/// Options of `pingpong`. Those marked (list) take several values separated by commas: one result for each.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// What carries the frames
    #[arg(long, value_enum, default_value = "afxdp")]
    link: LinkKind,
    /// How both ends wait for each other (list)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "busy,adaptive")]
    poll: Vec<Wait>,
    /// Who carries it (list; default: all that the link has)
    #[arg(long, value_enum, value_delimiter = ',')]
    variant: Vec<Carrier>,
    /// Bytes that go there and back
    #[arg(long, default_value = "64")]
    size: Size,
    /// Rate of the bottleneck
    #[arg(long, default_value = "unlimited")]
    rate: Rate,
}

/// Round trips of one carrier.
#[derive(Clone, Debug, Serialize)]
struct PingResult {
    variant: &'static str,
    poll: &'static str,
    rounds: u64,
    rtt_us: Option<Percentiles>,
}

/// Two carriers that waited alike, set against each other.
#[derive(Clone, Debug, Serialize)]
struct PingRatio {
    /// Such as `outrider/raw`.
    of: String,
    poll: &'static str,
    rtt_p50: f64,
    rtt_p99: f64,
}

#[derive(Clone, Debug, Serialize)]
struct PingReport {
    #[serde(flatten)]
    report: Report<PingResult>,
    #[serde(rename = "ratios")]
    rtt_ratios: Vec<PingRatio>,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let carriers = arguments.carriers()?;
    let common = &arguments.common;
    check_writable(common)?;
    let length = Duration::from_secs_f64(common.seconds.unwrap_or(SECONDS));
    let slices = ((length.as_secs_f64() / SLICE.as_secs_f64()).round() as u32).max(1);
    let runs = slices * (arguments.poll.len() * carriers.len()) as u32;
    let progress = Progress::new((WARM_UP + length / slices) * runs);
    let point = bare_point(arguments.link, arguments.rate, Size(1_000_000));
    point.link.check(&point)?;
    let mut results = Vec::new();
    for wait in &arguments.poll {
        let mut sums = vec![Latencies::default(); carriers.len()];
        for slice in 0..slices {
            let plan = Plan {
                point: &point,
                wait: *wait,
                bytes: usize::try_from(arguments.size.0).unwrap_or(usize::MAX),
                length: length / slices,
                seed: common.seed.wrapping_add(u64::from(slice)),
            };
            for (carrier, sum) in carriers.iter().zip(&mut sums) {
                progress.set(format!("{} {}", carrier.name(), wait.name()));
                sum.merge(&plan.run(*carrier)?);
                progress.advance(WARM_UP + plan.length);
            }
        }
        results.extend(carriers.iter().zip(&sums).map(|(carrier, sum)| PingResult {
            variant: carrier.name(),
            poll: wait.name(),
            rounds: sum.count(),
            rtt_us: sum.percentiles(),
        }));
    }
    drop(progress);
    let rtt_ratios = ratios(&results);
    let text = tables(&results, &rtt_ratios);
    let report = Report {
        experiment: "pingpong",
        link: arguments.link.name().to_owned(),
        parameters: arguments.parameters(&carriers, length),
        host: Host::this(),
        results,
        ratios: Vec::new(),
    };
    publish(common, &PingReport { report, rtt_ratios }, &text)
}

impl Arguments {
    /// Who takes part; refuses what cannot work.
    fn carriers(&self) -> Result<Vec<Carrier>, BenchError> {
        if !(1..=BYTES_MAX).contains(&self.size.0) {
            return Err(BenchError::usage(format!(
                "--size {} is out of range; 1B to {BYTES_MAX}B, what one segment holds",
                self.size
            )));
        }
        let kernel = self.link == LinkKind::Afxdp;
        if !kernel && self.variant.contains(&Carrier::Kernel) {
            return Err(BenchError::usage(format!(
                "--variant kernel has the middle of --link afxdp only, not that of {}",
                self.link.name()
            )));
        }
        if !self.variant.is_empty() {
            return Ok(self.variant.clone());
        }
        let mut carriers = vec![Carrier::Raw, Carrier::Outrider];
        carriers.extend(kernel.then_some(Carrier::Kernel));
        Ok(carriers)
    }

    fn parameters(&self, carriers: &[Carrier], length: Duration) -> Map<String, Value> {
        let parameters = [
            ("variant", json!(carriers.iter().map(|carrier| carrier.name()).collect::<Vec<_>>())),
            ("poll", json!(self.poll.iter().map(|wait| wait.name()).collect::<Vec<_>>())),
            ("bytes", json!(self.size.0)),
            ("rate_bps", json!(self.rate.0)),
            ("seed", json!(self.common.seed)),
            ("seconds", json!(length.as_secs_f64())),
        ];
        parameters.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// Each carrier over the one before it in the list, if they waited alike.
fn ratios(results: &[PingResult]) -> Vec<PingRatio> {
    let pairs = results.windows(2).filter(|pair| pair[0].poll == pair[1].poll);
    pairs
        .filter_map(|pair| {
            let (base, other) = (pair[0].rtt_us?, pair[1].rtt_us?);
            Some(PingRatio {
                of: format!("{}/{}", pair[1].variant, pair[0].variant),
                poll: pair[0].poll,
                rtt_p50: other.p50 / base.p50,
                rtt_p99: other.p99 / base.p99,
            })
        })
        .collect()
}

fn tables(results: &[PingResult], ratios: &[PingRatio]) -> String {
    let micros = |value: f64| format!("{value:.1} us");
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|result| {
            let figures = result.rtt_us.map_or_else(
                || vec!["-".to_owned(); 5],
                |rtt| [rtt.p50, rtt.p90, rtt.p99, rtt.p999, rtt.max].map(micros).to_vec(),
            );
            let mut row = vec![format!("{} {}", result.variant, result.poll)];
            row.extend(figures);
            row.push(result.rounds.to_string());
            row
        })
        .collect();
    let header = ["variant", "p50", "p90", "p99", "p99.9", "max", "rounds"];
    let mut text = format!("\nRound trips\n{}", table::numbers(&header, &rows));
    for ratio in ratios {
        text += &format!(
            "\n{} {}: p50 {:.2} times, p99 {:.2} times\n",
            ratio.of, ratio.poll, ratio.rtt_p50, ratio.rtt_p99
        );
    }
    text
}
