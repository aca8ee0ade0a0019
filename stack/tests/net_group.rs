//! Several stacks that are one host, each on a queue of its own, in virtual time: whatever queue a frame arrives on,
//! every connection is seen by one of them alone.

// Helpers of tests may unwrap like tests.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::attacker::Attacker;
use common::endpoints::{Checked, CheckedAcceptor, Notes, Plan};
use common::raw;
use common::{Host, address, gigabit, seeds};
use outrider_drivers::memory::{MemoryPort, QueueSteering, Switch};
use outrider_drivers::port::{Port, TxOffload};
use outrider_drivers::rss::Rss;
use outrider_stack::net::{ListenOptions, Member, Stack, StackConfig, StackStatistics, Steering};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::time::Instant;
use smoltcp::wire::{ArpOperation, Icmpv4Packet, Icmpv4Repr, IpProtocol};

const SHARDS: usize = 4;
const SERVER: &str = "10.0.0.1:4000";
const SERVER_V6: &str = "[fd00::1]:4000";
/// A NIC that does not use the default key.
const OTHER_KEY: [u8; 40] = [
    0x2c, 0xc6, 0x81, 0xd1, 0x5b, 0xdb, 0xf4, 0xf7, 0xfc, 0xa2, 0x83, 0x19, 0xdb, 0x1a, 0x3e, 0x94, 0x6b,
    0x9e, 0x38, 0xd9, 0x2c, 0x9c, 0x03, 0xd1, 0xad, 0x99, 0x44, 0xa7, 0xd9, 0x56, 0x3d, 0x59, 0x06, 0x3c,
    0x25, 0xf3, 0xfc, 0x1f, 0xdc, 0x2a,
];

fn config(host: u8) -> StackConfig {
    let v4: IpAddr = format!("10.0.0.{host}").parse().unwrap();
    let v6: IpAddr = format!("fd00::{host}").parse().unwrap();
    StackConfig::new([(v4, 16), (v6, 64)]).with_gateway("10.0.250.1".parse().unwrap())
}

/// One host of four stacks.
struct Group {
    shards: Vec<Host>,
    next_shard: usize,
}

impl Group {
    /// Steered by what the NIC does in truth; `told` is what the stacks go by.
    fn new(switch: &Switch, host: u8, seed: u64, truth: QueueSteering, told: &Steering) -> Group {
        let ports = switch.connect_queues(&gigabit(), truth, SHARDS);
        let shards = ports.into_iter().zip(Member::group(told)).map(|(port, member)| {
            let mut shard = Host::new(config(host), port, seed * 100 + u64::from(host));
            shard.stack.join(member);
            shard
        });
        Group { shards: shards.collect(), next_shard: 0 }
    }

    /// Everybody listens; one record of acceptances for each shard.
    fn listen(&mut self, local: &str, plan: Plan, backlog: usize) -> Vec<CheckedAcceptor> {
        let options = ListenOptions { backlog };
        let listen = |shard: &mut Host| {
            let acceptor = CheckedAcceptor::new(plan);
            shard.stack.listen(address(local), options, Box::new(acceptor.clone())).unwrap();
            acceptor
        };
        self.shards.iter_mut().map(listen).collect()
    }

    /// Connects from the shards in turn.
    fn connect(&mut self, now: Instant, remote: &str, plan: Plan) -> Notes {
        let notes = Notes::default();
        let shard = self.next_shard % SHARDS;
        self.next_shard += 1;
        self.shards[shard].stack.connect(now, address(remote), Checked::new(plan, &notes));
        notes
    }

    fn sum(&self) -> StackStatistics {
        let mut sum = StackStatistics::default();
        self.shards.iter().for_each(|shard| sum.add(shard.stack.statistics()));
        sum
    }

    fn each(&self, read: impl Fn(&StackStatistics) -> u64) -> Vec<u64> {
        self.shards.iter().map(|shard| read(shard.stack.statistics())).collect()
    }
}

/// Groups on a switch, and perhaps somebody who means no good.
struct Lan {
    now: Instant,
    groups: Vec<Group>,
    attacker: Option<Attacker>,
}

impl Lan {
    fn new(groups: Vec<Group>) -> Lan {
        Lan { now: Instant::from_millis(1), groups, attacker: None }
    }

    fn settle(&mut self) {
        let now = self.now;
        let poll = |groups: &mut Vec<Group>| -> usize {
            groups.iter_mut().flat_map(|group| &mut group.shards).map(|shard| shard.poll(now)).sum()
        };
        while poll(&mut self.groups) > 0 {}
        let mail = |stack: &Stack| !stack.has_mail();
        assert!(self.groups.iter().flat_map(|group| &group.shards).all(|shard| mail(&shard.stack)));
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.settle();
            if let Some(attacker) = self.attacker.as_mut().filter(|attacker| attacker.next <= self.now) {
                attacker.burst(self.now);
            }
            let shards = self.groups.iter().flat_map(|group| &group.shards);
            let next = shards.filter_map(|shard| shard.next_event(self.now)).min();
            let next = [next, self.attacker.as_ref().map(|attacker| attacker.next)];
            match next.into_iter().flatten().min() {
                Some(next) if next <= end => self.now = next.max(self.now),
                _ => break self.now = end,
            }
        }
    }
}

fn told(truth: &QueueSteering) -> Steering {
    match truth {
        QueueSteering::Rss(rss) => Steering::by_rss(SHARDS, rss.clone()),
        QueueSteering::Hidden(_) | QueueSteering::Scattered(_) => Steering::unknown(SHARDS),
    }
}

fn rss() -> QueueSteering {
    QueueSteering::Rss(Rss::even(SHARDS as u32))
}

fn other_rss() -> QueueSteering {
    let table = (0..128).map(|entry| entry * 7 % 11 % SHARDS as u32).collect();
    QueueSteering::Rss(Rss::new(&OTHER_KEY, table).unwrap())
}

/// A thousand connections between two groups, half of them over IPv6, with a little to say both ways.
fn a_thousand_connections(
    seed: u64,
    server: (QueueSteering, Steering),
    client: (QueueSteering, Steering),
) -> Lan {
    const CONNECTIONS: usize = 1_000;
    let switch = Switch::new(seed);
    let groups = vec![
        Group::new(&switch, 1, seed, server.0, &server.1),
        Group::new(&switch, 2, seed, client.0, &client.1),
    ];
    let mut lan = Lan::new(groups);
    let acceptors = [SERVER, SERVER_V6].map(|local| lan.groups[0].listen(local, Plan::server(4_000), 256));
    let mut notes = Vec::new();
    for round in 0..CONNECTIONS / 20 {
        let remote = [SERVER, SERVER_V6][round % 2];
        notes.extend((0..20).map(|_| lan.groups[1].connect(lan.now, remote, Plan::client(3_000))));
        lan.run_for(Duration::from_millis(2));
    }
    lan.run_for(Duration::from_secs(5));
    for (number, one) in notes.iter().enumerate() {
        let record = one.get();
        assert_eq!(
            (record.sent, record.received, record.closed),
            (3_000, 4_000, Some(CloseReason::Finished)),
            "{number}"
        );
    }
    let accepted: Vec<Notes> = acceptors.iter().flatten().flat_map(CheckedAcceptor::notes).collect();
    assert!(accepted.iter().all(|one| one.get().received == 3_000));
    let peers: BTreeSet<SocketAddr> = accepted.iter().filter_map(|one| one.get().remote).collect();
    assert_eq!((accepted.len(), peers.len()), (CONNECTIONS, CONNECTIONS), "each by one shard, once");
    for group in &lan.groups {
        let sum = group.sum();
        assert_eq!((sum.rx_dropped_no_connection, sum.resets_sent, sum.rx_dropped_hand_over), (0, 0, 0));
        assert_eq!((sum.established, sum.closed_in_order), (CONNECTIONS as u64, CONNECTIONS as u64));
        assert_eq!(sum.handed_over, sum.handed_in);
        let shares = group.each(|statistics| statistics.established);
        assert!(shares.iter().all(|share| *share > 100), "{shares:?}");
    }
    lan
}

#[test]
fn where_the_nic_tells_its_hash_every_frame_arrives_at_its_owner() {
    seeds(2, |seed| {
        let (server, client) = (rss(), other_rss());
        let (tells_server, tells_client) = (told(&server), told(&client));
        let lan = a_thousand_connections(seed, (server, tells_server), (client, tells_client));
        for group in &lan.groups {
            let sum = group.sum();
            // ARP and NDP alone: they have no hash, and belong to the first shard wherever they come.
            assert!(sum.handed_over <= 16, "{sum:?}");
        }
    });
}

#[test]
fn where_it_does_not_tell_frames_are_handed_to_their_owner() {
    seeds(2, |seed| {
        for (server, client) in [
            (QueueSteering::Hidden(seed), rss()),
            (rss(), QueueSteering::Hidden(seed)),
            (QueueSteering::Scattered(seed), QueueSteering::Scattered(seed + 1)),
        ] {
            let hidden = [&server, &client].map(|steering| !matches!(steering, QueueSteering::Rss(_)));
            let (tells_server, tells_client) = (told(&server), told(&client));
            let lan = a_thousand_connections(seed, (server, tells_server), (client, tells_client));
            for (group, hidden) in lan.groups.iter().zip(hidden) {
                let sum = group.sum();
                let share = sum.handed_over as f64 / sum.rx_frames as f64;
                assert_eq!(hidden, share > 0.5, "{share} of the frames");
            }
        }
    });
}

#[test]
fn a_nic_that_does_otherwise_than_it_tells_costs_copies_and_no_more() {
    let lie = Steering::by_rss(SHARDS, Rss::even(SHARDS as u32));
    let lan = a_thousand_connections(7, (other_rss(), lie.clone()), (QueueSteering::Hidden(1), lie));
    assert!(lan.groups.iter().all(|group| group.sum().handed_over > 1_000));
}

#[test]
fn a_nic_that_leaves_out_a_queue_is_served_by_the_others() {
    let two = Rss::even(2);
    let switch = Switch::new(1);
    let steering = Steering::by_rss(SHARDS, two.clone());
    let group = Group::new(&switch, 1, 1, QueueSteering::Rss(two), &steering);
    let mut lan = Lan::new(vec![group]);
    let reasons: Vec<_> = (0..SHARDS)
        .map(|_| lan.groups[0].connect(lan.now, "10.0.0.2:1", Plan::client(0)))
        .map(|notes| notes.get().closed)
        .collect();
    let none = Some(CloseReason::NoResources);
    assert_eq!(reasons, [None, None, none, none], "no answer would come back to the last two");
    assert_eq!(
        (0..SHARDS).map(|shard| steering.serves(shard)).collect::<Vec<_>>(),
        [true, true, false, false]
    );
}

#[test]
fn who_is_asked_for_by_one_shard_is_known_to_all() {
    for truth in [rss(), QueueSteering::Hidden(5)] {
        let switch = Switch::new(1);
        let steering = told(&truth);
        let groups = [1, 2].map(|host| Group::new(&switch, host, 1, truth.clone(), &steering));
        let mut lan = Lan::new(groups.into());
        let _acceptors = lan.groups[0].listen(SERVER, Plan::server(0), 8);
        // The first question is asked by the last shard, and answered to whichever.
        lan.groups[1].next_shard = SHARDS - 1;
        for _ in 0..2 * SHARDS {
            let notes = lan.groups[1].connect(lan.now, SERVER, Plan::client(0));
            lan.run_for(Duration::from_millis(5));
            assert!(notes.get().established.is_some());
        }
        let asked = lan.groups.iter().map(|group| group.sum().neighbour_requests).collect::<Vec<_>>();
        assert_eq!(asked, [0, 1], "the server learnt it from the question");
    }
}

/// A bare port at the switch, of the station 10.0.0.2.
struct Wire(MemoryPort);

impl Wire {
    fn send(&mut self, lan: &mut Lan, frame: &[u8]) -> Vec<Vec<u8>> {
        let mut fill = |buffer: &mut [u8]| {
            buffer[..frame.len()].copy_from_slice(frame);
            frame.len()
        };
        assert!(self.0.transmit(lan.now, frame.len(), TxOffload::default(), &mut fill).unwrap());
        self.0.flush(lan.now).unwrap();
        lan.run_for(Duration::from_millis(1));
        let mut frames = Vec::new();
        while self.0.receive(lan.now, 64, &mut |frame| frames.push(frame.bytes.to_vec())).unwrap() > 0 {}
        frames
    }
}

/// A group on a switch that scatters what comes, and a station that asks for it.
fn scattered(seed: u64) -> (Lan, Wire, [u8; 6]) {
    let switch = Switch::new(seed);
    let truth = QueueSteering::Scattered(seed);
    let steering = told(&truth);
    let group = Group::new(&switch, 1, seed, truth, &steering);
    let mac = group.shards[0].port.info().mac;
    let mut lan = Lan::new(vec![group]);
    let mut wire = Wire(switch.connect(gigabit()));
    let request = raw::arp(ArpOperation::Request, raw::PEER_MAC, "10.0.0.2", "10.0.0.1");
    assert_eq!(wire.send(&mut lan, &request).len(), 1, "one answer");
    (lan, wire, mac)
}

#[test]
fn a_ping_is_answered_once_whatever_queue_it_comes_to() {
    seeds(4, |seed| {
        let (mut lan, mut wire, mac) = scattered(seed);
        for seq_no in 0..20 {
            let ping = Icmpv4Repr::EchoRequest { ident: 1, seq_no, data: b"there?" };
            assert_eq!(wire.send(&mut lan, &raw::icmp_v4(mac, &ping)).len(), 1);
        }
        assert!(lan.groups[0].sum().handed_over > 5);
        assert_eq!(lan.groups[0].each(|statistics| statistics.rx_slow_path)[1..], [0; SHARDS - 1]);
    });
}

#[test]
fn an_icmp_error_finds_the_connection_it_is_about() {
    seeds(4, |seed| {
        let (mut lan, mut wire, mac) = scattered(seed);
        for _ in 0..2 * SHARDS {
            let notes = lan.groups[0].connect(lan.now, "10.0.0.2:999", Plan::client(0));
            lan.run_for(Duration::from_millis(1));
            let mut syns = Vec::new();
            wire.0.receive(lan.now, 64, &mut |frame| syns.push(frame.bytes.to_vec())).unwrap();
            let syn = syns.pop().expect("a SYN, and the neighbour is known");
            let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
            message.extend_from_slice(&syn[14..14 + 28]);
            Icmpv4Packet::new_unchecked(&mut message).fill_checksum();
            let (router, host) = ("10.0.0.99".parse().unwrap(), "10.0.0.1".parse().unwrap());
            wire.send(&mut lan, &raw::ip(mac, router, host, IpProtocol::Icmp, 64, &message));
            assert_eq!(notes.get().closed, Some(CloseReason::Unreachable));
        }
        let sum = lan.groups[0].sum();
        assert_eq!((sum.icmp_errors_matched, sum.icmp_errors_unmatched), (2 * SHARDS as u64, 0));
    });
}

#[test]
fn a_flood_over_all_shards_lets_honest_clients_in() {
    for truth in [rss(), QueueSteering::Hidden(3), QueueSteering::Scattered(3)] {
        const BACKLOG: usize = 16;
        let switch = Switch::new(1);
        let steering = told(&truth);
        let groups = [1, 2].map(|host| Group::new(&switch, host, 1, truth.clone(), &steering));
        let mut lan = Lan::new(groups.into());
        let target = lan.groups[0].shards[0].port.info().mac;
        let start = lan.now + Duration::from_millis(1);
        lan.attacker = Some(Attacker::new(switch.connect(gigabit()), 1, target, address(SERVER), start));
        let acceptors = lan.groups[0].listen(SERVER, Plan::server(20_000), BACKLOG);
        lan.run_for(Duration::from_millis(20));
        let mut honest = Vec::new();
        for _ in 0..40 {
            honest.push(lan.groups[1].connect(lan.now, SERVER, Plan::client(20_000)));
            lan.run_for(Duration::from_millis(5));
        }
        lan.run_for(Duration::from_millis(200));
        for notes in &honest {
            assert_eq!(
                {
                    let record = notes.get();
                    (record.sent, record.received)
                },
                (20_000, 20_000)
            );
        }
        assert_eq!(acceptors.iter().map(|acceptor| acceptor.notes().len()).sum::<usize>(), 40, "nobody else");
        let (sum, attacker) = (lan.groups[0].sum(), lan.attacker.as_ref().unwrap());
        assert_eq!(sum.cookies_accepted, 40, "the backlog of every shard is full: {sum:?}");
        assert!(lan.groups[0].each(|statistics| statistics.cookies_sent).iter().all(|sent| *sent > 5_000));
        let lost = attacker.syns - sum.cookies_sent;
        assert!(lost < attacker.syns / 100, "{lost} of {}", attacker.syns);
        let held: usize =
            lan.groups[0].shards.iter().map(|shard| shard.stack.connections(lan.now).count()).sum();
        assert!(held <= SHARDS * BACKLOG + honest.len());
    }
}
