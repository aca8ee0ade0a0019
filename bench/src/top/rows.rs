//! Connections with their rates.

use outrider_stack::endpoint::ConnectionId;
use outrider_stack::net::Phase;
use outrider_stack::shard::segment::ConnectionRecord;
use outrider_stack::tcp::source::Blocked;

use super::Sample;
use super::choice::{Filter, Sort};

/// One connection, with its rates.
pub(super) struct Row<'a> {
    pub(super) shard: usize,
    pub(super) record: &'a ConnectionRecord,
    pub(super) rx_bits_per_second: f64,
    pub(super) tx_bits_per_second: f64,
}

impl Row<'_> {
    /// What holds it back, or how far it has come.
    pub(super) fn state(&self) -> &'static str {
        let summary = &self.record.report.summary;
        match (summary.phase, summary.send.blocked) {
            (Phase::Connecting, _) => "dialing",
            (Phase::HalfOpen, _) => "opening",
            (_, Blocked::Nothing) => "-",
            (_, Blocked::CongestionWindow) => "cwnd",
            (_, Blocked::PeerWindow) => "window",
            (_, Blocked::Credit) => "credit",
            (_, Blocked::Pacing) => "pacing",
            (_, Blocked::Port) => "port",
        }
    }
}

/// The connections that `filter` lets pass, by `sort`, then those with the most traffic, then by shard and name. Rates
/// are from `before` to `sample`.
pub(super) fn rows<'a>(before: &Sample, sample: &'a Sample, sort: Sort, filter: &Filter) -> Vec<Row<'a>> {
    let seconds = sample.seconds_since(before);
    let row = |(&(shard, id), record): (&(usize, ConnectionId), &'a ConnectionRecord)| {
        let now = &record.report.statistics;
        let then = before.connections.get(&(shard, id)).map(|earlier| earlier.report.statistics);
        let then = then.unwrap_or_default();
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 * 8.0 / seconds;
        Row {
            shard,
            record,
            rx_bits_per_second: rate(now.payload_bytes_received, then.payload_bytes_received),
            tx_bits_per_second: rate(now.payload_bytes_sent, then.payload_bytes_sent),
        }
    };
    let mut rows: Vec<Row<'_>> =
        sample.connections.iter().map(row).filter(|row| filter.lets_pass(row)).collect();
    rows.sort_by(|a, b| {
        let name = |row: &Row<'_>| (row.shard, row.record.report.summary.id);
        let by = |sort: Sort| sort.weight(b).total_cmp(&sort.weight(a));
        by(sort)
            .then_with(|| by(Sort::Traffic))
            .then_with(|| by(Sort::Occupancy))
            .then_with(|| name(a).cmp(&name(b)))
    });
    rows
}
