//! CUBIC (RFC 9438) with HyStart++ (RFC 9406).
//!
//! The window follows a cubic curve of the time since the last reduction, never below what Reno would have. Windows
//! are kept in bytes and the curve in segments, as the RFC states it. Choices the RFCs leave open:
//! - A reduction starts from what the sender made of the window (peak pipe of the last two rounds), not from the
//!   window itself, so that an application-limited flow is not reduced to a window it never used (section 4.6).
//! - Time during which the window did not limit the sender does not count on the curve (section 5.8).
//! - Pacing: 2 x window/srtt in slow start, 1.2 x afterwards, so that a window does not reach a shallow port as one
//!   burst. [`Cubic::without_pacing`] turns it off; RFC 9406's limit per acknowledgement then applies.

use core::time::Duration;

use super::hystart::{HyStart, Phase};
use super::pacing::window_rate;
use super::usage::WindowUsage;
use super::{AckSample, CongestionControl, CongestionEvent};
use crate::time::Instant;

/// Multiplicative decrease factor (section 4.6).
const BETA: f64 = 0.7;
/// Growth of the curve, segments per second cubed (section 5.1).
const C: f64 = 0.4;
/// Reno's additive increase that gives the same average window with [`BETA`] (section 4.3).
const RENO_ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
/// The least window after a reduction, in segments (RFC 5681 section 3.1, equation 4).
const REDUCED_SEGMENTS_MIN: u64 = 2;

/// One congestion avoidance stage: the curve and the Reno estimate beside it.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    /// Beginning of the stage, moved on by time that does not count.
    start: Instant,
    /// Window of the curve's plateau, segments.
    plateau: f64,
    /// Time from the start to the plateau, seconds.
    k: f64,
    /// What Reno would have by now, segments.
    reno: f64,
}

impl Epoch {
    /// The curve at `elapsed`, segments (equation 1).
    fn at(&self, elapsed: Duration) -> f64 {
        let t = elapsed.as_secs_f64() - self.k;
        C * t * t * t + self.plateau
    }
}

/// What a reduction overwrote, to be given back if it proves spurious (section 4.9).
#[derive(Clone, Copy, Debug)]
struct Saved {
    window: u64,
    threshold: u64,
    plateau: Option<f64>,
    window_prior: f64,
    epoch: Option<Epoch>,
}

/// The controller. See the module.
#[derive(Debug)]
pub struct Cubic {
    segment_size: u64,
    initial_window: u64,
    paced: bool,
    window: u64,
    /// Fractions of a byte by which the window is behind its curve.
    window_remainder: f64,
    threshold: u64,
    /// W_max, segments; `None` before the first reduction and after a timeout (section 4.8).
    plateau: Option<f64>,
    /// Window before the last reduction, segments: below it Reno grows by alpha, above by one segment.
    window_prior: f64,
    epoch: Option<Epoch>,
    hystart: HyStart,
    usage: WindowUsage,
    saved: Option<Saved>,
    in_recovery: bool,
    /// A timeout was answered and nothing was delivered since: further ones are the same episode.
    timed_out: bool,
    smoothed_rtt: Option<Duration>,
    last_ack: Option<Instant>,
}

impl Cubic {
    /// A controller in slow start, with pacing.
    pub fn new(segment_size: u64, initial_window_segments: u32) -> Self {
        let segment_size = segment_size.max(1);
        let initial_window = segment_size * u64::from(initial_window_segments.max(1));
        Cubic {
            segment_size,
            initial_window,
            paced: true,
            window: initial_window,
            window_remainder: 0.0,
            threshold: u64::MAX,
            plateau: None,
            window_prior: 0.0,
            epoch: None,
            hystart: HyStart::default(),
            usage: WindowUsage::default(),
            saved: None,
            in_recovery: false,
            timed_out: false,
            smoothed_rtt: None,
            last_ack: None,
        }
    }

    /// The same controller without a pacing rate: bursts are the network's to bear.
    #[must_use]
    pub fn without_pacing(mut self) -> Self {
        self.paced = false;
        self
    }

    fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    fn segments(&self, bytes: u64) -> f64 {
        bytes as f64 / self.segment_size as f64
    }

    /// Slow start (RFC 5681 section 3.1), the first one watched by HyStart++ (RFC 9406 section 4.3: only that one).
    fn grow_slow_start(&mut self, sample: &AckSample) {
        // RFC 7661: a window that less than half was used of has not been validated.
        let validated = self.usage.peak() > self.window / 2;
        let first = self.threshold == u64::MAX;
        let growth = if first {
            self.hystart.growth(sample.newly_acked, self.segment_size, self.paced)
        } else {
            sample.newly_acked
        };
        if validated {
            self.window = self.window.saturating_add(growth).min(self.threshold);
        }
        if first && self.hystart.phase() == Phase::Done {
            self.threshold = self.window;
        }
    }

    /// Congestion avoidance (sections 4.2 to 4.5).
    fn grow_avoidance(&mut self, sample: &AckSample) {
        if !self.usage.is_limited_by(self.window, self.segment_size) {
            if let (Some(epoch), Some(last)) = (&mut self.epoch, self.last_ack) {
                epoch.start += sample.now.since(last);
            }
            return;
        }
        let window = self.segments(self.window) + self.window_remainder / self.segment_size as f64;
        let acked = self.segments(sample.newly_acked);
        let plateau = self.plateau.unwrap_or(window).max(window);
        let epoch = self.epoch.get_or_insert_with(|| Epoch {
            start: sample.now,
            plateau,
            k: ((plateau - window) / C).cbrt(),
            reno: window,
        });
        let rtt = sample.smoothed_rtt.or(self.smoothed_rtt).unwrap_or_default();
        let elapsed = sample.now.since(epoch.start);
        let alpha = if epoch.reno >= self.window_prior { 1.0 } else { RENO_ALPHA };
        epoch.reno += alpha * acked / window;
        let grown = if epoch.at(elapsed) < epoch.reno {
            window.max(epoch.reno)
        } else {
            let target = epoch.at(elapsed + rtt).clamp(window, 1.5 * window);
            window + (target - window) * (acked / window).min(1.0)
        };
        let bytes = grown * self.segment_size as f64;
        self.window = bytes as u64;
        self.window_remainder = bytes.fract();
    }

    /// Section 4.6 and 4.7; returns the new threshold.
    fn reduce(&mut self) -> u64 {
        self.saved = Some(Saved {
            window: self.window,
            threshold: self.threshold,
            plateau: self.plateau,
            window_prior: self.window_prior,
            epoch: self.epoch,
        });
        let used = self.window.min(self.usage.peak().max(self.initial_window));
        let segments = self.segments(used);
        // Fast convergence: a flow that did not get back to its last plateau makes room for others.
        self.plateau = Some(match self.plateau {
            Some(last) if segments < last => segments * (1.0 + BETA) / 2.0,
            _ => segments,
        });
        self.window_prior = segments;
        self.epoch = None;
        self.window_remainder = 0.0;
        ((used as f64 * BETA) as u64).max(REDUCED_SEGMENTS_MIN * self.segment_size)
    }

    fn on_timeout(&mut self) {
        if !self.timed_out {
            self.threshold = self.reduce();
            // Section 4.8: the next avoidance stage starts on its own plateau.
            self.plateau = None;
        }
        self.timed_out = true;
        self.window = self.segment_size;
        self.in_recovery = false;
    }

    fn undo(&mut self) {
        if let Some(saved) = self.saved.take() {
            let Saved { window, threshold, plateau, window_prior, epoch } = saved;
            self.window = self.window.max(window);
            self.threshold = threshold.max(self.threshold);
            self.plateau = plateau;
            self.window_prior = window_prior;
            self.epoch = epoch;
            self.in_recovery = false;
            self.timed_out = false;
        }
    }
}

impl CongestionControl for Cubic {
    fn name(&self) -> &'static str {
        "cubic"
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
            self.hystart.on_round();
        }
        if let Some(rtt) = sample.rtt {
            self.hystart.on_rtt(rtt);
        }
        // Fast recovery holds the window at the threshold; after a timeout slow start runs while repairing.
        if sample.newly_acked > 0 && !self.in_recovery {
            if self.in_slow_start() {
                self.grow_slow_start(sample);
            } else {
                self.grow_avoidance(sample);
            }
        }
        self.last_ack = Some(sample.now);
    }

    fn on_event(&mut self, now: Instant, event: CongestionEvent, _pipe: u64) {
        match event {
            CongestionEvent::Loss => {
                self.threshold = self.reduce();
                self.window = self.threshold;
                self.in_recovery = true;
            }
            CongestionEvent::EcnEcho => {
                self.threshold = self.reduce();
                self.window = self.threshold;
                // A mark is not a loss: nothing can prove it spurious.
                self.saved = None;
            }
            CongestionEvent::Timeout => self.on_timeout(),
            CongestionEvent::Undo => self.undo(),
            CongestionEvent::RecoveryEnd => self.in_recovery = false,
            CongestionEvent::IdleRestart => {
                // RFC 5681 section 4.1: the restart window; the threshold remembers what the path took (RFC 7661).
                if self.threshold != u64::MAX {
                    self.threshold = self.threshold.max(self.window / 4 * 3);
                }
                self.window = self.window.min(self.initial_window);
                self.epoch = None;
                self.last_ack = Some(now);
            }
        }
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn slow_start_threshold(&self) -> u64 {
        self.threshold
    }

    fn pacing_rate(&self) -> Option<u64> {
        let rtt = self.smoothed_rtt.filter(|_| self.paced)?;
        Some(window_rate(self.window, rtt, self.in_slow_start()))
    }

    fn set_segment_size(&mut self, bytes: u64) {
        let bytes = bytes.max(1);
        // The curve is in segments: keep it where it is in bytes.
        let scale = self.segment_size as f64 / bytes as f64;
        self.plateau = self.plateau.map(|plateau| plateau * scale);
        self.window_prior *= scale;
        self.epoch = None;
        self.saved = None;
        self.initial_window = self.initial_window / self.segment_size * bytes;
        self.segment_size = bytes;
        self.window = self.window.max(bytes);
    }

    fn phase(&self) -> &'static str {
        if self.in_recovery {
            "recovery"
        } else if !self.in_slow_start() {
            "avoidance"
        } else if matches!(self.hystart.phase(), Phase::Conservative { .. }) && self.threshold == u64::MAX {
            "conservative-slow-start"
        } else {
            "slow-start"
        }
    }
}
