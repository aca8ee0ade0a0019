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

/// Time for the start of a connection to be over, before measuring.
pub(crate) const WARM_UP: Duration = Duration::from_millis(200);
/// Progress is shown this often, in virtual time.
const SLICE: Duration = Duration::from_millis(100);

/// Bytes given to a connection at its turn: no more than either stack puts into one segment.
const TURN_BYTES: usize = 1_448;
/// Connections that have their turn at an instant: what an application's own loop might serve at once.
const TURNS_AT_ONCE: usize = 8;
/// Turns measured per number of connections.
const TURNS: usize = 200_000;
/// smoltcp looks at every socket for every frame, so with many its turns are fewer, or they would take minutes.
const SMOLTCP_TURNS_TIMES_CONNECTIONS: usize = 20_000_000;
/// Buffers of a socket of smoltcp that has turns: room for two.
const SMOLTCP_TURN_BUFFER_BYTES: usize = 4_096;

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
    Turns(usize),
}

/// Runs `work` at `scene` with one of the stacks.
pub(crate) fn run(
    scene: &Scene,
    stack: Stack,
    work: Work,
    progress: &Progress,
) -> Result<ThroughputResult, BenchError> {
    let endless = matches!(work, Work::Bulk(_));
    let measured = match stack {
        Stack::Outrider => {
            let Scene { congestion, window_bytes, .. } = *scene;
            let setting = Setting { congestion, window_bytes, endless };
            let hosts = OutriderPair::new(&scene.link, &setting, scene.seed)?;
            measure(World::new(hosts, scene.poll_every), scene, work, TURNS, progress)
        }
        Stack::Smoltcp => {
            let (buffer_bytes, turns) = match work {
                Work::Bulk(_) => (scene.window_bytes as usize, 0),
                Work::Turns(connections) => {
                    let turns = TURNS.min(SMOLTCP_TURNS_TIMES_CONNECTIONS / connections.max(1));
                    (SMOLTCP_TURN_BUFFER_BYTES, turns.max(TURNS_AT_ONCE))
                }
            };
            let hosts = SmoltcpPair::new(&scene.link, buffer_bytes, endless, scene.seed)?;
            measure(World::new(hosts, scene.poll_every), scene, work, turns, progress)
        }
    };
    let measured = measured?;
    Ok(measured.result(stack.name(), scene.name.clone()))
}

fn measure(
    world: World<impl Hosts>,
    scene: &Scene,
    work: Work,
    turns: usize,
    progress: &Progress,
) -> Result<Measured, BenchError> {
    match work {
        Work::Bulk(length) => bulk(world, length, progress),
        Work::Turns(connections) => {
            let measured = by_turns(world, connections, turns, scene.link.rate_bits_per_second);
            progress.advance(SLICE);
            measured
        }
    }
}

/// What a measurement found.
#[derive(Clone, Copy, Debug)]
struct Measured {
    counters: Counters,
    time: Duration,
    cpu: Duration,
    longest_stall: Duration,
}

impl Measured {
    fn result(&self, variant: &'static str, point: Map<String, Value>) -> ThroughputResult {
        let Counters { bytes, sender_frames, receiver_frames, retransmits, queue_drops } = self.counters;
        let seconds = self.time.as_secs_f64();
        let cpu_nanos = self.cpu.as_nanos() as f64;
        let per = |count: u64| (count > 0).then(|| cpu_nanos / count as f64);
        ThroughputResult {
            variant,
            point,
            goodput_bps: bytes as f64 * 8.0 / seconds,
            frames_per_second: Some((sender_frames + receiver_frames) as f64 / seconds),
            cpu_ns_per_byte: per(bytes),
            cpu_ns_per_segment: per(sender_frames),
            longest_stall_us: self.longest_stall.as_secs_f64() * 1e6,
            cpu_seconds: self.cpu.as_secs_f64(),
            seconds,
            segments: Some(sender_frames),
            retransmits,
            queue_drops: Some(queue_drops),
        }
    }
}

/// A measurement that has begun.
struct Running {
    counters: Counters,
    at: Instant,
    cpu: Duration,
}

impl Running {
    fn begin(world: &mut World<impl Hosts>) -> Self {
        world.hosts.begin(world.now);
        Running { counters: world.hosts.counters(world.now), at: world.now, cpu: thread_cpu_time() }
    }

    fn end(self, world: &World<impl Hosts>) -> Measured {
        let cpu = thread_cpu_time() - self.cpu;
        Measured {
            counters: world.hosts.counters(world.now).since(&self.counters),
            time: world.now - self.at,
            cpu,
            longest_stall: world.hosts.longest_stall(world.now),
        }
    }
}

fn bulk(
    mut world: World<impl Hosts>,
    length: Duration,
    progress: &Progress,
) -> Result<Measured, BenchError> {
    world.open(1)?;
    world.run_to(world.now + WARM_UP)?;
    progress.advance(WARM_UP);
    let running = Running::begin(&mut world);
    let end = world.now + length;
    while world.now < end {
        let slice = SLICE.min(end - world.now);
        world.run_to(world.now + slice)?;
        progress.advance(slice);
    }
    Ok(running.end(&world))
}

/// Every connection in turn is given a segment to send, at half of the link's rate, so that nothing queues and what is
/// measured is the work on a segment alone.
fn by_turns(
    mut world: World<impl Hosts>,
    connections: usize,
    turns: usize,
    rate_bits_per_second: u64,
) -> Result<Measured, BenchError> {
    /// The rate assumed for a link without one.
    const RATE: u64 = 10_000_000_000;
    /// Acknowledgements that were delayed have come by then.
    const LAST_WORD: Duration = Duration::from_millis(50);
    world.open(connections)?;
    let rate = if rate_bits_per_second == 0 { RATE } else { rate_bits_per_second };
    let nanos = (TURNS_AT_ONCE * TURN_BYTES * 8 * 2) as u128 * 1_000_000_000 / u128::from(rate);
    // A whole number of microseconds, which both stacks can keep.
    let pause = Duration::from_micros(u64::try_from(nanos.div_ceil(1_000)).unwrap_or(u64::MAX));
    let mut turn = 0;
    let mut give = |world: &mut World<_>, turns: usize| {
        for _ in 0..turns.div_ceil(TURNS_AT_ONCE) {
            for _ in 0..TURNS_AT_ONCE {
                Hosts::feed(&mut world.hosts, world.now, turn, TURN_BYTES);
                turn = (turn + 1) % connections;
            }
            world.run_to(world.now + pause)?;
        }
        Ok::<_, BenchError>(())
    };
    give(&mut world, turns.min(2 * connections))?;
    let running = Running::begin(&mut world);
    give(&mut world, turns)?;
    let mut measured = running.end(&world);
    // The stall of a paced source says nothing; what is of interest is that all of it arrived.
    let before = measured.counters.bytes;
    world.run_to(world.now + LAST_WORD)?;
    let lacking = ((turns * TURN_BYTES) as u64).saturating_sub(before);
    if lacking > (turns * TURN_BYTES) as u64 / 10 {
        return Err(BenchError::failed(format!(
            "{lacking} of {} bytes did not arrive over {connections} connections; try a higher --rate or --queue",
            turns * TURN_BYTES
        )));
    }
    measured.longest_stall = measured.longest_stall.min(measured.time);
    Ok(measured)
}
