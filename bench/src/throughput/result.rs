//! What the experiments find, and how it is shown.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::table;

/// One variant at one point.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ThroughputResult {
    /// Whose TCP.
    pub(crate) variant: &'static str,
    /// The values of the list options at this point, each under its own name.
    #[serde(flatten)]
    pub(crate) point: Map<String, Value>,
    /// Payload delivered in order, bits per second (of virtual time over `memory`).
    pub(crate) goodput_bps: f64,
    /// Frames of both directions, where this process sees them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) frames_per_second: Option<f64>,
    /// Processor time per byte delivered: both ends and the cable over `memory`; over `tap` what this process used,
    /// which for the kernel's own ends leaves out most.
    pub(crate) cpu_ns_per_byte: Option<f64>,
    /// The same per frame that the sender sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_ns_per_segment: Option<f64>,
    /// Longest time without a delivered byte at the receiver.
    pub(crate) longest_stall_us: f64,
    /// Processor time used.
    pub(crate) cpu_seconds: f64,
    /// Length of the measurement.
    pub(crate) seconds: f64,
    /// Frames that the sender sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) segments: Option<u64>,
    /// Segments sent again, where the stack tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retransmits: Option<u64>,
    /// Frames for which the queue of the link had no room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) queue_drops: Option<u64>,
    /// What the runs lie between, where there were several; the rest is that of the run with the median goodput,
    /// but for the longest stall, which is the longest of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runs: Option<Runs>,
    /// How a bottleneck was shared, where it was.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) fairness: Option<Fairness>,
}

/// Several runs of one variant at one point.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Runs {
    /// Goodput of each, in the order in which they were made.
    pub(crate) goodput_bps: Vec<f64>,
}

impl Runs {
    fn range(&self) -> (f64, f64) {
        let least = self.goodput_bps.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.goodput_bps.iter().copied().fold(0.0, f64::max))
    }
}

/// Two flows through one bottleneck.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Fairness {
    /// Goodput of the other flow.
    pub(crate) competitor_goodput_bps: f64,
    /// Share of the first flow in what both got.
    pub(crate) share: f64,
    /// Jain's index: 1 if both got the same, 0.5 if one got all.
    pub(crate) jain: f64,
}

impl Fairness {
    pub(crate) fn of(first_bps: f64, competitor_bps: f64) -> Self {
        let sum = first_bps + competitor_bps;
        let squares = first_bps * first_bps + competitor_bps * competitor_bps;
        let over = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        Fairness {
            competitor_goodput_bps: competitor_bps,
            share: over(first_bps, sum),
            jain: over(sum * sum, 2.0 * squares),
        }
    }
}

/// The run with the median goodput, and what all lie between. `None` if there was none.
pub(crate) fn median_of(runs: Vec<ThroughputResult>) -> Option<ThroughputResult> {
    let goodput_bps: Vec<f64> = runs.iter().map(|run| run.goodput_bps).collect();
    let longest_stall_us = runs.iter().map(|run| run.longest_stall_us).fold(0.0, f64::max);
    let mut sorted = runs;
    sorted.sort_by(|a, b| a.goodput_bps.total_cmp(&b.goodput_bps));
    let middle = sorted.len().saturating_sub(1) / 2;
    let median = sorted.into_iter().nth(middle)?;
    let several = goodput_bps.len() > 1;
    Some(ThroughputResult { longest_stall_us, runs: several.then_some(Runs { goodput_bps }), ..median })
}

/// Two results set against each other: how many times larger the first is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ThroughputRatio {
    /// Such as `outrider/smoltcp`, or `outrider/outrider at loss 0`.
    pub(crate) of: String,
    /// The values of the list options of the first.
    #[serde(flatten)]
    pub(crate) point: Map<String, Value>,
    /// Of the goodput; `null` where the second delivered nothing.
    pub(crate) goodput: Option<f64>,
    /// Of the processor time per byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_per_byte: Option<f64>,
    /// Of the processor time per segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_per_segment: Option<f64>,
}

impl ThroughputRatio {
    fn between(of: String, first: &ThroughputResult, second: &ThroughputResult) -> Self {
        let over = |a: f64, b: f64| (b > 0.0).then(|| a / b);
        let both = |a: Option<f64>, b: Option<f64>| a.zip(b).and_then(|(a, b)| over(a, b));
        ThroughputRatio {
            of,
            point: first.point.clone(),
            goodput: over(first.goodput_bps, second.goodput_bps),
            cpu_per_byte: both(first.cpu_ns_per_byte, second.cpu_ns_per_byte),
            cpu_per_segment: both(first.cpu_ns_per_segment, second.cpu_ns_per_segment),
        }
    }
}

/// Whether two points agree in what both name: an option that one of them does not have makes no difference to it.
fn is_one_point(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    one.iter().all(|(key, value)| other.get(key).is_none_or(|same| same == value))
}

/// The ratios of a list of results: ours over its peer at each point, then each variant over itself at the first value
/// of `key` (which is why that value should be the undisturbed one).
pub(crate) fn ratios(results: &[ThroughputResult], key: &str) -> Vec<ThroughputRatio> {
    let mut ratios = Vec::new();
    for ours in results.iter().filter(|result| result.variant == "outrider") {
        let peers = results
            .iter()
            .filter(|peer| peer.variant != "outrider" && is_one_point(&peer.point, &ours.point));
        for peer in peers {
            let of = format!("{}/{}", ours.variant, peer.variant);
            ratios.push(ThroughputRatio::between(of, ours, peer));
        }
    }
    for result in results {
        let others = |point: &Map<String, Value>| {
            point.iter().filter(|(name, _)| *name != key).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        let rest: Map<String, Value> = others(&result.point);
        let base = results.iter().find(|base| base.variant == result.variant && others(&base.point) == rest);
        let Some(base) = base.filter(|base| base.point != result.point) else { continue };
        let value = base.point.get(key).map(Value::to_string).unwrap_or_default();
        let of = format!("{0}/{0} at {key} {value}", result.variant);
        ratios.push(ThroughputRatio::between(of, result, base));
    }
    ratios
}

fn label(variant: &str, point: &Map<String, Value>) -> String {
    let values = point.iter().map(|(key, value)| match value {
        Value::String(text) => format!(" {text}"),
        other => format!(" {key}={other}"),
    });
    values.fold(variant.to_owned(), |name, value| name + &value)
}

/// The least and the largest goodput, in Mbit/s.
fn between(runs: &Runs) -> String {
    let (least, most) = runs.range();
    format!("{:.1} to {:.1}", least / 1e6, most / 1e6)
}

/// The table of two flows through one bottleneck.
pub(crate) fn fairness_table(title: &str, results: &[ThroughputResult]) -> String {
    let rows: Vec<Vec<String>> = results
        .iter()
        .filter_map(|result| {
            let fairness = result.fairness.as_ref()?;
            let value = |key: &str| result.point.get(key).cloned().unwrap_or_default();
            Some(vec![
                format!("{} {}", result.variant, value("congestion").as_str().unwrap_or("-")),
                value("queue_bytes").as_u64().map_or_else(|| "-".to_owned(), table::bytes),
                table::bits_per_second(result.goodput_bps),
                table::bits_per_second(fairness.competitor_goodput_bps),
                table::percent(Some(fairness.share)),
                format!("{:.2}", fairness.jain),
                result.runs.as_ref().map_or_else(|| "-".to_owned(), between),
                table::micros(result.longest_stall_us),
            ])
        })
        .collect();
    let header = ["variant", "queue", "goodput", "competitor", "share", "Jain", "runs", "longest stall"];
    format!("\n{title}\n{}", table::numbers(&header, &rows))
}

/// The tables: results, then ratios.
pub(crate) fn tables(title: &str, results: &[ThroughputResult], ratios: &[ThroughputRatio]) -> String {
    let dash = || "-".to_owned();
    let nanos = |value: Option<f64>, digits: usize| value.map_or_else(dash, |n| format!("{n:.digits$} ns"));
    let count = |value: Option<u64>| value.map_or_else(dash, |n| n.to_string());
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|result| {
            vec![
                label(result.variant, &result.point),
                table::bits_per_second(result.goodput_bps),
                result.runs.as_ref().map_or_else(dash, between),
                result.frames_per_second.map_or_else(dash, |n| format!("{n:.0}")),
                table::micros(result.longest_stall_us),
                nanos(result.cpu_ns_per_segment, 0),
                nanos(result.cpu_ns_per_byte, 3),
                count(result.segments),
                count(result.retransmits),
                count(result.queue_drops),
            ]
        })
        .collect();
    let mut text = format!("\n{title}\n");
    text += &table::numbers(
        &[
            "variant",
            "goodput",
            "runs",
            "frames/s",
            "longest stall",
            "CPU/segment",
            "CPU/byte",
            "segments",
            "sent again",
            "no room",
        ],
        &rows,
    );
    if ratios.is_empty() {
        return text;
    }
    let times = |value: Option<f64>| value.map_or_else(dash, |n| format!("{n:.2}"));
    let rows: Vec<Vec<String>> = ratios
        .iter()
        .map(|ratio| {
            vec![
                label(&ratio.of, &ratio.point),
                ratio.goodput.map_or_else(dash, |n| format!("{n:.3}")),
                times(ratio.cpu_per_segment),
                times(ratio.cpu_per_byte),
            ]
        })
        .collect();
    text += "\nRatios\n";
    text += &table::numbers(&["of", "goodput", "CPU/segment", "CPU/byte"], &rows);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result(variant: &'static str, loss: f64, goodput_bps: f64) -> ThroughputResult {
        ThroughputResult {
            variant,
            point: [("loss".to_owned(), json!(loss))].into_iter().collect(),
            goodput_bps,
            frames_per_second: None,
            cpu_ns_per_byte: Some(goodput_bps),
            cpu_ns_per_segment: None,
            longest_stall_us: 0.0,
            cpu_seconds: 0.0,
            seconds: 1.0,
            segments: None,
            retransmits: None,
            queue_drops: None,
            runs: None,
            fairness: None,
        }
    }

    #[test]
    fn of_several_runs_the_median_is_shown_and_what_they_lie_between() {
        let mut runs: Vec<ThroughputResult> =
            [5.0, 9.0, 7.0].map(|goodput| result("outrider", 0.0, goodput)).to_vec();
        runs[1].longest_stall_us = 12.0;
        let median = median_of(runs).expect("there are runs");
        assert_eq!((median.goodput_bps, median.longest_stall_us), (7.0, 12.0));
        assert_eq!(median.runs.map(|runs| (runs.range(), runs.goodput_bps.len())), Some(((5.0, 9.0), 3)));
        assert!(median_of(Vec::new()).is_none());
        let alone = median_of(vec![result("outrider", 0.0, 5.0)]).expect("there is one");
        assert_eq!(alone.runs, None);
    }

    #[test]
    fn jain_is_one_for_equal_shares_and_a_half_if_one_takes_all() {
        assert_eq!(Fairness::of(5.0, 5.0).jain, 1.0);
        assert_eq!(Fairness::of(5.0, 0.0).jain, 0.5);
        let uneven = Fairness::of(1.0, 3.0);
        assert_eq!((uneven.share, uneven.jain), (0.25, 0.8));
        assert_eq!(Fairness::of(0.0, 0.0).jain, 0.0, "nothing was shared");
    }

    #[test]
    fn each_result_is_set_against_its_peer_and_against_itself_undisturbed() {
        let results = [
            result("outrider", 0.0, 8.0),
            result("smoltcp", 0.0, 4.0),
            result("outrider", 0.01, 6.0),
            result("smoltcp", 0.01, 1.0),
        ];
        let found: Vec<(String, Option<f64>)> =
            ratios(&results, "loss").into_iter().map(|ratio| (ratio.of, ratio.goodput)).collect();
        let expected = [
            ("outrider/smoltcp", 2.0),
            ("outrider/smoltcp", 6.0),
            ("outrider/outrider at loss 0.0", 0.75),
            ("smoltcp/smoltcp at loss 0.0", 0.25),
        ];
        assert_eq!(found, expected.map(|(of, ratio)| (of.to_owned(), Some(ratio))));
    }
}
