//! What the model remembers of its samples: maxima, minima, and for how long.

use core::time::Duration;

use crate::tcp::congestion::{nanos, rate_of, scaled};
use crate::tcp::maybe::{FlightBytes, Maybe, ShortSpan, Span};
use crate::time::Instant;

/// Maximum delivery rate of the current and the previous ProbeBW cycle (draft section 5.5.5; MaxBwFilterLen = 2).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MaxBandwidth {
    current: u64,
    previous: u64,
}

impl MaxBandwidth {
    pub(super) fn update(&mut self, bytes_per_second: u64) {
        self.current = self.current.max(bytes_per_second);
    }

    /// A cycle has ended. One that gave no sample is not counted, so that silence forgets nothing.
    pub(super) fn advance(&mut self) {
        if self.current > 0 {
            self.previous = self.current;
            self.current = 0;
        }
    }

    pub(super) fn get(&self) -> u64 {
        self.current.max(self.previous)
    }
}

/// A sustained rate is taken over this long at least, and over a min_rtt and so many segments.
const SUSTAINED_TIME: Duration = Duration::from_millis(1);
const SUSTAINED_SEGMENTS: u64 = 16;
/// How many of them are kept.
const SUSTAINED_COUNT: usize = 16;
/// What a path can be believed to deliver, in percent of what it sustained.
const SUSTAINED_PERCENT: u64 = 200;

/// What was delivered over times much longer than a round trip (deviation 11): the highest of the last few.
#[derive(Clone, Debug, Default)]
pub(super) struct SustainedRate {
    began: Maybe<Instant>,
    /// Since then: no more than sixteen segments and what one min_rtt delivers.
    delivered: FlightBytes,
    /// Apart, since a flow that never fills a path has none.
    rates: Option<Box<[u64; SUSTAINED_COUNT]>>,
    next: u8,
    app_limited: bool,
}

impl SustainedRate {
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        delivered: u64,
        app_limited: bool,
        min_rtt: Option<Duration>,
        segment_size: u64,
    ) {
        let Some(began) = self.began.get() else {
            self.began = Maybe::some(now);
            return;
        };
        let delivered = self.delivered.get().saturating_add(delivered);
        self.delivered = delivered.into();
        self.app_limited |= app_limited;
        let elapsed = now.since(began);
        let least = min_rtt.unwrap_or_default().max(SUSTAINED_TIME);
        if elapsed < least || delivered < SUSTAINED_SEGMENTS * segment_size {
            return;
        }
        if !self.app_limited {
            let rates = self.rates.get_or_insert_default();
            rates[usize::from(self.next)] = rate_of(delivered, elapsed);
            self.next = (self.next + 1) % SUSTAINED_COUNT as u8;
        }
        self.began = Maybe::some(now);
        self.delivered = FlightBytes::default();
        self.app_limited = false;
    }

    /// What a sample of the delivery rate may be believed up to, bytes per second.
    pub(super) fn bound(&self) -> u64 {
        match self.rates.as_ref().and_then(|rates| rates.iter().copied().max()) {
            None | Some(0) => u64::MAX,
            Some(most) => percent_of(most, SUSTAINED_PERCENT),
        }
    }
}

/// Length of the min_rtt filter (draft section 5.5.7).
const MIN_RTT_WINDOW: Duration = Duration::from_secs(10);
/// Time without a lower sample after which ProbeRTT is due.
const PROBE_RTT_INTERVAL: Duration = Duration::from_secs(5);

/// The two minima of the round-trip time: over ten seconds for the model, over five to know when to look again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MinRtt {
    model: Maybe<Span>,
    /// When it was seen.
    model_at: Instant,
    recent: Maybe<Span>,
    recent_at: Instant,
}

impl MinRtt {
    /// Returns whether ProbeRTT is due: no lower sample has come for the interval.
    pub(super) fn update(&mut self, now: Instant, sample: Option<Duration>) -> bool {
        let probe_due = !self.recent.is_none() && now.since(self.recent_at) > PROBE_RTT_INTERVAL;
        if let Some(rtt) = sample
            && (probe_due || self.recent.get().is_none_or(|least| rtt < least.get()))
        {
            self.recent = Maybe::some(rtt.into());
            self.recent_at = now;
        }
        let expired = self.model.is_none() || now.since(self.model_at) > MIN_RTT_WINDOW;
        if let Some(recent) = self.recent.get()
            && (expired || self.model.get().is_none_or(|least| recent.get() < least.get()))
        {
            self.model = self.recent;
            self.model_at = self.recent_at;
        }
        probe_due
    }

    /// The estimate of the two-way propagation delay.
    pub(super) fn get(&self) -> Option<Duration> {
        self.model.get().map(Span::get)
    }

    /// ProbeRTT has ended: the recent minimum is as fresh as it gets.
    pub(super) fn probed(&mut self, now: Instant) {
        self.recent_at = now;
    }
}

/// What the end of a round says about a standing queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Pending,
    /// Whether there is one: [`StandingQueue::is_standing`].
    Given,
    /// There is none: what rose is not a queue of this flow.
    FalseAlarm,
}

/// Rise of a round's least RTT over min_rtt that is put down to noise: this part of min_rtt, this much at least, and
/// the serialisation of this many segments, since a segment that waits for one other is no queue.
const TOLERANCE_DIVISOR: u32 = 8;
const TOLERANCE_MIN: Duration = Duration::from_micros(50);
const TOLERANCE_SEGMENTS: u64 = 2;
/// Rounds of slowing down after which the RTT must have fallen if the queue is ours. At 0.9 of the rate a queue
/// shrinks by a tenth of the RTT in each: to 0.59 of itself or less.
const VERIFY_ROUNDS: u8 = 5;

/// Sees a standing queue: one that did not empty in a whole round trip, and in as many as it takes for a few samples.
///
/// A rise of the RTT that slowing down does not lower is not this flow's queue (threads that answer late, other
/// flows): it becomes the new floor until [`Self::forget`], and the flow stops yielding to it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StandingQueue {
    least: Maybe<Span>,
    /// That `least` is the least of.
    samples: u8,
    floor: Maybe<Span>,
    /// A queue of more than four seconds counts as one of four.
    excess_first: ShortSpan,
    rounds: u8,
    marked: bool,
    standing: bool,
}

impl StandingQueue {
    pub(super) fn on_rtt(&mut self, rtt: Duration) {
        let least = self.least.get().map_or(rtt, |least| least.get().min(rtt));
        self.least = Maybe::some(least.into());
        self.samples = self.samples.saturating_add(1);
    }

    /// An echoed congestion mark: a queue by the network's own word.
    pub(super) fn on_mark(&mut self) {
        self.marked = true;
    }

    /// A round has ended, `segment_time` being what segments of the flow itself cost; `yielding` if the flow answers a
    /// queue by slowing down. With fewer than `samples_min` the verdict is left as it was, and the next round adds to
    /// them.
    pub(super) fn on_round(
        &mut self,
        min_rtt: Option<Duration>,
        segment_time: Duration,
        yielding: bool,
        samples_min: u8,
    ) -> Verdict {
        if self.samples < samples_min && !self.marked {
            return Verdict::Pending;
        }
        let mut false_alarm = false;
        if let (Some(least), Some(min_rtt)) = (self.least.get().map(Span::get), min_rtt) {
            let tolerance = (min_rtt / TOLERANCE_DIVISOR).max(TOLERANCE_MIN).max(segment_time);
            let floor = self.floor.get().map_or(min_rtt, |floor| floor.get().min(least).max(min_rtt));
            self.floor = Maybe::some(floor.into());
            let excess = least.saturating_sub(floor);
            self.standing = excess > tolerance;
            false_alarm = self.standing && yielding && self.is_false_alarm(excess);
            if false_alarm {
                self.floor = Maybe::some((floor + excess / 2).into());
            }
            if !self.standing || !yielding || false_alarm {
                self.rounds = 0;
                self.standing &= !false_alarm;
            }
        }
        self.standing |= self.marked;
        self.least = Maybe::NONE;
        self.samples = 0;
        self.marked = false;
        if false_alarm { Verdict::FalseAlarm } else { Verdict::Given }
    }

    fn is_false_alarm(&mut self, excess: Duration) -> bool {
        if self.rounds == 0 {
            self.excess_first = excess.into();
        }
        self.rounds += 1;
        if self.rounds <= VERIFY_ROUNDS {
            return false;
        }
        self.rounds = 0;
        excess > self.excess_first.get() / 4 * 3
    }

    /// The floor is min_rtt again: what raised it may be gone.
    pub(super) fn forget(&mut self) {
        self.floor = Maybe::NONE;
        self.rounds = 0;
    }

    /// The last verdict.
    pub(super) fn is_standing(&self) -> bool {
        self.standing
    }
}

/// Time that a segment that waits for its turn may cost without being a queue.
pub(super) fn segment_tolerance(segment_size: u64, bytes_per_second: u64) -> Duration {
    time_of(TOLERANCE_SEGMENTS * segment_size, bytes_per_second)
}

/// Rounds that one half of the aggregation filter covers once the pipe was filled; one in Startup.
const AGGREGATION_HALF_ROUNDS: u8 = 5;

/// How much more is acknowledged at times than the bandwidth explains (draft section 5.5.9, extra_acked).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Aggregation {
    start: Instant,
    delivered: u64,
    current: FlightBytes,
    previous: FlightBytes,
}

impl Aggregation {
    /// `limit` bounds a sample, bytes.
    pub(super) fn on_ack(&mut self, now: Instant, delivered: u64, bandwidth: u64, limit: u64) {
        let mut expected = bytes_in(bandwidth, now.since(self.start));
        if self.delivered <= expected {
            self.restart(now);
            expected = 0;
        }
        self.delivered = self.delivered.saturating_add(delivered);
        self.current = self.current.max(self.delivered.saturating_sub(expected).min(limit).into());
    }

    /// A round has ended; `rounds` counts those of the present half.
    pub(super) fn on_round(&mut self, rounds: &mut u8, filled: bool) {
        let length = if filled { AGGREGATION_HALF_ROUNDS } else { 1 };
        *rounds = rounds.saturating_add(1);
        if *rounds >= length {
            *rounds = 0;
            self.previous = self.current;
            self.current = FlightBytes::default();
        }
    }

    /// Sending starts anew: what comes back is to be measured from here.
    pub(super) fn restart(&mut self, now: Instant) {
        self.start = now;
        self.delivered = 0;
    }

    pub(super) fn get(&self) -> u64 {
        self.current.max(self.previous).get()
    }
}

/// Segments over which a loss rate is taken.
const LOSS_SPAN_SEGMENTS: u64 = 128;
/// Losses below this many segments are not a rate.
const LOSS_SEGMENTS_MIN: u64 = 3;

/// Loss rate over enough segments to be one: at ten segments a round, a single random loss would be 10 %.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LossMeter {
    /// No verdict needs more than a few windows' worth of either.
    lost: u32,
    delivered: u32,
}

impl LossMeter {
    pub(super) fn on_ack(&mut self, delivered: u64, lost: u64) {
        let add = |to: u32, bytes: u64| to.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.delivered = add(self.delivered, delivered);
        self.lost = add(self.lost, lost);
    }

    /// Whether the losses since the last verdict exceed the threshold. Called once per round.
    pub(super) fn is_excessive(&mut self, segment_size: u64) -> bool {
        let lost = u64::from(self.lost);
        let total = u64::from(self.delivered) + lost;
        let excessive = lost >= LOSS_SEGMENTS_MIN * segment_size && exceeds_loss_threshold(lost, total);
        if excessive || total >= LOSS_SPAN_SEGMENTS * segment_size {
            *self = LossMeter::default();
        }
        excessive
    }
}

/// LossThresh, 2 % (draft section 2.7).
pub(super) fn exceeds_loss_threshold(lost: u64, total: u64) -> bool {
    u128::from(lost) * 100 > u128::from(total) * 2
}

/// Bytes that a rate carries in a time.
pub(super) fn bytes_in(bytes_per_second: u64, time: Duration) -> u64 {
    scaled(bytes_per_second, nanos(time), 1_000_000_000)
}

/// Time in which a rate carries so many bytes.
pub(super) fn time_of(bytes: u64, bytes_per_second: u64) -> Duration {
    Duration::from_nanos(scaled(bytes, 1_000_000_000, bytes_per_second.max(1)))
}

/// `percent` of `value`, saturating.
pub(super) fn percent_of(value: u64, percent: u64) -> u64 {
    scaled(value, percent, 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN_RTT: Duration = Duration::from_micros(40);
    const QUEUED: Duration = Duration::from_micros(200);

    /// The verdicts of rounds that had `samples` each.
    fn verdicts(queue: &mut StandingQueue, rounds: &[&[Duration]]) -> Vec<Verdict> {
        let mut judge = |samples: &&[Duration]| {
            samples.iter().for_each(|rtt| queue.on_rtt(*rtt));
            queue.on_round(Some(MIN_RTT), Duration::ZERO, true, 4)
        };
        rounds.iter().map(&mut judge).collect()
    }

    #[test]
    fn one_late_acknowledgement_is_no_standing_queue() {
        let mut queue = StandingQueue::default();
        let rounds: [&[Duration]; 4] = [&[QUEUED], &[QUEUED], &[MIN_RTT], &[QUEUED]];
        let expected = [Verdict::Pending, Verdict::Pending, Verdict::Pending, Verdict::Given];
        assert_eq!(verdicts(&mut queue, &rounds), expected);
        assert!(!queue.is_standing(), "one of the four saw it empty");
    }

    #[test]
    fn a_queue_that_never_empties_stands_however_few_acknowledgements_a_round_has() {
        let mut queue = StandingQueue::default();
        assert_eq!(verdicts(&mut queue, &[&[QUEUED; 4]]), [Verdict::Given]);
        assert!(queue.is_standing());
        let mut queue = StandingQueue::default();
        verdicts(&mut queue, &[&[QUEUED][..]; 3]);
        assert!(!queue.is_standing());
        assert_eq!(verdicts(&mut queue, &[&[QUEUED]]), [Verdict::Given]);
        assert!(queue.is_standing());
    }

    #[test]
    fn a_mark_needs_no_samples() {
        let mut queue = StandingQueue::default();
        queue.on_mark();
        assert_eq!(verdicts(&mut queue, &[&[]]), [Verdict::Given]);
        assert!(queue.is_standing());
    }
}
