//! Startup and Drain: find the bandwidth, then give back the queue that finding it took (draft sections 5.3.1, 5.3.2).

use super::filters::exceeds_loss_threshold;
use super::{Ack, Bbr, State};
use crate::tcp::maybe::{FlightBytes, Maybe};

/// Growth of the rate that keeps the search going, in percent of the last baseline.
const FULL_PIPE_GROWTH_PERCENT: u64 = 125;
/// Rounds without it that end the search.
const FULL_PIPE_ROUNDS: u8 = 3;
/// StartupFullLossCnt: lost segments in a round that end Startup.
const STARTUP_LOSS_SEGMENTS: u64 = 6;
/// Rounds after which Drain gives up waiting for the pipe to shrink.
const DRAIN_ROUNDS_MAX: u8 = 3;

/// The search for the plateau (section 5.3.1.2), in Startup and in every UP.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FullPipe {
    /// full_bw_reached: the pipe was full once in the connection's life.
    pub(super) reached: bool,
    /// full_bw_now: this search found the plateau.
    pub(super) now: bool,
    baseline: u64,
    rounds: u8,
    /// In which Drain began: the lowest byte, for it does not last as long as would take to go round it.
    drain_round: u8,
    lost_in_round: FlightBytes,
    delivered_in_round: FlightBytes,
    /// Round in which recovery was first seen in Startup.
    recovery_round: Maybe<u32>,
}

impl FullPipe {
    /// ResetFullBW.
    pub(super) fn restart(&mut self, baseline: u64) {
        self.baseline = baseline;
        self.rounds = 0;
        self.now = false;
    }

    pub(super) fn on_ack(&mut self, delivered: u64, lost: u64) {
        self.delivered_in_round = self.delivered_in_round.get().saturating_add(delivered).into();
        self.lost_in_round = self.lost_in_round.get().saturating_add(lost).into();
    }
}

impl Bbr {
    /// CheckFullBWReached. Judges the best sample of the round: the last one may be an aggregated ACK's.
    pub(super) fn check_full_pipe(&mut self, ack: &Ack) {
        if self.full_pipe.now || !ack.round_start || ack.app_limited {
            return;
        }
        let rate = self.round.rate();
        if rate == 0 {
            return;
        }
        if u128::from(rate) * 100
            >= u128::from(self.full_pipe.baseline) * u128::from(FULL_PIPE_GROWTH_PERCENT)
        {
            self.full_pipe.restart(rate);
            return;
        }
        self.full_pipe.rounds += 1;
        self.full_pipe.now = self.full_pipe.rounds >= FULL_PIPE_ROUNDS;
        self.full_pipe.reached |= self.full_pipe.now;
    }

    /// CheckStartupDone.
    pub(super) fn check_startup(&mut self, ack: &Ack) {
        if self.state == State::Startup {
            self.check_startup_loss(ack);
            if self.full_pipe.reached {
                self.state = State::Drain;
                self.full_pipe.drain_round = self.round.count() as u8;
            }
        }
        if ack.round_start {
            self.full_pipe.lost_in_round = FlightBytes::default();
            self.full_pipe.delivered_in_round = FlightBytes::default();
        }
    }

    /// CheckStartupHighLoss (section 5.3.1.3): a full round of recovery, over 2 % of it lost, six segments at least.
    fn check_startup_loss(&mut self, ack: &Ack) {
        if !ack.in_recovery {
            self.full_pipe.recovery_round = Maybe::NONE;
            return;
        }
        let since = self.full_pipe.recovery_round.get_or_insert(self.round.count());
        let lost = self.full_pipe.lost_in_round.get();
        let total = lost.saturating_add(self.full_pipe.delivered_in_round.get());
        if ack.round_start
            && self.round.count() != since
            && lost >= STARTUP_LOSS_SEGMENTS * self.segment_size()
            && exceeds_loss_threshold(lost, total)
        {
            self.undo.left(State::Startup);
            self.full_pipe.reached = true;
            self.filled.inflight_long = self.bdp(100).max(self.signals.inflight_latest()).into();
        }
    }

    /// CheckDrainDone.
    pub(super) fn check_drain(&mut self, ack: &Ack) {
        let rounds = (self.round.count() as u8).wrapping_sub(self.full_pipe.drain_round);
        let late = rounds > DRAIN_ROUNDS_MAX;
        if self.state == State::Drain && (ack.pipe <= self.drained() || late) {
            self.start_down(ack.now, ack.delivered);
        }
    }
}
