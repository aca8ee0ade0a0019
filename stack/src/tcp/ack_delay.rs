//! How long the acknowledgement of a lone segment may wait (RFC 1122 section 4.2.3.2).

use core::time::Duration;

use super::maybe::Maybe;
use crate::time::Instant;

/// The delay, in times between arrivals: if the second segment has not come by then, the sender is waiting for the
/// acknowledgement, as one does whose window has shrunk to a segment.
const ARRIVALS: u32 = 4;
/// Weight of a new time between arrivals in the mean of them, as a divisor.
const GAIN_DIVISOR: u64 = 8;
/// The longest mean, nanoseconds: it must not be taken for none.
const MEAN_NANOS_MAX: u32 = u32::MAX - 1;

/// Follows the arrivals of segments. The bounds of the delay, the least first, are the caller's to keep.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AckDelay {
    /// Mean time between arrivals, nanoseconds; none before there are two. No longer than the longest delay, for which
    /// four seconds would be eight times what RFC 1122 allows.
    mean_nanos: Maybe<u32>,
}

impl AckDelay {
    /// A segment with payload has arrived, and one at `last` before it; no acknowledgement waits longer than `most`.
    pub(crate) fn on_arrival(&mut self, last: Option<Instant>, now: Instant, most: Duration) {
        let Some(last) = last else { return };
        // A pause is the application's, or that of a sender that timed out; it says nothing of the pace in between.
        if last + most < now {
            return;
        }
        // Not by way of a duration and its 128 bits: this is done for every segment.
        let nanos = now.as_nanos().saturating_sub(last.as_nanos());
        let mean = self.mean_nanos.get().map(u64::from);
        let mean = mean.map_or(nanos, |mean| mean - mean / GAIN_DIVISOR + nanos / GAIN_DIVISOR);
        self.mean_nanos = Maybe::some(u32::try_from(mean).unwrap_or(MEAN_NANOS_MAX).min(MEAN_NANOS_MAX));
    }

    /// How long an acknowledgement may wait from now on.
    pub(crate) fn get(&self, (least, most): (Duration, Duration)) -> Duration {
        match self.mean_nanos.get() {
            None => most,
            Some(mean) => (Duration::from_nanos(u64::from(mean)) * ARRIVALS).clamp(least.min(most), most),
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
        for gap in gaps {
            let last = now;
            now += *gap;
            delay.on_arrival(Some(last), now, BOUNDS.1);
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
        let at = Instant::from_millis;
        (0..10).for_each(|last| delay.on_arrival(Some(at(last)), at(last + 1), BOUNDS.1));
        assert_eq!(delay.get((BOUNDS.1, BOUNDS.1)), BOUNDS.1);
    }
}
