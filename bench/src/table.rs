//! Tables for people.

use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};

use crate::measure::Percentiles;
use crate::report::HeartbeatResult;
use crate::runs::{Ratio, Repeated, label, ratio_table, spread_table};

/// A line under the header and nothing else.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('-').junction('-'));

/// A table with a header; every column but the first is numbers, aligned right.
pub(crate) fn numbers(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_header(header.iter().copied().map(Cell::new));
    for row in rows {
        table.add_row(row.iter().map(Cell::new));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt() + "\n"
}

/// A time given in microseconds, in the unit that reads best.
pub(crate) fn micros(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.1} us"),
        v if v < 1_000.0 => format!("{v:.0} us"),
        v if v < 1_000_000.0 => format!("{:.2} ms", v / 1_000.0),
        v => format!("{:.2} s", v / 1_000_000.0),
    }
}

/// Bits per second.
pub(crate) fn bits_per_second(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.2} Gbit/s", v / 1e9),
        v if v >= 1e6 => format!("{:.1} Mbit/s", v / 1e6),
        v => format!("{:.1} kbit/s", v / 1e3),
    }
}

/// How many times, to about three digits.
pub(crate) fn times(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Bytes.
pub(crate) fn bytes(value: u64) -> String {
    match value {
        v if v >= 1 << 20 => format!("{:.1} MiB", v as f64 / f64::from(1 << 20)),
        v if v >= 1 << 10 => format!("{:.0} KiB", v as f64 / f64::from(1 << 10)),
        v => format!("{v} B"),
    }
}

/// A share of one, or a dash.
pub(crate) fn percent(value: Option<f64>) -> String {
    value.map_or_else(dash, |v| format!("{:.1} %", v * 100.0))
}

/// The unit that a member's name ends in, if any level of its path has one.
fn unit(path: &str) -> Option<&'static str> {
    let units = ["_us", "_bps", "_bytes", "_ns", "bytes"];
    if path.ends_with("bits_per_second") {
        return Some("_bps");
    }
    let unit_of = |step: &str| units.into_iter().find(|unit| step.ends_with(unit));
    // Nanoseconds per byte are nanoseconds.
    path.rsplit('.').find_map(|step| unit_of(step.split("_per_").next().unwrap_or(step)))
}

/// The value of a member of a result, in the unit that the member's path names.
pub(crate) fn quantity(path: &str, value: f64) -> String {
    match unit(path) {
        Some("_us") => micros(value),
        Some("_bps") => bits_per_second(value),
        Some("_bytes" | "bytes") if value >= 0.0 => bytes(value as u64),
        Some("_ns") if value < 10.0 => format!("{value:.2} ns"),
        Some("_ns") => format!("{value:.0} ns"),
        _ if value.fract() == 0.0 => format!("{value}"),
        _ if value.abs() >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.3}"),
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn percentile_cells(percentiles: Option<Percentiles>) -> [String; 5] {
    match percentiles {
        Some(Percentiles { p50, p90, p99, p999, max }) => [p50, p90, p99, p999, max].map(micros),
        None => std::array::from_fn(|_| dash()),
    }
}

/// The tables of the heartbeat experiment: delays, then load, then ratios.
pub(crate) fn heartbeats(results: &[Repeated<HeartbeatResult>], ratios: &[Ratio]) -> String {
    // A node that has only its own clock knows round trips alone.
    let one_way = results.iter().any(|result| result.heartbeat.one_way_us.is_some());
    let mut delays = Vec::new();
    let mut loads = Vec::new();
    for result in results {
        let name = label(result.variant, &result.point);
        let heartbeat = &result.heartbeat;
        let mut row = vec![name.clone()];
        row.extend(percentile_cells(if one_way { heartbeat.one_way_us } else { heartbeat.rtt_us }));
        row.push(heartbeat.rtt_us.map_or_else(dash, |rtt| micros(rtt.p50)));
        row.extend([heartbeat.sent, heartbeat.received, heartbeat.superseded].map(|n| n.to_string()));
        row.push(format!("{:.2}", heartbeat.parts_per_message));
        delays.push(row);
        loads.push(vec![
            name,
            bits_per_second(result.goodput_bps),
            percent(result.link_utilisation),
            result.occupancy_bytes.map_or_else(dash, |o| bytes(o.p50)),
            result.occupancy_bytes.map_or_else(dash, |o| bytes(o.max)),
            result.retransmits.to_string(),
            format!("{:.2} of {:.1}", result.cpu_seconds, result.seconds),
        ]);
    }
    let way = if one_way { "one way" } else { "round trip" };
    let mut text = format!("\nHeartbeat delay, {way}, from the instant it was due\n");
    text += &numbers(
        &[
            "variant",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "max",
            "RTT p50",
            "sent",
            "received",
            "superseded",
            "parts",
        ],
        &delays,
    );
    text += "\nThe load beside it\n";
    text += &numbers(
        &["variant", "goodput", "link used", "occupancy p50", "max", "retransmits", "CPU s of wall s"],
        &loads,
    );
    text += &spread_table(results, &HEARTBEAT_SPREADS);
    text + &ratio_table(ratios, &HEARTBEAT_RATIOS)
}

/// The figures of heartbeats whose spread the table shows.
const HEARTBEAT_SPREADS: [(&str, &str); 4] = [
    ("heartbeat.one_way_us.p50", "p50"),
    ("heartbeat.one_way_us.p99", "p99"),
    ("heartbeat.rtt_us.p50", "RTT p50"),
    ("goodput_bps", "goodput"),
];

/// The columns of their ratios.
const HEARTBEAT_RATIOS: [(&str, &str); 4] =
    [("one_way_p50", "p50"), ("one_way_p99", "p99"), ("one_way_max", "max"), ("goodput", "goodput")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_shown_in_the_unit_that_reads_best() {
        assert_eq!(micros(85.4), "85 us");
        assert_eq!(micros(8.54), "8.5 us");
        assert_eq!(micros(17_400.0), "17.40 ms");
        assert_eq!(bits_per_second(941e6), "941.0 Mbit/s");
        assert_eq!(bytes(65_536), "64 KiB");
        assert_eq!(percent(None), "-");
        assert_eq!(percent(Some(0.991)), "99.1 %");
    }

    #[test]
    fn numbers_are_aligned_right_under_their_header() {
        let text =
            numbers(&["who", "count"], &[vec!["a".into(), "1".into()], vec!["b".into(), "1000".into()]]);
        let lines: Vec<&str> = text.lines().collect();
        let end_of = |needle: &str| lines.iter().find_map(|l| l.find(needle).map(|at| at + needle.len()));
        assert_eq!(end_of("count"), end_of("1000"), "{text}");
    }
}
