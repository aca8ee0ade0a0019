//! Many connections on one core: what each holds in memory, and what its heartbeats cost.

mod ends;
mod result;

use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use outrider_drivers::allocation::Held;
use outrider_drivers::memory::LinkConfig;
use outrider_drivers::time::Instant;
use outrider_messenger::session::SessionConfig;
use outrider_messenger::{Dispatcher, EntityName, Messenger, OobRegistration, Policy};
use outrider_stack::endpoint::{Acceptor, Endpoint};
use outrider_stack::net::{ListenOptions, StackConfig};

pub(crate) use self::result::{ScaleResult, compare, tables};

use self::ends::{Bare, Listening, Sessions, Tally};
use crate::cluster::world::{World, address};
use crate::error::BenchError;
use crate::progress::Progress;

/// The node that dials, and the one that listens.
const NEAR: usize = 0;
const FAR: usize = 1;
/// Listening ports from here on: one for so many connections, for each needs a local port of its own.
const FIRST_PORT: u16 = 6800;
const CONNECTIONS_PER_PORT: usize = 10_000;
/// Connections begun at an instant, and the time until the next: never more half-open than a listener keeps.
const OPEN_AT_ONCE: usize = 64;
const OPEN_STEP: Duration = Duration::from_millis(1);
/// Virtual time for the last of them to open.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// Parts in which the heartbeats are measured; the points alternate.
const SLICES: u32 = 20;

/// What is on the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Nothing: the engine alone, whose memory is told and which has no heartbeats
    Engine,
    /// A session each, with its heartbeat
    Session,
    /// A whole messenger: also what the application holds of each connection
    Messenger,
}

impl Kind {
    /// As options and results spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Engine => "engine",
            Kind::Session => "session",
            Kind::Messenger => "messenger",
        }
    }
}

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) connections: Vec<usize>,
    /// Between two heartbeats of a connection.
    pub(crate) interval: Duration,
    /// Heartbeats measured at each point, however many connections share them.
    pub(crate) heartbeats: u64,
    /// Between two looks of a node at its port and timers; zero: it sees each event at its instant.
    pub(crate) poll_every: Duration,
    pub(crate) link: LinkConfig,
    pub(crate) seed: u64,
}

impl Setting {
    /// Virtual time in which `connections` have sent the heartbeats, one round at least.
    fn length(&self, connections: usize) -> Duration {
        let turns = self.heartbeats as f64 / connections as f64;
        self.interval.mul_f64(turns.max(1.0))
    }
}

/// So many connections of a kind, open and at rest but for their heartbeats.
struct Point {
    kind: Kind,
    connections: usize,
    world: World,
    tally: Arc<Tally>,
    /// Dropped at the end, and with them the heartbeats.
    _registrations: Vec<OobRegistration>,
    held: Held,
    resident_bytes: i64,
    /// When the measurement began, and what had been counted by then.
    began: Instant,
    sent: u64,
    echoed: u64,
    /// Of the slices: processor time, segments, and the former over the latter of each.
    cpu: Duration,
    slice_segments: u64,
    slices: Vec<f64>,
}

/// Opens all points, and then measures their heartbeats a slice each in turn, so that what else the machine does burdens
/// them alike. A signal ends it with what was measured by then.
pub(crate) fn run(setting: &Setting, progress: &Progress) -> Result<Vec<ScaleResult>, BenchError> {
    let mut points = Vec::new();
    for kind in &setting.kinds {
        for connections in &setting.connections {
            progress.set(format!("{connections} connections, {}: opening", kind.name()));
            let point = match Point::open(setting, *kind, *connections) {
                Err(BenchError::Interrupted) => break,
                opened => opened?,
            };
            progress.advance(work(*connections));
            // Nothing happens on a bare connection: there is only its memory to tell.
            let point = match kind {
                Kind::Engine => point.without_world(setting),
                Kind::Session | Kind::Messenger => point,
            };
            points.push(point);
        }
    }
    for slice in 0..SLICES {
        progress.set(format!("heartbeats: part {} of {SLICES}", slice + 1));
        for point in points.iter_mut().filter(|point| point.kind != Kind::Engine) {
            match point.slice(setting) {
                Err(BenchError::Interrupted) => break,
                done => done?,
            }
            progress.advance(work(setting.heartbeats as usize) / SLICES);
        }
    }
    points.iter().map(|point| point.result(setting)).collect()
}

/// What opening connections, or measuring heartbeats, counts for in progress.
pub(crate) fn work(count: usize) -> Duration {
    Duration::from_micros(count as u64 * 20)
}

/// Memory of this process that is in use.
fn resident_bytes() -> i64 {
    const PAGE_BYTES: i64 = 4096;
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status.split(' ').nth(1).and_then(|pages| pages.parse::<i64>().ok());
    pages.unwrap_or_default() * PAGE_BYTES
}

impl Point {
    fn open(setting: &Setting, kind: Kind, connections: usize) -> Result<Point, BenchError> {
        let tally = Arc::new(Tally::default());
        let mut world = World::new(setting.link.clone(), setting.seed);
        world.poll_every = setting.poll_every;
        let tune = |config: &mut StackConfig| {
            config.connections_max = connections + 1;
            config.ephemeral_ports = 1_024..=u16::MAX;
        };
        let mut opener = Opener::new(setting, kind, &tally);
        world.add(tune, opener.near())?;
        world.add(tune, opener.far(connections))?;
        opener.listen(&mut world, connections)?;
        // Everything of the nodes themselves is there; what comes now is the connections'.
        world.run_to(world.now + OPEN_STEP)?;
        crate::ALLOCATOR.start();
        let (before, resident) = (crate::ALLOCATOR.held(), resident_bytes());
        for begun in (0..connections).step_by(OPEN_AT_ONCE) {
            for index in begun..connections.min(begun + OPEN_AT_ONCE) {
                opener.dial(&mut world, index)?;
            }
            world.kick(NEAR);
            world.run_to(world.now + OPEN_STEP)?;
        }
        let ready = |_: &World| tally.ready() == 2 * connections as u64;
        if !world.run_until(OPEN_LIMIT, ready)? {
            return Err(BenchError::failed(format!(
                "{} of {} ends of connections opened within {} s of virtual time; report this",
                tally.ready(),
                2 * connections,
                OPEN_LIMIT.as_secs()
            )));
        }
        let registrations = opener.beat(&mut world)?;
        // Every connection has had a heartbeat, and what opening left behind has gone.
        world.run_to(world.now + setting.interval * 2)?;
        let held = crate::ALLOCATOR.held().since(before);
        let resident_bytes = resident_bytes() - resident;
        crate::ALLOCATOR.stop();
        world.clear_cpu();
        Ok(Point {
            kind,
            connections,
            _registrations: registrations,
            held,
            resident_bytes,
            began: world.now,
            sent: tally.sent(),
            echoed: tally.echoed(),
            cpu: Duration::ZERO,
            slice_segments: 0,
            slices: Vec::new(),
            tally,
            world,
        })
    }

    /// The figures without the connections.
    fn without_world(self, setting: &Setting) -> Point {
        Point { world: World::new(LinkConfig::default(), setting.seed), ..self }
    }

    fn segments_sent(&self) -> u64 {
        self.world.nodes.iter().map(|node| node.stack().statistics().tx_segments).sum()
    }

    fn slice(&mut self, setting: &Setting) -> Result<(), BenchError> {
        let (segments, cpu) = (self.segments_sent(), self.world.cpu());
        let limit = self.world.now + setting.length(self.connections) / SLICES;
        self.world.run_to(limit)?;
        let (segments, cpu) = (self.segments_sent() - segments, self.world.cpu().saturating_sub(cpu));
        self.cpu += cpu;
        self.slice_segments += segments;
        if segments > 0 {
            self.slices.push(cpu.as_nanos() as f64 / segments as f64);
        }
        Ok(())
    }

    fn result(&self, setting: &Setting) -> Result<ScaleResult, BenchError> {
        let ends = 2.0 * self.connections as f64;
        let seconds = (self.world.now - self.began).as_secs_f64();
        let (sent, echoed) = (self.tally.sent() - self.sent, self.tally.echoed() - self.echoed);
        let measured = !self.slices.is_empty();
        // A heartbeat may be on its way on every connection as the measurement begins or ends.
        if measured && (self.tally.ended() > 0 || echoed.abs_diff(sent) > self.connections as u64) {
            return Err(BenchError::failed(format!(
                "{} connections, {}: {echoed} of {sent} heartbeats came back, {} ends are gone; report this",
                self.connections,
                self.kind.name(),
                self.tally.ended()
            )));
        }
        let (segments, cpu_seconds) = (self.slice_segments, self.cpu.as_secs_f64());
        let mut slices = self.slices.clone();
        slices.sort_by(f64::total_cmp);
        Ok(ScaleResult {
            variant: self.kind.name(),
            connections: self.connections,
            bytes_per_connection: self.held.bytes as f64 / ends,
            blocks_per_connection: self.held.blocks as f64 / ends,
            resident_bytes_per_connection: self.resident_bytes as f64 / ends,
            cpu_ns_per_segment: measured.then(|| cpu_seconds * 1e9 / segments.max(1) as f64),
            cpu_ns_per_segment_spread: slices.first().copied().zip(slices.last().copied()),
            cost_over_one: None,
            heartbeats_per_second: measured.then(|| sent as f64 / seconds),
            heartbeats_per_cpu_second: measured.then(|| sent as f64 / cpu_seconds),
            core_share: measured.then(|| setting.core_share(self.connections, sent, cpu_seconds)),
            heartbeats: measured.then_some(sent),
            segments: measured.then_some(segments),
            cpu_seconds: measured.then_some(cpu_seconds),
            seconds: measured.then_some(seconds),
        })
    }
}

impl Setting {
    /// What the heartbeats of `connections` take of one core, at their interval.
    fn core_share(&self, connections: usize, heartbeats: u64, cpu_seconds: f64) -> f64 {
        let each = cpu_seconds / heartbeats.max(1) as f64;
        each * connections as f64 / self.interval.as_secs_f64()
    }
}

/// Opens the connections of a point.
struct Opener {
    kind: Kind,
    interval: Duration,
    tally: Arc<Tally>,
    sessions: Sessions,
    listening: Arc<Listening>,
}

impl Opener {
    fn new(setting: &Setting, kind: Kind, tally: &Arc<Tally>) -> Opener {
        let config = SessionConfig { seed: setting.seed, ..SessionConfig::new(EntityName::osd(1)) };
        Opener {
            kind,
            interval: setting.interval,
            tally: Arc::clone(tally),
            sessions: Sessions {
                config: Arc::new(config),
                made: 0,
                interval: setting.interval,
                tally: Arc::clone(tally),
            },
            listening: Arc::new(Listening { tally: Arc::clone(tally) }),
        }
    }

    fn messenger(&self, number: u64, policy: Policy) -> outrider_messenger::MessengerBuilder {
        Messenger::builder(EntityName::osd(number))
            .default_policy(policy)
            .idle_timeout(None)
            .dispatcher(Arc::clone(&self.listening) as Arc<dyn Dispatcher>)
    }

    /// The messenger that dials, if there is one.
    fn near(&self) -> Vec<outrider_messenger::MessengerBuilder> {
        match self.kind {
            Kind::Messenger => vec![self.messenger(1, Policy::lossy_client())],
            Kind::Engine | Kind::Session => Vec::new(),
        }
    }

    /// The messenger that is dialled, if there is one.
    fn far(&self, connections: usize) -> Vec<outrider_messenger::MessengerBuilder> {
        match self.kind {
            Kind::Messenger => {
                let builder = self.messenger(2, Policy::stateless_server());
                vec![ports(connections).fold(builder, |builder, port| builder.bind(address(FAR, port)))]
            }
            Kind::Engine | Kind::Session => Vec::new(),
        }
    }

    /// Listens where there is no messenger that does.
    fn listen(&self, world: &mut World, connections: usize) -> Result<(), BenchError> {
        let acceptor = || -> Option<Box<dyn Acceptor>> {
            match self.kind {
                Kind::Engine => Some(Box::new(Bare { tally: Arc::clone(&self.tally) })),
                Kind::Session => Some(Box::new(self.sessions.clone())),
                Kind::Messenger => None,
            }
        };
        for port in ports(connections) {
            let Some(acceptor) = acceptor() else { return Ok(()) };
            let mut stack = world.nodes[FAR].stack();
            stack
                .listen(address(FAR, port), ListenOptions::default(), acceptor)
                .map_err(|error| BenchError::failed(format!("cannot listen: {error}")))?;
        }
        Ok(())
    }

    /// Begins a connection.
    fn dial(&mut self, world: &mut World, index: usize) -> Result<(), BenchError> {
        let remote = address(FAR, FIRST_PORT + (index / CONNECTIONS_PER_PORT) as u16);
        let endpoint: Box<dyn Endpoint> = match self.kind {
            Kind::Engine => Box::new(Bare { tally: Arc::clone(&self.tally) }),
            Kind::Session => self.sessions.dialler(),
            Kind::Messenger => {
                let dialled = world.nodes[NEAR].messengers[0].connect_to(remote);
                let refused = |error| BenchError::failed(format!("a messenger does not dial: {error}"));
                return dialled.map(drop).map_err(refused);
            }
        };
        world.nodes[NEAR].stack().connect(world.now, remote, endpoint);
        Ok(())
    }

    /// Begins the heartbeats where the sessions did not do so themselves.
    fn beat(&self, world: &mut World) -> Result<Vec<OobRegistration>, BenchError> {
        if self.kind != Kind::Messenger {
            return Ok(Vec::new());
        }
        let connections = world.nodes[NEAR].messengers[0].connections();
        let register = |connection| self.listening.register(connection, self.interval);
        let registrations = connections.iter().map(register).collect::<Result<_, _>>()?;
        world.kick(NEAR);
        Ok(registrations)
    }
}

/// The ports listened on for so many connections.
fn ports(connections: usize) -> impl Iterator<Item = u16> {
    (0..connections.div_ceil(CONNECTIONS_PER_PORT)).map(|index| FIRST_PORT + index as u16)
}
