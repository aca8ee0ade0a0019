//! Makes a messenger.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, bounded};
use crossbeam::queue::SegQueue;

use super::control::{self, Driven};
use super::core::{Core, Gate, Locked};
use super::dispatch::{Chain, Dispatcher, Pool};
use super::error::StartError;
use super::messenger::Messenger;
use super::throttle::{Throttle, ThrottleLimits};
use crate::config::Config;
use crate::features::Features;
use crate::health::HealthConfig;
use crate::inject::{InjectConfig, Injector};
use crate::link::{Backoff, Policy, Table, TableConfig};
use crate::name::{EntityKind, EntityName};
use crate::random::SplitMix;
use crate::session::{RECEIVE_CREDIT_BYTES_MIN, SessionConfig};
use crate::transport::Transport;

/// As Ceph's `ms_connection_idle_timeout`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(900);

/// The core of a messenger, what carries its connections, and the bell that calls for control.
type Built = (Arc<Core>, Arc<dyn Transport>, Receiver<()>);

/// Makes a [`Messenger`].
pub struct MessengerBuilder {
    session: SessionConfig,
    binds: Vec<SocketAddr>,
    nonce: Option<u64>,
    transport: Option<Arc<dyn Transport>>,
    dispatchers: Vec<Arc<dyn Dispatcher>>,
    dispatch_threads: usize,
    receive_credit_bytes: usize,
    message_bytes_max: usize,
    default_policy: Policy,
    policies: Vec<(EntityKind, Policy)>,
    throttles: Vec<(Option<EntityKind>, ThrottleLimits)>,
    backoff: Backoff,
    server_standby_max: Duration,
    health: HealthConfig,
    inject: Option<InjectConfig>,
}

impl MessengerBuilder {
    pub(crate) fn new(name: EntityName) -> Self {
        let session = SessionConfig { idle_timeout: Some(IDLE_TIMEOUT), ..SessionConfig::new(name) };
        MessengerBuilder {
            receive_credit_bytes: session.receive_credit_bytes as usize,
            message_bytes_max: session.message_bytes_max as usize,
            session,
            binds: Vec::new(),
            nonce: None,
            transport: None,
            dispatchers: Vec::new(),
            dispatch_threads: 1,
            default_policy: Policy::lossy_client(),
            policies: Vec::new(),
            throttles: Vec::new(),
            backoff: Backoff::default(),
            server_standby_max: IDLE_TIMEOUT,
            health: HealthConfig::default(),
            inject: None,
        }
    }

    /// Sets everything that a configuration has. What is set afterwards takes its place, but for addresses, which add.
    #[must_use]
    pub fn configure(self, config: &Config) -> Self {
        config.apply(self)
    }

    /// Tells this life of the entity from the next, and seeds its jitter. Default: from the clock and the process id.
    #[must_use]
    pub fn nonce(mut self, nonce: u64) -> Self {
        self.nonce = Some(nonce);
        self
    }

    /// What carries the connections. Required.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Listens on an address; port 0 leaves the port to the transport, and [`Messenger::addresses`] tells. May be
    /// repeated; without it the messenger only dials.
    #[must_use]
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.binds.push(address);
        self
    }

    /// Adds a dispatcher at the tail of the chain. At least one is required.
    #[must_use]
    pub fn dispatcher(mut self, dispatcher: Arc<dyn Dispatcher>) -> Self {
        self.dispatchers.push(dispatcher);
        self
    }

    /// Adds a dispatcher at the head of the chain.
    #[must_use]
    pub fn dispatcher_head(mut self, dispatcher: Arc<dyn Dispatcher>) -> Self {
        self.dispatchers.insert(0, dispatcher);
        self
    }

    /// Threads that call `ms_dispatch`. Default 1.
    #[must_use]
    pub fn dispatch_threads(mut self, count: usize) -> Self {
        self.dispatch_threads = count;
        self
    }

    /// The policy for peers of a kind.
    #[must_use]
    pub fn policy(mut self, kind: EntityKind, policy: Policy) -> Self {
        self.policies.push((kind, policy));
        self
    }

    /// The policy for peers of all other kinds, and for [`Messenger::connect_to`]. Default [`Policy::lossy_client`].
    #[must_use]
    pub fn default_policy(mut self, policy: Policy) -> Self {
        self.default_policy = policy;
        self
    }

    /// Limits what waits for dispatch over all connections to peers of a kind.
    #[must_use]
    pub fn throttle(mut self, kind: EntityKind, limits: ThrottleLimits) -> Self {
        self.throttles.push((Some(kind), limits));
        self
    }

    /// Limits what waits for dispatch over all connections.
    #[must_use]
    pub fn dispatch_throttle(mut self, limits: ThrottleLimits) -> Self {
        self.throttles.push((None, limits));
        self
    }

    /// Bytes unsent and in flight per connection above which no more messages are taken. Default 4 MiB. Of a lossless
    /// connection, in flight is what the peer's session has not acknowledged.
    #[must_use]
    pub fn send_budget_bytes(mut self, bytes: usize) -> Self {
        self.session.send_budget_bytes = bytes as u64;
        self
    }

    /// Bytes received and not yet dispatched per connection above which the peer must wait. Default 16 MiB.
    #[must_use]
    pub fn receive_credit_bytes(mut self, bytes: usize) -> Self {
        self.receive_credit_bytes = bytes;
        self
    }

    /// Largest message payload sent or taken. Default 256 MiB.
    #[must_use]
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// How long a handshake may take, and an attempt to reach a peer. Default 10 s.
    #[must_use]
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.session.handshake_timeout = limit;
        self
    }

    /// How long a connection may say nothing, either way, until its transport is closed. Default 15 min, as Ceph;
    /// `None`: no limit.
    #[must_use]
    pub fn idle_timeout(mut self, limit: Option<Duration>) -> Self {
        self.session.idle_timeout = limit;
        self
    }

    /// Waits between attempts to reach a peer of a lossless connection. Default 0.2 s to 15 s.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// How long this end keeps the session of a peer that it cannot dial. Default 15 min.
    #[must_use]
    pub fn server_standby_max(mut self, limit: Duration) -> Self {
        self.server_standby_max = limit;
        self
    }

    /// When [`super::Connection::health`] calls a symptom a condition.
    #[must_use]
    pub fn health(mut self, config: HealthConfig) -> Self {
        self.health = config;
        self
    }

    /// Makes faults on purpose, for tests.
    #[must_use]
    pub fn inject(mut self, config: InjectConfig) -> Self {
        self.inject = Some(config);
        self
    }

    /// Starts the threads and listens.
    ///
    /// # Errors
    /// Something required is missing, a limit makes no sense, or the system refused.
    pub fn start(self) -> Result<Messenger, StartError> {
        let name = self.session.name.to_string();
        let (threads, binds) = (self.dispatch_threads, self.binds.clone());
        let (core, carrier, bell) = self.build(|chain| Pool::start(&name, threads, chain))?;
        let control = control::start(&name, Arc::clone(&core), Arc::clone(&carrier), bell);
        let control = control.map_err(StartError::Thread)?;
        listen(Messenger::new(core, carrier, Some(control)), &binds)
    }

    /// Listens, without threads: see [`Driven`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_driven(self) -> Result<Driven, StartError> {
        let (threads, binds) = (self.dispatch_threads, self.binds.clone());
        let mut queues = Vec::new();
        let (core, carrier, bell) = self.build(|_| {
            let (pool, items) = Pool::driven(threads);
            queues = items;
            Ok(pool)
        })?;
        Ok(Driven::new(listen(Messenger::new(core, carrier, None), &binds)?, queues, bell))
    }

    fn build(self, pool: impl FnOnce(&Chain) -> Result<Pool, std::io::Error>) -> Result<Built, StartError> {
        let mut session = self.session;
        let carrier = self.transport.ok_or(StartError::NoTransport)?;
        if self.dispatchers.is_empty() {
            return Err(StartError::NoDispatcher);
        }
        if self.dispatch_threads == 0 {
            return Err(StartError::NoDispatchThreads);
        }
        session.receive_credit_bytes = self.receive_credit_bytes as u64;
        if session.receive_credit_bytes < RECEIVE_CREDIT_BYTES_MIN {
            return Err(StartError::CreditTooSmall(self.receive_credit_bytes));
        }
        session.message_bytes_max = u32::try_from(self.message_bytes_max)
            .map_err(|_| StartError::MessageLimitTooLarge(self.message_bytes_max))?;
        if !carrier.delivers_ahead() {
            session.supported = session.supported.without(Features::OOB_AHEAD);
        }
        let clock = carrier.clock();
        session.nonce = self.nonce.unwrap_or_else(|| {
            SplitMix::new(clock.now().as_nanos() ^ (u64::from(std::process::id()) << 32)).next_u64()
        });
        let table = TableConfig {
            name: session.name,
            nonce: session.nonce,
            receive_credit_bytes: session.receive_credit_bytes,
            backoff: self.backoff,
            attempt_timeout: session.handshake_timeout,
            server_standby_max: self.server_standby_max,
            // Cookies must differ between two lives with the same nonce.
            seed: SplitMix::new(session.nonce ^ clock.now().as_nanos()).next_u64(),
        };
        let mut table = Table::new(table, self.default_policy);
        self.policies.into_iter().for_each(|(kind, policy)| table.set_policy(kind, policy));
        let chain = Chain::new(self.dispatchers);
        let pool = pool(&chain).map_err(StartError::Thread)?;
        let (bell, heard) = bounded(1);
        let throttles = self.throttles.into_iter().map(|(kind, limits)| (kind, Throttle::new(limits)));
        let core = Core {
            announced: ArcSwap::from_pointee(session.clone()),
            session,
            chain,
            pool,
            clock,
            health: self.health,
            injector: self.inject.map(Injector::new),
            throttles: throttles.collect(),
            locked: Mutex::new(Locked {
                table,
                connections: BTreeMap::new(),
                attachments: BTreeMap::new(),
                dials: VecDeque::new(),
                ended: Vec::new(),
                drain_until: None,
            }),
            changed: Condvar::new(),
            bell,
            wants: SegQueue::new(),
            loopback: Mutex::default(),
        };
        Ok((Arc::new(core), carrier, heard))
    }
}

impl fmt::Debug for MessengerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MessengerBuilder {
            session,
            binds,
            nonce,
            transport: _,
            dispatchers: _,
            dispatch_threads,
            receive_credit_bytes,
            message_bytes_max,
            default_policy,
            policies,
            throttles,
            backoff,
            server_standby_max,
            health,
            inject,
        } = self;
        f.debug_struct("MessengerBuilder")
            .field("session", session)
            .field("binds", binds)
            .field("nonce", nonce)
            .field("dispatch_threads", dispatch_threads)
            .field("receive_credit_bytes", receive_credit_bytes)
            .field("message_bytes_max", message_bytes_max)
            .field("default_policy", default_policy)
            .field("policies", policies)
            .field("throttles", throttles)
            .field("backoff", backoff)
            .field("server_standby_max", server_standby_max)
            .field("health", health)
            .field("inject", inject)
            .finish_non_exhaustive()
    }
}

fn listen(messenger: Messenger, binds: &[SocketAddr]) -> Result<Messenger, StartError> {
    for &address in binds {
        let gate = Box::new(Gate { core: Arc::clone(messenger.core()) });
        let listening = messenger.carrier().listen_at(address, gate);
        let listening = listening.map_err(|source| StartError::Listen { address, source })?;
        messenger.listens(listening);
    }
    Ok(messenger)
}
