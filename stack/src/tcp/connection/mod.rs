//! The connection: one per peer, driven by its owner.

mod ack;
mod adjust;
mod handshake;
mod input;
mod inspect;
mod output;
mod path;
mod probing;
mod rare;
mod super_segment;
mod timeout;

use core::time::Duration;
use std::sync::Arc;

pub use inspect::{Inspection, RecoveryState};
use outrider_drivers::cache;

pub use super::config::{CloseReason, Config, Event, Keepalive, MtuProbing, TransmitLimit};
use super::congestion::{Algorithm, CongestionControl};
use super::ecn::{EchoStyle, Ecn};
use super::flight::{Flight, Spare};
pub use super::payload::Payload;
use super::rate::RateSampler;
use super::receiver::{AckDue, Receiver};
use super::recovery::Rack;
use super::rtt::RttEstimator;
use super::segment::{Header, Outgoing, Segment};
use super::sequence::SeqNumber;
use super::source::{Blocked, SendState};
pub use super::state::State;
use super::state::Transition;
use super::timers::{Follower, Running, TimerTable};
use super::trace::Trace;
use crate::time::Instant;
pub use handshake::SynParameters;
use rare::Rare;

/// Bytes of the timestamps option with its padding, in every segment once negotiated.
const TIMESTAMPS_BYTES: usize = 12;
/// MSS of a peer that announced none (RFC 9293 section 3.7.1).
const SEGMENT_SIZE_DEFAULT: u16 = 536;
/// Smallest MSS believed; a smaller one would make every segment mostly header.
const SEGMENT_SIZE_MIN: u16 = 88;
/// Challenge acknowledgements per second and connection (RFC 5961 section 7).
const CHALLENGE_ACKS_PER_SECOND: u32 = 10;

/// Where loss recovery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recovery {
    /// No loss is being repaired.
    Open,
    /// Fast recovery, until everything sent before it began is acknowledged.
    Fast,
    /// After a retransmission timeout, likewise.
    Timeout,
}

/// A TCP connection (RFC 9293), sans-IO: nothing here reads a clock, sends, or blocks.
///
/// Methods are of four kinds.
/// - Opening: [`Self::connect`], [`Self::accept`], [`Self::from_cookie`].
/// - Input, in any order, each with the present `now`: [`Self::on_segment`], [`Self::on_timeout`],
///   [`Self::set_receive_room`], [`Self::note_blocked`], [`Self::abort`].
/// - Output, after every input: [`Self::poll_transmit`] until `None` (it pulls payload from the source at that
///   instant; read it with [`Self::payload`] before the next call), then [`Self::poll_event`] until `None`, then
///   [`Self::next_timeout`] to arm one timer.
/// - Inspection, at any time: [`Self::state`], [`Self::send_state`], [`Self::statistics`] and the like.
///
/// Unsent bytes stay with the source; only what has left is here, immutable until acknowledged. An orderly close is
/// the source's [`super::source::SegmentSource::finished`].
///
/// Laid out by hand: first what every segment needs, then what only a sender does.
#[derive(Debug)]
#[repr(C)]
pub struct Connection {
    /// Shared with other connections where they have the same: then it is in the cache already.
    config: Arc<Config>,
    state: State,
    close_reason: Option<CloseReason>,
    established_pending: bool,
    closed_reported: bool,
    has_reset_pending: bool,
    /// The segment that leaves now was sent before.
    sends_again: bool,
    /// Offered, and until the peer's SYN shows otherwise, in use (RFC 7323).
    window_scaling: bool,
    sack: bool,
    tail_probe_due: bool,
    window_probe_due: bool,
    /// After a persist timeout less than a segment may be sent (RFC 9293 section 3.8.6.2.1).
    silly_window_override: bool,
    blocked: Blocked,
    peer_shift: u8,
    own_shift: u8,
    recovery: Recovery,
    /// A tail loss probe is out.
    tail_probe_out: bool,
    /// FIN was sent: the last byte before SND.NXT.
    fin_sent: bool,
    running: Running,
    /// Payload and options that one segment to the peer may carry.
    peer_segment_size: u16,
    timestamps: Option<TimestampState>,
    timestamp_offset: u32,
    /// Back-off of the retransmission timer, doublings.
    backoff: u16,
    window_probe_backoff: u8,
    /// It was noted that there is nothing to send, with nothing in flight, and nothing was sent since.
    idle_noted: bool,
    keepalive_probes: u32,
    duplicate_acks: u32,
    /// Largest window the peer has offered.
    peer_window_max: u32,
    /// From SND.WL2, the acknowledgement that last moved the window, to the window's right edge.
    window_update_span: u32,

    // Send sequence space, in stream offsets: 0 is our SYN.
    initial: SeqNumber,
    /// SND.UNA.
    una: u64,
    /// SND.NXT, which here is the highest offset ever sent; it never moves back.
    next: u64,
    /// SND.UNA + SND.WND: the right edge of the peer's window. Kept as an edge, so that an acknowledgement whose
    /// window is too old to be taken does not move it.
    window_edge: u64,
    /// SND.WL1.
    window_update_seq: u64,
    receiver: Receiver,
    timers: TimerTable,
    last_heard_at: Instant,
    last_sent_at: Instant,
    segments_sent: u64,
    segments_received: u64,
    acks_sent: u64,
    /// Present while ECN is negotiated, or offered and not yet answered.
    ecn: Option<Box<Ecn>>,
    rare: Option<Box<Rare>>,
    flight: Flight,
    trace: Trace,

    congestion: Box<dyn CongestionControl>,
    rtt: RttEstimator,
    rate: RateSampler,
    rack: Rack,
    /// The retransmission timeout counts from here.
    timeout_base: Instant,
    /// The user timeout counts from here: the last cumulative acknowledgement, or the first byte after an empty flight.
    progress_at: Instant,
    /// The tail loss probe counts from here: the last new data or acknowledgement.
    probe_base: Instant,
    next_round_delivered: u64,
    /// The pacer lets the next segment go at this instant.
    paced_until: Instant,
}

/// What tells a spurious recovery from a real one (RFC 3522 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undo {
    /// Recovery has begun, nothing was retransmitted yet.
    Waiting,
    /// The first retransmission: its timestamp, and the offset whose acknowledgement covers it.
    Retransmitted { timestamp: u32, end: u64 },
}

/// RFC 7323 state, present when both ends use timestamps (or we have offered them).
#[derive(Clone, Copy, Debug, Default)]
struct TimestampState {
    /// TS.Recent, once the peer has sent one.
    recent: Option<u32>,
}

/// DCTCP needs to know exactly which bytes were marked; its receiver tells when it runs DCTCP itself.
fn echo_style(config: &Config) -> EchoStyle {
    match config.algorithm {
        Algorithm::Dctcp => EchoStyle::Precise,
        _ => EchoStyle::Classic,
    }
}

/// The timestamp of `at` on a clock of milliseconds that is ahead by `offset`.
fn timestamp_of(at: Instant, offset: u32) -> u32 {
    ((at.as_nanos() / 1_000_000) as u32).wrapping_add(offset)
}

/// The window scale that lets the window field express `window_bytes`.
fn window_shift(window_bytes: u32) -> u8 {
    (0..14).find(|shift| window_bytes >> shift <= u32::from(u16::MAX)).unwrap_or(14)
}

impl Connection {
    fn new(now: Instant, config: &Config, initial: SeqNumber, timestamp_offset: u32, state: State) -> Self {
        let segment_size = u64::from(config.segment_size_max);
        let own_shift = if config.window_scaling { window_shift(config.receive_window_max) } else { 0 };
        Connection {
            state,
            close_reason: None,
            established_pending: false,
            closed_reported: false,
            has_reset_pending: false,
            sends_again: false,
            window_scaling: config.window_scaling,
            sack: config.sack,
            tail_probe_due: false,
            window_probe_due: false,
            silly_window_override: false,
            blocked: Blocked::Nothing,
            peer_shift: 0,
            own_shift,
            recovery: Recovery::Open,
            tail_probe_out: false,
            fin_sent: false,
            running: Running::default(),
            peer_segment_size: SEGMENT_SIZE_DEFAULT.min(config.segment_size_max),
            timestamps: config.timestamps.then(TimestampState::default),
            timestamp_offset,
            backoff: 0,
            window_probe_backoff: 0,
            idle_noted: false,
            keepalive_probes: 0,
            duplicate_acks: 0,
            peer_window_max: 0,
            window_update_span: 0,
            initial,
            una: 0,
            next: 0,
            window_edge: 0,
            window_update_seq: 0,
            receiver: Receiver::new(config),
            timers: TimerTable::default(),
            last_heard_at: now,
            last_sent_at: now,
            segments_sent: 0,
            segments_received: 0,
            acks_sent: 0,
            ecn: config.offers_ecn().then(|| Box::new(Ecn::new(echo_style(config)))),
            rare: None,
            flight: Flight::new(),
            trace: Trace::default(),
            congestion: Self::build_congestion(config, segment_size, initial, timestamp_offset),
            rtt: RttEstimator::default(),
            rate: RateSampler::default(),
            rack: Rack::default(),
            timeout_base: now,
            progress_at: now,
            probe_base: now,
            next_round_delivered: 0,
            paced_until: now,
            config: Arc::new(config.clone()),
        }
    }

    fn build_congestion(
        config: &Config,
        segment_size: u64,
        initial: SeqNumber,
        timestamp_offset: u32,
    ) -> Box<dyn CongestionControl> {
        let seed = u64::from(initial.0) << 32 | u64::from(timestamp_offset);
        config.algorithm.build(segment_size, config.initial_window_segments, seed)
    }

    /// Input. The sink will take `room` more bytes (the application has consumed).
    pub fn set_receive_room(&mut self, _now: Instant, room: usize) {
        // Before the handshake is complete the room bounds what SYN or SYN-ACK promise.
        if self.state.may_receive() || matches!(self.state, State::SynSent | State::SynReceived) {
            self.receiver.set_room(&self.config, room as u64);
        }
    }

    /// Input. Something below TCP (the port) keeps the next segment from leaving; recorded for [`SendState::blocked`].
    pub fn note_blocked(&mut self, by: Blocked) {
        self.blocked = by;
    }

    /// Input. Resets the connection: the next transmission is the RST, if the peer is to be told, and then the
    /// connection reports [`CloseReason::Aborted`].
    pub fn abort(&mut self, _now: Instant) {
        self.close_with_reset(CloseReason::Aborted);
    }

    /// Output. What happened. Call until `None` after every input and every transmission.
    ///
    /// [`Event::Closed`] comes only after a RST that is due has been taken by [`Self::poll_transmit`].
    pub fn poll_event(&mut self) -> Option<Event> {
        if core::mem::take(&mut self.established_pending) {
            return Some(Event::Established);
        }
        if self.has_reset_pending || self.closed_reported {
            return None;
        }
        self.close_reason.map(|reason| {
            self.closed_reported = true;
            Event::Closed(reason)
        })
    }

    /// Output. When [`Self::on_timeout`] wants to be called. The source's own
    /// [`super::source::SegmentSource::next_demand`] is the owner's to watch.
    pub fn next_timeout(&self) -> Option<Instant> {
        let mut next = self.timers.next();
        if !self.running.is_empty() {
            next = self.running_deadlines().fold(next, Instant::min);
        }
        (next != Instant::FAR_FUTURE).then_some(next)
    }

    /// State of the machine.
    pub fn state(&self) -> State {
        self.state
    }

    /// The last segments and events.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// State of the sender, as a cut would see it at `now`.
    pub fn send_state(&self, now: Instant) -> SendState {
        SendState {
            bytes_in_flight: self.next - self.una,
            congestion_window: self.congestion.window(),
            peer_window: self.peer_window(),
            smoothed_rtt: self.rtt.smoothed(),
            rtt_min: self.rtt.min(),
            delivery_rate: self.rate.bytes_per_second(),
            oldest_unacked_age: self
                .flight
                .front()
                .map_or(Duration::ZERO, |segment| now - segment.first_sent_at),
            retransmits: self.retransmits(),
            blocked: self.blocked,
            stream_offset: self.next,
        }
    }

    /// Stream offset up to which the peer acknowledged everything; feed changes to
    /// [`super::source::SegmentSource::on_acked`].
    pub fn acked_offset(&self) -> u64 {
        self.una
    }

    /// When something acceptable last arrived from the peer.
    pub fn last_heard_at(&self) -> Instant {
        self.last_heard_at
    }

    /// Payload bytes that one segment carries at most, when it has no SACK to report.
    pub fn segment_size(&self) -> usize {
        usize::from(self.peer_segment_size) - self.timestamp_bytes()
    }

    /// Name of the congestion controller.
    pub fn congestion_name(&self) -> &'static str {
        self.congestion.name()
    }

    /// Bytes held ahead of a gap.
    pub fn out_of_order_bytes(&self) -> usize {
        self.receiver.out_of_order_bytes()
    }

    /// Heap and inline bytes this connection holds, congestion controller excluded.
    pub fn memory_bytes(&self) -> usize {
        let rare = if self.rare.is_some() { size_of::<Rare>() } else { 0 };
        let ecn = if self.ecn.is_some() { size_of::<Ecn>() } else { 0 };
        size_of::<Connection>() + rare + ecn + self.flight.memory_bytes() + self.receiver.memory_bytes()
    }

    /// The payload of a segment just given by [`Self::poll_transmit`].
    pub fn payload(&self, segment: &Outgoing) -> Payload<'_> {
        if segment.payload_length == 0 {
            return Payload::default();
        }
        self.flight.payload(segment.payload_offset, segment.payload_length)
    }

    /// `length` bytes of payload in flight from stream offset `offset` on.
    pub(crate) fn payload_at(&self, offset: u64, length: usize) -> Payload<'_> {
        self.flight.payload(offset, length)
    }

    /// So much of a connection, from its beginning, is needed when it only receives.
    pub(crate) const RECEIVER_BYTES: usize = core::mem::offset_of!(Connection, trace);

    /// Asks for what it points to and a sender needs: see [`cache`].
    pub(crate) fn prefetch_parts(&self) {
        self.flight.prefetch();
        cache::prefetch(&*self.congestion);
    }

    /// Whether the next payload sent needs memory that is not there yet.
    pub(crate) fn is_bare(&self) -> bool {
        self.flight.is_bare()
    }

    /// The memory for what is in flight, while nothing is.
    pub(crate) fn take_spare(&mut self) -> Option<Spare> {
        self.flight.take_spare()
    }

    /// Gives such memory to a connection that has none.
    pub(crate) fn use_spare(&mut self, spare: Spare) {
        self.flight.use_spare(spare);
    }

    /// Has the connection use `config`, which says what its own does.
    pub(crate) fn share_config(&mut self, config: &Arc<Config>) {
        self.config = Arc::clone(config);
    }

    /// Bytes the peer's window allows beyond SND.UNA.
    fn peer_window(&self) -> u64 {
        self.window_edge.saturating_sub(self.una)
    }

    fn timestamp_bytes(&self) -> usize {
        if self.timestamps.is_some() { TIMESTAMPS_BYTES } else { 0 }
    }

    /// Our timestamp clock: milliseconds (RFC 7323 section 5.4), offset per connection.
    fn timestamp_at(&self, at: Instant) -> u32 {
        timestamp_of(at, self.timestamp_offset)
    }

    fn transition(&mut self, transition: Transition) {
        if let Some(state) = self.state.after(transition) {
            self.state = state;
        }
    }

    /// Ends the connection without a word to the peer.
    fn close(&mut self, reason: CloseReason) {
        if self.state == State::Closed {
            return;
        }
        self.state = State::Closed;
        self.finish_closing(reason);
    }

    fn finish_closing(&mut self, reason: CloseReason) {
        if reason.is_failure() && !self.trace.is_empty() {
            tracing::debug!(target: "outrider::tcp", %reason, trace = %self.trace, "connection failed");
        }
        self.close_reason.get_or_insert(reason);
        self.disarm_all();
        self.receiver.clear();
        // Nothing is sent again: what was lent goes back, however long the owner keeps the connection.
        self.flight.clear();
    }

    /// Ends the connection and tells the peer by RST, where there is a peer to tell (RFC 9293 section 3.10.5).
    fn close_with_reset(&mut self, reason: CloseReason) {
        if matches!(self.state, State::Closed | State::TimeWait | State::SynSent) {
            return self.close(reason);
        }
        let mut header = Header { seq: self.initial.at(self.next), ..Header::default() };
        header.flags.rst = true;
        header.ack = Some(self.receiver.initial.at(self.receiver.next));
        self.reset_with(Some(header));
        self.close(reason);
    }

    /// Keeps the timers in step with what was just done: once for all segments of a burst, and so not with each one
    /// but when the owner has heard that nothing more may leave. For an owner that stops before that.
    pub(crate) fn settle(&mut self, now: Instant) {
        if self.state == State::Closed {
            return;
        }
        self.running.set(Follower::DelayedAck, matches!(self.receiver.due(), AckDue::At(_)));
        self.arm_retransmit(now);
        self.arm_keepalive();
    }

    /// An acknowledgement that answers something suspicious, limited in rate (RFC 5961 section 7).
    fn challenge(&mut self, now: Instant) {
        let rare = self.rare_mut();
        if rare.challenges.1 == 0 || now - rare.challenges.0 >= Duration::from_secs(1) {
            rare.challenges = (now, 0);
        }
        if rare.challenges.1 < CHALLENGE_ACKS_PER_SECOND {
            rare.challenges.1 += 1;
            rare.statistics.challenge_acks += 1;
            self.receiver.acknowledge_now();
        }
    }
}

impl Drop for Connection {
    /// A failed assertion anywhere in the thread shows what led to it.
    fn drop(&mut self) {
        if std::thread::panicking() && !self.trace.is_empty() {
            tracing::error!(target: "outrider::tcp", trace = %self.trace, "dropped by a panic");
        }
    }
}

/// The RST that answers `segment` where no connection exists (RFC 9293 section 3.10.7.1), `None` if it is a RST itself.
pub fn reset_for(segment: &Segment<'_>) -> Option<Header> {
    if segment.header.flags.rst {
        return None;
    }
    let mut header = Header::default();
    header.flags.rst = true;
    match segment.header.ack {
        Some(ack) => header.seq = ack,
        None => {
            let length = segment.payload.len() as u32
                + u32::from(segment.header.flags.syn)
                + u32::from(segment.header.flags.fin);
            header.ack = Some(segment.header.seq.add(length));
        }
    }
    Some(header)
}
