//! Counts of a session.

/// Counts of a session. Bytes are of message payloads. What every segment moves comes last, in memory too, beside what
/// else a heartbeat moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectionStatistics {
    /// Messages whose last byte was cut into a segment.
    pub messages_sent: u64,
    /// Their payload bytes.
    pub bytes_sent: u64,
    /// Messages received whole.
    pub messages_received: u64,
    /// Their payload bytes.
    pub bytes_received: u64,
    /// Messages discarded because the peer does not take their length.
    pub messages_refused: u64,
    /// Grants of receive credit sent.
    pub credits_sent: u64,
    /// Grants of receive credit received.
    pub credits_received: u64,
    /// Acknowledgements of messages sent.
    pub acks_sent: u64,
    /// Acknowledgements of messages received.
    pub acks_received: u64,
    /// Segments that this session put bytes into.
    pub segments_cut: u64,
    /// Bytes handed to the transport, headers and all.
    pub stream_bytes_sent: u64,
    /// Bytes taken from the transport in order.
    pub stream_bytes_received: u64,
}

/// Messages that no longer count against the send budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// How many.
    pub messages: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
}

impl Released {
    pub(crate) fn add(&mut self, payload_bytes: usize) {
        self.messages += 1;
        self.payload_bytes += payload_bytes as u64;
    }

    pub(crate) fn merge(&mut self, other: Released) {
        self.messages += other.messages;
        self.payload_bytes += other.payload_bytes;
    }
}
