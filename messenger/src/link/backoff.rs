//! How long to wait before the next attempt.

use core::time::Duration;

use crate::random::SplitMix;

/// Limits of the wait between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Shortest wait.
    pub min: Duration,
    /// Longest wait.
    pub max: Duration,
}

impl Default for Backoff {
    /// As Ceph has them: 0.2 s to 15 s.
    fn default() -> Self {
        Backoff { min: Duration::from_millis(200), max: Duration::from_secs(15) }
    }
}

impl Backoff {
    /// The wait after `failures` attempts that failed one after another (1 at least): it doubles with each, and a half
    /// of it is left to chance, so that peers which failed together do not come back together.
    pub(crate) fn wait(&self, failures: u32, random: &mut SplitMix) -> Duration {
        let doubled = self.min.saturating_mul(1 << failures.clamp(1, 20));
        let limit = doubled.min(self.max).max(self.min);
        let least = (limit / 2).max(self.min);
        least + random.below(limit - least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_half_of_it_is_chance() {
        let (backoff, mut random) = (Backoff::default(), SplitMix::new(1));
        for (failures, least_ms, limit_ms) in
            [(1, 200, 400), (2, 400, 800), (5, 3_200, 6_400), (9, 7_500, 15_000)]
        {
            let waits: Vec<u128> =
                (0..1000).map(|_| backoff.wait(failures, &mut random).as_millis()).collect();
            assert!(waits.iter().all(|wait| (least_ms..=limit_ms).contains(wait)), "{failures}");
            assert!(waits.iter().max() > Some(&(limit_ms * 9 / 10)), "{failures}: all of the range is used");
        }
        assert!(backoff.wait(u32::MAX, &mut random) <= backoff.max);
    }
}
