//! `detect`: how soon a kill or a stall is named, and how often one is named that is not there.

use std::time::Duration;

use clap::{Args, ValueEnum};
use outrider_stack::tcp::congestion::Algorithm;
use serde_json::{Map, json};

use crate::cli::Common;
use crate::commands::oob::{self, default_delay};
use crate::commands::truth::grace;
use crate::error::BenchError;
use crate::lab::LinkKind;
use crate::report::{Report, check_writable, publish};
use crate::runs::{Repeating, Session};
use crate::truth::{Detections, Event, detection_table};
use crate::under_load::{Point, Variant};
use crate::units::{Rate, Share, Size, Span};

/// Nothing happens for so long before each event unless `--seconds` says otherwise.
const SECONDS: f64 = 0.5;
/// A verdict is waited for so many intervals, or graces if that is longer.
const PATIENCE_INTERVALS: u32 = 20;
const PATIENCE_GRACES: u32 = 4;
/// Trials of each variant at each point unless `--repeat` says otherwise.
const TRIALS: u32 = 5;
/// Trials of one run at most.
const TRIALS_MAX: usize = 10_000;

/// What else the link carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadLevel {
    /// Messages that saturate it.
    Full,
    /// Nothing.
    None,
}

/// Options of `detect`. Those marked (list) take several values separated by commas: one result for each.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    repeating: Repeating,
    /// What happens; --seconds is how long nothing happens before it, in which false positives are counted (list)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "peer-killed,consumer-stopped")]
    event: Vec<Event>,
    /// How heartbeats travel (list)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "oob,separate")]
    variant: Vec<Variant>,
    /// Between heartbeats (list)
    #[arg(long, value_delimiter = ',', default_value = "10ms,100ms")]
    interval: Vec<Span>,
    /// Share of frames lost, each way (list)
    #[arg(long, value_delimiter = ',', default_value = "0,1%")]
    loss: Vec<Share>,
    /// What else the link carries; a consumer that gets nothing cannot stall (list)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "full,none")]
    load: Vec<LoadLevel>,
    /// What carries the frames
    #[arg(long, value_enum, default_value = "memory")]
    link: LinkKind,
    /// Rate of the bottleneck
    #[arg(long, default_value = "1gbit")]
    rate: Rate,
    /// Queue at the bottleneck
    #[arg(long, default_value = "1MB")]
    queue: Size,
    /// How long heartbeats may stay unanswered where nothing else tells: fifo and separate (default: 3.33 intervals)
    #[arg(long)]
    grace: Option<Span>,
    /// Congestion control: bbr, cubic, dctcp
    #[arg(long, default_value = "bbr")]
    congestion: Algorithm,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let common = &arguments.common;
    let experiments = arguments.experiments()?;
    check_writable(common)?;
    let once = experiments.iter().map(Detections::duration).sum();
    let mut session = Session::begin("detect", &arguments.repeating, TRIALS, once)?;
    let mut results = Vec::new();
    for experiment in &experiments {
        results.extend(experiment.run(&mut session)?);
    }

    let points: Vec<Point> = experiments.iter().map(|experiment| experiment.point).collect();
    let events: Vec<&str> = arguments.event.iter().map(|event| event.name()).collect();
    let loads: Vec<&str> = arguments.load.iter().map(|load| load.name()).collect();
    let mut parameters = oob::parameters(&points, &arguments.variant, common, arguments.calm());
    parameters.insert("event".into(), json!(events));
    parameters.insert("load".into(), json!(loads));
    parameters.insert("repeat".into(), json!(arguments.repeating.runs(TRIALS)));
    let report = Report::new("detect", arguments.link.name(), parameters, results);
    let report = report.under(session.end(), Vec::new());
    publish(common, &report, &detection_table(&report.results))
}

impl LoadLevel {
    fn name(self) -> &'static str {
        match self {
            LoadLevel::Full => "full",
            LoadLevel::None => "none",
        }
    }
}

impl Arguments {
    fn calm(&self) -> Duration {
        Duration::from_secs_f64(self.common.seconds.unwrap_or(SECONDS))
    }

    /// Every combination of the lists that makes sense, checked.
    fn experiments(&self) -> Result<Vec<Detections<'_>>, BenchError> {
        let usage = |text: String| Err(BenchError::usage(text));
        let combinations = self.event.len() * self.interval.len() * self.loss.len() * self.load.len();
        let repeat = self.repeating.runs(TRIALS) as usize;
        let trials = combinations.saturating_mul(self.variant.len()).saturating_mul(repeat);
        if trials > TRIALS_MAX {
            return usage(format!(
                "these are {trials} trials; give lists and --repeat of {TRIALS_MAX} at most"
            ));
        }
        let mut experiments = Vec::new();
        for event in &self.event {
            for load in &self.load {
                if *event == Event::ConsumerStopped && *load == LoadLevel::None {
                    continue;
                }
                for interval in &self.interval {
                    for loss in &self.loss {
                        experiments.push(self.experiment(*event, *load, *interval, *loss));
                    }
                }
            }
        }
        if experiments.is_empty() {
            return usage("a consumer that gets nothing cannot stall; give --load full".to_owned());
        }
        for experiment in &experiments {
            oob::check(&experiment.point)?;
            self.variant.iter().try_for_each(|variant| variant.check(self.link))?;
        }
        Ok(experiments)
    }

    fn experiment(&self, event: Event, load: LoadLevel, interval: Span, loss: Share) -> Detections<'_> {
        let point = Point {
            link: self.link,
            rate: self.rate,
            delay: default_delay(self.link),
            queue: self.queue,
            loss,
            interval,
            congestion: self.congestion,
            message_size: Size(64 << 10),
            send_budget: Size(4 << 20),
        };
        let grace = grace(self.grace, interval);
        let named = [
            (self.load.len(), "load", json!(load.name())),
            (self.interval.len(), "interval_us", json!(interval.0.as_secs_f64() * 1e6)),
            (self.loss.len(), "loss", json!(loss.0)),
        ];
        let name: Map<_, _> = named
            .into_iter()
            .filter(|(values, ..)| *values > 1)
            .map(|(_, key, value)| (key.to_owned(), value))
            .collect();
        Detections {
            point,
            name,
            variants: &self.variant,
            event,
            loaded: load == LoadLevel::Full,
            calm: self.calm(),
            patience: (interval.0 * PATIENCE_INTERVALS).max(grace * PATIENCE_GRACES),
            grace,
            seed: self.common.seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, assert_usage, parse};

    fn arguments(line: &str) -> Arguments {
        let Command::Detect(arguments) = parse("detect", line) else { panic!("{line}") };
        arguments
    }

    #[test]
    fn every_combination_is_a_point_but_for_a_stall_without_load() {
        let arguments = arguments("");
        let experiments = arguments.experiments().unwrap();
        assert_eq!(experiments.len(), 4 + 4 + 4);
        assert!(experiments.iter().all(|one| one.loaded || one.event == Event::PeerKilled));
        assert_eq!(experiments[0].name["interval_us"], json!(10_000.0));
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_runs() {
        for line in [
            "--repeat 100 --loss 0,1%,2%,3%,4%,5%,6%,7%,8%",
            "--event consumer-stopped --load none",
            "--variant lowat",
        ] {
            assert_usage(line, &arguments(line).experiments());
        }
    }
}
