//! The model of the path: rounds, congestion signals, short-term bounds, and their undoing (draft section 5.5).

use super::filters::{bytes_in, percent_of};
use super::{AGGREGATION_MAX, Ack, BETA_PERCENT, Bbr, State};

/// A bound that a standing queue left is raised by this part of itself in each round without one.
const QUEUE_BOUND_GROWTH_DIVISOR: u64 = 32;

/// Packet-timed rounds (section 5.5.1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Round {
    next_delivered: u64,
    count: u64,
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
            self.count += 1;
            self.rate_max_before = self.rate_max;
            self.rate_max = 0;
        }
        ended
    }

    /// A round begins: it ends when something sent from here on is acknowledged.
    pub(super) fn start(&mut self, delivered: u64) {
        self.next_delivered = delivered;
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Highest delivery rate of the last complete round.
    pub(super) fn rate(&self) -> u64 {
        self.rate_max_before
    }
}

/// The short-term model and the latest delivery signals that move it (section 5.5.10.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct LowerBounds {
    /// bw_shortterm; `u64::MAX` without a bound.
    pub(super) bandwidth: u64,
    /// The same for a standing queue (deviation 1).
    pub(super) queue_bandwidth: u64,
    /// inflight_shortterm; `u64::MAX` without a bound.
    pub(super) inflight: u64,
    bandwidth_latest: u64,
    inflight_latest: u64,
    loss_in_round: bool,
    loss_round_delivered: u64,
    loss_round_start: bool,
}

impl Default for LowerBounds {
    fn default() -> Self {
        LowerBounds {
            bandwidth: u64::MAX,
            queue_bandwidth: u64::MAX,
            inflight: u64::MAX,
            bandwidth_latest: 0,
            inflight_latest: 0,
            loss_in_round: false,
            loss_round_delivered: 0,
            loss_round_start: false,
        }
    }
}

impl LowerBounds {
    /// ResetShortTermModel.
    pub(super) fn lift(&mut self) {
        self.bandwidth = u64::MAX;
        self.queue_bandwidth = u64::MAX;
        self.inflight = u64::MAX;
    }

    /// The bound on the bandwidth, `u64::MAX` without one.
    pub(super) fn bandwidth(&self) -> u64 {
        self.bandwidth.min(self.queue_bandwidth)
    }

    /// ResetCongestionSignals.
    pub(super) fn reset_signals(&mut self) {
        self.loss_in_round = false;
        self.bandwidth_latest = 0;
        self.inflight_latest = 0;
    }

    /// Data delivered over the last round trip, bytes.
    pub(super) fn inflight_latest(&self) -> u64 {
        self.inflight_latest
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
    inflight: u64,
    inflight_long: u64,
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
        if newly_lost > 0 && !self.bounds.loss_in_round {
            self.bounds.loss_round_delivered = delivered;
            self.bounds.loss_in_round = true;
        }
    }

    /// UpdateLatestDeliverySignals and UpdateCongestionSignals.
    pub(super) fn update_signals(&mut self, ack: &Ack) {
        let bounds = &mut self.bounds;
        bounds.loss_round_start = false;
        bounds.bandwidth_latest = bounds.bandwidth_latest.max(ack.rate);
        bounds.inflight_latest = bounds.inflight_latest.max(ack.rate_delivered);
        if ack.rate > 0 && ack.prior_delivered >= bounds.loss_round_delivered {
            bounds.loss_round_delivered = ack.delivered;
            bounds.loss_round_start = true;
        }
        self.round.rate_max = self.round.rate_max.max(ack.rate);
        if ack.rate > 0 && (ack.rate >= self.bandwidth_max.get() || !ack.app_limited) {
            self.bandwidth_max.update(ack.rate);
        }
        if self.bounds.loss_round_start {
            if !self.state.accelerates() {
                self.adapt_bounds_to_loss();
            }
            self.bounds.loss_in_round = false;
        }
        if ack.round_start && matches!(self.state, State::Cruise | State::Down) && !ack.app_limited {
            self.adapt_bounds_to_queue();
        }
    }

    /// AdaptLowerBoundsFromCongestion (deviation 7).
    fn adapt_bounds_to_loss(&mut self) {
        if !self.bounds.loss_in_round || !self.losses.is_excessive(self.segment_size) {
            return;
        }
        let bandwidth = self.bounds.bandwidth.min(self.bandwidth_believed());
        let inflight = self.bounds.inflight.min(self.window);
        self.bounds.bandwidth = self.bounds.bandwidth_latest.max(percent_of(bandwidth, BETA_PERCENT));
        self.bounds.inflight = self.bounds.inflight_latest.max(percent_of(inflight, BETA_PERCENT));
    }

    /// A queue stands: the rate of the last round is the path's, whatever the maximum says (deviation 1).
    fn adapt_bounds_to_queue(&mut self) {
        let bound = self.bounds.queue_bandwidth.min(self.bandwidth_believed());
        if !self.queue.is_standing() {
            let raised = bound.saturating_add(bound / QUEUE_BOUND_GROWTH_DIVISOR);
            let lifted = raised >= self.bandwidth_believed();
            self.bounds.queue_bandwidth = if lifted { u64::MAX } else { raised };
        } else if self.round.rate() > 0 {
            let floor = percent_of(bound, BETA_PERCENT);
            self.bounds.queue_bandwidth = self.round.rate().max(floor).min(bound);
        }
    }

    /// AdvanceLatestDeliverySignals.
    pub(super) fn advance_signals(&mut self, ack: &Ack) {
        if self.bounds.loss_round_start {
            self.bounds.bandwidth_latest = ack.rate;
            self.bounds.inflight_latest = ack.rate_delivered;
        }
    }

    /// UpdateACKAggregation (section 5.5.9, deviation 5).
    pub(super) fn update_aggregation(&mut self, ack: &Ack) {
        let limit = self.window.min(bytes_in(self.bandwidth, AGGREGATION_MAX));
        self.aggregation.on_ack(ack.now, ack.newly_delivered, self.bandwidth, limit);
    }

    /// SaveStateUponLoss.
    pub(super) fn save_for_undo(&mut self) {
        self.undo.saved = Some(Box::new(Saved {
            bandwidth: self.bounds.bandwidth,
            inflight: self.bounds.inflight,
            inflight_long: self.inflight_long,
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
        self.bounds.loss_in_round = false;
        self.full_pipe.restart(0);
        self.bounds.bandwidth = self.bounds.bandwidth.max(saved.bandwidth);
        self.bounds.inflight = self.bounds.inflight.max(saved.inflight);
        self.inflight_long = self.inflight_long.max(saved.inflight_long);
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
