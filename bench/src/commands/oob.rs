//! `oob`: heartbeats under load, by link and setting.

use std::time::Duration;

use clap::Args;
use outrider_stack::tcp::congestion::Algorithm;
use serde_json::{Map, Value, json};

use crate::cli::Common;
use crate::error::BenchError;
use crate::lab::LinkKind;
use crate::report::{HeartbeatResult, Report, check_writable, publish};
use crate::runs::{Conditions, REPEAT, Repeated, Repeating, Session};
use crate::under_load::{self, Experiment, Point, Variant, ratios};
use crate::units::{Rate, Share, Size, Span};

/// Measured in each run unless `--seconds` says otherwise.
const SECONDS: f64 = 3.0;
/// Points of one run at most.
const POINTS_MAX: usize = 1_000;

/// Options of `oob`. Those marked (list) take several values separated by commas: one result for each.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    repeating: Repeating,
    /// What carries the frames (list)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "memory")]
    link: Vec<LinkKind>,
    /// Rate of the bottleneck (list)
    #[arg(long, value_delimiter = ',', default_value = "1gbit")]
    rate: Vec<Rate>,
    /// Delay, one way (list; default: 50us over memory, 0 elsewhere)
    #[arg(long, value_delimiter = ',')]
    delay: Vec<Span>,
    /// Queue at the bottleneck (list)
    #[arg(long, value_delimiter = ',', default_value = "1MB")]
    queue: Vec<Size>,
    /// Share of frames lost, each way (list)
    #[arg(long, value_delimiter = ',', default_value = "0")]
    loss: Vec<Share>,
    /// Between heartbeats (list)
    #[arg(long, value_delimiter = ',', default_value = "10ms")]
    interval: Vec<Span>,
    /// How heartbeats travel (list)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "oob,fifo")]
    variant: Vec<Variant>,
    /// Congestion control: bbr, cubic, dctcp (list)
    #[arg(long, value_delimiter = ',', default_value = "bbr")]
    congestion: Vec<Algorithm>,
    /// Payload of a message of the load (list)
    #[arg(long, value_delimiter = ',', default_value = "64KiB")]
    message_size: Vec<Size>,
    /// Bytes a connection may hold, unsent and in flight (list)
    #[arg(long, value_delimiter = ',', default_value = "4MiB")]
    send_budget: Vec<Size>,
}

/// Delay of the in-process cable unless `--delay` says otherwise.
const MEMORY_DELAY: Span = Span(Duration::from_micros(50));

/// Delay of a link unless `--delay` says otherwise: only the in-process cable can make one.
pub(crate) fn default_delay(link: LinkKind) -> Span {
    if link == LinkKind::Memory { MEMORY_DELAY } else { Span(Duration::ZERO) }
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let common = &arguments.common;
    let points = arguments.points()?;
    check_writable(common)?;
    let length = Duration::from_secs_f64(common.seconds.unwrap_or(SECONDS));
    let experiments: Vec<Experiment<'_>> = points
        .iter()
        .map(|point| Experiment {
            point: *point,
            name: arguments.name_of(point),
            variants: &arguments.variant,
            length,
            seed: common.seed,
            live: false,
        })
        .collect();
    let once = experiments.iter().map(Experiment::duration).sum();
    let mut session = Session::begin("oob", &arguments.repeating, REPEAT, once)?;
    let mut results = Vec::new();
    for experiment in &experiments {
        results.extend(experiment.run(&mut session)?);
    }
    let conditions = session.end();

    let links: Vec<&str> = arguments.link.iter().map(|link| link.name()).collect();
    let mut parameters = parameters(&points, &arguments.variant, common, length);
    parameters.insert("repeat".into(), json!(arguments.repeating.runs(REPEAT)));
    let report = heartbeat_report("oob", &links.join(","), parameters, results, conditions);
    publish(common, &report, &crate::table::heartbeats(&report.results, &report.ratios))?;
    under_load::check(&report.results)
}

impl Arguments {
    /// Every combination of the lists, checked.
    fn points(&self) -> Result<Vec<Point>, BenchError> {
        let mut points = vec![Point {
            link: LinkKind::Memory,
            rate: Rate(0),
            delay: Span(Duration::ZERO),
            queue: Size(0),
            loss: Share(0.0),
            interval: Span(Duration::ZERO),
            congestion: Algorithm::Bbr,
            message_size: Size(0),
            send_budget: Size(0),
        }];
        let delays = self.delays();
        vary(&mut points, &self.link, |point, value| point.link = value)?;
        vary(&mut points, &self.rate, |point, value| point.rate = value)?;
        vary(&mut points, &delays, |point, value| {
            point.delay = value.unwrap_or(default_delay(point.link));
        })?;
        vary(&mut points, &self.queue, |point, value| point.queue = value)?;
        vary(&mut points, &self.loss, |point, value| point.loss = value)?;
        vary(&mut points, &self.interval, |point, value| point.interval = value)?;
        vary(&mut points, &self.congestion, |point, value| point.congestion = value)?;
        vary(&mut points, &self.message_size, |point, value| point.message_size = value)?;
        vary(&mut points, &self.send_budget, |point, value| point.send_budget = value)?;
        for point in &points {
            check(point)?;
            self.variant.iter().try_for_each(|variant| variant.check(point.link))?;
        }
        Ok(points)
    }

    fn delays(&self) -> Vec<Option<Span>> {
        if self.delay.is_empty() { vec![None] } else { self.delay.iter().copied().map(Some).collect() }
    }

    /// The values of `point` that tell its results from others: of each option with more than one value.
    fn name_of(&self, point: &Point) -> Map<String, Value> {
        let lists = [
            self.link.len(),
            self.rate.len(),
            self.delays().len(),
            self.queue.len(),
            self.loss.len(),
            self.interval.len(),
            self.congestion.len(),
            self.message_size.len(),
            self.send_budget.len(),
        ];
        let values = figures(point);
        lists.iter().zip(values).filter(|(count, _)| **count > 1).map(|(_, value)| value).collect()
    }
}

/// The options of a point by the names that JSON uses, in the order of the fields.
fn figures(point: &Point) -> [(String, Value); 9] {
    let Point { link, rate, delay, queue, loss, interval, congestion, message_size, send_budget } = point;
    let micros = |span: &Span| span.0.as_secs_f64() * 1e6;
    [
        ("link".into(), json!(link.name())),
        ("rate_bps".into(), json!(rate.0)),
        ("delay_us".into(), json!(micros(delay))),
        ("queue_bytes".into(), json!(queue.0)),
        ("loss".into(), json!(loss.0)),
        ("interval_us".into(), json!(micros(interval))),
        ("congestion".into(), json!(congestion.name())),
        ("message_bytes".into(), json!(message_size.0)),
        ("send_budget_bytes".into(), json!(send_budget.0)),
    ]
}

/// Multiplies `points` by `values`.
fn vary<T: Copy>(
    points: &mut Vec<Point>,
    values: &[T],
    set: impl Fn(&mut Point, T),
) -> Result<(), BenchError> {
    if points.len() * values.len() > POINTS_MAX {
        return Err(BenchError::usage(format!(
            "the lists make more than {POINTS_MAX} combinations; give fewer values"
        )));
    }
    *points = points
        .iter()
        .flat_map(|point| {
            values.iter().map(|value| {
                let mut varied = *point;
                set(&mut varied, *value);
                varied
            })
        })
        .collect();
    Ok(())
}

const INTERVAL_MIN: Duration = Duration::from_millis(1);
const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// Refuses what cannot work, before anything runs.
pub(crate) fn check(point: &Point) -> Result<(), BenchError> {
    point.link.check(point)?;
    if point.interval.0 < INTERVAL_MIN {
        return Err(BenchError::usage(format!("--interval {} is too short; 1ms at least", point.interval)));
    }
    if point.message_size.0 == 0 || point.message_size.0 > MESSAGE_BYTES_MAX {
        return Err(BenchError::usage(format!(
            "--message-size {} is out of range; 1B to {}",
            point.message_size,
            Size(MESSAGE_BYTES_MAX)
        )));
    }
    if point.send_budget.0 < point.message_size.0 {
        return Err(BenchError::usage(format!(
            "--send-budget {} holds no message of {}; give at least a few messages",
            point.send_budget, point.message_size
        )));
    }
    Ok(())
}

/// What `parameters` of the JSON says: one value, or all of a list.
pub(crate) fn parameters(
    points: &[Point],
    variants: &[Variant],
    common: &Common,
    length: Duration,
) -> Map<String, Value> {
    let mut parameters = Map::new();
    for point in points {
        for (key, value) in figures(point) {
            let list = parameters.entry(key).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut()
                && !list.contains(&value)
            {
                list.push(value);
            }
        }
    }
    for value in parameters.values_mut() {
        if let Some([only]) = value.as_array().map(Vec::as_slice) {
            *value = only.clone();
        }
    }
    let names: Vec<&str> = variants.iter().map(|variant| variant.name()).collect();
    parameters.insert("variant".into(), json!(names));
    parameters.insert("seed".into(), json!(common.seed));
    parameters.insert("seconds".into(), json!(length.as_secs_f64()));
    parameters
}

/// Puts results and their ratios, point by point, into a report.
pub(crate) fn heartbeat_report(
    experiment: &'static str,
    link: &str,
    parameters: Map<String, Value>,
    results: Vec<Repeated<HeartbeatResult>>,
    conditions: Conditions,
) -> Report<Repeated<HeartbeatResult>> {
    let points = results.chunk_by(|a, b| a.point == b.point);
    let ratios = points.flat_map(|point| ratios(point, conditions.noise_relative())).collect();
    Report::new(experiment, link, parameters, results).under(conditions, ratios)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, assert_usage, parse};

    fn arguments(line: &str) -> Arguments {
        let Command::Oob(arguments) = parse("oob", line) else { panic!("{line}") };
        arguments
    }

    #[test]
    fn each_value_of_a_list_is_a_point_with_that_value_as_its_name() {
        let arguments = arguments("--loss 0,1% --congestion bbr,cubic");
        let points = arguments.points().unwrap();
        assert_eq!(points.len(), 4);
        let names: Vec<_> = points.iter().map(|point| arguments.name_of(point)).collect();
        assert_eq!(names[0]["loss"], json!(0.0));
        assert_eq!(names[3]["loss"], json!(0.01));
        assert_eq!(names[3]["congestion"], json!("cubic"));
        assert!(!names[0].contains_key("rate_bps"), "rate is no list here");
        let parameters = parameters(&points, &arguments.variant, &arguments.common, Duration::from_secs(1));
        assert_eq!(parameters["loss"], json!([0.0, 0.01]));
        assert_eq!(parameters["rate_bps"], json!(1_000_000_000));
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_runs() {
        for line in [
            "--link tap --congestion dctcp",
            "--link kernel --delay 1ms",
            "--link kernel --congestion dctcp",
            "--link tap --delay 1ms",
            "--interval 10us",
            "--message-size 0",
            "--send-budget 1KiB",
            "--variant lowat",
            "--link kernel,tap --variant lowat",
        ] {
            assert_usage(line, &arguments(line).points());
        }
        let long = vec!["1ms"; POINTS_MAX + 1].join(",");
        assert!(arguments(&format!("--delay {long}")).points().is_err());
    }
}
