//! The connection: one per peer, driven by its owner.

use core::time::Duration;

use super::congestion::Algorithm;
use super::segment::{Header, Outgoing, Segment};
use super::sequence::SeqNumber;
use super::source::{Blocked, SegmentSink, SegmentSource, SendState};
use crate::time::Instant;

/// Parameters of a connection, fixed when it is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// MSS announced to the peer: what one received segment may carry (MTU less IP and TCP base headers), bytes.
    pub segment_size_max: u16,
    /// Largest receive window, bytes; also fixes the window scale.
    pub receive_window_max: u32,
    /// Congestion controller.
    pub algorithm: Algorithm,
    /// Initial congestion window in segments (RFC 6928).
    pub initial_window_segments: u32,
    /// Offer and use timestamps (RFC 7323).
    pub timestamps: bool,
    /// Offer and use SACK (RFC 2018).
    pub sack: bool,
    /// Offer and use window scaling (RFC 7323).
    pub window_scaling: bool,
    /// Retransmission timeout before the first RTT sample (RFC 6298: 1 s).
    pub rto_initial: Duration,
    /// Floor of the retransmission timeout; twice the smoothed RTT applies besides.
    pub rto_min: Duration,
    /// Ceiling of the backed-off retransmission timeout.
    pub rto_max: Duration,
    /// SYN (or SYN-ACK) retransmissions before the attempt fails.
    pub syn_retries: u32,
    /// Time without any acknowledgement of outstanding data before the connection is given up (RFC 5482 semantics).
    pub user_timeout: Duration,
    /// Longest delay of an acknowledgement (RFC 1122: below 500 ms).
    pub ack_delay_max: Duration,
    /// Time spent in TIME-WAIT.
    pub time_wait: Duration,
    /// Bytes kept out of order at most.
    pub out_of_order_bytes_max: usize,
    /// Separate holes kept track of at most.
    pub holes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            segment_size_max: 1460,
            receive_window_max: 4 << 20,
            algorithm: Algorithm::default(),
            initial_window_segments: 10,
            timestamps: true,
            sack: true,
            window_scaling: true,
            rto_initial: Duration::from_secs(1),
            rto_min: Duration::from_millis(1),
            rto_max: Duration::from_secs(60),
            syn_retries: 6,
            user_timeout: Duration::from_secs(120),
            ack_delay_max: Duration::from_millis(40),
            time_wait: Duration::from_secs(1),
            out_of_order_bytes_max: 4 << 20,
            holes_max: 256,
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CloseReason {
    /// Both directions were closed in order.
    #[error("closed in order")]
    Finished,
    /// The peer answered the SYN with RST: nobody listens there.
    #[error("connection refused by the peer")]
    Refused,
    /// The peer reset the connection.
    #[error("connection reset by the peer")]
    Reset,
    /// This end aborted.
    #[error("connection aborted by this end")]
    Aborted,
    /// The sink found the stream unusable, so this end reset the connection.
    #[error("the received stream was unusable")]
    Unusable,
    /// No answer to the SYN.
    #[error("connection attempt timed out")]
    ConnectTimeout,
    /// Outstanding data was not acknowledged for the user timeout.
    #[error("the peer did not acknowledge data within the user timeout")]
    UserTimeout,
    /// No route or no neighbour (ARP/NDP) answered.
    #[error("host unreachable")]
    Unreachable,
    /// The shard or its port is gone.
    #[error("the network port is gone")]
    PortGone,
    /// No local port was free, the local address is in use, or the table is full.
    #[error("no free local address or table entry")]
    NoResources,
}

/// What happened on a connection, for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake is complete.
    Established,
    /// The connection is gone; its state can be dropped. The last event.
    Closed(CloseReason),
}

/// What the caller allows for the next segment.
#[derive(Clone, Copy, Debug)]
pub struct TransmitLimit {
    /// Payload bytes at most; above the segment size only if the port segments. Zero: no limit beyond the segment size.
    pub super_segment_bytes: usize,
}

/// A TCP connection. (The engine's author replaces this body.)
#[derive(Debug)]
pub struct Connection {}

#[allow(unused_variables, clippy::todo)]
impl Connection {
    /// Opens actively: the first [`Self::poll_transmit`] gives the SYN.
    pub fn connect(
        now: Instant,
        config: &Config,
        initial_sequence: SeqNumber,
        timestamp_offset: u32,
    ) -> Self {
        todo!()
    }

    /// Opens passively in answer to `syn` (SYN set, ACK and RST clear): the first transmission is the SYN-ACK.
    pub fn accept(
        now: Instant,
        config: &Config,
        initial_sequence: SeqNumber,
        timestamp_offset: u32,
        syn: &Segment<'_>,
    ) -> Self {
        todo!()
    }

    /// Input. A segment arrived for this connection.
    pub fn on_segment(&mut self, now: Instant, segment: &Segment<'_>, sink: &mut dyn SegmentSink) {
        todo!()
    }

    /// Input. [`Self::next_timeout`] has come.
    pub fn on_timeout(&mut self, now: Instant) {
        todo!()
    }

    /// Input. The sink's room has changed (the application consumed).
    pub fn set_receive_room(&mut self, now: Instant, room: usize) {
        todo!()
    }

    /// Input. The port (not TCP) keeps the next segment from leaving; recorded for [`SendState::blocked`].
    pub fn note_blocked(&mut self, by: Blocked) {
        todo!()
    }

    /// Input. Reset the connection; the next transmission is the RST if one is due.
    pub fn abort(&mut self, now: Instant) {
        todo!()
    }

    /// Output. The next segment that may leave now, pulling payload from `source`. Call until `None`.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        source: &mut dyn SegmentSource,
        limit: TransmitLimit,
    ) -> Option<Outgoing> {
        todo!()
    }

    /// The payload of a segment just given by [`Self::poll_transmit`], in two pieces (the second often empty).
    pub fn payload(&self, segment: &Outgoing) -> [&[u8]; 2] {
        todo!()
    }

    /// Output. What happened. Call until `None` after every input and every transmission.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }

    /// When [`Self::on_timeout`] wants to be called: timers of the engine and the pacer.
    /// (The source's own [`SegmentSource::next_demand`] is the caller's to watch.)
    pub fn next_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// Whether `segment` would complete this half-open connection's handshake: the owner then needs a real sink.
    pub fn completes_handshake(&self, segment: &Segment<'_>) -> bool {
        todo!()
    }

    /// State of the sender, as a cut would see it at `now`.
    pub fn send_state(&self, now: Instant) -> SendState {
        todo!()
    }

    /// Stream offset up to which the peer acknowledged everything; feed changes to [`SegmentSource::on_acked`].
    pub fn acked_offset(&self) -> u64 {
        todo!()
    }

    /// Bytes of payload that one segment carries at most now (peer's MSS less options).
    pub fn segment_size(&self) -> usize {
        todo!()
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
