//! Loss and its repair; out-of-band segments.

use std::time::Duration;

use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::tcp::connection::Config;

use crate::pair::{Pair, Path};

const SECOND: Duration = Duration::from_secs(1);

fn saturated(seed: u64, algorithm: Algorithm, loss: f64, time: Duration) -> (Pair, f64) {
    let path = Path { loss, ..Path::default() };
    let config = Config { algorithm, receive_window_initial: 4 << 20, ..Config::default() };
    let mut pair = Pair::new(seed, config);
    pair.establish();
    pair.paths[0] = path;
    pair.nodes[0].app.total = 1 << 40;
    pair.run_for(Duration::from_millis(200));
    let (from, received) = (pair.now, pair.nodes[1].app.received);
    pair.run_for(time);
    let goodput = (pair.nodes[1].app.received - received) as f64 * 8.0 / (pair.now - from).as_secs_f64();
    (pair, goodput)
}

#[test]
fn a_clean_gigabit_link_is_filled() {
    for algorithm in [Algorithm::Cubic, Algorithm::Bbr] {
        let (pair, goodput) = saturated(1, algorithm, 0.0, SECOND);
        // 1448 payload bytes of 1526 with this harness' overhead: at most 0.949.
        assert!(goodput > 0.90e9, "{algorithm}: {goodput:.3e} {:?}", pair.summary());
    }
}

#[test]
fn loss_is_repaired_without_stalls() {
    for algorithm in [Algorithm::Cubic, Algorithm::Bbr] {
        for (loss, least) in [(0.001, 0.3e9), (0.01, 0.06e9)] {
            let (pair, goodput) = saturated(2, algorithm, loss, SECOND);
            assert!(goodput > least, "{algorithm} at {loss}: {goodput:.3e} {:?}", pair.summary());
            let statistics = pair.tcp(0).statistics();
            assert!(statistics.retransmits > 0);
        }
    }
}

#[test]
fn a_lost_tail_is_repaired_by_the_probe_and_not_by_a_timeout() {
    let mut pair = Pair::new(3, Config { peer_ack_delay_max: Duration::ZERO, ..Config::default() });
    pair.establish();
    pair.nodes[0].app.total = 14_480;
    pair.run_until(SECOND, |pair| pair.nodes[1].app.received == 14_480);
    pair.run_for(Duration::from_millis(100));
    pair.paths[0].cut = true;
    pair.nodes[0].app.total += 2896;
    pair.transmit_all(0);
    pair.paths[0].cut = false;
    let lost_at = pair.now;
    pair.run_until(SECOND, |pair| pair.nodes[1].app.received == 17_376);
    let took = pair.now - lost_at;
    assert!(pair.tcp(0).statistics().tail_probes == 1, "{:?}", pair.summary());
    assert_eq!(pair.tcp(0).statistics().retransmission_timeouts, 0);
    assert!(took < Duration::from_millis(2), "{took:?}");
}

#[test]
fn reordering_alone_costs_few_retransmissions() {
    let mut pair = Pair::new(4, Config::default());
    pair.establish();
    pair.paths[0].reorder = 0.02;
    pair.nodes[0].app.total = 40_000_000;
    pair.run_until(10 * SECOND, |pair| pair.nodes[1].app.received == 40_000_000);
    let statistics = pair.tcp(0).statistics();
    assert!(
        statistics.retransmits * 20 < statistics.segments_sent,
        "{} of {} retransmitted though none was lost",
        statistics.retransmits,
        statistics.segments_sent
    );
}

#[test]
fn urgent_segments_leave_at_once_though_the_window_is_full() {
    let (mut pair, _) = saturated(5, Algorithm::Cubic, 0.0, Duration::from_millis(50));
    for _ in 0..50 {
        pair.run_for(Duration::from_millis(2));
        pair.nodes[0].app.urgent = true;
        let asked_at = pair.now;
        let before = pair.nodes[0].app.urgent_cuts.len();
        pair.run_until(SECOND, |pair| pair.nodes[0].app.urgent_cuts.len() > before);
        let (cut_at, _) = pair.nodes[0].app.urgent_cuts[before];
        assert!(cut_at - asked_at < Duration::from_micros(30), "{:?}", cut_at - asked_at);
    }
    assert!(pair.tcp(0).statistics().urgent_beyond_window > 0, "some had to exceed the window");
}

#[test]
fn urgent_segments_exceed_the_window_once_a_round_trip_only() {
    let (mut pair, _) = saturated(6, Algorithm::Cubic, 0.0, Duration::from_millis(50));
    let beyond = pair.tcp(0).statistics().urgent_beyond_window;
    let smoothed = pair.tcp(0).send_state(pair.now).smoothed_rtt.expect("measured");
    let from = pair.now;
    for _ in 0..2000 {
        pair.nodes[0].app.urgent = true;
        pair.step();
    }
    let rounds = (pair.now - from).as_secs_f64() / smoothed.as_secs_f64();
    let exceeded = pair.tcp(0).statistics().urgent_beyond_window - beyond;
    assert!(exceeded as f64 <= 2.0 * rounds + 2.0, "{exceeded} in {rounds:.1} round trips");
}

#[test]
fn data_ahead_of_a_gap_is_shown_before_the_gap_closes() {
    let mut pair = Pair::new(7, Config::default());
    pair.establish();
    pair.paths[0].cut = true;
    pair.nodes[0].app.total = 1448;
    pair.transmit_all(0);
    pair.paths[0].cut = false;
    pair.nodes[0].app.total = 2896;
    pair.run_until(SECOND, |pair| !pair.nodes[1].app.ahead.is_empty());
    assert_eq!(pair.nodes[1].app.received, 0);
    assert_eq!(pair.nodes[1].app.ahead[0], (1449, 1448));
    pair.run_until(SECOND, |pair| pair.nodes[1].app.received == 2896);
}

#[test]
fn a_blackhole_of_seconds_is_survived() {
    let (mut pair, _) = saturated(8, Algorithm::Bbr, 0.0, Duration::from_millis(20));
    pair.paths[0].cut = true;
    pair.paths[1].cut = true;
    pair.run_for(5 * SECOND);
    pair.paths[0].cut = false;
    pair.paths[1].cut = false;
    let healed_at = pair.now;
    let received = pair.nodes[1].app.received;
    pair.run_until(20 * SECOND, |pair| pair.nodes[1].app.received > received + 10_000_000);
    assert!(pair.now - healed_at < 10 * SECOND, "{:?}", pair.now - healed_at);
}

#[test]
fn a_path_that_becomes_twenty_times_longer_does_not_time_out_for_ever() {
    for algorithm in [Algorithm::Bbr, Algorithm::Cubic] {
        let (mut pair, _) = saturated(9, algorithm, 0.0, Duration::from_millis(50));
        for path in &mut pair.paths {
            path.delay = Duration::from_millis(2);
        }
        pair.run_for(Duration::from_millis(100));
        let timeouts = pair.tcp(0).statistics().retransmission_timeouts;
        pair.run_for(SECOND);
        assert_eq!(pair.tcp(0).statistics().retransmission_timeouts, timeouts, "{algorithm}");
        let smoothed = pair.tcp(0).send_state(pair.now).smoothed_rtt.expect("measured");
        assert!(smoothed > Duration::from_millis(3), "{smoothed:?}");
    }
}

#[test]
fn segments_that_trickle_do_not_time_out_while_the_peer_delays_its_acknowledgement() {
    let mut pair = Pair::new(10, Config::default());
    pair.establish();
    for _ in 0..500 {
        // Slower than twice the round trip, faster than the peer's delayed acknowledgement.
        pair.nodes[0].app.total += 1448;
        pair.run_for(Duration::from_micros(2400));
    }
    pair.run_for(Duration::from_millis(100));
    assert_eq!(pair.nodes[1].app.received, 500 * 1448);
    let statistics = pair.tcp(0).statistics();
    assert_eq!((statistics.retransmission_timeouts, statistics.retransmits), (0, 0), "{statistics:?}");
}

#[test]
fn a_peer_that_was_held_up_past_the_timeout_costs_one_retransmission_and_not_the_flight() {
    let (mut pair, _) = saturated(11, Algorithm::Bbr, 0.0, Duration::from_millis(50));
    let before = pair.tcp(0).statistics();
    for _ in 0..20 {
        // The peer's thread does not run for 3 ms.
        pair.hold_back(1, Duration::from_millis(3));
        pair.run_for(Duration::from_millis(20));
    }
    let after = pair.tcp(0).statistics();
    let timeouts = after.retransmission_timeouts - before.retransmission_timeouts;
    let retransmits = after.retransmits - before.retransmits;
    assert!(timeouts >= 10, "{timeouts} timeouts");
    assert!(retransmits <= 4 * timeouts, "{retransmits} retransmissions in {timeouts} timeouts");
    // A second timeout within the same 3 ms belongs to the same recovery.
    assert!(after.spurious_recoveries - before.spurious_recoveries >= 20, "each was undone: {after:?}");
}
