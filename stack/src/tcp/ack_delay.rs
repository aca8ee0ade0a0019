//! How long the acknowledgement of a lone segment may wait (RFC 1122 section 4.2.3.2).

use core::time::Duration;

use super::maybe::Maybe;
use crate::time::Instant;

/// The delay, in times between arrivals: if the second segment has not come by then, the sender is waiting for the
/// acknowledgement, as one does whose window has shrunk to a segment.
const ARRIVALS: u32 = 4;
/// Weight of a new time between arrivals in the mean of them, as a divisor.
const GAIN_DIVISOR: u64 = 8;

/// Follows the arrivals of segments. The bounds of the delay, the least first, are the caller's to keep.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AckDelay {
    last_arrival: Maybe<Instant>,
    /// Mean time between arrivals, nanoseconds; none before there are two.
    mean_nanos: Maybe<u64>,
}

impl AckDelay {
    /// A segment with payload has arrived; no acknowledgement waits longer than `most`.
    pub(crate) fn on_arrival(&mut self, now: Instant, most: Duration) {
        let Some(last) = self.last_arrival.replace(now) else { return };
        // A pause is the application's, or that of a sender that timed out; it says nothing of the pace in between.
        if last + most < now {
            return;
        }
        // Not by way of a duration and its 128 bits: this is done for every segment.
        let nanos = now.as_nanos().saturating_sub(last.as_nanos());
        let mean = self.mean_nanos.get();
        let mean = mean.map_or(nanos, |mean| mean - mean / GAIN_DIVISOR + nanos / GAIN_DIVISOR);
        self.mean_nanos = Maybe::some(mean);
    }

    /// How long an acknowledgement may wait from now on.
    pub(crate) fn get(&self, (least, most): (Duration, Duration)) -> Duration {
        match self.mean_nanos.get() {
            None => most,
            Some(mean) => (Duration::from_nanos(mean) * ARRIVALS).clamp(least.min(most), most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(40));

    fn after(gaps: &[Duration]) -> Duration {
        let mut delay = AckDelay::default();
        let mut now = Instant::from_millis(5);
        delay.on_arrival(now, BOUNDS.1);
        for gap in gaps {
            now += *gap;
            delay.on_arrival(now, BOUNDS.1);
        }
        delay.get(BOUNDS)
    }

    #[test]
    fn a_lone_segment_may_wait_the_longest() {
        assert_eq!(after(&[]), BOUNDS.1);
    }

    #[test]
    fn the_delay_follows_the_pace_within_its_bounds() {
        assert_eq!(after(&[Duration::from_micros(60); 20]), BOUNDS.0);
        let slower = after(&[Duration::from_millis(3); 20]);
        assert!(slower.abs_diff(Duration::from_millis(12)) < Duration::from_micros(1), "{slower:?}");
        assert_eq!(after(&[Duration::from_millis(25); 20]), BOUNDS.1);
    }

    #[test]
    fn a_pause_does_not_slow_the_pace() {
        let mut gaps = vec![Duration::from_micros(60); 20];
        gaps.push(Duration::from_millis(205));
        assert_eq!(after(&gaps), BOUNDS.0);
    }

    #[test]
    fn equal_bounds_are_a_fixed_delay() {
        let mut delay = AckDelay::default();
        (0..10).for_each(|at| delay.on_arrival(Instant::from_millis(at), BOUNDS.1));
        assert_eq!(delay.get((BOUNDS.1, BOUNDS.1)), BOUNDS.1);
    }
}
