//! The session: bytes in, next segment out. Sans-IO; it does not know which transport carries it.
//!
//! A [`Session`] lives as long as one connection of the transport ([`Endpoint`] puts it there). What outlives the
//! connection (a lossless session's unacknowledged messages) is its [`Carry`], which goes from one to the next.

mod admission;
mod carry;
mod credit;
mod endpoint;
mod error;
mod lanes;
mod oob;
mod opening;
mod receive;
mod send;
mod statistics;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use outrider_stack::endpoint::{Directive, Established};
use outrider_stack::tcp::source::SendState;
use outrider_stack::time::Instant;

use crate::codec::{CloseCode, Decoder, DecoderLimits, SessionTerms};
use crate::features::Features;
use crate::message::Message;
use crate::name::EntityName;
use crate::oob::{OobMessage, OobRequest, OobStatistics, RegisterError};
use crate::report::{ReceiveReport, SendReport};
use crate::sparse::{Moment, SparseQueue};

use opening::Opening;

pub use admission::{Admission, NotTakenUp};
pub use carry::Carry;
pub use endpoint::{Endpoint, SessionUser};
pub use error::{FirstBytes, SessionError};
pub use receive::Delivery;
pub use send::CutSummary;
pub use statistics::{ConnectionStatistics, Released};

/// Smallest receive credit that a session works with, bytes.
pub const RECEIVE_CREDIT_BYTES_MIN: u64 = 4096;

/// Parameters of a session.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// This end's name.
    pub name: EntityName,
    /// Tells this life of the entity from the next.
    pub nonce: u64,
    /// Where this end listens.
    pub addresses: Vec<SocketAddr>,
    /// Features offered.
    pub supported: Features,
    /// Features that the peer must have.
    pub required: Features,
    /// Reported to the peer; kept by whoever hands messages to [`Session::send`].
    pub send_budget_bytes: u64,
    /// Receive credit window, bytes; at least [`RECEIVE_CREDIT_BYTES_MIN`].
    pub receive_credit_bytes: u64,
    /// Largest message payload taken.
    pub message_bytes_max: u32,
    /// What the sink offers the transport at any time, bytes. Credit bounds memory, so this only bounds the window.
    pub receive_room_bytes: usize,
    /// From the connection's establishment to the peer's Ready.
    pub handshake_timeout: Duration,
    /// After an orderly end was asked for: time without an acknowledgement until the connection is reset.
    pub close_linger: Duration,
    /// Time without a byte either way, and nothing to send, until the connection is closed. `None`: no limit.
    pub idle_timeout: Option<Duration>,
    /// How long an acknowledgement of messages may wait for more of them, in a session that resends.
    pub ack_delay: Duration,
    /// Seed of the jitter.
    pub seed: u64,
}

/// Which side of the handshake a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It dialled, for the session of these terms.
    Dialler(SessionTerms),
    /// It was dialled.
    Acceptor,
}

impl Role {
    /// The side that dials for a session that ends with its connection.
    pub fn lossy_dialler(config: &SessionConfig) -> Self {
        let credit_limit = config.receive_credit_bytes.max(RECEIVE_CREDIT_BYTES_MIN);
        Role::Dialler(SessionTerms {
            lossy: true,
            cookie: 1,
            attempt: 1,
            credit_limit,
            ..SessionTerms::default()
        })
    }
}

impl SessionConfig {
    /// The defaults for an entity.
    pub fn new(name: EntityName) -> Self {
        SessionConfig {
            name,
            nonce: 0,
            addresses: Vec::new(),
            supported: Features::KNOWN,
            required: Features::REQUIRED,
            send_budget_bytes: 4 << 20,
            receive_credit_bytes: 16 << 20,
            message_bytes_max: 256 << 20,
            receive_room_bytes: 64 << 20,
            handshake_timeout: Duration::from_secs(10),
            close_linger: Duration::from_secs(1),
            idle_timeout: None,
            ack_delay: Duration::from_millis(1),
            seed: 0,
        }
    }
}

/// Who is at the other end, and what was agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: EntityName,
    /// Its nonce.
    pub nonce: u64,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// What it supports, unknown bits included.
    pub features: Features,
    /// Largest message payload that it takes.
    pub message_bytes_max: u32,
}

/// What a session tells its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The peer dialled for a session. Its user answers with [`Session::admit`] or [`Session::decline`], at once or later.
    Connect {
        /// Who it is.
        peer: Arc<Peer>,
        /// For which session, and how far it has come in it.
        terms: SessionTerms,
    },
    /// The peer has taken up the session dialled for. Its user answers with [`Session::resume`] at once, or the
    /// connection is reset.
    Accepted {
        /// Who it is.
        peer: Arc<Peer>,
        /// How the session goes on.
        terms: SessionTerms,
    },
    /// Both sides have accepted each other.
    Ready(Arc<Peer>),
    /// A message is complete. Its user answers with [`Session::queued_for_dispatch`] or [`Session::dispatched_at_once`].
    Message {
        /// The message.
        message: Message,
        /// When its last byte was delivered.
        arrived_at: Instant,
        /// Receive credit that it holds.
        credit_bytes: u64,
    },
    /// An OOB message arrived.
    Oob(Box<OobMessage>),
    /// The peer answered a keepalive; the time since it was sent.
    KeepaliveAck(Duration),
    /// The peer ended the session, with its reason if it gave one.
    PeerClosed(Option<CloseCode>),
    /// The session failed.
    Fault(SessionError),
    /// Both sides have ended their streams and the peer has all of ours: what follows is the transport's own affair
    /// (such as TIME-WAIT). The last event.
    Ended,
}

/// What the peer may send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Banner,
    Hello,
    Auth,
    /// Connect, from the side that dialled.
    Connect,
    /// Nothing until our user has decided on its Connect.
    Deciding,
    Ready,
    /// Its Ready is there, and our user must take up the session.
    Answered,
    Open,
    /// Nothing counts any more: the peer has closed, or the session has failed.
    Over,
}

impl Phase {
    fn awaited(self) -> &'static str {
        match self {
            Phase::Banner => "awaiting the banner",
            Phase::Hello => "awaiting Hello",
            Phase::Auth => "awaiting Auth",
            Phase::Connect => "awaiting Connect",
            Phase::Deciding => "deciding on Connect",
            Phase::Ready | Phase::Answered => "awaiting Ready",
            Phase::Open => "open",
            Phase::Over => "over",
        }
    }
}

/// Control chunks that are due. Each kind at most once: a newer one takes an older one's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Control {
    keepalive: bool,
    keepalive_ack: Option<u64>,
    close: Option<CloseCode>,
}

/// Acknowledgement of messages received: what the peer has not been told of yet.
#[derive(Default)]
struct Acks {
    messages: u32,
    /// Payload bytes of them; with more than it holds, as many as it holds.
    bytes: u32,
    /// When it is to be told at the latest.
    due: Moment,
}

/// A message whose last byte left with the segment that ended at this stream offset.
#[derive(Clone, Copy, Debug)]
struct Unacked {
    end: u64,
    payload_bytes: u64,
}

/// A session over one connection.
///
/// - Input from the user: [`Self::send`], [`Self::register_oob`], [`Self::send_keepalive`], [`Self::dispatched`],
///   [`Self::close`]; after them the transport must ask for demand again.
/// - Answers of the user, see [`SessionEvent::Connect`] and [`SessionEvent::Accepted`]: [`Self::admit`],
///   [`Self::decline`], [`Self::resume`]; at the end [`Self::release`].
/// - Input from the transport: [`Self::on_established`], then [`Self::deliver`], [`Self::peek_ahead`],
///   [`Self::on_acked`], [`Self::on_peer_finished`]. After each, [`Self::poll_event`] until `None`: there is at most
///   one event for each chunk delivered.
/// - Output to the transport: [`Self::demand`], [`Self::cut`], [`Self::next_demand`], [`Self::finished`],
///   [`Self::directive`].
///
/// Laid out as it stands: what a heartbeat looks at comes first.
#[repr(C)]
pub struct Session {
    /// What outlives the connection, if it is `lossless`.
    life: Box<Carry>,
    config: Arc<SessionConfig>,
    phase: Phase,
    is_established: bool,
    abort: bool,
    /// Whether messages and OOB may be sent: our Ready has been queued, and no Close.
    can_send: bool,
    closing: bool,
    peer_finished: bool,
    /// The session outlives the connection.
    lossless: bool,
    credit_held: bool,
    /// Both sides have OOB messages.
    speaks_oob: bool,
    /// The peer looks for OOB messages ahead of gaps.
    urgent_overtakes: bool,
    /// Payload bytes of one segment at most, once the connection is established. Over a kernel's socket it is what is
    /// written at a time, which is more than a segment of TCP.
    segment_bytes: u32,
    /// Largest message payload that the peer takes.
    message_bytes_max: u32,
    /// Gone once the session is open.
    opening: Option<Box<Opening>>,
    /// There while something is due.
    control: Option<Box<Control>>,
    events: SparseQueue<SessionEvent>,
    /// While the session is closing, when the connection is reset; while it is open, when to look whether it is idle.
    deadline: Moment,
    acks: Acks,
    last_cut: Moment,
    sent_end: u64,
    acked: u64,
    unacked: SparseQueue<Unacked>,
    decoder: Decoder,
    peer: Option<Arc<Peer>>,
}

impl Session {
    /// A session that waits for its connection. Many may share their parameters but for the seed: see
    /// [`Self::with_seed`].
    pub fn new(config: impl Into<Arc<SessionConfig>>, role: Role) -> Self {
        let config = config.into();
        let seed = config.seed;
        Session::with_seed(config, role, seed)
    }

    /// A session of which `seed` counts, and not [`SessionConfig::seed`].
    pub fn with_seed(mut config: Arc<SessionConfig>, role: Role, seed: u64) -> Self {
        if config.receive_credit_bytes < RECEIVE_CREDIT_BYTES_MIN {
            Arc::make_mut(&mut config).receive_credit_bytes = RECEIVE_CREDIT_BYTES_MIN;
        }
        let limits = DecoderLimits {
            message_bytes_max: config.message_bytes_max,
            credit_limit: config.receive_credit_bytes,
        };
        let mut opening = Opening::default();
        if let Role::Dialler(terms) = role {
            opening.is_dialler = true;
            opening.own_terms = terms;
        }
        Session {
            life: Box::new(Carry::new(config.receive_credit_bytes, seed)),
            config,
            phase: Phase::Banner,
            is_established: false,
            abort: false,
            can_send: false,
            closing: false,
            peer_finished: false,
            lossless: false,
            credit_held: false,
            speaks_oob: false,
            urgent_overtakes: false,
            segment_bytes: 0,
            message_bytes_max: 0,
            opening: Some(Box::new(opening)),
            control: None,
            events: SparseQueue::default(),
            deadline: Moment::NEVER,
            acks: Acks::default(),
            last_cut: Moment::NEVER,
            sent_end: 0,
            acked: 0,
            unacked: SparseQueue::default(),
            decoder: Decoder::new(limits),
            peer: None,
        }
    }

    /// Input. The connection is there: banner, Hello and Auth leave at once, without waiting for the peer's.
    pub fn on_established(&mut self, now: Instant, established: &Established) {
        self.is_established = true;
        self.segment_bytes = u32::try_from(established.segment_size).unwrap_or(u32::MAX);
        self.open_handshake(established.local.ip());
        // The segment that completed the transport's handshake may have brought the peer's Ready already.
        if self.phase != Phase::Open && !self.closing {
            self.opening().deadline = (now + self.config.handshake_timeout).into();
        }
    }

    /// Payload bytes of one segment at most; none before the connection is established.
    fn segment_size(&self) -> usize {
        self.segment_bytes as usize
    }

    /// What is due, to be changed; [`Self::set_control`] puts it back.
    fn control(&self) -> Control {
        self.control.as_deref().copied().unwrap_or_default()
    }

    fn set_control(&mut self, control: Control) {
        self.control = (control != Control::default()).then(|| Box::new(control));
    }

    /// Input. Queues a message; returns it when the session is closing. Who calls keeps the send budget.
    ///
    /// # Errors
    /// The session is closing or over.
    pub fn send(&mut self, message: Message) -> Result<(), Message> {
        if self.closing || self.phase == Phase::Over {
            return Err(message);
        }
        self.life.queue.push(message);
        Ok(())
    }

    /// Input. Registers an op; its turns begin once both sides are ready.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub fn register_oob(&mut self, now: Instant, request: OobRequest) -> Result<(), RegisterError> {
        if self.closing || self.phase == Phase::Over {
            return Err(RegisterError::Closed);
        }
        self.life.oob.registry.insert(now, request)
    }

    /// Input. Asks the peer for an answer; see [`SessionEvent::KeepaliveAck`].
    pub fn send_keepalive(&mut self) {
        self.set_control(Control { keepalive: true, ..self.control() });
    }

    /// Input. A message given by [`SessionEvent::Message`] now waits for its dispatcher.
    pub fn queued_for_dispatch(&mut self, arrived_at: Instant, credit_bytes: u64) {
        self.life.credit.queued(arrived_at, credit_bytes);
    }

    /// Input. A message given by [`SessionEvent::Message`] has been dispatched without waiting.
    pub fn dispatched_at_once(&mut self, credit_bytes: u64) {
        self.life.credit.dispatched_at_once(credit_bytes);
    }

    /// Input. Whether the peer shall have no more credit for now, because too much waits elsewhere.
    pub fn hold_credit(&mut self, hold: bool) {
        self.credit_held = hold;
    }

    /// Input. The `count` messages that waited longest have been dispatched.
    pub fn dispatched(&mut self, count: u64) {
        self.life.credit.dispatched(count);
    }

    /// Input. Ends the connection in order: Close and the end of the stream follow. With [`CloseCode::Finished`] the
    /// session ends too, and what was not cut is dropped.
    pub fn close(&mut self, now: Instant, code: CloseCode) {
        if self.closing {
            return;
        }
        self.lossless &= code != CloseCode::Finished;
        self.stop_sending(now);
        if self.is_established {
            self.set_control(Control { close: Some(code), ..self.control() });
        } else {
            self.abort = true;
        }
    }

    fn stop_sending(&mut self, now: Instant) {
        // While it is open this is another one.
        if !self.closing || self.deadline.is_never() {
            self.deadline = (now + self.config.close_linger).into();
        }
        self.closing = true;
        self.can_send = false;
        if let Some(opening) = &mut self.opening {
            opening.deadline = Moment::NEVER;
        }
        if self.lossless {
            self.life.oob.registry.pause();
        } else {
            self.life.oob.registry.stop();
            let released = self.life.queue.clear();
            self.life.released.merge(released);
        }
    }

    /// Whether a close is on its way, in the time that it has.
    fn is_lingering(&self) -> bool {
        self.closing && !self.deadline.is_never()
    }

    /// Notices the end of an orderly close.
    fn check_ended(&mut self) {
        if self.is_lingering() && self.peer_finished && self.finished() && self.bytes_in_flight() == 0 {
            self.deadline = Moment::NEVER;
            self.events.push_back(SessionEvent::Ended);
        }
    }

    /// Output. What happened.
    #[inline]
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        if self.events.is_empty() { None } else { self.events.pop_front() }
    }

    pub(super) fn has_released(&self) -> bool {
        self.life.released.messages > 0
    }

    /// Output. What has left the send budget since the last call.
    pub fn take_released(&mut self) -> Released {
        core::mem::take(&mut self.life.released)
    }

    /// Output. What shall be done with the connection.
    #[inline]
    pub fn directive(&self) -> Directive {
        if self.abort { Directive::Abort } else { Directive::Continue }
    }

    /// What the sink takes at any time, bytes.
    pub fn receive_room(&self) -> usize {
        self.config.receive_room_bytes
    }

    /// Who is at the other end, once [`SessionEvent::Ready`] was given.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_deref().filter(|_| self.phase == Phase::Open)
    }

    /// Whether everything given was sent and, in a session that resends, acknowledged.
    pub fn is_drained(&self) -> bool {
        self.life.queue.is_empty() && self.unacked.is_empty()
    }

    /// Whether the session outlives the connection.
    pub fn is_lossless(&self) -> bool {
        self.lossless
    }

    /// Whether there is a reason to have a connection: messages that the peer does not have, or ops registered.
    pub fn wants_connection(&self) -> bool {
        self.life.wants_connection()
    }

    /// When bytes last arrived.
    pub fn last_heard(&self) -> Option<Instant> {
        self.life.last_heard.get()
    }

    /// Counts so far.
    pub fn statistics(&self) -> ConnectionStatistics {
        self.life.statistics
    }

    /// Counts of OOB messages so far.
    pub fn oob_statistics(&self) -> OobStatistics {
        self.life.oob.statistics()
    }

    /// Bytes cut and not acknowledged by the peer's transport, by this session's own count.
    pub fn bytes_in_flight(&self) -> u64 {
        self.sent_end.saturating_sub(self.acked)
    }

    /// Bytes of messages that were not cut yet.
    pub fn unsent_bytes(&self) -> u64 {
        self.life.queue.report().iter().map(|lane| lane.bytes).sum()
    }

    /// Whether messages wait for the peer's receive credit.
    pub fn is_out_of_credit(&self) -> bool {
        self.life.queue.is_out_of_credit()
    }

    /// Round trip of our last OOB message that was answered on this connection, less the time the peer held it.
    pub fn heartbeat_rtt(&self) -> Option<Duration> {
        self.life.oob.round_trip()
    }

    /// The sending side, with what the transport says about its own.
    pub fn send_report(&self, state: &SendState) -> SendReport {
        let lanes = self.life.queue.report();
        SendReport {
            unsent_bytes: lanes.iter().map(|lane| lane.bytes).sum(),
            unsent_messages: lanes.iter().map(|lane| lane.messages).sum(),
            lanes,
            bytes_in_flight: state.bytes_in_flight,
            send_budget_bytes: self.config.send_budget_bytes,
            oldest_unacked_age: state.oldest_unacked_age,
            retransmits: state.retransmits,
            congestion_window: state.congestion_window,
            peer_window: state.peer_window,
            smoothed_rtt: state.smoothed_rtt,
            blocked: if self.life.queue.is_out_of_credit() {
                outrider_stack::tcp::source::Blocked::Credit
            } else {
                state.blocked
            },
        }
    }

    /// The receiving side.
    pub fn receive_report(&self, now: Instant) -> ReceiveReport {
        self.life.credit.report(now, self.decoder.credit_limit(), self.decoder.spent())
    }
}
