//! BBR version 3 (draft-ietf-ccwg-bbr), tuned for data centres: 1 to 100 Gbit/s, 50 us to some milliseconds.
//!
//! The controller keeps a model of the path, the bandwidth `bw` and the propagation delay `min_rtt`, paces at the
//! one and bounds what is in flight by their product (BDP). It cycles through probing for more (REFILL, UP), giving
//! back (DOWN) and holding (CRUISE), and now and then drains the pipe to see `min_rtt` (ProbeRTT). Names and section
//! numbers below are the draft's.
//!
//! # Deviations
//!
//! The draft aims at the Internet. Here a heartbeat waits in whatever queue is left standing, RTTs are comparable to
//! the scheduling noise of the threads at both ends, and a BDP can be less than ten segments.
//!
//! 1. *Standing queue as a signal.* A round whose least RTT exceeds `min_rtt` by an eighth (50 us or two segments at
//!    least) saw a queue that never emptied. In CRUISE and DOWN the flow then paces at 0.9 of the rate of that round
//!    until the queue is gone, and returns to its bandwidth by 3 % a round. ACK noise comparable to the RTT makes the
//!    maximum filter overestimate by some percent; the draft would answer with a queue that grows to the window's
//!    bound, one BDP, and stays. A rise that five rounds of yielding do not lower is taken for noise by half, so that
//!    receivers that always answer late do not starve the flow. Against loss-based flows this yields more than the
//!    draft does. An echoed congestion mark counts as the same signal; the draft has none.
//! 2. *UP ends at 1.25 BDP in flight* once feedback has arrived, as version 2 did, besides the draft's plateau of
//!    three rounds: at 2 ms RTT those three rounds alone would be 1.5 ms of queue. So that a faster path is still
//!    found quickly, a probe that raised the bandwidth by an eighth without a standing queue is followed by another
//!    at once instead of after a cruise.
//! 3. *DOWN also ends when the RTT says that the queue is gone.* With ACKs aggregated at the receiver the pipe, seen
//!    from here, never falls to a BDP, and the flow would stay at 0.9 until the next probe.
//! 4. *Small quantum.* The offload budget is three times 50 us at the bandwidth (64 KiB at most) instead of three
//!    times 1 ms: at 1 Gbit/s the draft's would allow 1.5 ms of queue. It floors the window only, not the targets
//!    that DOWN, Drain and ProbeRTT drain to.
//! 5. *extra_acked is at most 2 ms at the bandwidth*, what a sleeping receiver explains; a surplus would be a queue.
//! 6. *At least 10 to 15 ms between probes.* With ten segments in flight the draft's Reno-coexistence rule gives a
//!    probe every ten rounds, 1 ms, and a bandwidth filter that forgets as fast.
//! 7. *Loss needs a rate.* Outside probes the short-term bounds react only if more than 2 % of the last 128 segments
//!    (three at least) were lost; in probes too, three lost segments are needed. With ten segments in flight every
//!    single random loss exceeds 2 % of a round.
//! 8. *Headroom is taken from the queue's share only*: 0.85 inflight_longterm, but not below the BDP. Paced traffic
//!    of one BDP occupies no buffer, and 95 % of the link is a goal.
//! 9. *ProbeRTT is short*: four `min_rtt`, 10 ms at least, the draft's 200 ms at most, every five seconds (as the
//!    draft up to version 02; later ones say ten). All flows of a data centre have similar RTTs, so 10 ms overlap well
//!    enough; it costs 0.1 % of the goodput.
//! 10. *Losses are judged when acknowledged data shows them* (`RateSample::lost`), not lost segment by lost segment:
//!     the trait does not name the lost ones.
//! 11. *A delivery rate must last to be believed*, once the pipe was filled: the bandwidth is at most twice what was
//!     delivered over the best of the last sixteen milliseconds (longer on longer paths). A round trip
//!     within one machine can be six microseconds, and an idle token bucket passes its burst at the speed of memory:
//!     such a sample says gigabits of a path of megabits, and the window that follows from it is a queue.
//! 12. *A super-segment is no queue.* Sender and receiver each carry one whole before the next can have it, and it is
//!     acknowledged as one: its RTT has twice its own length in it, beside a `min_rtt` that may be a lone segment's.
//!     Deviation 1 leaves that out, UP (deviation 2) lets two of them be in flight beside the 1.25 BDP, and the window
//!     holds three (deviation 4): where each has one acknowledgement, UP so lasts until the rate has stopped growing. A
//!     round then has one acknowledgement, whose RTT says as much about the threads as about the path: rounds are judged
//!     together until there are four, and the five rounds of deviation 1 are five such verdicts. Otherwise two in flight
//!     look like a queue, one at a time is all that is left, and half of what the hosts could do. All of this only
//!     while the rate is such that a super-segment is more than a segment.
//!
//! Deterministic: the only random choice, the time between probes, comes from the seed.

mod filters;
mod model;
mod probe;
mod startup;

use core::time::Duration;

use self::filters::{
    Aggregation, LossMeter, MaxBandwidth, MinRtt, StandingQueue, SustainedRate, Verdict, bytes_in,
    percent_of, segment_tolerance, time_of,
};
use self::model::{Round, Signals, Undo};
use self::probe::Filled;
use self::startup::FullPipe;
use super::random::Random;
use super::usage::WindowUsage;
use super::{AckSample, CongestionControl, CongestionEvent, SUPER_SEGMENT_TIME, rate_of};
use crate::tcp::maybe::{FlightBytes, Lazily};
use crate::time::Instant;

/// StartupPacingGain, 4 ln 2 (section 2.4), and the gains of the other states (section 5.6.1), in percent.
const STARTUP_PACING_PERCENT: u64 = 277;
const DRAIN_PACING_PERCENT: u64 = 50;
const DOWN_PACING_PERCENT: u64 = 90;
const UP_PACING_PERCENT: u64 = 125;
const WINDOW_PERCENT: u64 = 200;
const UP_WINDOW_PERCENT: u64 = 225;
const PROBE_RTT_WINDOW_PERCENT: u64 = 50;
/// PacingMarginPercent: pace this much below the bandwidth, so that a queue shrinks by itself.
const PACING_MARGIN_PERCENT: u64 = 1;
/// MinPipeCwnd (section 5.6.4.2).
const PIPE_SEGMENTS_MIN: u64 = 4;
/// Beta: no reaction to loss takes more than this leaves, in percent.
const BETA_PERCENT: u64 = 70;
/// 1 - Headroom, in percent.
const WITHOUT_HEADROOM_PERCENT: u64 = 85;
/// Deviation 4: the quantum is this much at the bandwidth, and no more than a super-segment can be.
const QUANTUM: Duration = Duration::from_micros(50);
const QUANTUM_BYTES_MAX: u64 = 64 << 10;
const QUANTA_IN_FLIGHT: u64 = 3;
/// Deviation 5.
const AGGREGATION_MAX: Duration = Duration::from_millis(2);
/// Deviation 12: the hosts that carry a super-segment whole, one after the other.
const STORING_HOSTS: u64 = 2;
/// Deviation 12: fewer samples than this have no least one that tells the path from the threads at its ends.
const BULK_SAMPLES_MIN: u8 = 4;
/// RTT assumed for the first pacing rate, before there is a sample (section 5.6.2).
const RTT_ASSUMED: Duration = Duration::from_millis(1);

/// The states (section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Startup,
    Drain,
    Down,
    Cruise,
    Refill,
    Up,
    ProbeRtt,
}

impl State {
    fn probes_bandwidth(self) -> bool {
        matches!(self, State::Down | State::Cruise | State::Refill | State::Up)
    }

    /// Whether the flow knowingly sends more than was last delivered.
    fn accelerates(self) -> bool {
        matches!(self, State::Startup | State::Refill | State::Up)
    }
}

/// An acknowledgement as the model takes it in.
#[derive(Clone, Copy, Debug)]
struct Ack {
    now: Instant,
    newly_delivered: u64,
    delivered: u64,
    /// What was delivered when the sampled segment left; zero without a valid sample.
    prior_delivered: u64,
    pipe: u64,
    /// Delivery rate, bytes per second; zero without a valid sample.
    rate: u64,
    rate_delivered: u64,
    lost: u64,
    pipe_at_send: u64,
    app_limited: bool,
    in_recovery: bool,
    round_start: bool,
    /// Whether the end of a round brought a verdict on the standing queue.
    queue_judged: bool,
}

/// The controller. See the module.
#[derive(Debug)]
pub struct Bbr {
    segment_size: FlightBytes,
    initial_window: FlightBytes,
    random: Random,
    window: FlightBytes,
    window_prior: FlightBytes,
    pacing_rate: u64,
    /// BBR.bw: the maximum, bounded by the short-term model. Bytes per second, zero before the first sample.
    bandwidth: u64,
    bandwidth_max: MaxBandwidth,
    sustained: SustainedRate,
    min_rtt: MinRtt,
    queue: StandingQueue,
    aggregation: Aggregation,
    losses: LossMeter,
    round: Round,
    signals: Signals,
    full_pipe: FullPipe,
    filled: Lazily<Filled>,
    undo: Undo,
    usage: WindowUsage,
    state: State,
    /// Rounds of the present half of the aggregation filter.
    aggregation_rounds: u8,
    /// Super-segments have left, so the port takes them (deviation 12).
    leaves_in_bulk: bool,
    idle_restart: bool,
    app_limited: bool,
    in_recovery: bool,
    delivered: u64,
    /// Samples of segments sent before this much was delivered are not the path's limit (ProbeRTT held them back).
    limited_until: u64,
}

impl Bbr {
    /// A controller in Startup.
    pub fn new(segment_size: u64, initial_window_segments: u32, seed: u64) -> Self {
        let segment_size = segment_size.max(1);
        let initial_window = segment_size.saturating_mul(u64::from(initial_window_segments.max(1))).into();
        let mut bbr = Bbr {
            segment_size: segment_size.into(),
            initial_window,
            random: Random::new(seed),
            window: initial_window,
            window_prior: FlightBytes::ZERO,
            pacing_rate: 0,
            bandwidth: 0,
            bandwidth_max: MaxBandwidth::default(),
            sustained: SustainedRate::default(),
            min_rtt: MinRtt::default(),
            queue: StandingQueue::default(),
            aggregation: Aggregation::default(),
            losses: LossMeter::default(),
            round: Round::default(),
            signals: Signals::default(),
            full_pipe: FullPipe::default(),
            filled: Lazily::unmade(),
            undo: Undo::default(),
            usage: WindowUsage::default(),
            state: State::Startup,
            aggregation_rounds: 0,
            leaves_in_bulk: false,
            idle_restart: false,
            app_limited: false,
            in_recovery: false,
            delivered: 0,
            limited_until: 0,
        };
        bbr.set_initial_pacing_rate(RTT_ASSUMED);
        bbr
    }

    fn segment_size(&self) -> u64 {
        self.segment_size.get()
    }

    fn initial_window(&self) -> u64 {
        self.initial_window.get()
    }

    fn set_initial_pacing_rate(&mut self, rtt: Duration) {
        self.pacing_rate = percent_of(rate_of(self.initial_window(), rtt), STARTUP_PACING_PERCENT);
    }

    /// max_bw (section 5.5.5), as far as it is to be believed (deviation 11).
    fn bandwidth_believed(&self) -> u64 {
        let bound = if self.full_pipe.reached { self.sustained.bound() } else { u64::MAX };
        self.bandwidth_max.get().min(bound)
    }

    fn window_min(&self) -> u64 {
        PIPE_SEGMENTS_MIN * self.segment_size()
    }

    /// `percent` of the bandwidth-delay product; the initial window while there is no model.
    fn bdp(&self, percent: u64) -> u64 {
        match self.min_rtt.get() {
            Some(rtt) if self.bandwidth > 0 => percent_of(bytes_in(self.bandwidth, rtt), percent),
            _ => self.initial_window(),
        }
    }

    /// What is in flight when the pipe is full and the queue empty: what Drain and DOWN drain to (deviation 4).
    fn drained(&self) -> u64 {
        self.bdp(100).max(self.window_min())
    }

    /// max_inflight (section 5.6.4.1).
    fn inflight_max(&self) -> u64 {
        let percent = match self.state {
            State::Up => UP_WINDOW_PERCENT,
            State::ProbeRtt => PROBE_RTT_WINDOW_PERCENT,
            _ => WINDOW_PERCENT,
        };
        let quantum = bytes_in(self.bandwidth, QUANTUM).min(QUANTUM_BYTES_MAX).max(self.unit());
        let wanted = self.bdp(percent).saturating_add(self.aggregation.get());
        let bounded = wanted.max(QUANTA_IN_FLIGHT * quantum).max(self.window_min());
        if self.state == State::Up { bounded.saturating_add(2 * self.segment_size()) } else { bounded }
    }

    /// InflightWithHeadroom (section 5.3.3.6, deviation 8).
    fn inflight_with_headroom(&self) -> u64 {
        let inflight_long = self.filled.inflight_long.get();
        if inflight_long == u64::MAX {
            return u64::MAX;
        }
        let lowered = percent_of(inflight_long, WITHOUT_HEADROOM_PERCENT);
        lowered.max(inflight_long.min(self.bdp(100))).max(self.window_min())
    }

    fn pacing_percent(&self) -> u64 {
        match self.state {
            State::Startup => STARTUP_PACING_PERCENT,
            State::Drain => DRAIN_PACING_PERCENT,
            State::Down => DOWN_PACING_PERCENT,
            State::Cruise if self.queue.is_standing() => DOWN_PACING_PERCENT,
            State::Up => UP_PACING_PERCENT,
            State::Cruise | State::Refill | State::ProbeRtt => 100,
        }
    }

    /// Section 5.6.2.
    fn set_pacing_rate(&mut self, gain_percent: u64) {
        if self.bandwidth == 0 {
            return;
        }
        let gained = percent_of(self.bandwidth, gain_percent);
        let rate = percent_of(gained, 100 - PACING_MARGIN_PERCENT).max(self.segment_size());
        if self.full_pipe.reached || rate > self.pacing_rate {
            self.pacing_rate = rate;
        }
    }

    /// Section 5.6.4.6 and 5.6.4.7.
    fn set_window(&mut self, newly_delivered: u64) {
        let inflight_max = self.inflight_max();
        let mut window = self.window.get();
        let grown = window.saturating_add(newly_delivered);
        if self.full_pipe.reached {
            window = grown.min(inflight_max);
        } else if window < inflight_max || self.delivered < self.initial_window() {
            window = grown;
        }
        window = window.max(self.window_min());
        if self.state == State::ProbeRtt {
            window = window.min(self.filled.probe_rtt.window.get());
        }
        let cap = match self.state {
            State::Down | State::Refill | State::Up => self.filled.inflight_long.get(),
            State::Cruise | State::ProbeRtt => self.inflight_with_headroom(),
            State::Startup | State::Drain => u64::MAX,
        };
        let bound = cap.min(self.filled.bounds.inflight.get()).max(self.window_min());
        self.window = window.min(bound).into();
    }

    fn save_window(&mut self) {
        self.window_prior = if self.in_recovery || self.state == State::ProbeRtt {
            self.window_prior.max(self.window)
        } else {
            self.window
        };
    }

    fn restore_window(&mut self) {
        self.window = self.window.max(self.window_prior);
    }

    /// The digest of `sample`, with ProbeRTT's own restraint counted as the application's (section 5.3.4.3).
    fn digest(&mut self, sample: &AckSample) -> Ack {
        let prior = sample.rate.map(|rate| rate.prior_delivered);
        let round_start = self.round.on_ack(prior, sample.round_start, sample.delivered);
        let restrained = prior.is_some_and(|prior| prior < self.limited_until);
        Ack {
            now: sample.now,
            newly_delivered: sample.newly_delivered,
            delivered: sample.delivered,
            prior_delivered: prior.unwrap_or(0),
            pipe: sample.pipe,
            rate: sample.rate.map_or(0, |rate| rate.bytes_per_second()),
            rate_delivered: sample.rate.map_or(0, |rate| rate.delivered),
            lost: sample.rate.map_or(0, |rate| rate.lost),
            pipe_at_send: sample.rate.map_or(0, |rate| rate.pipe_at_send),
            app_limited: restrained || sample.rate.is_some_and(|rate| rate.app_limited),
            in_recovery: sample.in_recovery,
            round_start,
            queue_judged: false,
        }
    }

    /// The largest super-segment that leaves now, or a segment where none do.
    fn unit(&self) -> u64 {
        let segment = self.segment_size();
        let whole = if self.leaves_in_bulk { bytes_in(self.bandwidth, SUPER_SEGMENT_TIME) } else { 0 };
        if whole >= 2 * segment { whole.min(QUANTUM_BYTES_MAX) } else { segment }
    }

    /// Whether super-segments leave now: the port takes them, and at this rate one is more than a segment.
    fn in_bulk(&self) -> bool {
        self.unit() > self.segment_size()
    }

    /// An RTT without what carrying super-segments whole adds to it (deviation 12), `acked` being what was
    /// acknowledged with it.
    fn queueing_rtt(&self, rtt: Duration, acked: u64) -> Duration {
        let unit = self.unit();
        if unit == self.segment_size() {
            return rtt;
        }
        rtt.saturating_sub(time_of(STORING_HOSTS * unit.min(acked), self.bandwidth))
    }

    /// What a round's end does before anything else looks at the round. Returns whether it brought a verdict on the
    /// standing queue.
    fn on_round(&mut self) -> bool {
        self.usage.on_round();
        let tolerance = segment_tolerance(self.segment_size(), self.bandwidth);
        let yielding = matches!(self.state, State::Cruise | State::Down);
        let samples_min = if self.in_bulk() { BULK_SAMPLES_MIN } else { 0 };
        let verdict = self.queue.on_round(self.min_rtt.get(), tolerance, yielding, samples_min);
        if verdict == Verdict::FalseAlarm {
            self.filled.bounds.queue_bandwidth = u64::MAX;
        }
        self.aggregation.on_round(&mut self.aggregation_rounds, self.full_pipe.reached);
        // Each phase counts from its own begin: there is nothing to count before the first.
        if let Some(filled) = self.filled.made_mut() {
            let cycle = &mut filled.cycle;
            cycle.rounds_since_probe = cycle.rounds_since_probe.saturating_add(1);
            cycle.rounds_in_phase = cycle.rounds_in_phase.saturating_add(1);
        }
        verdict != Verdict::Pending
    }
}

impl CongestionControl for Bbr {
    fn name(&self) -> &'static str {
        "bbr"
    }

    /// Restart from idle (section 5.4.1): pace at exactly the bandwidth, measure aggregation anew.
    fn on_sent(&mut self, now: Instant, bytes: u64, pipe: u64) {
        if pipe == 0 && self.app_limited {
            self.idle_restart = true;
            self.aggregation.restart(now);
            if self.state.probes_bandwidth() {
                self.set_pacing_rate(100);
            } else if self.state == State::ProbeRtt {
                self.finish_probe_rtt(now);
            }
        }
        self.usage.on_sent(pipe.saturating_add(bytes));
    }

    fn on_super_segment(&mut self) {
        self.leaves_in_bulk = true;
    }

    /// Section 5.2.3: model, then state machine, then control parameters.
    fn on_ack(&mut self, sample: &AckSample) {
        let first_rtt = self.min_rtt.get().is_none();
        if let (true, Some(rtt)) = (first_rtt && self.bandwidth == 0, sample.smoothed_rtt) {
            self.set_initial_pacing_rate(rtt);
        }
        self.app_limited = sample.app_limited;
        self.in_recovery = sample.in_recovery;
        self.delivered = sample.delivered;
        if let Some(rtt) = sample.rtt {
            self.queue.on_rtt(self.queueing_rtt(rtt, sample.newly_delivered));
        }
        let mut ack = self.digest(sample);
        if ack.round_start {
            ack.queue_judged = self.on_round();
        }
        self.note_loss(sample.newly_delivered, sample.newly_lost, ack.delivered);
        let app_limited = ack.app_limited || sample.app_limited;
        self.sustained.on_ack(
            ack.now,
            ack.newly_delivered,
            app_limited,
            self.min_rtt.get(),
            self.segment_size(),
        );
        self.update_signals(&ack);
        self.update_aggregation(&ack);
        self.check_full_pipe(&ack);
        self.check_startup(&ack);
        self.check_drain(&ack);
        self.advance_cycle(&ack);
        // Before the min_rtt that is stale then is replaced.
        let probe_rtt_window = self.probe_rtt_window();
        let probe_rtt_due = self.min_rtt.update(ack.now, sample.rtt);
        self.check_probe_rtt(&ack, probe_rtt_due, probe_rtt_window);
        self.advance_signals(&ack);
        self.bandwidth = self.bandwidth_believed().min(self.filled.bounds.bandwidth());
        self.set_pacing_rate(self.pacing_percent());
        self.set_window(ack.newly_delivered);
    }

    fn on_event(&mut self, _now: Instant, event: CongestionEvent, pipe: u64) {
        match event {
            CongestionEvent::Loss => {
                self.save_window();
                self.save_for_undo();
            }
            CongestionEvent::Timeout => {
                self.save_window();
                self.save_for_undo();
                // Section 5.6.4.4: room for one segment; acknowledgements restore the rest.
                self.in_recovery = true;
                self.window = pipe.saturating_add(self.segment_size()).into();
            }
            CongestionEvent::RecoveryEnd => {
                self.in_recovery = false;
                self.restore_window();
                self.set_window(0);
            }
            CongestionEvent::Undo => self.undo_loss(),
            CongestionEvent::EcnEcho => self.queue.on_mark(),
            // Pacing at the bandwidth replaces the restart window of RFC 5681 (section 5.4.2); `on_sent` sees to it.
            CongestionEvent::IdleRestart => self.app_limited = true,
        }
    }

    fn window(&self) -> u64 {
        self.window.get()
    }

    fn slow_start_threshold(&self) -> u64 {
        u64::MAX
    }

    fn pacing_rate(&self) -> Option<u64> {
        Some(self.pacing_rate)
    }

    fn wants_rate_reduction(&self) -> bool {
        false
    }

    fn set_segment_size(&mut self, bytes: u64) {
        let bytes = bytes.max(1);
        self.initial_window = (self.initial_window() / self.segment_size()).saturating_mul(bytes).into();
        self.segment_size = bytes.into();
        self.window = self.window.max(self.window_min().into());
    }

    fn phase(&self) -> &'static str {
        match self.state {
            State::Startup => "startup",
            State::Drain => "drain",
            State::Down => "probe-bw-down",
            State::Cruise => "probe-bw-cruise",
            State::Refill => "probe-bw-refill",
            State::Up => "probe-bw-up",
            State::ProbeRtt => "probe-rtt",
        }
    }

    fn bandwidth(&self) -> Option<u64> {
        (self.bandwidth > 0).then_some(self.bandwidth)
    }
}
