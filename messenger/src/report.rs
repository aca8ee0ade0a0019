//! What every heartbeat tells about its connection, and the same for a local observer.

use core::time::Duration;

use outrider_stack::tcp::source::Blocked;
use outrider_stack::time::Instant;

use crate::message::LANES;

/// What waits unsent in one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneReport {
    /// Bytes not yet cut into a segment, message headers included.
    pub bytes: u64,
    /// Messages of which at least a byte has not been cut.
    pub messages: u64,
}

/// The sending side at an instant: what is still ours, what is on its way, and what holds the next byte back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Bytes not yet cut into a segment, all lanes.
    pub unsent_bytes: u64,
    /// Messages not wholly cut, all lanes.
    pub unsent_messages: u64,
    /// The same by lane.
    pub lanes: [LaneReport; LANES],
    /// TCP's `SND.NXT - SND.UNA` before the segment that carries this report.
    pub bytes_in_flight: u64,
    /// Limit of unsent and unacknowledged bytes above which the connection takes no more messages.
    pub send_budget_bytes: u64,
    /// Age of the oldest byte that the peer's TCP has not acknowledged.
    pub oldest_unacked_age: Duration,
    /// Segments retransmitted since the connection began.
    pub retransmits: u64,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// Bytes that the peer's TCP window allows beyond `SND.UNA`.
    pub peer_window: u64,
    /// Smoothed round-trip time of TCP.
    pub smoothed_rtt: Option<Duration>,
    /// What holds the next byte back.
    pub blocked: Blocked,
}

/// The receiving side at an instant. A consumer that stopped shows here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveReport {
    /// Bytes of complete messages that the application has not finished with, message headers included.
    pub undispatched_bytes: u64,
    /// How many messages these are.
    pub undispatched_messages: u64,
    /// Age of the oldest of them since it was complete.
    pub oldest_age: Duration,
    /// Receive credit granted to the peer and not spent, bytes.
    pub credit_left: u64,
}

/// The peer's last OOB message, sent back. Round-trip time: arrival of the echo, less `departed_at`, less `held`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Sequence of the message echoed.
    pub sequence: u64,
    /// Its departure on the clock of the one who sent it.
    pub departed_at: Instant,
    /// Time between its arrival and the departure of the echo.
    pub held: Duration,
}

/// The report that every OOB message carries. True at the instant of departure, when its segment was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PingReport {
    /// Sequence of the OOB message, from 1, one by one.
    pub sequence: u64,
    /// Departure on the sender's clock.
    pub departed_at: Instant,
    /// From the instant the earliest part was due to the departure.
    pub waited: Duration,
    /// The other side's last OOB message.
    pub echo: Option<Echo>,
    /// Shortest interval of the ops that the sender has registered; `None`: it has none, and only echoes.
    pub interval: Option<Duration>,
    /// The sender's sending side.
    pub send: SendReport,
    /// The sender's receiving side.
    pub receive: ReceiveReport,
}

/// Both sides of a connection as its own end last saw them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// When this was true.
    pub at: Instant,
    /// Sending side.
    pub send: SendReport,
    /// Receiving side.
    pub receive: ReceiveReport,
}
