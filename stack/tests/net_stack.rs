//! Two stacks on a cable: connections begin, carry bytes both ways, share the port, and end.

// Helpers of tests may unwrap like tests.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::endpoints::{Checked, CheckedAcceptor, Notes, Plan};
use common::{Pair, address, faulty, gigabit, host_config, seeds};
use outrider_drivers::memory::LinkConfig;
use outrider_drivers::port::Port;
use outrider_stack::net::{ListenError, ListenOptions, StackConfig};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::Blocked;

const SERVER: &str = "10.0.0.2:4000";

fn serve(pair: &mut Pair, at: SocketAddr, plan: Plan) -> CheckedAcceptor {
    let acceptor = CheckedAcceptor::new(plan);
    pair.b.stack.listen(at, ListenOptions::default(), Box::new(acceptor.clone())).unwrap();
    acceptor
}

fn connect(pair: &mut Pair, to: SocketAddr, plan: Plan) -> Notes {
    let notes = Notes::default();
    pair.a.stack.connect(pair.now, to, Checked::new(plan, &notes));
    notes
}

#[track_caller]
fn run_to_the_end(pair: &mut Pair, notes: &Notes, limit: Duration) {
    pair.run_until(limit, |pair| {
        let gone = |host: &common::Host, now| host.stack.connections(now).next().is_none();
        notes.get().closed.is_some() && gone(&pair.a, pair.now) && gone(&pair.b, pair.now)
    });
}

fn transfer(pair: &mut Pair, at: &str, bytes: u64, limit: Duration) {
    let acceptor = serve(pair, address(at), Plan::server(bytes));
    let client = connect(pair, address(at), Plan::client(bytes));
    run_to_the_end(pair, &client, limit);
    let server = acceptor.notes().pop().expect("one connection was accepted");
    for (who, notes) in [("client", client), ("server", server)] {
        let record = notes.get();
        assert_eq!((record.sent, record.received), (bytes, bytes), "{who}");
        assert_eq!(record.closed, Some(CloseReason::Finished), "{who}");
        assert!(record.peer_finished, "{who}");
    }
}

#[test]
fn ten_megabytes_each_way_and_an_orderly_end() {
    let mut pair = Pair::new(1, gigabit());
    transfer(&mut pair, SERVER, 10 << 20, Duration::from_secs(2));
    let statistics = pair.a.stack.statistics();
    assert_eq!((statistics.connects, statistics.established, statistics.closed_in_order), (1, 1, 1));
    assert_eq!(statistics.tx_payload_bytes, 10 << 20, "nothing was lost, so nothing was sent twice");
}

#[test]
fn the_same_over_ipv6() {
    let mut pair = Pair::new(2, gigabit());
    transfer(&mut pair, "[fd00::2]:4000", 1 << 20, Duration::from_secs(2));
}

#[test]
fn every_byte_arrives_once_and_in_order_over_a_faulty_link() {
    seeds(8, |seed| {
        let mut pair = Pair::new(seed, faulty());
        transfer(&mut pair, SERVER, 500_000, Duration::from_secs(60));
        let dropped = pair.b.stack.statistics().rx_dropped_checksum;
        assert!(dropped > 0, "corruption was found by the checksum");
    });
}

/// A link whose ports complete checksums and cut super-segments.
fn segmenting(link: &LinkConfig) -> LinkConfig {
    LinkConfig { segment_bytes_max: 65_535, ..link.clone() }
}

#[test]
fn ports_that_segment_carry_the_same_in_fewer_frames() {
    for (seed, at) in [(31, SERVER), (32, "[fd00::2]:4000")] {
        let link = LinkConfig { rate_bits_per_second: 10_000_000_000, ..gigabit() };
        let mut pair = Pair::new(seed, segmenting(&link));
        transfer(&mut pair, at, 10 << 20, Duration::from_secs(2));
        let (stack, port) = (*pair.a.stack.statistics(), pair.a.port.statistics());
        assert_eq!(stack.tx_payload_bytes, 10 << 20, "nothing was lost, so nothing was sent twice");
        assert!(stack.tx_segments > 7_300, "{stack:?}");
        // Half of the segments are bare acknowledgements.
        assert!(port.tx_frames * 2 < stack.tx_segments, "{} frames {stack:?}", port.tx_frames);
        assert_eq!(pair.a.port.link_statistics().dropped_mtu_frames, 0);
        assert_eq!(pair.b.stack.statistics().rx_dropped_checksum, 0);
    }
}

#[test]
fn every_byte_arrives_once_and_in_order_over_faulty_links_whose_ports_segment() {
    seeds(8, |seed| {
        let mut pair = Pair::new(seed, segmenting(&faulty()));
        transfer(&mut pair, SERVER, 500_000, Duration::from_secs(60));
        assert!(pair.a.port.statistics().tx_frames < pair.a.stack.statistics().tx_segments);
        assert!(pair.b.stack.statistics().rx_dropped_checksum > 0, "checksums are real");
    });
}

#[test]
fn a_story_is_the_same_every_time_it_is_told() {
    let run = || {
        let mut pair = Pair::new(77, faulty());
        transfer(&mut pair, SERVER, 200_000, Duration::from_secs(60));
        (pair.now, *pair.a.stack.statistics(), *pair.b.stack.statistics())
    };
    assert_eq!(run(), run());
}

#[test]
fn nobody_listens() {
    let mut pair = Pair::new(3, gigabit());
    let client = connect(&mut pair, address(SERVER), Plan::client(1));
    run_to_the_end(&mut pair, &client, Duration::from_millis(10));
    assert_eq!(client.get().closed, Some(CloseReason::Refused));
    assert_eq!(pair.b.stack.statistics().resets_sent, 1);
}

#[test]
fn the_acceptor_does_not_want_it() {
    let mut pair = Pair::new(4, gigabit());
    let acceptor = CheckedAcceptor { refuse: true, ..CheckedAcceptor::new(Plan::server(1)) };
    pair.b.stack.listen(address(SERVER), ListenOptions::default(), Box::new(acceptor)).unwrap();
    let client = connect(&mut pair, address(SERVER), Plan::client(1));
    run_to_the_end(&mut pair, &client, Duration::from_millis(10));
    assert_eq!(client.get().closed, Some(CloseReason::Reset));
    assert_eq!(pair.b.stack.statistics().refused_by_acceptor, 1);
}

#[test]
fn nobody_answers_for_the_address() {
    let mut pair = Pair::new(5, gigabit());
    let start = pair.now;
    let client = connect(&mut pair, address("10.0.0.77:1"), Plan::client(1));
    run_to_the_end(&mut pair, &client, Duration::from_secs(10));
    assert_eq!(client.get().closed, Some(CloseReason::Unreachable));
    assert_eq!(pair.now.since(start), Duration::from_secs(3), "three requests, a second apart");
    let statistics = pair.a.stack.statistics();
    assert_eq!((statistics.neighbour_requests, statistics.neighbour_failures), (3, 1));
    assert_eq!(statistics.tx_segments, 0, "nothing is cut for a neighbour that is not known");
}

#[test]
fn no_route_and_no_loopback() {
    let mut pair = Pair::new(6, gigabit());
    for to in ["9.9.9.9:1", "10.0.0.1:1", "255.255.255.255:1", "10.0.0.2:0", "[fd01::1]:1"] {
        let client = connect(&mut pair, address(to), Plan::client(1));
        assert_eq!(client.get().closed, Some(CloseReason::Unreachable), "{to}");
    }
}

#[test]
fn beyond_the_gateway() {
    let (a, b) = (host_config(1).with_gateway("10.0.0.2".parse().unwrap()), host_config(2));
    let b = StackConfig::new([b.addresses[0], ("192.168.7.7".parse().unwrap(), 24)]);
    let mut pair = Pair::with(7, gigabit(), gigabit(), a, b);
    transfer(&mut pair, "192.168.7.7:4000", 10_000, Duration::from_secs(2));
}

#[test]
fn ports_run_out_and_come_back() {
    let a = StackConfig { ephemeral_ports: 50_000..=50_003, ..host_config(1) };
    let mut pair = Pair::with(8, gigabit(), gigabit(), a, host_config(2));
    serve(&mut pair, address(SERVER), Plan { finish: false, ..Plan::server(0) });
    let plan = Plan { finish: false, ..Plan::client(0) };
    let clients: Vec<Notes> = (0..5).map(|_| connect(&mut pair, address(SERVER), plan)).collect();
    assert_eq!(clients[4].get().closed, Some(CloseReason::NoResources));
    pair.run_for(Duration::from_millis(10));
    assert!(clients[..4].iter().all(|client| client.get().established.is_some()));
    let mut ports: Vec<u16> =
        clients[..4].iter().map(|c| c.get().established.unwrap().local.port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [50_000, 50_001, 50_002, 50_003]);

    clients[2].get().abort = true;
    clients[2].get().waker.clone().unwrap().wake();
    pair.run_for(Duration::from_millis(10));
    assert_eq!(clients[2].get().closed, Some(CloseReason::Aborted));
    let again = connect(&mut pair, address(SERVER), plan);
    pair.run_for(Duration::from_millis(10));
    assert!(again.get().established.is_some());
}

#[test]
fn the_table_is_full() {
    let a = StackConfig { connections_max: 1, ..host_config(1) };
    let mut pair = Pair::with(9, gigabit(), gigabit(), a, host_config(2));
    serve(&mut pair, address(SERVER), Plan::server(0));
    let first = connect(&mut pair, address(SERVER), Plan::client(0));
    let second = connect(&mut pair, address(SERVER), Plan::client(0));
    assert_eq!(second.get().closed, Some(CloseReason::NoResources));
    run_to_the_end(&mut pair, &first, Duration::from_secs(3));
    let third = connect(&mut pair, address(SERVER), Plan::client(0));
    run_to_the_end(&mut pair, &third, Duration::from_secs(3));
    assert_eq!(third.get().closed, Some(CloseReason::Finished));
}

#[test]
fn a_wake_is_not_lost_to_one_for_a_connection_that_was_there_before() {
    let a = StackConfig { connections_max: 1, ..host_config(1) };
    let mut pair = Pair::with(10, gigabit(), gigabit(), a, host_config(2));
    serve(&mut pair, address(SERVER), Plan { finish: false, ..Plan::server(0) });
    let plan = Plan { finish: false, ..Plan::client(0) };
    let abort = |pair: &mut Pair, client: &Notes, woken_before: Option<&Notes>| {
        pair.run_for(Duration::from_millis(10));
        assert!(client.get().established.is_some());
        for notes in woken_before.into_iter().chain([client]) {
            notes.get().abort = true;
            notes.get().waker.clone().unwrap().wake();
        }
        pair.run_for(Duration::from_millis(10));
        assert_eq!(client.get().closed, Some(CloseReason::Aborted));
    };
    let first = connect(&mut pair, address(SERVER), plan);
    abort(&mut pair, &first, None);
    let second = connect(&mut pair, address(SERVER), plan);
    let places = [&first, &second].map(|client| client.get().waker.clone().unwrap().id().index);
    assert_eq!(places[0], places[1]);
    abort(&mut pair, &second, Some(&first));
}

#[test]
fn an_abort_resets_the_peer() {
    let mut pair = Pair::new(10, gigabit());
    let acceptor = serve(&mut pair, address(SERVER), Plan { finish: false, ..Plan::server(0) });
    let notes = Notes::default();
    let plan = Plan { finish: false, ..Plan::client(1 << 20) };
    let id = pair.a.stack.connect(pair.now, address(SERVER), Checked::new(plan, &notes));
    pair.run_until(Duration::from_secs(1), |_| notes.get().sent > 100_000);
    pair.a.stack.abort(pair.now, id);
    run_to_the_end(&mut pair, &notes, Duration::from_millis(10));
    assert_eq!(notes.get().closed, Some(CloseReason::Aborted));
    assert_eq!(acceptor.notes()[0].get().closed, Some(CloseReason::Reset));
    pair.a.stack.abort(pair.now, id);
    pair.a.stack.wake(pair.now, id);
    assert_eq!(pair.a.stack.connections(pair.now).count(), 0, "a name of the past does nothing");
    let next = connect(&mut pair, address(SERVER), plan);
    pair.a.stack.abort(pair.now, id);
    assert_eq!(next.get().closed, None, "nor to the connection that has its place now");
}

#[test]
fn the_network_goes_dark_before_the_neighbour_is_known() {
    let mut pair = Pair::new(11, gigabit());
    pair.a.port.set_blackhole(true);
    let notes = Notes::default();
    let id = pair.a.stack.connect(pair.now, address(SERVER), Checked::new(Plan::client(1), &notes));
    pair.run_for(Duration::from_millis(1_500));
    pair.a.stack.abort(pair.now, id);
    assert_eq!(notes.get().closed, Some(CloseReason::Aborted), "there is no neighbour to send a RST to");
    assert_eq!(pair.a.stack.connections(pair.now).count(), 0);
}

#[test]
fn the_port_is_gone() {
    let mut pair = Pair::new(12, gigabit());
    let acceptor = serve(&mut pair, address(SERVER), Plan { finish: false, ..Plan::server(0) });
    let client = connect(&mut pair, address(SERVER), Plan { finish: false, ..Plan::client(10) });
    pair.run_for(Duration::from_millis(10));
    pair.a.stack.fail(pair.now);
    pair.b.stack.fail(pair.now);
    assert_eq!(client.get().closed, Some(CloseReason::PortGone));
    assert_eq!(acceptor.notes()[0].get().closed, Some(CloseReason::PortGone));
    assert_eq!(pair.a.stack.connections(pair.now).count(), 0);
}

#[test]
fn a_consumer_that_stops_closes_the_window_and_a_wake_opens_it() {
    let mut pair = Pair::new(13, gigabit());
    let plan = Plan { buffer_bytes: 100_000, stopped: true, ..Plan::server(0) };
    let acceptor = serve(&mut pair, address(SERVER), plan);
    let client = connect(&mut pair, address(SERVER), Plan::client(1 << 20));
    pair.run_for(Duration::from_secs(3));
    let server = acceptor.notes().pop().unwrap();
    let received = server.get().received;
    assert!((98_000..=100_000).contains(&received), "{received} fill the buffer of 100000");
    while server.get().received < 1 << 20 {
        // Consumes what is there by one wake, then stops again.
        let before = server.get().received;
        server.get().stopped = false;
        server.get().waker.clone().unwrap().wake();
        pair.settle();
        server.get().stopped = true;
        pair.run_for(Duration::from_millis(50));
        assert!(server.get().received > before, "the window was opened again");
    }
    server.get().stopped = false;
    run_to_the_end(&mut pair, &client, Duration::from_secs(3));
    assert_eq!(client.get().closed, Some(CloseReason::Finished));
}

#[test]
fn two_hundred_connections_share_the_port_fairly() {
    // The port is the bottleneck, so what each connection gets is decided by the turns.
    let link = LinkConfig { ring_bytes: Some(1 << 20), ..gigabit() };
    let mut pair = Pair::new(14, link);
    let acceptor = serve(&mut pair, address(SERVER), Plan { finish: false, ..Plan::server(0) });
    let plan = Plan { finish: false, ..Plan::client(u64::MAX) };
    let clients: Vec<Notes> = (0..200).map(|_| connect(&mut pair, address(SERVER), plan)).collect();
    pair.run_until(Duration::from_secs(1), |_| {
        clients.iter().all(|client| client.get().established.is_some())
    });
    pair.run_for(Duration::from_millis(200));
    let before: Vec<u64> = acceptor.notes().iter().map(|notes| notes.get().received).collect();
    let end = pair.now + Duration::from_secs(1);
    let mut outstanding_max = 0;
    while pair.step(end) {
        outstanding_max = outstanding_max.max(pair.a.port.transmit_room(pair.now).bytes_outstanding);
    }
    // 500 us at 1 Gbit/s are 62500 bytes; one segment beyond may have been cut at the limit.
    assert!(outstanding_max <= 62_500 + 2 * 1_514, "{outstanding_max} bytes were past recall");
    let received: Vec<u64> =
        acceptor.notes().iter().zip(before).map(|(notes, before)| notes.get().received - before).collect();
    let (sum, square): (f64, f64) = received
        .iter()
        .fold((0.0, 0.0), |(sum, square), &x| (sum + x as f64, square + (x as f64) * (x as f64)));
    let jain = sum * sum / (200.0 * square);
    assert!(sum > 0.9 * 125e6, "{sum} bytes in a second at 1 Gbit/s");
    assert!(jain > 0.98, "Jain's index {jain}");
    assert!(received.iter().all(|bytes| *bytes > 0), "nobody starves");
}

#[test]
fn a_bulk_connection_does_not_hold_up_another() {
    // The port is slow and takes little at once, so turns matter.
    let slow = LinkConfig { rate_bits_per_second: 100_000_000, ring_bytes: Some(256 << 10), ..gigabit() };
    let mut pair = Pair::with(15, slow, gigabit(), host_config(1), host_config(2));
    serve(&mut pair, address(SERVER), Plan { finish: false, ..Plan::server(0) });
    let bulk = connect(&mut pair, address(SERVER), Plan { finish: false, ..Plan::client(u64::MAX) });
    pair.run_for(Duration::from_millis(300));
    let start = pair.now;
    let quick = connect(&mut pair, address(SERVER), Plan::client(20_000));
    pair.run_until(Duration::from_millis(100), |_| quick.get().acked_offset > 20_000);
    let took = pair.now.since(start);
    assert!(took < Duration::from_millis(20), "20 kB beside a bulk transfer took {took:?}");
    assert!(bulk.get().sent > 1 << 20);
}

#[test]
fn the_port_is_kept_shallow_and_busy() {
    let ring = LinkConfig { ring_bytes: Some(1 << 20), ..gigabit() };
    let mut pair = Pair::with(16, ring, gigabit(), host_config(1), host_config(2));
    let acceptor = serve(&mut pair, address(SERVER), Plan { finish: false, ..Plan::server(0) });
    let client = connect(&mut pair, address(SERVER), Plan { finish: false, ..Plan::client(u64::MAX) });
    pair.run_for(Duration::from_millis(100));
    let before = acceptor.notes()[0].get().received;
    let end = pair.now + Duration::from_millis(400);
    let mut most = 0;
    while pair.step(end) {
        most = most.max(pair.a.port.transmit_room(pair.now).bytes_outstanding);
    }
    // 500 us at 1 Gbit/s are 62500 bytes; one segment beyond may have been cut at the limit.
    assert!(most <= 62_500 + 2 * 1_514, "{most} bytes were past recall");
    let received = acceptor.notes()[0].get().received - before;
    assert!(received as f64 > 0.9 * 0.4 * 125e6, "{received} bytes in 400 ms");
    assert!(client.get().blocked.contains(&Blocked::Port), "and the sessions are told");
}

#[test]
fn addresses_to_listen_at() {
    let mut pair = Pair::new(17, gigabit());
    let mut listen = |at: &str, backlog| {
        let acceptor = Box::new(CheckedAcceptor::new(Plan::server(0)));
        pair.b.stack.listen(address(at), ListenOptions { backlog }, acceptor)
    };
    let id = listen("10.0.0.2:80", 1).unwrap();
    assert_eq!(listen("10.0.0.2:80", 1), Err(ListenError::InUse { local: address("10.0.0.2:80") }));
    assert_eq!(listen("10.0.0.9:80", 1), Err(ListenError::NotOurs { local: address("10.0.0.9:80") }));
    assert_eq!(listen("10.0.0.2:81", 0), Err(ListenError::NoBacklog));
    let anywhere = listen("0.0.0.0:0", 1).unwrap();
    let chosen = pair.b.stack.listener_address(anywhere).unwrap();
    assert_eq!(chosen.port(), 49_152);
    pair.b.stack.unlisten(pair.now, id);
    assert_eq!(pair.b.stack.listener_address(id), None);

    let client = connect(&mut pair, address("10.0.0.2:80"), Plan::client(0));
    let other =
        connect(&mut pair, SocketAddr::new("10.0.0.2".parse().unwrap(), chosen.port()), Plan::client(0));
    pair.run_for(Duration::from_millis(10));
    assert_eq!(client.get().closed, Some(CloseReason::Refused), "no longer listening");
    assert!(other.get().established.is_some());
}

#[test]
fn an_abort_decided_while_a_segment_is_cut_still_resets_the_peer() {
    let mut pair = Pair::new(21, gigabit());
    let acceptor = serve(&mut pair, address(SERVER), Plan { finish: false, ..Plan::server(0) });
    let client = connect(&mut pair, address(SERVER), Plan { finish: false, ..Plan::client(1_000) });
    client.get().abort_when_sent = Some(1_000);
    pair.run_until(Duration::from_secs(1), |_| client.get().closed.is_some());
    assert_eq!(client.get().closed, Some(CloseReason::Aborted));
    pair.run_for(Duration::from_millis(1));
    assert_eq!(acceptor.notes()[0].get().closed, Some(CloseReason::Reset));
}
