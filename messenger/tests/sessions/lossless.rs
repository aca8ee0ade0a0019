//! Lossless connections in virtual time: what they survive, and what they tell.

use std::time::Duration;

use super::cluster::{Cluster, HALF_TRIP, Told, address, calm};
use bytes::Bytes;
use outrider_messenger::{Condition, Connection, Message, OobOp, Policy};

fn peers(policy: Policy) -> Cluster {
    Cluster::new(2, &calm(), 1, move |_, builder| builder.default_policy(policy))
}

fn numbered(tid: u64) -> Message {
    Message::new(1, vec![tid as u8; 1000]).with_tid(tid)
}

fn tids(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.tid).collect()
}

/// Runs until host 2 has as many messages.
fn run_until_received(cluster: &mut Cluster, count: usize) {
    cluster.kick();
    let limit = cluster.now + Duration::from_secs(120);
    let done = cluster.run_until(limit, |cluster| cluster.host(2).recorder.messages().len() >= count);
    assert!(done, "only {} of {count}", cluster.host(2).recorder.messages().len());
}

#[test]
fn what_was_sent_before_and_during_a_loss_arrives_once_and_in_order() {
    let mut cluster = peers(Policy::lossless_peer());
    let connection = cluster.host(1).messenger.connect_to(address(2)).unwrap();
    for tid in 0..100 {
        connection.send_message(numbered(tid)).unwrap();
        cluster.run_for(Duration::from_millis(60));
        if tid % 20 == 7 {
            cluster.host(1 + (tid / 20 % 2) as u8).reset_connections(cluster.now);
        }
    }
    run_until_received(&mut cluster, 100);
    cluster.run_for(Duration::from_secs(5));
    assert_eq!(tids(&cluster.host(2).recorder.messages()), (0..100).collect::<Vec<_>>());
    let told = cluster.host(1).recorder.callbacks();
    assert!(told.iter().all(|told| *told == Told::Connect(1)), "{told:?}");
    assert!(told.len() >= 5, "each time it is ready again: {told:?}");
    assert!(connection.is_connected());
}

#[test]
fn heartbeats_go_on_with_the_next_transport_and_sequences_go_on_too() {
    let mut cluster = peers(Policy::lossless_peer());
    let connection = cluster.host(1).messenger.connect_to(address(2)).unwrap();
    let part = |turn: &outrider_messenger::OobTurn| Some(Bytes::from(turn.sequence.to_string()));
    let registration = connection.register_oob_message(OobOp::PING, part, Duration::from_millis(10)).unwrap();
    cluster.run_for(Duration::from_secs(1));
    let before = cluster.host(2).recorder.heartbeats();
    assert_eq!(
        connection.round_trip(),
        Some(2 * HALF_TRIP),
        "without the time that the echo waited for its turn"
    );
    cluster.host(2).reset_connections(cluster.now);
    cluster.run_for(Duration::from_secs(1));
    let after = cluster.host(2).recorder.heartbeats();
    assert!(before > 90 && after - before > 80, "{before} and {after}");
    assert_eq!(connection.oob_statistics().sent, after);
    drop(registration);
    cluster.run_for(Duration::from_secs(1));
    let last = cluster.host(2).recorder.heartbeats();
    assert!(last - after <= 2, "one more turn, and one message that says that no more come");
    assert_eq!(cluster.host(2).messenger.connections()[0].peer_report().unwrap().interval, None);
    assert_eq!(cluster.host(2).messenger.connections()[0].health().condition, Condition::Healthy);
}

#[test]
fn connecting_again_gives_the_same_connection_whoever_dialled_it() {
    let mut cluster = peers(Policy::lossless_peer());
    let one = cluster.host(1).messenger.connect_to(address(2)).unwrap();
    assert_eq!(cluster.host(1).messenger.connect_to(address(2)).unwrap(), one);
    cluster.run_for(Duration::from_secs(1));
    let two = cluster.host(2).messenger.connect_to(address(1)).unwrap();
    assert_eq!(cluster.host(2).messenger.connections(), [two]);
    assert_eq!(cluster.host(1).transports(cluster.now), 1);
}

#[test]
fn both_sides_may_dial_at_once() {
    for policy in [Policy::lossless_peer(), Policy::lossless_peer_reuse()] {
        let mut cluster = peers(policy);
        let there = cluster.host(1).messenger.connect_to(address(2)).unwrap();
        let back = cluster.host(2).messenger.connect_to(address(1)).unwrap();
        for tid in 0..50 {
            there.send_message(numbered(tid)).unwrap();
            back.send_message(numbered(tid)).unwrap();
        }
        run_until_received(&mut cluster, 50);
        cluster.run_for(Duration::from_secs(5));
        for host in [1, 2] {
            assert_eq!(tids(&cluster.host(host).recorder.messages()), (0..50).collect::<Vec<_>>());
            assert_eq!(cluster.host(host).messenger.connections().len(), 1);
            assert_eq!(cluster.host(host).transports(cluster.now), 1, "the loser's transport is closed");
        }
        assert_eq!(
            cluster.host(1).recorder.callbacks(),
            [Told::Connect(1)],
            "the lower name's attempt counts"
        );
        assert_eq!(cluster.host(2).recorder.callbacks(), [Told::Accept(1)]);
    }
}

/// Host 2 has got message 0 and is in its next life; messages 1 to 9 were on their way meanwhile.
fn restarted_peer(policy: Policy) -> (Cluster, Connection) {
    let mut cluster = peers(policy);
    let connection = cluster.host(1).messenger.connect_to(address(2)).unwrap();
    connection.send_message(numbered(0)).unwrap();
    run_until_received(&mut cluster, 1);
    cluster.run_for(Duration::from_secs(1));
    cluster.crash(2);
    for tid in 1..10 {
        connection.send_message(numbered(tid)).unwrap();
    }
    cluster.run_for(Duration::from_millis(10));
    cluster.boot(2);
    (cluster, connection)
}

#[test]
fn a_peer_that_restarts_is_told_apart_if_the_policy_checks() {
    let (mut cluster, connection) = restarted_peer(Policy::lossless_peer_reuse());
    cluster.run_for(Duration::from_secs(30));
    assert_eq!(
        cluster.host(1).recorder.callbacks(),
        [Told::Connect(1), Told::RemoteReset(1), Told::Connect(1)]
    );
    assert_eq!(cluster.host(2).recorder.messages(), [], "what was meant for its last life is dropped");
    connection.send_message(numbered(10)).unwrap();
    run_until_received(&mut cluster, 1);
    assert_eq!(tids(&cluster.host(2).recorder.messages()), [10]);
}

#[test]
fn without_the_check_the_next_life_gets_what_the_last_had_not_acknowledged() {
    let (mut cluster, _connection) = restarted_peer(Policy::lossless_peer());
    run_until_received(&mut cluster, 9);
    assert_eq!(tids(&cluster.host(2).recorder.messages()), (1..10).collect::<Vec<_>>());
    assert_eq!(cluster.host(1).recorder.callbacks(), [Told::Connect(1), Told::Connect(1)]);
}

#[test]
fn an_attempt_that_nobody_answers_is_made_again_until_somebody_does() {
    let mut cluster = peers(Policy::lossless_peer());
    cluster.crash(2);
    let connection = cluster.host(1).messenger.connect_to(address(2)).unwrap();
    connection.send_message(numbered(0)).unwrap();
    cluster.run_for(Duration::from_secs(100));
    assert!(matches!(connection.health().condition, Condition::Silent { .. }));
    cluster.boot(2);
    let booted = cluster.now;
    run_until_received(&mut cluster, 1);
    assert!(cluster.now.since(booted) < Duration::from_secs(20), "back-off is limited");
}

#[test]
fn a_peer_with_nothing_to_send_stands_by_and_dials_when_there_is() {
    let mut cluster = peers(Policy::lossless_peer());
    let connection = cluster.host(1).messenger.connect_to(address(2)).unwrap();
    connection.send_message(numbered(0)).unwrap();
    run_until_received(&mut cluster, 1);
    cluster.run_for(Duration::from_secs(1));
    cluster.host(1).reset_connections(cluster.now);
    cluster.run_for(Duration::from_secs(60));
    assert_eq!(cluster.host(1).transports(cluster.now), 0, "nobody needs one");
    let back = cluster.host(2).messenger.connections()[0].clone();
    back.send_message(numbered(5)).unwrap();
    cluster.run_for(Duration::from_secs(1));
    assert_eq!(tids(&cluster.host(1).recorder.messages()), [5], "the side that was dialled dials back");
    assert_eq!(cluster.host(1).recorder.callbacks(), [Told::Connect(1), Told::Accept(1)]);
}

#[test]
fn a_large_message_that_was_cut_off_begins_again_and_others_overtake_it() {
    let mut cluster = Cluster::new(
        2,
        &outrider_drivers::memory::LinkConfig { rate_bits_per_second: 100_000_000, ..calm() },
        1,
        |_, builder| builder.default_policy(Policy::lossless_peer()).send_budget_bytes(64 << 20),
    );
    let connection = cluster.host(1).messenger.connect_to(address(2)).unwrap();
    let large = Message::new(2, vec![7; 4 << 20]).with_priority(64).with_tid(1000);
    connection.send_message(large.clone()).unwrap();
    cluster.run_for(Duration::from_millis(100));
    connection.send_message(numbered(1).with_priority(255)).unwrap();
    cluster.run_for(Duration::from_millis(20));
    cluster.host(1).reset_connections(cluster.now);
    run_until_received(&mut cluster, 2);
    assert_eq!(cluster.host(2).recorder.messages(), [numbered(1).with_priority(255), large]);
}

#[test]
fn the_send_budget_is_given_back_when_the_peers_session_has_the_message() {
    let mut cluster = Cluster::new(2, &calm(), 1, |_, builder| {
        builder.default_policy(Policy::lossless_peer()).send_budget_bytes(100_000)
    });
    let connection = cluster.host(1).messenger.connect_to(address(2)).unwrap();
    let mut sent = 0;
    for round in 0..50 {
        while connection.try_send_message(numbered(sent)).is_ok() {
            sent += 1;
        }
        cluster.run_for(Duration::from_millis(5));
        if round % 10 == 3 {
            cluster.host(2).reset_connections(cluster.now);
        }
    }
    run_until_received(&mut cluster, sent as usize);
    assert_eq!(tids(&cluster.host(2).recorder.messages()), (0..sent).collect::<Vec<_>>());
    assert!(sent > 1000, "{sent}: the budget comes back");
    cluster.run_for(Duration::from_secs(1));
    while connection.try_send_message(numbered(sent)).is_ok() {
        sent += 1;
    }
    assert!(connection.statistics().acks_received > 0);
}
