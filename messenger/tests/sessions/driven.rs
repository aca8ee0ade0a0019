//! What a messenger offers besides messages, in virtual time: loopback, ports, throttles, draining, health, faults.

use std::net::SocketAddr;
use std::time::Duration;

use super::cluster::{Cluster, Told, address, calm};
use bytes::Bytes;
use outrider_messenger::{
    Backoff, Condition, ConnectError, Connection, Drain, EntityKind, InjectConfig, Message, OobOp,
    OobRegistration, Policy, RegisterError, Side, ThrottleLimits,
};

const INTERVAL: Duration = Duration::from_millis(10);

fn peers() -> Cluster {
    Cluster::new(2, &calm(), 1, |_, builder| builder.default_policy(Policy::lossless_peer()))
}

fn connect(cluster: &mut Cluster) -> Connection {
    let connection = cluster.host(1).messenger.connect_to(address(2)).unwrap();
    cluster.run_for(Duration::from_millis(100));
    assert!(connection.is_connected());
    connection
}

fn back(cluster: &Cluster) -> Connection {
    cluster.host(2).messenger.connections().pop().expect("it was dialled")
}

fn ping(connection: &Connection) -> OobRegistration {
    let part = |_: &_| Some(Bytes::from_static(b"alive"));
    connection.register_oob_message(OobOp::PING, part, INTERVAL).unwrap()
}

fn numbered(tid: u64) -> Message {
    Message::new(1, vec![0; 1000]).with_tid(tid)
}

#[test]
fn the_loopback_connection_brings_messages_back_in_order() {
    let mut cluster = peers();
    let own = cluster.host(1).messenger.loopback();
    assert_eq!(cluster.host(1).messenger.connect_to(address(1)).unwrap(), own);
    for tid in 0..3 {
        own.send_message(numbered(tid)).unwrap();
    }
    cluster.run_for(Duration::from_millis(1));
    let told = cluster.host(1).recorder.told.lock().unwrap().clone();
    assert_eq!(told, (0..3).map(|tid| Told::Message(own.id(), numbered(tid))).collect::<Vec<_>>());
    let refused = own.register_oob_message(OobOp::PING, |_| None, INTERVAL).unwrap_err();
    assert_eq!(refused, RegisterError::Loopback);
    own.mark_down();
    assert!(own.is_connected() && own.is_loopback());
    assert_eq!(own.health().condition, Condition::Healthy);
}

#[test]
fn a_port_left_open_is_announced_as_it_is() {
    let mut cluster = Cluster::new(2, &calm(), 1, |host, builder| {
        builder.bind(SocketAddr::new(address(host).ip(), 0)).default_policy(Policy::lossless_peer())
    });
    let addresses = cluster.host(2).messenger.addresses();
    assert!(addresses[1].port() != 0);
    let connection = cluster.host(1).messenger.connect_to(addresses[1]).unwrap();
    cluster.run_for(Duration::from_millis(100));
    assert!(connection.is_connected());
    assert_eq!(connection.peer_addresses(), addresses);
    assert_eq!(
        cluster.host(1).messenger.connect_to(address(2)).unwrap(),
        connection,
        "known by all its addresses"
    );
}

#[test]
fn policies_are_by_kind_and_a_server_does_not_dial() {
    let cluster = Cluster::new(1, &calm(), 1, |_, builder| {
        builder
            .policy(EntityKind::Client, Policy::stateful_server())
            .policy(EntityKind::Mon, Policy::lossless_client())
    });
    let messenger = &cluster.host(1).messenger;
    assert!(matches!(
        messenger.connect_to_kind(EntityKind::Client, address(9)),
        Err(ConnectError::ServesOnly)
    ));
    let monitor = messenger.connect_to_kind(EntityKind::Mon, address(9)).unwrap();
    assert_eq!(messenger.connect_to_kind(EntityKind::Mon, address(9)).unwrap(), monitor);
    assert_ne!(messenger.connect_to(address(8)).unwrap(), messenger.connect_to(address(8)).unwrap());
}

#[test]
fn a_throttle_over_all_connections_stops_the_senders_and_lets_them_go_on() {
    let limits = ThrottleLimits { bytes: 1 << 30, messages: 20 };
    let mut cluster = Cluster::new(3, &calm(), 1, move |_, builder| {
        builder
            .default_policy(Policy::lossless_peer())
            .dispatch_throttle(limits)
            .receive_credit_bytes(16 << 10)
    });
    let senders = [1, 3].map(|host| cluster.host(host).messenger.connect_to(address(2)).unwrap());
    cluster.run_for(Duration::from_millis(100));
    cluster.hosts[1].as_mut().unwrap().messenger.set_dispatching(false);
    for tid in 0..200 {
        senders.iter().for_each(|sender| sender.send_message(numbered(tid)).unwrap());
    }
    cluster.run_for(Duration::from_secs(5));
    let (_, held) = cluster.host(2).messenger.throttled(None).unwrap();
    assert!(
        (20..20 + 2 * 18).contains(&held),
        "{held}: the limit, and a credit of 16 messages for each at most"
    );
    cluster.hosts[1].as_mut().unwrap().messenger.set_dispatching(true);
    cluster.run_for(Duration::from_secs(5));
    assert_eq!(cluster.host(2).recorder.messages().len(), 400);
    assert_eq!(cluster.host(2).messenger.throttled(None), Some((0, 0)));
}

#[test]
fn a_throttle_is_exceeded_by_a_credit_and_a_message_for_each_lane_of_a_connection_at_most() {
    const LIMIT: u64 = 20_000;
    const CREDIT: u64 = 8 << 10;
    const MESSAGE: u64 = 3_000;
    // Besides its payload a message has a header.
    const COST: u64 = MESSAGE + 64;
    let limits = ThrottleLimits { bytes: LIMIT, messages: 1 << 20 };
    let mut cluster = Cluster::new(6, &calm(), 1, move |_, builder| {
        let builder = builder.default_policy(Policy::lossless_peer()).receive_credit_bytes(CREDIT as usize);
        builder.throttle(EntityKind::Osd, limits)
    });
    let senders: Vec<Connection> =
        [1, 3, 4, 5, 6].map(|host| cluster.host(host).messenger.connect_to(address(2)).unwrap()).into();
    cluster.run_for(Duration::from_millis(100));
    cluster.hosts[1].as_mut().unwrap().messenger.set_dispatching(false);
    let lanes = [64, 127, 196, 255];
    for (number, priority) in (0..100u64).zip(lanes.into_iter().cycle()) {
        let message = Message::new(1, vec![0; MESSAGE as usize]).with_tid(number).with_priority(priority);
        senders.iter().for_each(|sender| sender.send_message(message.clone()).unwrap());
    }
    let bound = LIMIT + senders.len() as u64 * (CREDIT + lanes.len() as u64 * COST);
    for _ in 0..50 {
        cluster.run_for(Duration::from_millis(20));
        let (held, _) = cluster.host(2).messenger.throttled(Some(EntityKind::Osd)).unwrap();
        assert!(held <= bound, "{held} of at most {bound}");
    }
    let (held, _) = cluster.host(2).messenger.throttled(Some(EntityKind::Osd)).unwrap();
    assert!(held >= LIMIT, "{held}: it is reached");
    cluster.hosts[1].as_mut().unwrap().messenger.set_dispatching(true);
    cluster.run_for(Duration::from_secs(5));
    assert_eq!(cluster.host(2).recorder.messages().len(), 500);
    assert_eq!(cluster.host(2).messenger.throttled(Some(EntityKind::Osd)), Some((0, 0)));
}

#[test]
fn a_shutdown_that_drains_delivers_everything_and_one_that_does_not_is_quick() {
    for (drain, all) in [(Drain::Within(Duration::from_secs(10)), true), (Drain::No, false)] {
        let link = outrider_drivers::memory::LinkConfig { rate_bits_per_second: 10_000_000, ..calm() };
        let mut cluster =
            Cluster::new(2, &link, 1, |_, builder| builder.default_policy(Policy::lossless_peer()));
        let connection = connect(&mut cluster);
        for tid in 0..1000 {
            connection.send_message(numbered(tid)).unwrap();
        }
        cluster.host(1).messenger.shutdown_with(drain);
        assert!(connection.try_send_message(numbered(1000)).is_err(), "nothing more is taken");
        cluster.run_for(Duration::from_secs(8));
        assert!(cluster.host(1).messenger.is_done());
        assert_eq!(cluster.host(2).recorder.messages().len() == 1000, all);
    }
}

#[test]
fn a_drain_ends_even_if_the_peer_is_gone() {
    let mut cluster = peers();
    let connection = connect(&mut cluster);
    cluster.crash(2);
    connection.send_message(numbered(0)).unwrap();
    cluster.host(1).messenger.shutdown_with(Drain::Within(Duration::from_secs(3)));
    cluster.run_for(Duration::from_secs(2));
    assert!(!cluster.host(1).messenger.is_done());
    cluster.run_for(Duration::from_secs(5));
    assert!(cluster.host(1).messenger.is_done());
}

#[test]
fn health_names_a_stalled_consumer_on_both_sides_within_two_intervals_of_its_threshold() {
    let mut cluster = peers();
    let connection = connect(&mut cluster);
    let _ping = ping(&connection);
    cluster.run_for(Duration::from_secs(1));
    assert_eq!(connection.health().condition, Condition::Healthy);
    cluster.hosts[1].as_mut().unwrap().messenger.set_dispatching(false);
    let stopped = cluster.now;
    connection.send_message(numbered(0)).unwrap();
    cluster.run_for(Duration::from_millis(20) + 2 * INTERVAL + Duration::from_millis(3));
    let health = connection.health();
    assert!(
        matches!(
            health.condition,
            Condition::ConsumerStalled { side: Side::Peer, undispatched_messages: 1, .. }
        ),
        "{health:?}"
    );
    assert!(health.since.since(stopped) < Duration::from_millis(5));
    assert!(matches!(back(&cluster).health().condition, Condition::ConsumerStalled { side: Side::Own, .. }));
    cluster.hosts[1].as_mut().unwrap().messenger.set_dispatching(true);
    cluster.run_for(Duration::from_millis(100));
    assert_eq!(connection.health().condition, Condition::Healthy);
}

#[test]
fn health_names_silence_within_three_intervals_and_congestion_by_what_blocks() {
    let mut cluster = peers();
    let connection = connect(&mut cluster);
    let _ping = ping(&connection);
    cluster.run_for(Duration::from_secs(1));
    cluster.set_blackhole(true);
    cluster.run_for(2 * INTERVAL - Duration::from_millis(5));
    assert_eq!(back(&cluster).health().condition, Condition::Healthy, "not yet");
    cluster.run_for(INTERVAL + Duration::from_millis(5));
    for side in [connection.clone(), back(&cluster)] {
        assert!(matches!(side.health().condition, Condition::Silent { .. }), "{:?}", side.health());
    }
    cluster.set_blackhole(false);
    cluster.run_for(Duration::from_secs(1));
    assert_eq!(connection.health().condition, Condition::Healthy);
    for tid in 0..4000 {
        let _ = connection.try_send_message(Message::new(1, vec![0; 10_000]).with_tid(tid));
    }
    cluster.ports[0]
        .set_link(outrider_drivers::memory::LinkConfig { rate_bits_per_second: 1_000_000, ..calm() });
    cluster.run_for(Duration::from_millis(300));
    let health = connection.health();
    assert!(matches!(health.condition, Condition::Congested { .. } | Condition::Silent { .. }), "{health:?}");
}

#[test]
fn injected_failures_cost_a_lossless_connection_nothing_but_time() {
    let mut cluster = Cluster::new(2, &calm(), 1, |host, builder| {
        let inject = InjectConfig {
            seed: host.into(),
            socket_failures: 60,
            delay_probability: 0.1,
            delay_max: Duration::from_millis(5),
            dropped_pings: 0.5,
            internal_delay_probability: 0.1,
            internal_delay_max: Duration::from_millis(3),
        };
        let backoff = Backoff { min: Duration::from_millis(1), max: Duration::from_millis(20) };
        builder.default_policy(Policy::lossless_peer()).backoff(backoff).inject(inject)
    });
    let connection = cluster.host(1).messenger.connect_to(address(2)).unwrap();
    let _ping = ping(&connection);
    for tid in 0..500 {
        connection.send_message(numbered(tid)).unwrap();
        cluster.run_for(Duration::from_millis(2));
    }
    cluster.run_for(Duration::from_secs(10));
    let tids: Vec<u64> = cluster.host(2).recorder.messages().iter().map(|message| message.tid).collect();
    assert_eq!(tids, (0..500).collect::<Vec<_>>());
    let injector = cluster.host(2).messenger.injector().unwrap();
    assert!(injector.failures() > 5 && injector.pings_dropped() > 50, "{injector:?}");
    injector.set_blackhole(true);
    cluster.run_for(Duration::from_secs(1));
    assert!(matches!(connection.health().condition, Condition::Silent { .. }));
    cluster.host(2).messenger.injector().unwrap().set_blackhole(false);
    connection.send_message(numbered(500)).unwrap();
    cluster.run_for(Duration::from_secs(10));
    assert_eq!(cluster.host(2).recorder.messages().len(), 501);
}

#[test]
fn a_disposable_connection_ends_with_its_transport_and_keeps_what_the_application_gave() {
    let mut cluster = peers();
    let connection = connect(&mut cluster);
    connection.set_private(Some(std::sync::Arc::new(42u32)));
    assert_eq!(connection.private().unwrap().downcast_ref::<u32>(), Some(&42));
    connection.mark_disposable();
    assert!(connection.is_connected());
    cluster.host(2).reset_connections(cluster.now);
    cluster.run_for(Duration::from_secs(1));
    assert_eq!(cluster.host(1).recorder.callbacks(), [Told::Connect(1), Told::Reset(1)]);
    assert!(connection.try_send_message(numbered(0)).is_err());
}

#[test]
fn an_idle_transport_is_closed_and_comes_back_when_it_is_needed() {
    let mut cluster = Cluster::new(2, &calm(), 1, |_, builder| {
        builder.default_policy(Policy::lossless_peer()).idle_timeout(Some(Duration::from_secs(10)))
    });
    let connection = connect(&mut cluster);
    cluster.run_for(Duration::from_secs(30));
    assert_eq!((cluster.host(1).transports(cluster.now), connection.is_connected()), (0, false));
    connection.send_message(numbered(0)).unwrap();
    cluster.run_for(Duration::from_secs(1));
    assert_eq!(cluster.host(2).recorder.messages().len(), 1);
    assert_eq!(cluster.host(1).recorder.callbacks(), [Told::Connect(1), Told::Connect(1)]);
}
