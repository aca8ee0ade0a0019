//! Parameters of a connection, and what its owner hears of it.

use core::time::Duration;

use super::congestion::Algorithm;

/// Parameters of a connection, fixed when it is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// MSS announced to the peer: what one received segment may carry (MTU less IP and TCP base headers), bytes.
    pub segment_size_max: u16,
    /// What the path is already known to carry: a segment to the peer has at most so much payload and options, bytes
    /// (RFC 8201 section 5.2: what an earlier connection has learned). Nothing of it is announced.
    pub path_segment_size_max: u16,
    /// Whether the path MTU is searched for with data.
    pub mtu_probing: MtuProbing,
    /// Whether a segment that is the next in order, and says nothing else that is new, takes a shorter way. It makes no
    /// difference but to the processor: to be switched off where the two ways are compared.
    pub header_prediction: bool,
    /// Receive window at first, bytes. It doubles whenever a whole window was received within a few round trips.
    pub receive_window_initial: u32,
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
    /// Offer explicit congestion notification (RFC 3168), and accept it when offered. DCTCP offers it regardless.
    pub ecn: bool,
    /// Probes of an idle connection (RFC 9293 section 3.8.4); `None` sends none.
    pub keepalive: Option<Keepalive>,
    /// Retransmission timeout before the first RTT sample (RFC 6298: 1 s).
    pub rto_initial: Duration,
    /// Floor of the retransmission timeout; twice the smoothed RTT applies besides.
    pub rto_min: Duration,
    /// What the variation of the RTT counts at least in the timeout: the clock granularity "G" of RFC 6298. Linux
    /// takes 200 ms. As far as it covers `peer_ack_delay_max`, that is not added.
    pub rto_granularity: Duration,
    /// Ceiling of the backed-off retransmission timeout.
    pub rto_max: Duration,
    /// SYN (or SYN-ACK) retransmissions before the attempt fails.
    pub syn_retries: u32,
    /// Time without any acknowledgement of outstanding data before the connection is given up (RFC 5482 semantics).
    pub user_timeout: Duration,
    /// Longest delay of an acknowledgement (RFC 1122: below 500 ms).
    pub ack_delay_max: Duration,
    /// Shortest: the delay is a few times the time between arrivals, within these bounds. A sender whose window is a
    /// single segment waits out the whole of it.
    pub ack_delay_min: Duration,
    /// How long the peer may delay the acknowledgement of a lone segment; added to the timeout of such a flight so
    /// that a patient peer does not look like a loss (RFC 8985 section 7.2, "WCDelAckT").
    pub peer_ack_delay_max: Duration,
    /// Probe the tail of a flight before its timeout (RFC 8985 section 7).
    pub tail_probes: bool,
    /// The tail is probed no sooner than this after the last news: what timers can tell apart.
    pub tail_probe_timeout_min: Duration,
    /// Space segments out at the controller's pacing rate, where it has one.
    pub pacing: bool,
    /// Shrink the congestion window after an idle time (RFC 5681 section 4.1).
    pub restart_after_idle: bool,
    /// Look at what is acknowledged after a timeout for whether it was spurious (F-RTO, RFC 5682). Echoed timestamps
    /// tell the same in any case.
    pub timeout_undo: bool,
    /// Time spent in TIME-WAIT.
    pub time_wait: Duration,
    /// Bytes kept out of order at most.
    pub out_of_order_bytes_max: usize,
    /// Separate holes kept track of at most.
    pub holes_max: usize,
}

/// Whether larger segments are tried out where ICMP does not tell what a path carries (RFC 4821).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum MtuProbing {
    /// Never: a path that swallows long segments without a report swallows the connection.
    #[default]
    Off,
    /// Once timeouts in a row make a black hole likely: segments are made small, and then larger step by step.
    BlackHole,
    /// From the beginning: connections start with small segments.
    Always,
}

/// When an idle connection is probed, and given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence of the peer before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes after which the connection ends with [`CloseReason::KeepaliveTimeout`].
    pub probes_max: u32,
}

impl Config {
    /// Largest receive window that is ever offered: without scaling its field bounds it (RFC 7323 section 2.2).
    pub(crate) fn window_max(&self) -> u32 {
        let bound = if self.window_scaling { u32::MAX } else { u32::from(u16::MAX) };
        self.receive_window_max.min(bound)
    }

    /// Least and greatest delay of an acknowledgement.
    pub(crate) fn ack_delay(&self) -> (Duration, Duration) {
        (self.ack_delay_min, self.ack_delay_max)
    }

    /// Whether ECN is offered: asked for, or needed by the controller.
    pub(crate) fn offers_ecn(&self) -> bool {
        self.ecn || self.algorithm == Algorithm::Dctcp
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            segment_size_max: 1460,
            path_segment_size_max: u16::MAX,
            mtu_probing: MtuProbing::default(),
            header_prediction: true,
            receive_window_initial: 256 << 10,
            receive_window_max: 4 << 20,
            algorithm: Algorithm::default(),
            initial_window_segments: 10,
            timestamps: true,
            sack: true,
            window_scaling: true,
            ecn: false,
            keepalive: None,
            rto_initial: Duration::from_secs(1),
            rto_min: Duration::from_millis(1),
            rto_granularity: Duration::ZERO,
            rto_max: Duration::from_secs(60),
            syn_retries: 6,
            user_timeout: Duration::from_secs(120),
            ack_delay_max: Duration::from_millis(40),
            ack_delay_min: Duration::from_millis(1),
            peer_ack_delay_max: Duration::from_millis(40),
            tail_probes: true,
            tail_probe_timeout_min: Duration::from_micros(20),
            pacing: true,
            restart_after_idle: true,
            timeout_undo: true,
            time_wait: Duration::from_secs(1),
            out_of_order_bytes_max: 4 << 20,
            holes_max: 2048,
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
    /// The peer answered none of the keepalive probes.
    #[error("the peer answered no keepalive probe")]
    KeepaliveTimeout,
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

impl CloseReason {
    /// Whether something went wrong, as opposed to an end that either side wanted.
    pub const fn is_failure(self) -> bool {
        !matches!(self, CloseReason::Finished | CloseReason::Aborted | CloseReason::Refused)
    }
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
#[derive(Clone, Copy, Debug, Default)]
pub struct TransmitLimit {
    /// Payload bytes at most; above the segment size only if the port segments. Zero: no limit beyond the segment size.
    pub super_segment_bytes: usize,
    /// Segments that may be given in one go as a *train*: what the next calls would give at the same instant, and
    /// nothing else. For a caller that makes a frame of each by itself. Zero and one: one by one.
    pub train_segments: usize,
}
