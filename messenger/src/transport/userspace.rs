//! Sessions over Outrider's own TCP.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use outrider_stack::endpoint::{Acceptor, Endpoint};
use outrider_stack::net::{ListenOptions, StackConfig};
use outrider_stack::port::Port;
use outrider_stack::shard::{ConnectError, Shard, ShardConfig, ShardHandle, SpawnError, spawn};
use outrider_stack::time::{Clock, Instant, MonotonicClock};

use super::{ConnectRefused, Listening, Transport, TransportError};

/// Shards of the userspace stack. Connections dialled take them in turn; every shard listens on every address bound.
///
/// With several shards each must be reached by the frames of its own connections: ports of their own with addresses of
/// their own, or queues of a device that steers a flow to the queue that sent it.
pub struct Userspace {
    shards: Vec<ShardHandle>,
    next: AtomicUsize,
    /// The shard this transport started itself.
    own: Option<Shard>,
}

impl Drop for Userspace {
    fn drop(&mut self) {
        if let Some(shard) = self.own.take() {
            shard.stop();
        }
    }
}

impl Userspace {
    /// A transport over these shards. They must be stopped by their owner, after the messengers that use them.
    pub fn new(shards: Vec<ShardHandle>) -> Self {
        Userspace { shards, next: AtomicUsize::new(0), own: None }
    }

    /// A transport over a port of its own: one shard as [`ShardConfig::new`] has it, stopped with the transport.
    ///
    /// # Errors
    /// The shard could not be started: see [`SpawnError`].
    pub fn on_port(port: impl Port + 'static, stack: StackConfig) -> Result<Self, SpawnError> {
        let name = port.info().name.clone();
        let shard = spawn(Box::new(port), ShardConfig::new(name, stack))?;
        let mut transport = Userspace::new(vec![shard.handle()]);
        transport.own = Some(shard);
        Ok(transport)
    }

    fn refuse(endpoint: Box<dyn Endpoint>, error: TransportError) -> Result<(), ConnectRefused> {
        Err(ConnectRefused { endpoint, error })
    }
}

impl Transport for Userspace {
    fn connect(&self, remote: SocketAddr, endpoint: Box<dyn Endpoint>) -> Result<(), ConnectRefused> {
        if self.shards.is_empty() {
            return Userspace::refuse(endpoint, TransportError::NoShards);
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        match self.shards[turn % self.shards.len()].connect(remote, endpoint) {
            Ok(()) => Ok(()),
            Err(ConnectError::PortGone(endpoint)) => Userspace::refuse(endpoint, TransportError::Gone),
            Err(ConnectError::Full(endpoint)) => Userspace::refuse(endpoint, TransportError::Busy),
        }
    }

    fn listen(
        &self,
        local: SocketAddr,
        acceptor: Box<dyn Acceptor>,
    ) -> Result<Box<dyn Send>, TransportError> {
        self.listen_at(local, acceptor).map(|listening| listening.guard)
    }

    fn listen_at(
        &self,
        mut local: SocketAddr,
        acceptor: Box<dyn Acceptor>,
    ) -> Result<Listening, TransportError> {
        if self.shards.is_empty() {
            return Err(TransportError::NoShards);
        }
        let shared = SharedAcceptor(Arc::new(Mutex::new(acceptor)));
        let mut guards = Vec::new();
        for shard in &self.shards {
            let guard = shard.listen(local, ListenOptions::default(), Box::new(shared.clone()));
            let guard = guard.map_err(|error| TransportError::Refused(Box::new(error)))?;
            // The first shard has chosen the port, if it was left open; the others take the same.
            local.set_port(guard.local().port());
            guards.push(guard);
        }
        Ok(Listening { local, guard: Box::new(guards) })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.shards.first().map_or_else(|| Arc::new(MonotonicClock) as Arc<dyn Clock>, ShardHandle::clock)
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
