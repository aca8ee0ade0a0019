//! Samples as text of 80 columns.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use outrider_stack::shard::segment::{Header, ShardRecord};

use super::rows::{Row, rows};
use super::{Board, Sample};

/// What one look shows.
pub(crate) struct View<'a> {
    /// Of the segment.
    pub(crate) header: &'a Header,
    /// Its file.
    pub(crate) path: &'a Path,
    /// How many other nodes publish where this one was found.
    pub(crate) others: usize,
    /// Connections shown at most.
    pub(crate) rows: usize,
    /// Which of them, and in which order.
    pub(crate) board: &'a Board,
}

impl View<'_> {
    /// The table: rates are from `before` to `sample`.
    pub(crate) fn render(&self, before: &Sample, sample: &Sample) -> String {
        let mut text = String::new();
        let Header { name, pid, created_at, shards, connections_max, .. } = self.header;
        let up = (sample.at - *created_at).as_secs();
        let _ = writeln!(text, "{name}   process {pid}   up {up} s\n{}", self.path.display());
        if self.others > 0 {
            let _ = writeln!(text, "{} more publish here; name a FILE to see another", self.others);
        }
        self.render_shards(&mut text, before, sample);
        let Board { sort, filter, offset, .. } = self.board;
        let rows = rows(before, sample, *sort, filter);
        let shown = &rows[(*offset).min(rows.len())..];
        let shown = &shown[..shown.len().min(self.rows)];
        self.render_connections(&mut text, shown);
        let total: usize = sample.shards.iter().flatten().map(|shard| shard.connections).sum();
        if !filter.is_empty() {
            let _ = writeln!(text, "{} of {total} connections fit {filter}", rows.len());
        } else if total > shown.len() {
            let _ = writeln!(text, "and {} more", total - shown.len());
        }
        if sample.shards.iter().flatten().any(|shard| shard.connections > *connections_max) {
            let _ = writeln!(
                text,
                "(a shard publishes {connections_max} connections at most: {} of {total} on {shards} shards)",
                sample.connections.len()
            );
        }
        text
    }

    fn render_shards(&self, text: &mut String, before: &Sample, sample: &Sample) {
        let seconds = sample.seconds_since(before);
        let _ = writeln!(
            text,
            "\n{:>5} {:<15} {:>6} {:>9} {:>9} {:>8} {:>8} {:>5} {:>7}",
            "shard", "port", "conns", "rx bit/s", "tx bit/s", "drops", "handed", "CPU", "asleep"
        );
        for (number, (shard, earlier)) in sample.shards.iter().zip(&before.shards).enumerate() {
            let (Some(shard), Some(earlier)) = (shard, earlier) else {
                let _ = writeln!(text, "{number:>5} its writer was killed in the middle of a record");
                continue;
            };
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 * 8.0 / seconds;
            let cpu = (shard.cpu_time.saturating_sub(earlier.cpu_time)).as_secs_f64() / seconds;
            let state = if shard.running {
                format!(
                    "{:>5} {:>7}",
                    format!("{:.0} %", cpu * 100.0),
                    count(shard.sleeps - earlier.sleeps.min(shard.sleeps))
                )
            } else {
                format!("{:>13}", "has ended")
            };
            let _ = writeln!(
                text,
                "{number:>5} {:<15} {:>6} {:>9} {:>9} {:>8} {:>8} {state}",
                cut(&shard.port_name, 15),
                count(shard.connections as u64),
                scaled(rate(shard.port.rx_bytes, earlier.port.rx_bytes)),
                scaled(rate(shard.port.tx_bytes, earlier.port.tx_bytes)),
                count(drops(shard)),
                count(shard.stack.handed_in),
            );
        }
    }

    fn render_connections(&self, text: &mut String, rows: &[Row<'_>]) {
        if rows.is_empty() {
            text.push_str("\nno connections\n");
            return;
        }
        let _ = writeln!(
            text,
            "\n{:>5} {:<18} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>5} blocked",
            "local", "remote", "rx b/s", "tx b/s", "unsent", "flight", "beat", "srtt", "rtx"
        );
        for row in rows {
            let report = &row.record.report;
            let summary = &report.summary;
            let round_trip = |rtt: Option<Duration>| rtt.map_or_else(|| "-".to_owned(), time);
            let _ = writeln!(
                text,
                "{:>5} {:<18} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>5} {}",
                summary.local.port(),
                address(summary.remote),
                scaled(row.rx_bits_per_second),
                scaled(row.tx_bits_per_second),
                scaled(report.unsent_bytes as f64),
                scaled(summary.send.bytes_in_flight as f64),
                round_trip(report.heartbeat_rtt),
                round_trip(summary.send.smoothed_rtt),
                count(report.statistics.retransmits),
                row.state(),
            );
        }
    }
}

/// Frames lost at the port or for want of room anywhere in the stack.
fn drops(shard: &ShardRecord) -> u64 {
    let stack = &shard.stack;
    shard.port.rx_dropped
        + shard.port.tx_dropped
        + stack.rx_dropped_backlog
        + stack.rx_dropped_table_full
        + stack.rx_dropped_hand_over
        + stack.rx_dropped_slow_path_full
        + stack.tx_lost_at_port
        + stack.tx_dropped_control_full
}

/// Three digits and a letter.
fn scaled(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 1e12 => (v / 1e12, "T"),
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => return format!("{v:.0}"),
    };
    if value < 9.995 { format!("{value:.2}{unit}") } else { format!("{value:.0}{unit}") }
}

fn count(value: u64) -> String {
    if value < 100_000 { value.to_string() } else { scaled(value as f64) }
}

fn time(value: Duration) -> String {
    match value.as_secs_f64() {
        v if v >= 1.0 => format!("{v:.1}s"),
        v if v >= 0.1 => format!("{:.0}ms", v * 1e3),
        v if v >= 1e-3 => format!("{:.1}ms", v * 1e3),
        v => format!("{:.0}us", v * 1e6),
    }
}

/// The last columns of an address say most: the interface and the port.
fn address(address: SocketAddr) -> String {
    const COLUMNS: usize = 18;
    let text = address.to_string();
    match text.len().checked_sub(COLUMNS) {
        None | Some(0) => text,
        Some(excess) => format!("..{}", &text[excess + 2..]),
    }
}

fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns).collect()
}
