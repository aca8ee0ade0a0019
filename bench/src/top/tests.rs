//! What a sample looks like.

use std::path::Path;

use outrider_drivers::memory::{LinkConfig, cable};
use outrider_drivers::port::Port;
use outrider_drivers::time::Instant;
use outrider_stack::shard::segment::{Publication, Reader};

use super::{Sample, View};

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
    let view = View { header: reader.header(), path: Path::new("/x"), others: 1, rows: 3 };
    let text = view.render(&before, &after);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains(" 938M "), "117.25 MB/s are 938 Mbit/s: {text}");
    assert!(text.contains("has ended") && text.contains("no connections"), "{text}");
    assert!(text.contains("and 70000 more") && text.contains("256 connections at most"), "{text}");
    drop(publishers);
}
