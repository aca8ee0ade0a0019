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

/// The ratios of a list of results: ours over its peer at each point, then each variant over itself at the first value
/// of `key` (which is why that value should be the undisturbed one).
pub(crate) fn ratios(results: &[ThroughputResult], key: &str) -> Vec<ThroughputRatio> {
    let mut ratios = Vec::new();
    for ours in results.iter().filter(|result| result.variant == "outrider") {
        let peers = results.iter().filter(|peer| peer.variant != "outrider" && peer.point == ours.point);
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
        }
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
