//! What packetdrill scripts found: small habits on the wire that peers and middle boxes rely on.

use std::time::Duration;

use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::tcp::connection::Config;
use outrider_stack::tcp::segment::{Header, SackBlock};

use crate::pair::{InFlight, Pair, Path, pattern};

const SECOND: Duration = Duration::from_secs(1);

fn quiet() -> Config {
    Config { algorithm: Algorithm::Cubic, timestamps: false, pacing: false, ..Config::default() }
}

/// Payload lengths and PSH of what node 0 has sent since the log was last emptied.
fn take_sent(pair: &mut Pair) -> Vec<(usize, bool, u32)> {
    let sent = std::mem::take(&mut pair.sent[0]);
    sent.iter().map(|(_, s)| (s.payload.len(), s.header.flags.psh, s.header.seq.0)).collect()
}

#[test]
fn the_initial_window_is_of_segments_of_the_agreed_size() {
    let mut pair = Pair::new(1, quiet());
    pair.config[1].segment_size_max = 536;
    pair.nodes[0].app.total = 100_000;
    pair.establish();
    let window = pair.tcp(0).send_state(pair.now).congestion_window;
    assert_eq!(window, 10 * 536, "RFC 6928: ten segments, not 14600 bytes");
}

#[test]
fn a_retransmission_is_pushed_only_where_the_original_was() {
    let mut pair = Pair::new(2, quiet());
    pair.establish();
    pair.paths[0].cut = true;
    pair.keep_log = true;
    pair.nodes[0].app.total = 2_000;
    pair.transmit_all(0);
    let originals = take_sent(&mut pair);
    assert_eq!(originals.iter().map(|(_, psh, _)| *psh).collect::<Vec<_>>(), [false, true]);
    pair.run_until(5 * SECOND, |pair| pair.sent[0].len() >= 4);
    for (length, psh, seq) in take_sent(&mut pair) {
        let original = originals.iter().find(|original| original.2 == seq).expect("sent before");
        assert_eq!((length, psh), (original.0, original.1), "byte-identical, flags included");
    }
}

#[test]
fn a_probe_comes_in_the_stead_of_an_earlier_timeout_and_the_timeout_starts_over() {
    let config = Config { rto_min: 200 * SECOND / 1000, rto_granularity: 200 * SECOND / 1000, ..quiet() };
    let config = Config { peer_ack_delay_max: 300 * SECOND / 1000, ..config };
    let mut pair = Pair::new(3, config);
    pair.establish();
    pair.paths[0].cut = true;
    pair.keep_log = true;
    pair.nodes[0].app.total = 100;
    let start = pair.now;
    pair.run_until(5 * SECOND, |pair| pair.sent[0].len() >= 3);
    let statistics = pair.tcp(0).statistics();
    assert_eq!(statistics.tail_probes, 1, "RFC 8985 section 7.2: {statistics:?}");
    let gap = pair.sent[0][2].0 - pair.sent[0][1].0;
    assert!(gap >= 200 * SECOND / 1000, "{gap:?} from the probe to the timeout, begun at {start:?}");
}

#[test]
fn the_first_retransmission_leaves_even_where_rate_reduction_would_send_nothing() {
    // Without SACK the pipe does not shrink by duplicates, so the arithmetic of PRR allows nothing.
    let path = Path { delay: 50 * SECOND / 1000, ..Path::default() };
    let mut pair = Pair::new(4, Config { sack: false, ..quiet() }).both_paths(path);
    pair.establish();
    pair.keep_log = true;
    pair.nodes[0].app.total = 8 * 1460;
    pair.paths[0].cut = true;
    pair.transmit_all(0);
    pair.paths[0].cut = false;
    let first = pair.sent[0][0].1.clone();
    let ack = Header {
        seq: first.header.ack.expect("established"),
        ack: Some(first.header.seq),
        window: 4000,
        ..Header::default()
    };
    let now = pair.now;
    // The first states another window, so it is no duplicate yet.
    let duplicate = InFlight { header: ack, payload: Vec::new(), ecn_capable: false, marked: false };
    for _ in 0..4 {
        pair.schedule(now, 0, duplicate.clone());
    }
    pair.run_for(SECOND / 1000);
    assert_eq!(pair.tcp(0).statistics().retransmits, 1, "{:?}", pair.summary());
}

#[test]
fn what_the_filler_of_a_gap_covers_is_reported_as_duplicate() {
    let mut pair = Pair::new(5, quiet());
    pair.establish();
    pair.keep_log = true;
    let base = pair.nodes[0].initial;
    let ack = pair.nodes[1].initial.at(1);
    let segment = |from: u64, to: u64| InFlight {
        header: Header { seq: base.at(from), ack: Some(ack), window: 1000, ..Header::default() },
        payload: (from..to).map(pattern).collect(),
        ecn_capable: false,
        marked: false,
    };
    let now = pair.now;
    pair.schedule(now, 1, segment(1001, 2001));
    pair.run_for(SECOND / 1000);
    let now = pair.now;
    pair.schedule(now, 1, segment(1, 3001));
    pair.run_for(SECOND / 1000);
    let all = Some(base.at(3001));
    let ack = pair.sent[1].iter().map(|(_, s)| s.header).find(|header| header.ack == all);
    let block = SackBlock { start: base.at(1001), end: base.at(2001) };
    assert_eq!(ack.expect("acknowledged").options.sack.as_slice(), [block], "RFC 2883 section 4");
}
