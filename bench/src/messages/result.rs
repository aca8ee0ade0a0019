//! What was found, as JSON and as a table.

use serde::Serialize;
use serde_json::json;

use super::exchange::Round;
use super::{Carrier, Shape};
use crate::lab::LinkKind;
use crate::runs::{Figure, Figures, Key, Ratio, Repeated, Visit, ratio_table, spread_table};
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
    /// Requests answered, per second.
    pub(crate) messages_per_second: f64,
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
    pub(super) fn of(carrier: Carrier, shape: Shape, round: &Round) -> Self {
        let Carrier { link, offload } = carrier;
        let Round { messages, time, cpu } = *round;
        let (seconds, cpu_seconds) = (time.as_secs_f64(), cpu.as_secs_f64());
        let bytes = messages as f64 * shape.message_bytes as f64;
        let per = |count: f64| (count > 0.0).then(|| cpu_seconds / count);
        MessagesResult {
            variant: if link == LinkKind::Kernel { "kernel" } else { "userspace" },
            link: link.name(),
            offload: (link == LinkKind::Tap).then(|| spelled(offload)),
            name: carrier.name(),
            message_bytes: shape.message_bytes,
            depth: shape.depth,
            messages_per_second: messages as f64 / seconds,
            goodput_bps: bytes * 8.0 / seconds,
            cpu_us_per_message: per(messages as f64).map(|seconds| seconds * 1e6),
            cpu_ns_per_byte: per(bytes).map(|seconds| seconds * 1e9),
            cpu_seconds,
            seconds,
        }
    }
}

impl Figures for MessagesResult {
    fn label(&self) -> String {
        format!("{} over {}", load(self), self.name)
    }

    fn figures(&mut self, visit: &mut Visit<'_>) {
        // Exhaustive, so that a new figure cannot be forgotten here.
        let MessagesResult {
            variant: _,
            link: _,
            offload: _,
            name: _,
            message_bytes: _,
            depth: _,
            messages_per_second,
            goodput_bps,
            cpu_us_per_message,
            cpu_ns_per_byte,
            cpu_seconds,
            seconds,
        } = self;
        visit("messages_per_second", Figure::Median(messages_per_second));
        visit("goodput_bps", Figure::Median(goodput_bps));
        for (path, figure) in
            [("cpu_us_per_message", cpu_us_per_message), ("cpu_ns_per_byte", cpu_ns_per_byte)]
        {
            figure.iter_mut().for_each(|figure| visit(path, Figure::Median(figure)));
        }
        visit("cpu_seconds", Figure::Total(cpu_seconds));
        visit("seconds", Figure::Total(seconds));
    }
}

fn load(result: &MessagesResult) -> String {
    format!("{} x {}", table::bytes(result.message_bytes as u64), result.depth)
}

/// What is compared.
const RATIOS: [Key; 2] = [
    Key::new("messages_per_second", "messages_per_second"),
    Key::new("cpu_per_message", "cpu_us_per_message"),
];

/// Every link over the first, by shape.
pub(crate) fn ratios(results: &[Repeated<MessagesResult>], noise: f64) -> Vec<Ratio> {
    let same = |a: &Repeated<MessagesResult>, b: &Repeated<MessagesResult>| {
        (a.message_bytes, a.depth) == (b.message_bytes, b.depth)
    };
    let of_shape = results.chunk_by(same).filter_map(|shape| shape.split_first());
    of_shape
        .flat_map(|(base, others)| {
            others.iter().map(|other| {
                let point = [("message_bytes", json!(base.message_bytes)), ("depth", json!(base.depth))];
                let point = point.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
                let of = format!("{}/{}", other.name, base.name);
                Ratio::between(of, &point, [other, base], &RATIOS, noise)
            })
        })
        .collect()
}

/// The tables: results, then ratios.
pub(crate) fn tables(results: &[Repeated<MessagesResult>], ratios: &[Ratio]) -> String {
    let digits = |value: Option<f64>, unit: &str| value.map_or("-".to_owned(), |n| format!("{n:.2} {unit}"));
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|result| {
            vec![
                result.label(),
                format!("{:.0}", result.messages_per_second),
                table::bits_per_second(result.goodput_bps),
                digits(result.cpu_us_per_message, "us"),
                digits(result.cpu_ns_per_byte, "ns"),
            ]
        })
        .collect();
    let header = ["messages in flight", "messages/s", "goodput", "CPU/message", "CPU/byte"];
    let mut text = "\nMessages answered, by size and number in flight\n".to_owned();
    text += &table::numbers(&header, &rows);
    text += &spread_table(
        results,
        &[("messages_per_second", "messages/s"), ("cpu_us_per_message", "CPU/message")],
    );
    text + &ratio_table(ratios, &[("messages_per_second", "messages/s"), ("cpu_per_message", "CPU/message")])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runs::combine;

    #[test]
    fn links_are_compared_at_each_shape() {
        let round =
            |messages| Round { messages, time: Duration::from_secs(1), cpu: Duration::from_millis(500) };
        let shapes = [Shape { message_bytes: 1000, depth: 4 }, Shape { message_bytes: 0, depth: 1 }];
        let carrier = |link| Carrier { link, offload: true };
        let result = |link, shape, counts: &[u64]| {
            let runs = counts.iter().map(|count| MessagesResult::of(carrier(link), shape, &round(*count)));
            combine(runs.collect()).expect("there are runs")
        };
        let results = [
            result(LinkKind::Tap, shapes[0], &[200, 200]),
            result(LinkKind::Kernel, shapes[0], &[400, 400]),
            result(LinkKind::Tap, shapes[1], &[0, 0]),
            result(LinkKind::Kernel, shapes[1], &[5, 5]),
        ];
        assert_eq!((results[0].messages_per_second, results[0].goodput_bps), (200.0, 1.6e6));
        assert_eq!(results[1].cpu_us_per_message, Some(1250.0));
        assert_eq!(results[2].cpu_us_per_message, None);
        let ratios = ratios(&results, 0.0);
        let told = serde_json::to_value(&ratios).expect("JSON");
        assert_eq!((&told[0]["of"], &told[0]["messages_per_second"]), (&json!("kernel/tap"), &json!(2.0)));
        assert_eq!(told[1]["messages_per_second"], json!(null), "nothing over zero is no ratio");
        assert!(tables(&results, &ratios).contains("kernel/tap"));
    }
}
