//! The one way in which experiments repeat: every variant of a point is run so many times, by turns, and what is told is
//! the median, with what the runs lie between.
//!
//! A [`Session`] conducts: it counts the runs, changes the order of the variants from turn to turn, lets the machine be
//! watched ([`crate::noise`]), and ends early when a signal comes, with what was finished. A result says which of its
//! members are figures ([`Figures`]); [`combine`] makes one of several runs. Results are then compared by
//! [`Ratio`], which refuses what the spread or the noise hides, and with an earlier file by [`against`].

pub(crate) mod against;
mod figures;
mod ratio;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::error::BenchError;
use crate::noise::{Meter, Noise};
use crate::progress::Progress;
use crate::stop::Stop;

pub(crate) use figures::{Figure, Figures, Repeated, Visit, combine, label, spread_table};
pub(crate) use ratio::{Key, Ratio, ratio_table};

/// Runs of each variant at each point unless `--repeat` says otherwise: the fewest that have a median and a spread.
pub(crate) const REPEAT: u32 = 3;
/// Runs at most.
const REPEAT_MAX: i64 = 100;

/// How often to run, and what to compare with.
#[derive(Clone, Debug, Args)]
pub(crate) struct Repeating {
    /// Runs of each variant at each point, by turns: figures are medians over them, with what they lie between
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=REPEAT_MAX))]
    pub(crate) repeat: Option<u32>,
    /// Compare with the JSON of an earlier run of the same command: each figure agrees within the spread of both, or
    /// differs (exit status 1), or cannot be told from noise
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

impl Repeating {
    /// Runs of each variant.
    pub(crate) fn runs(&self, default: u32) -> u32 {
        self.repeat.unwrap_or(default)
    }
}

/// What a result says about the circumstances in which it was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Conditions {
    /// How quiet the machine was, where that was watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) noise: Option<Noise>,
    /// Whether a signal ended it before all was measured.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) interrupted: bool,
    /// What `--against` read.
    #[serde(skip)]
    pub(crate) earlier: Option<Value>,
}

impl Conditions {
    /// Of something that is not repeated, and which a signal may have `interrupted`.
    pub(crate) fn once(interrupted: bool) -> Self {
        Conditions { noise: None, interrupted, earlier: None }
    }

    /// By how much the machine varied.
    pub(crate) fn noise_relative(&self) -> f64 {
        self.noise.map_or(0.0, |noise| noise.relative)
    }
}

/// Which of the runs it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Counted from zero.
    pub(crate) number: u32,
    /// So many there are.
    pub(crate) of: u32,
}

impl Turn {
    /// The seed of this turn: all variants have the same, and each turn another.
    pub(crate) fn seed(self, first: u64) -> u64 {
        first.wrapping_add(u64::from(self.number))
    }
}

impl std::fmt::Display for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.number + 1, self.of)
    }
}

/// Conducts the runs of an experiment.
#[derive(Debug)]
pub(crate) struct Session {
    repeat: u32,
    stop: Stop,
    meter: Meter,
    progress: Progress,
    earlier: Option<Value>,
}

impl Session {
    /// Begins `experiment`; `once` is the time that one run of every variant at every point takes.
    ///
    /// # Errors
    /// The file of `--against` is no result of this experiment, or signals cannot be listened for.
    pub(crate) fn begin(
        experiment: &str,
        repeating: &Repeating,
        default: u32,
        once: Duration,
    ) -> Result<Self, BenchError> {
        let earlier = repeating.against.as_deref().map(|path| against::read(path, experiment)).transpose()?;
        let repeat = repeating.runs(default);
        Ok(Session {
            repeat,
            stop: Stop::on_signals()?,
            progress: Progress::new(once.saturating_mul(repeat)),
            meter: Meter::begin(),
            earlier,
        })
    }

    /// For lines that stay.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Runs every variant as often as it is to be, by turns; each turn goes the other way round than the one before.
    /// The runs come by variant, in the order in which they were made. Fewer when a signal comes.
    ///
    /// # Errors
    /// What `run` returned, unless a signal was the reason.
    pub(crate) fn turns<V, R>(
        &mut self,
        variants: &[V],
        mut run: impl FnMut(&V, Turn, &Progress) -> Result<R, BenchError>,
    ) -> Result<Vec<Vec<R>>, BenchError> {
        let mut runs: Vec<Vec<R>> = variants.iter().map(|_| Vec::new()).collect();
        for number in 0..self.repeat {
            for index in order(variants.len(), number) {
                if self.stop.is_raised() {
                    return Ok(runs);
                }
                match run(&variants[index], Turn { number, of: self.repeat }, &self.progress) {
                    Ok(found) => runs[index].push(found),
                    // A terminal signals the tools of a lab too, so any error may be the signal's.
                    Err(_) if self.stop.is_raised() => return Ok(runs),
                    Err(error) => return Err(error),
                }
                self.meter.calibrate();
            }
        }
        Ok(runs)
    }

    /// The same for results that have figures: one of each variant, unless none of its runs was finished.
    ///
    /// # Errors
    /// As [`Self::turns`].
    pub(crate) fn medians<V, R: Figures>(
        &mut self,
        variants: &[V],
        run: impl FnMut(&V, Turn, &Progress) -> Result<R, BenchError>,
    ) -> Result<Vec<Repeated<R>>, BenchError> {
        Ok(self.turns(variants, run)?.into_iter().filter_map(combine).collect())
    }

    /// Ends; the progress bar goes.
    pub(crate) fn end(self) -> Conditions {
        Conditions {
            noise: Some(self.meter.end()),
            interrupted: self.stop.is_raised(),
            earlier: self.earlier,
        }
    }
}

/// In which order so many variants are run at a turn.
fn order(variants: usize, turn: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..variants).collect();
    if turn % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_take_turns_in_being_first() {
        assert_eq!(order(3, 0), [0, 1, 2]);
        assert_eq!(order(3, 1), [2, 1, 0]);
        let repeating = Repeating { repeat: Some(2), against: None };
        let mut session = Session::begin("test", &repeating, REPEAT, Duration::ZERO).unwrap();
        let mut made = Vec::new();
        let runs = session
            .turns(&["a", "b"], |variant, turn, _| {
                made.push((*variant, turn.number));
                Ok(made.len())
            })
            .unwrap();
        assert_eq!(made, [("a", 0), ("b", 0), ("b", 1), ("a", 1)]);
        assert_eq!(runs, [[1, 4], [2, 3]], "by variant, in the order in which they were made");
        let noise = session.end().noise.unwrap();
        assert_eq!(noise.calibration_us.times, 5, "before, between and after the runs");
    }

    #[test]
    fn a_run_that_fails_ends_the_experiment() {
        let repeating = Repeating { repeat: None, against: None };
        let mut session = Session::begin("test", &repeating, REPEAT, Duration::ZERO).unwrap();
        let failed =
            session.turns(
                &[()],
                |(), turn, _| {
                    if turn.number == 1 { Err(BenchError::failed("no cable")) } else { Ok(()) }
                },
            );
        assert_eq!(failed, Err(BenchError::failed("no cable")));
    }
}
