//! What all connections of a messenger share: the table of connections under its lock, and what follows from it.

use core::ops::ControlFlow;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use crossbeam::channel::Sender;
use crossbeam::queue::SegQueue;
use outrider_stack::endpoint::{Acceptor, Endpoint as StackEndpoint};
use outrider_stack::time::{Clock, Instant};

use super::attached::Attached;
use super::attachment::{Attachment, Verdict};
use super::connection::{Connection, Inner, State};
use super::dispatch::{Chain, Pool};
use super::throttle::Throttle;
use crate::codec::SessionTerms;
use crate::health::HealthConfig;
use crate::inject::{Injected, Injector};
use crate::link::{Action, Cause, LinkId, Table, TransportId};
use crate::name::EntityKind;
use crate::random::SplitMix;
use crate::session::{Carry, Endpoint, Peer, Role, Session, SessionConfig};
use crate::transport::{ConnectRefused, Transport, TransportError};

/// An attempt that is to be made.
pub(super) struct DialOrder {
    pub(super) connection: Connection,
    pub(super) transport: TransportId,
    pub(super) address: SocketAddr,
    pub(super) terms: SessionTerms,
}

/// What is behind the lock. Taken for handshakes, ends and calls of the application; never for a message.
pub(super) struct Locked {
    pub(super) table: Table,
    pub(super) connections: BTreeMap<LinkId, Connection>,
    pub(super) attachments: BTreeMap<TransportId, Arc<Attachment>>,
    pub(super) dials: VecDeque<DialOrder>,
    /// Gone, and to be cleared once the lock is free: what the application left there may call back.
    pub(super) ended: Vec<Connection>,
    /// Connections that still have something to send are closed then.
    pub(super) drain_until: Option<Instant>,
}

/// What all connections of a messenger share.
pub(super) struct Core {
    pub(super) session: SessionConfig,
    /// The same with the addresses listened on by now: what new sessions share.
    pub(super) announced: ArcSwap<SessionConfig>,
    pub(super) chain: Chain,
    pub(super) pool: Pool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) health: HealthConfig,
    pub(super) injector: Option<Arc<Injector>>,
    pub(super) throttles: Vec<(Option<EntityKind>, Arc<Throttle>)>,
    pub(super) locked: Mutex<Locked>,
    /// Nothing is left of a messenger that was shut down.
    pub(super) changed: Condvar,
    /// Rings the control thread. One ring waiting is enough.
    pub(super) bell: Sender<()>,
    /// Connections without a transport that have something to send.
    pub(super) wants: SegQueue<LinkId>,
    pub(super) loopback: Mutex<Option<Connection>>,
}

impl Core {
    pub(super) fn lock(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ring(&self) {
        // A bell that rings already will be heard.
        let _ = self.bell.try_send(());
    }

    /// Has the table take an input and does what follows.
    pub(super) fn with_table<R>(self: &Arc<Self>, input: impl FnOnce(&mut Table) -> R) -> R {
        let mut locked = self.lock();
        let timeout = locked.table.next_timeout();
        let result = input(&mut locked.table);
        let dials = locked.dials.len();
        self.act(&mut locked);
        let sooner = |next: Instant| timeout.is_none_or(|timeout| next < timeout);
        let rings = locked.dials.len() > dials || locked.table.next_timeout().is_some_and(sooner);
        let done = self.is_done(&locked);
        Self::unlock(locked);
        if rings || done {
            self.ring();
        }
        if done {
            // The control thread may have ended before an attempt that was under way then: who waits is told here.
            self.changed.notify_all();
        }
        result
    }

    fn unlock(mut locked: MutexGuard<'_, Locked>) {
        let ended = core::mem::take(&mut locked.ended);
        drop(locked);
        ended.iter().for_each(|connection| connection.inner.clear());
    }

    pub(super) fn act(self: &Arc<Self>, locked: &mut Locked) {
        while let Some(action) = locked.table.poll_action() {
            match action {
                Action::Dial { link, transport, address, terms } => {
                    let connection = self.connection(locked, link, Some(address));
                    locked.dials.push_back(DialOrder { connection, transport, address, terms });
                }
                Action::Admit { transport, link, admission } => {
                    let connection = self.connection(locked, link, None);
                    if let Some(attachment) = locked.attachments.get(&transport) {
                        attachment.answer(Verdict::Admit(connection, admission));
                    } else {
                        // It went while it waited: the table gets the session back.
                        let now = self.clock.now();
                        locked.table.down(now, transport, admission.carry, Cause::Lost, false);
                    }
                }
                Action::Decline { transport, code } => {
                    if let Some(attachment) = locked.attachments.get(&transport) {
                        attachment.answer(Verdict::Decline(code));
                    }
                }
                Action::Release { transport } => {
                    locked.dials.retain(|order| order.transport != transport);
                    if let Some(attachment) = locked.attachments.get(&transport) {
                        attachment.order_release();
                    }
                }
                Action::Notify { link, notice } => {
                    if let Some(connection) = locked.connections.get(&link) {
                        self.pool.notify(connection, notice);
                    }
                }
                Action::Discarded { link, released } => {
                    if let Some(connection) = locked.connections.get(&link) {
                        connection.inner.discard(released);
                    }
                }
                Action::Ended { link, notice } => {
                    if let Some(connection) = locked.connections.remove(&link) {
                        connection.inner.close();
                        if let Some(notice) = notice {
                            self.pool.notify(&connection, notice);
                        }
                        locked.ended.push(connection);
                    }
                }
            }
        }
    }

    /// The connection of a link; made when the table has made the link.
    fn connection(
        self: &Arc<Self>,
        locked: &mut Locked,
        link: LinkId,
        dialled: Option<SocketAddr>,
    ) -> Connection {
        let make = || Connection { inner: Arc::new(Inner::new(link.0, Arc::clone(self), dialled, false)) };
        locked.connections.entry(link).or_insert_with(make).clone()
    }

    /// Throttles for connections to peers of a kind.
    pub(super) fn throttles_for(&self, kind: EntityKind) -> Vec<Arc<Throttle>> {
        let applies = |of: &Option<EntityKind>| of.is_none_or(|of| of == kind);
        self.throttles
            .iter()
            .filter(|(of, _)| applies(of))
            .map(|(_, throttle)| Arc::clone(throttle))
            .collect()
    }

    fn endpoint(&self, role: Role, transport: TransportId, attached: Attached) -> Box<dyn StackEndpoint> {
        let config = self.announced.load_full();
        let seed = SplitMix::new(config.nonce ^ transport.0).next_u64();
        let endpoint = Endpoint::new(Session::with_seed(config, role, seed), attached);
        match &self.injector {
            Some(injector) => Box::new(Injected::new(endpoint, Arc::clone(injector), seed)),
            None => Box::new(endpoint),
        }
    }

    /// Makes an attempt. If the transport does not even begin it, a lossy connection is gone without a callback: who
    /// called learns it here.
    pub(super) fn dial(
        self: &Arc<Self>,
        carrier: &dyn Transport,
        order: DialOrder,
    ) -> Result<(), TransportError> {
        let DialOrder { connection, transport, address, terms } = order;
        let attachment = Arc::new(Attachment::new(transport));
        attachment.known.store(true, Ordering::Release);
        self.lock().attachments.insert(transport, Arc::clone(&attachment));
        let attached = Attached::new(Arc::clone(self), attachment, Some(connection.clone()));
        let endpoint = self.endpoint(Role::Dialler(terms), transport, attached);
        match carrier.connect(address, endpoint) {
            Ok(()) => Ok(()),
            Err(ConnectRefused { endpoint, error }) => {
                if terms.lossy {
                    connection.mark_down();
                }
                // This tells the table.
                drop(endpoint);
                Err(error)
            }
        }
    }

    pub(super) fn claim(
        self: &Arc<Self>,
        now: Instant,
        transport: TransportId,
        peer: &Peer,
        terms: &SessionTerms,
    ) {
        self.with_table(|table| table.claim(now, transport, peer, terms));
    }

    pub(super) fn answered(
        self: &Arc<Self>,
        transport: TransportId,
        peer: &Peer,
        terms: &SessionTerms,
    ) -> Option<Box<Carry>> {
        self.with_table(|table| table.answered(transport, peer, terms))
    }

    pub(super) fn opened(self: &Arc<Self>, now: Instant, transport: TransportId) {
        self.with_table(|table| table.opened(now, transport));
    }

    pub(super) fn down(
        self: &Arc<Self>,
        now: Instant,
        transport: TransportId,
        carry: Option<Box<Carry>>,
        cause: Cause,
        wanted: bool,
    ) {
        let attachment = self.lock().attachments.remove(&transport);
        // Answers are left under the lock and only where the attachment is still known: this is the last one.
        let unread = attachment.and_then(|attachment| attachment.take_verdict());
        let carry = match unread {
            Some(Verdict::Admit(_, admission)) => admission.carry.or(carry),
            Some(Verdict::Decline(_)) | None => carry,
        };
        self.with_table(|table| table.down(now, transport, carry, cause, wanted));
    }

    /// The application has no more use for a connection. Its transport closes in order by itself.
    pub(super) fn mark_down(self: &Arc<Self>, link: LinkId) {
        let mut locked = self.lock();
        let transports = locked.table.transports_of(link);
        let attachments: Vec<_> =
            transports.iter().filter_map(|transport| locked.attachments.get(transport)).cloned().collect();
        locked.dials.retain(|order| order.connection.inner.id != link.0);
        locked.table.mark_down(link);
        self.act(&mut locked);
        Self::unlock(locked);
        attachments.iter().for_each(|attachment| attachment.wake());
        self.ring();
    }

    /// One look of the control thread: timers, wishes, attempts. When to look again, or that the messenger is done and
    /// the dispatchers have been told: the two are one, for whoever looked a second time might find that it is done now,
    /// and nobody would tell them.
    pub(super) fn control(
        self: &Arc<Self>,
        carrier: &dyn Transport,
        now: Instant,
    ) -> ControlFlow<(), Option<Instant>> {
        let mut wanting = Vec::new();
        while let Some(link) = self.wants.pop() {
            wanting.push(link);
        }
        let mut locked = self.lock();
        for link in wanting {
            if let Some(connection) = locked.connections.get(&link) {
                connection.inner.wants.store(false, Ordering::SeqCst);
            }
            locked.table.want(now, link);
        }
        locked.table.on_timer(now);
        self.act(&mut locked);
        let late = locked.drain_until.is_some_and(|until| until <= now);
        let left = if late { locked.connections.values().cloned().collect() } else { Vec::new() };
        if late {
            locked.drain_until = None;
        }
        let dials = core::mem::take(&mut locked.dials);
        Self::unlock(locked);
        left.iter().for_each(Connection::mark_down);
        for order in dials {
            let address = order.address;
            if let Err(error) = self.dial(carrier, order) {
                tracing::debug!(%address, %error, "not dialled");
            }
        }
        let locked = self.lock();
        if self.is_done(&locked) {
            // Nothing can be queued for the dispatchers any more. The loopback connection holds this very core.
            self.pool.stop();
            drop(self.loopback.lock().unwrap_or_else(PoisonError::into_inner).take());
            self.changed.notify_all();
            return ControlFlow::Break(());
        }
        let next = locked.table.next_timeout().into_iter().chain(locked.drain_until).min();
        ControlFlow::Continue(if locked.dials.is_empty() { next } else { Some(now) })
    }

    /// Whether nothing is left of a messenger that was shut down.
    pub(super) fn is_done(&self, locked: &Locked) -> bool {
        locked.table.is_stopping() && locked.connections.is_empty() && locked.attachments.is_empty()
    }
}

impl Inner {
    /// The connection is over: nothing more is taken, and nobody waits.
    fn close(&self) {
        self.state.store(State::Closed as u8, Ordering::Release);
        self.budget.close();
    }

    /// Drops what nobody will send any more.
    fn clear(&self) {
        self.drop_queued();
        drop(self.requests.drain());
    }
}

/// Makes endpoints for what the transport accepts.
pub(super) struct Gate {
    pub(super) core: Arc<Core>,
}

impl Acceptor for Gate {
    fn accept(
        &mut self,
        _now: Instant,
        _local: SocketAddr,
        remote: SocketAddr,
    ) -> Option<Box<dyn StackEndpoint>> {
        let mut locked = self.core.lock();
        let transport = locked.table.accepted()?;
        let attachment = Arc::new(Attachment::new(transport));
        locked.attachments.insert(transport, Arc::clone(&attachment));
        drop(locked);
        let mut attached = Attached::new(Arc::clone(&self.core), attachment, None);
        attached.remote = Some(remote);
        Some(self.core.endpoint(Role::Acceptor, transport, attached))
    }
}
