//! `pingpong`: round trips of something small, by who carries it.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::pump::bare_point;
use crate::cli::Common;
use crate::error::BenchError;
use crate::lab::LinkKind;
use crate::measure::Percentiles;
use crate::pingpong::{Carrier, Plan, WARM_UP, Wait};
use crate::report::{Report, check_writable, publish};
use crate::runs::{
    Figure, Figures, Key, REPEAT, Ratio, Repeated, Repeating, Session, Visit, ratio_table, spread_table,
};
use crate::table;
use crate::units::{Rate, Size};

/// Measured in each run unless `--seconds` says otherwise.
const SECONDS: f64 = 1.0;
/// What fits into one frame of an MTU of 1500 with every header of TCP.
const BYTES_MAX: u64 = 1400;

/// Options of `pingpong`. Those marked (list) take several values separated by commas: one result for each.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    repeating: Repeating,
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

impl Figures for PingResult {
    fn label(&self) -> String {
        format!("{} {}", self.variant, self.poll)
    }

    fn figures(&mut self, visit: &mut Visit<'_>) {
        // Exhaustive, so that a new figure cannot be forgotten here.
        let PingResult { variant: _, poll: _, rounds, rtt_us } = self;
        if let Some(rtt) = rtt_us {
            rtt.figures("rtt_us", visit);
        }
        visit("rounds", Figure::TotalCount(rounds));
    }
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let carriers = arguments.carriers()?;
    let common = &arguments.common;
    check_writable(common)?;
    let length = Duration::from_secs_f64(common.seconds.unwrap_or(SECONDS));
    let point = bare_point(arguments.link, arguments.rate, Size(1_000_000));
    point.link.check(&point)?;
    let once = (WARM_UP + length) * (arguments.poll.len() * carriers.len()) as u32;
    let mut session = Session::begin("pingpong", &arguments.repeating, REPEAT, once)?;
    let mut results = Vec::new();
    for wait in &arguments.poll {
        results.extend(session.medians(&carriers, |carrier, turn, progress| {
            progress.set(format!("{} {}, run {turn}", carrier.name(), wait.name()));
            let bytes = usize::try_from(arguments.size.0).unwrap_or(usize::MAX);
            let plan = Plan { point: &point, wait: *wait, bytes, length, seed: turn.seed(common.seed) };
            let latencies = plan.run(*carrier)?;
            progress.advance(WARM_UP + length);
            Ok(PingResult {
                variant: carrier.name(),
                poll: wait.name(),
                rounds: latencies.count(),
                rtt_us: latencies.percentiles(),
            })
        })?);
    }
    let conditions = session.end();
    let ratios = ratios(&results, conditions.noise_relative());
    let text = tables(&results, &ratios);
    let parameters = arguments.parameters(&carriers, length);
    let report = Report::new("pingpong", arguments.link.name(), parameters, results);
    publish(common, &report.under(conditions, ratios), &text)
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
            ("repeat", json!(self.repeating.runs(REPEAT))),
        ];
        parameters.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// What is compared.
const RATIOS: [Key; 2] = [Key::new("rtt_p50", "rtt_us.p50"), Key::new("rtt_p99", "rtt_us.p99")];

/// Each carrier over the one before it in the list, if they waited alike.
fn ratios(results: &[Repeated<PingResult>], noise: f64) -> Vec<Ratio> {
    let pairs = results.windows(2).filter(|pair| pair[0].poll == pair[1].poll);
    pairs
        .map(|pair| {
            let of = format!("{}/{}", pair[1].variant, pair[0].variant);
            let point = [("poll".to_owned(), json!(pair[0].poll))].into_iter().collect();
            Ratio::between(of, &point, [&pair[1], &pair[0]], &RATIOS, noise)
        })
        .collect()
}

fn tables(results: &[Repeated<PingResult>], ratios: &[Ratio]) -> String {
    let micros = |value: f64| format!("{value:.1} us");
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|result| {
            let figures = result.rtt_us.map_or_else(
                || vec!["-".to_owned(); 5],
                |rtt| [rtt.p50, rtt.p90, rtt.p99, rtt.p999, rtt.max].map(micros).to_vec(),
            );
            let mut row = vec![result.label()];
            row.extend(figures);
            row.push(result.rounds.to_string());
            row
        })
        .collect();
    let header = ["variant", "p50", "p90", "p99", "p99.9", "max", "rounds"];
    let mut text = format!("\nRound trips\n{}", table::numbers(&header, &rows));
    text += &spread_table(results, &[("rtt_us.p50", "p50"), ("rtt_us.p99", "p99")]);
    text + &ratio_table(ratios, &[("rtt_p50", "p50"), ("rtt_p99", "p99")])
}
