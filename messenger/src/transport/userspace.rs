//! Sessions over Outrider's own TCP.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use outrider_stack::endpoint::{Acceptor, Endpoint};
use outrider_stack::net::{ListenOptions, StackConfig};
use outrider_stack::port::Port;
use outrider_stack::shard::{
    ConnectError, GroupConfig, GroupError, GroupHandle, Shard, ShardConfig, ShardGroup, ShardHandle,
    SpawnError, spawn, spawn_group,
};
use outrider_stack::time::{Clock, Instant, MonotonicClock};

use super::{ConnectRefused, Listening, Transport, TransportError};

/// Shards of the userspace stack. Connections dialled take them in turn; every shard listens on every address bound.
///
/// Shards that are one host, on the queues of one device, are a group ([`Userspace::over`]). Others must have ports and
/// addresses of their own.
pub struct Userspace {
    shards: Vec<ShardHandle>,
    next: AtomicUsize,
    /// The group that `shards` are, if they are one.
    group: Option<GroupHandle>,
    /// What this transport started itself, and stops when it is dropped.
    _own: Own,
}

enum Own {
    Nothing,
    Shard { _shard: Shard },
    Group { _group: ShardGroup },
}

impl Userspace {
    /// A transport over these shards. They must be stopped by their owner, after the messengers that use them.
    pub fn new(shards: Vec<ShardHandle>) -> Self {
        Userspace { shards, next: AtomicUsize::new(0), group: None, _own: Own::Nothing }
    }

    /// A transport over a group of shards. It must be stopped by its owner, after the messengers that use it.
    pub fn over(group: &GroupHandle) -> Self {
        Userspace { group: Some(group.clone()), ..Userspace::new(group.shards().to_vec()) }
    }

    /// A transport over the queues of a device, which are its own: a group of shards, stopped with the transport.
    ///
    /// # Errors
    /// The group could not be started: see [`GroupError`].
    pub fn on_ports(ports: Vec<Box<dyn Port>>, config: GroupConfig) -> Result<Self, GroupError> {
        let group = spawn_group(ports, config)?;
        let handle = group.handle();
        Ok(Userspace { _own: Own::Group { _group: group }, ..Userspace::over(&handle) })
    }

    /// A transport over a port of its own: one shard as [`ShardConfig::new`] has it, stopped with the transport.
    ///
    /// # Errors
    /// The shard could not be started: see [`SpawnError`].
    pub fn on_port(port: impl Port + 'static, stack: StackConfig) -> Result<Self, SpawnError> {
        let name = port.info().name.clone();
        let shard = spawn(Box::new(port), ShardConfig::new(name, stack))?;
        let shards = vec![shard.handle()];
        Ok(Userspace { _own: Own::Shard { _shard: shard }, ..Userspace::new(shards) })
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
        let begun = match &self.group {
            Some(group) => group.connect(remote, endpoint),
            None => {
                let turn = self.next.fetch_add(1, Ordering::Relaxed);
                self.shards[turn % self.shards.len()].connect(remote, endpoint)
            }
        };
        match begun {
            Ok(()) => Ok(()),
            Err(ConnectError::PortGone(endpoint)) => Userspace::refuse(endpoint, TransportError::Gone),
            Err(ConnectError::Full(endpoint)) => Userspace::refuse(endpoint, TransportError::Busy),
        }
    }

    fn listen_at(
        &self,
        mut local: SocketAddr,
        acceptor: Box<dyn Acceptor>,
    ) -> Result<Listening, TransportError> {
        if self.shards.is_empty() {
            return Err(TransportError::NoShards);
        }
        let refused = |error| TransportError::Refused(Box::new(error));
        if let Some(group) = &self.group {
            let listener = group.listen(local, ListenOptions::default(), acceptor).map_err(refused)?;
            return Ok(Listening { address: listener.local(), guard: Box::new(listener) });
        }
        let shared = SharedAcceptor(Arc::new(Mutex::new(acceptor)));
        let mut guards = Vec::new();
        for shard in &self.shards {
            let guard = shard.listen(local, ListenOptions::default(), Box::new(shared.clone()));
            let guard = guard.map_err(refused)?;
            // The first shard has chosen the port, if it was left open; the others take the same.
            local.set_port(guard.local().port());
            guards.push(guard);
        }
        Ok(Listening { address: local, guard: Box::new(guards) })
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
