//! What the experiment found, for machines and for people.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::event::Event;
use super::trial::{Outcome, Phase, Trial};
use crate::error::BenchError;
use crate::measure::Percentiles;
use crate::runs::{Figure, Figures, Repeated, Visit, label, spread_table};
use crate::table::{micros, numbers};
use crate::under_load::Variant;

/// What one variant said of one event.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TruthResult {
    /// How heartbeats travelled.
    pub(crate) variant: &'static str,
    /// The values of the list options at this point, each under its own name.
    #[serde(flatten)]
    pub(crate) point: Map<String, Value>,
    /// What happened.
    pub(crate) event: &'static str,
    /// What the application could say by the interface alone for most of the event; `null`: that all is well.
    pub(crate) verdict: Option<&'static str>,
    /// What was said in how many runs, where they did not all say the same: the verdict is then the most frequent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) verdicts: BTreeMap<&'static str, u32>,
    /// From the event until it could say so first.
    pub(crate) verdict_after_us: Option<f64>,
    /// The same in intervals between heartbeats.
    pub(crate) verdict_after_intervals: Option<f64>,
    /// Verdicts during the event other than that, which passed.
    pub(crate) passing_verdicts: u64,
    /// The verdict that would name the fault.
    pub(crate) expected: &'static str,
    /// Verdicts come to in the time before the event, in which nothing was the matter.
    pub(crate) false_verdicts: u64,
    /// Heartbeats that were due during the event and were sent.
    pub(crate) sent: u64,
    /// Those of them that were answered.
    pub(crate) answered: u64,
    /// Heartbeats before the event.
    pub(crate) heartbeat_before: Delays,
    /// Heartbeats during the event.
    pub(crate) heartbeat_during: Delays,
    /// 99th percentile one way during the event over that before.
    pub(crate) one_way_p99_ratio: Option<f64>,
}

/// Heartbeats that were due in some time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Delays {
    /// Left the sender.
    pub(crate) sent: u64,
    /// Reached the peer.
    pub(crate) received: u64,
    /// Turns that passed while an earlier one had not left yet.
    pub(crate) superseded: u64,
    /// From the instant it was due until the peer had it.
    pub(crate) one_way_us: Option<Percentiles>,
    /// From the instant it was due until its answer was back, less the time the peer held it.
    pub(crate) rtt_us: Option<Percentiles>,
}

impl From<&Phase> for Delays {
    fn from(phase: &Phase) -> Self {
        let Phase { samples, counts } = phase;
        Delays {
            sent: counts.sent,
            received: counts.received,
            superseded: counts.superseded,
            one_way_us: samples.one_way.percentiles(),
            rtt_us: samples.rtt.percentiles(),
        }
    }
}

impl TruthResult {
    pub(super) fn new(trial: &Trial, point: Map<String, Value>, outcome: &Outcome) -> Self {
        let Outcome { before, during, verdict, passing_verdicts, false_verdicts } = outcome;
        let after = verdict.map(|(_, after)| after);
        let interval = trial.point.interval.0;
        let (heartbeat_before, heartbeat_during) = (Delays::from(before), Delays::from(during));
        let p99 = |delays: &Delays| delays.one_way_us.map(|delays| delays.p99).filter(|p99| *p99 > 0.0);
        TruthResult {
            variant: trial.variant.name(),
            point,
            event: trial.event.name(),
            verdict: verdict.map(|(name, _)| name),
            verdicts: BTreeMap::new(),
            verdict_after_us: after.map(|after| after.as_secs_f64() * 1e6),
            verdict_after_intervals: after.map(|after| after.as_secs_f64() / interval.as_secs_f64()),
            passing_verdicts: *passing_verdicts,
            expected: trial.event.expected(),
            false_verdicts: *false_verdicts,
            sent: during.counts.sent,
            answered: during.samples.rtt.count(),
            one_way_p99_ratio: p99(&heartbeat_before)
                .zip(p99(&heartbeat_during))
                .map(|(before, during)| during / before),
            heartbeat_before,
            heartbeat_during,
        }
    }

    /// What it is called in tables and errors.
    fn name(&self) -> String {
        match self.point.get("link").and_then(Value::as_str) {
            Some(link) => format!("{} {link}", self.variant),
            None => self.variant.to_owned(),
        }
    }
}

impl Delays {
    fn figures(&mut self, path: &str, visit: &mut Visit<'_>) {
        // Exhaustive, so that a new figure cannot be forgotten here.
        let Delays { sent, received, superseded, one_way_us, rtt_us } = self;
        for (name, delays) in [("one_way_us", one_way_us), ("rtt_us", rtt_us)] {
            delays.iter_mut().for_each(|delays| delays.figures(&format!("{path}.{name}"), visit));
        }
        for (name, count) in [("sent", sent), ("received", received), ("superseded", superseded)] {
            visit(&format!("{path}.{name}"), Figure::TotalCount(count));
        }
    }
}

/// What is said where there is no verdict.
const NO_VERDICT: &str = "all is well";

impl Figures for TruthResult {
    fn label(&self) -> String {
        label(&format!("{}, {}", self.event, self.variant), &self.point)
    }

    fn figures(&mut self, visit: &mut Visit<'_>) {
        // Exhaustive, so that a new figure cannot be forgotten here.
        let TruthResult {
            variant: _,
            point: _,
            event: _,
            verdict: _,
            verdicts: _,
            verdict_after_us,
            verdict_after_intervals,
            passing_verdicts,
            expected: _,
            false_verdicts,
            sent,
            answered,
            heartbeat_before,
            heartbeat_during,
            one_way_p99_ratio,
        } = self;
        let medians = [
            ("verdict_after_us", verdict_after_us),
            ("verdict_after_intervals", verdict_after_intervals),
            ("one_way_p99_ratio", one_way_p99_ratio),
        ];
        for (path, figure) in medians {
            figure.iter_mut().for_each(|figure| visit(path, Figure::Median(figure)));
        }
        heartbeat_before.figures("heartbeat_before", visit);
        heartbeat_during.figures("heartbeat_during", visit);
        let totals = [
            ("passing_verdicts", passing_verdicts),
            ("false_verdicts", false_verdicts),
            ("sent", sent),
            ("answered", answered),
        ];
        for (path, count) in totals {
            visit(path, Figure::TotalCount(count));
        }
    }

    fn settle(&mut self, runs: &[Self]) {
        let mut verdicts: BTreeMap<&'static str, u32> = BTreeMap::new();
        for run in runs {
            *verdicts.entry(run.verdict.unwrap_or(NO_VERDICT)).or_default() += 1;
        }
        let most =
            verdicts.iter().max_by_key(|(_, times)| **times).map_or(NO_VERDICT, |(verdict, _)| verdict);
        self.verdict = (most != NO_VERDICT).then_some(most);
        if self.verdict.is_none() {
            (self.verdict_after_us, self.verdict_after_intervals) = (None, None);
        }
        if verdicts.len() > 1 {
            self.verdicts = verdicts;
        }
    }
}

/// The tables: what was said, then what became of the heartbeats.
pub(crate) fn tables(results: &[Repeated<TruthResult>]) -> String {
    let dash = || "-".to_owned();
    let mut verdicts = Vec::new();
    let mut delays = Vec::new();
    for result in results {
        let name = format!("{}, {}", result.event, result.name());
        verdicts.push(vec![
            name.clone(),
            verdict(result),
            result.verdict_after_us.map_or_else(dash, micros),
            result.verdict_after_intervals.map_or_else(dash, |n| format!("{n:.1}")),
            format!("{} of {}", result.answered, result.sent),
            result.passing_verdicts.to_string(),
            result.false_verdicts.to_string(),
        ]);
        let cells = |delays: &Delays| match delays.one_way_us {
            Some(Percentiles { p50, p99, .. }) => [micros(p50), micros(p99)],
            None => [dash(), dash()],
        };
        let mut row = vec![name];
        row.extend(cells(&result.heartbeat_before));
        row.extend(cells(&result.heartbeat_during));
        row.push(result.one_way_p99_ratio.map_or_else(dash, |ratio| format!("{ratio:.2}")));
        delays.push(row);
    }
    let mut text = "\nWhat each design says, and how long after the event\n".to_owned();
    text += &numbers(
        &["event", "verdict", "after", "intervals", "answered", "passing", "false before"],
        &verdicts,
    );
    text += "\nHeartbeat delay, one way, from the instant it was due\n";
    text += &numbers(&["event", "before: p50", "p99", "during: p50", "p99", "p99 during / before"], &delays);
    text + &spread_table(
        results,
        &[("verdict_after_us", "verdict after"), ("heartbeat_during.one_way_us.p99", "p99")],
    )
}

/// The verdict, and in how many runs it was this where it was not in all.
fn verdict(result: &TruthResult) -> String {
    let verdict = result.verdict.unwrap_or(NO_VERDICT);
    match result.verdicts.get(verdict) {
        Some(times) => format!("{verdict} ({times} of {} runs)", result.verdicts.values().sum::<u32>()),
        None => verdict.to_owned(),
    }
}

/// Fails if heartbeats that ride on the data connection did not name a fault.
pub(crate) fn check(results: &[Repeated<TruthResult>]) -> Result<(), BenchError> {
    let missed = |result: &&Repeated<TruthResult>| {
        result.variant == Variant::Oob.name() && result.verdict != Some(result.expected)
    };
    match results.iter().find(missed) {
        None => Ok(()),
        Some(result) => Err(BenchError::failed(format!(
            "{}, {}: said '{}' and not '{}'; try a longer --seconds, or a longer --interval on a busy machine",
            result.event,
            result.name(),
            result.verdict.unwrap_or(NO_VERDICT),
            result.expected
        ))),
    }
}

/// All events, for `--event` by default.
pub(crate) const EVENTS: [Event; 6] = [
    Event::ConsumerStopped,
    Event::PathCut,
    Event::WayThereCut,
    Event::WayBackCut,
    Event::PeerKilled,
    Event::PeerPaused,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::combine;

    fn run(variant: Variant, event: Event, verdict: Option<&'static str>) -> TruthResult {
        let delays = Delays { sent: 9, received: 9, superseded: 0, one_way_us: None, rtt_us: None };
        TruthResult {
            variant: variant.name(),
            point: Map::new(),
            event: event.name(),
            verdict,
            verdicts: BTreeMap::new(),
            verdict_after_us: verdict.map(|_| 19_000.0),
            verdict_after_intervals: verdict.map(|_| 1.9),
            passing_verdicts: 0,
            expected: event.expected(),
            false_verdicts: 0,
            sent: 9,
            answered: 9,
            heartbeat_before: delays.clone(),
            heartbeat_during: delays,
            one_way_p99_ratio: None,
        }
    }

    fn result(variant: Variant, event: Event, verdict: Option<&'static str>) -> Repeated<TruthResult> {
        Repeated::once(run(variant, event, verdict))
    }

    #[test]
    fn of_several_runs_the_most_frequent_verdict_stands_and_the_others_are_counted() {
        let runs = [Some("silent"), None, Some("silent")].map(|said| run(Variant::Oob, Event::PathCut, said));
        let combined = combine(runs.to_vec()).expect("there are runs");
        assert_eq!((combined.verdict, combined.verdict_after_us), (Some("silent"), Some(19_000.0)));
        assert_eq!(combined.verdicts, BTreeMap::from([("all is well", 1), ("silent", 2)]));
        assert!(tables(std::slice::from_ref(&combined)).contains("silent (2 of 3 runs)"));
        let runs = [None, Some("silent"), None].map(|said| run(Variant::Oob, Event::PathCut, said));
        let combined = combine(runs.to_vec()).expect("there are runs");
        assert_eq!((combined.verdict, combined.verdict_after_us), (None, None));
    }

    #[test]
    fn heartbeats_on_the_data_connection_must_name_the_fault_and_others_need_not() {
        let stalled = result(Variant::Oob, Event::ConsumerStopped, Some("consumer stalled"));
        let green = result(Variant::Separate, Event::ConsumerStopped, None);
        assert!(check(&[stalled, green.clone()]).is_ok());
        for wrong in [None, Some("silent")] {
            let wrong = result(Variant::Oob, Event::ConsumerStopped, wrong);
            let told = check(&[green.clone(), wrong]).unwrap_err().to_string();
            assert!(told.contains("consumer stopped, oob") && told.contains("'consumer stalled'"), "{told}");
        }
    }

    #[test]
    fn the_table_tells_a_missing_verdict_in_words() {
        let text = tables(&[
            result(Variant::Oob, Event::PathCut, Some("silent")),
            result(Variant::Separate, Event::PathCut, None),
        ]);
        let line = |needle: &str| text.lines().find(|line| line.contains(needle)).unwrap();
        assert!(line("path cut, oob").contains("silent") && line("path cut, oob").contains("1.9"), "{text}");
        assert!(line("path cut, separate").contains("all is well"), "{text}");
    }
}
