//! The experiments over the in-process cable.

use std::time::Duration;

use clap::ValueEnum;
use outrider_drivers::memory::LinkConfig;
use outrider_drivers::time::{Instant, thread_cpu_time};
use outrider_stack::tcp::congestion::Algorithm;
use serde_json::{Map, Value, json};

use super::outrider_pair::{OutriderPair, Setting};
use super::result::ThroughputResult;
use super::smoltcp_pair::SmoltcpPair;
use super::world::{Counters, Hosts, World};
use crate::error::BenchError;
use crate::progress::Progress;
use crate::runs::{Repeated, Session, combine};
use crate::stop;

/// Time for the start of a connection to be over, before measuring.
const WARM_UP: Duration = Duration::from_millis(200);
/// The stacks alternate this often, in virtual time.
const SLICE: Duration = Duration::from_millis(100);

/// A segment: no more than either stack puts into one.
const TURN_BYTES: u64 = 1_448;
/// Connections that have their turn at an instant with [`Pattern::Burst`]: what an application's own loop might serve at
/// once.
const TURNS_AT_ONCE: usize = 8;
/// Bytes given in all the turns that are measured, if that makes some turns for each connection.
const TURNS_BYTES: u64 = 200_000 * TURN_BYTES;
/// Turns of each connection, before measuring and while.
const ROUNDS_MIN: usize = 2;
/// Parts in which they are given; the stacks alternate.
const TURN_SLICES: u32 = 20;
/// smoltcp looks at every socket for every frame, so with many its segments are fewer, or they would take minutes.
const SMOLTCP_SEGMENTS_TIMES_CONNECTIONS: usize = 20_000_000;
/// Buffers of a socket of smoltcp that has turns: room for two of them and so much at least, and for a full link in all of
/// them together. What is not touched takes no memory.
const SMOLTCP_TURN_BUFFER_BYTES: (usize, usize) = (4_096, 1 << 20);

/// Whose TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stack {
    /// Ours.
    Outrider,
    /// smoltcp's sockets.
    Smoltcp,
}

impl Stack {
    /// As options and results spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stack::Outrider => "outrider",
            Stack::Smoltcp => "smoltcp",
        }
    }
}

/// How many turns come at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// Eight: of as many connections, or of one that then has a burst to send.
    Burst,
    /// One, so that no segment shares its way with the next, with one connection as with many.
    Turn,
}

impl Pattern {
    /// As options and results spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Pattern::Burst => "burst",
            Pattern::Turn => "turn",
        }
    }

    fn at_once(self) -> usize {
        match self {
            Pattern::Burst => TURNS_AT_ONCE,
            Pattern::Turn => 1,
        }
    }
}

/// One point of the experiment.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) link: LinkConfig,
    pub(crate) window_bytes: u32,
    /// Time between two looks of the hosts at their ports and timers; zero: at every event.
    pub(crate) poll_every: Duration,
    pub(crate) congestion: Algorithm,
    pub(crate) seed: u64,
    /// The values that tell this point from others.
    pub(crate) name: Map<String, Value>,
}

/// What to measure at a point.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// One connection sends without end, for so long.
    Bulk(Duration),
    /// Connections send in turn.
    Turns(Turn),
}

/// Which connections send what in turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) connections: usize,
    pub(crate) pattern: Pattern,
    /// What a connection is given at its turn.
    pub(crate) bytes: u64,
}

impl Turn {
    /// What tells it from others.
    pub(crate) fn name(&self) -> Map<String, Value> {
        let values = [
            ("turn_bytes", json!(self.bytes)),
            ("pattern", json!(self.pattern.name())),
            ("connections", json!(self.connections)),
        ];
        values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// Turns that are measured.
    fn count(&self, stack: Stack) -> usize {
        let least = ROUNDS_MIN * self.connections;
        let turns = usize::try_from(TURNS_BYTES / self.bytes).unwrap_or(usize::MAX).max(least);
        match stack {
            Stack::Outrider => turns,
            Stack::Smoltcp => {
                let segments = SMOLTCP_SEGMENTS_TIMES_CONNECTIONS / self.connections;
                turns.min((segments / self.bytes.div_ceil(TURN_BYTES) as usize).max(TURNS_AT_ONCE))
            }
        }
    }
}

/// Runs `work` at `scene` with each of the stacks, as often as it is to be.
pub(crate) fn run(
    scene: &Scene,
    stacks: &[Stack],
    work: Work,
    session: &mut Session,
) -> Result<Vec<Repeated<ThroughputResult>>, BenchError> {
    // The stacks of a run take turns within it, so to the session they are one.
    let runs = session.turns(&[()], |(), turn, progress| {
        let name = Value::Object(scene.name.clone());
        progress.set(format!("{name}, run {turn}"));
        let scene = Scene { seed: turn.seed(scene.seed), ..scene.clone() };
        by_turns(&scene, stacks, work, progress)
    })?;
    let mut of_stacks: Vec<Vec<ThroughputResult>> = stacks.iter().map(|_| Vec::new()).collect();
    for run in runs.into_iter().flatten() {
        of_stacks.iter_mut().zip(run).for_each(|(stack, result)| stack.push(result));
    }
    Ok(of_stacks.into_iter().filter_map(combine).collect())
}

/// One run of each of the stacks: alternating, a slice each, so that what else the machine does burdens them alike.
fn by_turns(
    scene: &Scene,
    stacks: &[Stack],
    work: Work,
    progress: &Progress,
) -> Result<Vec<ThroughputResult>, BenchError> {
    let mut runs = Vec::new();
    for stack in stacks {
        runs.push(Run::begin(scene, *stack, work)?);
    }
    let slices = work.slices();
    for _ in 0..slices {
        for run in &mut runs {
            stop::check()?;
            run.slice()?;
            progress.advance(work.length() / slices);
        }
    }
    runs.into_iter().map(|run| run.end(scene)).collect()
}

impl Work {
    /// Parts in which it is done.
    fn slices(self) -> u32 {
        match self {
            Work::Bulk(length) => {
                u32::try_from(length.as_nanos().div_ceil(SLICE.as_nanos())).unwrap_or(u32::MAX)
            }
            Work::Turns(..) => TURN_SLICES,
        }
    }

    /// What it counts for in progress, for each stack.
    pub(crate) fn length(self) -> Duration {
        match self {
            Work::Bulk(length) => length,
            Work::Turns(..) => SLICE * TURN_SLICES,
        }
    }
}

/// What a connection does in a slice.
enum Load {
    /// It sends for so long.
    Bulk(Duration),
    Turns(Turns),
}

/// Every connection in turn is given a segment to send, or as many as were asked for, at half of the link's rate, so that
/// nothing queues and what is measured is the work on a segment alone.
struct Turns {
    connections: usize,
    /// Bytes given at a turn.
    bytes: u64,
    /// Turns at an instant.
    at_once: usize,
    /// Whose turn is next.
    next: usize,
    per_slice: usize,
    /// Between two batches.
    pause: Duration,
    /// Bytes given since the measurement began.
    given: u64,
}

impl Turns {
    fn new(turn: &Turn, turns: usize, rate_bits_per_second: u64) -> Self {
        /// The rate assumed for a link without one.
        const RATE: u64 = 10_000_000_000;
        let rate = if rate_bits_per_second == 0 { RATE } else { rate_bits_per_second };
        let Turn { connections, pattern, bytes } = *turn;
        let at_once = pattern.at_once();
        let nanos = u128::from(at_once as u64 * bytes) * 8 * 2 * 1_000_000_000 / u128::from(rate);
        // A whole number of microseconds, which both stacks can keep.
        let pause = Duration::from_micros(u64::try_from(nanos.div_ceil(1_000)).unwrap_or(u64::MAX));
        let per_slice = (turns / TURN_SLICES as usize).max(1);
        Turns { connections, bytes, at_once, next: 0, per_slice, pause, given: 0 }
    }

    fn give(&mut self, world: &mut World, turns: usize) -> Result<(), BenchError> {
        for _ in 0..turns.div_ceil(self.at_once) {
            for _ in 0..self.at_once {
                world.hosts.feed(world.now, self.next, self.bytes as usize);
                self.next = (self.next + 1) % self.connections;
                self.given += self.bytes;
            }
            world.run_to(world.now + self.pause)?;
        }
        Ok(())
    }
}

/// One stack at work. Its measurement has begun.
struct Run {
    stack: Stack,
    world: World,
    load: Load,
    before: Counters,
    began: Instant,
    cpu: Duration,
}

impl Run {
    /// Opens the connections and lets them warm up.
    fn begin(scene: &Scene, stack: Stack, work: Work) -> Result<Self, BenchError> {
        let Scene { congestion, window_bytes, seed, .. } = *scene;
        let endless = matches!(work, Work::Bulk(_));
        let hosts: Box<dyn Hosts> = match stack {
            Stack::Outrider => {
                let setting = Setting { congestion, window_bytes, endless };
                Box::new(OutriderPair::new(&scene.link, &setting, seed)?)
            }
            Stack::Smoltcp => {
                let buffer_bytes = match work {
                    Work::Bulk(_) => window_bytes as usize,
                    Work::Turns(turn) => {
                        let (least, together) = SMOLTCP_TURN_BUFFER_BYTES;
                        (together / turn.connections).max(least).max(2 * turn.bytes as usize)
                    }
                };
                Box::new(SmoltcpPair::new(&scene.link, buffer_bytes, endless, seed)?)
            }
        };
        let mut world = World::new(hosts, scene.poll_every);
        let load = match work {
            Work::Bulk(length) => {
                world.open(1)?;
                world.run_to(world.now + WARM_UP)?;
                Load::Bulk(length / work.slices())
            }
            Work::Turns(turn) => {
                world.open(turn.connections)?;
                let turns = turn.count(stack);
                let mut load = Turns::new(&turn, turns, scene.link.rate_bits_per_second);
                load.give(&mut world, turns.min(ROUNDS_MIN * turn.connections))?;
                load.given = 0;
                Load::Turns(load)
            }
        };
        world.hosts.received().begin(world.now);
        let (before, began) = (world.hosts.counters(world.now), world.now);
        Ok(Run { stack, world, load, before, began, cpu: Duration::ZERO })
    }

    fn slice(&mut self) -> Result<(), BenchError> {
        let cpu = thread_cpu_time();
        match &mut self.load {
            Load::Bulk(length) => self.world.run_to(self.world.now + *length)?,
            Load::Turns(turns) => turns.give(&mut self.world, turns.per_slice)?,
        }
        self.cpu += thread_cpu_time() - cpu;
        Ok(())
    }

    fn end(self, scene: &Scene) -> Result<ThroughputResult, BenchError> {
        let world = &self.world;
        let done = world.hosts.counters(world.now).since(&self.before);
        let Counters { bytes, sender_frames, receiver_frames, retransmits, queue_drops } = done;
        if let Load::Turns(turns) = &self.load
            && bytes < turns.given / 10 * 9
        {
            return Err(BenchError::failed(format!(
                "{}: only {bytes} of {} bytes arrived over {} connections; try a higher --rate or --queue",
                self.stack.name(),
                turns.given,
                turns.connections
            )));
        }
        let seconds = (world.now - self.began).as_secs_f64();
        let cpu_nanos = self.cpu.as_nanos() as f64;
        let per = |count: u64| (count > 0).then(|| cpu_nanos / count as f64);
        let longest_stall_us = world.hosts.received().longest_stall(world.now).as_secs_f64() * 1e6;
        let (name, point, goodput_bps) =
            (self.stack.name(), scene.name.clone(), bytes as f64 * 8.0 / seconds);
        Ok(ThroughputResult {
            frames_per_second: Some((sender_frames + receiver_frames) as f64 / seconds),
            cpu_ns_per_byte: per(bytes),
            cpu_ns_per_segment: per(sender_frames),
            cpu_seconds: self.cpu.as_secs_f64(),
            segments: Some(sender_frames),
            retransmits,
            queue_drops: Some(queue_drops),
            ..ThroughputResult::of_goodput(name, point, goodput_bps, longest_stall_us, seconds)
        })
    }
}
