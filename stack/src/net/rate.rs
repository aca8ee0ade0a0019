//! Two small meters: how fast the port drains, and how many resets may still be sent.

use core::time::Duration;

use crate::time::Instant;

/// Length of a measuring window.
const WINDOW: Duration = Duration::from_millis(1);
/// How many windows the maximum is taken over.
const WINDOWS: usize = 8;

/// The rate at which bytes leave the port, from what was handed over less what is still outstanding.
///
/// Taken as the maximum over the last eight windows of at least a millisecond, because a window with idle time in it
/// shows too little. It starts at zero, and rises by itself: a limit of some hundred microseconds' worth of bytes
/// that is emptied in less time measures a higher rate in the next window.
#[derive(Debug)]
pub(super) struct DrainRate {
    handed_over: u64,
    window_start: Instant,
    window_drained: u64,
    rates: [u64; WINDOWS],
    next: usize,
}

impl DrainRate {
    pub(super) fn new() -> Self {
        DrainRate {
            handed_over: 0,
            window_start: Instant::ZERO,
            window_drained: 0,
            rates: [0; WINDOWS],
            next: 0,
        }
    }

    /// `bytes` were handed to the port.
    pub(super) fn on_transmit(&mut self, bytes: usize) {
        self.handed_over += bytes as u64;
    }

    /// The port says that `outstanding` bytes have not left it yet.
    pub(super) fn observe(&mut self, now: Instant, outstanding: usize) {
        let length = now.since(self.window_start);
        if length < WINDOW {
            return;
        }
        let drained = self.handed_over.saturating_sub(outstanding as u64);
        let bytes = u128::from(drained.saturating_sub(self.window_drained));
        self.window_start = now;
        self.window_drained = drained;
        if bytes > 0 {
            let rate = bytes * 1_000_000_000 / length.as_nanos();
            self.rates[self.next] = u64::try_from(rate).unwrap_or(u64::MAX);
            self.next = (self.next + 1) % WINDOWS;
        }
    }

    /// Bytes per second, zero if nothing is known.
    pub(super) fn bytes_per_second(&self) -> u64 {
        self.rates.iter().copied().max().unwrap_or(0)
    }
}

/// Bytes that leave in `time` at `bytes_per_second`.
pub(super) fn bytes_in(time: Duration, bytes_per_second: u64) -> usize {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    // 128 bits would cost a call, several times a turn.
    let bytes = match bytes_per_second.checked_mul(nanos) {
        Some(product) => product / 1_000_000_000,
        None => (u128::from(bytes_per_second) * u128::from(nanos) / 1_000_000_000) as u64,
    };
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The time in which `bytes` leave at `bytes_per_second`, which is not zero.
pub(super) fn time_for(bytes: usize, bytes_per_second: u64) -> Duration {
    let nanos = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(bytes_per_second.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Allows so many events per second, a tenth of them at once.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_second: u32,
    tokens: u32,
    filled_at: Instant,
}

impl TokenBucket {
    pub(super) fn new(per_second: u32) -> Self {
        TokenBucket { per_second, tokens: burst(per_second), filled_at: Instant::ZERO }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let earned = now.since(self.filled_at).as_nanos() * u128::from(self.per_second) / 1_000_000_000;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(earned).min(burst(self.per_second));
            self.filled_at = now;
        }
        let taken = self.tokens > 0;
        self.tokens -= u32::from(taken);
        taken
    }
}

fn burst(per_second: u32) -> u32 {
    per_second.div_ceil(10)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::{DrainRate, TokenBucket, bytes_in, time_for};
    use crate::time::Instant;

    #[test]
    fn the_rate_is_what_left_not_what_was_handed_over() {
        let mut rate = DrainRate::new();
        rate.on_transmit(300_000);
        rate.observe(Instant::from_millis(1), 175_000);
        assert_eq!(rate.bytes_per_second(), 125_000_000);
        for window in 2..20 {
            rate.on_transmit(50_000);
            rate.observe(Instant::from_millis(window), 175_000);
        }
        assert_eq!(rate.bytes_per_second(), 50_000_000, "the first window is forgotten");
        assert_eq!(bytes_in(Duration::from_micros(500), 50_000_000), 25_000);
        assert_eq!(time_for(25_000, 50_000_000), Duration::from_micros(500));
    }

    #[test]
    fn a_flood_is_held_to_its_rate() {
        let mut bucket = TokenBucket::new(100);
        let mut sent = 0;
        for millis in 1..=10_000 {
            sent += u32::from(bucket.take(Instant::from_millis(millis)));
        }
        assert!((1_000..=1_010).contains(&sent), "{sent} in ten seconds");
    }
}
