//! The messenger: a name, a transport, dispatchers, connections.

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::builder::MessengerBuilder;
use super::connection::{Connection, Inner, State};
use super::core::Core;
use super::dispatch::Dispatcher;
use super::error::ConnectError;
use crate::inject::Injector;
use crate::link::Policy;
use crate::name::{EntityKind, EntityName};
use crate::session::SessionConfig;
use crate::transport::{Listening, Transport};

/// What becomes of messages that were given and not delivered when a messenger is shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// What was not cut into a segment is dropped.
    No,
    /// They are delivered, as far as that can be done within this time.
    Within(Duration),
}

/// A messenger: dials and accepts connections, and hands what they bring to its dispatchers.
///
/// Dropping it without [`Self::shutdown`] shuts it down without waiting.
pub struct Messenger {
    core: Arc<Core>,
    carrier: Arc<dyn Transport>,
    listeners: Mutex<Vec<Listening>>,
    control: Mutex<Option<JoinHandle<()>>>,
}

impl Messenger {
    /// A builder for the entity `name`.
    pub fn builder(name: EntityName) -> MessengerBuilder {
        MessengerBuilder::new(name)
    }

    pub(super) fn new(core: Arc<Core>, carrier: Arc<dyn Transport>, control: Option<JoinHandle<()>>) -> Self {
        Messenger { core, carrier, listeners: Mutex::default(), control: Mutex::new(control) }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(super) fn carrier(&self) -> &dyn Transport {
        &*self.carrier
    }

    pub(super) fn listens(&self, listening: Listening) {
        self.core.announced.rcu(|before| {
            let mut after = SessionConfig::clone(before);
            after.addresses.push(listening.address);
            after
        });
        self.listeners().push(listening);
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Listening>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to a peer of a kind not known yet, by the default policy; see [`Self::connect_to_kind`].
    ///
    /// # Errors
    /// As [`Self::connect_to_kind`].
    pub fn connect_to(&self, peer: SocketAddr) -> Result<Connection, ConnectError> {
        let policy = self.core.lock().table.policy(None);
        self.connect(peer, policy)
    }

    /// A connection to a peer, by the policy for its kind. Returns at once: messages and ops may be given already and
    /// leave when the connection is ready. By a lossy policy every call dials a connection of its own; by a lossless
    /// one there is one connection to each peer, and it is returned, whoever dialled it. This end's own address gives
    /// [`Self::loopback`].
    ///
    /// # Errors
    /// The messenger is shut down or its transport gone, or this end only serves such peers. All else comes through
    /// the dispatcher.
    pub fn connect_to_kind(&self, kind: EntityKind, peer: SocketAddr) -> Result<Connection, ConnectError> {
        let policy = self.core.lock().table.policy(Some(kind));
        self.connect(peer, policy)
    }

    fn connect(&self, peer: SocketAddr, policy: Policy) -> Result<Connection, ConnectError> {
        if policy.server {
            return Err(ConnectError::ServesOnly);
        }
        if self.core.announced.load().addresses.contains(&peer) {
            return Ok(self.loopback());
        }
        let now = self.core.clock.now();
        let mut locked = self.core.lock();
        if locked.table.is_stopping() {
            return Err(ConnectError::ShutDown);
        }
        let link = locked.table.open(now, peer, policy);
        self.core.act(&mut locked);
        let own = locked.dials.iter().position(|order| order.connection.inner.id == link.0);
        let order = own.and_then(|index| locked.dials.remove(index));
        let connection = locked.connections.get(&link).cloned();
        drop(locked);
        self.core.ring();
        let Some(connection) = connection else { return Err(ConnectError::ShutDown) };
        if let Some(order) = order
            && let Err(error) = self.core.dial(&*self.carrier, order)
            && policy.lossy
        {
            return Err(error.into());
        }
        Ok(connection)
    }

    /// The connection to this messenger itself: what is sent on it is dispatched here, in order, by a dispatch thread.
    /// Its send budget counts what was not dispatched, so a dispatcher must not send on it by the blocking call.
    pub fn loopback(&self) -> Connection {
        let make = || {
            let inner = Inner::new(0, Arc::clone(&self.core), None, true);
            inner.state.store(State::Ready as u8, Ordering::Release);
            Connection { inner: Arc::new(inner) }
        };
        self.core.loopback.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(make).clone()
    }

    /// This end's name.
    pub fn name(&self) -> EntityName {
        self.core.session.name
    }

    /// Where this end listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.core.announced.load().addresses.clone()
    }

    /// The connections there are, dialled and accepted, that are not marked down.
    pub fn connections(&self) -> Vec<Connection> {
        self.core.lock().connections.values().cloned().collect()
    }

    /// Adds a dispatcher at the head of the chain: it is asked first from here on.
    pub fn add_dispatcher_head(&self, dispatcher: &Arc<dyn Dispatcher>) {
        self.core.chain.add(dispatcher, true);
    }

    /// Adds a dispatcher at the tail of the chain.
    pub fn add_dispatcher_tail(&self, dispatcher: &Arc<dyn Dispatcher>) {
        self.core.chain.add(dispatcher, false);
    }

    /// Bytes and messages that wait for dispatch and count against the throttle for peers of a kind, or against the
    /// one for all connections if `kind` is `None`. `None` if there is no such throttle.
    pub fn throttled(&self, kind: Option<EntityKind>) -> Option<(u64, u64)> {
        let throttle = self.core.throttles.iter().find(|(of, _)| *of == kind)?;
        Some(throttle.1.held())
    }

    /// The faults made on purpose, if the builder was told to.
    pub fn injector(&self) -> Option<&Injector> {
        self.core.injector.as_deref()
    }

    /// [`Connection::mark_down`] on every connection.
    pub fn mark_down_all(&self) {
        for connection in self.connections() {
            connection.mark_down();
        }
    }

    /// [`Self::shutdown_with`] [`Drain::No`].
    pub fn shutdown(&self) {
        self.shutdown_with(Drain::No);
    }

    /// Stops listening and closes every connection in order; the dispatch threads finish what is queued. Does not wait
    /// for it; see [`Self::wait`].
    pub fn shutdown_with(&self, drain: Drain) {
        let mut locked = self.core.lock();
        locked.table.stop();
        let unknown: Vec<_> = locked
            .attachments
            .values()
            .filter(|attachment| !attachment.known.load(Ordering::Acquire))
            .cloned()
            .collect();
        if let Drain::Within(limit) = drain {
            locked.drain_until = Some(self.core.clock.now() + limit);
        }
        drop(locked);
        self.listeners().clear();
        unknown.iter().for_each(|attachment| attachment.order_release());
        match drain {
            Drain::No => self.mark_down_all(),
            Drain::Within(_) => self.connections().iter().for_each(Connection::drain),
        }
        if let Some(loopback) = &*self.core.loopback.lock().unwrap_or_else(PoisonError::into_inner) {
            loopback.inner.budget.close();
        }
        self.core.ring();
    }

    /// Waits until somebody has called [`Self::shutdown`], every connection has ended and the dispatch threads
    /// have finished. Must not be called on a dispatch thread or a shard.
    ///
    /// # Panics
    /// With the panic of a dispatcher, if one panicked.
    pub fn wait(&self) {
        let locked = self.core.lock();
        let running = |locked: &mut _| !self.core.is_done(locked);
        drop(self.core.changed.wait_while(locked, running).unwrap_or_else(PoisonError::into_inner));
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(control) = control {
            // A panic there would be a bug of this crate, and was printed.
            let _ = control.join();
        }
        self.core.pool.join();
    }
}

impl Drop for Messenger {
    fn drop(&mut self) {
        if !self.core.lock().table.is_stopping() {
            self.shutdown();
        }
    }
}
