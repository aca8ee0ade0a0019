//! HyStart++ (RFC 9406): leave slow start when the round-trip time rises, before the queue overflows.

use core::time::Duration;

/// RFC 9406 section 4.3: bounds of the RTT rise that counts.
const RTT_THRESHOLD_MIN: Duration = Duration::from_millis(4);
const RTT_THRESHOLD_MAX: Duration = Duration::from_millis(16);
/// The rise that counts is this part of the previous round's RTT.
const RTT_DIVISOR: u32 = 8;
/// RTT samples that a round must have before it is judged.
const RTT_SAMPLES_MIN: u32 = 8;
/// How much slower than slow start conservative slow start grows.
const GROWTH_DIVISOR: u64 = 4;
/// Rounds of conservative slow start before congestion avoidance.
const CONSERVATIVE_ROUNDS: u32 = 5;
/// RFC 9406 section 4.3: segments one acknowledgement may add to the window when the sender does not pace.
const UNPACED_SEGMENTS_MAX: u64 = 8;

/// What the RTT samples have said so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Standard slow start.
    SlowStart,
    /// Conservative slow start: the RTT has risen; growth is slowed until that proves lasting or spurious.
    Conservative {
        /// Round minimum at which the phase was entered: an RTT below it means that the rise was spurious.
        baseline: Duration,
        /// Rounds that ended in this phase.
        rounds: u32,
    },
    /// Slow start is over: the caller sets its threshold to the window.
    Done,
}

/// The state of RFC 9406 section 4.2, for the first slow start of a connection.
///
/// Input: [`Self::on_rtt`] for each sample, [`Self::on_round`] at the end of each round. Output: [`Self::phase`],
/// [`Self::growth`].
#[derive(Clone, Debug)]
pub struct HyStart {
    phase: Phase,
    round_min: Option<Duration>,
    last_round_min: Option<Duration>,
    samples: u32,
}

impl Default for HyStart {
    fn default() -> Self {
        HyStart { phase: Phase::SlowStart, round_min: None, last_round_min: None, samples: 0 }
    }
}

impl HyStart {
    /// Where slow start stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// An RTT sample arrived.
    pub fn on_rtt(&mut self, rtt: Duration) {
        let round_min = self.round_min.map_or(rtt, |least| least.min(rtt));
        self.round_min = Some(round_min);
        self.samples = self.samples.saturating_add(1);
        if self.samples < RTT_SAMPLES_MIN {
            return;
        }
        match (self.phase, self.last_round_min) {
            (Phase::SlowStart, Some(last)) => {
                let threshold = (last / RTT_DIVISOR).clamp(RTT_THRESHOLD_MIN, RTT_THRESHOLD_MAX);
                if round_min >= last + threshold {
                    self.phase = Phase::Conservative { baseline: round_min, rounds: 0 };
                }
            }
            (Phase::Conservative { baseline, .. }, _) if round_min < baseline => {
                self.phase = Phase::SlowStart;
            }
            _ => {}
        }
    }

    /// A round trip has ended.
    pub fn on_round(&mut self) {
        self.last_round_min = self.round_min.or(self.last_round_min);
        self.round_min = None;
        self.samples = 0;
        if let Phase::Conservative { baseline, rounds } = self.phase {
            let rounds = rounds + 1;
            self.phase = if rounds >= CONSERVATIVE_ROUNDS {
                Phase::Done
            } else {
                Phase::Conservative { baseline, rounds }
            };
        }
    }

    /// Bytes that `acked` bytes add to the window.
    pub fn growth(&self, acked: u64, segment_size: u64, paced: bool) -> u64 {
        let limit = if paced { u64::MAX } else { UNPACED_SEGMENTS_MAX * segment_size };
        match self.phase {
            Phase::SlowStart | Phase::Done => acked.min(limit),
            Phase::Conservative { .. } => acked.min(limit) / GROWTH_DIVISOR,
        }
    }
}
