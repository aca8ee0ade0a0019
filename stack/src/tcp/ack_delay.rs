//! How long the acknowledgement of a lone segment may wait (RFC 1122 section 4.2.3.2).

use core::time::Duration;

use crate::time::Instant;

/// The delay, in times between arrivals: if the second segment has not come by then, the sender is waiting for the
/// acknowledgement, as one does whose window has shrunk to a segment.
const ARRIVALS: u32 = 4;
/// Weight of a new time between arrivals in the mean of them, as a divisor.
const GAIN_DIVISOR: u64 = 8;

/// Follows the arrivals of segments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AckDelay {
    least: Duration,
    most: Duration,
    most_nanos: u64,
    last_arrival: Option<Instant>,
    /// Mean time between arrivals, nanoseconds; `None` before there are two.
    mean_nanos: Option<u64>,
}

impl AckDelay {
    /// Within `bounds`, the least first.
    pub(crate) fn new((least, most): (Duration, Duration)) -> Self {
        let most_nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        AckDelay { least: least.min(most), most, most_nanos, last_arrival: None, mean_nanos: None }
    }

    /// A segment with payload has arrived.
    pub(crate) fn on_arrival(&mut self, now: Instant) {
        let Some(last) = self.last_arrival.replace(now) else { return };
        // Not by way of a duration and its 128 bits: this is done for every segment.
        let nanos = now.as_nanos().saturating_sub(last.as_nanos());
        // A pause is the application's, or that of a sender that timed out; it says nothing of the pace in between.
        if nanos > self.most_nanos {
            return;
        }
        let mean = self.mean_nanos.map_or(nanos, |mean| mean - mean / GAIN_DIVISOR + nanos / GAIN_DIVISOR);
        self.mean_nanos = Some(mean);
    }

    /// How long an acknowledgement may wait from now on.
    pub(crate) fn get(&self) -> Duration {
        match self.mean_nanos {
            None => self.most,
            Some(mean) => (Duration::from_nanos(mean) * ARRIVALS).clamp(self.least, self.most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(40));

    fn after(gaps: &[Duration]) -> Duration {
        let mut delay = AckDelay::new(BOUNDS);
        let mut now = Instant::from_millis(5);
        delay.on_arrival(now);
        for gap in gaps {
            now += *gap;
            delay.on_arrival(now);
        }
        delay.get()
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
        let mut delay = AckDelay::new((BOUNDS.1, BOUNDS.1));
        (0..10).for_each(|at| delay.on_arrival(Instant::from_millis(at)));
        assert_eq!(delay.get(), BOUNDS.1);
    }
}
