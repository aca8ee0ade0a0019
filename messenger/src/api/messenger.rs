//! The messenger: a name, a transport, dispatchers, connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use outrider_stack::endpoint::{Acceptor, Endpoint as StackEndpoint};
use outrider_stack::time::Instant;

use super::connection::{Connection, Inner};
use super::dispatch::{Chain, Dispatcher, Pool};
use super::error::{ConnectError, StartError};
use super::link::Link;
use crate::features::Features;
use crate::name::EntityName;
use crate::random::SplitMix;
use crate::session::{Endpoint, RECEIVE_CREDIT_BYTES_MIN, Session, SessionConfig};
use crate::transport::{ConnectRefused, Transport};

/// What all connections of a messenger share.
pub(super) struct Core {
    session: SessionConfig,
    chain: Chain,
    pool: Pool,
    table: Mutex<Table>,
    /// The table has become empty, or the messenger is being shut down.
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    stopping: bool,
    next_id: u64,
    connections: HashMap<u64, Connection>,
}

impl Core {
    pub(super) fn send_budget_bytes(&self) -> usize {
        self.session.send_budget_bytes as usize
    }

    pub(super) fn receive_credit_bytes(&self) -> u64 {
        self.session.receive_credit_bytes
    }

    pub(super) fn message_bytes_max(&self) -> usize {
        self.session.message_bytes_max as usize
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection and the endpoint that the transport drives it by; `None` after a shutdown.
    fn open(
        self: &Arc<Self>,
        remote: SocketAddr,
        dialled: bool,
    ) -> Option<(Connection, Box<dyn StackEndpoint>)> {
        let mut table = self.table();
        if table.stopping {
            return None;
        }
        table.next_id += 1;
        let id = table.next_id;
        let connection = Connection { inner: Arc::new(Inner::new(id, Arc::clone(self), remote, dialled)) };
        table.connections.insert(id, connection.clone());
        drop(table);
        let mut config = self.session.clone();
        config.seed = SplitMix::new(config.nonce ^ id).next_u64();
        let link = Link::new(connection.clone(), self.chain.clone(), self.pool.queue(id));
        Some((connection, Box::new(Endpoint::new(Session::new(config), link))))
    }

    /// A connection has ended.
    pub(super) fn forget(&self, id: u64) {
        let removed = self.table().connections.remove(&id);
        // Dropped outside the lock: it may be the last handle.
        drop(removed);
        self.changed.notify_all();
    }
}

/// Makes connections of what the transport accepts.
struct Gate {
    core: Arc<Core>,
}

impl Acceptor for Gate {
    fn accept(
        &mut self,
        _now: Instant,
        _local: SocketAddr,
        remote: SocketAddr,
    ) -> Option<Box<dyn StackEndpoint>> {
        self.core.open(remote, false).map(|(_, endpoint)| endpoint)
    }
}

/// Makes a [`Messenger`].
pub struct MessengerBuilder {
    session: SessionConfig,
    nonce: Option<u64>,
    transport: Option<Arc<dyn Transport>>,
    dispatchers: Vec<Arc<dyn Dispatcher>>,
    dispatch_threads: usize,
    receive_credit_bytes: usize,
    message_bytes_max: usize,
}

impl MessengerBuilder {
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

    /// Listens on an address. May be repeated; without it the messenger only dials.
    #[must_use]
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.session.addresses.push(address);
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

    /// Bytes unsent and in flight per connection above which no more messages are taken. Default 4 MiB.
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

    /// Starts the dispatch threads and listens.
    ///
    /// # Errors
    /// Something required is missing, a limit makes no sense, or the system refused.
    pub fn start(self) -> Result<Messenger, StartError> {
        let MessengerBuilder {
            mut session,
            nonce,
            transport,
            dispatchers,
            dispatch_threads,
            receive_credit_bytes,
            message_bytes_max,
        } = self;
        let transport = transport.ok_or(StartError::NoTransport)?;
        if dispatchers.is_empty() {
            return Err(StartError::NoDispatcher);
        }
        if dispatch_threads == 0 {
            return Err(StartError::NoDispatchThreads);
        }
        session.receive_credit_bytes = receive_credit_bytes as u64;
        if session.receive_credit_bytes < RECEIVE_CREDIT_BYTES_MIN {
            return Err(StartError::CreditTooSmall(receive_credit_bytes));
        }
        session.message_bytes_max = u32::try_from(message_bytes_max)
            .map_err(|_| StartError::MessageLimitTooLarge(message_bytes_max))?;
        if !transport.delivers_ahead() {
            session.supported = session.supported.without(Features::OOB_AHEAD);
        }
        session.nonce = nonce.unwrap_or_else(|| {
            SplitMix::new(transport.clock().now().as_nanos() ^ (u64::from(std::process::id()) << 32))
                .next_u64()
        });
        let chain = Chain(dispatchers.into());
        let pool =
            Pool::start(&session.name.to_string(), dispatch_threads, &chain).map_err(StartError::Thread)?;
        let core = Arc::new(Core { session, chain, pool, table: Mutex::default(), changed: Condvar::new() });
        let messenger = Messenger { core, transport, listeners: Mutex::default() };
        for &address in messenger.addresses() {
            let gate = Box::new(Gate { core: Arc::clone(&messenger.core) });
            let listener = messenger.transport.listen(address, gate);
            let listener = listener.map_err(|source| StartError::Listen { address, source })?;
            messenger.listeners().push(listener);
        }
        Ok(messenger)
    }
}

/// A messenger: dials and accepts connections, and hands what they bring to its dispatchers.
///
/// Dropping it without [`Self::shutdown`] shuts it down without waiting.
pub struct Messenger {
    core: Arc<Core>,
    transport: Arc<dyn Transport>,
    listeners: Mutex<Vec<Box<dyn Send>>>,
}

impl Messenger {
    /// A builder for the entity `name`.
    pub fn builder(name: EntityName) -> MessengerBuilder {
        let session = SessionConfig::new(name);
        MessengerBuilder {
            receive_credit_bytes: session.receive_credit_bytes as usize,
            message_bytes_max: session.message_bytes_max as usize,
            session,
            nonce: None,
            transport: None,
            dispatchers: Vec::new(),
            dispatch_threads: 1,
        }
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Box<dyn Send>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dials a peer. Returns at once: messages and ops may be given already and leave when the connection is ready.
    /// Every call makes a connection of its own.
    ///
    /// # Errors
    /// The messenger is shut down or its transport gone. All else comes through the dispatcher.
    pub fn connect_to(&self, peer: SocketAddr) -> Result<Connection, ConnectError> {
        let (connection, endpoint) = self.core.open(peer, true).ok_or(ConnectError::ShutDown)?;
        match self.transport.connect(peer, endpoint) {
            Ok(()) => Ok(connection),
            Err(ConnectRefused { endpoint, error }) => {
                // The caller learns of it here; no callback follows.
                connection.mark_down();
                drop(endpoint);
                Err(error.into())
            }
        }
    }

    /// This end's name.
    pub fn name(&self) -> EntityName {
        self.core.session.name
    }

    /// Where this end listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.core.session.addresses
    }

    /// The connections there are, dialled and accepted.
    pub fn connections(&self) -> Vec<Connection> {
        self.core.table().connections.values().cloned().collect()
    }

    /// [`Connection::mark_down`] on every connection.
    pub fn mark_down_all(&self) {
        for connection in self.connections() {
            connection.mark_down();
        }
    }

    /// Stops listening, closes every connection in order and lets the dispatch threads finish what is queued.
    /// Does not wait for it; see [`Self::wait`].
    pub fn shutdown(&self) {
        let before = core::mem::replace(&mut self.core.table().stopping, true);
        if before {
            return;
        }
        self.listeners().clear();
        self.mark_down_all();
        self.core.pool.stop();
        self.core.changed.notify_all();
    }

    /// Waits until somebody has called [`Self::shutdown`], every connection has ended and the dispatch threads
    /// have finished. Must not be called on a dispatch thread or a shard.
    ///
    /// # Panics
    /// With the panic of a dispatcher, if one panicked.
    pub fn wait(&self) {
        let table = self.core.table();
        let running = |table: &mut Table| !table.stopping || !table.connections.is_empty();
        drop(self.core.changed.wait_while(table, running).unwrap_or_else(PoisonError::into_inner));
        self.core.pool.join();
    }
}

impl Drop for Messenger {
    fn drop(&mut self) {
        self.shutdown();
    }
}
