//! `truth`: what each design says when something goes wrong.

use std::time::Duration;

use clap::Args;
use outrider_stack::tcp::congestion::Algorithm;
use serde_json::{Map, json};

use crate::cli::Common;
use crate::commands::oob::{self, default_delay};
use crate::error::BenchError;
use crate::lab::LinkKind;
use crate::report::{Report, check_writable, publish};
use crate::runs::{Repeating, Session};
use crate::truth::{EVENTS, Event, Experiment, check, tables};
use crate::under_load::{Point, Variant};
use crate::units::{Rate, Share, Size, Span};

/// An event lasts so long unless `--seconds` says otherwise.
const SECONDS: f64 = 5.0;
/// Runs of each event unless `--repeat` says otherwise: one takes two minutes.
const RUNS: u32 = 1;
/// Grace in intervals unless `--grace` says otherwise: Ceph's daemons ping every 6 s and wait for 20.
const GRACE_INTERVALS: f64 = 20.0 / 6.0;
/// An event must last for so many intervals and graces, or it is over before anybody could have noticed it.
const INTERVALS_MIN: u32 = 10;
const GRACES_MIN: u32 = 4;

/// Options of `truth`. Those marked (list) take several values separated by commas.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    repeating: Repeating,
    /// What happens; --seconds is how long each lasts (list; default: all)
    #[arg(long, value_enum, value_delimiter = ',')]
    event: Vec<Event>,
    /// How heartbeats travel (list; lowat only over kernel)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "oob,separate")]
    variant: Vec<Variant>,
    /// What carries the frames (list)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "memory")]
    link: Vec<LinkKind>,
    /// Rate of the bottleneck
    #[arg(long, default_value = "1gbit")]
    rate: Rate,
    /// Delay, one way (default: 50us over memory, 0 elsewhere)
    #[arg(long)]
    delay: Option<Span>,
    /// Queue at the bottleneck
    #[arg(long, default_value = "1MB")]
    queue: Size,
    /// Share of frames lost, each way
    #[arg(long, default_value = "0")]
    loss: Share,
    /// Between heartbeats
    #[arg(long, default_value = "10ms")]
    interval: Span,
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
    let points = arguments.points()?;
    check_writable(common)?;
    let events = if arguments.event.is_empty() { &EVENTS[..] } else { &arguments.event };
    let experiments: Vec<Experiment<'_>> =
        points.iter().map(|point| arguments.experiment(*point, events)).collect();
    let once = experiments.iter().map(Experiment::duration).sum();
    let mut session = Session::begin("truth", &arguments.repeating, RUNS, once)?;
    let mut results = Vec::new();
    for experiment in &experiments {
        results.extend(experiment.run(&mut session)?);
    }

    let links: Vec<&str> = arguments.link.iter().map(|link| link.name()).collect();
    let names: Vec<&str> = events.iter().map(|event| event.name()).collect();
    let mut parameters = oob::parameters(&points, &arguments.variant, common, arguments.length());
    parameters.insert("event".into(), json!(names));
    parameters.insert("grace_us".into(), json!(arguments.grace().as_secs_f64() * 1e6));
    parameters.insert("repeat".into(), json!(arguments.repeating.runs(RUNS)));
    let report = Report::new("truth", links.join(","), parameters, results).under(session.end(), Vec::new());
    publish(common, &report, &tables(&report.results))?;
    check(&report.results)
}

/// The grace that was given, or what follows from the interval.
pub(crate) fn grace(given: Option<Span>, interval: Span) -> Duration {
    given.map_or_else(|| interval.0.mul_f64(GRACE_INTERVALS), |grace| grace.0)
}

impl Arguments {
    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.common.seconds.unwrap_or(SECONDS))
    }

    fn grace(&self) -> Duration {
        grace(self.grace, self.interval)
    }

    /// One for each link, checked.
    fn points(&self) -> Result<Vec<Point>, BenchError> {
        let points: Vec<Point> = self
            .link
            .iter()
            .map(|link| Point {
                link: *link,
                rate: self.rate,
                delay: self.delay.unwrap_or_else(|| default_delay(*link)),
                queue: self.queue,
                loss: self.loss,
                interval: self.interval,
                congestion: self.congestion,
                message_size: Size(64 << 10),
                send_budget: Size(4 << 20),
            })
            .collect();
        for point in &points {
            oob::check(point)?;
            self.variant.iter().try_for_each(|variant| variant.check(point.link))?;
        }
        let least = (self.interval.0 * INTERVALS_MIN).max(self.grace() * GRACES_MIN);
        if self.length() < least {
            return Err(BenchError::usage(format!(
                "--seconds {} is too short for an event at --interval {}; give {} at least",
                self.length().as_secs_f64(),
                self.interval,
                least.as_secs_f64()
            )));
        }
        Ok(points)
    }

    fn experiment<'a>(&self, point: Point, events: &'a [Event]) -> Experiment<'a> {
        let mut name = Map::new();
        if self.link.len() > 1 {
            name.insert("link".into(), json!(point.link.name()));
        }
        Experiment {
            point,
            name,
            variants: self.variant.clone(),
            events,
            length: self.length(),
            grace: self.grace(),
            seed: self.common.seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, assert_usage, parse};

    fn arguments(line: &str) -> Arguments {
        let Command::Truth(arguments) = parse("truth", line) else { panic!("{line}") };
        arguments
    }

    #[test]
    fn the_grace_follows_the_interval_unless_it_is_given() {
        assert_eq!(arguments("--interval 30ms").grace(), Duration::from_millis(100));
        assert_eq!(arguments("--interval 30ms --grace 1s").grace(), Duration::from_secs(1));
    }

    #[test]
    fn every_link_is_a_point_with_the_delay_that_it_can_make() {
        let points = arguments("--link memory,tap").points().unwrap();
        assert_eq!(points[0].delay, Span(Duration::from_micros(50)));
        assert_eq!(points[1].delay, Span(Duration::ZERO));
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_runs() {
        for line in [
            "--seconds 0.1",
            "--grace 2s",
            "--link tap --delay 1ms",
            "--variant lowat",
            "--interval 10us",
            "--link afxdp --delay 1ms",
        ] {
            assert_usage(line, &arguments(line).points());
        }
    }
}
