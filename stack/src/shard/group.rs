//! Several shards that are one host: a queue of the NIC and a thread each, the same addresses for all.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use outrider_drivers::port::{Port, PortStatistics};

use super::handle::{ConnectError, ListenerGuard, ShardHandle, ShardSnapshot};
use super::segment::{Publication, Publisher};
use super::{Shard, ShardConfig, ShardReport, SpawnError, spawn_member};
use crate::endpoint::{Acceptor, Endpoint};
use crate::net::{ListenError, ListenOptions, Member, StackStatistics, Steering};
use crate::time::{Clock, Instant};

/// Parameters of a group.
#[derive(Clone)]
pub struct GroupConfig {
    /// Parameters of every shard. [`crate::net::StackConfig::connections_max`] is each shard's own;
    /// [`ShardConfig::core`] is not looked at. Threads get the number of the shard after the name.
    pub shard: ShardConfig,
    /// The core of each shard, as the system numbers them; none at all leaves all to the scheduler.
    pub cores: Vec<usize>,
    /// Who owns which flow. `None`: as the ports tell ([`Port::rss`]), or unknown if they do not.
    pub steering: Option<Steering>,
    /// Where the shards publish their statistics for other processes.
    pub publication: Option<Publication>,
}

impl GroupConfig {
    /// No cores of their own, steering as the ports tell it, nothing published.
    pub fn new(shard: ShardConfig) -> Self {
        GroupConfig { shard, cores: Vec::new(), steering: None, publication: None }
    }
}

/// Why a group could not be started.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// No port.
    #[error("a group of shards needs at least one port")]
    NoPorts,
    /// Two ports that cannot be queues of one device.
    #[error(
        "{one} and {other} are not queues of one device: their Ethernet addresses, MTUs or offloads differ"
    )]
    NotOneDevice {
        /// [`outrider_drivers::port::PortInfo::name`] of the first port.
        one: String,
        /// And of the one that differs.
        other: String,
    },
    /// Cores for more or fewer shards than there are ports.
    #[error("{cores} cores were given for {ports} ports: give one for each, or none")]
    Cores {
        /// How many cores.
        cores: usize,
        /// How many ports.
        ports: usize,
    },
    /// A steering for more or fewer shards than there are ports.
    #[error("the steering is for {shards} shards, and there are {ports} ports")]
    Steering {
        /// How many shards it is for.
        shards: usize,
        /// How many ports.
        ports: usize,
    },
    /// The segment for statistics could not be made.
    #[error(transparent)]
    Segment(#[from] super::segment::PublishError),
    /// A shard could not be started; those before it have been stopped.
    #[error("shard {shard}: {source}")]
    Spawn {
        /// Its number.
        shard: usize,
        /// Why.
        source: SpawnError,
    },
}

/// A running group. Dropping it stops its shards.
#[derive(Debug)]
pub struct ShardGroup {
    shards: Vec<Shard>,
    handle: GroupHandle,
    published_in: Option<PathBuf>,
}

/// Reaches a group from any thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GroupHandle {
    shards: Arc<[ShardHandle]>,
    /// Shards to which flows can be steered: outgoing connections are theirs, in turn.
    serving: Arc<[usize]>,
    turn: Arc<AtomicUsize>,
}

/// A group at about one instant.
#[derive(Clone, Debug, Default)]
pub struct GroupSnapshot {
    /// Each shard, in order.
    pub shards: Vec<ShardSnapshot>,
}

impl GroupSnapshot {
    /// Counters of all stacks together.
    pub fn stack(&self) -> StackStatistics {
        let mut sum = StackStatistics::default();
        self.shards.iter().for_each(|shard| sum.add(&shard.stack));
        sum
    }

    /// Counters of all ports together.
    pub fn port(&self) -> PortStatistics {
        sum_ports(self.shards.iter().map(|shard| &shard.port))
    }
}

/// The counters of several queues together.
fn sum_ports<'a>(queues: impl Iterator<Item = &'a PortStatistics>) -> PortStatistics {
    queues.fold(PortStatistics::default(), |sum, queue| {
        let PortStatistics { rx_frames, rx_bytes, rx_dropped, tx_frames, tx_bytes, tx_dropped, doorbells } =
            *queue;
        PortStatistics {
            rx_frames: sum.rx_frames + rx_frames,
            rx_bytes: sum.rx_bytes + rx_bytes,
            rx_dropped: sum.rx_dropped + rx_dropped,
            tx_frames: sum.tx_frames + tx_frames,
            tx_bytes: sum.tx_bytes + tx_bytes,
            tx_dropped: sum.tx_dropped + tx_dropped,
            doorbells: sum.doorbells + doorbells,
        }
    })
}

/// Starts a shard on each of `ports`: the queues of one device, in order.
///
/// # Errors
/// See [`GroupError`]; nothing runs then.
pub fn spawn_group(ports: Vec<Box<dyn Port>>, config: GroupConfig) -> Result<ShardGroup, GroupError> {
    let GroupConfig { shard, cores, steering, publication } = config;
    let count = ports.len();
    let first = ports.first().ok_or(GroupError::NoPorts)?;
    let steering = steering.unwrap_or_else(|| match first.rss() {
        Some(rss) => Steering::by_rss(count, rss),
        None => Steering::unknown(count),
    });
    check(&ports, &cores, &steering)?;
    let names: Vec<_> = ports.iter().map(|port| port.info().clone()).collect();
    let publishers = match publication {
        Some(publication) => publication.publishers(&names)?.into_iter().map(Some).collect(),
        None => names.iter().map(|_| None).collect::<Vec<_>>(),
    };
    let published_in =
        publishers.first().and_then(Option::as_ref).map(|one: &Publisher| one.path().to_owned());
    let serving = (0..count).filter(|shard| steering.serves(*shard)).collect();
    let mut shards = Vec::with_capacity(count);
    let parts = ports.into_iter().zip(Member::group(&steering)).zip(publishers);
    for (index, ((port, member), publisher)) in parts.enumerate() {
        let name = if count == 1 { shard.name.clone() } else { format!("{}/{index}", shard.name) };
        let config = ShardConfig { name, core: cores.get(index).copied(), ..shard.clone() };
        let started = spawn_member(port, config, (count > 1).then_some(member), publisher);
        shards.push(started.map_err(|source| GroupError::Spawn { shard: index, source })?);
    }
    let handles = shards.iter().map(Shard::handle).collect();
    let handle = GroupHandle { shards: handles, serving, turn: Arc::default() };
    Ok(ShardGroup { shards, handle, published_in })
}

fn check(ports: &[Box<dyn Port>], cores: &[usize], steering: &Steering) -> Result<(), GroupError> {
    let count = ports.len();
    if !cores.is_empty() && cores.len() != count {
        return Err(GroupError::Cores { cores: cores.len(), ports: count });
    }
    if steering.shards() != count {
        return Err(GroupError::Steering { shards: steering.shards(), ports: count });
    }
    let one = ports[0].info();
    let other = ports
        .iter()
        .map(|port| port.info())
        .find(|other| (other.mac, other.mtu, other.capabilities) != (one.mac, one.mtu, one.capabilities));
    match other {
        Some(other) => Err(GroupError::NotOneDevice { one: one.name.clone(), other: other.name.clone() }),
        None => Ok(()),
    }
}

impl ShardGroup {
    /// Reaches the group from any thread.
    pub fn handle(&self) -> GroupHandle {
        self.handle.clone()
    }

    /// The file in which the shards publish their statistics, if they do.
    pub fn published_in(&self) -> Option<&Path> {
        self.published_in.as_deref()
    }

    /// Stops all shards as [`Shard::stop`] does, and gives their reports in order.
    ///
    /// # Panics
    /// If a thread panicked, with its message.
    pub fn stop(self) -> Vec<ShardReport> {
        // Told first and joined then, so that they say farewell side by side.
        self.shards.iter().for_each(Shard::request_stop);
        self.shards.into_iter().map(Shard::stop).collect()
    }
}

impl GroupHandle {
    /// The shards, in order.
    pub fn shards(&self) -> &[ShardHandle] {
        &self.shards
    }

    /// Begins a connection on the next shard in turn; see [`ShardHandle::connect`].
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(&self, remote: SocketAddr, endpoint: Box<dyn Endpoint>) -> Result<(), ConnectError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // Some shard is served: an indirection table has at least one entry, which belongs to a shard.
        let shard = self.serving[turn % self.serving.len()];
        self.shards[shard].connect(remote, endpoint)
    }

    /// Accepts connections to `local` on every shard; `acceptor` is asked by one of them at a time. The backlog is
    /// shared out evenly. See [`ShardHandle::listen`].
    ///
    /// # Errors
    /// See [`ListenError`]; nobody listens then.
    pub fn listen(
        &self,
        mut local: SocketAddr,
        options: ListenOptions,
        acceptor: Box<dyn Acceptor>,
    ) -> Result<GroupListener, ListenError> {
        let shared = SharedAcceptor(Arc::new(Mutex::new(acceptor)));
        let options = ListenOptions { backlog: options.backlog.div_ceil(self.shards.len()) };
        let mut guards = Vec::with_capacity(self.shards.len());
        for shard in self.shards.iter() {
            let guard = shard.listen(local, options, Box::new(shared.clone()))?;
            // A port that the first shard chose is everyone's.
            local = guard.local();
            guards.push(guard);
        }
        Ok(GroupListener { local, _guards: guards })
    }

    /// Counters and connections of every shard; see [`ShardHandle::statistics`].
    pub fn statistics(&self) -> GroupSnapshot {
        GroupSnapshot { shards: self.shards.iter().map(ShardHandle::statistics).collect() }
    }

    /// Whether a shard has ended or lost its port.
    pub fn is_gone(&self) -> bool {
        self.shards.iter().any(ShardHandle::is_gone)
    }

    /// The clock of the shards.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.shards[0].clock()
    }
}

/// Keeps the listeners of a group alive: dropping it ends the listening on every shard.
#[derive(Debug)]
pub struct GroupListener {
    local: SocketAddr,
    _guards: Vec<ListenerGuard>,
}

impl GroupListener {
    /// Where they listen.
    pub fn local(&self) -> SocketAddr {
        self.local
    }
}

/// One acceptor for all shards. Locked once for each connection accepted.
#[derive(Clone)]
struct SharedAcceptor(Arc<Mutex<Box<dyn Acceptor>>>);

impl Acceptor for SharedAcceptor {
    fn accept(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) -> Option<Box<dyn Endpoint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).accept(now, local, remote)
    }
}

impl ShardReport {
    /// What the shards of a group leave behind, together, with the first error.
    pub fn sum(reports: Vec<ShardReport>) -> ShardReport {
        let mut statistics = StackStatistics::default();
        reports.iter().for_each(|report| statistics.add(&report.statistics));
        ShardReport {
            statistics,
            port: sum_ports(reports.iter().map(|report| &report.port)),
            cpu_time: reports.iter().map(|report| report.cpu_time).sum(),
            error: reports.into_iter().find_map(|report| report.error),
        }
    }
}
