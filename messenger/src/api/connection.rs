//! A connection as an application holds it.

use core::fmt;
use core::time::Duration;
use std::any::Any;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use crossbeam::atomic::AtomicCell;
use outrider_stack::endpoint::Waker;
use outrider_stack::time::Instant;

use super::budget::SendBudget;
use super::core::Core;
use super::error::{SendError, TrySendError};
use super::inbox::Inbox;
use crate::codec::{CloseCode, MESSAGE_HEADER_BYTES};
use crate::features::Features;
use crate::health::{Arrivals, Health, Trouble};
use crate::link::LinkId;
use crate::message::Message;
use crate::name::EntityName;
use crate::oob::{OPS_MAX, OobOp, OobRequest, OobStatistics, OobTurn, RegisterError, RegistrationState};
use crate::report::{Occupancy, PingReport};
use crate::session::{ConnectionStatistics, Peer, Released, SessionError};

/// What a message costs of the send budget besides its payload: its place in the queue and its header.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = size_of::<Message>() + MESSAGE_HEADER_BYTES;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    Connecting = 0,
    Ready = 1,
    Closed = 2,
}

/// Everything that the application's handles and the connection's thread share.
pub(super) struct Inner {
    pub(super) id: u64,
    pub(super) core: Arc<Core>,
    /// Where it was dialled, or where the first transport came from. Unset in a loopback connection.
    pub(super) peer_address: OnceLock<SocketAddr>,
    pub(super) is_loopback: bool,
    pub(super) made_at: Instant,
    pub(super) state: AtomicU8,
    /// This end has closed the connection.
    pub(super) marked_down: AtomicBool,
    pub(super) keepalive: AtomicBool,
    /// What is queued shall be sent, and then the connection closed.
    pub(super) draining: AtomicBool,
    /// The messenger has been told that there is something to send and no transport.
    pub(super) wants: AtomicBool,
    /// Of the endpoint that has the session; none between two transports.
    waker: ArcSwapOption<Waker>,
    pub(super) peer: ArcSwapOption<Peer>,
    pub(super) budget: SendBudget,
    /// Bounded by the budget, of which every message takes some.
    pub(super) inbox: Inbox<Message>,
    /// At most [`OPS_MAX`].
    pub(super) requests: Inbox<OobRequest>,
    ops: Mutex<Vec<(OobOp, Arc<RegistrationState>)>>,
    pub(super) queued_messages: AtomicU64,
    pub(super) queued_bytes: AtomicU64,
    pub(super) dispatched_messages: AtomicU64,
    pub(super) dispatched_bytes: AtomicU64,
    /// What the session knows of `dispatched_messages`.
    pub(super) dispatched_seen: AtomicU64,
    /// Notices that wait for a dispatch thread, a bit for each kind.
    pub(super) pending_notices: AtomicU8,
    pub(super) arrivals: AtomicCell<Arrivals>,
    pub(super) trouble: AtomicCell<Trouble>,
    /// Since when there is no transport that is ready.
    detached_at: AtomicCell<Option<Instant>>,
    private: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
    pub(super) occupancy: AtomicCell<Occupancy>,
    pub(super) peer_report: AtomicCell<Option<PingReport>>,
    pub(super) round_trip: AtomicCell<Option<Duration>>,
    pub(super) statistics: AtomicCell<ConnectionStatistics>,
    pub(super) oob_statistics: AtomicCell<OobStatistics>,
    pub(super) last_heard: AtomicCell<Option<Instant>>,
    /// Why the connection ended, where more is known than that it did.
    end: AtomicCell<Option<EndCause>>,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndCause {
    Fault(SessionError),
    PeerClosed(Option<CloseCode>),
}

impl Inner {
    /// A connection to `dialled`, to a peer that dialled if that is `None`; or to this messenger itself.
    pub(super) fn new(id: u64, core: Arc<Core>, dialled: Option<SocketAddr>, is_loopback: bool) -> Self {
        let budget = SendBudget::new(core.session.send_budget_bytes as usize);
        let made_at = core.clock.now();
        let address = dialled.map_or_else(OnceLock::new, OnceLock::from);
        Inner {
            id,
            core,
            peer_address: address,
            is_loopback,
            made_at,
            state: AtomicU8::new(State::Connecting as u8),
            marked_down: AtomicBool::new(false),
            keepalive: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            wants: AtomicBool::new(false),
            waker: ArcSwapOption::empty(),
            peer: ArcSwapOption::empty(),
            budget,
            inbox: Inbox::default(),
            requests: Inbox::default(),
            ops: Mutex::new(Vec::new()),
            queued_messages: AtomicU64::new(0),
            queued_bytes: AtomicU64::new(0),
            dispatched_messages: AtomicU64::new(0),
            dispatched_bytes: AtomicU64::new(0),
            dispatched_seen: AtomicU64::new(0),
            pending_notices: AtomicU8::new(0),
            arrivals: AtomicCell::new(Arrivals::default()),
            trouble: AtomicCell::new(Trouble::default()),
            detached_at: AtomicCell::new(Some(made_at)),
            private: Mutex::new(None),
            occupancy: AtomicCell::new(Occupancy::default()),
            peer_report: AtomicCell::new(None),
            round_trip: AtomicCell::new(None),
            statistics: AtomicCell::new(ConnectionStatistics::default()),
            oob_statistics: AtomicCell::new(OobStatistics::default()),
            last_heard: AtomicCell::new(None),
            end: AtomicCell::new(None),
        }
    }

    /// Has the connection's thread look at what was left for it or, without a transport, the messenger.
    pub(super) fn wake(&self) {
        // With the fence in `detach`: either this thread sees that the endpoint has gone, or the endpoint sees what
        // was left.
        fence(Ordering::SeqCst);
        if let Some(waker) = &*self.waker.load() {
            waker.wake();
        } else if !self.wants.swap(true, Ordering::SeqCst) {
            self.core.wants.push(LinkId(self.id));
            self.core.ring();
        }
    }

    /// An endpoint has the session.
    pub(super) fn attach(&self, waker: &Waker) {
        self.waker.store(Some(Arc::new(waker.clone())));
        // What was left before there was a waker.
        waker.wake();
    }

    /// Both sides are ready.
    pub(super) fn ready(&self, peer: Arc<Peer>) {
        self.peer.store(Some(peer));
        self.end.store(None);
        self.detached_at.store(None);
        self.change(State::Connecting, State::Ready);
    }

    /// A connection that is closed stays so.
    fn change(&self, from: State, to: State) {
        let _ = self.state.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The endpoint has given up the session.
    pub(super) fn detach(&self, now: Instant) {
        self.waker.store(None);
        self.detached_at.store(Some(now));
        self.change(State::Ready, State::Connecting);
        fence(Ordering::SeqCst);
    }

    fn has_ops(&self) -> bool {
        let ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        ops.iter().any(|(_, state)| state.is_alive())
    }

    /// Whether the application left something that no session has taken.
    pub(super) fn has_left_something(&self) -> bool {
        !self.inbox.is_empty() || !self.requests.is_empty() || self.keepalive.load(Ordering::Acquire)
    }

    /// The first cause is the one to tell.
    pub(super) fn note_end(&self, cause: EndCause) {
        if self.end.load().is_none() {
            self.end.store(Some(cause));
        }
    }

    pub(super) fn give_back(&self, released: Released) {
        if released.messages > 0 {
            let overhead = released.messages as usize * MESSAGE_OVERHEAD_BYTES;
            self.budget.give_back(released.payload_bytes as usize + overhead);
        }
    }

    /// What was queued for the peer is dropped.
    pub(super) fn discard(&self, released: Released) {
        self.give_back(released);
        self.drop_queued();
    }

    pub(super) fn drop_queued(&self) {
        for message in self.inbox.drain() {
            self.budget.give_back(message.payload.len() + MESSAGE_OVERHEAD_BYTES);
        }
    }

    fn limit_bytes(&self) -> usize {
        let own = self.core.session.message_bytes_max as usize;
        self.peer.load().as_ref().map_or(own, |peer| own.min(peer.message_bytes_max as usize))
    }

    fn push(self: &Arc<Self>, message: Message) {
        if self.is_loopback {
            self.core.pool.loop_back(&Connection { inner: Arc::clone(self) }, message);
        } else {
            self.inbox.push(message);
            self.wake();
        }
    }
}

/// A connection to a peer. Cheap to clone; all clones are the same connection.
///
/// What becomes of it when its transport is lost is a matter of [`crate::Policy`]. A lossy one ends, with what was not
/// delivered, and [`crate::Dispatcher::ms_handle_reset`] tells. A lossless one goes on with the next transport, and
/// everything given to it arrives once, in order within its lane.
#[derive(Clone)]
pub struct Connection {
    pub(super) inner: Arc<Inner>,
}

impl Connection {
    /// Sends a message, waiting while the send budget is spent. Must not be called on a shard.
    ///
    /// # Errors
    /// The connection is closed, or the message too large; the message comes back.
    pub fn send_message(&self, message: Message) -> Result<(), SendError> {
        let limit = self.inner.limit_bytes();
        if message.payload.len() > limit {
            return Err(SendError::TooLarge { message, limit });
        }
        if self.inner.budget.take(message.payload.len() + MESSAGE_OVERHEAD_BYTES).is_err() {
            return Err(SendError::Closed(message));
        }
        self.inner.push(message);
        Ok(())
    }

    /// Sends a message if the send budget allows. Never blocks.
    ///
    /// # Errors
    /// The budget is spent, the connection closed, or the message too large; the message comes back.
    pub fn try_send_message(&self, message: Message) -> Result<(), TrySendError> {
        if self.inner.budget.is_closed() {
            return Err(TrySendError::Closed(message));
        }
        if message.payload.len() > self.inner.limit_bytes() {
            return Err(TrySendError::TooLarge(message));
        }
        if !self.inner.budget.try_take(message.payload.len() + MESSAGE_OVERHEAD_BYTES) {
            return Err(TrySendError::Full(message));
        }
        self.inner.push(message);
        Ok(())
    }

    /// Has `callback` make a part for the peer every `interval`, to leave at the head of the next segment.
    ///
    /// The callback runs on the connection's thread at the instant of departure: what it reads is fresh, and it must
    /// not block. `None` passes the turn. Turns begin when the connection is ready and end when the registration is
    /// dropped or the connection closed. The callback itself is dropped at its next turn after that.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub fn register_oob_message(
        &self,
        identify_op: OobOp,
        callback: impl FnMut(&OobTurn) -> Option<Bytes> + Send + 'static,
        interval: Duration,
    ) -> Result<OobRegistration, RegisterError> {
        if self.inner.is_loopback {
            return Err(RegisterError::Loopback);
        }
        let request = OobRequest::new(identify_op, callback, interval)?;
        let state = Arc::clone(&request.state);
        let mut ops = self.inner.ops.lock().unwrap_or_else(PoisonError::into_inner);
        if self.inner.budget.is_closed() {
            return Err(RegisterError::Closed);
        }
        ops.retain(|(_, state)| state.is_alive());
        if ops.iter().any(|(op, _)| *op == identify_op) {
            return Err(RegisterError::AlreadyRegistered { op: identify_op });
        }
        if ops.len() >= OPS_MAX || self.inner.requests.push_below(OPS_MAX, request).is_err() {
            return Err(RegisterError::TooMany);
        }
        ops.reserve_exact(1);
        ops.push((identify_op, Arc::clone(&state)));
        drop(ops);
        self.inner.wake();
        Ok(OobRegistration { op: identify_op, state })
    }

    /// Asks the peer for an answer; [`Self::last_heard`] shows it.
    pub fn send_keepalive(&self) {
        self.inner.keepalive.store(true, Ordering::Release);
        self.inner.wake();
    }

    /// Closes the connection in order, lossless or not. Messages not yet cut into segments are dropped; no callback
    /// follows. Nothing happens to a loopback connection.
    pub fn mark_down(&self) {
        if self.inner.is_loopback {
            return;
        }
        self.inner.marked_down.store(true, Ordering::Release);
        self.inner.budget.close();
        self.inner.core.mark_down(LinkId(self.inner.id));
    }

    /// Makes a lossless connection end with its transport from here on, as a lossy one does.
    pub fn mark_disposable(&self) {
        self.inner.core.with_table(|table| table.mark_disposable(LinkId(self.inner.id)));
    }

    /// What is queued shall be sent, nothing more is taken, and then the connection closes.
    pub(super) fn drain(&self) {
        self.inner.draining.store(true, Ordering::Release);
        self.inner.budget.close();
        let held = self.inner.core.lock().table.has_messages(LinkId(self.inner.id));
        if held || !self.inner.inbox.is_empty() {
            self.inner.wake();
        } else {
            self.mark_down();
        }
    }

    /// Keeps something of the application's with the connection, in place of what was kept before.
    pub fn set_private(&self, private: Option<Arc<dyn Any + Send + Sync>>) {
        *self.inner.private.lock().unwrap_or_else(PoisonError::into_inner) = private;
    }

    /// What the application keeps with the connection.
    pub fn private(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.inner.private.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the connection does, judged by reports and arrivals alone.
    pub fn health(&self) -> Health {
        let inner = &self.inner;
        crate::health::judge(
            &inner.core.health,
            &crate::health::Evidence {
                now: inner.core.clock.now(),
                is_loopback: inner.is_loopback,
                asks: inner.has_ops(),
                made_at: inner.made_at,
                detached_at: inner.detached_at.load(),
                arrivals: inner.arrivals.load(),
                trouble: inner.trouble.load(),
                occupancy: self.occupancy(),
                peer_report: self.peer_report(),
            },
        )
    }

    /// Bytes of the send budget that are spent: by messages given and neither delivered, dropped nor refused, with what
    /// each of them costs besides its payload. Of a closed connection it means nothing: no message is taken any more.
    pub fn send_budget_spent_bytes(&self) -> usize {
        self.inner.budget.spent()
    }

    pub(super) fn state(&self) -> State {
        State::from_code(self.inner.state.load(Ordering::Acquire))
    }

    /// Whether both sides are ready.
    pub fn is_connected(&self) -> bool {
        self.state() == State::Ready && !self.inner.marked_down.load(Ordering::Acquire)
    }

    /// Whether this connection leads to this messenger itself.
    pub fn is_loopback(&self) -> bool {
        self.inner.is_loopback
    }

    /// The peer's name, once ready.
    pub fn peer_name(&self) -> Option<EntityName> {
        self.inner.peer.load().as_ref().map(|peer| peer.name)
    }

    /// The address dialled, or the one that the peer first dialled from.
    pub fn peer_address(&self) -> SocketAddr {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        self.inner.peer_address.get().copied().unwrap_or(nowhere)
    }

    /// Where the peer says that it listens, once ready.
    pub fn peer_addresses(&self) -> Vec<SocketAddr> {
        self.inner.peer.load().as_ref().map(|peer| peer.addresses.clone()).unwrap_or_default()
    }

    /// What the peer supports, once ready.
    pub fn peer_features(&self) -> Option<Features> {
        self.inner.peer.load().as_ref().map(|peer| peer.features)
    }

    /// Both sides of this end: the sending one as of [`Occupancy::at`], at most a millisecond behind while segments
    /// leave; what is not dispatched as of now.
    pub fn occupancy(&self) -> Occupancy {
        let mut occupancy = self.inner.occupancy.load();
        let dispatched = self.inner.dispatched_messages.load(Ordering::Acquire);
        let queued = self.inner.queued_messages.load(Ordering::Acquire);
        let dispatched_bytes = self.inner.dispatched_bytes.load(Ordering::Relaxed);
        let queued_bytes = self.inner.queued_bytes.load(Ordering::Relaxed);
        occupancy.receive.undispatched_messages = queued.saturating_sub(dispatched);
        occupancy.receive.undispatched_bytes = queued_bytes.saturating_sub(dispatched_bytes);
        if occupancy.receive.undispatched_messages == 0 {
            occupancy.receive.oldest_age = Duration::ZERO;
        }
        occupancy
    }

    /// When bytes last arrived.
    pub fn last_heard(&self) -> Option<Instant> {
        self.inner.last_heard.load()
    }

    /// The report in the peer's last OOB message.
    pub fn peer_report(&self) -> Option<PingReport> {
        self.inner.peer_report.load()
    }

    /// The round-trip time by the last OOB message that was echoed. The time that the peer held it is left out, so a busy
    /// peer does not look distant.
    pub fn round_trip(&self) -> Option<Duration> {
        self.inner.round_trip.load()
    }

    /// Counts, at most a millisecond behind while segments leave.
    pub fn statistics(&self) -> ConnectionStatistics {
        self.inner.statistics.load()
    }

    /// Counts of OOB messages.
    pub fn oob_statistics(&self) -> OobStatistics {
        self.inner.oob_statistics.load()
    }

    /// What was wrong, if the connection ended because of a fault that the session found.
    pub fn fault(&self) -> Option<SessionError> {
        match self.inner.end.load() {
            Some(EndCause::Fault(error)) => Some(error),
            _ => None,
        }
    }

    /// Why the peer closed, if it did and said so.
    pub fn closed_by_peer(&self) -> Option<CloseCode> {
        match self.inner.end.load() {
            Some(EndCause::PeerClosed(code)) => code,
            _ => None,
        }
    }

    /// Unique within the messenger.
    pub fn id(&self) -> u64 {
        self.inner.id
    }
}

impl PartialEq for Connection {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Connection {}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.inner.id)
            .field("peer_address", &self.peer_address())
            .field("peer_name", &self.peer_name())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// Keeps an op registered; dropping it ends its turns.
#[derive(Debug)]
#[must_use = "dropping the registration ends it"]
pub struct OobRegistration {
    op: OobOp,
    state: Arc<RegistrationState>,
}

impl OobRegistration {
    /// The op.
    pub fn op(&self) -> OobOp {
        self.op
    }

    /// Parts that were larger than [`OobTurn::bytes_max`] and therefore not sent.
    pub fn refused(&self) -> u64 {
        self.state.refused()
    }
}

impl Drop for OobRegistration {
    fn drop(&mut self) {
        self.state.drop_registration();
    }
}
