//! Histograms and the window of time in which an experiment counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use outrider_drivers::time::Instant;
use serde::Serialize;

use crate::runs::{Figure, Visit};

/// Longest latency told apart; anything longer counts as this.
const LATENCY_MAX: Duration = Duration::from_secs(120);
/// Largest byte count told apart.
const BYTES_MAX: u64 = 1 << 48;
/// Significant decimal digits kept.
const DIGITS: u8 = 3;

/// Latencies, to three digits.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let highest = u64::try_from(LATENCY_MAX.as_nanos()).unwrap_or(u64::MAX);
        Latencies(Histogram::new_with_max(highest, DIGITS).expect("constant bounds are valid"))
    }
}

impl Latencies {
    /// Counts one.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The usual percentiles, `None` without a sample.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        if self.0.is_empty() {
            return None;
        }
        let at = |quantile: f64| self.0.value_at_quantile(quantile) as f64 / 1_000.0;
        Some(Percentiles {
            p50: at(0.50),
            p90: at(0.90),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max() as f64 / 1_000.0,
        })
    }
}

/// Percentiles of a latency, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    /// Median.
    pub(crate) p50: f64,
    /// 90th.
    pub(crate) p90: f64,
    /// 99th.
    pub(crate) p99: f64,
    /// 99.9th.
    pub(crate) p999: f64,
    /// Largest.
    pub(crate) max: f64,
}

impl Percentiles {
    /// Shows all of them as figures of a result, under `path`.
    pub(crate) fn figures(&mut self, path: &str, visit: &mut Visit<'_>) {
        let Percentiles { p50, p90, p99, p999, max } = self;
        for (name, value) in [("p50", p50), ("p90", p90), ("p99", p99), ("p999", p999)] {
            visit(&format!("{path}.{name}"), Figure::Median(value));
        }
        visit(&format!("{path}.max"), Figure::Largest(max));
    }
}

/// Byte counts, to three digits.
#[derive(Clone, Debug)]
pub(crate) struct ByteCounts(Histogram<u64>);

impl Default for ByteCounts {
    fn default() -> Self {
        ByteCounts(Histogram::new_with_max(BYTES_MAX, DIGITS).expect("constant bounds are valid"))
    }
}

impl ByteCounts {
    /// Counts one.
    pub(crate) fn record(&mut self, bytes: u64) {
        self.0.saturating_record(bytes);
    }

    /// Median and largest, `None` without a sample.
    pub(crate) fn spread(&self) -> Option<Spread> {
        (!self.0.is_empty()).then(|| Spread { p50: self.0.value_at_quantile(0.5), max: self.0.max() })
    }
}

/// Median and largest of a byte count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Spread {
    /// Median, bytes.
    pub(crate) p50: u64,
    /// Largest, bytes.
    pub(crate) max: u64,
}

/// The time in which heartbeats count: by the instant they were *due*, so that neither end of the window favours
/// those that were quick. Shared by all threads of an experiment.
#[derive(Debug)]
pub(crate) struct Window {
    from_nanos: AtomicU64,
    until_nanos: AtomicU64,
}

impl Default for Window {
    fn default() -> Self {
        Window { from_nanos: AtomicU64::new(u64::MAX), until_nanos: AtomicU64::new(u64::MAX) }
    }
}

impl Window {
    /// Counts what is due from `from` on. Give an instant to come, if several threads count.
    pub(crate) fn open(&self, from: Instant) {
        self.from_nanos.store(from.as_nanos(), Ordering::Release);
    }

    /// Counts nothing that is due at `until` or later. Give an instant to come, if several threads count.
    pub(crate) fn close(&self, until: Instant) {
        self.until_nanos.store(until.as_nanos(), Ordering::Release);
    }

    /// Whether what was due at `due` counts.
    pub(crate) fn contains(&self, due: Instant) -> bool {
        let due = due.as_nanos();
        self.from_nanos.load(Ordering::Acquire) <= due && due < self.until_nanos.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_come_out_in_microseconds() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentiles(), None);
        for micros in 1..=1000 {
            latencies.record(Duration::from_micros(micros));
        }
        let percentiles = latencies.percentiles().unwrap();
        assert!((percentiles.p50 - 500.0).abs() < 1.0, "{percentiles:?}");
        assert!((percentiles.p99 - 990.0).abs() < 1.0, "{percentiles:?}");
        assert!((percentiles.max - 1000.0).abs() < 1.0, "{percentiles:?}");
    }

    #[test]
    fn an_absurd_latency_is_counted_as_the_longest_one() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_secs(1_000_000));
        let max = latencies.percentiles().unwrap().max;
        assert!((max / 1e6 - LATENCY_MAX.as_secs_f64()).abs() < 1.0, "{max}");
    }

    #[test]
    fn a_histogram_holds_counts_of_any_size() {
        let mut counts = ByteCounts::default();
        counts.record(10);
        counts.record(10);
        counts.record(1 << 40);
        let spread = counts.spread().unwrap();
        assert_eq!(spread.p50, 10);
        assert!(spread.max >= 1 << 40);
    }

    #[test]
    fn nothing_counts_before_the_window_is_opened_or_after_it_is_closed() {
        let window = Window::default();
        let at = Instant::from_millis;
        assert!(!window.contains(at(1)));
        window.open(at(10));
        assert!(!window.contains(at(9)));
        assert!(window.contains(at(10)));
        window.close(at(20));
        assert!(window.contains(at(19)));
        assert!(!window.contains(at(20)));
    }
}
