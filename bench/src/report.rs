//! What an experiment found: one JSON object for machines, and where it and the table go.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::Common;
use crate::error::BenchError;
use crate::host::Host;
use crate::measure::{Percentiles, Spread};

/// The result of one run of the tool.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report<R> {
    /// Name of the command.
    pub(crate) experiment: &'static str,
    /// Links it ran over, separated by commas.
    pub(crate) link: String,
    /// Every option as it was used, defaults included.
    pub(crate) parameters: Map<String, Value>,
    /// The machine.
    pub(crate) host: Host,
    /// One entry per variant and point.
    pub(crate) results: Vec<R>,
    /// Variants of one point set against each other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ratios: Vec<Ratio>,
}

/// What happened to heartbeats under load, for one variant at one point.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HeartbeatResult {
    /// How heartbeats travelled.
    pub(crate) variant: &'static str,
    /// The values of the list options at this point, each under its own name.
    #[serde(flatten)]
    pub(crate) point: Map<String, Value>,
    /// Message payload received, bits per second.
    pub(crate) goodput_bps: f64,
    /// Frame bytes that came out of the link, as the link itself counts them, over what its rate allows; `null`
    /// when the rate is unlimited.
    pub(crate) link_utilisation: Option<f64>,
    /// The heartbeats.
    pub(crate) heartbeat: Heartbeat,
    /// Unsent bytes and bytes in flight on the loaded connection, as the heartbeats reported them.
    pub(crate) occupancy_bytes: Option<Spread>,
    /// Processor time of this process (both nodes, load and link) while measuring.
    pub(crate) cpu_seconds: f64,
    /// Length of the measurement.
    pub(crate) seconds: f64,
    /// Segments retransmitted while measuring.
    pub(crate) retransmits: u64,
}

/// Heartbeats of one variant at one point. Those that were due within the measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Heartbeat {
    /// Left the sender.
    pub(crate) sent: u64,
    /// Reached the peer.
    pub(crate) received: u64,
    /// Turns that passed while an earlier one had not left yet.
    pub(crate) superseded: u64,
    /// Registered ops per heartbeat, on average.
    pub(crate) parts_per_message: f64,
    /// From the instant it was due until the peer had it.
    pub(crate) one_way_us: Option<Percentiles>,
    /// From the instant it was due until its echo was back, less the time the peer held it.
    pub(crate) rtt_us: Option<Percentiles>,
}

/// Two variants of one point set against each other: how many times larger the first is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ratio {
    /// Such as `fifo/oob`.
    pub(crate) of: String,
    /// The values of the list options at this point.
    #[serde(flatten)]
    pub(crate) point: Map<String, Value>,
    /// Of the median one-way delay.
    pub(crate) one_way_p50: f64,
    /// Of the 99th percentile.
    pub(crate) one_way_p99: f64,
    /// Of the largest.
    pub(crate) one_way_max: f64,
    /// Of the goodput.
    pub(crate) goodput: f64,
}

impl Ratio {
    /// `other` over `base`; `None` unless both have delays.
    pub(crate) fn between(base: &HeartbeatResult, other: &HeartbeatResult) -> Option<Self> {
        let (below, above) = (base.heartbeat.one_way_us?, other.heartbeat.one_way_us?);
        let over = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        Some(Ratio {
            of: format!("{}/{}", other.variant, base.variant),
            point: other.point.clone(),
            one_way_p50: over(above.p50, below.p50),
            one_way_p99: over(above.p99, below.p99),
            one_way_max: over(above.max, below.max),
            goodput: over(other.goodput_bps, base.goodput_bps),
        })
    }
}

/// Opens the JSON file early, so that an unwritable one is found before the experiment and not after it.
pub(crate) fn check_writable(common: &Common) -> Result<(), BenchError> {
    match &common.json {
        Some(path) if path != Path::new("-") => {
            std::fs::File::create(path).map(drop).map_err(|error| cannot_write(path, &error))
        }
        _ => Ok(()),
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> BenchError {
    BenchError::failed(format!(
        "cannot write {}: {error}; give --json a file in a folder that exists and is writable",
        path.display()
    ))
}

/// Prints `table` for people and writes `report` where `--json` wants it.
pub(crate) fn publish(common: &Common, report: &impl Serialize, table: &str) -> Result<(), BenchError> {
    let to_stdout = common.json.as_deref() == Some(Path::new("-"));
    if to_stdout {
        eprint!("{table}");
    } else {
        print_stdout(table)?;
    }
    let Some(path) = &common.json else { return Ok(()) };
    let mut text = serde_json::to_string_pretty(report)
        .map_err(|error| BenchError::failed(format!("cannot put the result into JSON: {error}")))?;
    text.push('\n');
    if to_stdout {
        print_stdout(&text)
    } else {
        std::fs::write(path, text).map_err(|error| cannot_write(path, &error))
    }
}

/// Writes to standard output, taking a closed pipe for the error it is (`println!` would panic).
pub(crate) fn print_stdout(text: &str) -> Result<(), BenchError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| BenchError::failed(format!("cannot write to standard output: {error}")))
}
