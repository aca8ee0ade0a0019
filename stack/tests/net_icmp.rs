//! ICMP errors: who believes which, and what follows.

// Helpers of tests may unwrap like tests.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::endpoints::{Checked, CheckedAcceptor, Notes, Plan};
use common::raw::{self, Lone, PEER_MAC};
use common::{Host, address, gigabit, host_config};
use outrider_drivers::memory::{LinkConfig, MemoryPort, cable};
use outrider_drivers::port::{Port, RxFrame, TxOffload};
use outrider_stack::net::ListenOptions;
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::segment::{Flags, Header};
use outrider_stack::tcp::sequence::SeqNumber;
use outrider_stack::time::Instant;
use smoltcp::wire::{
    EthernetAddress, Icmpv4Packet, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Address, NdiscRepr,
};

const PEER: &str = "10.0.0.2:999";

/// An ICMP error by a router about `frame`, which an address of family `v6` sent: type, code, and the four bytes after
/// the checksum.
fn error(frame: &[u8], v6: bool, kind: u8, code: u8, rest: u32) -> Vec<u8> {
    // As little as a router must quote: the IP header and 8 bytes.
    let quoted = &frame[14..14 + if v6 { 40 } else { 20 } + 8];
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&rest.to_be_bytes());
    message.extend_from_slice(quoted);
    let to = frame[6..12].try_into().unwrap();
    if v6 {
        let (router, host): (Ipv6Address, Ipv6Address) =
            ("fd00::99".parse().unwrap(), "fd00::1".parse().unwrap());
        Icmpv6Packet::new_unchecked(&mut message).fill_checksum(&router, &host);
        raw::ip(to, router.into(), host.into(), IpProtocol::Icmpv6, 64, &message)
    } else {
        Icmpv4Packet::new_unchecked(&mut message).fill_checksum();
        let (router, host) = ("10.0.0.99".parse().unwrap(), "10.0.0.1".parse().unwrap());
        raw::ip(to, router, host, IpProtocol::Icmp, 64, &message)
    }
}

/// `frame` with another TCP sequence number.
fn with_sequence(frame: &[u8], v6: bool, change: u32) -> Vec<u8> {
    let at = 14 + if v6 { 40 } else { 20 } + 4;
    let mut frame = frame.to_vec();
    let sequence = u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
    frame[at..at + 4].copy_from_slice(&sequence.wrapping_add(change).to_be_bytes());
    frame
}

/// Has the peer fd00::2 ask for the stack's address.
fn introduce_v6(lone: &mut Lone) {
    let solicitation = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
        target_addr: "fd00::1".parse().unwrap(),
        lladdr: Some(EthernetAddress(PEER_MAC).into()),
    });
    let frame = raw::icmp_v6(lone.mac(), "fd00::2", "fd00::1", &solicitation);
    lone.send(&frame);
    lone.frames();
}

#[test]
fn an_attempt_ends_when_its_own_syn_was_unreachable() {
    let v4 = [0, 1, 2, 3, 5, 9, 13].map(|code| (PEER, false, 3, code));
    let v6 = [0, 1, 3, 4].map(|code| ("[fd00::2]:999", true, 1, code));
    for (seed, (peer, is_v6, kind, code)) in (0..).zip(v4.into_iter().chain(v6)) {
        let mut lone = Lone::new(seed);
        lone.introduce_peer();
        introduce_v6(&mut lone);
        let notes = Notes::default();
        lone.host.stack.connect(lone.now, address(peer), Checked::new(Plan::client(0), &notes));
        lone.react();
        let syn = lone.frames().pop().unwrap();
        for change in [1, u32::MAX] {
            lone.send(&error(&with_sequence(&syn, is_v6, change), is_v6, kind, code, 0));
        }
        let mut damaged = error(&syn, is_v6, kind, code, 0);
        *damaged.last_mut().unwrap() ^= 1;
        lone.send(&damaged);
        let other = if is_v6 { 3 } else { 11 };
        lone.send(&error(&syn, is_v6, other, 0, 0));
        assert_eq!(notes.get().closed, None, "not about this SYN, damaged, or only late: {peer} {code}");
        lone.send(&error(&syn, is_v6, kind, code, 0));
        assert_eq!(notes.get().closed, Some(CloseReason::Unreachable), "{peer} {code}");
        let statistics = lone.host.stack.statistics();
        assert_eq!((statistics.icmp_errors_matched, statistics.icmp_errors_unmatched), (4, 1));
        assert_eq!(statistics.icmp_errors_believed, 1);
    }
}

#[test]
fn on_an_open_connection_unreachable_only_counts() {
    let mut lone = Lone::new(1);
    lone.introduce_peer();
    let notes = Notes::default();
    let plan = Plan { finish: false, ..Plan::client(100) };
    lone.host.stack.connect(lone.now, address(PEER), Checked::new(plan, &notes));
    lone.react();
    let (ports, syn) = lone.segments()[0];
    let from = SocketAddr::new("10.0.0.1".parse().unwrap(), ports.source);
    let flags = Flags { syn: true, ..Flags::default() };
    let answer = Header { seq: SeqNumber(5), ack: Some(syn.seq.add(1)), flags, window: 999, ..syn };
    lone.send(&lone.tcp(address(PEER), from, &answer, &[]));
    let data = lone.frames().pop().unwrap();
    for (code, believed) in [(3, 1), (1, 2)] {
        lone.send(&error(&data, false, 3, code, 0));
        assert_eq!(lone.host.stack.statistics().icmp_errors_believed, believed);
    }
    assert_eq!(notes.get().closed, None);
    let ack = Header { seq: SeqNumber(6), ack: Some(syn.seq.add(101)), window: 999, ..Header::default() };
    lone.send(&lone.tcp(address(PEER), from, &ack, &[]));
    assert_eq!(notes.get().acked_offset, 101, "it goes on");
    lone.send(&error(&data, false, 3, 3, 0));
    assert_eq!(lone.host.stack.statistics().icmp_errors_believed, 2, "nothing is in flight any more");
}

/// What a router says of a packet that is too long for its next link.
#[derive(Clone, Copy, PartialEq)]
enum Says {
    Mtu,
    /// As before RFC 1191.
    Zero,
}

/// Two hosts, and between them a bridge that behaves like a router with a short next link.
struct Path {
    now: Instant,
    hosts: [Host; 2],
    wires: [MemoryPort; 2],
    mtu: usize,
    says: Says,
    longest: usize,
    errors: u64,
}

impl Path {
    fn new(mtu: usize, says: Says) -> Path {
        let (a, wire_a) = cable(gigabit(), gigabit(), 1);
        let (wire_b, b) = cable(LinkConfig::default(), LinkConfig::default(), 2);
        let hosts = [Host::new(host_config(1), a, 1), Host::new(host_config(2), b, 2)];
        let now = Instant::from_millis(1);
        Path { now, hosts, wires: [wire_a, wire_b], mtu, says, longest: 0, errors: 0 }
    }

    /// Carries frames from one side to the other; returns how many.
    fn forward(&mut self, from: usize) -> usize {
        let mut frames = Vec::new();
        let mut accept = |frame: RxFrame<'_>| frames.push(frame.bytes.to_vec());
        self.wires[from].receive(self.now, 64, &mut accept).unwrap();
        for frame in &frames {
            let v6 = frame[12..14] == [0x86, 0xdd];
            if from == 0 && frame.len() > self.mtu + 14 {
                let mtu = if self.says == Says::Mtu { self.mtu as u32 } else { 0 };
                let error = if v6 { error(frame, true, 2, 0, mtu) } else { error(frame, false, 3, 4, mtu) };
                self.errors += 1;
                self.put(0, &error);
                continue;
            }
            self.longest = self.longest.max(frame.len() - 14);
            self.put(1 - from, frame);
        }
        frames.len()
    }

    fn put(&mut self, to: usize, frame: &[u8]) {
        let mut fill = |buffer: &mut [u8]| {
            buffer[..frame.len()].copy_from_slice(frame);
            frame.len()
        };
        assert!(self.wires[to].transmit(self.now, frame.len(), TxOffload::default(), &mut fill).unwrap());
        self.wires[to].flush(self.now).unwrap();
    }

    fn run_until(&mut self, limit: Duration, done: impl Fn() -> bool) {
        let end = self.now + limit;
        loop {
            while self.hosts.iter_mut().map(|host| host.poll(self.now)).sum::<usize>()
                + self.forward(0)
                + self.forward(1)
                > 0
            {}
            if done() {
                return;
            }
            let hosts = self.hosts.iter().filter_map(|host| host.next_event(self.now));
            let next = hosts.chain(self.wires.iter().filter_map(|wire| wire.next_arrival(self.now))).min();
            self.now = next.expect("something is under way").max(self.now);
            assert!(self.now <= end, "not done after {limit:?}: {} errors", self.errors);
        }
    }
}

#[test]
fn data_flows_again_over_a_path_that_swallows_long_packets() {
    let cases = [
        ("10.0.0.2:4000", 1_400, Says::Mtu, 1_400),
        ("10.0.0.2:4000", 600, Says::Mtu, 600),
        ("[fd00::2]:4000", 1_300, Says::Mtu, 1_300),
        // By plateaus: 1500, then 1492, then 1006.
        ("10.0.0.2:4000", 1_100, Says::Zero, 1_006),
    ];
    for (to, mtu, says, longest) in cases {
        let mut path = Path::new(mtu, says);
        let acceptor = CheckedAcceptor::new(Plan::server(0));
        path.hosts[1]
            .stack
            .listen(address(to), ListenOptions::default(), Box::new(acceptor.clone()))
            .unwrap();
        let notes = Notes::default();
        let plan = Checked::new(Plan::client(2_000_000), &notes);
        path.hosts[0].stack.connect(path.now, address(to), plan);
        path.run_until(Duration::from_millis(200), || notes.get().closed.is_some());
        assert_eq!(notes.get().closed, Some(CloseReason::Finished), "{to} {mtu}");
        assert_eq!(acceptor.notes()[0].get().received, 2_000_000, "{to} {mtu}");
        assert_eq!(path.longest, longest, "{to} {mtu}");
        let statistics = path.hosts[0].stack.statistics();
        assert_eq!(statistics.icmp_errors_matched, path.errors);
        assert!((1..=2).contains(&statistics.icmp_errors_believed), "{statistics:?}");
    }
}
