//! The experiments over the in-process cable.

use std::time::Duration;

use clap::ValueEnum;
use outrider_drivers::memory::LinkConfig;
use outrider_drivers::time::{Instant, thread_cpu_time};
use outrider_stack::tcp::congestion::Algorithm;
use serde_json::{Map, Value};

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

/// Bytes given to a connection at its turn: no more than either stack puts into one segment.
const TURN_BYTES: usize = 1_448;
/// Connections that have their turn at an instant with [`Pattern::Burst`]: what an application's own loop might serve at
/// once.
const TURNS_AT_ONCE: usize = 8;
/// Turns measured per number of connections.
const TURNS: usize = 200_000;
/// Parts in which they are given; the stacks alternate.
const TURN_SLICES: u32 = 20;
/// smoltcp looks at every socket for every frame, so with many its turns are fewer, or they would take minutes.
const SMOLTCP_TURNS_TIMES_CONNECTIONS: usize = 20_000_000;
/// Buffers of a socket of smoltcp that has turns: room for two at least, and for a full link in all of them together.
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
    /// So many connections send a segment each in turn.
    Turns(usize, Pattern),
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

/// Every connection in turn is given a segment to send, at half of the link's rate, so that nothing queues and what is
/// measured is the work on a segment alone.
struct Turns {
    connections: usize,
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
    fn new(connections: usize, pattern: Pattern, turns: usize, rate_bits_per_second: u64) -> Self {
        /// The rate assumed for a link without one.
        const RATE: u64 = 10_000_000_000;
        let rate = if rate_bits_per_second == 0 { RATE } else { rate_bits_per_second };
        let at_once = pattern.at_once();
        let nanos = (at_once * TURN_BYTES * 8 * 2) as u128 * 1_000_000_000 / u128::from(rate);
        // A whole number of microseconds, which both stacks can keep.
        let pause = Duration::from_micros(u64::try_from(nanos.div_ceil(1_000)).unwrap_or(u64::MAX));
        Turns { connections, at_once, next: 0, per_slice: turns / TURN_SLICES as usize, pause, given: 0 }
    }

    fn give(&mut self, world: &mut World, turns: usize) -> Result<(), BenchError> {
        for _ in 0..turns.div_ceil(self.at_once) {
            for _ in 0..self.at_once {
                world.hosts.feed(world.now, self.next, TURN_BYTES);
                self.next = (self.next + 1) % self.connections;
                self.given += TURN_BYTES as u64;
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
                    Work::Turns(connections, _) => {
                        let (least, together) = SMOLTCP_TURN_BUFFER_BYTES;
                        (together / connections).max(least)
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
            Work::Turns(connections, pattern) => {
                world.open(connections)?;
                let turns = match stack {
                    Stack::Outrider => TURNS,
                    Stack::Smoltcp => TURNS.min(SMOLTCP_TURNS_TIMES_CONNECTIONS / connections),
                };
                let mut load = Turns::new(connections, pattern, turns, scene.link.rate_bits_per_second);
                load.give(&mut world, turns.min(2 * connections))?;
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
