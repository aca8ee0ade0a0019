//! `scale`: memory and cost of 1, 10, 100 ... 100,000 connections, each with a heartbeat a second.

use std::time::Duration;

use clap::Args;
use outrider_drivers::memory::LinkConfig;
use serde_json::{Map, Value, json};

use crate::cli::Common;
use crate::error::BenchError;
use crate::progress::Progress;
use crate::report::{Report, check_writable, publish};
use crate::runs::Conditions;
use crate::scale::{Kind, Setting, compare, run as measure, tables, work};
use crate::stop::Stop;
use crate::units::Span;

/// Heartbeats measured at each point unless `--heartbeats` says otherwise.
const HEARTBEATS: u64 = 200_000;
/// Connections of a point at most: their local and listening ports are told apart by 16 bits each.
const CONNECTIONS_MAX: usize = 200_000;
/// Points of one run at most.
const VALUES_MAX: usize = 16;
/// Intervals that make sense beside links of some 50 us.
const INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

/// Options of `scale`. Those marked (list) take several values separated by commas: one result for each.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// How many connections, both ends of each in this process (list)
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000,10000,100000")]
    connections: Vec<usize>,
    /// What is on them (list)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "engine,session,messenger")]
    variant: Vec<Kind>,
    /// Between two heartbeats of a connection
    #[arg(long, default_value = "1s")]
    interval: Span,
    /// Heartbeats measured at each point: as many with one connection as with many, in as much virtual time as that
    /// takes; one round at least
    #[arg(long, default_value_t = HEARTBEATS, conflicts_with = "seconds")]
    heartbeats: u64,
    /// Time between two looks of a node at its port and timers; 0: it sees each event at its instant, so that no segment
    /// shares its turn with another, with one connection as with many, and as no busy host would
    #[arg(long, default_value = "100us")]
    poll: Span,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    arguments.check()?;
    check_writable(&arguments.common)?;
    let setting = arguments.setting();
    let of_point = |connections: &usize| work(*connections) + work(arguments.heartbeats as usize);
    let length: Duration = arguments.connections.iter().map(of_point).sum();
    let stop = Stop::on_signals()?;
    let progress = Progress::new(length * arguments.variant.len() as u32);
    let mut results = measure(&setting, &progress)?;
    drop(progress);
    compare(&mut results);
    let report = Report::new("scale", "memory", arguments.parameters(), results);
    let report = report.under(Conditions::once(stop.is_raised()), Vec::new());
    publish(&arguments.common, &report, &tables(&report.results))
}

impl Arguments {
    /// Refuses what cannot work, before anything runs.
    fn check(&self) -> Result<(), BenchError> {
        let usage = |text: String| Err(BenchError::usage(text));
        if self.connections.len() > VALUES_MAX {
            return usage(format!("--connections has more than {VALUES_MAX} values; give fewer"));
        }
        if let Some(count) = self.connections.iter().find(|count| !(1..=CONNECTIONS_MAX).contains(*count)) {
            return usage(format!("--connections {count} is out of range; 1 to {CONNECTIONS_MAX}"));
        }
        if !INTERVAL.contains(&self.interval.0) {
            let (least, most) = (Span(*INTERVAL.start()), Span(*INTERVAL.end()));
            return usage(format!("--interval {} is out of range; {least} to {most}", self.interval));
        }
        if self.poll.0 > self.interval.0 / 10 {
            return usage(format!("--poll {} is above a tenth of --interval", self.poll));
        }
        if self.common.seconds.is_some() {
            return usage("--seconds would give each point another load; use --heartbeats".to_owned());
        }
        Ok(())
    }

    fn setting(&self) -> Setting {
        Setting {
            kinds: self.variant.clone(),
            connections: self.connections.clone(),
            interval: self.interval.0,
            heartbeats: self.heartbeats,
            poll_every: self.poll.0,
            link: LinkConfig { delay: Duration::from_micros(25), ..LinkConfig::default() },
            seed: self.common.seed,
        }
    }

    fn parameters(&self) -> Map<String, Value> {
        let variants: Vec<&str> = self.variant.iter().map(|variant| variant.name()).collect();
        let named = [
            ("connections", json!(self.connections)),
            ("variant", json!(variants)),
            ("interval_us", json!(self.interval.0.as_secs_f64() * 1e6)),
            ("heartbeats", json!(self.heartbeats)),
            ("poll_us", json!(self.poll.0.as_secs_f64() * 1e6)),
            ("seed", json!(self.common.seed)),
            ("virtual", json!(["seconds", "heartbeats_per_second"])),
            ("measured", json!(["cpu_ns_per_segment", "cpu_seconds", "bytes_per_connection"])),
        ];
        named.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    #[test]
    fn what_cannot_work_is_refused_before_anything_runs() {
        let check = |line: &str| {
            let words = ["bench", "scale"].into_iter().chain(line.split_whitespace());
            match Cli::try_parse_from(words).unwrap().command {
                Command::Scale(arguments) => arguments.check(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(check(""), Ok(()));
        for line in
            ["--connections 0", "--connections 10,1000000", "--interval 1ms", "--poll 1s", "--seconds 1"]
        {
            assert!(matches!(check(line), Err(BenchError::Usage(_))), "{line}");
        }
    }
}
