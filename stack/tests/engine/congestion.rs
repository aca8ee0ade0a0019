//! Explicit congestion notification between the engines, and what the controllers make of it.

use std::time::Duration;

use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::tcp::connection::Config;

use crate::pair::{Pair, Path};

const SECOND: Duration = Duration::from_secs(1);

/// A gigabit link that marks above 30 kB of queue, saturated for a second: goodput and 99th percentile of queueing.
fn marking_link(config: Config) -> (Pair, f64, Duration) {
    let mut pair = Pair::new(1, config);
    pair.paths[0] = Path { mark_above: Some(30_000), ..Path::default() };
    pair.establish();
    pair.nodes[0].app.total = 1 << 40;
    pair.run_for(Duration::from_millis(200));
    let (from, received) = (pair.now, pair.nodes[1].app.received);
    let mut queueing = Vec::new();
    while pair.now - from < SECOND {
        pair.run_for(Duration::from_micros(137));
        queueing.push(pair.queueing(0));
    }
    queueing.sort();
    let goodput = (pair.nodes[1].app.received - received) as f64 * 8.0 / (pair.now - from).as_secs_f64();
    let p99 = queueing[queueing.len() * 99 / 100];
    (pair, goodput, p99)
}

#[test]
fn dctcp_keeps_the_queue_at_the_marking_threshold_and_the_link_full() {
    let (pair, goodput, p99) = marking_link(Config { algorithm: Algorithm::Dctcp, ..Config::default() });
    assert!(goodput > 0.93e9, "{goodput:.3e} {:?}", pair.summary());
    assert!(p99 < Duration::from_micros(500), "30 kB are 240 us; {p99:?}");
    assert_eq!(pair.tcp(0).statistics().retransmits, 0);
    assert!(pair.tcp(1).statistics().marked_segments > 0);
}

#[test]
fn cubic_with_ecn_backs_off_without_a_loss() {
    let (pair, goodput, p99) =
        marking_link(Config { algorithm: Algorithm::Cubic, ecn: true, ..Config::default() });
    assert!(goodput > 0.8e9, "{goodput:.3e} {:?}", pair.summary());
    assert!(p99 < Duration::from_millis(2), "{p99:?}");
    assert!(pair.tcp(0).statistics().congestion_echoes > 0);
    let cwr = pair.tcp(0).statistics().retransmits;
    assert_eq!(cwr, 0, "nothing was lost");
}

#[test]
fn ecn_is_used_only_when_both_ends_have_it() {
    for (first, second) in [(true, false), (false, true), (false, false)] {
        let mut pair = Pair::new(2, Config { ecn: first, algorithm: Algorithm::Cubic, ..Config::default() });
        pair.config[1].ecn = second;
        pair.keep_log = true;
        pair.nodes[0].app.total = 100_000;
        pair.establish();
        pair.run_until(SECOND, |pair| pair.nodes[1].app.received == 100_000);
        assert!(pair.sent.iter().flatten().all(|(_, segment)| !segment.ecn_capable), "{first} {second}");
    }
}

#[test]
fn a_syn_that_is_lost_is_repeated_without_ecn() {
    let mut pair = Pair::new(3, Config { ecn: true, ..Config::default() });
    pair.keep_log = true;
    pair.paths[0].cut = true;
    pair.transmit_all(0);
    pair.paths[0].cut = false;
    pair.establish();
    let syns: Vec<bool> =
        pair.sent[0].iter().filter(|(_, s)| s.header.flags.syn).map(|(_, s)| s.header.flags.ece).collect();
    assert_eq!(syns, [true, false]);
}

#[test]
fn classic_echo_stops_when_the_sender_says_it_reduced() {
    let mut pair = Pair::new(4, Config { ecn: true, algorithm: Algorithm::Cubic, ..Config::default() });
    pair.establish();
    pair.keep_log = true;
    pair.paths[0].mark_above = Some(0);
    pair.nodes[0].app.total = 20_000;
    pair.run_until(SECOND, |pair| pair.nodes[1].app.received == 20_000);
    pair.paths[0].mark_above = None;
    pair.run_for(Duration::from_millis(100));
    pair.nodes[0].app.total = 120_000;
    pair.run_until(SECOND, |pair| pair.nodes[1].app.received == 120_000);
    pair.run_for(Duration::from_millis(100));
    assert!(pair.sent[0].iter().any(|(_, segment)| segment.header.flags.cwr));
    assert!(pair.sent[1].iter().any(|(_, segment)| segment.header.flags.ece));
    let last = pair.sent[1].last().expect("acknowledged");
    assert!(!last.1.header.flags.ece, "ECE ends with CWR");
}
