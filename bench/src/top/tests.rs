//! What a sample looks like.

use std::path::Path;
use std::time::Duration;

use outrider_drivers::memory::{LinkConfig, cable};
use outrider_drivers::port::Port;
use outrider_drivers::time::Instant;
use outrider_stack::endpoint::ConnectionId;
use outrider_stack::net::{ConnectionReport, ConnectionSummary, Phase};
use outrider_stack::shard::segment::{ConnectionRecord, Publication, Reader};
use outrider_stack::tcp::source::{Blocked, SendState};
use outrider_stack::tcp::statistics::ConnectionStatistics;

use super::rows::rows;
use super::{Board, Filter, Sample, Sort, View};

#[test]
fn every_line_fits_eighty_columns() {
    let path = std::env::temp_dir().join(format!("outrider-top-test-{}", std::process::id()));
    let (port, _other) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    let publication = Publication::new("osd.17").at(&path);
    let publishers = publication.publishers(&[port.info().clone(), port.info().clone()]).unwrap();
    let reader = Reader::open(&path).unwrap();
    let before = Sample::take(&reader, Instant::from_millis(1_000));
    let mut after = Sample::take(&reader, Instant::from_millis(2_000));
    let shard = after.shards[0].as_mut().unwrap();
    shard.port.rx_bytes = 117_250_000;
    shard.port.tx_bytes = u64::MAX / 16;
    shard.port.rx_dropped = u64::MAX / 16;
    shard.stack.handed_in = 123_456_789;
    shard.sleeps = 1_000_000;
    shard.connections = 70_000;
    shard.port_name = "a-name-that-is-longer-than-the-column".into();
    after.shards[1].as_mut().unwrap().running = false;
    let view =
        View { header: reader.header(), path: Path::new("/x"), others: 1, rows: 3, board: &Board::default() };
    let text = view.render(&before, &after);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains(" 938M "), "117.25 MB/s are 938 Mbit/s: {text}");
    assert!(text.contains("has ended") && text.contains("no connections"), "{text}");
    assert!(text.contains("and 70000 more") && text.contains("256 connections at most"), "{text}");
    drop(publishers);
}

/// Samples of a node with connections to `10.0.0.2:1` and on: as many as `edit` has entries, each edited by its own.
fn node(edits: &[fn(&mut ConnectionRecord)]) -> (Sample, Sample) {
    let sample = |at: u64, is_after: bool| {
        let connections = edits.iter().zip(1u16..).map(|(edit, number)| {
            let id = ConnectionId { index: u32::from(number), generation: 0 };
            let mut record = record(id, number);
            if is_after {
                edit(&mut record);
            }
            ((usize::from(number % 2), id), record)
        });
        Sample { at: Instant::from_millis(at), shards: Vec::new(), connections: connections.collect() }
    };
    (sample(1_000, false), sample(2_000, true))
}

fn record(id: ConnectionId, number: u16) -> ConnectionRecord {
    let summary = ConnectionSummary {
        id,
        local: "10.0.0.1:7077".parse().unwrap(),
        remote: format!("10.0.0.2:{number}").parse().unwrap(),
        phase: Phase::Established,
        send: SendState::default(),
    };
    let statistics = ConnectionStatistics::default();
    let report = ConnectionReport { summary, unsent_bytes: 0, heartbeat_rtt: None, statistics };
    ConnectionRecord { updated_at: Instant::ZERO, report }
}

/// The peers' ports in the order in which they are shown.
fn shown(sort: Sort, filter: &str) -> Vec<u16> {
    let edits: [fn(&mut ConnectionRecord); 4] = [
        |one| one.report.statistics.payload_bytes_sent = 1_000_000,
        |two| two.report.unsent_bytes = 5_000,
        |three| three.report.heartbeat_rtt = Some(Duration::from_millis(30)),
        |four| four.report.summary.send.blocked = Blocked::Credit,
    ];
    let (before, after) = node(&edits);
    let rows = rows(&before, &after, sort, &filter.parse::<Filter>().unwrap());
    rows.iter().map(|row| row.record.report.summary.remote.port()).collect()
}

#[test]
fn connections_are_sorted_by_what_is_asked_for_and_filtered_by_every_word() {
    assert_eq!(shown(Sort::Traffic, "")[..2], [1, 2], "then what holds most");
    assert_eq!(shown(Sort::Occupancy, "")[0], 2);
    assert_eq!(shown(Sort::Heartbeat, "")[0], 3);
    assert_eq!(shown(Sort::Blocked, "")[0], 4);
    assert_eq!(shown(Sort::Traffic, "blocked"), [4]);
    assert_eq!(shown(Sort::Traffic, "credit"), [4], "the state in the last column");
    assert_eq!(shown(Sort::Traffic, "shard=1"), [1, 3]);
    assert_eq!(shown(Sort::Traffic, "port=3"), [3]);
    assert_eq!(shown(Sort::Traffic, "port=7077 shard=0"), [2, 4]);
    assert_eq!(shown(Sort::Traffic, "10.0.0.3"), [0u16; 0]);
}
