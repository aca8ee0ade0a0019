//! `pump`: frames through the bare port, as fast as it takes them. What TCP can reach at most.

use std::time::Duration;

use clap::Args;
use outrider_stack::tcp::congestion::Algorithm;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cli::Common;
use crate::error::BenchError;
use crate::lab::LinkKind;
use crate::pump::{Direction, Pump, Pumped, WARM_UP};
use crate::report::{Report, check_writable, publish};
use crate::runs::{Figure, Figures, REPEAT, Repeated, Repeating, Session, Visit, spread_table};
use crate::table;
use crate::under_load::Point;
use crate::units::{Rate, Share, Size, Span};

/// Measured in each run unless `--seconds` says otherwise.
const SECONDS: f64 = 1.0;
/// Smallest and largest frame without its check sequence.
const FRAME_BYTES_MIN: usize = 60;
const ETHERNET_HEADER_BYTES: usize = 14;

/// Options of `pump`. Those marked (list) take several values separated by commas: one result for each.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    repeating: Repeating,
    /// What carries the frames (list)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "memory,tap,afxdp")]
    link: Vec<LinkKind>,
    /// Bytes of a frame, Ethernet header included (list)
    #[arg(long, value_delimiter = ',', default_value = "60,1514")]
    frame: Vec<Size>,
    /// Rate of the bottleneck; unlimited shows what the port itself can do
    #[arg(long, default_value = "unlimited")]
    rate: Rate,
    /// Queue at the bottleneck
    #[arg(long, default_value = "1MB")]
    queue: Size,
}

const DIRECTIONS: [(Direction, &str); 3] =
    [(Direction::There, "there"), (Direction::Back, "back"), (Direction::Both, "both")];

/// Frames through one link, of one size, in one direction.
#[derive(Clone, Debug, Serialize)]
struct PumpResult {
    variant: &'static str,
    link: &'static str,
    /// Which way: `there`, `back`, or `both` at once (figures are then of both together).
    direction: &'static str,
    frame_bytes: u64,
    /// Received.
    frames_per_second: f64,
    /// Of whole frames received.
    bits_per_second: f64,
    sent: u64,
    received: u64,
    /// Processor time of this process and of the kernel on its behalf, for each frame received.
    cpu_ns_per_frame: f64,
    /// Names of the ports.
    ports: [String; 2],
}

impl Figures for PumpResult {
    fn label(&self) -> String {
        format!("{} {} {} B", self.link, self.direction, self.frame_bytes)
    }

    fn figures(&mut self, visit: &mut Visit<'_>) {
        // Exhaustive, so that a new figure cannot be forgotten here.
        let PumpResult {
            variant: _,
            link: _,
            direction: _,
            frame_bytes: _,
            frames_per_second,
            bits_per_second,
            sent,
            received,
            cpu_ns_per_frame,
            ports: _,
        } = self;
        visit("frames_per_second", Figure::Median(frames_per_second));
        visit("bits_per_second", Figure::Median(bits_per_second));
        visit("cpu_ns_per_frame", Figure::Median(cpu_ns_per_frame));
        visit("sent", Figure::TotalCount(sent));
        visit("received", Figure::TotalCount(received));
    }
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let common = &arguments.common;
    let points = arguments.points()?;
    check_writable(common)?;
    let length = Duration::from_secs_f64(common.seconds.unwrap_or(SECONDS));
    let runs = u32::try_from(points.len() * arguments.frame.len() * DIRECTIONS.len()).unwrap_or(u32::MAX);
    let mut session = Session::begin("pump", &arguments.repeating, REPEAT, (WARM_UP + length) * runs)?;
    let mut results = Vec::new();
    for point in &points {
        for frame in &arguments.frame {
            results.extend(session.medians(&DIRECTIONS, |(direction, name), turn, progress| {
                progress.set(format!("{} {frame} {name}, run {turn}", point.link.name()));
                let frame_bytes = usize::try_from(frame.0).unwrap_or(usize::MAX);
                let seed = turn.seed(common.seed);
                let pumped = Pump { point, frame_bytes, length, seed }.run(*direction)?;
                progress.advance(WARM_UP + length);
                Ok(PumpResult::of(pumped, point.link.name(), name, frame.0))
            })?);
        }
    }
    let links = arguments.link.iter().map(|link| link.name()).collect::<Vec<_>>().join(",");
    let report = Report::new("pump", links, arguments.parameters(length), results);
    let report = report.under(session.end(), Vec::new());
    publish(common, &report, &table(&report.results))?;
    match report.results.iter().find(|result| result.received == 0) {
        Some(result) => Err(BenchError::failed(format!("{}: no frame arrived", result.link))),
        None => Ok(()),
    }
}

impl Arguments {
    fn points(&self) -> Result<Vec<Point>, BenchError> {
        let longest = 1500 + ETHERNET_HEADER_BYTES;
        for frame in &self.frame {
            if !(FRAME_BYTES_MIN as u64..=longest as u64).contains(&frame.0) {
                return Err(BenchError::usage(format!(
                    "--frame {frame} is out of range; {FRAME_BYTES_MIN} to {longest}"
                )));
            }
        }
        let points: Vec<Point> =
            self.link.iter().map(|link| bare_point(*link, self.rate, self.queue)).collect();
        points.iter().try_for_each(|point| point.link.check(point))?;
        Ok(points)
    }

    fn parameters(&self, length: Duration) -> Map<String, Value> {
        let Arguments { common, repeating, link, frame, rate, queue } = self;
        let parameters = [
            ("link", json!(link.iter().map(|link| link.name()).collect::<Vec<_>>())),
            ("frame_bytes", json!(frame.iter().map(|frame| frame.0).collect::<Vec<_>>())),
            ("rate_bps", json!(rate.0)),
            ("queue_bytes", json!(queue.0)),
            ("seed", json!(common.seed)),
            ("seconds", json!(length.as_secs_f64())),
            ("repeat", json!(repeating.runs(REPEAT))),
        ];
        parameters.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// A point that says only what the link is.
pub(crate) fn bare_point(link: LinkKind, rate: Rate, queue: Size) -> Point {
    Point {
        link,
        rate,
        delay: Span(Duration::ZERO),
        queue,
        loss: Share(0.0),
        interval: Span(Duration::ZERO),
        congestion: Algorithm::Bbr,
        message_size: Size(0),
        send_budget: Size(0),
    }
}

impl PumpResult {
    fn of(pumped: Pumped, link: &'static str, direction: &'static str, frame_bytes: u64) -> Self {
        let Pumped { sent, received, seconds, cpu_seconds, ports, longest_stall: _ } = pumped;
        let frames_per_second = received as f64 / seconds;
        PumpResult {
            variant: "raw",
            link,
            direction,
            frame_bytes,
            frames_per_second,
            bits_per_second: frames_per_second * frame_bytes as f64 * 8.0,
            sent,
            received,
            cpu_ns_per_frame: cpu_seconds * 1e9 / received.max(1) as f64,
            ports,
        }
    }
}

fn table(results: &[Repeated<PumpResult>]) -> String {
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|result| {
            vec![
                format!("{} {}", result.link, result.direction),
                result.frame_bytes.to_string(),
                format!("{:.0}", result.frames_per_second),
                table::bits_per_second(result.bits_per_second),
                table::percent((result.sent > 0).then(|| result.received as f64 / result.sent as f64)),
                format!("{:.0} ns", result.cpu_ns_per_frame),
            ]
        })
        .collect();
    let header = ["link", "frame", "frames/s", "rate", "arrived", "CPU per frame"];
    let text = format!("\nFrames through the bare port\n{}", table::numbers(&header, &rows));
    text + &spread_table(results, &[("frames_per_second", "frames/s"), ("cpu_ns_per_frame", "CPU per frame")])
}
