//! A result set against an earlier one: whether two runs of the tool agree within the spread that they state.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::figures::{median, widening};
use crate::error::BenchError;
use crate::table;

/// Largest file read: far above what any command writes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// To agree within more than this share of a figure says nothing about it.
const TOLERANCE_MAX: f64 = 0.5;

/// What the comparison of one figure came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// The medians differ by no more than the spreads of both together, widened if the runs were few.
    Agrees,
    /// They differ by more than that, and by more than the noise of the machine.
    Differs,
    /// One of them was run once, or the spreads are too wide to say anything, or the machine varied by more than they
    /// differ.
    Inconclusive,
}

/// One figure then and now.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Compared {
    label: String,
    figure: String,
    then: f64,
    now: f64,
    /// How much larger it is now, as a share of what it was.
    change: f64,
    /// By how much it may differ: the spreads of both together, widened if the runs were few.
    tolerance: Option<f64>,
    verdict: Verdict,
}

/// The comparison of two results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Against {
    /// What the earlier one was built from.
    commit: String,
    /// Parameters that are not the same in both.
    other_parameters: Vec<String>,
    /// Results that only one of them has.
    alone: Vec<String>,
    figures: Vec<Compared>,
}

/// Reads an earlier result of `experiment`.
///
/// # Errors
/// It is no such result.
pub(super) fn read(path: &Path, experiment: &str) -> Result<Value, BenchError> {
    let cannot = |what: &dyn std::fmt::Display| {
        BenchError::usage(format!(
            "--against {}: {what}; give a file that --json of the same command wrote",
            path.display()
        ))
    };
    let length = std::fs::metadata(path).map_err(|error| cannot(&error))?.len();
    if length > FILE_BYTES_MAX {
        return Err(cannot(&"the file is too large for a result"));
    }
    let held = std::fs::read_to_string(path).map_err(|error| cannot(&error))?;
    let value: Value = serde_json::from_str(&held).map_err(|error| cannot(&error))?;
    if !value["results"].is_array() {
        return Err(cannot(&"it holds no result"));
    }
    if value["experiment"] != experiment {
        return Err(cannot(&format!(
            "it is of '{}', and this is '{experiment}'",
            text(&value["experiment"])
        )));
    }
    Ok(value)
}

fn results(report: &Value) -> &[Value] {
    report["results"].as_array().map_or(&[], Vec::as_slice)
}

fn with_label<'a>(report: &'a Value, label: &Value) -> Option<&'a Value> {
    results(report).iter().find(|result| result["label"] == *label)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("unknown").to_owned()
}

/// The values of a figure in each run.
fn runs(result: &Value, path: &str) -> Option<Vec<f64>> {
    result["runs"][path].as_array()?.iter().map(Value::as_f64).collect()
}

fn range(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most - values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// How unsteady the machine was: in either, and from one to the other.
fn noise(earlier: &Value, report: &Value) -> f64 {
    let of = |report: &Value| report["noise"]["relative"].as_f64().unwrap_or(0.0);
    let speed = |report: &Value| report["noise"]["calibration_us"]["p50"].as_f64().filter(|us| *us > 0.0);
    let drift = speed(earlier).zip(speed(report)).map_or(0.0, |(then, now)| (now / then - 1.0).abs());
    of(earlier).max(of(report)) + drift
}

fn compare(label: &str, figure: &str, then: &[f64], now: &[f64], noise: f64) -> Compared {
    let (before, after) = (median(then), median(now));
    let share =
        |difference: f64| if before == 0.0 { difference.abs().min(1.0) } else { difference / before.abs() };
    let change = share(after - before);
    let fewest = then.len().min(now.len());
    let tolerance = (fewest > 1).then(|| widening(fewest) * share(range(then) + range(now)));
    let verdict = match tolerance {
        None => Verdict::Inconclusive,
        Some(tolerance) if change.abs() <= tolerance && tolerance > TOLERANCE_MAX => Verdict::Inconclusive,
        Some(tolerance) if change.abs() <= tolerance => Verdict::Agrees,
        Some(_) if change.abs() <= noise => Verdict::Inconclusive,
        Some(_) => Verdict::Differs,
    };
    Compared {
        label: label.to_owned(),
        figure: figure.to_owned(),
        then: before,
        now: after,
        change,
        tolerance,
        verdict,
    }
}

impl Against {
    /// Compares `report` with an earlier one.
    ///
    /// # Errors
    /// They have no figure in common.
    pub(crate) fn new(earlier: &Value, report: &Value) -> Result<Self, BenchError> {
        let noise = noise(earlier, report);
        let mut figures = Vec::new();
        for result in results(report) {
            let Some(before) = with_label(earlier, &result["label"]) else { continue };
            let label = text(&result["label"]);
            let paths = result["runs"].as_object().into_iter().flatten().map(|(path, _)| path);
            for path in paths {
                if let (Some(then), Some(now)) = (runs(before, path), runs(result, path)) {
                    figures.push(compare(&label, path, &then, &now, noise));
                }
            }
        }
        if figures.is_empty() {
            return Err(BenchError::usage(
                "--against has no figure in common with this; give both the same options and --repeat 2 or more",
            ));
        }
        let only = |these: &Value, others: &Value| {
            let labels = results(these).iter().map(|result| &result["label"]);
            labels.filter(|label| with_label(others, label).is_none()).map(text).collect::<Vec<_>>()
        };
        Ok(Against {
            commit: text(&earlier["host"]["commit"]),
            other_parameters: other_parameters(&earlier["parameters"], &report["parameters"]),
            alone: [only(earlier, report), only(report, earlier)].concat(),
            figures,
        })
    }

    /// `differs` if any figure does, `inconclusive` if any is, `agrees` otherwise.
    pub(crate) fn verdict(&self) -> Verdict {
        let has = |verdict| self.figures.iter().any(|figure| figure.verdict == verdict);
        match (has(Verdict::Differs), has(Verdict::Inconclusive)) {
            (true, _) => Verdict::Differs,
            (false, true) => Verdict::Inconclusive,
            (false, false) => Verdict::Agrees,
        }
    }

    /// The figures that differ, for an error.
    pub(crate) fn differing(&self) -> Vec<String> {
        let differing = self.figures.iter().filter(|figure| figure.verdict == Verdict::Differs);
        differing.map(|figure| format!("{} of {}", figure.figure, figure.label)).collect()
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let percent = |share: f64| format!("{:+.1} %", share * 100.0);
        let rows: Vec<Vec<String>> = self
            .figures
            .iter()
            .map(|figure| {
                vec![
                    format!("{}: {}", figure.label, figure.figure),
                    table::quantity(&figure.figure, figure.then),
                    table::quantity(&figure.figure, figure.now),
                    percent(figure.change),
                    figure.tolerance.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0)),
                    format!("{:?}", figure.verdict).to_lowercase(),
                ]
            })
            .collect();
        let header = ["figure", "then", "now", "change", "may differ by", "verdict"];
        let mut text =
            format!("\nAgainst the earlier run (commit {})\n{}", self.commit, table::numbers(&header, &rows));
        if !self.other_parameters.is_empty() {
            text += &format!("other parameters: {}\n", self.other_parameters.join(", "));
        }
        if !self.alone.is_empty() {
            text += &format!("only in one of them: {}\n", self.alone.join(", "));
        }
        text
    }
}

fn other_parameters(then: &Value, now: &Value) -> Vec<String> {
    let none = Map::new();
    let (then, now) = (then.as_object().unwrap_or(&none), now.as_object().unwrap_or(&none));
    let mut names: Vec<String> = then.keys().chain(now.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| then.get(name) != now.get(name));
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(goodput: &[f64], noise: f64) -> Value {
        json!({
            "experiment": "oob", "parameters": {"seed": 1}, "host": {"commit": "abc"},
            "noise": {"relative": noise, "calibration_us": {"p50": 100.0}},
            "results": [{"label": "oob", "runs": {"goodput_bps": goodput}}],
        })
    }

    fn verdict(then: &[f64], now: &[f64], noise: f64) -> Verdict {
        Against::new(&report(then, noise), &report(now, noise)).unwrap().verdict()
    }

    #[test]
    fn medians_agree_within_the_spreads_of_both_and_differ_beyond_them() {
        assert_eq!(verdict(&[90.0, 100.0, 105.0], &[108.0, 110.0, 112.0], 0.0), Verdict::Agrees);
        assert_eq!(verdict(&[98.0, 100.0], &[106.0, 108.0], 0.0), Verdict::Agrees, "two runs show little");
        assert_eq!(verdict(&[99.0, 100.0, 101.0], &[109.0, 110.0, 111.0], 0.0), Verdict::Differs);
        assert_eq!(verdict(&[99.0, 100.0, 101.0], &[109.0, 110.0, 111.0], 0.15), Verdict::Inconclusive);
        assert_eq!(verdict(&[100.0], &[100.0], 0.0), Verdict::Inconclusive, "one run states no spread");
        assert_eq!(verdict(&[60.0, 100.0, 105.0], &[80.0, 110.0, 112.0], 0.0), Verdict::Inconclusive);
        assert_eq!(verdict(&[0.0, 0.0], &[0.0, 0.0], 0.0), Verdict::Agrees);
        assert_eq!(verdict(&[0.0, 0.0], &[1e9, 1e9], 0.0), Verdict::Differs);
    }

    #[test]
    fn a_machine_that_became_slower_is_noise() {
        let (then, mut now) = (report(&[99.9, 100.1], 0.0), report(&[109.9, 110.1], 0.0));
        now["noise"]["calibration_us"]["p50"] = json!(125.0);
        assert_eq!(Against::new(&then, &now).unwrap().verdict(), Verdict::Inconclusive);
    }

    #[test]
    fn other_parameters_and_lone_results_are_named() {
        let (mut then, now) = (report(&[10.0, 10.2], 0.0), report(&[10.0, 10.2], 0.0));
        then["parameters"]["seed"] = json!(2);
        then["results"].as_array_mut().unwrap().push(json!({"label": "fifo"}));
        let text = Against::new(&then, &now).unwrap().table();
        assert!(
            text.contains("other parameters: seed") && text.contains("only in one of them: fifo"),
            "{text}"
        );
        assert!(text.contains("agrees") && text.contains("abc"), "{text}");
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let nothing = json!({"experiment": "oob", "results": []});
        assert!(Against::new(&nothing, &report(&[1.0, 2.0], 0.0)).is_err());
        assert!(matches!(read(Path::new("/dev/null"), "oob"), Err(BenchError::Usage(_))));
    }
}
