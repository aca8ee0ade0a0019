//! How a connection does: what its own reports and the arrivals of out-of-band messages say, and nothing else.

use core::time::Duration;

use outrider_stack::tcp::source::Blocked;
use outrider_stack::time::Instant;

use crate::report::{Occupancy, PingReport};

/// When a symptom becomes a verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HealthConfig {
    /// Suspicion from which a silent peer is called silent: that a peer which is alive says nothing for so long has a
    /// probability of 10 to the minus this (Hayashibara et al. 2004).
    pub silence_suspicion: f64,
    /// How long the oldest received message waits for dispatch until its consumer counts as stalled; at least the
    /// interval of the out-of-band messages that tell.
    pub stalled_after: Duration,
    /// How long unsent bytes are held back until the connection counts as congested.
    pub congested_after: Duration,
}

impl Default for HealthConfig {
    fn default() -> Self {
        HealthConfig {
            silence_suspicion: 8.0,
            stalled_after: Duration::from_millis(20),
            congested_after: Duration::from_millis(50),
        }
    }
}

/// Whose consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This end's dispatchers.
    Own,
    /// The peer's.
    Peer,
}

/// How a connection does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    /// Nothing is wrong.
    Healthy,
    /// Bytes wait for this.
    Congested {
        /// What holds the next byte back.
        blocked: Blocked,
        /// Bytes that wait.
        unsent_bytes: u64,
    },
    /// Messages have arrived and nobody takes them.
    ConsumerStalled {
        /// Whose.
        side: Side,
        /// Bytes that wait for dispatch.
        undispatched_bytes: u64,
        /// Messages that do.
        undispatched_messages: u64,
    },
    /// Nothing is heard of the peer.
    Silent {
        /// How sure that is; infinite without a transport.
        suspicion: f64,
    },
}

/// A verdict and since when it holds. Of several the gravest is given: silent, stalled, congested, healthy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Health {
    /// What is the matter.
    pub condition: Condition,
    /// Since when.
    pub since: Instant,
}

/// Newest intervals weigh this much in the mean and in the deviation.
const WEIGHT: f64 = 1.0 / 16.0;
/// The deviation is not taken for less than this share of the mean: regular arrivals must not make a small delay
/// suspicious. With a suspicion of 8 a regular peer is silent after about 2.4 intervals.
const DEVIATION_MIN: f64 = 0.25;
/// An interval counts for no more than this many deviations off the mean (Winsorised, as Huber 1964 does with what lies
/// far out), so that one gap, however long, does not blind the detector: it adds half the least deviation at most. With
/// [`WEIGHT`] and [`DEVIATION_MIN`] that makes gaps which are rarer than one in eight outliers, and those which are not
/// the peer's manner, which is learnt: then each widens the limit for the next.
const OUTLIER_DEVIATIONS: f64 = 8.0;
/// Intervals that must be known before silence means anything.
const INTERVALS_MIN: u32 = 2;

/// The history of arrivals of out-of-band messages.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Arrivals {
    last: Option<Instant>,
    intervals: u32,
    mean_ns: f64,
    deviation_ns: f64,
    /// The interval that the peer announced last.
    announced: Option<Duration>,
    /// The peer has nothing registered: what it sends are echoes of ours.
    echoes_only: bool,
}

impl Arrivals {
    /// An out-of-band message is here.
    pub(crate) fn hear(&mut self, now: Instant, report: &PingReport) {
        self.echoes_only = report.interval.is_none();
        let last = self.last.replace(now);
        if report.interval.is_some() && report.interval != self.announced {
            self.begin_anew(report.interval);
        } else if let Some(last) = last {
            self.learn(now.since(last).as_nanos() as f64);
        }
    }

    /// What was heard so far says nothing about the intervals that the peer announces now.
    fn begin_anew(&mut self, announced: Option<Duration>) {
        self.announced = announced;
        self.mean_ns = announced.unwrap_or_default().as_nanos() as f64;
        self.deviation_ns = 0.0;
        self.intervals = INTERVALS_MIN;
    }

    fn learn(&mut self, interval_ns: f64) {
        if self.intervals == 0 {
            self.mean_ns = interval_ns;
        }
        let off_max = OUTLIER_DEVIATIONS * self.deviation_at_least();
        let off = (interval_ns - self.mean_ns).clamp(-off_max, off_max);
        self.mean_ns += WEIGHT * off;
        self.deviation_ns += WEIGHT * (off.abs() - self.deviation_ns);
        self.intervals = self.intervals.saturating_add(1);
    }

    fn deviation_at_least(&self) -> f64 {
        self.deviation_ns.max(self.mean_ns * DEVIATION_MIN).max(1.0)
    }

    /// A gap in the history for which the peer is not to blame: there was no transport.
    pub(crate) fn restart(&mut self, now: Instant) {
        if self.last.is_some() {
            self.last = Some(now);
        }
    }

    fn mean(&self) -> Duration {
        Duration::from_nanos(self.mean_ns as u64)
    }

    /// The suspicion that the peer is gone, and since when. `None` where nothing is expected of it: it announces nothing,
    /// and this end asks for no echo.
    fn suspicion(&self, now: Instant, asks: bool) -> Option<(f64, Instant)> {
        let expects = asks || !self.echoes_only;
        let last = self.last.filter(|_| self.intervals >= INTERVALS_MIN && expects)?;
        let distance = (now.since(last).as_nanos() as f64 - self.mean_ns) / self.deviation_at_least();
        Some((suspicion(distance), last + self.mean()))
    }
}

/// Minus the decimal logarithm of the probability that a normal variable is this many deviations above its mean or more,
/// by the logistic approximation of the distribution (Bowling et al. 2009), in a form that does not underflow.
fn suspicion(distance: f64) -> f64 {
    let exponent = distance * (1.5976 + 0.070_566 * distance * distance);
    let ln_probability = if exponent > 30.0 { -exponent } else { -exponent.exp().ln_1p() };
    -ln_probability / core::f64::consts::LN_10
}

/// Since when the connection's own reports show a symptom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    congested_since: Option<Instant>,
    /// What held bytes back when last something did.
    blocked: Blocked,
    out_of_credit_since: Option<Instant>,
}

impl Trouble {
    /// A new report of this end.
    pub(crate) fn note(&mut self, now: Instant, occupancy: &Occupancy) {
        let send = &occupancy.send;
        let held = send.unsent_bytes > 0 && send.blocked != Blocked::Nothing;
        let credit = held && send.blocked == Blocked::Credit;
        if held {
            self.congested_since.get_or_insert(now);
            self.blocked = send.blocked;
        } else if send.unsent_bytes == 0 {
            // With bytes left, a report without a blocker is one that was made as a segment left: the queue still stands.
            self.congested_since = None;
        }
        self.out_of_credit_since = credit.then(|| self.out_of_credit_since.unwrap_or(now));
    }
}

/// All that a verdict rests on.
pub(crate) struct Evidence {
    pub(crate) now: Instant,
    pub(crate) is_loopback: bool,
    /// This end has an op registered.
    pub(crate) asks: bool,
    pub(crate) made_at: Instant,
    pub(crate) detached_at: Option<Instant>,
    pub(crate) arrivals: Arrivals,
    pub(crate) trouble: Trouble,
    pub(crate) occupancy: Occupancy,
    pub(crate) peer_report: Option<PingReport>,
}

/// The gravest of what the evidence shows.
pub(crate) fn judge(config: &HealthConfig, evidence: &Evidence) -> Health {
    let now = evidence.now;
    if evidence.is_loopback {
        return Health { condition: Condition::Healthy, since: evidence.made_at };
    }
    if let Some(since) = evidence.detached_at {
        return Health { condition: Condition::Silent { suspicion: f64::INFINITY }, since };
    }
    if let Some((suspicion, since)) = evidence.arrivals.suspicion(now, evidence.asks)
        && suspicion >= config.silence_suspicion
    {
        return Health { condition: Condition::Silent { suspicion }, since };
    }
    if let Some(stalled) = stalled(config, evidence) {
        return stalled;
    }
    let send = &evidence.occupancy.send;
    match evidence.trouble.congested_since {
        Some(since) if now.since(since) >= config.congested_after => Health {
            condition: Condition::Congested {
                blocked: evidence.trouble.blocked,
                unsent_bytes: send.unsent_bytes,
            },
            since,
        },
        _ => Health { condition: Condition::Healthy, since: evidence.made_at },
    }
}

fn stalled(config: &HealthConfig, evidence: &Evidence) -> Option<Health> {
    let now = evidence.now;
    let own = &evidence.occupancy.receive;
    // The age was right when the report was made; a consumer that has not moved since has made it older.
    let own_age = own.oldest_age + now.since(evidence.occupancy.at);
    if own.undispatched_messages > 0 && own_age >= config.stalled_after {
        let condition = Condition::ConsumerStalled {
            side: Side::Own,
            undispatched_bytes: own.undispatched_bytes,
            undispatched_messages: own.undispatched_messages,
        };
        return Some(Health { condition, since: now - own_age });
    }
    let report = evidence.peer_report.as_ref()?;
    let theirs = &report.receive;
    let patience = config.stalled_after.max(evidence.arrivals.mean());
    let aged = theirs.undispatched_messages > 0 && theirs.oldest_age >= patience;
    let since = match evidence.trouble.out_of_credit_since {
        Some(since) => since.min(now - theirs.oldest_age),
        None if aged => now - theirs.oldest_age,
        None => return None,
    };
    let condition = Condition::ConsumerStalled {
        side: Side::Peer,
        undispatched_bytes: theirs.undispatched_bytes,
        undispatched_messages: theirs.undispatched_messages,
    };
    Some(Health { condition, since })
}

#[cfg(test)]
mod tests;
