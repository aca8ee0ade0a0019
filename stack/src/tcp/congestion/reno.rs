//! Reno (RFC 5681): one segment more per round trip, half the window at a loss. Half of what is in flight, as equation 4 of
//! section 3.1 has it, is about the same, for the window does not grow while it is not used.
//!
//! No connection of ours uses it by itself: it is what DCTCP grows by, and what other stacks are compared with in.

use core::time::Duration;

use super::pacing::window_rate;
use super::usage::WindowUsage;
use super::{AckSample, CongestionControl, CongestionEvent};
use crate::time::Instant;

/// The least window after a reduction, in segments (section 3.1, equation 4).
const SEGMENTS_MIN: u64 = 2;

/// The controller.
#[derive(Debug)]
pub struct Reno {
    segment_size: u64,
    initial_window: u64,
    window: u64,
    threshold: u64,
    /// Bytes acknowledged towards the next segment of additive increase.
    credit: u64,
    usage: WindowUsage,
    saved: Option<(u64, u64)>,
    in_recovery: bool,
    timed_out: bool,
    smoothed_rtt: Option<Duration>,
}

impl Reno {
    /// A controller in slow start.
    pub fn new(segment_size: u64, initial_window_segments: u32) -> Self {
        let segment_size = segment_size.max(1);
        let initial_window = segment_size.saturating_mul(u64::from(initial_window_segments.max(1)));
        Reno {
            segment_size,
            initial_window,
            window: initial_window,
            threshold: u64::MAX,
            credit: 0,
            usage: WindowUsage::default(),
            saved: None,
            in_recovery: false,
            timed_out: false,
            smoothed_rtt: None,
        }
    }

    fn floor(&self) -> u64 {
        SEGMENTS_MIN.saturating_mul(self.segment_size)
    }

    /// A mark is answered with this part of the window. It is not a loss: nothing can prove it spurious.
    pub(super) fn answer_mark(&mut self, factor: f64) {
        self.reduce_by(factor);
        self.saved = None;
    }

    fn reduce_by(&mut self, factor: f64) {
        self.saved = Some((self.window, self.threshold));
        self.threshold = ((self.window as f64 * factor) as u64).max(self.floor());
        self.window = self.threshold;
        self.credit = 0;
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

impl CongestionControl for Reno {
    fn name(&self) -> &'static str {
        "reno"
    }

    fn on_sent(&mut self, _now: Instant, bytes: u64, pipe: u64) {
        self.usage.on_sent(pipe.saturating_add(bytes));
    }

    fn on_ack(&mut self, sample: &AckSample) {
        self.smoothed_rtt = sample.smoothed_rtt.or(self.smoothed_rtt);
        if sample.newly_delivered > 0 {
            self.timed_out = false;
        }
        if sample.round_start {
            self.usage.on_round();
        }
        // What the end of a recovery acknowledges was sent before it.
        let recovering = self.in_recovery || sample.in_recovery;
        if sample.newly_acked > 0 && !recovering && sample.ce_marked == 0 {
            self.grow(sample.newly_acked);
        }
    }

    fn on_event(&mut self, _now: Instant, event: CongestionEvent, _pipe: u64) {
        match event {
            CongestionEvent::EcnEcho => self.answer_mark(0.5),
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
pub(super) mod tests {
    use super::*;

    /// Bytes arrive of which so many were marked, while the window is full.
    pub(in crate::tcp::congestion) fn ack(
        controller: &mut dyn CongestionControl,
        bytes: u64,
        marked: u64,
        round_start: bool,
    ) {
        controller.on_sent(Instant::ZERO, 0, controller.window());
        controller.on_ack(&AckSample {
            now: Instant::ZERO,
            newly_delivered: bytes,
            newly_acked: bytes,
            newly_lost: 0,
            rtt: None,
            rtt_min: None,
            smoothed_rtt: Some(Duration::from_millis(10)),
            pipe_before: controller.window(),
            pipe: controller.window(),
            rate: None,
            delivered: bytes,
            round_start,
            app_limited: false,
            ce_marked: marked,
            in_recovery: false,
        });
    }

    #[test]
    fn slow_start_doubles_a_loss_halves_and_avoidance_adds_one_segment_a_round() {
        let mut reno = Reno::new(1000, 10);
        (0..10).for_each(|_| ack(&mut reno, 1000, 0, false));
        assert_eq!(reno.window(), 20_000, "every acknowledged byte counts");
        reno.on_event(Instant::ZERO, CongestionEvent::Loss, 20_000);
        assert_eq!((reno.window(), reno.slow_start_threshold()), (10_000, 10_000));
        ack(&mut reno, 1000, 0, false);
        assert_eq!(reno.window(), 10_000, "recovery does not grow it");
        reno.on_event(Instant::ZERO, CongestionEvent::RecoveryEnd, 0);
        (0..10).for_each(|_| ack(&mut reno, 1000, 0, false));
        assert_eq!(reno.window(), 11_000);
    }

    #[test]
    fn a_timeout_leaves_one_segment_and_is_given_back_if_it_was_spurious() {
        let mut reno = Reno::new(1000, 10);
        reno.on_event(Instant::ZERO, CongestionEvent::Timeout, 10_000);
        reno.on_event(Instant::ZERO, CongestionEvent::Timeout, 10_000);
        assert_eq!(
            (reno.window(), reno.slow_start_threshold()),
            (1000, 5000),
            "one episode is one reduction"
        );
        reno.on_event(Instant::ZERO, CongestionEvent::Undo, 0);
        assert_eq!(reno.window(), 10_000);
        (0..4).for_each(|_| reno.on_event(Instant::ZERO, CongestionEvent::Loss, 0));
        assert_eq!(reno.window(), 2000, "never below two segments");
    }
}
