//! `pump`: frames through the bare port, as fast as it takes them. What TCP can reach at most.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use outrider_drivers::port::{Port, PortError, TxOffload};
use outrider_stack::tcp::congestion::Algorithm;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cli::Common;
use crate::error::BenchError;
use crate::host::cpu_seconds;
use crate::lab::{Lab, LinkKind};
use crate::node::now;
use crate::report::{Report, check_writable, publish};
use crate::runs::{Figure, Figures, REPEAT, Repeated, Repeating, Session, Visit, spread_table};
use crate::stop;
use crate::table;
use crate::under_load::Point;
use crate::units::{Rate, Share, Size, Span};

/// Measured in each run unless `--seconds` says otherwise.
const SECONDS: f64 = 1.0;
/// Time for queues to fill before anything counts.
const WARM_UP: Duration = Duration::from_millis(200);
/// Frames between two doorbells at most.
const BURST_FRAMES: usize = 64;
/// Smallest and largest frame without its check sequence.
const FRAME_BYTES_MIN: usize = 60;
const ETHERNET_HEADER_BYTES: usize = 14;
/// An ethertype for experiments (IEEE 802), so that no kernel on the way takes a frame for its own.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

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

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    There,
    Back,
    Both,
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
                Ok(pumped.result(point.link.name(), name, frame.0))
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
pub(super) fn bare_point(link: LinkKind, rate: Rate, queue: Size) -> Point {
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

/// One run.
struct Pump<'a> {
    point: &'a Point,
    frame_bytes: usize,
    length: Duration,
    seed: u64,
}

/// What all threads of a run share.
#[derive(Default)]
struct Counts {
    /// Frames count from here on.
    measuring: AtomicBool,
    stop: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

struct Pumped {
    sent: u64,
    received: u64,
    seconds: f64,
    cpu_seconds: f64,
    ports: [String; 2],
}

impl Pump<'_> {
    fn run(&self, direction: Direction) -> Result<Pumped, BenchError> {
        let mut lab = Lab::of_ports(self.point, self.seed)?;
        let (a, b) = lab.take_ports();
        let ports = [a.info().name.clone(), b.info().name.clone()];
        let (to_b, to_a) = (self.frame(&*a, &*b), self.frame(&*b, &*a));
        let counts = Counts::default();
        let (sends_a, sends_b) = (direction != Direction::Back, direction != Direction::There);
        let (seconds, cpu_seconds) = std::thread::scope(|scope| {
            let ends = [(a, sends_a.then_some(to_b)), (b, sends_b.then_some(to_a))].map(|(port, frame)| {
                let counts = &counts;
                scope.spawn(move || pump(port, frame.as_deref(), counts))
            });
            // The ends are stopped whether or not a signal comes meanwhile.
            let warm = stop::sleep(WARM_UP);
            let (began, cpu) = (now(), cpu_seconds());
            counts.measuring.store(true, Ordering::SeqCst);
            let passed = warm.and_then(|()| stop::sleep(self.length));
            counts.measuring.store(false, Ordering::SeqCst);
            let measured = ((now() - began).as_secs_f64(), cpu_seconds() - cpu);
            counts.stop.store(true, Ordering::SeqCst);
            for end in ends {
                match end.join().expect("pumping does not panic") {
                    // The other end of a cable may be gone first.
                    Ok(()) | Err(PortError::Gone { .. }) => {}
                    Err(error) => return Err(BenchError::failed(error.to_string())),
                }
            }
            passed.map(|()| measured)
        })?;
        let (sent, received) = (counts.sent.into_inner(), counts.received.into_inner());
        Ok(Pumped { sent, received, seconds, cpu_seconds, ports })
    }

    fn frame(&self, from: &dyn Port, to: &dyn Port) -> Vec<u8> {
        let mut frame = [&to.info().mac[..], &from.info().mac, &ETHERTYPE].concat();
        frame.resize(self.frame_bytes, 0x5a);
        frame
    }
}

/// Sends `frame` without end, if there is one, and counts what arrives.
fn pump(mut port: Box<dyn Port>, frame: Option<&[u8]>, counts: &Counts) -> Result<(), PortError> {
    while !counts.stop.load(Ordering::Relaxed) {
        let mut sent = 0;
        if let Some(frame) = frame {
            let room = port.transmit_room(now()).frames.min(BURST_FRAMES);
            while sent < room
                && port.transmit(now(), frame.len(), TxOffload::default(), &mut |buffer| {
                    buffer.copy_from_slice(frame);
                    frame.len()
                })?
            {
                sent += 1;
            }
            port.flush(now())?;
        }
        let mut received = 0;
        port.receive(now(), BURST_FRAMES, &mut |frame| {
            received += u64::from(frame.bytes[12..14] == ETHERTYPE);
        })?;
        if counts.measuring.load(Ordering::Relaxed) {
            counts.sent.fetch_add(sent as u64, Ordering::Relaxed);
            counts.received.fetch_add(received, Ordering::Relaxed);
        }
        if sent == 0 && received == 0 {
            std::thread::yield_now();
        }
    }
    Ok(())
}

impl Pumped {
    fn result(self, link: &'static str, direction: &'static str, frame_bytes: u64) -> PumpResult {
        let frames_per_second = self.received as f64 / self.seconds;
        PumpResult {
            variant: "raw",
            link,
            direction,
            frame_bytes,
            frames_per_second,
            bits_per_second: frames_per_second * frame_bytes as f64 * 8.0,
            sent: self.sent,
            received: self.received,
            cpu_ns_per_frame: self.cpu_seconds * 1e9 / self.received.max(1) as f64,
            ports: self.ports,
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
