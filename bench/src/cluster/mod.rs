//! A cluster's heartbeats: what they cost on connections of their own, and on the data connections.

mod heartbeats;
mod result;
pub(crate) mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use outrider_drivers::memory::LinkConfig;
use outrider_drivers::time::Instant;
use outrider_messenger::{Connection, Dispatcher, EntityName, Messenger, OobRegistration, Policy};

pub(crate) use self::result::{compare, tables};

use self::result::ClusterResult;

use self::heartbeats::{Beats, Counts, OnData, OnTheirOwn, Rounds};
use self::world::{Traffic, World, address, ip};
use crate::error::BenchError;
use crate::progress::Progress;

/// Where the nodes' messengers listen: for data; for heartbeats on the front and on the back network.
const DATA_PORT: u16 = 6800;
const HEARTBEAT_PORTS: [u16; 2] = [6804, 6806];
/// The variants alternate this often, in virtual time.
const SLICES: u32 = 10;
/// Virtual time for all connections to open.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// Intervals from the first heartbeats to the measurement.
const WARM_UP_INTERVALS: u32 = 2;

/// How heartbeats travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Design {
    /// On connections of their own: each daemon dials two to each peer, so four a pair, as Ceph has them
    Separate,
    /// Out of band, on the data connection
    Oob,
}

impl Design {
    /// As options and results spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Design::Separate => "separate",
            Design::Oob => "oob",
        }
    }

    /// Connections that a node dials for heartbeats to each peer.
    fn dialled_for_heartbeats(self) -> usize {
        match self {
            Design::Separate => HEARTBEAT_PORTS.len(),
            Design::Oob => 0,
        }
    }
}

/// One cluster to be.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) nodes: usize,
    /// Between two heartbeats of a node to a peer.
    pub(crate) interval: Duration,
    /// What a heartbeat carries.
    pub(crate) payload_bytes: usize,
    pub(crate) link: LinkConfig,
    pub(crate) seed: u64,
    /// Virtual time measured.
    pub(crate) length: Duration,
}

/// What was counted up to an instant.
#[derive(Clone, Copy, Debug)]
struct Reading {
    now: Instant,
    traffic: Traffic,
    switched_frames: u64,
    beats: Beats,
}

/// Nodes, each with a data connection to each other, and their heartbeats.
struct Cluster {
    design: Design,
    world: World,
    data: Vec<Arc<OnData>>,
    counts: Vec<Arc<Counts>>,
    /// Connections dialled for heartbeats, by node.
    dialled: Vec<Vec<Connection>>,
    registrations: Vec<OobRegistration>,
    /// Bytes that the whole cluster has allocated.
    held_bytes: i64,
    began: Option<Reading>,
}

/// Runs a cluster of each design, alternating, so that what else the machine does burdens them alike.
pub(crate) fn run(
    setting: &Setting,
    designs: &[Design],
    progress: &Progress,
) -> Result<Vec<ClusterResult>, BenchError> {
    let mut clusters = Vec::new();
    for design in designs {
        progress.set(format!("{} nodes, {}: opening", setting.nodes, design.name()));
        let mut cluster = Cluster::open(setting, *design)?;
        cluster.start(setting)?;
        clusters.push(cluster);
    }
    progress.set(format!("{} nodes: measuring", setting.nodes));
    for _ in 0..SLICES {
        for cluster in &mut clusters {
            let limit = cluster.world.now + setting.length / SLICES;
            cluster.world.run_to(limit)?;
            progress.advance(setting.length / SLICES);
        }
    }
    clusters.iter().map(|cluster| cluster.result(setting)).collect()
}

impl Cluster {
    /// The nodes, with all their connections open.
    fn open(setting: &Setting, design: Design) -> Result<Cluster, BenchError> {
        crate::ALLOCATOR.start();
        let before = crate::ALLOCATOR.held();
        let mut cluster = Cluster {
            design,
            world: World::new(setting.link.clone(), setting.seed),
            data: Vec::new(),
            counts: Vec::new(),
            dialled: Vec::new(),
            registrations: Vec::new(),
            held_bytes: 0,
            began: None,
        };
        cluster.world.meters_nodes = true;
        for node in 0..setting.nodes {
            cluster.add(node)?;
        }
        for node in 0..setting.nodes {
            cluster.dial(node, setting.nodes)?;
        }
        let pairs = setting.nodes * (setting.nodes - 1) / 2;
        let wanted = pairs * (1 + 2 * design.dialled_for_heartbeats());
        let opened = cluster.world.run_until(OPEN_LIMIT, |world| is_open(world, 2 * wanted))?;
        cluster.held_bytes = crate::ALLOCATOR.held().since(before).bytes;
        crate::ALLOCATOR.stop();
        if opened {
            return Ok(cluster);
        }
        Err(BenchError::failed(format!(
            "{}: {} of {wanted} connections opened within {} s of virtual time; report this",
            design.name(),
            cluster.connections(),
            OPEN_LIMIT.as_secs()
        )))
    }

    /// One more node: a messenger for data and, where heartbeats have connections of their own, one for those.
    fn add(&mut self, node: usize) -> Result<(), BenchError> {
        let data = Arc::new(OnData::default());
        let name = EntityName::osd(node as u64);
        let mut builders = vec![
            Messenger::builder(name)
                .bind(address(node, DATA_PORT))
                .default_policy(Policy::lossless_peer())
                .dispatcher(Arc::clone(&data) as Arc<dyn Dispatcher>),
        ];
        let mut counts = Arc::clone(&data.counts);
        if self.design == Design::Separate {
            let heartbeats = Arc::new(OnTheirOwn::default());
            counts = Arc::clone(&heartbeats.counts);
            let builder = Messenger::builder(name).default_policy(Policy::lossy_client());
            let builder = builder.dispatcher(heartbeats);
            builders.push(
                HEARTBEAT_PORTS.iter().fold(builder, |builder, port| builder.bind(address(node, *port))),
            );
        }
        self.data.push(data);
        self.counts.push(counts);
        self.dialled.push(Vec::new());
        self.world.add(|_| {}, builders)
    }

    /// A data connection to each node after this one; connections for heartbeats to every other.
    fn dial(&mut self, node: usize, nodes: usize) -> Result<(), BenchError> {
        let refused = |error| BenchError::failed(format!("a messenger does not dial: {error}"));
        let messengers = &self.world.nodes[node].messengers;
        for peer in node + 1..nodes {
            messengers[0].connect_to(address(peer, DATA_PORT)).map_err(refused)?;
        }
        if let Some(heartbeats) = messengers.get(1) {
            for peer in (0..nodes).filter(|peer| *peer != node) {
                for port in HEARTBEAT_PORTS {
                    let connection = heartbeats.connect_to(SocketAddr::new(ip(peer), port));
                    self.dialled[node].push(connection.map_err(refused)?);
                }
            }
        }
        self.world.kick(node);
        Ok(())
    }

    /// Begins the heartbeats, lets them warm up, and begins to measure.
    fn start(&mut self, setting: &Setting) -> Result<(), BenchError> {
        let Setting { interval, payload_bytes, .. } = *setting;
        for (index, node) in self.world.nodes.iter_mut().enumerate() {
            match self.design {
                Design::Oob => {
                    let connections = node.messengers[0].connections();
                    let started = self.data[index].start(&connections, interval, payload_bytes)?;
                    self.registrations.extend(started);
                }
                Design::Separate => {
                    // Daemons were not started together: their rounds are spread over an interval.
                    let phase = interval * index as u32 / setting.nodes as u32;
                    let first = self.world.now + phase;
                    let connections = std::mem::take(&mut self.dialled[index]);
                    let counts = Arc::clone(&self.counts[index]);
                    let rounds = Rounds::new(connections, interval, first, payload_bytes, counts);
                    node.application = Some(Box::new(rounds));
                }
            }
        }
        (0..setting.nodes).for_each(|node| self.world.kick(node));
        self.world.run_to(self.world.now + interval * WARM_UP_INTERVALS)?;
        self.world.clear_cpu();
        self.began = Some(self.reading());
        Ok(())
    }

    fn reading(&self) -> Reading {
        let switch = self.world.switch.statistics();
        Reading {
            now: self.world.now,
            traffic: self.world.traffic(),
            switched_frames: switch.forwarded_frames + switch.flooded_frames,
            beats: Counts::sum(&self.counts),
        }
    }

    /// Connections that the nodes have: each has two ends.
    fn connections(&self) -> usize {
        self.world.nodes.iter().map(|node| node.connection_ends(self.world.now)).sum::<usize>() / 2
    }

    /// Connections of the messengers that are for heartbeats alone.
    fn heartbeat_connections(&self) -> usize {
        let of = |node: &world::Node| node.messengers.get(1).map_or(0, |one| one.connections().len());
        self.world.nodes.iter().map(of).sum::<usize>() / 2
    }

    fn result(&self, setting: &Setting) -> Result<ClusterResult, BenchError> {
        let (Some(began), ended) = (self.began, self.reading()) else {
            return Err(BenchError::failed("a cluster was not started; report this"));
        };
        if ended.traffic.dropped > 0 {
            let dropped = ended.traffic.dropped;
            return Err(BenchError::failed(format!("the switch dropped {dropped} frames; report this")));
        }
        let beats = ended.beats.since(began.beats);
        let seconds = (ended.now - began.now).as_secs_f64();
        let per_second = |count: u64| count as f64 / seconds;
        let cpu_of = |node: &world::Node| self.world.cpu_of(node).as_secs_f64();
        let mut cpu: Vec<f64> = self.world.nodes.iter().map(cpu_of).collect();
        cpu.sort_by(f64::total_cmp);
        let cpu_seconds: f64 = cpu.iter().sum();
        Ok(ClusterResult {
            variant: self.design.name(),
            nodes: setting.nodes,
            connections: self.connections(),
            heartbeat_connections: self.heartbeat_connections(),
            packets_per_second: per_second(ended.traffic.frames - began.traffic.frames),
            bytes_per_second: per_second(ended.traffic.bytes - began.traffic.bytes),
            switched_per_second: per_second(ended.switched_frames - began.switched_frames),
            heartbeat: beats,
            cpu_seconds,
            cpu_seconds_per_node: result::PerNode {
                p50: cpu[cpu.len() / 2],
                max: cpu.last().copied().unwrap_or_default(),
            },
            memory_bytes: self.held_bytes.max(0) as u64,
            seconds,
            over_oob: None,
        })
    }
}

/// Whether the nodes have so many ends of connections, and every messenger is ready on each of its own.
fn is_open(world: &World, ends: usize) -> bool {
    let has: usize = world.nodes.iter().map(|node| node.connection_ends(world.now)).sum();
    has == ends
        && world
            .nodes
            .iter()
            .flat_map(|node| &node.messengers)
            .map(|messenger| messenger.connections())
            .map(|connections| connections.iter().filter(|one| one.is_connected()).count())
            .sum::<usize>()
            == ends
}
