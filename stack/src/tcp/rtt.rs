//! Round-trip time and retransmission timeout (RFC 6298).

use core::time::Duration;

use super::maybe::Maybe;

/// Smoothed round-trip time, its variation, and the timeout that follows from them. Kept in nanoseconds: a
/// [`Duration`] is two numbers, and this is asked for with every segment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RttEstimator {
    smoothed_nanos: Maybe<u64>,
    variation_nanos: u64,
    min_nanos: Maybe<u64>,
}

impl RttEstimator {
    /// Takes a sample (RFC 6298 section 2.2 and 2.3, alpha 1/8, beta 1/4).
    pub(crate) fn sample(&mut self, rtt: Duration) {
        if rtt > SAMPLE_MAX {
            return;
        }
        let rtt = nanos(rtt);
        self.min_nanos = Maybe::some(self.min_nanos.get().map_or(rtt, |min| min.min(rtt)));
        match self.smoothed_nanos.get() {
            None => {
                self.smoothed_nanos = Maybe::some(rtt);
                self.variation_nanos = rtt / 2;
            }
            Some(smoothed) => {
                self.variation_nanos = (self.variation_nanos * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed_nanos = Maybe::some((smoothed * 7 + rtt) / 8);
            }
        }
    }

    /// The path has changed: `rtt` counts as if it were the first sample, unless the estimate is larger already
    /// (RFC 4015 section 3.2). The smallest RTT seen stays.
    pub(crate) fn restart(&mut self, rtt: Duration) {
        if rtt > SAMPLE_MAX {
            return;
        }
        let rtt = nanos(rtt);
        if self.smoothed_nanos.get().is_none_or(|smoothed| rtt > smoothed) {
            self.smoothed_nanos = Maybe::some(rtt);
            self.variation_nanos = rtt / 2;
        }
    }

    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed_nanos.get().map(Duration::from_nanos)
    }

    pub(crate) fn min(&self) -> Option<Duration> {
        self.min_nanos.get().map(Duration::from_nanos)
    }

    pub(crate) fn variation(&self) -> Duration {
        Duration::from_nanos(self.variation_nanos)
    }

    /// The timeout without back-off: srtt + max(`granularity`, 4 rttvar), at least `floor` and at least twice the
    /// smoothed RTT.
    ///
    /// RFC 6298 (2.4) asks for a floor of one second, chosen for the Internet of its day; see `docs/tcp.md`.
    pub(crate) fn timeout(&self, initial: Duration, floor: Duration, granularity: Duration) -> Duration {
        let Some(smoothed) = self.smoothed_nanos.get() else { return initial };
        let timeout = smoothed + (self.variation_nanos * 4).max(nanos(granularity));
        Duration::from_nanos(timeout.max(nanos(floor)).max(smoothed * 2))
    }
}

/// A longer round trip than the longest timeout (RFC 6298 section 2.5 bounds it at 60 s or more) is an outage or a clock
/// that jumped, not a path: believed, it would hold timer and pacer back for as long again.
const SAMPLE_MAX: Duration = Duration::from_secs(60);

/// The longest time that counts, about half a year: eight of them are still a number.
const NANOS_MAX: u64 = 1 << 54;

fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into()).min(NANOS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: Duration = Duration::from_secs(1);
    const FLOOR: Duration = Duration::from_millis(1);

    #[test]
    fn first_sample_sets_and_later_ones_smooth() {
        let mut rtt = RttEstimator::default();
        assert_eq!(rtt.timeout(INITIAL, FLOOR, Duration::ZERO), INITIAL);
        rtt.sample(Duration::from_millis(100));
        assert_eq!(rtt.smoothed(), Some(Duration::from_millis(100)));
        assert_eq!(rtt.timeout(INITIAL, FLOOR, Duration::ZERO), Duration::from_millis(300));
        rtt.sample(Duration::from_millis(180));
        assert_eq!(rtt.smoothed(), Some(Duration::from_millis(110)));
        assert_eq!(rtt.variation(), Duration::from_micros(57_500));
        assert_eq!(rtt.min(), Some(Duration::from_millis(100)));
    }

    #[test]
    fn steady_tiny_round_trips_meet_the_floor_and_steady_long_ones_twice_the_rtt() {
        let mut rtt = RttEstimator::default();
        (0..100).for_each(|_| rtt.sample(Duration::from_micros(50)));
        assert_eq!(rtt.timeout(INITIAL, FLOOR, Duration::ZERO), FLOOR);
        let mut rtt = RttEstimator::default();
        (0..100).for_each(|_| rtt.sample(Duration::from_millis(50)));
        assert_eq!(rtt.timeout(INITIAL, FLOOR, Duration::ZERO), Duration::from_millis(100));
        let granularity = Duration::from_millis(200);
        assert_eq!(rtt.timeout(INITIAL, FLOOR, granularity), Duration::from_millis(250), "RFC 6298 (2.3)");
    }
}
