//! What goes into words comes out of them.

use core::time::Duration;

use outrider_drivers::port::{Capabilities, PortInfo, PortStatistics};

use super::{ConnectionRecord, Layout, ShardRecord, from_words, layout_mark, to_words};
use crate::endpoint::ConnectionId;
use crate::net::{ConnectionReport, ConnectionSummary, Phase, StackStatistics};
use crate::tcp::source::{Blocked, SendState};
use crate::tcp::statistics::ConnectionStatistics;
use crate::time::Instant;

#[test]
fn text_is_cut_at_the_end_of_a_character() {
    for (text, kept) in [("", ""), ("tap:or0", "tap:or0"), ("sixteen letters!", "sixteen letters!")] {
        assert_eq!(from_words(&to_words::<2>(text)), kept);
    }
    assert_eq!(from_words(&to_words::<2>("fifteen letters\u{e9}")), "fifteen letters");
}

#[test]
fn a_shard_comes_out_as_it_went_in() {
    let port = PortInfo {
        name: "tap:or0".into(),
        mac: [2, 1, 2, 3, 4, 5],
        mtu: 9_000,
        capabilities: Capabilities::default(),
    };
    let mut counters = 1;
    let mut next = || {
        counters += 1;
        counters
    };
    let record = ShardRecord {
        updated_at: Instant::from_nanos(next()),
        cpu_time: Duration::from_nanos(next()),
        sleeps: next(),
        connections: next() as usize,
        port: PortStatistics {
            rx_frames: next(),
            rx_bytes: next(),
            rx_dropped: next(),
            tx_frames: next(),
            tx_bytes: next(),
            tx_dropped: next(),
            doorbells: next(),
        },
        stack: StackStatistics::from_values(core::array::from_fn(|_| next())),
        ..ShardRecord::new(&port)
    };
    assert_eq!(ShardRecord::from_words(&record.to_words()), record);
}

#[test]
fn a_connection_comes_out_as_it_went_in() {
    let blocked = [
        Blocked::Nothing,
        Blocked::CongestionWindow,
        Blocked::PeerWindow,
        Blocked::Credit,
        Blocked::Pacing,
        Blocked::Port,
    ];
    let phases = [Phase::Connecting, Phase::HalfOpen, Phase::Established];
    let ends = ["10.0.0.1:7", "[fd00::2]:65535"].map(|text| text.parse().unwrap());
    for (number, blocked) in (0..).zip(blocked) {
        let send = SendState {
            bytes_in_flight: 1,
            congestion_window: 2,
            peer_window: 3,
            smoothed_rtt: (number > 1).then(|| Duration::from_nanos(4)),
            rtt_min: (number > 2).then(|| Duration::from_nanos(5)),
            delivery_rate: 6,
            oldest_unacked_age: Duration::from_nanos(7),
            retransmits: 8,
            blocked,
            stream_offset: 9,
        };
        let id = ConnectionId { index: 10, generation: 11 };
        let phase = phases[number % 3];
        let summary =
            ConnectionSummary { id, local: ends[number % 2], remote: ends[(number + 1) % 2], phase, send };
        let statistics = ConnectionStatistics::from_values(core::array::from_fn(|place| 100 + place as u64));
        let heartbeat_rtt = (number > 1).then(|| Duration::from_nanos(13));
        let report = ConnectionReport { summary, unsent_bytes: 12, heartbeat_rtt, statistics };
        let updated_at = Instant::from_nanos(13);
        let out = ConnectionRecord::from_words(&ConnectionRecord { updated_at, report }.to_words()).unwrap();
        assert_eq!(out.updated_at, updated_at);
        assert_eq!((out.report.unsent_bytes, out.report.statistics), (12, statistics));
        assert_eq!(out.report.heartbeat_rtt, heartbeat_rtt);
        assert_eq!(out.occupancy_bytes(), 13);
        let got = out.report.summary;
        assert_eq!((got.id, got.local, got.remote), (id, summary.local, summary.remote));
        assert_eq!((got.phase, got.send), (phase, send));
    }
    assert!(ConnectionRecord::from_words(&ConnectionRecord::EMPTY).is_none());
}

#[test]
fn records_lie_one_after_the_other() {
    let layout = Layout { shards: 3, connections_max: 5 };
    let mut at = layout.shard(0);
    for shard in 0..3 {
        assert_eq!(layout.shard(shard), at);
        at += 1 + ShardRecord::WORDS;
    }
    for (shard, slot) in (0..3).flat_map(|shard| (0..5).map(move |slot| (shard, slot))) {
        assert_eq!(layout.connection(shard, slot), at);
        at += 1 + ConnectionRecord::WORDS;
    }
    assert_eq!(layout.words(), at);
    assert_ne!(layout_mark(), 0);
}
