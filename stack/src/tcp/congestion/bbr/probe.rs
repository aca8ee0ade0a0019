//! ProbeBW and ProbeRTT: the life of a flow whose pipe is full (draft sections 5.3.3 and 5.3.4).

use core::time::Duration;

use super::filters::exceeds_loss_threshold;
use super::model::LowerBounds;
use super::{Ack, BETA_PERCENT, Bbr, PROBE_RTT_WINDOW_PERCENT, State};
use crate::tcp::maybe::{FlightBytes, Maybe, ShortSpan, Unmade};
use crate::time::Instant;

/// Wall-clock bound of the time between probes, and what is added to it at random (section 5.3.3.5).
const PROBE_WAIT: Duration = Duration::from_secs(2);
const PROBE_WAIT_RANDOM: Duration = Duration::from_secs(1);
/// Bound in rounds (T_reno_bound).
const PROBE_WAIT_ROUNDS_MAX: u64 = 63;
/// Deviation 6: the least time between probes, and what is added to it at random.
const PROBE_WAIT_MIN: Duration = Duration::from_millis(10);
const PROBE_WAIT_MIN_RANDOM: Duration = Duration::from_millis(5);
/// Deviations 2 and 12: UP ends at this much of the BDP and two units in flight, and is repeated if the bandwidth grew
/// this much.
const UP_INFLIGHT_PERCENT: u64 = 125;
const GROWTH_PERCENT: u128 = 112;
/// Doublings of the slope at which inflight_longterm grows, at most.
const UP_ROUNDS_MAX: u8 = 30;
/// Deviation 7: fewer lost segments than this are not a sign of too much in flight.
const LOST_SEGMENTS_MIN: u64 = 3;
/// Deviation 3: rounds in DOWN after which the RTT reflects what DOWN did.
const DOWN_ROUNDS_MIN: u32 = 2;
/// Deviation 9: how long ProbeRTT holds.
const PROBE_RTT_MIN: Duration = Duration::from_millis(10);
const PROBE_RTT_MAX: Duration = Duration::from_millis(200);
const PROBE_RTT_TRIPS: u32 = 4;

/// Where the acknowledgements of a probe's data stand (section 5.3.3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AckPhase {
    /// Not probing.
    Initial,
    Refilling,
    ProbeStarting,
    ProbeFeedback,
    ProbeStopping,
}

/// The cycle of ProbeBW.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cycle {
    start: Instant,
    wait: ShortSpan,
    wait_min: ShortSpan,
    pub(super) rounds_since_probe: u32,
    pub(super) rounds_in_phase: u32,
    ack_phase: AckPhase,
    /// Whether acknowledgements still tell about data sent while probing.
    probe_sample: bool,
    up_rounds: u8,
    up_acked: FlightBytes,
    up_acked_per_segment: FlightBytes,
    prev_too_high: bool,
    prev_precautionary: bool,
    /// Bandwidth when the probe began.
    bandwidth_before: u64,
    /// Whether the probe ended with a full pipe rather than with loss.
    full: bool,
}

/// One ProbeRTT.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProbeRtt {
    /// Window to hold; fixed before the stale min_rtt is replaced.
    pub(super) window: FlightBytes,
    round_done: bool,
    done: Maybe<Instant>,
}

/// What a flow has no use for before it first filled its pipe, or looked for its min_rtt: many never do either.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filled {
    pub(super) cycle: Cycle,
    pub(super) bounds: LowerBounds,
    /// inflight_longterm: what was found safe to have in flight; unbounded until loss has shown a limit.
    pub(super) inflight_long: FlightBytes,
    pub(super) probe_rtt: ProbeRtt,
}

impl Unmade for Filled {
    const UNMADE: &'static Self = &Filled {
        cycle: Cycle {
            start: Instant::ZERO,
            wait: ShortSpan::ZERO,
            wait_min: ShortSpan::ZERO,
            rounds_since_probe: 0,
            rounds_in_phase: 0,
            ack_phase: AckPhase::Initial,
            probe_sample: false,
            up_rounds: 0,
            up_acked: FlightBytes::ZERO,
            up_acked_per_segment: FlightBytes::ZERO,
            prev_too_high: false,
            prev_precautionary: false,
            bandwidth_before: 0,
            full: false,
        },
        bounds: LowerBounds::NONE,
        inflight_long: FlightBytes::UNBOUNDED,
        probe_rtt: ProbeRtt { window: FlightBytes::ZERO, round_done: false, done: Maybe::NONE },
    };
}

impl Bbr {
    /// StartProbeBW_DOWN.
    pub(super) fn start_down(&mut self, now: Instant, delivered: u64) {
        self.signals.reset();
        self.filled.cycle.up_acked_per_segment = FlightBytes::UNBOUNDED;
        self.filled.cycle.rounds_since_probe = self.random.below(2) as u32;
        self.filled.cycle.wait = (PROBE_WAIT + self.random_part(PROBE_WAIT_RANDOM)).into();
        self.filled.cycle.wait_min = (PROBE_WAIT_MIN + self.random_part(PROBE_WAIT_MIN_RANDOM)).into();
        self.filled.cycle.start = now;
        self.queue.forget();
        self.filled.cycle.ack_phase = AckPhase::ProbeStopping;
        self.enter(State::Down, delivered);
    }

    fn random_part(&mut self, whole: Duration) -> Duration {
        Duration::from_nanos(self.random.below(u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// StartProbeBW_REFILL.
    pub(super) fn start_refill(&mut self) {
        self.filled.bounds.lift();
        self.filled.cycle.up_rounds = 0;
        self.filled.cycle.up_acked = FlightBytes::ZERO;
        self.filled.cycle.prev_precautionary = false;
        self.filled.cycle.full = false;
        self.filled.cycle.bandwidth_before = self.bandwidth_max.get();
        self.filled.cycle.ack_phase = AckPhase::Refilling;
        self.enter(State::Refill, self.delivered);
    }

    /// StartProbeBW_UP.
    fn start_up(&mut self, delivered: u64) {
        self.filled.cycle.probe_sample = true;
        self.filled.cycle.ack_phase = AckPhase::ProbeStarting;
        self.full_pipe.restart(self.round.rate());
        self.enter(State::Up, delivered);
        self.raise_slope();
    }

    fn enter(&mut self, state: State, delivered: u64) {
        self.round.start(delivered);
        self.filled.cycle.rounds_in_phase = 0;
        self.state = state;
    }

    /// UpdateProbeBWCyclePhase.
    pub(super) fn advance_cycle(&mut self, ack: &Ack) {
        if !self.full_pipe.reached || self.adapt_long_term(ack) {
            return;
        }
        match self.state {
            State::Down if self.is_time_to_probe(ack.now) => self.start_refill(),
            State::Down if self.is_time_to_cruise(ack) => self.state = State::Cruise,
            State::Cruise if self.is_time_to_probe(ack.now) => self.start_refill(),
            State::Refill if ack.round_start => self.start_up(ack.delivered),
            State::Up => self.check_up_done(ack),
            _ => {}
        }
    }

    fn check_up_done(&mut self, ack: &Ack) {
        if self.is_time_to_go_down(ack) {
            self.filled.cycle.prev_too_high = false;
            self.start_down(ack.now, ack.delivered);
        }
    }

    /// AdaptLongTermModel. Returns whether it decided on a state.
    fn adapt_long_term(&mut self, ack: &Ack) -> bool {
        if ack.round_start && self.filled.cycle.ack_phase == AckPhase::ProbeStarting {
            self.filled.cycle.ack_phase = AckPhase::ProbeFeedback;
        }
        if ack.round_start && self.filled.cycle.ack_phase == AckPhase::ProbeStopping {
            self.filled.cycle.probe_sample = false;
            self.filled.cycle.ack_phase = AckPhase::Initial;
            if self.end_probe(ack) {
                return true;
            }
        }
        if self.is_inflight_too_high(ack) {
            if self.filled.cycle.probe_sample {
                self.on_inflight_too_high(ack);
                return true;
            }
            return false;
        }
        if self.filled.inflight_long != FlightBytes::UNBOUNDED {
            self.filled.inflight_long = self.filled.inflight_long.max(ack.pipe_at_send.into());
            if self.state == State::Up {
                self.raise_inflight_long(ack);
            }
        }
        false
    }

    /// All that a probe's data could tell has been told. Returns whether the next probe begins at once.
    fn end_probe(&mut self, ack: &Ack) -> bool {
        if !self.state.probes_bandwidth() {
            return false;
        }
        let threshold = u128::from(self.filled.cycle.bandwidth_before) * GROWTH_PERCENT;
        let found = u128::from(self.bandwidth_max.get()) * 100 >= threshold;
        if !ack.app_limited {
            self.bandwidth_max.advance();
        }
        let precautionary = self.filled.cycle.prev_precautionary && !self.filled.cycle.prev_too_high;
        let growing = self.filled.cycle.full && found && !self.queue.is_standing();
        if precautionary || growing {
            self.start_refill();
        }
        precautionary || growing
    }

    /// IsInflightTooHigh (deviations 7 and 10).
    fn is_inflight_too_high(&self, ack: &Ack) -> bool {
        ack.lost >= LOST_SEGMENTS_MIN * self.segment_size()
            && exceeds_loss_threshold(ack.lost, ack.pipe_at_send)
    }

    /// HandleInflightTooHigh.
    fn on_inflight_too_high(&mut self, ack: &Ack) {
        self.filled.cycle.prev_too_high = true;
        self.filled.cycle.probe_sample = false;
        if !ack.app_limited {
            let target = self.bdp(100).min(self.window.get()) / 100 * BETA_PERCENT;
            self.filled.inflight_long = ack.pipe_at_send.max(target).max(self.window_min()).into();
        }
        if self.state == State::Up {
            self.undo.left(State::Up);
            self.start_down(ack.now, ack.delivered);
        }
    }

    /// IsTimeToProbeBW (deviation 6).
    fn is_time_to_probe(&self, now: Instant) -> bool {
        let elapsed = now.since(self.filled.cycle.start);
        let target = self.bdp(100).min(self.window.get()) / self.segment_size();
        elapsed > self.filled.cycle.wait.get()
            || (elapsed > self.filled.cycle.wait_min.get()
                && u64::from(self.filled.cycle.rounds_since_probe) >= target.min(PROBE_WAIT_ROUNDS_MAX))
    }

    /// IsTimeToCruise (deviation 3).
    fn is_time_to_cruise(&self, ack: &Ack) -> bool {
        let drained = ack.pipe <= self.inflight_with_headroom() && ack.pipe <= self.drained();
        let seen = self.filled.cycle.rounds_in_phase >= DOWN_ROUNDS_MIN && !self.queue.is_standing();
        drained || seen
    }

    /// IsTimeToGoDown (deviation 2).
    fn is_time_to_go_down(&mut self, ack: &Ack) -> bool {
        if self.filled.cycle.prev_too_high && ack.pipe >= self.filled.inflight_long.get() {
            self.filled.cycle.prev_precautionary = true;
            return true;
        }
        let limited = self.usage.is_limited_by(self.window.get(), self.segment_size());
        if limited && self.window >= self.filled.inflight_long {
            self.full_pipe.restart(self.round.rate());
            return false;
        }
        let raised = self.filled.cycle.rounds_in_phase >= 1
            && ack.pipe > self.bdp(UP_INFLIGHT_PERCENT).saturating_add(2 * self.unit());
        self.filled.cycle.full = self.full_pipe.now || raised;
        self.filled.cycle.full
    }

    /// RaiseInflightLongtermSlope.
    fn raise_slope(&mut self) {
        let growth = 1u64 << self.filled.cycle.up_rounds;
        self.filled.cycle.up_rounds = (self.filled.cycle.up_rounds + 1).min(UP_ROUNDS_MAX);
        self.filled.cycle.up_acked_per_segment = (self.window.get() / growth).max(self.segment_size()).into();
    }

    /// ProbeInflightLongtermUpward.
    fn raise_inflight_long(&mut self, ack: &Ack) {
        let limited = self.usage.is_limited_by(self.window.get(), self.segment_size());
        if !limited || self.window < self.filled.inflight_long {
            return;
        }
        let segment_size = self.segment_size();
        let filled = &mut *self.filled;
        let acked = filled.cycle.up_acked.get().saturating_add(ack.newly_delivered);
        let per_segment = filled.cycle.up_acked_per_segment.get();
        filled.cycle.up_acked = (acked % per_segment).into();
        let growth = (acked / per_segment).saturating_mul(segment_size);
        filled.inflight_long = filled.inflight_long.get().saturating_add(growth).into();
        if ack.round_start {
            self.raise_slope();
        }
    }

    /// The window that a ProbeRTT holds.
    pub(super) fn probe_rtt_window(&self) -> u64 {
        self.bdp(PROBE_RTT_WINDOW_PERCENT).max(self.window_min())
    }

    /// CheckProbeRTT: begins one with this window if it is `due`.
    pub(super) fn check_probe_rtt(&mut self, ack: &Ack, due: bool, window: u64) {
        if self.state != State::ProbeRtt && due && !self.idle_restart {
            self.save_window();
            self.filled.probe_rtt.window = window.into();
            self.filled.probe_rtt.done = Maybe::NONE;
            self.filled.cycle.ack_phase = AckPhase::ProbeStopping;
            self.enter(State::ProbeRtt, ack.delivered);
        }
        if self.state == State::ProbeRtt {
            self.hold_probe_rtt(ack);
        }
        if ack.newly_delivered > 0 {
            self.idle_restart = false;
        }
    }

    /// HandleProbeRTT.
    fn hold_probe_rtt(&mut self, ack: &Ack) {
        self.limited_until = ack.delivered.saturating_add(ack.pipe);
        if self.filled.probe_rtt.done.is_none() {
            if ack.pipe <= self.filled.probe_rtt.window.get() {
                let trips = self.min_rtt.get().unwrap_or_default().saturating_mul(PROBE_RTT_TRIPS);
                self.filled.probe_rtt.done = Maybe::some(ack.now + trips.clamp(PROBE_RTT_MIN, PROBE_RTT_MAX));
                self.filled.probe_rtt.round_done = false;
                self.round.start(ack.delivered);
            }
            return;
        }
        self.filled.probe_rtt.round_done |= ack.round_start;
        if self.filled.probe_rtt.round_done {
            self.finish_probe_rtt(ack.now);
        }
    }

    /// CheckProbeRTTDone and ExitProbeRTT.
    pub(super) fn finish_probe_rtt(&mut self, now: Instant) {
        if self.filled.probe_rtt.done.get().is_none_or(|done| now <= done) {
            return;
        }
        self.min_rtt.probed(now);
        self.restore_window();
        self.filled.bounds.lift();
        if self.full_pipe.reached {
            self.start_down(now, self.delivered);
            self.state = State::Cruise;
        } else {
            self.enter(State::Startup, self.delivered);
        }
    }
}
