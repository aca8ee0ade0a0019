//! The path changes: smaller packets, unreachable hosts, windows that grow.

use std::time::Duration;

use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::tcp::connection::{CloseReason, Config, Event};

use crate::pair::{Pair, Path};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_smaller_path_mtu_is_believed_once_and_what_was_too_long_goes_again_in_pieces() {
    let mut pair = Pair::new(1, Config::default());
    pair.nodes[0].app.total = 3_000_000;
    pair.establish();
    pair.run_for(Duration::from_millis(5));
    pair.paths[0].payload_max = 1000;
    let received = pair.nodes[1].app.received;
    pair.run_for(Duration::from_millis(2));
    assert!(pair.nodes[1].app.received < received + 100_000, "the path swallows full segments");
    let oldest = pair.nodes[0].initial.at(pair.tcp(0).acked_offset());
    let (now, window) = (pair.now, pair.tcp(0).send_state(pair.now).congestion_window);
    let tcp = pair.nodes[0].tcp.as_mut().expect("open");
    assert!(!tcp.on_path_mtu(now, oldest.add(u32::MAX), 1012), "not about a segment in flight");
    assert!(tcp.on_path_mtu(now, oldest, 1012));
    assert!(!tcp.on_path_mtu(now, oldest, 1400), "a report cannot raise the size");
    assert_eq!(tcp.segment_size(), 1000);
    assert!(tcp.send_state(now).congestion_window >= window, "not a sign of congestion");
    pair.run_until(SECOND, |pair| pair.nodes[1].app.received == 3_000_000);
}

#[test]
fn an_absurdly_small_path_mtu_is_bounded() {
    let mut pair = Pair::new(2, Config::default());
    pair.nodes[0].app.total = 100_000;
    pair.establish();
    pair.transmit_all(0);
    let (now, oldest) = (pair.now, pair.nodes[0].initial.at(pair.tcp(0).acked_offset()));
    assert!(pair.nodes[0].tcp.as_mut().expect("open").on_path_mtu(now, oldest, 0));
    assert!(pair.tcp(0).segment_size() >= 76);
    pair.run_until(SECOND, |pair| pair.nodes[1].app.received == 100_000);
}

#[test]
fn unreachable_ends_an_attempt_but_not_a_connection() {
    let mut pair = Pair::new(3, Config::default());
    pair.paths[0].cut = true;
    pair.transmit_all(0);
    let (now, syn) = (pair.now, pair.nodes[0].initial);
    let tcp = pair.nodes[0].tcp.as_mut().expect("connecting");
    assert!(!tcp.on_unreachable(now, syn.add(1)), "not our SYN");
    assert!(tcp.on_unreachable(now, syn));
    pair.transmit_all(0);
    assert_eq!(pair.nodes[0].events, [Event::Closed(CloseReason::Unreachable)]);

    let mut pair = Pair::new(4, Config::default());
    pair.nodes[0].app.total = 1_000_000;
    pair.establish();
    pair.transmit_all(0);
    let (now, oldest) = (pair.now, pair.nodes[0].initial.at(pair.tcp(0).acked_offset()));
    assert!(pair.nodes[0].tcp.as_mut().expect("open").on_unreachable(now, oldest));
    pair.run_until(SECOND, |pair| pair.nodes[1].app.received == 1_000_000);
    assert_eq!(pair.tcp(0).statistics().icmp_unreachable, 1);
}

#[test]
fn the_receive_window_grows_to_fill_a_long_fast_path_and_no_further_than_allowed() {
    let config = Config { receive_window_initial: 64 << 10, ..Config::default() };
    let mut pair = Pair::new(5, config).both_paths(Path {
        delay: Duration::from_millis(5),
        queue_bytes: 4_000_000,
        ..Path::default()
    });
    pair.nodes[0].app.total = 1 << 40;
    pair.establish();
    pair.run_for(SECOND);
    let received = pair.nodes[1].app.received;
    pair.run_for(SECOND);
    let goodput = (pair.nodes[1].app.received - received) as f64 * 8.0;
    assert!(goodput > 0.85e9, "64 KiB in 10 ms would be 0.05e9: {goodput:.3e} {:?}", pair.summary());
    assert!(pair.tcp(0).send_state(pair.now).peer_window <= 4 << 20);
}

#[test]
fn needless_retransmissions_reported_by_dsack_give_the_window_back() {
    let config = Config { algorithm: Algorithm::Cubic, timestamps: false, ..Config::default() };
    let mut pair = Pair::new(6, config);
    pair.establish();
    pair.nodes[0].app.total = 1 << 40;
    pair.run_for(Duration::from_millis(50));
    // The way back becomes longer than any timeout, and nothing is lost.
    pair.paths[1].delay = Duration::from_millis(20);
    pair.run_for(Duration::from_millis(300));
    assert!(pair.tcp(0).statistics().retransmission_timeouts > 0);
    assert!(pair.tcp(0).statistics().dsacks_received > 0, "{:?}", pair.summary());
    assert!(pair.tcp(0).statistics().spurious_recoveries > 0, "{:?}", pair.summary());
}
