//! A node: a port, the shard that runs TCP on it, and a messenger; or a messenger on the kernel's sockets.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use outrider_drivers::netns::NetNamespace;
use outrider_drivers::port::{Port, PortInfo};
use outrider_drivers::time::{Clock, MonotonicClock};
use outrider_messenger::config::Config;
use outrider_messenger::transport::{Kernel, KernelConfig, Transport, Userspace};
use outrider_messenger::{Connection, Dispatcher, EntityName, HealthConfig, Messenger};
use outrider_stack::net::StackConfig;
use outrider_stack::shard::segment::Publication;
use outrider_stack::shard::{
    self, GroupConfig, GroupError, GroupHandle, Polling, Shard, ShardConfig, ShardGroup, ShardReport,
};
use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::tcp::connection::Config as TcpConfig;

use crate::error::BenchError;
use crate::settings;

/// How long an idle shard spins before it sleeps. Longer costs the processor that other threads of a small machine
/// need; without any, each frame of a fast link pays for a wake-up.
pub(crate) const SPIN: Duration = Duration::from_micros(20);
/// How shards wait unless an experiment says otherwise.
pub(crate) const ADAPTIVE: Polling = Polling::Adaptive { spin: SPIN };

/// Bytes of an IPv4 and of an IPv6 header plus a TCP header, all without options.
const HEADERS_V4: usize = 40;
const HEADERS_V6: usize = 60;

/// What a shard needs besides its port.
#[derive(Clone, Debug)]
pub(crate) struct Addressing {
    /// Address and prefix length of the node.
    pub(crate) address: (IpAddr, u8),
    /// Router for everything outside the prefix.
    pub(crate) gateway: Option<IpAddr>,
    /// Congestion controller of its connections.
    pub(crate) congestion: Algorithm,
    /// Seed of sequence numbers and cookies.
    pub(crate) seed: u64,
}

/// How the shards of a node run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    /// What they do when idle.
    pub(crate) polling: Polling,
    /// The core of each; none at all leaves them to the scheduler.
    pub(crate) cores: Vec<usize>,
    /// Where they publish what they do.
    pub(crate) publication: Option<Publication>,
}

impl Default for Running {
    fn default() -> Self {
        Running { polling: ADAPTIVE, cores: Vec::new(), publication: None }
    }
}

/// Starts a shard on `port`.
pub(crate) fn spawn_shard(port: Box<dyn Port>, addressing: &Addressing) -> Result<Shard, BenchError> {
    spawn_polling_shard(port, addressing, ADAPTIVE)
}

/// Starts a shard on `port` that waits for frames as `polling` says.
pub(crate) fn spawn_polling_shard(
    port: Box<dyn Port>,
    addressing: &Addressing,
    polling: Polling,
) -> Result<Shard, BenchError> {
    let info = port.info().clone();
    shard::spawn(port, ShardConfig { polling, ..shard_config(&info, addressing) })
        .map_err(|error| BenchError::failed(format!("cannot run TCP on {}: {error}", info.name)))
}

/// Starts a shard on each of `ports`, the queues of one device.
pub(crate) fn spawn_group(
    ports: Vec<Box<dyn Port>>,
    addressing: &Addressing,
    running: Running,
) -> Result<ShardGroup, BenchError> {
    spawn_group_by(ports, addressing, running, None)
}

/// The same with what a configuration file says of shards.
fn spawn_group_by(
    ports: Vec<Box<dyn Port>>,
    addressing: &Addressing,
    running: Running,
    file: Option<&GroupConfig>,
) -> Result<ShardGroup, BenchError> {
    let Some(info) = ports.first().map(|port| port.info().clone()) else {
        return Err(BenchError::failed("cannot run TCP without a port"));
    };
    let Running { polling, cores, publication } = running;
    let mut shard = ShardConfig { polling, ..shard_config(&info, addressing) };
    if let Some(file) = file {
        settings::adjust(&mut shard, file);
    }
    let config = GroupConfig { cores, publication, ..GroupConfig::new(shard) };
    shard::spawn_group(ports, config).map_err(|error| match error {
        GroupError::Segment(error) => {
            BenchError::failed(format!("{error}, with --statistics, or --statistics off"))
        }
        error => BenchError::failed(format!("cannot run TCP on {}: {error}", info.name)),
    })
}

fn shard_config(info: &PortInfo, addressing: &Addressing) -> ShardConfig {
    let headers = if addressing.address.0.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    let segment_size = u16::try_from(info.mtu.saturating_sub(headers)).unwrap_or(u16::MAX);
    let tcp = TcpConfig {
        segment_size_max: segment_size,
        algorithm: addressing.congestion,
        ..TcpConfig::default()
    };
    let mut stack = StackConfig { tcp, ..StackConfig::new([addressing.address]) };
    if let Some(gateway) = addressing.gateway {
        stack = stack.with_gateway(gateway);
    }
    ShardConfig {
        name: info.name.clone(),
        stack,
        polling: ADAPTIVE,
        core: None,
        seed: addressing.seed,
        clock: Arc::new(MonotonicClock),
    }
}

/// A messenger on shards of its own, or on the kernel's sockets.
pub(crate) struct Node {
    messenger: Messenger,
    /// `None` on the kernel's sockets: their threads end with the messenger.
    shards: Option<ShardGroup>,
}

/// What a messenger needs besides its shard.
pub(crate) struct NodeOptions {
    /// Who it is.
    pub(crate) name: EntityName,
    /// Where it listens, if it does.
    pub(crate) bind: Option<SocketAddr>,
    /// Who gets what arrives.
    pub(crate) dispatcher: Arc<dyn Dispatcher>,
    /// Bytes a connection may hold, unsent and in flight.
    pub(crate) send_budget_bytes: Option<usize>,
    /// When its connections call a symptom a condition, if not by default.
    pub(crate) health: Option<HealthConfig>,
}

impl Node {
    /// Starts a shard on `port`, and the messenger.
    pub(crate) fn start(
        port: Box<dyn Port>,
        addressing: &Addressing,
        options: NodeOptions,
    ) -> Result<Self, BenchError> {
        Node::over(spawn_group(vec![port], addressing, Running::default())?, addressing, options, None)
    }

    /// Starts it on `ports`, or on this host's own sockets without them, as a configuration file says if there is one.
    pub(crate) fn start_at(
        ports: Option<Vec<Box<dyn Port>>>,
        addressing: &Addressing,
        running: Running,
        options: NodeOptions,
        config: Option<&Config>,
    ) -> Result<Self, BenchError> {
        let Some(ports) = ports else {
            let kernel = settings::kernel(config);
            let kernel = Kernel::start(&kernel)
                .map_err(|error| BenchError::failed(format!("cannot start {}: {error}", options.name)))?;
            let messenger = start_messenger(Arc::new(kernel), addressing.seed, options, config)?;
            return Ok(Node { messenger, shards: None });
        };
        let shards = spawn_group_by(ports, addressing, running, settings::userspace(config))?;
        Node::over(shards, addressing, options, config)
    }

    /// Starts the messenger on `shards`.
    fn over(
        shards: ShardGroup,
        addressing: &Addressing,
        options: NodeOptions,
        config: Option<&Config>,
    ) -> Result<Self, BenchError> {
        let transport = Arc::new(Userspace::over(&shards.handle()));
        let messenger = start_messenger(transport, addressing.seed, options, config)?;
        Ok(Node { messenger, shards: Some(shards) })
    }

    /// Starts the messenger on the kernel's sockets, of `namespace` if there is one.
    pub(crate) fn start_on_kernel(
        namespace: Option<&NetNamespace>,
        config: &KernelConfig,
        nonce: u64,
        options: NodeOptions,
    ) -> Result<Self, BenchError> {
        let failed = |error: &dyn std::fmt::Display| {
            BenchError::failed(format!("cannot start {}: {error}", options.name))
        };
        // Sockets belong to the namespace of the thread that starts their worker.
        let kernel = match namespace {
            Some(namespace) => namespace.run(|| Kernel::start(config)).map_err(|error| failed(&error))?,
            None => Kernel::start(config),
        };
        let kernel = kernel.map_err(|error| failed(&error))?;
        let messenger = start_messenger(Arc::new(kernel), nonce, options, None)?;
        Ok(Node { messenger, shards: None })
    }

    /// The messenger.
    pub(crate) fn messenger(&self) -> &Messenger {
        &self.messenger
    }

    /// The shards, for their statistics, where there are any.
    pub(crate) fn shards(&self) -> Option<GroupHandle> {
        self.shards.as_ref().map(ShardGroup::handle)
    }

    /// Ends every session in order, which takes as long as TIME-WAIT, and gives the shard's final statistics.
    pub(crate) fn stop(self) -> Option<ShardReport> {
        self.messenger.shutdown();
        self.messenger.wait();
        self.shards.map(|shards| ShardReport::sum(shards.stop()))
    }

    /// Ends at once, for a node whose peer ends too, and gives the shard's final statistics.
    pub(crate) fn stop_now(self) -> Option<ShardReport> {
        self.messenger.shutdown();
        let report = self.shards.map(|shards| ShardReport::sum(shards.stop()));
        self.messenger.wait();
        report
    }
}

fn start_messenger(
    transport: Arc<dyn Transport>,
    nonce: u64,
    options: NodeOptions,
    config: Option<&Config>,
) -> Result<Messenger, BenchError> {
    let name = config.and_then(Config::name).unwrap_or(options.name);
    let mut builder = Messenger::builder(name)
        .nonce(nonce)
        .transport(transport)
        .dispatcher(options.dispatcher)
        .dispatch_threads(1);
    if let Some(config) = config {
        builder = builder.configure(config);
    }
    if let Some(address) = options.bind {
        builder = builder.bind(address);
    }
    if let Some(bytes) = options.send_budget_bytes {
        builder = builder.send_budget_bytes(bytes);
    }
    if let Some(health) = options.health {
        builder = builder.health(health);
    }
    builder.start().map_err(|error| BenchError::failed(format!("cannot start {name}: {error}")))
}

/// What the dispatcher of a dialled connection tells those who wait for its session.
#[derive(Debug, Default)]
pub(crate) struct SessionSignals {
    /// The session is ready.
    pub(crate) connected: Signal,
    /// The peer did not want it. Raised before `lost`.
    pub(crate) refused: Signal,
    /// It has ended, or could not be made.
    pub(crate) lost: Signal,
}

impl SessionSignals {
    /// Waits until the session of `connection` is ready.
    pub(crate) fn wait(
        &self,
        connection: &Connection,
        patience: Duration,
        advice: &str,
    ) -> Result<(), BenchError> {
        let deadline = now() + patience;
        while !self.connected.wait(LOOK.min(deadline - now())) {
            if !self.lost.is_raised() && now() < deadline {
                continue;
            }
            let peer = connection.peer_address();
            let why = match connection.fault() {
                Some(fault) => fault.to_string(),
                None if self.refused.is_raised() => "the connection was refused".to_owned(),
                None if self.lost.is_raised() => {
                    "the host is unreachable or has reset the connection".to_owned()
                }
                None => format!("no answer within {patience:?}"),
            };
            return Err(BenchError::failed(format!("no session with {peer}: {why}; {advice}")));
        }
        Ok(())
    }
}

/// Between looks at a second condition while waiting for a first.
const LOOK: Duration = Duration::from_millis(50);

/// The clock of the whole process.
pub(crate) fn now() -> outrider_drivers::time::Instant {
    MonotonicClock.now()
}

/// A flag that a thread can wait for.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Raises it, for good.
    pub(crate) fn raise(&self) {
        *self.raised.lock().expect("no thread panics while it holds the flag") = true;
        self.changed.notify_all();
    }

    /// Whether it has been raised.
    pub(crate) fn is_raised(&self) -> bool {
        *self.raised.lock().expect("no thread panics while it holds the flag")
    }

    /// Waits until it is raised, at most `patience`; returns whether it is.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        let raised = self.raised.lock().expect("no thread panics while it holds the flag");
        let (raised, _) = self
            .changed
            .wait_timeout_while(raised, patience, |raised| !*raised)
            .expect("no thread panics while it holds the flag");
        *raised
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_signal_ends_every_wait() {
        let signal = Arc::new(Signal::default());
        assert!(!signal.wait(Duration::ZERO));
        let waiting = std::thread::spawn({
            let signal = signal.clone();
            move || signal.wait(Duration::from_secs(60))
        });
        signal.raise();
        assert!(waiting.join().unwrap());
        assert!(signal.is_raised());
    }
}
