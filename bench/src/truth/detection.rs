//! Time until a fault is named, over many trials, and how often one is named that is not there.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::event::Event;
use super::trial::Trial;
use crate::error::BenchError;
use crate::measure::{Latencies, Percentiles};
use crate::progress::Progress;
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
    /// Trials of each variant.
    pub(crate) repeat: u32,
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
    /// From the event until the fault was named, where it was.
    pub(crate) detected_after_us: Option<Percentiles>,
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

    /// Wall time it will take at most, for the progress bar.
    pub(crate) fn duration(&self) -> Duration {
        let trials = self.variants.iter().map(|variant| self.trial(*variant, self.seed).duration());
        trials.sum::<Duration>() * self.repeat
    }

    /// Runs it; results come in the order of `variants`.
    pub(crate) fn run(&self, progress: &Progress) -> Result<Vec<DetectResult>, BenchError> {
        let mut times = vec![Latencies::default(); self.variants.len()];
        let mut false_positives = vec![0; self.variants.len()];
        for number in 0..self.repeat {
            let seed = self.seed.wrapping_add(u64::from(number));
            for (index, variant) in self.variants.iter().enumerate() {
                progress.set(format!(
                    "{}: {}, {} of {}",
                    self.event.name(),
                    variant.name(),
                    number + 1,
                    self.repeat
                ));
                let found = self.trial(*variant, seed).detect(&mut |time| progress.advance(time))?;
                found.after.into_iter().for_each(|after| times[index].record(after));
                false_positives[index] += found.false_positives;
            }
        }
        let results = self.variants.iter().zip(times).zip(false_positives);
        Ok(results
            .map(|((variant, times), false_positives)| DetectResult {
                variant: variant.name(),
                point: self.name.clone(),
                event: self.event.name(),
                trials: self.repeat,
                missed: self.repeat - u32::try_from(times.count()).unwrap_or(self.repeat),
                detected_after_us: times.percentiles(),
                false_positives,
                calm_seconds: self.calm.as_secs_f64() * f64::from(self.repeat),
            })
            .collect())
    }
}

/// The table.
pub(crate) fn detection_table(results: &[DetectResult]) -> String {
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|result| {
            let values =
                result.point.iter().filter(|(key, _)| *key != "event").map(|(key, value)| match value {
                    Value::String(text) => format!(", {text}"),
                    other => format!(", {key}={other}"),
                });
            let name = format!("{}, {}", result.event, result.variant);
            let mut row = vec![values.fold(name, |name, value| name + &value)];
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
