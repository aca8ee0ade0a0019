//! The peer's window: respected, probed, reopened.

use std::time::Duration;

use outrider_stack::tcp::connection::Config;
use outrider_stack::tcp::source::Blocked;

use crate::pair::{Pair, Path};

const SECOND: Duration = Duration::from_secs(1);

fn stopped_reader(seed: u64, capacity: usize, total: u64) -> Pair {
    let mut pair = Pair::new(seed, Config { receive_window_max: capacity as u32, ..Config::default() });
    pair.nodes[0].app.total = total;
    pair.nodes[1].app.capacity = capacity;
    pair.nodes[1].app.keeps = true;
    pair.establish();
    pair.run_until(SECOND, |pair| {
        let state = pair.tcp(0).send_state(pair.now);
        state.blocked == Blocked::PeerWindow && state.bytes_in_flight == 0
    });
    pair
}

#[test]
fn a_reader_that_stops_shuts_the_window_and_probes_find_it_open_again() {
    let mut pair = stopped_reader(1, 100_000, 1_000_000);
    let stopped = pair.nodes[1].app.received;
    assert!(stopped <= 100_000);
    pair.run_for(30 * SECOND);
    assert!(pair.nodes[1].app.received <= 100_000, "a shut window stays shut after {stopped}");
    assert!(pair.tcp(0).statistics().window_probes >= 3, "{:?}", pair.summary());
    // It opens, but nobody says so: only a probe can find out.
    pair.nodes[1].app.keeps = false;
    pair.run_until(120 * SECOND, |pair| pair.nodes[1].app.received == 1_000_000);
}

#[test]
fn a_shut_window_outlasts_the_user_timeout_while_the_peer_answers() {
    let mut pair = stopped_reader(5, 50_000, 200_000);
    pair.run_for(600 * SECOND);
    assert!(!pair.closed(0), "{:?}", pair.nodes[0].events);
    pair.paths[1].cut = true;
    pair.run_until(600 * SECOND, |pair| pair.closed(0));
}

#[test]
fn a_window_update_reopens_without_waiting_for_a_probe() {
    let mut pair = stopped_reader(2, 64_000, 200_000);
    let (shut_at, stopped) = (pair.now, pair.nodes[1].app.received);
    pair.nodes[1].app.keeps = false;
    let now = pair.now;
    pair.nodes[1].tcp.as_mut().expect("open").set_receive_room(now, 64_000);
    pair.run_until(SECOND, |pair| pair.nodes[1].app.received > stopped);
    assert!(pair.now - shut_at < Duration::from_millis(1), "{:?}", pair.now - shut_at);
}

#[test]
fn tiny_reads_do_not_make_tiny_segments() {
    let mut pair = Pair::new(3, Config { receive_window_max: 6_000, ..Config::default() });
    pair.nodes[0].app.total = 300_000;
    pair.nodes[1].app.capacity = 6_000;
    pair.nodes[1].app.keeps = true;
    pair.keep_log = true;
    pair.establish();
    // A reader that takes 100 bytes every 20 us.
    while pair.nodes[1].app.received < 300_000 {
        let app = &mut pair.nodes[1].app;
        app.taken = (app.taken + 100).min(app.received);
        let room = 6_000 - (app.received - app.taken) as usize;
        let now = pair.now;
        pair.nodes[1].tcp.as_mut().expect("open").set_receive_room(now, room);
        pair.run_for(Duration::from_micros(20));
        assert!(pair.now.as_nanos() < 10_000_000_000, "{:?}", pair.summary());
    }
    let payloads: Vec<usize> =
        pair.sent[0].iter().map(|(_, s)| s.payload.len()).filter(|length| *length > 0).collect();
    let small = payloads.iter().filter(|length| **length < 700).count();
    assert!(small * 10 <= payloads.len(), "{small} of {} (RFC 9293 section 3.8.6.2)", payloads.len());
}

#[test]
fn acknowledgements_are_thinned_to_every_second_segment() {
    let mut pair = Pair::new(4, Config::default());
    pair.nodes[0].app.total = 1_448_000;
    pair.establish();
    pair.run_until(SECOND, |pair| pair.nodes[1].app.received == 1_448_000);
    let acks = pair.tcp(1).statistics().acks_sent;
    assert!((450..=600).contains(&acks), "{acks} acknowledgements for 1000 segments");
}

/// How long the acknowledgement of ten bytes takes after `before` bytes and a pause.
fn delay_of_lone_segment(before: u64) -> Duration {
    let mut pair = Pair::new(4, Config::default());
    pair.nodes[0].app.total = before;
    pair.establish();
    pair.run_until(SECOND, |pair| pair.nodes[1].app.received == before);
    pair.run_for(Duration::from_millis(300));
    pair.keep_log = true;
    let sent_at = pair.now;
    pair.nodes[0].app.total += 10;
    pair.run_for(Duration::from_millis(100));
    pair.sent[1].first().expect("it is acknowledged").0 - sent_at
}

#[test]
fn a_lone_segment_waits_for_a_second_one_or_for_an_answer() {
    let delay = delay_of_lone_segment(0);
    assert!(delay > Duration::from_millis(35) && delay < Duration::from_millis(45), "{delay:?}");
}

/// A sender that has timed out begins again with a window of one segment: 40 ms for each would be another stall.
#[test]
fn a_lone_segment_of_a_sender_in_a_hurry_does_not_wait_forty_milliseconds() {
    let delay = delay_of_lone_segment(1_448_000);
    assert!(delay > Duration::from_micros(900) && delay < Duration::from_millis(2), "{delay:?}");
}

#[test]
fn without_options_the_engine_still_works() {
    let config = Config { timestamps: false, sack: false, window_scaling: false, ..Config::default() };
    for seed in 0..20 {
        let path = Path { loss: 0.02, reorder: 0.02, ..Path::default() };
        let mut pair = Pair::new(seed, config.clone()).both_paths(path);
        pair.nodes[0].app.total = 300_000;
        pair.nodes[1].app.total = 100_000;
        pair.establish();
        pair.run_until(120 * SECOND, |pair| {
            pair.nodes[1].app.received == 300_000 && pair.nodes[0].app.received == 100_000
        });
    }
}

#[test]
fn a_last_piece_that_fits_a_small_window_does_not_wait_for_the_persist_timer() {
    for knows_queue in [false, true] {
        let mut pair = stopped_reader(6, 60_000, 60_000);
        let stopped = pair.nodes[1].app.received;
        pair.nodes[0].app.knows_queue = knows_queue;
        // 500 bytes of room, which is less than a segment, and 400 bytes to send (RFC 9293 section 3.8.6.2.1, rule 2).
        let queued = pair.nodes[0].app.total - pair.nodes[0].app.cut;
        pair.nodes[0].app.total = pair.nodes[0].app.total - queued + 400;
        pair.offer_window(0, 500);
        let from = pair.now;
        pair.run_until(10 * SECOND, |pair| pair.nodes[0].app.cut == pair.nodes[0].app.total);
        let waited = pair.now - from;
        assert_eq!(waited < Duration::from_micros(500), knows_queue, "{waited:?} after {stopped}");
    }
}
