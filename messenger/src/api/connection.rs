//! A connection as an application holds it.

use core::fmt;
use core::time::Duration;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use crossbeam::atomic::AtomicCell;
use crossbeam::queue::{ArrayQueue, SegQueue};
use outrider_stack::endpoint::Waker;
use outrider_stack::time::Instant;

use super::budget::SendBudget;
use super::error::{SendError, TrySendError};
use super::messenger::Core;
use crate::codec::{CloseCode, MESSAGE_HEADER_BYTES};
use crate::features::Features;
use crate::message::Message;
use crate::name::EntityName;
use crate::oob::{OPS_MAX, OobOp, OobRequest, OobStatistics, OobTurn, RegisterError, RegistrationState};
use crate::report::{Occupancy, PingReport};
use crate::session::{ConnectionStatistics, Peer, SessionError};

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
    pub(super) peer_address: SocketAddr,
    pub(super) dialled: bool,
    pub(super) state: AtomicU8,
    /// This end has closed the connection.
    pub(super) marked_down: AtomicBool,
    pub(super) keepalive: AtomicBool,
    pub(super) waker: OnceLock<Waker>,
    pub(super) peer: OnceLock<Peer>,
    pub(super) budget: SendBudget,
    /// Bounded by the budget, of which every message takes some.
    pub(super) inbox: SegQueue<Message>,
    pub(super) requests: ArrayQueue<OobRequest>,
    ops: Mutex<Vec<(OobOp, Arc<RegistrationState>)>>,
    pub(super) queued_messages: AtomicU64,
    pub(super) queued_bytes: AtomicU64,
    pub(super) dispatched_messages: AtomicU64,
    pub(super) dispatched_bytes: AtomicU64,
    pub(super) occupancy: AtomicCell<Occupancy>,
    pub(super) peer_report: AtomicCell<Option<PingReport>>,
    pub(super) statistics: AtomicCell<ConnectionStatistics>,
    pub(super) oob_statistics: AtomicCell<OobStatistics>,
    pub(super) last_heard: AtomicCell<Option<Instant>>,
    /// Why the connection ended, where more is known than that it did.
    pub(super) end: OnceLock<EndCause>,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndCause {
    Fault(SessionError),
    PeerClosed(Option<CloseCode>),
}

impl Inner {
    pub(super) fn new(id: u64, core: Arc<Core>, peer_address: SocketAddr, dialled: bool) -> Self {
        let budget = SendBudget::new(core.send_budget_bytes());
        Inner {
            id,
            core,
            peer_address,
            dialled,
            state: AtomicU8::new(State::Connecting as u8),
            marked_down: AtomicBool::new(false),
            keepalive: AtomicBool::new(false),
            waker: OnceLock::new(),
            peer: OnceLock::new(),
            budget,
            inbox: SegQueue::new(),
            requests: ArrayQueue::new(OPS_MAX),
            ops: Mutex::new(Vec::new()),
            queued_messages: AtomicU64::new(0),
            queued_bytes: AtomicU64::new(0),
            dispatched_messages: AtomicU64::new(0),
            dispatched_bytes: AtomicU64::new(0),
            occupancy: AtomicCell::new(Occupancy::default()),
            peer_report: AtomicCell::new(None),
            statistics: AtomicCell::new(ConnectionStatistics::default()),
            oob_statistics: AtomicCell::new(OobStatistics::default()),
            last_heard: AtomicCell::new(None),
            end: OnceLock::new(),
        }
    }

    /// Has the connection's thread look at what was left for it; nothing to do before it has begun.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    fn limit_bytes(&self) -> usize {
        let own = self.core.message_bytes_max();
        self.peer.get().map_or(own, |peer| own.min(peer.message_bytes_max as usize))
    }

    fn push(&self, message: Message) {
        self.inbox.push(message);
        self.wake();
    }
}

/// A connection to a peer. Cheap to clone; all clones are the same connection.
///
/// It is lossy: when it is lost, what was not delivered is lost with it and [`crate::Dispatcher::ms_handle_reset`] tells.
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
        if ops.len() >= OPS_MAX || self.inner.requests.push(request).is_err() {
            return Err(RegisterError::TooMany);
        }
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

    /// Closes the connection in order. Messages not yet cut into segments are dropped; no callback follows.
    pub fn mark_down(&self) {
        self.inner.marked_down.store(true, Ordering::Release);
        self.inner.budget.close();
        self.inner.wake();
    }

    pub(super) fn state(&self) -> State {
        match self.inner.state.load(Ordering::Acquire) {
            0 => State::Connecting,
            1 => State::Ready,
            _ => State::Closed,
        }
    }

    /// Whether both sides are ready.
    pub fn is_connected(&self) -> bool {
        self.state() == State::Ready && !self.inner.marked_down.load(Ordering::Acquire)
    }

    /// The peer's name, once ready.
    pub fn peer_name(&self) -> Option<EntityName> {
        self.inner.peer.get().map(|peer| peer.name)
    }

    /// The peer's address on this connection.
    pub fn peer_address(&self) -> SocketAddr {
        self.inner.peer_address
    }

    /// Where the peer says that it listens, once ready.
    pub fn peer_addresses(&self) -> &[SocketAddr] {
        self.inner.peer.get().map_or(&[], |peer| &peer.addresses)
    }

    /// What the peer supports, once ready.
    pub fn peer_features(&self) -> Option<Features> {
        self.inner.peer.get().map(|peer| peer.features)
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
        match self.inner.end.get() {
            Some(EndCause::Fault(error)) => Some(*error),
            _ => None,
        }
    }

    /// Why the peer closed, if it did and said so.
    pub fn closed_by_peer(&self) -> Option<CloseCode> {
        match self.inner.end.get() {
            Some(EndCause::PeerClosed(code)) => *code,
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
            .field("peer_address", &self.inner.peer_address)
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
        self.state.refused.load(Ordering::Relaxed)
    }
}

impl Drop for OobRegistration {
    fn drop(&mut self) {
        self.state.alive.store(false, Ordering::Release);
    }
}
