//! Whether the congestion window is what limits the sender.

use crate::tcp::maybe::FlightBytes;

/// Peak of the pipe over the current and the previous round.
///
/// One acknowledgement sees the pipe only after it has shrunk, and a super-segment leaves up to its own length of a
/// window unused; the peak over a round trip is what the sender really made of the window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WindowUsage {
    peak: FlightBytes,
    peak_before: FlightBytes,
}

impl WindowUsage {
    /// A segment left and made the pipe this large.
    pub(super) fn on_sent(&mut self, pipe_after: u64) {
        self.peak = self.peak.max(pipe_after.into());
    }

    /// A round trip has ended.
    pub(super) fn on_round(&mut self) {
        self.peak_before = self.peak;
        self.peak = FlightBytes::default();
    }

    /// The largest pipe of the last one to two rounds, bytes.
    pub(super) fn peak(&self) -> u64 {
        self.peak.max(self.peak_before).get()
    }

    /// Whether the sender filled `window` up to less than three segments or an eighth of it (a super-segment).
    pub(super) fn is_limited_by(&self, window: u64, segment_size: u64) -> bool {
        self.peak().saturating_add((3 * segment_size).max(window / 8)) > window
    }
}
