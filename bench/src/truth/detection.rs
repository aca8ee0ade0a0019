//! Time until a fault is named, over many trials, and how often one is named that is not there.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::event::Event;
use super::trial::{Detection, Trial};
use crate::error::BenchError;
use crate::measure::{Latencies, Percentiles};
use crate::runs::{Session, label};
use crate::table::{micros, numbers};
use crate::under_load::{Point, Variant};

/// A point of the experiment: its variants by turns, so many trials of each.
#[derive(Debug)]
pub(crate) struct Detections<'a> {
    /// The setting.
    pub(crate) point: Point,
    /// Its name among the results.
    pub(crate) name: Map<String, Value>,
    /// Whose verdicts are compared.
    pub(crate) variants: &'a [Variant],
    /// What happens.
    pub(crate) event: Event,
    /// Whether messages saturate the link.
    pub(crate) loaded: bool,
    /// How long nothing happens before the event: false positives are counted in it.
    pub(crate) calm: Duration,
    /// How long a verdict is waited for.
    pub(crate) patience: Duration,
    /// Unanswered heartbeats are given so long where nothing else tells.
    pub(crate) grace: Duration,
    /// Seed of the first trial; each further one takes the next.
    pub(crate) seed: u64,
}

/// What one variant did at one point.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DetectResult {
    /// How heartbeats travelled.
    pub(crate) variant: &'static str,
    /// The values of the list options at this point, each under its own name.
    #[serde(flatten)]
    pub(crate) point: Map<String, Value>,
    /// What happened.
    pub(crate) event: &'static str,
    /// Trials.
    pub(crate) trials: u32,
    /// Trials in which the fault was not named.
    pub(crate) missed: u32,
    /// What tells it from other results.
    label: String,
    /// From the event until the fault was named, where it was.
    pub(crate) detected_after_us: Option<Percentiles>,
    /// The same of each trial, by which results are compared.
    runs: BTreeMap<&'static str, Vec<f64>>,
    /// Verdicts while nothing was the matter.
    pub(crate) false_positives: u64,
    /// For how long nothing was the matter, all trials together, in seconds.
    pub(crate) calm_seconds: f64,
}

impl Detections<'_> {
    fn trial(&self, variant: Variant, seed: u64) -> Trial {
        Trial {
            point: self.point,
            variant,
            event: self.event,
            seed,
            calm: self.calm,
            length: self.patience,
            grace: self.grace,
            loaded: self.loaded,
        }
    }

    /// Wall time that one trial of each variant takes at most, for the progress bar.
    pub(crate) fn duration(&self) -> Duration {
        self.variants.iter().map(|variant| self.trial(*variant, self.seed).duration()).sum()
    }

    /// Runs it; results come in the order of `variants`.
    pub(crate) fn run(&self, session: &mut Session) -> Result<Vec<DetectResult>, BenchError> {
        let trials = session.turns(self.variants, |variant, turn, progress| {
            progress.set(format!("{}: {}, {turn}", self.event.name(), variant.name()));
            self.trial(*variant, turn.seed(self.seed)).detect(&mut |time| progress.advance(time))
        })?;
        let of_variants = self.variants.iter().zip(&trials).filter(|(_, trials)| !trials.is_empty());
        Ok(of_variants.map(|(variant, trials)| self.result(*variant, trials)).collect())
    }

    fn result(&self, variant: Variant, trials: &[Detection]) -> DetectResult {
        let mut times = Latencies::default();
        let found = trials.iter().filter_map(|trial| trial.after);
        let runs = found.map(|after| after.as_secs_f64() * 1e6).collect();
        trials.iter().filter_map(|trial| trial.after).for_each(|after| times.record(after));
        let count = u32::try_from(trials.len()).unwrap_or(u32::MAX);
        DetectResult {
            variant: variant.name(),
            point: self.name.clone(),
            event: self.event.name(),
            trials: count,
            missed: count - u32::try_from(times.count()).unwrap_or(count),
            label: label(&format!("{}, {}", self.event.name(), variant.name()), &self.name),
            detected_after_us: times.percentiles(),
            runs: BTreeMap::from([("detected_after_us", runs)]),
            false_positives: trials.iter().map(|trial| trial.false_positives).sum(),
            calm_seconds: self.calm.as_secs_f64() * f64::from(count),
        }
    }
}

/// The table.
pub(crate) fn detection_table(results: &[DetectResult]) -> String {
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|result| {
            let mut row = vec![result.label.clone()];
            match result.detected_after_us {
                Some(Percentiles { p50, p99, max, .. }) => row.extend([p50, p99, max].map(micros)),
                None => row.extend(["-"; 3].map(str::to_owned)),
            }
            row.push(format!("{} of {}", result.missed, result.trials));
            row.push(format!("{} in {:.1} s", result.false_positives, result.calm_seconds));
            row
        })
        .collect();
    let header = ["event", "named after: p50", "p99", "max", "missed", "false positives"];
    "\nTime until the fault is named\n".to_owned() + &numbers(&header, &rows)
}
