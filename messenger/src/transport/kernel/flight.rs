//! What has been cut and is not acknowledged, and since when.

use core::time::Duration;
use std::collections::VecDeque;

use outrider_stack::time::Instant;

/// Cuts closer together than this share a mark: the age of the oldest byte is known to that much.
const MARK_INTERVAL: Duration = Duration::from_millis(1);
/// Marks at most. Beyond, the last one takes everything, and ages are told from its time on.
const MARKS_MAX: usize = 1_024;

/// The rate is of this time at least: the bucket of a shaper lets a burst through at any rate.
const RATE_INTERVAL: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Bytes cut in all when the mark was last extended.
    end: u64,
    /// When its first byte was cut.
    at: Instant,
}

/// Counts of the bytes of one direction. Offsets are of the stream's bytes, the first is 0.
#[derive(Debug, Default)]
pub(super) struct Flight {
    cut: u64,
    acknowledged: u64,
    marks: VecDeque<Mark>,
    /// Since when the rate is being measured, and what was acknowledged then.
    measured: Option<(Instant, u64)>,
    rate: u64,
}

impl Flight {
    /// Bytes were cut.
    pub(super) fn on_cut(&mut self, now: Instant, bytes: usize) {
        self.cut += bytes as u64;
        let full = self.marks.len() == MARKS_MAX;
        match self.marks.back_mut() {
            Some(last) if full || now.since(last.at) < MARK_INTERVAL => last.end = self.cut,
            _ => self.marks.push_back(Mark { end: self.cut, at: now }),
        }
    }

    /// All but `outstanding` of the bytes cut have been acknowledged. Returns whether that is news.
    pub(super) fn on_outstanding(&mut self, outstanding: u64) -> bool {
        let acknowledged = self.cut.saturating_sub(outstanding);
        if acknowledged <= self.acknowledged {
            return false;
        }
        self.acknowledged = acknowledged;
        while self.marks.front().is_some_and(|mark| mark.end <= acknowledged) {
            self.marks.pop_front();
        }
        true
    }

    /// Measures the rate anew, if a [`RATE_INTERVAL`] has passed since it was.
    pub(super) fn measure_rate(&mut self, now: Instant) {
        let (from, acknowledged) = *self.measured.get_or_insert((now, self.acknowledged));
        let time = now.since(from);
        if time >= RATE_INTERVAL {
            self.rate = ((self.acknowledged - acknowledged) as f64 / time.as_secs_f64()) as u64;
            self.measured = Some((now, self.acknowledged));
        }
    }

    /// Bytes per second acknowledged when that was last measured; zero before.
    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    pub(super) fn cut(&self) -> u64 {
        self.cut
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) fn outstanding(&self) -> u64 {
        self.cut - self.acknowledged
    }

    pub(super) fn oldest_age(&self, now: Instant) -> Duration {
        self.marks.front().map(|mark| now.since(mark.at)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    #[test]
    fn the_oldest_byte_has_its_age_until_it_is_acknowledged() {
        let mut flight = Flight::default();
        assert_eq!(flight.oldest_age(at(5)), Duration::ZERO);
        flight.on_cut(at(1_000), 100);
        flight.on_cut(at(1_500), 100);
        flight.on_cut(at(3_000), 100);
        assert_eq!((flight.cut(), flight.outstanding()), (300, 300));
        assert_eq!(flight.oldest_age(at(4_000)), Duration::from_millis(3));
        assert!(flight.on_outstanding(150), "half of the first mark");
        assert_eq!(flight.oldest_age(at(4_000)), Duration::from_millis(3));
        assert!(flight.on_outstanding(100));
        assert_eq!(flight.oldest_age(at(4_000)), Duration::from_millis(1));
        assert!(!flight.on_outstanding(100), "nothing new");
        assert!(!flight.on_outstanding(200), "an acknowledgement is not taken back");
        assert!(flight.on_outstanding(0));
        assert_eq!((flight.acknowledged(), flight.oldest_age(at(9_000))), (300, Duration::ZERO));
    }

    #[test]
    fn the_rate_is_not_that_of_a_burst() {
        let mut flight = Flight::default();
        flight.on_cut(at(0), 1_000_000);
        flight.measure_rate(at(1_000));
        flight.on_outstanding(900_000);
        flight.measure_rate(at(1_100));
        assert_eq!(flight.rate(), 0, "100 kB within 0.1 ms do not tell");
        flight.measure_rate(at(11_000));
        assert_eq!(flight.rate(), 10_000_000);
        flight.on_outstanding(0);
        flight.measure_rate(at(20_999));
        assert_eq!(flight.rate(), 10_000_000);
        flight.measure_rate(at(1_000_000 + 11_000));
        assert_eq!(flight.rate(), 900_000);
    }

    #[test]
    fn marks_do_not_pile_up() {
        let mut flight = Flight::default();
        for n in 0..10 * MARKS_MAX as u64 {
            flight.on_cut(at(n * 2_000), 1);
        }
        assert_eq!(flight.marks.len(), MARKS_MAX);
        assert_eq!(flight.oldest_age(at(1_000_000)), Duration::from_secs(1));
        assert!(flight.on_outstanding(0));
        assert!(flight.marks.is_empty());
    }
}
