//! `TCP_DEFER_ACCEPT`: a handshake is not over before the first data, or before SYN-ACKs were repeated for a time.

use std::time::Duration;

/// Longest time between two SYN-ACKs.
const INTERVAL_MAX: Duration = Duration::from_secs(120);
/// Repetitions counted, at most.
const REPETITIONS_MAX: u32 = 255;

/// Times at which a SYN-ACK is repeated in so many seconds: after one second, and ever twice as long.
pub(super) fn repetitions(seconds: u64) -> u32 {
    (1..REPETITIONS_MAX).find(|count| seconds <= period(*count).as_secs()).unwrap_or(REPETITIONS_MAX)
}

/// How long so many repetitions take.
pub(super) fn period(repetitions: u32) -> Duration {
    let interval = |index: u32| Duration::from_secs(1u64 << index.min(20)).min(INTERVAL_MAX);
    (0..repetitions.min(REPETITIONS_MAX)).map(interval).sum()
}

/// One handshake whose end is put off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deferral {
    /// Repetitions for which a mere acknowledgement is not enough.
    repetitions: u32,
    /// Repetitions that were due so far.
    due: u32,
    /// The timer has fired, and the SYN-ACK that it asks for has not been made yet.
    repeats: bool,
    acknowledged: bool,
}

impl Deferral {
    pub(super) fn new(repetitions: u32) -> Self {
        Deferral { repetitions, due: 0, repeats: false, acknowledged: false }
    }

    /// An acknowledgement without data arrives. Says whether it is ignored.
    pub(super) fn ignores_acknowledgement(&mut self) -> bool {
        self.acknowledged |= self.due < self.repetitions;
        self.due < self.repetitions
    }

    /// The retransmission timer has fired.
    pub(super) fn on_timeout(&mut self) {
        self.repeats = true;
    }

    /// A SYN-ACK is due. Says whether it stays away: whoever has acknowledged one is asked again only at the end. What
    /// answers a SYN is no repetition.
    pub(super) fn withholds_answer(&mut self) -> bool {
        if !core::mem::take(&mut self.repeats) {
            return false;
        }
        let last = self.due + 1 >= self.repetitions;
        self.due += 1;
        self.acknowledged && !last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_counted_in_repetitions() {
        assert_eq!([0, 1, 2, 3, 4, 7, 8].map(repetitions), [1, 1, 2, 2, 3, 3, 4]);
        assert_eq!(period(3), Duration::from_secs(7));
        assert_eq!(repetitions(u64::MAX), REPETITIONS_MAX);
    }

    #[test]
    fn only_the_timer_brings_the_end_nearer() {
        let mut deferral = Deferral::new(2);
        assert!((0..10).all(|_| !deferral.withholds_answer()), "each SYN is answered");
        assert!(deferral.ignores_acknowledgement());
        deferral.on_timeout();
        assert!(deferral.withholds_answer(), "who has acknowledged one is not asked again");
        assert!(deferral.ignores_acknowledgement());
        deferral.on_timeout();
        assert!(!deferral.withholds_answer(), "but at the end");
        assert!(!deferral.ignores_acknowledgement());
    }
}
