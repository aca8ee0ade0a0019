//! What the experiments find, and how it is shown.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::runs::{Figure, Figures, Key, Ratio, Repeated, Visit, label, ratio_table, spread_table};
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
    /// How a bottleneck was shared, where it was.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) fairness: Option<Fairness>,
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

impl ThroughputResult {
    /// A result of goodput and stalls, and of nothing else yet.
    pub(crate) fn of_goodput(
        variant: &'static str,
        point: Map<String, Value>,
        goodput_bps: f64,
        longest_stall_us: f64,
        seconds: f64,
    ) -> Self {
        ThroughputResult {
            variant,
            point,
            goodput_bps,
            frames_per_second: None,
            cpu_ns_per_byte: None,
            cpu_ns_per_segment: None,
            longest_stall_us,
            cpu_seconds: 0.0,
            seconds,
            segments: None,
            retransmits: None,
            queue_drops: None,
            fairness: None,
        }
    }
}

impl Figures for ThroughputResult {
    fn label(&self) -> String {
        label(self.variant, &self.point)
    }

    fn figures(&mut self, visit: &mut Visit<'_>) {
        // Exhaustive, so that a new figure cannot be forgotten here.
        let ThroughputResult {
            variant: _,
            point: _,
            goodput_bps,
            frames_per_second,
            cpu_ns_per_byte,
            cpu_ns_per_segment,
            longest_stall_us,
            cpu_seconds,
            seconds,
            segments,
            retransmits,
            queue_drops,
            fairness,
        } = self;
        visit("goodput_bps", Figure::Median(goodput_bps));
        let medians = [
            ("frames_per_second", frames_per_second),
            ("cpu_ns_per_byte", cpu_ns_per_byte),
            ("cpu_ns_per_segment", cpu_ns_per_segment),
        ];
        for (path, figure) in medians {
            figure.iter_mut().for_each(|figure| visit(path, Figure::Median(figure)));
        }
        if let Some(Fairness { competitor_goodput_bps, share, jain }) = fairness {
            visit("competitor_goodput_bps", Figure::Median(competitor_goodput_bps));
            visit("share", Figure::Median(share));
            visit("jain", Figure::Median(jain));
        }
        visit("longest_stall_us", Figure::Largest(longest_stall_us));
        visit("cpu_seconds", Figure::Total(cpu_seconds));
        visit("seconds", Figure::Total(seconds));
        for (path, count) in
            [("segments", segments), ("retransmits", retransmits), ("queue_drops", queue_drops)]
        {
            count.iter_mut().for_each(|count| visit(path, Figure::TotalCount(count)));
        }
    }
}

/// What is compared.
const COST: [Key; 2] =
    [Key::new("cpu_per_byte", "cpu_ns_per_byte"), Key::new("cpu_per_segment", "cpu_ns_per_segment")];

/// Whether two points agree in what both name: an option that one of them does not have makes no difference to it.
fn is_one_point(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    one.iter().all(|(key, value)| other.get(key).is_none_or(|same| same == value))
}

/// The ratios of a list of results: ours over its peer at each point, then each variant over itself at the first value
/// of `key` (which is why that value should be the undisturbed one). `virtual_time` says that goodput does not depend
/// on the machine.
pub(crate) fn ratios(
    results: &[Repeated<ThroughputResult>],
    key: &str,
    virtual_time: bool,
    noise: f64,
) -> Vec<Ratio> {
    let goodput = Key { of_machine: !virtual_time, ..Key::new("goodput", "goodput_bps") };
    let keys = [goodput, COST[0], COST[1]];
    let mut ratios = Vec::new();
    for ours in results.iter().filter(|result| result.variant == "outrider") {
        let peers = results
            .iter()
            .filter(|peer| peer.variant != "outrider" && is_one_point(&peer.point, &ours.point));
        for peer in peers {
            let of = format!("{}/{}", ours.variant, peer.variant);
            ratios.push(Ratio::between(of, &ours.point, [ours, peer], &keys, noise));
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
        ratios.push(Ratio::across(of, &result.point, [result, base], &keys, noise));
    }
    ratios
}

/// The table of two flows through one bottleneck.
pub(crate) fn fairness_table(title: &str, results: &[Repeated<ThroughputResult>]) -> String {
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
                table::micros(result.longest_stall_us),
            ])
        })
        .collect();
    let header = ["variant", "queue", "goodput", "competitor", "share", "Jain", "longest stall"];
    let text = format!("\n{title}\n{}", table::numbers(&header, &rows));
    text + &spread_table(results, &[("goodput_bps", "goodput"), ("share", "share"), ("jain", "Jain")])
}

/// The tables: results, then ratios.
pub(crate) fn tables(title: &str, results: &[Repeated<ThroughputResult>], ratios: &[Ratio]) -> String {
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
    text += &spread_table(results, &SPREADS);
    text + &ratio_table(ratios, &RATIOS)
}

/// The figures whose spread the table shows.
const SPREADS: [(&str, &str); 3] =
    [("goodput_bps", "goodput"), ("cpu_ns_per_segment", "CPU/segment"), ("cpu_ns_per_byte", "CPU/byte")];

/// The columns of the ratios.
const RATIOS: [(&str, &str); 3] =
    [("goodput", "goodput"), ("cpu_per_segment", "CPU/segment"), ("cpu_per_byte", "CPU/byte")];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::combine;
    use serde_json::json;

    /// Two runs that gave the same.
    fn result(variant: &'static str, loss: f64, goodput_bps: f64) -> Repeated<ThroughputResult> {
        let point = [("loss".to_owned(), json!(loss))].into_iter().collect();
        let run = ThroughputResult::of_goodput(variant, point, goodput_bps, 0.0, 1.0);
        combine(vec![run.clone(), run]).expect("there are runs")
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
        let ratios = ratios(&results, "loss", true, 0.0);
        let found: Vec<(&str, Value)> = ratios
            .iter()
            .map(|ratio| (ratio.of.as_str(), serde_json::to_value(ratio).expect("JSON")["goodput"].clone()))
            .collect();
        let expected = [
            ("outrider/smoltcp", 2.0),
            ("outrider/smoltcp", 6.0),
            ("outrider/outrider at loss 0.0", 0.75),
            ("smoltcp/smoltcp at loss 0.0", 0.25),
        ];
        assert_eq!(found, expected.map(|(of, ratio)| (of, json!(ratio))));
    }
}
