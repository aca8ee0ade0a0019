//! What several runs of one variant come to.

use std::ops::Deref;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::table;

/// A member of a result that runs differ in, and what is told of several.
#[derive(Debug)]
pub(crate) enum Figure<'a> {
    /// The median; this is what results are compared by.
    Median(&'a mut f64),
    /// The median of a count.
    MedianCount(&'a mut u64),
    /// The largest of all runs.
    Largest(&'a mut f64),
    /// The largest of all runs.
    LargestCount(&'a mut u64),
    /// All runs together.
    Total(&'a mut f64),
    /// All runs together.
    TotalCount(&'a mut u64),
}

impl Figure<'_> {
    fn kind(&self) -> Kind {
        match self {
            Figure::Median(_) | Figure::MedianCount(_) => Kind::Median,
            Figure::Largest(_) | Figure::LargestCount(_) => Kind::Largest,
            Figure::Total(_) | Figure::TotalCount(_) => Kind::Total,
        }
    }

    fn value(&self) -> f64 {
        match self {
            Figure::Median(value) | Figure::Largest(value) | Figure::Total(value) => **value,
            Figure::MedianCount(count) | Figure::LargestCount(count) | Figure::TotalCount(count) => {
                **count as f64
            }
        }
    }

    fn set(self, told: f64) {
        match self {
            Figure::Median(value) | Figure::Largest(value) | Figure::Total(value) => *value = told,
            Figure::MedianCount(count) | Figure::LargestCount(count) | Figure::TotalCount(count) => {
                *count = told.round() as u64;
            }
        }
    }
}

/// What is told of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Median,
    Largest,
    Total,
}

impl Kind {
    fn told(self, values: &[f64]) -> f64 {
        match self {
            Kind::Median => median(values),
            Kind::Largest => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Kind::Total => values.iter().sum(),
        }
    }
}

/// By how much the spread of so many runs is to be widened before a difference beyond it is believed: few runs show little
/// of what there is. With this less than one comparison in a hundred of two normal samples of equal median differs.
pub(super) fn widening(runs: usize) -> f64 {
    match runs {
        0..=2 => 4.0,
        3 => 1.5,
        _ => 1.0,
    }
}

/// The same for what is one sample, a second test by which a difference may pass; so of equals two in a hundred may. How many times
/// its range its median is from zero in one sample of a hundred of a normal distribution around zero (by drawing 60,000 of
/// each size).
pub(super) fn widening_of_one(runs: usize) -> f64 {
    match runs {
        0 | 1 => f64::INFINITY,
        2 => 32.0,
        3 => 3.2,
        4 => 1.33,
        5 => 0.89,
        6 => 0.67,
        7 => 0.56,
        _ => 0.5,
    }
}

/// The value in the middle, or between the two there.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// Shows each figure of a result with its path in the JSON, such as `heartbeat.one_way_us.p50`. The order is that of
/// tables; a figure that a run does not have is left out.
pub(crate) type Visit<'a> = dyn FnMut(&str, Figure<'_>) + 'a;

/// A result that can be repeated.
pub(crate) trait Figures: Clone {
    /// What tells it from the other results of a report: the variant, and where it was measured.
    fn label(&self) -> String;

    /// Shows all figures.
    fn figures(&mut self, visit: &mut Visit<'_>);

    /// Sees to the members that are not figures, once the figures are settled. `runs` are at least one.
    fn settle(&mut self, _runs: &[Self]) {}
}

/// What one figure was in each run, in the order in which they were made.
#[derive(Clone, Debug, PartialEq)]
struct Column {
    path: String,
    kind: Kind,
    values: Vec<f64>,
}

impl Column {
    /// The least and the largest.
    fn range(&self) -> (f64, f64) {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    /// From the least to the largest, over the median.
    fn spread(&self) -> f64 {
        let (least, most) = self.range();
        let median = median(&self.values).abs();
        if median > 0.0 { (most - least) / median } else { 0.0 }
    }
}

/// What is told of a figure, and what its runs lie between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Told {
    pub(super) told: f64,
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) runs: usize,
}

/// The result of several runs. In the JSON: the result's own members, `label`, and with more than one run `runs` (the
/// values of each figure of which the median is told) and `spread` (from the least to the largest, over the median).
#[derive(Clone, Debug)]
pub(crate) struct Repeated<R> {
    result: R,
    label: String,
    columns: Vec<Column>,
}

impl<R> Deref for Repeated<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.result
    }
}

/// Makes one result of several runs. `None` if there was none.
pub(crate) fn combine<R: Figures>(mut runs: Vec<R>) -> Option<Repeated<R>> {
    let mut columns: Vec<Column> = Vec::new();
    let mut counts = Vec::new();
    for run in &mut runs {
        let mut count = 0;
        run.figures(&mut |path, figure| {
            count += 1;
            let (kind, value) = (figure.kind(), figure.value());
            match columns.iter_mut().find(|column| column.path == path) {
                Some(column) => column.values.push(value),
                None => columns.push(Column { path: path.to_owned(), kind, values: vec![value] }),
            }
        });
        counts.push(count);
    }
    // A run may lack a figure, such as a delay where nothing arrived: one that has most is what the medians go into.
    let most = counts.iter().copied().max().unwrap_or(0);
    let mut result = runs.get(counts.iter().position(|count| *count == most)?)?.clone();
    result.figures(&mut |path, figure| {
        if let Some(column) = columns.iter().find(|column| column.path == path) {
            figure.set(column.kind.told(&column.values));
        }
    });
    result.settle(&runs);
    columns.retain(|column| column.kind != Kind::Total);
    Some(Repeated { label: result.label(), result, columns })
}

impl<R: Figures> Repeated<R> {
    /// The result of something that is not repeated.
    pub(crate) fn once(result: R) -> Self {
        combine(vec![result]).expect("there is a run")
    }
}

impl<R> Repeated<R> {
    fn column(&self, path: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.path == path)
    }

    /// What is told of a figure; `None` if there is no such figure.
    pub(super) fn told(&self, path: &str) -> Option<Told> {
        let column = self.column(path)?;
        let (least, most) = column.range();
        Some(Told { told: column.kind.told(&column.values), least, most, runs: column.values.len() })
    }

    /// A figure of which the median is told, in each run; `None` where a run lacks it.
    pub(super) fn each(&self, path: &str) -> Option<&[f64]> {
        let whole = |column: &&Column| column.kind == Kind::Median && column.values.len() == self.runs();
        self.column(path).filter(whole).map(|column| column.values.as_slice())
    }

    /// How many runs there were.
    pub(crate) fn runs(&self) -> usize {
        self.columns.iter().map(|column| column.values.len()).max().unwrap_or(0)
    }
}

impl<R: Serialize> Serialize for Repeated<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// A list of columns as one object.
        struct Columns<'a, T>(&'a [Column], fn(&'a Column) -> T);
        impl<T: Serialize> Serialize for Columns<'_, T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let medians = self.0.iter().filter(|column| column.kind == Kind::Median);
                serializer.collect_map(medians.map(|column| (&column.path, self.1(column))))
            }
        }
        #[derive(Serialize)]
        struct Whole<'a, R> {
            label: &'a str,
            #[serde(flatten)]
            result: &'a R,
            #[serde(skip_serializing_if = "Option::is_none")]
            runs: Option<Columns<'a, &'a [f64]>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            spread: Option<Columns<'a, f64>>,
        }
        let several = self.runs() > 1;
        let whole = Whole {
            label: &self.label,
            result: &self.result,
            runs: several.then_some(Columns(&self.columns, |column| column.values.as_slice())),
            spread: several.then_some(Columns(&self.columns, Column::spread)),
        };
        whole.serialize(serializer)
    }
}

/// What the runs of each result lie between, of the figures given by path and name; empty with one run each.
pub(crate) fn spread_table<R>(results: &[Repeated<R>], figures: &[(&str, &str)]) -> String {
    let runs = results.iter().map(Repeated::runs).max().unwrap_or(0);
    if runs < 2 {
        return String::new();
    }
    let shown: Vec<_> = figures
        .iter()
        .filter(|(path, _)| results.iter().any(|result| result.column(path).is_some()))
        .collect();
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|result| {
            let cell = |path: &str| result.column(path).map_or_else(|| "-".to_owned(), between);
            std::iter::once(result.label.clone()).chain(shown.iter().map(|(path, _)| cell(path))).collect()
        })
        .collect();
    let header: Vec<&str> = std::iter::once("variant").chain(shown.iter().map(|(_, name)| *name)).collect();
    format!("\nThe {runs} runs lie between (spread over the median)\n{}", table::numbers(&header, &rows))
}

fn between(column: &Column) -> String {
    let (least, most) = column.range();
    let quantity = |value| table::quantity(&column.path, value);
    let spread = column.spread() * 100.0;
    format!("{} to {} ({spread:.0} %)", quantity(least), quantity(most))
}

/// A label of a variant and the values that tell its point from others.
pub(crate) fn label(variant: &str, point: &Map<String, Value>) -> String {
    let values = point.iter().map(|(key, value)| match value {
        Value::String(text) => format!(" {text}"),
        other => format!(" {key}={other}"),
    });
    values.fold(variant.to_owned(), |name, value| name + &value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Clone, Debug, PartialEq, Serialize)]
    struct Sample {
        goodput_bps: f64,
        delay_us: Option<f64>,
        stall_us: f64,
        sent: u64,
    }

    impl Figures for Sample {
        fn label(&self) -> String {
            "sample".into()
        }

        fn figures(&mut self, visit: &mut Visit<'_>) {
            visit("goodput_bps", Figure::Median(&mut self.goodput_bps));
            if let Some(delay) = &mut self.delay_us {
                visit("delay_us", Figure::Median(delay));
            }
            visit("stall_us", Figure::Largest(&mut self.stall_us));
            visit("sent", Figure::TotalCount(&mut self.sent));
        }
    }

    fn sample(goodput_bps: f64, delay_us: Option<f64>, stall_us: f64) -> Sample {
        Sample { goodput_bps, delay_us, stall_us, sent: 10 }
    }

    #[test]
    fn of_several_runs_the_median_the_largest_and_the_total_are_told() {
        let runs = vec![sample(5.0, None, 1.0), sample(9.0, Some(3.0), 12.0), sample(7.0, Some(5.0), 2.0)];
        let combined = combine(runs).unwrap();
        let expected = Sample { goodput_bps: 7.0, delay_us: Some(4.0), stall_us: 12.0, sent: 30 };
        assert_eq!(combined.result, expected, "a run without a delay takes nothing from the others");
        let goodput = Told { told: 7.0, least: 5.0, most: 9.0, runs: 3 };
        assert_eq!((combined.runs(), combined.told("goodput_bps")), (3, Some(goodput)));
        assert_eq!(combined.told("stall_us").map(|told| told.told), Some(12.0));
        let told = serde_json::to_value(&combined).unwrap();
        assert_eq!(told["label"], "sample");
        assert_eq!(
            told["runs"]["goodput_bps"],
            json!([5.0, 9.0, 7.0]),
            "in the order in which they were made"
        );
        assert!((told["spread"]["goodput_bps"].as_f64().unwrap() - 4.0 / 7.0).abs() < 1e-9);
        assert!(told["runs"].get("sent").is_none() && told["runs"].get("stall_us").is_none(), "{told}");
        assert!(combine(Vec::<Sample>::new()).is_none());
    }

    #[test]
    fn one_run_has_no_spread() {
        let told = serde_json::to_value(Repeated::once(sample(5.0, None, 1.0))).unwrap();
        assert_eq!(
            told,
            json!({"label": "sample", "goodput_bps": 5.0, "delay_us": null, "stall_us": 1.0, "sent": 10})
        );
        assert_eq!(
            spread_table(&[Repeated::once(sample(5.0, None, 1.0))], &[("goodput_bps", "goodput")]),
            ""
        );
    }

    #[test]
    fn the_table_of_spreads_has_the_figures_that_there_are() {
        let results = [combine(vec![sample(1e6, None, 1.0), sample(2e6, None, 1.0)]).unwrap()];
        let text = spread_table(&results, &[("goodput_bps", "goodput"), ("delay_us", "delay")]);
        assert!(text.contains("1.0 Mbit/s to 2.0 Mbit/s (67 %)") && !text.contains("delay"), "{text}");
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), 3.0);
        assert_eq!(median(&[]), 0.0);
    }
}
