//! A stack under attack and at its limits: SYN floods, cookies, and the reuse of TIME-WAIT.

// Helpers of tests may unwrap like tests.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use common::attacker::Attacker;
use common::endpoints::{Checked, CheckedAcceptor, Notes, Plan};
use common::raw::{self, Lone};
use common::{Host, address, gigabit, seeds};
use outrider_drivers::memory::Switch;
use outrider_drivers::port::{Port, TxOffload};
use outrider_stack::net::{ListenOptions, Phase, StackConfig};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::segment::{Flags, Header, Options, Timestamps};
use outrider_stack::tcp::sequence::SeqNumber;
use outrider_stack::time::Instant;

const SERVER: &str = "10.0.0.1:4000";
const PEER: &str = "10.0.0.2:999";
const BACKLOG: usize = 64;

/// Host `host` of a network with many addresses and a gateway that does not answer.
fn config(host: u8) -> StackConfig {
    StackConfig::new([(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), 16)])
        .with_gateway(IpAddr::V4(Ipv4Addr::new(10, 0, 250, 1)))
}

/// A server, hosts that mean well, and perhaps one that does not, on a switch.
struct Lan {
    now: Instant,
    hosts: Vec<Host>,
    attacker: Option<Attacker>,
}

impl Lan {
    fn new(seed: u64, configs: Vec<StackConfig>, attacked: bool) -> Lan {
        let switch = Switch::new(seed);
        let now = Instant::from_millis(1);
        let host = |(index, config)| Host::new(config, switch.connect(gigabit()), seed * 10 + index);
        let hosts: Vec<Host> = (0u64..).zip(configs).map(host).collect();
        let target = hosts[0].port.info().mac;
        let attacker = attacked.then(|| {
            let port = switch.connect(gigabit());
            Attacker::new(port, seed, target, address(SERVER), now + Duration::from_millis(5))
        });
        Lan { now, hosts, attacker }
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            while self.hosts.iter_mut().map(|host| host.poll(self.now)).sum::<usize>() > 0 {}
            if let Some(attacker) = self.attacker.as_mut().filter(|attacker| attacker.next <= self.now) {
                attacker.burst(self.now);
            }
            let next = self.hosts.iter().filter_map(|host| host.next_event(self.now)).min();
            let next = [next, self.attacker.as_ref().map(|attacker| attacker.next)];
            let next = next.into_iter().flatten().min().unwrap_or(end).max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
        }
    }

    fn connect(&mut self, host: usize, plan: Plan) -> Notes {
        let notes = Notes::default();
        self.hosts[host].stack.connect(self.now, address(SERVER), Checked::new(plan, &notes));
        notes
    }
}

/// A bulk transfer for a second, and honest clients that begin meanwhile. Returns the bytes of the bulk transfer.
fn bulk_and_honest_clients(seed: u64, attacked: bool) -> u64 {
    let without_timestamps = {
        let mut config = config(4);
        config.tcp.timestamps = false;
        config
    };
    let mut lan = Lan::new(seed, vec![config(1), config(2), config(3), without_timestamps], attacked);
    // The same answer for everybody: 20000 bytes. The bulk sender only sends.
    let acceptor = CheckedAcceptor::new(Plan { finish: false, ..Plan::server(20_000) });
    let options = ListenOptions { backlog: BACKLOG };
    lan.hosts[0].stack.listen(address(SERVER), options, Box::new(acceptor.clone())).unwrap();
    lan.connect(1, Plan::client(u64::MAX));
    lan.run_for(Duration::from_millis(100));
    let bulk = acceptor.notes()[0].clone();
    let before = bulk.get().received;
    let mut honest = Vec::new();
    for round in 0..40 {
        honest.push(lan.connect(2 + round % 2, Plan::client(20_000)));
        lan.run_for(Duration::from_millis(20));
    }
    lan.run_for(Duration::from_millis(200));
    let received = bulk.get().received - before;
    for (number, notes) in honest.iter().enumerate() {
        // Read before it is compared: the end of a failed story must be able to take the record too.
        let done = {
            let record = notes.get();
            (record.sent, record.received)
        };
        assert_eq!(done, (20_000, 20_000), "honest client {number}");
    }
    assert_eq!(bulk.get().closed, None);
    check_bounds(&lan, honest.len());
    received
}

/// Whatever arrived, the server holds no more than it may.
fn check_bounds(lan: &Lan, honest: usize) {
    let server = &lan.hosts[0].stack;
    let statistics = server.statistics();
    let half_open = server.connections(lan.now).filter(|one| one.phase == Phase::HalfOpen).count();
    assert_eq!(statistics.established as usize, honest + 1, "nobody else got in");
    assert!(
        statistics.neighbour_requests <= 6,
        "nobody is asked for but those who are there: {statistics:?}"
    );
    assert_eq!((statistics.neighbours_evicted, statistics.neighbour_failures), (0, 0));
    assert_eq!((statistics.rx_dropped_table_full, statistics.tx_dropped_control_full), (0, 0));
    let Some(attacker) = &lan.attacker else {
        assert_eq!((half_open, statistics.cookies_sent), (0, 0));
        return;
    };
    assert_eq!(half_open, BACKLOG);
    assert!(server.connections(lan.now).count() <= BACKLOG + honest + 1);
    let lost = attacker.syns - statistics.cookies_sent;
    assert!(attacker.syns > 200_000 && lost < attacker.syns / 100, "{lost} of {}", attacker.syns);
    assert!(statistics.cookies_rejected > 10_000, "guesses are counted");
    assert_eq!(statistics.cookies_accepted as usize, honest, "and none of them is right");
}

#[test]
fn a_flood_costs_the_others_no_more_than_its_share_of_the_link() {
    seeds(1, |seed| {
        let calm = bulk_and_honest_clients(seed, false);
        let attacked = bulk_and_honest_clients(seed, true);
        let ratio = attacked as f64 / calm as f64;
        assert!(calm > 80_000_000 && ratio > 0.8, "{attacked} bytes instead of {calm}");
    });
}

fn syn(seq: u32, options: Options) -> Header {
    let flags = Flags { syn: true, ..Flags::default() };
    Header { seq: SeqNumber(seq), flags, window: 1_000, options, ..Header::default() }
}

fn stamped(value: u32, echo: u32) -> Options {
    Options { timestamps: Some(Timestamps { value, echo }), ..Options::default() }
}

/// A listener whose backlog of one is full.
fn full(lone: &mut Lone, plan: Plan) -> CheckedAcceptor {
    lone.introduce_peer();
    let acceptor = CheckedAcceptor::new(plan);
    let options = ListenOptions { backlog: 1 };
    lone.host.stack.listen(address(SERVER), options, Box::new(acceptor.clone())).unwrap();
    lone.send(&lone.tcp(address("10.0.0.2:1"), address(SERVER), &syn(7, Options::default()), &[]));
    assert_eq!(lone.segments().len(), 1);
    acceptor
}

/// Sends a SYN with these options; returns the cookie's SYN-ACK.
fn cookie(lone: &mut Lone, options: Options) -> Header {
    lone.send(&lone.tcp(address(PEER), address(SERVER), &syn(99, options), &[]));
    lone.segments().pop().expect("a cookie").1
}

#[test]
fn the_first_data_may_bring_the_cookie_and_what_was_agreed_holds() {
    let mut lone = Lone::new(1);
    let acceptor = full(&mut lone, Plan { finish: false, ..Plan::server(60_000) });
    let offered = Options { window_scale: Some(3), sack_permitted: true, ..stamped(500, 0) };
    let offered = Options { segment_size_max: Some(1_300), ..offered };
    let answer = cookie(&mut lone, offered);
    assert_eq!(answer.ack, Some(SeqNumber(100)));
    assert!(answer.options.sack_permitted && answer.options.window_scale.is_some());
    let timestamps = answer.options.timestamps.expect("timestamps are confirmed");
    assert_eq!(timestamps.echo, 500);
    assert_eq!(lone.host.stack.connections(lone.now).count(), 1, "nothing is kept");

    // The bare acknowledgement was lost: the cookie comes with data. Window 4000 << 3.
    let ack = Header {
        seq: SeqNumber(100),
        ack: Some(answer.seq.add(1)),
        window: 4_000,
        options: stamped(501, timestamps.value),
        ..Header::default()
    };
    let payload: Vec<u8> = (0..100).map(|offset| common::endpoints::pattern(1, offset)).collect();
    lone.send(&lone.tcp(address(PEER), address(SERVER), &ack, &payload));
    let notes = acceptor.notes().pop().expect("accepted");
    assert_eq!(notes.get().received, 100);
    assert_eq!(notes.get().established.map(|established| established.segment_size), Some(1_220 - 12));
    let send = lone.host.stack.connections(lone.now).last().unwrap().send;
    assert_eq!(send.peer_window, 4_000 << 3, "the window scale of the SYN");
    lone.at(lone.now + Duration::from_millis(10));
    let data = lone.segments();
    assert!(data.iter().all(|(_, header)| header.ack == Some(SeqNumber(200))));
    let value = data[0].1.options.timestamps.expect("in use").value;
    assert!(value.wrapping_sub(timestamps.value) < 1_000, "timestamps do not go back");
}

#[test]
fn without_timestamps_a_cookie_carries_the_mss_alone() {
    let mut lone = Lone::new(2);
    let acceptor = full(&mut lone, Plan { finish: false, ..Plan::server(0) });
    let offered = Options { window_scale: Some(3), sack_permitted: true, ..Options::default() };
    let answer = cookie(&mut lone, offered);
    assert_eq!(answer.options, Options { segment_size_max: Some(1_460), ..Options::default() });
    let ack = Header {
        seq: SeqNumber(100),
        ack: Some(answer.seq.add(1)),
        window: 4_000,
        ..syn(0, Options::default())
    };
    let ack = Header { flags: Flags::default(), ..ack };
    lone.send(&lone.tcp(address(PEER), address(SERVER), &ack, &[]));
    let established = acceptor.notes()[0].get().established.expect("open");
    assert_eq!(established.segment_size, 536);
    assert_eq!(lone.host.stack.statistics().cookies_accepted, 1);
}

#[test]
fn a_wrong_or_old_cookie_is_answered_by_a_reset() {
    let mut lone = Lone::new(3);
    let acceptor = full(&mut lone, Plan { finish: false, ..Plan::server(0) });
    let answer = cookie(&mut lone, Options::default());
    let good = Header { seq: SeqNumber(100), ack: Some(answer.seq.add(1)), window: 9, ..Header::default() };
    let wrong = Header { ack: Some(answer.seq.add(2)), ..good };
    lone.send(&lone.tcp(address(PEER), address(SERVER), &wrong, &[]));
    let reset = lone.segments().pop().unwrap().1;
    assert!(reset.flags.rst && reset.seq == answer.seq.add(2));
    lone.send(&lone.tcp(address("10.0.0.2:998"), address(SERVER), &good, &[]));
    assert!(lone.segments().pop().unwrap().1.flags.rst, "somebody else's");
    assert_eq!(lone.host.stack.statistics().cookies_rejected, 2);
    // Half open connections give up meanwhile, the listener has not overflowed for long: cookies are not even read.
    for second in 0..200 {
        lone.at(Instant::from_millis(second * 1_000));
    }
    lone.segments();
    lone.send(&lone.tcp(address(PEER), address(SERVER), &good, &[]));
    assert!(lone.segments().pop().unwrap().1.flags.rst);
    assert_eq!(lone.host.stack.statistics().cookies_rejected, 2);
    assert!(acceptor.notes().is_empty());
}

#[test]
fn cookies_leave_half_of_the_control_queue_to_others() {
    let mut lone = Lone::with(4, StackConfig { control_frames_max: 10, ..common::host_config(1) });
    let acceptor = full(&mut lone, Plan::server(0));
    let mut frames = Vec::new();
    for port in 100..140 {
        let from = address(&format!("10.0.0.2:{port}"));
        frames.push(lone.tcp(from, address(SERVER), &syn(1, Options::default()), &[]));
    }
    frames.push(raw::arp(smoltcp::wire::ArpOperation::Request, raw::PEER_MAC, "10.0.0.2", "10.0.0.1"));
    for frame in &frames {
        let mut fill = |buffer: &mut [u8]| {
            buffer[..frame.len()].copy_from_slice(frame);
            frame.len()
        };
        assert!(lone.wire.transmit(lone.now, frame.len(), TxOffload::default(), &mut fill).unwrap());
    }
    lone.wire.flush(lone.now).unwrap();
    lone.react();
    let answers = lone.frames();
    assert_eq!(answers.len(), 6, "five cookies and the answer to the ARP request");
    let statistics = lone.host.stack.statistics();
    assert_eq!((statistics.cookies_sent, statistics.rx_dropped_backlog), (5, 35));
    assert_eq!(statistics.tx_dropped_control_full, 0);
    drop(acceptor);
}

#[test]
fn half_open_connections_do_not_trouble_the_neighbour_cache() {
    let mut lone = Lone::new(5);
    let acceptor = CheckedAcceptor::new(Plan { finish: false, ..Plan::server(0) });
    lone.host.stack.listen(address(SERVER), ListenOptions::default(), Box::new(acceptor)).unwrap();
    lone.send(&lone.tcp(address(PEER), address(SERVER), &syn(1, Options::default()), &[]));
    let frames = lone.frames();
    assert_eq!((frames.len(), &frames[0][..6]), (1, &raw::PEER_MAC[..]), "the way it came");
    assert_eq!(lone.host.stack.statistics().neighbour_requests, 0);
}

/// A connection of PEER that the server has ended: in TIME-WAIT. Returns the server's last header.
fn time_wait(lone: &mut Lone, options: impl Fn(u32) -> Options) -> (CheckedAcceptor, Header) {
    lone.introduce_peer();
    let acceptor = CheckedAcceptor::new(Plan::server(0));
    let backlog = ListenOptions { backlog: 1 };
    lone.host.stack.listen(address(SERVER), backlog, Box::new(acceptor.clone())).unwrap();
    lone.send(&lone.tcp(address(PEER), address(SERVER), &syn(1_000, options(500)), &[]));
    let answer = lone.segments().pop().unwrap().1;
    let ack = Header { seq: SeqNumber(1_001), ack: Some(answer.seq.add(1)), window: 9, ..Header::default() };
    let ack = Header { options: options(501), ..ack };
    lone.send(&lone.tcp(address(PEER), address(SERVER), &ack, &[]));
    assert!(lone.segments().pop().unwrap().1.flags.fin);
    let fin = Header { ack: Some(answer.seq.add(2)), flags: Flags { fin: true, ..ack.flags }, ..ack };
    lone.send(&lone.tcp(address(PEER), address(SERVER), &fin, &[]));
    let last = lone.segments().pop().unwrap().1;
    assert_eq!((last.seq, last.ack), (answer.seq.add(2), Some(SeqNumber(1_002))));
    assert_eq!(acceptor.notes()[0].get().closed, None, "TIME-WAIT");
    (acceptor, last)
}

#[test]
fn a_newer_syn_takes_the_place_of_a_connection_in_time_wait() {
    let mut lone = Lone::new(6);
    let (acceptor, last) = time_wait(&mut lone, |value| stamped(value, 0));
    let old = [(500, 2_000), (501, 1_001), (501, 1_002)];
    for (value, seq) in old {
        lone.send(&lone.tcp(address(PEER), address(SERVER), &syn(seq, stamped(value, 0)), &[]));
        let answers = lone.segments();
        assert!(
            answers.iter().all(|(_, answer)| !answer.flags.syn),
            "{value} {seq}: may be an old duplicate"
        );
    }
    // With a full backlog it would have to be a cookie, which may lie among the old numbers.
    lone.send(&lone.tcp(address("10.0.0.2:1"), address(SERVER), &syn(7, Options::default()), &[]));
    let other = lone.segments().pop().unwrap().1;
    lone.send(&lone.tcp(address(PEER), address(SERVER), &syn(5, stamped(502, 0)), &[]));
    assert!(lone.segments().iter().all(|(_, answer)| !answer.flags.syn));
    assert_eq!(acceptor.notes()[0].get().closed, None);
    let reset = Header { flags: Flags { rst: true, ..Flags::default() }, ..syn(8, Options::default()) };
    lone.send(&lone.tcp(
        address("10.0.0.2:1"),
        address(SERVER),
        &Header { ack: Some(other.seq.add(1)), ..reset },
        &[],
    ));
    lone.send(&lone.tcp(address(PEER), address(SERVER), &syn(5, stamped(502, 0)), &[]));
    let answer = lone.segments().pop().unwrap().1;
    assert!(answer.flags.syn && answer.ack == Some(SeqNumber(6)));
    assert!(last.seq.before(answer.seq), "beyond every number of the old connection");
    assert_eq!(acceptor.notes()[0].get().closed, Some(CloseReason::Finished));
    assert_eq!(lone.host.stack.statistics().time_wait_reused, 1);
    let value = answer.options.timestamps.unwrap().value;
    let ack = Header { seq: SeqNumber(6), ack: Some(answer.seq.add(1)), window: 9, ..Header::default() };
    let ack = Header { options: stamped(503, value), ..ack };
    lone.send(&lone.tcp(address(PEER), address(SERVER), &ack, &[]));
    assert!(acceptor.notes()[1].get().established.is_some());
}

#[test]
fn without_timestamps_the_sequence_number_tells() {
    let mut lone = Lone::new(7);
    let (acceptor, last) = time_wait(&mut lone, |_| Options::default());
    for (seq, opens) in [(1_001, false), (1_002, false), (1_003, true)] {
        lone.send(&lone.tcp(address(PEER), address(SERVER), &syn(seq, Options::default()), &[]));
        let answer = lone.segments().pop().map(|(_, header)| header);
        assert_eq!(answer.is_some_and(|header| header.flags.syn), opens, "{seq}");
        assert!(!opens || answer.is_some_and(|header| last.seq.before(header.seq)));
        assert_eq!(acceptor.notes()[0].get().closed.is_some(), opens, "{seq}");
    }
}
