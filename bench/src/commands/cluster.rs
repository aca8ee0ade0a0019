//! `cluster`: what a cluster's heartbeats cost on connections of their own, and on the data connections.

use std::time::Duration;

use clap::Args;
use outrider_drivers::memory::LinkConfig;
use serde_json::{Map, Value, json};

use crate::cli::Common;
use crate::cluster::{Design, Setting, compare, run as measure, tables};
use crate::error::BenchError;
use crate::progress::Progress;
use crate::report::{Report, check_writable, publish};
use crate::runs::Conditions;
use crate::stop::Stop;
use crate::units::{Size, Span};

/// Virtual seconds measured per size and variant unless `--seconds` says otherwise.
const SECONDS: f64 = 5.0;
/// Nodes of a cluster: each has a connection to each other, or five.
const NODES: std::ops::RangeInclusive<usize> = 2..=250;
/// Sizes of one run at most.
const VALUES_MAX: usize = 16;
/// Intervals that make sense beside links of some 50 us.
const INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
/// What fits one segment besides the report that every heartbeat out of band carries.
const PAYLOAD_BYTES_MAX: u64 = 1_000;

/// Options of `cluster`. Those marked (list) take several values separated by commas: one result for each.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Nodes of the cluster, each with a data connection to each other (list)
    #[arg(long, value_delimiter = ',', default_value = "6,30,100")]
    nodes: Vec<usize>,
    /// How heartbeats travel (list)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "separate,oob")]
    variant: Vec<Design>,
    /// Between two heartbeats of a node to a peer
    #[arg(long, default_value = "1s")]
    interval: Span,
    /// What a heartbeat carries
    #[arg(long, default_value = "128B")]
    payload: Size,
    /// Delay of each node's link to the switch, one way
    #[arg(long, default_value = "25us")]
    delay: Span,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    arguments.check()?;
    check_writable(&arguments.common)?;
    let runs = arguments.nodes.len() * arguments.variant.len();
    let stop = Stop::on_signals()?;
    let progress = Progress::new(arguments.length() * runs as u32);
    let mut results = Vec::new();
    for nodes in &arguments.nodes {
        match measure(&arguments.setting(*nodes), &arguments.variant, &progress) {
            Ok(of_size) => results.extend(of_size),
            Err(BenchError::Interrupted) => break,
            Err(error) => return Err(error),
        }
    }
    drop(progress);
    compare(&mut results);
    let table = tables(&results);
    let report = Report::new("cluster", "memory", arguments.parameters(), results);
    let report = report.under(Conditions::once(stop.is_raised()), Vec::new());
    publish(&arguments.common, &report, &table)
}

impl Arguments {
    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.common.seconds.unwrap_or(SECONDS))
    }

    /// Refuses what cannot work, before anything runs.
    fn check(&self) -> Result<(), BenchError> {
        let usage = |text: String| Err(BenchError::usage(text));
        if self.nodes.len() > VALUES_MAX {
            return usage(format!("--nodes has more than {VALUES_MAX} values; give fewer"));
        }
        if let Some(nodes) = self.nodes.iter().find(|nodes| !NODES.contains(*nodes)) {
            let (least, most) = (NODES.start(), NODES.end());
            return usage(format!("--nodes {nodes} is out of range; {least} to {most}"));
        }
        if !INTERVAL.contains(&self.interval.0) {
            let (least, most) = (Span(*INTERVAL.start()), Span(*INTERVAL.end()));
            return usage(format!("--interval {} is out of range; {least} to {most}", self.interval));
        }
        if self.payload.0 > PAYLOAD_BYTES_MAX {
            let most = Size(PAYLOAD_BYTES_MAX);
            return usage(format!(
                "--payload {} does not fit a heartbeat; give {most} at most",
                self.payload
            ));
        }
        if self.delay.0 > self.interval.0 / 10 {
            return usage(format!("--delay {} is above a tenth of --interval", self.delay));
        }
        Ok(())
    }

    fn setting(&self, nodes: usize) -> Setting {
        Setting {
            nodes,
            interval: self.interval.0,
            payload_bytes: self.payload.0 as usize,
            link: LinkConfig { delay: self.delay.0, ..LinkConfig::default() },
            seed: self.common.seed,
            length: self.length(),
        }
    }

    fn parameters(&self) -> Map<String, Value> {
        let variants: Vec<&str> = self.variant.iter().map(|variant| variant.name()).collect();
        let named = [
            ("nodes", json!(self.nodes)),
            ("variant", json!(variants)),
            ("interval_us", json!(self.interval.0.as_secs_f64() * 1e6)),
            ("payload_bytes", json!(self.payload.0)),
            ("delay_us", json!(self.delay.0.as_secs_f64() * 1e6)),
            ("seed", json!(self.common.seed)),
            ("seconds", json!(self.length().as_secs_f64())),
            ("virtual", json!(["seconds", "packets_per_second", "bytes_per_second", "heartbeat"])),
            ("measured", json!(["cpu_seconds", "cpu_seconds_per_node", "memory_bytes"])),
        ];
        named.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn arguments(line: &str) -> Arguments {
        match Cli::try_parse_from(["bench", "cluster"].into_iter().chain(line.split_whitespace()))
            .unwrap()
            .command
        {
            Command::Cluster(arguments) => arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_runs() {
        assert!(arguments("").check().is_ok());
        for line in ["--nodes 1", "--nodes 6,1000", "--interval 1ms", "--payload 2KiB", "--delay 1s"] {
            match arguments(line).check() {
                Err(BenchError::Usage(_)) => {}
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
