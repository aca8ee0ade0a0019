//! What an experiment found: one JSON object for machines, and where it and the table go.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::Common;
use crate::error::BenchError;
use crate::host::Host;
use crate::measure::{Percentiles, Spread};
use crate::runs::against::{Against, Verdict};
use crate::runs::{Conditions, Figure, Figures, Ratio, Visit, label};

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
    /// `noise` and `interrupted`, where runs were repeated.
    #[serde(flatten)]
    pub(crate) conditions: Option<Conditions>,
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

impl Figures for HeartbeatResult {
    fn label(&self) -> String {
        label(self.variant, &self.point)
    }

    fn figures(&mut self, visit: &mut Visit<'_>) {
        // Exhaustive, so that a new figure cannot be forgotten here.
        let HeartbeatResult {
            variant: _,
            point: _,
            goodput_bps,
            link_utilisation,
            heartbeat,
            occupancy_bytes,
            cpu_seconds,
            seconds,
            retransmits,
        } = self;
        let Heartbeat { sent, received, superseded, parts_per_message, one_way_us, rtt_us } = heartbeat;
        visit("goodput_bps", Figure::Median(goodput_bps));
        if let Some(share) = link_utilisation {
            visit("link_utilisation", Figure::Median(share));
        }
        if let Some(one_way) = one_way_us {
            one_way.figures("heartbeat.one_way_us", visit);
        }
        if let Some(rtt) = rtt_us {
            rtt.figures("heartbeat.rtt_us", visit);
        }
        if let Some(occupancy) = occupancy_bytes {
            visit("occupancy_bytes.p50", Figure::MedianCount(&mut occupancy.p50));
            visit("occupancy_bytes.max", Figure::LargestCount(&mut occupancy.max));
        }
        visit("heartbeat.parts_per_message", Figure::Median(parts_per_message));
        for (path, count) in [("sent", sent), ("received", received), ("superseded", superseded)] {
            visit(&format!("heartbeat.{path}"), Figure::TotalCount(count));
        }
        visit("cpu_seconds", Figure::Total(cpu_seconds));
        visit("seconds", Figure::Total(seconds));
        visit("retransmits", Figure::TotalCount(retransmits));
    }
}

impl<R> Report<R> {
    /// A report of what this machine found.
    pub(crate) fn new(
        experiment: &'static str,
        link: impl Into<String>,
        parameters: Map<String, Value>,
        results: Vec<R>,
    ) -> Self {
        Report {
            experiment,
            link: link.into(),
            parameters,
            host: Host::this(),
            conditions: None,
            results,
            ratios: Vec::new(),
        }
    }

    /// With what a [`crate::runs::Session`] found about the circumstances, and ratios that hold under them.
    pub(crate) fn under(self, conditions: Conditions, ratios: Vec<Ratio>) -> Self {
        Report { conditions: Some(conditions), ratios, ..self }
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
        "cannot write {}: {error}; --json and DIR want a folder that exists and is writable",
        path.display()
    ))
}

/// Prints `table` for people and writes `report` where `--json` wants it, with how quiet the machine was and how the
/// result agrees with an earlier one.
///
/// # Errors
/// It cannot be written; then [`BenchError::Interrupted`] if the runs were; then that it differs from the earlier one.
pub(crate) fn publish<R: Serialize>(
    common: &Common,
    report: &Report<R>,
    table: &str,
) -> Result<(), BenchError> {
    let mut table = table.to_owned();
    let mut against = None;
    if let Some(Conditions { noise, interrupted, earlier }) = &report.conditions {
        if let Some(noise) = noise {
            table += &format!("\n{}", noise.told());
        }
        if *interrupted {
            table += "Interrupted: the figures are of what was finished.\n";
        }
        if let Some(earlier) = earlier {
            let value = serde_json::to_value(report).map_err(|error| cannot_serialise(&error))?;
            against = Some(Against::new(earlier, &value));
        }
    }
    let compared = against.as_ref().and_then(|against| against.as_ref().ok());
    if let Some(compared) = compared {
        table += &compared.table();
    }
    write_out(common, &Whole { report, against: compared }, &table)?;
    if report.conditions.as_ref().is_some_and(|conditions| conditions.interrupted) {
        return Err(BenchError::Interrupted);
    }
    match against.transpose()? {
        Some(compared) if compared.verdict() == Verdict::Differs => Err(BenchError::failed(format!(
            "it differs from the earlier run by more than the spread of both: {}",
            compared.differing().join(", ")
        ))),
        _ => Ok(()),
    }
}

/// A report, and how it agrees with an earlier one.
#[derive(Serialize)]
struct Whole<'a, R> {
    #[serde(flatten)]
    report: &'a Report<R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<&'a Against>,
}

fn cannot_serialise(error: &serde_json::Error) -> BenchError {
    BenchError::failed(format!("cannot put the result into JSON: {error}"))
}

fn write_out(common: &Common, report: &impl Serialize, table: &str) -> Result<(), BenchError> {
    let to_stdout = common.json.as_deref() == Some(Path::new("-"));
    if to_stdout {
        eprint!("{table}");
    } else {
        print_stdout(table)?;
    }
    let Some(path) = &common.json else { return Ok(()) };
    if to_stdout { print_stdout(&pretty(report)?) } else { save(path, report) }
}

fn pretty(report: &impl Serialize) -> Result<String, BenchError> {
    serde_json::to_string_pretty(report).map(|text| text + "\n").map_err(|error| cannot_serialise(&error))
}

/// Writes `report` as JSON to a file.
pub(crate) fn save(path: &Path, report: &impl Serialize) -> Result<(), BenchError> {
    std::fs::write(path, pretty(report)?).map_err(|error| cannot_write(path, &error))
}

/// Writes to standard output, taking a closed pipe for the error it is (`println!` would panic).
pub(crate) fn print_stdout(text: &str) -> Result<(), BenchError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| BenchError::failed(format!("cannot write to standard output: {error}")))
}
