//! Two results set against each other, where the difference can be told from chance.
//!
//! Runs are made by turns, so the first of one variant and the first of the other share their minute, and what burdens
//! the machine then burdens both. A ratio is therefore taken run by run, and what is told is the median of these.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::figures::{Repeated, Told, label, median, widening, widening_of_one};
use crate::table::{self, times};

/// A figure to compare.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Its name among the ratios.
    pub(crate) name: &'static str,
    /// Its path in a result.
    pub(crate) path: &'static str,
    /// Whether the speed of the machine is in it; not so in virtual time.
    pub(crate) of_machine: bool,
}

impl Key {
    /// A figure that depends on the machine.
    pub(crate) const fn new(name: &'static str, path: &'static str) -> Self {
        Key { name, path, of_machine: true }
    }
}

/// How many times larger the first of two results is, figure by figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Ratio {
    /// Such as `fifo/oob`.
    pub(crate) of: String,
    /// The values of the list options of the first.
    #[serde(flatten)]
    pub(crate) point: Map<String, Value>,
    /// By the figure's name; `null` where it is inconclusive, or the second is zero.
    #[serde(flatten)]
    values: BTreeMap<&'static str, Option<f64>>,
    /// The least and the largest ratio of one run, or where the two have not equally many, that the runs allow; by name.
    bounds: BTreeMap<&'static str, [f64; 2]>,
    /// Why a figure was refused, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    inconclusive: BTreeMap<&'static str, &'static str>,
}

/// One run cannot tell a difference from chance.
const ONE_RUN: &str = "one run has no spread; give --repeat 3 or more";
/// Chance could have made it: the runs of one variant differ among themselves about as much as the variants.
const SPREAD: &str = "the runs differ among themselves by about as much";
/// The machine was less steady than the difference is large.
const NOISE: &str = "the machine varied by more";

impl Ratio {
    /// Sets `above` against `below`, whose runs took turns. Figures that one of them does not have are left out.
    pub(crate) fn between<R>(
        of: impl Into<String>,
        point: &Map<String, Value>,
        both: [&Repeated<R>; 2],
        keys: &[Key],
        noise: f64,
    ) -> Self {
        Ratio::of(of.into(), point, both, keys, (noise, true))
    }

    /// [`Self::between`] for what was measured one after the other: nothing but the medians can be compared.
    pub(crate) fn across<R>(
        of: impl Into<String>,
        point: &Map<String, Value>,
        both: [&Repeated<R>; 2],
        keys: &[Key],
        noise: f64,
    ) -> Self {
        Ratio::of(of.into(), point, both, keys, (noise, false))
    }

    fn of<R>(
        of: String,
        point: &Map<String, Value>,
        [above, below]: [&Repeated<R>; 2],
        keys: &[Key],
        (noise, by_turns): (f64, bool),
    ) -> Self {
        let mut ratio = Ratio {
            of,
            point: point.clone(),
            values: BTreeMap::new(),
            bounds: BTreeMap::new(),
            inconclusive: BTreeMap::new(),
        };
        for key in keys {
            let (Some(first), Some(second)) = (above.told(key.path), below.told(key.path)) else { continue };
            ratio.values.insert(key.name, None);
            if second.told <= 0.0 {
                continue;
            }
            let pairs = run_by_run(above.each(key.path), below.each(key.path)).filter(|_| by_turns);
            let value = pairs.as_deref().map_or(first.told / second.told, median);
            if let Some(pairs) = &pairs {
                ratio.bounds.insert(key.name, range(pairs));
            } else if second.least > 0.0 {
                ratio.bounds.insert(key.name, [first.least / second.most, first.most / second.least]);
            }
            let noise = if key.of_machine { noise } else { 0.0 };
            let steady = pairs.is_some_and(|pairs| is_beyond_chance(&pairs, value));
            match refusal(&first, &second, value, noise, steady) {
                Some(reason) => {
                    ratio.inconclusive.insert(key.name, reason);
                }
                None => {
                    ratio.values.insert(key.name, Some(value));
                }
            }
        }
        ratio
    }

    fn cell(&self, name: &str) -> String {
        let bounds =
            self.bounds.get(name).map(|[least, most]| format!("{} to {}", times(*least), times(*most)));
        match (self.values.get(name), self.inconclusive.get(name), bounds) {
            (Some(Some(value)), _, Some(bounds)) => format!("{} ({bounds})", times(*value)),
            (Some(Some(value)), _, None) => times(*value),
            (_, Some(_), Some(bounds)) => format!("inconclusive ({bounds})"),
            (_, Some(_), None) => "inconclusive".to_owned(),
            _ => "-".to_owned(),
        }
    }
}

/// The ratio in each run. `None`: there are not as many of one as of the other.
fn run_by_run(above: Option<&[f64]>, below: Option<&[f64]>) -> Option<Vec<f64>> {
    let (above, below) = (above?, below?);
    let sound = above.len() == below.len() && above.iter().chain(below).all(|value| *value > 0.0);
    sound.then(|| above.iter().zip(below).map(|(above, below)| above / below).collect())
}

/// The least and the largest.
fn range(values: &[f64]) -> [f64; 2] {
    values.iter().fold([f64::INFINITY, f64::NEG_INFINITY], |[least, most], value| {
        [least.min(*value), most.max(*value)]
    })
}

/// Whether the ratios of several runs around `value` are farther from one than those of equals would be.
fn is_beyond_chance(ratios: &[f64], value: f64) -> bool {
    let [least, most] = range(ratios);
    // Two that are alike to the digit may be so by chance, where a figure is coarse.
    let told = ratios.len() > 2 || least < most;
    told && value.ln().abs() > widening_of_one(ratios.len()) * (most / least).ln()
}

/// Why the difference cannot be told from chance, if so. `steady`: it is there run by run.
fn refusal(first: &Told, second: &Told, value: f64, noise: f64, steady: bool) -> Option<&'static str> {
    if first.runs.min(second.runs) < 2 {
        return Some(ONE_RUN);
    }
    // Equal in every run: there is no chance in it, and no difference.
    let is_exact = |told: &Told| told.least == told.most;
    if is_exact(first) && is_exact(second) {
        return None;
    }
    // On a logarithmic scale, as ratios are: what is many times as large is so however wide the spread of the smaller.
    let spread = |told: &Told| if told.least > 0.0 { (told.most / told.least).ln() } else { f64::INFINITY };
    let apart = value.ln().abs() > widening(first.runs.min(second.runs)) * (spread(first) + spread(second));
    if !apart && !steady {
        return Some(SPREAD);
    }
    let difference = value.max(1.0 / value) - 1.0;
    (difference <= noise).then_some(NOISE)
}

/// The table of ratios, and why some were refused.
pub(crate) fn ratio_table(ratios: &[Ratio], columns: &[(&'static str, &str)]) -> String {
    if ratios.is_empty() {
        return String::new();
    }
    let present = |name: &&'static str| ratios.iter().any(|ratio| ratio.values.contains_key(*name));
    let columns: Vec<_> = columns.iter().filter(|(name, _)| present(name)).collect();
    let rows: Vec<Vec<String>> = ratios
        .iter()
        .map(|ratio| {
            let name = std::iter::once(label(&ratio.of, &ratio.point));
            name.chain(columns.iter().map(|(name, _)| ratio.cell(name))).collect()
        })
        .collect();
    let header: Vec<&str> = std::iter::once("of").chain(columns.iter().map(|(_, title)| *title)).collect();
    let mut text = format!("\nRatios (and what the runs allow)\n{}", table::numbers(&header, &rows));
    let mut reasons: Vec<&str> =
        ratios.iter().flat_map(|ratio| ratio.inconclusive.values().copied()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    for reason in reasons {
        text += &format!("inconclusive where {reason}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Figure, Figures, Visit, combine};
    use super::*;
    use serde_json::json;

    #[derive(Clone, Debug, Serialize)]
    struct Sample(f64);

    impl Figures for Sample {
        fn label(&self) -> String {
            String::new()
        }

        fn figures(&mut self, visit: &mut Visit<'_>) {
            visit("delay_us", Figure::Median(&mut self.0));
        }
    }

    const KEYS: [Key; 1] = [Key::new("delay", "delay_us")];

    fn between(above: &[f64], below: &[f64], noise: f64) -> Value {
        let repeated = |values: &[f64]| combine(values.iter().copied().map(Sample).collect()).unwrap();
        let ratio = Ratio::between("a/b", &Map::new(), [&repeated(above), &repeated(below)], &KEYS, noise);
        serde_json::to_value(ratio).unwrap()
    }

    #[test]
    fn a_difference_beyond_spread_and_noise_is_told_with_its_bounds() {
        let ratio = between(&[20.0, 22.0, 24.0], &[10.0, 11.0, 12.0], 0.05);
        assert_eq!((&ratio["of"], &ratio["delay"]), (&json!("a/b"), &json!(2.0)));
        assert_eq!(ratio["bounds"]["delay"], json!([2.0, 2.0]));
        assert!(ratio.get("inconclusive").is_none(), "{ratio}");
    }

    #[test]
    fn what_burdens_both_variants_of_a_turn_is_not_in_their_ratio() {
        let ratio = between(&[7.0, 14.2, 21.0], &[10.0, 20.0, 30.0], 0.0);
        assert_eq!(ratio["delay"], 0.7, "{ratio}");
        assert_eq!(ratio["bounds"]["delay"], json!([0.7, 0.71]));
        let ratio = between(&[7.0, 19.0, 22.0], &[10.0, 20.0, 30.0], 0.0);
        assert_eq!(ratio["inconclusive"]["delay"], SPREAD, "run by run it is 0.70 to 0.95: {ratio}");
        let repeated = |values: &[f64]| combine(values.iter().copied().map(Sample).collect()).unwrap();
        let both = [&repeated(&[10.6, 11.1, 11.7]), &repeated(&[10.0, 10.5, 11.0])];
        let across = Ratio::across("a/a", &Map::new(), both, &KEYS, 0.0);
        assert_eq!(serde_json::to_value(across).unwrap()["inconclusive"]["delay"], SPREAD, "of two minutes");
        let ratio = between(&[20.0, 22.0, 24.0], &[10.0, 12.0], 0.0);
        assert_eq!(ratio["bounds"]["delay"], json!([20.0 / 12.0, 2.4]), "{ratio}");
    }

    #[test]
    fn what_chance_or_the_machine_could_have_made_is_refused() {
        for (above, below, noise, reason) in [
            (&[10.0, 14.0][..], &[11.0, 12.0][..], 0.0, SPREAD),
            (&[10.0, 11.0, 12.0], &[12.1, 12.5, 13.0], 0.0, SPREAD),
            (&[11.0, 11.1], &[10.0, 10.1], 0.2, NOISE),
            (&[10.0, 10.1], &[11.0, 11.1], 0.2, NOISE),
            (&[20.0], &[10.0], 0.0, ONE_RUN),
        ] {
            let ratio = between(above, below, noise);
            assert_eq!((&ratio["delay"], &ratio["inconclusive"]["delay"]), (&Value::Null, &json!(reason)));
        }
        // Virtual time gives the same in every run, and then there is nothing to doubt.
        assert_eq!(between(&[10.0, 10.0], &[10.0, 10.0], 0.2)["delay"], 1.0);
        assert_eq!(between(&[10.0, 10.0], &[0.0, 0.0], 0.2)["delay"], Value::Null);
    }

    #[test]
    fn the_table_says_why_a_ratio_is_missing() {
        let repeated = |values: &[f64]| combine(values.iter().copied().map(Sample).collect()).unwrap();
        let ratio = |above: &[f64]| {
            let both = [&repeated(above), &repeated(&[10.0, 10.5])];
            Ratio::between("a/b", &Map::new(), both, &KEYS, 0.0)
        };
        let text =
            ratio_table(&[ratio(&[20.0, 21.0]), ratio(&[9.0, 12.0])], &[("delay", "delay"), ("no", "no")]);
        assert!(
            text.contains("2.00 (2.00 to 2.00)") && text.contains("inconclusive (0.90 to 1.14)"),
            "{text}"
        );
        assert!(text.contains(SPREAD) && !text.contains(" no"), "{text}");
        assert_eq!(ratio_table(&[], &[]), "");
    }
}
