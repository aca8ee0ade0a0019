//! What was found, as JSON and as a table.

use serde::Serialize;

use super::exchange::Round;
use super::{Carrier, Shape};
use crate::lab::LinkKind;
use crate::table;
use crate::throughput::offload::spelled;

/// One link with one shape of load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MessagesResult {
    /// Whose TCP: `userspace` or `kernel`.
    pub(crate) variant: &'static str,
    /// What carried it.
    pub(crate) link: &'static str,
    /// `on` or `off`: segmentation and checksum offload, over TAPs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offload: Option<&'static str>,
    /// As the table spells it.
    #[serde(skip)]
    name: &'static str,
    /// Payload of a message.
    pub(crate) message_bytes: usize,
    /// Requests outstanding.
    pub(crate) depth: usize,
    /// Requests answered, per second, over all rounds.
    pub(crate) messages_per_second: f64,
    /// Of the slowest round.
    pub(crate) messages_per_second_min: f64,
    /// Of the fastest round.
    pub(crate) messages_per_second_max: f64,
    /// Payload of the requests, bits per second.
    pub(crate) goodput_bps: f64,
    /// Processor time of the process, both ends together, for each message.
    pub(crate) cpu_us_per_message: Option<f64>,
    /// For each byte of payload.
    pub(crate) cpu_ns_per_byte: Option<f64>,
    /// Processor time while measuring.
    pub(crate) cpu_seconds: f64,
    /// Length of the measurement.
    pub(crate) seconds: f64,
}

impl MessagesResult {
    pub(super) fn of(carrier: Carrier, shape: Shape, rounds: &[Round]) -> Self {
        let messages: u64 = rounds.iter().map(|round| round.messages).sum();
        let seconds: f64 = rounds.iter().map(|round| round.time.as_secs_f64()).sum();
        let cpu_seconds: f64 = rounds.iter().map(|round| round.cpu.as_secs_f64()).sum();
        let rates = rounds.iter().map(|round| round.messages as f64 / round.time.as_secs_f64());
        let bytes = messages as f64 * shape.message_bytes as f64;
        let per = |count: f64| (count > 0.0).then(|| cpu_seconds / count);
        let Carrier { link, offload } = carrier;
        MessagesResult {
            variant: if link == LinkKind::Kernel { "kernel" } else { "userspace" },
            link: link.name(),
            offload: (link == LinkKind::Tap).then(|| spelled(offload)),
            name: carrier.name(),
            message_bytes: shape.message_bytes,
            depth: shape.depth,
            messages_per_second: messages as f64 / seconds,
            messages_per_second_min: rates.clone().fold(f64::INFINITY, f64::min),
            messages_per_second_max: rates.fold(0.0, f64::max),
            goodput_bps: bytes * 8.0 / seconds,
            cpu_us_per_message: per(messages as f64).map(|seconds| seconds * 1e6),
            cpu_ns_per_byte: per(bytes).map(|seconds| seconds * 1e9),
            cpu_seconds,
            seconds,
        }
    }
}

/// One link over another with the same load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct MessagesRatio {
    /// Such as `kernel/tap`.
    pub(crate) of: String,
    /// Payload of a message.
    pub(crate) message_bytes: usize,
    /// Requests outstanding.
    pub(crate) depth: usize,
    /// Of the messages per second.
    pub(crate) messages_per_second: f64,
}

/// Every link over the first, by shape.
pub(crate) fn ratios(results: &[MessagesResult]) -> Vec<MessagesRatio> {
    let same =
        |a: &MessagesResult, b: &MessagesResult| (a.message_bytes, a.depth) == (b.message_bytes, b.depth);
    let of_shape = results.chunk_by(same).filter_map(|shape| shape.split_first());
    of_shape
        .flat_map(|(base, others)| {
            others.iter().filter(|_| base.messages_per_second > 0.0).map(|other| MessagesRatio {
                of: format!("{}/{}", other.name, base.name),
                message_bytes: other.message_bytes,
                depth: other.depth,
                messages_per_second: other.messages_per_second / base.messages_per_second,
            })
        })
        .collect()
}

/// The tables: results, then ratios.
pub(crate) fn tables(results: &[MessagesResult], ratios: &[MessagesRatio]) -> String {
    let digits = |value: Option<f64>, unit: &str| value.map_or("-".to_owned(), |n| format!("{n:.2} {unit}"));
    let load = |bytes: usize, depth: usize| format!("{} x {depth}", table::bytes(bytes as u64));
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|result| {
            vec![
                format!("{} over {}", load(result.message_bytes, result.depth), result.name),
                format!("{:.0}", result.messages_per_second),
                format!("{:.0}", result.messages_per_second_min),
                format!("{:.0}", result.messages_per_second_max),
                table::bits_per_second(result.goodput_bps),
                digits(result.cpu_us_per_message, "us"),
                digits(result.cpu_ns_per_byte, "ns"),
            ]
        })
        .collect();
    let header =
        ["messages in flight", "messages/s", "slowest", "fastest", "goodput", "CPU/message", "CPU/byte"];
    let mut text = "\nMessages answered, by size and number in flight\n".to_owned();
    text += &table::numbers(&header, &rows);
    if !ratios.is_empty() {
        let rows: Vec<Vec<String>> = ratios
            .iter()
            .map(|ratio| {
                let load = load(ratio.message_bytes, ratio.depth);
                vec![format!("{} at {load}", ratio.of), format!("{:.2}", ratio.messages_per_second)]
            })
            .collect();
        text += "\nRatios\n";
        text += &table::numbers(&["of", "messages/s"], &rows);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rounds_are_added_up_and_links_compared_at_each_shape() {
        let round =
            |messages| Round { messages, time: Duration::from_secs(1), cpu: Duration::from_millis(500) };
        let shapes = [Shape { message_bytes: 1000, depth: 4 }, Shape { message_bytes: 0, depth: 1 }];
        let result = |link, shape, counts: &[u64]| {
            let rounds: Vec<Round> = counts.iter().copied().map(round).collect();
            MessagesResult::of(Carrier { link, offload: true }, shape, &rounds)
        };
        let results = [
            result(LinkKind::Tap, shapes[0], &[100, 300]),
            result(LinkKind::Kernel, shapes[0], &[400, 400]),
            result(LinkKind::Tap, shapes[1], &[0]),
            result(LinkKind::Kernel, shapes[1], &[5]),
        ];
        assert_eq!(results[0].messages_per_second, 200.0);
        assert_eq!((results[0].messages_per_second_min, results[0].messages_per_second_max), (100.0, 300.0));
        assert_eq!(results[0].goodput_bps, 1.6e6);
        assert_eq!(results[0].cpu_us_per_message, Some(2500.0));
        assert_eq!(results[2].cpu_us_per_message, None);
        let ratios = ratios(&results);
        assert_eq!(ratios.len(), 1, "nothing over zero is no ratio: {ratios:?}");
        assert_eq!((ratios[0].of.as_str(), ratios[0].messages_per_second), ("kernel/tap", 2.0));
        assert!(tables(&results, &ratios).contains("kernel/tap"));
    }
}
