//! DCTCP (RFC 8257): the window shrinks in proportion to how much of a round trip's bytes were marked.

use core::time::Duration;

use super::pacing::window_rate;
use super::usage::WindowUsage;
use super::{AckSample, CongestionControl, CongestionEvent};
use crate::time::Instant;

/// Estimation gain g (section 4.2).
const GAIN: f64 = 1.0 / 16.0;
/// The least window, in segments (RFC 5681 section 3.1).
const SEGMENTS_MIN: u64 = 2;

/// The controller. Growth is Reno's; loss halves the window (section 3.5), marks reduce it by alpha / 2
/// (section 3.3), at most once a round trip.
#[derive(Debug)]
pub struct Dctcp {
    segment_size: u64,
    initial_window: u64,
    window: u64,
    threshold: u64,
    /// Estimate of the marked fraction. Starts at 1, so that the first mark is answered like a loss (section 4.2).
    alpha: f64,
    acked_in_round: u64,
    marked_in_round: u64,
    /// Bytes acknowledged towards the next segment of additive increase.
    credit: u64,
    usage: WindowUsage,
    saved: Option<(u64, u64)>,
    in_recovery: bool,
    timed_out: bool,
    smoothed_rtt: Option<Duration>,
}

impl Dctcp {
    /// A controller in slow start.
    pub fn new(segment_size: u64, initial_window_segments: u32) -> Self {
        let segment_size = segment_size.max(1);
        let initial_window = segment_size.saturating_mul(u64::from(initial_window_segments.max(1)));
        Dctcp {
            segment_size,
            initial_window,
            window: initial_window,
            threshold: u64::MAX,
            alpha: 1.0,
            acked_in_round: 0,
            marked_in_round: 0,
            credit: 0,
            usage: WindowUsage::default(),
            saved: None,
            in_recovery: false,
            timed_out: false,
            smoothed_rtt: None,
        }
    }

    /// The estimate of the marked fraction, 0 to 1.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    fn floor(&self) -> u64 {
        SEGMENTS_MIN.saturating_mul(self.segment_size)
    }

    fn reduce_by(&mut self, factor: f64) {
        self.saved = Some((self.window, self.threshold));
        self.threshold = ((self.window as f64 * factor) as u64).max(self.floor());
        self.window = self.threshold;
        self.credit = 0;
    }

    /// Section 3.3, steps 3 to 7, once a round trip.
    fn end_round(&mut self) {
        if self.acked_in_round > 0 {
            let fraction = (self.marked_in_round as f64 / self.acked_in_round as f64).min(1.0);
            self.alpha = (1.0 - GAIN) * self.alpha + GAIN * fraction;
        }
        self.acked_in_round = 0;
        self.marked_in_round = 0;
        self.usage.on_round();
    }

    fn grow(&mut self, acked: u64) {
        if self.window < self.threshold {
            if self.usage.peak() >= self.window / 2 {
                self.window = self.window.saturating_add(acked).min(self.threshold);
            }
        } else if self.usage.is_limited_by(self.window, self.segment_size) {
            self.credit = self.credit.saturating_add(acked);
            if self.credit >= self.window {
                self.credit -= self.window;
                self.window = self.window.saturating_add(self.segment_size);
            }
        }
    }
}

impl CongestionControl for Dctcp {
    fn name(&self) -> &'static str {
        "dctcp"
    }

    fn on_sent(&mut self, _now: Instant, bytes: u64, pipe: u64) {
        self.usage.on_sent(pipe.saturating_add(bytes));
    }

    fn on_ack(&mut self, sample: &AckSample) {
        self.smoothed_rtt = sample.smoothed_rtt.or(self.smoothed_rtt);
        if sample.newly_delivered > 0 {
            self.timed_out = false;
        }
        self.acked_in_round = self.acked_in_round.saturating_add(sample.newly_acked);
        self.marked_in_round = self.marked_in_round.saturating_add(sample.ce_marked);
        if sample.round_start {
            self.end_round();
        }
        if sample.newly_acked > 0 && !self.in_recovery && sample.ce_marked == 0 {
            self.grow(sample.newly_acked);
        }
    }

    fn on_event(&mut self, _now: Instant, event: CongestionEvent, _pipe: u64) {
        match event {
            CongestionEvent::EcnEcho => {
                self.reduce_by(1.0 - self.alpha / 2.0);
                // A mark is not a loss: nothing can prove it spurious.
                self.saved = None;
            }
            CongestionEvent::Loss => {
                self.reduce_by(0.5);
                self.in_recovery = true;
            }
            CongestionEvent::Timeout => {
                if !self.timed_out {
                    self.reduce_by(0.5);
                }
                self.timed_out = true;
                self.window = self.segment_size;
                self.in_recovery = false;
            }
            CongestionEvent::Undo => {
                if let Some((window, threshold)) = self.saved.take() {
                    self.window = self.window.max(window);
                    self.threshold = self.threshold.max(threshold);
                    self.in_recovery = false;
                }
            }
            CongestionEvent::RecoveryEnd => self.in_recovery = false,
            CongestionEvent::IdleRestart => self.window = self.window.min(self.initial_window),
        }
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn slow_start_threshold(&self) -> u64 {
        self.threshold
    }

    fn pacing_rate(&self) -> Option<u64> {
        Some(window_rate(self.window, self.smoothed_rtt?, self.window < self.threshold))
    }

    fn set_segment_size(&mut self, bytes: u64) {
        let bytes = bytes.max(1);
        self.initial_window = (self.initial_window / self.segment_size).saturating_mul(bytes);
        self.segment_size = bytes;
        self.window = self.window.max(bytes);
    }

    fn phase(&self) -> &'static str {
        match (self.in_recovery, self.window < self.threshold) {
            (true, _) => "recovery",
            (false, true) => "slow-start",
            (false, false) => "avoidance",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(dctcp: &mut Dctcp, bytes: u64, marked: u64, round_start: bool) {
        dctcp.on_sent(Instant::ZERO, 0, dctcp.window());
        dctcp.on_ack(&AckSample {
            now: Instant::ZERO,
            newly_delivered: bytes,
            newly_acked: bytes,
            newly_lost: 0,
            rtt: None,
            rtt_min: None,
            smoothed_rtt: Some(Duration::from_micros(100)),
            pipe_before: dctcp.window(),
            pipe: dctcp.window(),
            rate: None,
            delivered: bytes,
            round_start,
            app_limited: false,
            ce_marked: marked,
            in_recovery: false,
        });
    }

    #[test]
    fn few_marks_cost_little_and_many_cost_half() {
        let mut dctcp = Dctcp::new(1000, 100);
        // Rounds without a mark forget the initial estimate of one.
        (0..100).for_each(|_| ack(&mut dctcp, 1000, 0, true));
        assert!(dctcp.alpha() < 0.01);
        let before = dctcp.window();
        dctcp.on_event(Instant::ZERO, CongestionEvent::EcnEcho, 0);
        assert!(dctcp.window() > before * 99 / 100, "an unexpected mark barely counts");
        (0..100).for_each(|_| ack(&mut dctcp, 1000, 1000, true));
        assert!(dctcp.alpha() > 0.99);
        let before = dctcp.window();
        dctcp.on_event(Instant::ZERO, CongestionEvent::EcnEcho, 0);
        assert!(dctcp.window() < before * 51 / 100, "all marked is like a loss");
    }

    #[test]
    fn the_estimate_follows_the_marked_fraction_of_a_round() {
        let mut dctcp = Dctcp::new(1000, 10);
        for _ in 0..200 {
            ack(&mut dctcp, 750, 0, false);
            ack(&mut dctcp, 250, 250, true);
        }
        assert!((dctcp.alpha() - 0.25).abs() < 0.01, "{}", dctcp.alpha());
    }
}
