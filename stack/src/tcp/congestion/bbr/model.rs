//! The model of the path: rounds, congestion signals, short-term bounds, and their undoing (draft section 5.5).

use super::filters::{bytes_in, percent_of};
use super::{AGGREGATION_MAX, Ack, BETA_PERCENT, Bbr, State};
use crate::tcp::maybe::FlightBytes;

/// A bound that a standing queue left is raised by this part of itself in each round without one.
const QUEUE_BOUND_GROWTH_DIVISOR: u64 = 32;

/// Packet-timed rounds (section 5.5.1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Round {
    next_delivered: u64,
    /// Wraps: looked at for how many have passed since one not long ago.
    count: u32,
    /// Highest delivery rate among the samples of the current round, bytes per second.
    rate_max: u64,
    /// The same of the round before.
    rate_max_before: u64,
}

impl Round {
    /// Returns whether a round has ended. Without a rate sample the engine's own count of rounds has to do.
    pub(super) fn on_ack(
        &mut self,
        prior_delivered: Option<u64>,
        engine_round: bool,
        delivered: u64,
    ) -> bool {
        let ended = prior_delivered.map_or(engine_round, |prior| prior >= self.next_delivered);
        if ended {
            self.start(delivered);
            self.count = self.count.wrapping_add(1);
            self.rate_max_before = self.rate_max;
            self.rate_max = 0;
        }
        ended
    }

    /// A round begins: it ends when something sent from here on is acknowledged.
    pub(super) fn start(&mut self, delivered: u64) {
        self.next_delivered = delivered;
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Highest delivery rate of the last complete round.
    pub(super) fn rate(&self) -> u64 {
        self.rate_max_before
    }
}

/// The short-term model (section 5.5.10.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct LowerBounds {
    /// bw_shortterm; `u64::MAX` without a bound.
    pub(super) bandwidth: u64,
    /// The same for a standing queue (deviation 1).
    pub(super) queue_bandwidth: u64,
    /// Highest delivery rate of the rounds that the next verdict on a standing queue is about.
    queue_rate: u64,
    /// inflight_shortterm.
    pub(super) inflight: FlightBytes,
}

impl LowerBounds {
    pub(super) const NONE: Self = LowerBounds {
        bandwidth: u64::MAX,
        queue_bandwidth: u64::MAX,
        queue_rate: 0,
        inflight: FlightBytes::UNBOUNDED,
    };

    /// ResetShortTermModel.
    pub(super) fn lift(&mut self) {
        *self = Self::NONE;
    }

    /// The bound on the bandwidth, `u64::MAX` without one.
    pub(super) fn bandwidth(&self) -> u64 {
        self.bandwidth.min(self.queue_bandwidth)
    }
}

/// The latest delivery signals, which move the short-term model.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signals {
    bandwidth_latest: u64,
    loss_round_delivered: u64,
    inflight_latest: FlightBytes,
    loss_in_round: bool,
    loss_round_start: bool,
}

impl Signals {
    /// ResetCongestionSignals.
    pub(super) fn reset(&mut self) {
        self.loss_in_round = false;
        self.bandwidth_latest = 0;
        self.inflight_latest = FlightBytes::default();
    }

    /// Data delivered over the last round trip, bytes.
    pub(super) fn inflight_latest(&self) -> u64 {
        self.inflight_latest.get()
    }
}

/// What a loss episode overwrote (section 5.5.11).
#[derive(Clone, Debug, Default)]
pub(super) struct Undo {
    saved: Option<Box<Saved>>,
}

#[derive(Clone, Copy, Debug)]
struct Saved {
    bandwidth: u64,
    inflight: FlightBytes,
    inflight_long: FlightBytes,
    /// The accelerating state that the loss ended, if it did.
    state: Option<State>,
}

impl Undo {
    /// A loss ended `state`.
    pub(super) fn left(&mut self, state: State) {
        if let Some(saved) = &mut self.saved {
            saved.state = Some(state);
        }
    }
}

impl Bbr {
    /// NoteLoss (section 5.5.10.2), and the meters.
    pub(super) fn note_loss(&mut self, newly_delivered: u64, newly_lost: u64, delivered: u64) {
        self.losses.on_ack(newly_delivered, newly_lost);
        self.full_pipe.on_ack(newly_delivered, newly_lost);
        if newly_lost > 0 && !self.signals.loss_in_round {
            self.signals.loss_round_delivered = delivered;
            self.signals.loss_in_round = true;
        }
    }

    /// UpdateLatestDeliverySignals and UpdateCongestionSignals.
    pub(super) fn update_signals(&mut self, ack: &Ack) {
        let signals = &mut self.signals;
        signals.loss_round_start = false;
        signals.bandwidth_latest = signals.bandwidth_latest.max(ack.rate);
        signals.inflight_latest = signals.inflight_latest.max(ack.rate_delivered.into());
        if ack.rate > 0 && ack.prior_delivered >= signals.loss_round_delivered {
            signals.loss_round_delivered = ack.delivered;
            signals.loss_round_start = true;
        }
        self.round.rate_max = self.round.rate_max.max(ack.rate);
        if ack.rate > 0 && (ack.rate >= self.bandwidth_max.get() || !ack.app_limited) {
            self.bandwidth_max.update(ack.rate);
        }
        if self.signals.loss_round_start {
            if !self.state.accelerates() {
                self.adapt_bounds_to_loss();
            }
            self.signals.loss_in_round = false;
        }
        if ack.round_start && matches!(self.state, State::Cruise | State::Down) && !ack.app_limited {
            self.adapt_bounds_to_queue(ack.queue_judged);
        } else if ack.queue_judged
            && let Some(filled) = self.filled.made_mut()
        {
            // The next verdict is about the rounds from here on.
            filled.bounds.queue_rate = 0;
        }
    }

    /// AdaptLowerBoundsFromCongestion (deviation 7).
    fn adapt_bounds_to_loss(&mut self) {
        if !self.signals.loss_in_round || !self.losses.is_excessive(self.segment_size()) {
            return;
        }
        let bounds = &self.filled.bounds;
        let bandwidth = bounds.bandwidth.min(self.bandwidth_believed());
        let inflight = bounds.inflight.min(self.window).get();
        let (bandwidth_latest, inflight_latest) =
            (self.signals.bandwidth_latest, self.signals.inflight_latest());
        let bounds = &mut self.filled.bounds;
        bounds.bandwidth = bandwidth_latest.max(percent_of(bandwidth, BETA_PERCENT));
        bounds.inflight = inflight_latest.max(percent_of(inflight, BETA_PERCENT)).into();
    }

    /// A queue stands: the rate of the last rounds is the path's, whatever the maximum says (deviation 1).
    fn adapt_bounds_to_queue(&mut self, judged: bool) {
        let rate = self.filled.bounds.queue_rate.max(self.round.rate());
        self.filled.bounds.queue_rate = if judged { 0 } else { rate };
        if !judged {
            return;
        }
        let bound = self.filled.bounds.queue_bandwidth.min(self.bandwidth_believed());
        if !self.queue.is_standing() {
            let raised = bound.saturating_add(bound / QUEUE_BOUND_GROWTH_DIVISOR);
            let lifted = raised >= self.bandwidth_believed();
            self.filled.bounds.queue_bandwidth = if lifted { u64::MAX } else { raised };
        } else if rate > 0 {
            let floor = percent_of(bound, BETA_PERCENT);
            self.filled.bounds.queue_bandwidth = rate.max(floor).min(bound);
        }
    }

    /// AdvanceLatestDeliverySignals.
    pub(super) fn advance_signals(&mut self, ack: &Ack) {
        if self.signals.loss_round_start {
            self.signals.bandwidth_latest = ack.rate;
            self.signals.inflight_latest = ack.rate_delivered.into();
        }
    }

    /// UpdateACKAggregation (section 5.5.9, deviation 5).
    pub(super) fn update_aggregation(&mut self, ack: &Ack) {
        let limit = self.window.get().min(bytes_in(self.bandwidth, AGGREGATION_MAX));
        self.aggregation.on_ack(ack.now, ack.newly_delivered, self.bandwidth, limit);
    }

    /// SaveStateUponLoss.
    pub(super) fn save_for_undo(&mut self) {
        self.undo.saved = Some(Box::new(Saved {
            bandwidth: self.filled.bounds.bandwidth,
            inflight: self.filled.bounds.inflight,
            inflight_long: self.filled.inflight_long,
            state: None,
        }));
    }

    /// HandleSpuriousLossDetection (section 5.5.11.2).
    pub(super) fn undo_loss(&mut self) {
        let Some(saved) = self.undo.saved.take() else {
            return;
        };
        self.in_recovery = false;
        self.restore_window();
        self.signals.loss_in_round = false;
        self.full_pipe.restart(0);
        if let Some(filled) = self.filled.made_mut() {
            filled.bounds.bandwidth = filled.bounds.bandwidth.max(saved.bandwidth);
            filled.bounds.inflight = filled.bounds.inflight.max(saved.inflight);
            filled.inflight_long = filled.inflight_long.max(saved.inflight_long);
        }
        match saved.state {
            Some(State::Startup) if self.state != State::Startup => {
                self.full_pipe.reached = false;
                if self.state != State::ProbeRtt {
                    self.state = State::Startup;
                }
            }
            Some(State::Up) if !matches!(self.state, State::Up | State::ProbeRtt) => self.start_refill(),
            _ => {}
        }
    }
}
