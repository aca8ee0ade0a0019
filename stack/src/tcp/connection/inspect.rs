//! A snapshot of a connection for tools and tests: about what Linux gives as `TCP_INFO`.

use core::time::Duration;

use super::{Connection, Recovery};
use crate::tcp::state::State;
use crate::time::Instant;

/// Where loss recovery stands, as an outsider may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecoveryState {
    /// Nothing is amiss.
    Open,
    /// Something was SACKed or acknowledged twice; nothing is held lost yet.
    Disorder,
    /// The window was reduced for an ECN echo, and that round trip is not over.
    Reduced,
    /// Fast recovery.
    Recovery,
    /// After a retransmission timeout.
    Loss,
}

/// The snapshot. Bytes and durations carry their unit in name or type; "segments" are those in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// State of the machine.
    pub state: State,
    /// Where loss recovery stands.
    pub recovery: RecoveryState,
    /// Back-off of the retransmission timer, doublings.
    pub backoff: u32,
    /// Window probes since the window was last open, and keepalive probes since the peer was last heard.
    pub probes: u32,
    /// Timestamps are in use.
    pub timestamps: bool,
    /// SACK is in use.
    pub sack: bool,
    /// Window scaling is in use.
    pub window_scaling: bool,
    /// ECN is in use.
    pub ecn: bool,
    /// Shift of the peer's windows.
    pub send_window_shift: u8,
    /// Shift of our windows.
    pub receive_window_shift: u8,
    /// Retransmission timeout in force, back-off included.
    pub retransmission_timeout: Duration,
    /// Smoothed round-trip time.
    pub smoothed_rtt: Option<Duration>,
    /// Variation of the round-trip time.
    pub rtt_variation: Duration,
    /// Smallest round-trip time seen.
    pub rtt_min: Option<Duration>,
    /// Payload bytes of a full segment to the peer.
    pub segment_size: u64,
    /// Segments sent and not acknowledged cumulatively.
    pub segments_unacked: u64,
    /// Of these, SACKed.
    pub segments_sacked: u64,
    /// Of these, held lost, whether sent again since or not.
    pub segments_lost: u64,
    /// Of these, sent again and not delivered.
    pub segments_retransmitted: u64,
    /// Congestion window, bytes.
    pub congestion_window: u64,
    /// Slow-start threshold, bytes; `u64::MAX` if there is none yet.
    pub slow_start_threshold: u64,
    /// Pacing rate in bytes per second, if segments are paced.
    pub pacing_rate: Option<u64>,
    /// Delivery rate in bytes per second, zero before the first estimate.
    pub delivery_rate: u64,
    /// Bytes delivered to the peer, SACKed ones included.
    pub delivered_bytes: u64,
    /// Window that the peer offers, bytes.
    pub send_window: u64,
    /// Largest window that the peer has offered, bytes.
    pub send_window_max: u64,
    /// Window that we offer, bytes.
    pub receive_window: u64,
    /// Bytes of our stream that the peer has acknowledged, SYN and FIN not counted.
    pub bytes_acked: u64,
    /// Acknowledgements that told of an original delivered after a later one.
    pub reordering_events: u32,
    /// How far out of order originals have been delivered at most, bytes.
    pub reordering_bytes: u64,
    /// Time since a segment last left.
    pub since_sent: Duration,
    /// Time since something acceptable last arrived.
    pub since_heard: Duration,
}

impl Connection {
    /// A snapshot at `now`.
    pub fn inspect(&self, now: Instant) -> Inspection {
        let sent_again = |segment: &&crate::tcp::flight::SentSegment| segment.was_retransmitted();
        let in_flight = || self.flight.iter();
        let retransmitted =
            in_flight().filter(sent_again).filter(|segment| !segment.lost && !segment.sacked).count() as u64;
        let lost = in_flight().filter(|segment| segment.lost).count() as u64;
        Inspection {
            state: self.state,
            recovery: self.recovery_state(),
            backoff: self.backoff.into(),
            probes: u32::from(self.window_probe_backoff) + self.keepalive_probes,
            timestamps: self.timestamps.is_some(),
            sack: self.sack,
            window_scaling: self.window_scaling,
            ecn: self.ecn.is_some(),
            send_window_shift: self.peer_shift,
            receive_window_shift: self.own_shift,
            retransmission_timeout: self.retransmission_timeout(),
            smoothed_rtt: self.rtt.smoothed(),
            rtt_variation: self.rtt.variation(),
            rtt_min: self.rtt.min(),
            segment_size: self.segment_size() as u64,
            segments_unacked: self.flight.segment_count() as u64,
            segments_sacked: self.flight.sacked_segments() as u64,
            segments_lost: match self.recovery {
                Recovery::Open => lost,
                // Repairs under way are of segments held lost; a tail probe alone is not.
                Recovery::Fast | Recovery::Timeout => lost + retransmitted,
            },
            segments_retransmitted: retransmitted,
            congestion_window: self.congestion.window(),
            slow_start_threshold: self.congestion.slow_start_threshold(),
            pacing_rate: self.pacing_rate(),
            delivery_rate: self.rate.bytes_per_second(),
            delivered_bytes: self.rate.delivered(),
            send_window: self.peer_window(),
            send_window_max: self.peer_window_max.into(),
            receive_window: self.receiver.window_end.saturating_sub(self.receiver.next),
            bytes_acked: self.acked_payload_bytes(),
            reordering_events: self.rack.reordering_events(),
            reordering_bytes: self.rack.reordering_bytes(),
            since_sent: now - self.last_sent_at,
            since_heard: now - self.last_heard_at,
        }
    }

    fn recovery_state(&self) -> RecoveryState {
        match self.recovery {
            Recovery::Fast => RecoveryState::Recovery,
            Recovery::Timeout => RecoveryState::Loss,
            Recovery::Open if self.ecn.as_ref().is_some_and(|ecn| self.una < ecn.reduced_until) => {
                RecoveryState::Reduced
            }
            Recovery::Open
                if self.flight.sacked_segments() > 0 || (!self.sack && self.duplicate_acks > 0) =>
            {
                RecoveryState::Disorder
            }
            Recovery::Open => RecoveryState::Open,
        }
    }

    fn acked_payload_bytes(&self) -> u64 {
        let fin = self.fin_sent && self.una == self.next;
        self.una.saturating_sub(1 + u64::from(fin))
    }
}
