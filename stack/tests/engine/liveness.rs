//! The user timeout: a deadline of its own, whatever the other timers do.

use std::time::Duration;

use outrider_stack::tcp::connection::{CloseReason, Config, Event, State};

use crate::pair::Pair;

const SECOND: Duration = Duration::from_secs(1);

fn config(user_timeout: Duration) -> Config {
    Config { user_timeout, ..Config::default() }
}

/// When node 0 was told of its end, counted from `from`, and why.
fn end_of(pair: &mut Pair, limit: Duration) -> (Duration, CloseReason) {
    let from = pair.now;
    pair.run_until(limit, |pair| pair.closed(0));
    let reason = pair.nodes[0].events.iter().find_map(|event| match event {
        Event::Closed(reason) => Some(*reason),
        Event::Established => None,
    });
    (pair.now - from, reason.expect("it is closed"))
}

/// Until everything is delivered and acknowledged.
fn deliver_all(pair: &mut Pair) {
    let total = pair.nodes[0].app.total;
    pair.run_until(5 * SECOND, |pair| {
        pair.nodes[1].app.received == total && pair.tcp(0).send_state(pair.now).bytes_in_flight == 0
    });
}

#[test]
fn unacknowledged_data_ends_at_the_user_timeout_and_not_at_the_next_retransmission() {
    for timeout in [SECOND, 3 * SECOND, 7 * SECOND, 100 * SECOND] {
        let mut pair = Pair::new(1, config(timeout));
        pair.establish();
        pair.nodes[0].app.total = 10_000;
        pair.run_for(Duration::from_millis(100));
        pair.paths[0].cut = true;
        pair.nodes[0].app.total += 10_000;
        pair.keep_log = true;
        let (took, reason) = end_of(&mut pair, 200 * SECOND);
        assert_eq!((took, reason), (timeout, CloseReason::UserTimeout));
        let resets = pair.sent[0].iter().filter(|(_, segment)| segment.header.flags.rst).count();
        assert_eq!(resets, 0, "RFC 9293 section 3.10.8 has no word for the peer");
    }
}

#[test]
fn progress_puts_the_user_timeout_off_and_silence_does_not() {
    let mut pair = Pair::new(2, config(2 * SECOND));
    pair.establish();
    for _ in 0..10 {
        pair.nodes[0].app.total += 5_000;
        pair.paths[0].cut = true;
        pair.run_for(Duration::from_millis(700));
        pair.paths[0].cut = false;
        deliver_all(&mut pair);
        // Something that gets through at once ends the back-off (RFC 6298 section 5.7).
        pair.nodes[0].app.total += 5_000;
        deliver_all(&mut pair);
    }
    assert!(!pair.closed(0));
    // With nothing outstanding the peer may be silent for as long as it likes.
    pair.paths[0].cut = true;
    pair.paths[1].cut = true;
    pair.run_for(100 * SECOND);
    assert!(!pair.closed(0));
}

#[test]
fn an_attempt_to_connect_ends_at_the_user_timeout() {
    let mut pair = Pair::new(3, config(5 * SECOND));
    pair.paths[0].cut = true;
    let (took, reason) = end_of(&mut pair, 200 * SECOND);
    assert_eq!((took, reason), (5 * SECOND, CloseReason::ConnectTimeout));
    // The other end, whose SYN-ACK nobody hears.
    let mut pair = Pair::new(4, config(5 * SECOND));
    pair.paths[1].cut = true;
    pair.run_until(SECOND, |pair| pair.nodes[1].tcp.is_some());
    pair.paths[0].cut = true;
    assert_eq!(pair.tcp(1).state(), State::SynReceived);
    let from = pair.now;
    pair.run_until(200 * SECOND, |pair| pair.closed(1));
    assert_eq!(pair.now - from, 5 * SECOND);
}

#[test]
fn a_shut_window_ends_the_connection_only_when_the_probes_are_not_answered() {
    let mut pair = Pair::new(5, Config { receive_window_max: 50_000, ..config(4 * SECOND) });
    pair.nodes[1].app.capacity = 50_000;
    pair.nodes[1].app.keeps = true;
    pair.establish();
    // Idle for longer than the timeout before there is anything to probe for.
    pair.run_for(60 * SECOND);
    pair.nodes[0].app.total = 200_000;
    pair.run_for(100 * SECOND);
    assert!(!pair.closed(0), "the peer answers");
    pair.paths[1].cut = true;
    pair.keep_log = true;
    pair.run_until(200 * SECOND, |pair| pair.closed(0));
    let (first, count) = (pair.sent[0][0].0, pair.sent[0].len());
    assert_eq!(pair.now - first, 4 * SECOND, "since the first probe without an answer");
    assert!(count >= 4, "one lost probe must not end a connection: {count}");
    assert!(pair.nodes[0].events.contains(&Event::Closed(CloseReason::UserTimeout)));
}
