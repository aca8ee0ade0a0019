//! DCTCP (RFC 8257): the window shrinks in proportion to how much of a round trip's bytes were marked.

use super::reno::Reno;
use super::{AckSample, CongestionControl, CongestionEvent};
use crate::time::Instant;

/// Estimation gain g (section 4.2).
const GAIN: f64 = 1.0 / 16.0;

/// The controller. Growth is Reno's; loss halves the window (section 3.5), marks reduce it by alpha / 2
/// (section 3.3), at most once a round trip.
#[derive(Debug)]
pub struct Dctcp {
    reno: Reno,
    /// Estimate of the marked fraction. Starts at 1, so that the first mark is answered like a loss (section 4.2).
    alpha: f64,
    acked_in_round: u64,
    marked_in_round: u64,
}

impl Dctcp {
    /// A controller in slow start.
    pub fn new(segment_size: u64, initial_window_segments: u32) -> Self {
        Dctcp {
            reno: Reno::new(segment_size, initial_window_segments),
            alpha: 1.0,
            acked_in_round: 0,
            marked_in_round: 0,
        }
    }

    /// The estimate of the marked fraction, 0 to 1.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// Section 3.3, steps 3 to 7, once a round trip.
    fn end_round(&mut self) {
        if self.acked_in_round > 0 {
            let fraction = (self.marked_in_round as f64 / self.acked_in_round as f64).min(1.0);
            self.alpha = (1.0 - GAIN) * self.alpha + GAIN * fraction;
        }
        self.acked_in_round = 0;
        self.marked_in_round = 0;
    }
}

impl CongestionControl for Dctcp {
    fn name(&self) -> &'static str {
        "dctcp"
    }

    fn on_sent(&mut self, now: Instant, bytes: u64, pipe: u64) {
        self.reno.on_sent(now, bytes, pipe);
    }

    fn on_ack(&mut self, sample: &AckSample) {
        self.acked_in_round = self.acked_in_round.saturating_add(sample.newly_acked);
        self.marked_in_round = self.marked_in_round.saturating_add(sample.ce_marked);
        if sample.round_start {
            self.end_round();
        }
        self.reno.on_ack(sample);
    }

    fn on_event(&mut self, now: Instant, event: CongestionEvent, pipe: u64) {
        match event {
            CongestionEvent::EcnEcho => self.reno.answer_mark(1.0 - self.alpha / 2.0),
            event => self.reno.on_event(now, event, pipe),
        }
    }

    fn window(&self) -> u64 {
        self.reno.window()
    }

    fn slow_start_threshold(&self) -> u64 {
        self.reno.slow_start_threshold()
    }

    fn pacing_rate(&self) -> Option<u64> {
        self.reno.pacing_rate()
    }

    fn set_segment_size(&mut self, bytes: u64) {
        self.reno.set_segment_size(bytes);
    }

    fn phase(&self) -> &'static str {
        self.reno.phase()
    }
}

#[cfg(test)]
mod tests {
    use super::super::reno::tests::ack;
    use super::*;

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
