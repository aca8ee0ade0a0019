//! What the application of each design can know of its peer, and what it concludes.

use std::sync::Arc;
use std::time::Duration;

use outrider_drivers::time::Instant;
use outrider_messenger::{Condition, Connection, Side};

use super::event::{SILENT, STALLED};
use crate::error::BenchError;
use crate::node::{SessionSignals, now};
use crate::stop;
use crate::under_load::Tally;

/// Between two looks; a twentieth of the usual interval.
const LOOK: Duration = Duration::from_micros(500);

/// The verdict on a connection that was reset or closed.
const LOST: &str = "connection lost";
/// The verdict on one's own dispatcher, which nobody stops here.
const OWN_STALLED: &str = "own consumer stalled";

/// Who judges.
pub(super) enum Judge {
    /// `Connection::health` of the data connection.
    Health(Connection),
    /// A grace for the answers to heartbeats, as Ceph's daemons judge their peers.
    Grace { tally: Arc<Tally>, session: Arc<SessionSignals>, interval: Duration, grace: Duration },
}

/// One of the things that were said in some time; no verdict is that all is well.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Saying {
    pub(super) verdict: Option<&'static str>,
    /// When it was said first.
    pub(super) first_at: Instant,
    /// How long it was said altogether.
    pub(super) total: Duration,
    /// How often it was begun with.
    pub(super) times: u64,
}

/// What was said in some time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Said {
    /// One entry for each verdict, so a handful at most.
    sayings: Vec<Saying>,
    last: Option<usize>,
}

impl Said {
    fn note(&mut self, verdict: Option<&'static str>, at: Instant, length: Duration) {
        let known = self.sayings.iter().position(|saying| saying.verdict == verdict);
        let index = known.unwrap_or_else(|| {
            self.sayings.push(Saying { verdict, first_at: at, total: Duration::ZERO, times: 0 });
            self.sayings.len() - 1
        });
        let saying = &mut self.sayings[index];
        saying.total += length;
        saying.times += u64::from(self.last != Some(index));
        self.last = Some(index);
    }

    /// What was said for the longest time. A hiccup of the machine changes nothing about that.
    pub(super) fn mostly(&self) -> Option<Saying> {
        self.sayings.iter().copied().max_by_key(|saying| saying.total)
    }

    /// How often something other than `verdict` was the matter.
    pub(super) fn verdicts_other_than(&self, verdict: Option<&str>) -> u64 {
        let others =
            self.sayings.iter().filter(|saying| saying.verdict.is_some() && saying.verdict != verdict);
        others.map(|saying| saying.times).sum()
    }
}

impl Judge {
    /// What is the matter, if anything. That a saturated connection is congested is no fault.
    fn verdict(&self, now: Instant) -> Option<&'static str> {
        match self {
            Judge::Health(connection) => by_condition(connection.health().condition),
            Judge::Grace { tally, session, interval, grace } => {
                if session.lost.is_raised() {
                    return Some(LOST);
                }
                by_grace(tally.answered_until(), now, *interval, *grace)
            }
        }
    }

    /// Listens until `until`, and reports how far it is.
    ///
    /// # Errors
    /// A signal came, as with [`Self::listen_for`].
    pub(super) fn listen(
        &self,
        until: Instant,
        passed: &mut dyn FnMut(Duration),
    ) -> Result<Said, BenchError> {
        let mut said = Said::default();
        let mut before = now();
        while before < until {
            stop::check()?;
            let verdict = self.verdict(before);
            std::thread::sleep(LOOK);
            let after = now();
            said.note(verdict, before, after - before);
            passed(after - before);
            before = after;
        }
        Ok(said)
    }

    /// Listens until `verdict` is said, at most until `until`; when it was.
    pub(super) fn listen_for(
        &self,
        verdict: &str,
        until: Instant,
        passed: &mut dyn FnMut(Duration),
    ) -> Result<Option<Instant>, BenchError> {
        let mut before = now();
        while before < until {
            stop::check()?;
            if self.verdict(before) == Some(verdict) {
                return Ok(Some(before));
            }
            std::thread::sleep(LOOK);
            let after = now();
            passed(after - before);
            before = after;
        }
        Ok(None)
    }

    /// Waits until nothing is said; whether that came within `patience`.
    pub(super) fn is_quiet_within(&self, patience: Duration) -> bool {
        let deadline = now() + patience;
        while self.verdict(now()).is_some() {
            if now() >= deadline {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }
}

fn by_condition(condition: Condition) -> Option<&'static str> {
    match condition {
        Condition::Healthy | Condition::Congested { .. } => None,
        Condition::ConsumerStalled { side: Side::Peer, .. } => Some(STALLED),
        Condition::ConsumerStalled { side: Side::Own, .. } => Some(OWN_STALLED),
        Condition::Silent { .. } => Some(SILENT),
    }
}

/// The oldest heartbeat without an answer is the one after the newest that has one.
fn by_grace(
    answered_until: Instant,
    now: Instant,
    interval: Duration,
    grace: Duration,
) -> Option<&'static str> {
    (now > answered_until + interval + grace).then_some(SILENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_stack::tcp::source::Blocked;

    const fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn a_saturated_connection_is_no_fault_and_the_graver_conditions_have_names() {
        let congested = Condition::Congested { blocked: Blocked::CongestionWindow, unsent_bytes: 1 };
        assert_eq!(by_condition(Condition::Healthy), None);
        assert_eq!(by_condition(congested), None);
        let stalled =
            |side| Condition::ConsumerStalled { side, undispatched_bytes: 1, undispatched_messages: 1 };
        assert_eq!(by_condition(stalled(Side::Peer)), Some(STALLED));
        assert_eq!(by_condition(stalled(Side::Own)), Some(OWN_STALLED));
        assert_eq!(by_condition(Condition::Silent { suspicion: 9.0 }), Some(SILENT));
    }

    #[test]
    fn the_grace_runs_from_the_oldest_heartbeat_without_an_answer() {
        let ten = Duration::from_millis(10);
        assert_eq!(by_grace(at(100), at(140), ten, 3 * ten), None);
        assert_eq!(by_grace(at(100), at(141), ten, 3 * ten), Some(SILENT));
    }

    #[test]
    fn what_is_said_for_the_longest_time_is_the_verdict_and_the_rest_is_counted_by_beginnings() {
        let mut said = Said::default();
        assert_eq!(said.mostly(), None);
        let looks = [None, Some(SILENT), Some(SILENT), None, Some(STALLED), Some(SILENT)];
        for (time, verdict) in looks.into_iter().enumerate() {
            said.note(verdict, at(time as u64), Duration::from_millis(1));
        }
        let silent =
            Saying { verdict: Some(SILENT), first_at: at(1), total: Duration::from_millis(3), times: 2 };
        assert_eq!(said.mostly(), Some(silent));
        assert_eq!(said.verdicts_other_than(Some(SILENT)), 1);
        assert_eq!(said.verdicts_other_than(None), 3);
    }
}
