//! Loss detection: RACK-TLP (RFC 8985), and proportional rate reduction (RFC 6937).

use core::time::Duration;

use super::flight::{Flight, SentSegment};
use super::maybe::{Lazily, Maybe, Unmade};
use super::rtt::RttEstimator;
use crate::time::Instant;

/// Duplicate threshold below which reordering is given the benefit of the doubt (RFC 8985 section 6.2.1).
const DUPLICATE_THRESHOLD: usize = 3;
/// Recoveries after which a widened reordering window falls back (RFC 8985 section 6.2.4, step 4).
const WINDOW_PERSIST: u8 = 16;

/// RACK: a segment is lost when one sent enough later has been delivered.
#[derive(Debug)]
pub(crate) struct Rack {
    /// Departure and end of the most recently sent segment known delivered.
    newest_sent_at: Maybe<Instant>,
    newest_end: u64,
    /// RTT of that segment.
    rtt_nanos: u64,
    /// Most paths lose and reorder nothing.
    reordering: Lazily<Reordering>,
}

/// What a connection has learned of its path's reordering.
#[derive(Clone, Copy, Debug)]
struct Reordering {
    /// Largest distance from the begin of an original delivered late to the highest offset delivered before it, bytes.
    bytes: u64,
    /// D-SACKs widen the window once a round: the round ends when this offset is acknowledged.
    dsack_round_end: Maybe<u64>,
    /// Acknowledgements that told of an original delivered after a later one.
    events: u32,
    /// Bytes delivered before the last of them.
    last_event: u64,
    /// Reordering window in quarters of the smallest RTT.
    window_quarters: u8,
    /// Recoveries left until the window falls back to one quarter.
    window_persist: u8,
}

impl Unmade for Reordering {
    const UNMADE: &'static Self = &Reordering {
        bytes: 0,
        dsack_round_end: Maybe::NONE,
        events: 0,
        last_event: 0,
        window_quarters: 1,
        window_persist: WINDOW_PERSIST,
    };
}

impl Default for Rack {
    fn default() -> Self {
        Rack { newest_sent_at: Maybe::NONE, newest_end: 0, rtt_nanos: 0, reordering: Lazily::unmade() }
    }
}

impl Rack {
    /// `segment` was delivered; before the acknowledgement that tells so, `delivered_end` was the highest offset
    /// delivered, and there were so many delivered bytes.
    /// `echo_precedes` says that the timestamp echo is older than the segment's last transmission.
    #[inline]
    pub(crate) fn on_delivered(
        &mut self,
        now: Instant,
        segment: &SentSegment,
        (delivered_end, delivered_bytes): (u64, u64),
        rtt: &RttEstimator,
        echo_precedes: bool,
    ) {
        if segment.was_retransmitted() {
            // The acknowledgement may be of the original (RFC 8985 section 6.2, step 2).
            if echo_precedes || rtt.min().is_some_and(|min| now - segment.sent_at < min) {
                return;
            }
        } else if segment.end() < delivered_end {
            // Step 3: an original delivered after a later one.
            self.note_reordering(delivered_bytes, delivered_end - segment.offset);
        }
        if self.newest().is_none_or(|newest| (segment.sent_at, segment.end()) > newest) {
            self.newest_sent_at = Maybe::some(segment.sent_at);
            self.newest_end = segment.end();
            self.rtt_nanos = now.as_nanos().saturating_sub(segment.sent_at.as_nanos());
        }
    }

    /// An original was delivered so many `bytes` out of order, by an acknowledgement before which there were
    /// `delivered_bytes`.
    #[cold]
    fn note_reordering(&mut self, delivered_bytes: u64, bytes: u64) {
        let reordering = &mut *self.reordering;
        if reordering.events == 0 || reordering.last_event != delivered_bytes {
            reordering.events = reordering.events.saturating_add(1);
            reordering.last_event = delivered_bytes;
        }
        reordering.bytes = reordering.bytes.max(bytes);
    }

    fn newest(&self) -> Option<(Instant, u64)> {
        self.newest_sent_at.get().map(|sent_at| (sent_at, self.newest_end))
    }

    /// The peer reported a duplicate: the window was too narrow (section 6.2.4, step 4).
    pub(crate) fn on_dsack(&mut self, acked: u64, next: u64) {
        let reordering = &mut *self.reordering;
        if reordering.dsack_round_end.get().is_none_or(|end| acked >= end) {
            reordering.dsack_round_end = Maybe::some(next);
            reordering.window_quarters = reordering.window_quarters.saturating_add(1);
            reordering.window_persist = WINDOW_PERSIST;
        }
    }

    /// Acknowledgements that told of an original delivered after a later one.
    pub(crate) fn reordering_events(&self) -> u32 {
        self.reordering.events
    }

    /// How far out of order originals have been delivered, bytes.
    pub(crate) fn reordering_bytes(&self) -> u64 {
        self.reordering.bytes
    }

    /// A recovery ended.
    pub(crate) fn on_recovery_end(&mut self) {
        let reordering = &mut *self.reordering;
        reordering.window_persist = reordering.window_persist.saturating_sub(1);
        if reordering.window_persist == 0 {
            reordering.window_quarters = 1;
            reordering.window_persist = WINDOW_PERSIST;
        }
    }

    fn reordering_window(&self, flight: &Flight, in_recovery: bool, rtt: &RttEstimator) -> Duration {
        if self.reordering.events == 0 && (in_recovery || flight.sacked_segments() >= DUPLICATE_THRESHOLD) {
            return Duration::ZERO;
        }
        let (Some(min), Some(smoothed)) = (rtt.min(), rtt.smoothed()) else { return Duration::ZERO };
        (min * u32::from(self.reordering.window_quarters) / 4).min(smoothed)
    }

    /// Marks lost what must be (step 5). Returns the bytes and when to look again.
    pub(crate) fn detect(
        &self,
        now: Instant,
        flight: &mut Flight,
        in_recovery: bool,
        rtt: &RttEstimator,
    ) -> (u64, Option<Instant>) {
        let Some(newest) = self.newest() else { return (0, None) };
        let patience =
            Duration::from_nanos(self.rtt_nanos) + self.reordering_window(flight, in_recovery, rtt);
        let mut again: Option<Instant> = None;
        // Originals leave in sequence order: once one is met that left after the newest delivered segment, all that
        // follow did too.
        let bytes = flight.mark_lost(|segment| {
            if segment.sent_at > newest.0 && !segment.was_retransmitted() {
                return None;
            }
            if (segment.sent_at, segment.end()) >= newest {
                return Some(false);
            }
            let deadline = segment.sent_at + patience;
            if deadline <= now {
                return Some(true);
            }
            again = Some(again.map_or(deadline, |at| at.max(deadline)));
            Some(false)
        });
        (bytes, again)
    }
}

/// An outstanding tail loss probe (RFC 8985 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TailProbe {
    /// SND.NXT after the probe.
    pub(crate) end: u64,
    /// The probe retransmitted old data (and did not send new).
    pub(crate) is_retransmission: bool,
}

/// Proportional rate reduction (RFC 6937 section 3), with the choice of bound of RFC 9937: the pipe may grow back as
/// in slow start only while acknowledgements advance without finding more loss.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RateReduction {
    flight_at_start: u64,
    delivered: u64,
    sent: u64,
    /// Bytes that may be sent in answer to the last acknowledgement.
    allowance: u64,
}

impl RateReduction {
    pub(crate) fn start(flight_bytes: u64, segment_size: u64) -> Self {
        // The first retransmission leaves whatever the arithmetic says ("fast retransmit").
        RateReduction { flight_at_start: flight_bytes.max(1), delivered: 0, sent: 0, allowance: segment_size }
    }

    /// An acknowledgement was processed. `safe`: it advanced SND.UNA and no loss was found with it.
    pub(crate) fn on_ack(
        &mut self,
        newly_delivered: u64,
        pipe: u64,
        target: u64,
        segment_size: u64,
        safe: bool,
    ) {
        self.delivered += newly_delivered;
        let send = if pipe > target {
            (u128::from(self.delivered) * u128::from(target)).div_ceil(u128::from(self.flight_at_start))
                as u64
        } else {
            let growth = if safe { segment_size } else { 0 };
            let limit = self.delivered.saturating_sub(self.sent).max(newly_delivered) + growth;
            self.sent + limit.min(target - pipe)
        };
        // Recovery begins with a retransmission whatever the arithmetic says (RFC 6675 section 5, step 4.3).
        let least = if self.sent == 0 { segment_size } else { 0 };
        self.allowance = send.saturating_sub(self.sent).max(least);
    }

    /// Bytes in flight when the recovery began.
    pub(crate) fn flight_at_start(&self) -> u64 {
        self.flight_at_start
    }

    /// `bytes` may be sent whatever the arithmetic says.
    pub(crate) fn allow(&mut self, bytes: u64) {
        self.allowance = self.allowance.max(bytes);
    }

    pub(crate) fn on_sent(&mut self, bytes: u64) {
        self.sent += bytes;
        self.allowance = self.allowance.saturating_sub(bytes);
    }

    pub(crate) fn allowance(&self) -> u64 {
        self.allowance
    }
}
