//! One stack, and its peer played frame by frame: address resolution, the slow path, and what must be refused.

// Helpers of tests may unwrap like tests.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::endpoints::{Checked, CheckedAcceptor, Notes, Plan};
use common::raw::{self, Lone, PEER_MAC};
use common::{address, host_config, seeds};
use outrider_drivers::rng::Rng;
use outrider_stack::net::{ListenOptions, Phase, StackConfig};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::segment::{Flags, Header, Options, Timestamps};
use outrider_stack::tcp::sequence::SeqNumber;
use outrider_stack::time::Instant;
use smoltcp::wire::{
    ArpOperation, EthernetAddress, EthernetProtocol, Icmpv4DstUnreachable, Icmpv4Repr, Icmpv6Repr,
    IpProtocol, Ipv4Repr, NdiscNeighborFlags, NdiscRepr,
};

const HERE: &str = "10.0.0.1:4000";
const PEER: &str = "10.0.0.2:999";

fn syn(seq: u32) -> Header {
    let flags = Flags { syn: true, ..Flags::default() };
    Header { seq: SeqNumber(seq), flags, window: 1_000, ..Header::default() }
}

fn listen(lone: &mut Lone, backlog: usize) -> CheckedAcceptor {
    let acceptor = CheckedAcceptor::new(Plan { finish: false, ..Plan::server(0) });
    let options = ListenOptions { backlog };
    lone.host.stack.listen(address(HERE), options, Box::new(acceptor.clone())).unwrap();
    acceptor
}

#[test]
fn a_request_for_us_is_answered_and_teaches_us_the_asker() {
    let mut lone = Lone::new(1);
    lone.introduce_peer();
    let notes = Notes::default();
    lone.host.stack.connect(lone.now, address(PEER), Checked::new(Plan::client(0), &notes));
    lone.react();
    let segments = lone.segments();
    assert_eq!(segments.len(), 1, "the SYN leaves at once, nobody has to be asked");
    assert!(segments[0].1.flags.syn);
    assert_eq!(lone.host.stack.statistics().neighbour_requests, 0);
}

#[test]
fn plain_data_and_unasked_answers_teach_nothing() {
    let mut lone = Lone::new(2);
    let mac = lone.mac();
    lone.send(&lone.tcp(address(PEER), address(HERE), &syn(1), &[]));
    lone.send(&raw::arp(ArpOperation::Reply, PEER_MAC, "10.0.0.2", "10.0.0.1"));
    assert_eq!(lone.segments().len(), 1, "a RST, back the way the SYN came");
    let notes = Notes::default();
    lone.host.stack.connect(lone.now, address(PEER), Checked::new(Plan::client(0), &notes));
    lone.react();
    let frames = lone.frames();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0][..6], [0xff; 6], "an ARP request, no SYN");

    lone.send(&raw::arp(ArpOperation::Reply, PEER_MAC, "10.0.0.2", "10.0.0.1"));
    let frames = lone.frames();
    assert!(raw::read_tcp(&frames[0]).unwrap().1.flags.syn);
    assert_eq!((&frames[0][..6], &frames[0][6..12]), (&PEER_MAC[..], &mac[..]));
}

#[test]
fn neighbours_are_asked_again_when_their_answer_is_old_and_forgotten_when_silent() {
    let mut lone = Lone::new(3);
    lone.introduce_peer();
    let acceptor = listen(&mut lone, 8);
    lone.send(&lone.tcp(address(PEER), address(HERE), &syn(1), &[]));
    let syn_ack = lone.segments().pop().unwrap().1;
    let ack = Header { seq: SeqNumber(2), ack: Some(syn_ack.seq.add(1)), window: 1_000, ..Header::default() };
    lone.send(&lone.tcp(address(PEER), address(HERE), &ack, &[]));
    assert!(acceptor.notes()[0].get().established.is_some());
    let start = lone.now;
    let mut expect = |at: Duration, requests: u64, failures: u64| {
        lone.at(start + at);
        // A duplicate makes the stack send an ACK, so it needs the neighbour.
        let old = Header { seq: SeqNumber(0), ..ack };
        lone.send(&lone.tcp(address(PEER), address(HERE), &old, b"x"));
        let acks = lone.segments().len();
        let statistics = lone.host.stack.statistics();
        assert_eq!(
            (statistics.neighbour_requests, statistics.neighbour_failures),
            (requests, failures),
            "{at:?}"
        );
        acks
    };
    let seconds = Duration::from_secs;
    assert_eq!(expect(seconds(29), 0, 0), 1);
    assert_eq!(expect(seconds(30), 1, 0), 1, "still used while it is asked for");
    assert_eq!(expect(seconds(31), 2, 0), 1);
    assert_eq!(expect(seconds(32), 3, 0), 1);
    assert_eq!(expect(seconds(33), 4, 1), 0, "forgotten, and asked for anew because it is needed");

    // Without a neighbour there is nobody to send a RST to, but the endpoint is told all the same.
    let server = acceptor.notes().pop().unwrap();
    let id = server.get().waker.clone().unwrap().id();
    lone.host.stack.abort(lone.now, id);
    assert_eq!(server.get().closed, Some(CloseReason::Aborted));
    lone.react();
    assert!(lone.segments().is_empty());
}

#[test]
fn pings_are_answered() {
    let mut lone = Lone::new(4);
    lone.introduce_peer();
    let mac = lone.mac();
    lone.send(&raw::icmp_v4(mac, &Icmpv4Repr::EchoRequest { ident: 7, seq_no: 9, data: b"hello" }));
    let answer = lone.frames().pop().unwrap();
    assert_eq!(answer[14 + 20], 0, "an echo reply");
    assert_eq!(answer[14 + 20 + 8..], *b"hello");
    assert_eq!(lone.host.stack.statistics().rx_slow_path, 2);
}

#[test]
fn solicitations_are_answered_to_the_group_and_to_us_alone() {
    let mut lone = Lone::new(5);
    let mac = lone.mac();
    let solicitation = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
        target_addr: "fd00::1".parse().unwrap(),
        lladdr: Some(EthernetAddress(PEER_MAC).into()),
    });
    let group = [0x33, 0x33, 0xff, 0, 0, 1];
    for (to, destination) in [(group, "ff02::1:ff00:1"), (mac, "fd00::1")] {
        lone.send(&raw::icmp_v6(to, "fd00::2", destination, &solicitation));
        let frames = lone.frames();
        assert_eq!(frames.len(), 1, "{destination}");
        assert_eq!(
            (frames[0][14 + 40], &frames[0][..6]),
            (136, &PEER_MAC[..]),
            "an advertisement for the asker"
        );
    }
    // The asker is known from now on, and an answer about somebody else is not believed.
    let notes = Notes::default();
    lone.host.stack.connect(lone.now, address("[fd00::2]:1"), Checked::new(Plan::client(0), &notes));
    lone.react();
    assert_eq!(lone.frames()[0][14 + 6], 6, "a SYN");
    let advertisement = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::OVERRIDE,
        target_addr: "fd00::3".parse().unwrap(),
        lladdr: Some(EthernetAddress(PEER_MAC).into()),
    });
    lone.send(&raw::icmp_v6(mac, "fd00::3", "fd00::1", &advertisement));
    lone.host.stack.connect(
        lone.now,
        address("[fd00::3]:1"),
        Checked::new(Plan::client(0), &Notes::default()),
    );
    lone.react();
    assert_eq!(lone.frames()[0][14 + 40], 135, "a solicitation");
    lone.send(&raw::icmp_v6(mac, "fd00::3", "fd00::1", &advertisement));
    assert_eq!(lone.frames()[0][14 + 6], 6, "and the answer to it is");
}

#[test]
fn the_backlog_is_bounded_and_comes_free_again() {
    let mut lone = Lone::new(6);
    lone.introduce_peer();
    let acceptor = listen(&mut lone, 4);
    for port in 1..=10 {
        lone.send(&lone.tcp(address(&format!("10.0.0.2:{port}")), address(HERE), &syn(1), &[]));
    }
    let answers = lone.segments();
    assert_eq!(answers.len(), 10, "the others get a cookie");
    assert!(answers.iter().all(|(_, header)| header.flags.syn && header.ack == Some(SeqNumber(2))));
    let statistics = lone.host.stack.statistics();
    assert_eq!((statistics.accepts, statistics.cookies_sent), (4, 6));
    assert_eq!(lone.host.stack.connections(lone.now).count(), 4, "of which nothing is kept");

    let (ports, header) = answers[2];
    let ack = Header { seq: SeqNumber(2), ack: Some(header.seq.add(1)), window: 9, ..Header::default() };
    let peer = address(&format!("10.0.0.2:{}", ports.destination));
    lone.send(&lone.tcp(peer, address(HERE), &ack, &[]));
    assert_eq!(acceptor.notes().len(), 1, "one is accepted");
    for port in 11..=13 {
        lone.send(&lone.tcp(address(&format!("10.0.0.2:{port}")), address(HERE), &syn(1), &[]));
    }
    assert_eq!(lone.segments().len(), 3);
    assert_eq!(lone.host.stack.statistics().accepts, 5, "and made room for one more");
}

#[test]
fn data_with_the_last_handshake_segment_reaches_the_endpoint() {
    let mut lone = Lone::new(7);
    lone.introduce_peer();
    let acceptor = listen(&mut lone, 4);
    lone.send(&lone.tcp(address(PEER), address(HERE), &syn(1), &[]));
    let (_, header) = lone.segments()[0];
    let ack = Header { seq: SeqNumber(2), ack: Some(header.seq.add(1)), window: 9, ..Header::default() };
    let payload: Vec<u8> = (0..100).map(|offset| common::endpoints::pattern(1, offset)).collect();
    lone.send(&lone.tcp(address(PEER), address(HERE), &ack, &payload));
    assert_eq!(acceptor.notes()[0].get().received, 100);
}

#[test]
fn timestamps_before_their_padding_are_read_as_well_in_every_segment_of_a_transfer() {
    let mut lone = Lone::new(8);
    lone.introduce_peer();
    let acceptor = listen(&mut lone, 4);
    let stamped = |value: u32, echo: u32, header: Header| {
        let options = Options { timestamps: Some(Timestamps { value, echo }), ..header.options };
        Header { options, ..header }
    };
    // High halves are alike and the low ones small: half a value and half an echo would be a time long gone.
    lone.send(&lone.tcp(address(PEER), address(HERE), &stamped(0x7000_0000, 0, syn(1)), &[]));
    let (_, answer) = lone.segments()[0];
    let echo = answer.options.timestamps.unwrap().value;
    for number in 0..3 {
        let offset = 100 * number;
        let header = Header {
            seq: SeqNumber(2 + offset),
            ack: Some(answer.seq.add(1)),
            window: 9,
            ..Header::default()
        };
        let payload: Vec<u8> =
            (0..100).map(|at| common::endpoints::pattern(1, u64::from(offset) + at)).collect();
        let header = stamped(0x7000_0001 + number, echo, header);
        let mut frame = lone.tcp(address(PEER), address(HERE), &header, &payload);
        frame[54..66].rotate_left(2);
        assert_eq!((frame[54..56].to_vec(), frame[64..66].to_vec()), (vec![8, 10], vec![1, 1]));
        lone.send(&frame);
        assert_eq!(acceptor.notes()[0].get().received, 100 * (u64::from(number) + 1), "segment {number}");
    }
}

#[test]
fn when_the_listener_ends_what_is_half_open_is_reset() {
    let mut lone = Lone::new(8);
    lone.introduce_peer();
    let acceptor = CheckedAcceptor::new(Plan::server(0));
    let id = lone.host.stack.listen(address(HERE), ListenOptions::default(), Box::new(acceptor)).unwrap();
    lone.send(&lone.tcp(address(PEER), address(HERE), &syn(1), &[]));
    assert_eq!(lone.host.stack.connections(lone.now).next().unwrap().phase, Phase::HalfOpen);
    lone.host.stack.unlisten(lone.now, id);
    lone.react();
    assert!(lone.segments().last().unwrap().1.flags.rst);
    assert_eq!(lone.host.stack.connections(lone.now).count(), 0);
}

#[test]
fn half_open_connections_go_away_when_nobody_completes_them() {
    let config = StackConfig { neighbour_reachable: Duration::from_secs(3_600), ..host_config(1) };
    let mut lone = Lone::with(9, config);
    lone.introduce_peer();
    listen(&mut lone, 1);
    lone.send(&lone.tcp(address(PEER), address(HERE), &syn(1), &[]));
    for second in 1..400 {
        lone.at(Instant::from_millis(second * 1_000));
    }
    let answers = lone.segments();
    assert_eq!(answers.len(), 7, "the SYN-ACK and six repetitions");
    assert_eq!(lone.host.stack.connections(lone.now).count(), 0);
    assert_eq!(lone.host.stack.statistics().closed_otherwise, 1);
    lone.send(&lone.tcp(address("10.0.0.2:5"), address(HERE), &syn(1), &[]));
    assert_eq!(lone.segments().len(), 1, "and their place in the backlog is free");
}

#[test]
fn resets_answer_strays_at_a_limited_rate() {
    let config = StackConfig { resets_per_second: 100, ..host_config(1) };
    let mut lone = Lone::with(10, config);
    for seq in 0..500 {
        lone.send(&lone.tcp(address(PEER), address(HERE), &syn(seq), b"data"));
    }
    let answers = lone.segments();
    assert_eq!(answers.len(), 10, "a tenth of a second's worth at once");
    assert!(answers[0].1.flags.rst);
    assert_eq!(answers[3].1.ack, Some(SeqNumber(3 + 1 + 4)), "it acknowledges SYN and data");
    let rst = Header { flags: Flags { rst: true, ..Flags::default() }, ..syn(1) };
    lone.at(Instant::from_millis(60_000));
    lone.send(&lone.tcp(address(PEER), address(HERE), &rst, &[]));
    assert!(lone.segments().is_empty(), "a RST is not answered");
    let statistics = lone.host.stack.statistics();
    assert_eq!((statistics.resets_sent, statistics.resets_suppressed), (10, 490));
    assert_eq!(statistics.rx_dropped_no_connection, 501);
}

#[test]
fn icmp_errors_are_counted_by_whom_they_are_about() {
    let mut lone = Lone::new(11);
    lone.introduce_peer();
    let mac = lone.mac();
    let notes = Notes::default();
    lone.host.stack.connect(lone.now, address(PEER), Checked::new(Plan::client(0), &notes));
    lone.react();
    let (ports, _) = lone.segments()[0];
    let quote = |source: u16| {
        let mut data = [0; 8];
        data[..2].copy_from_slice(&source.to_be_bytes());
        data[2..4].copy_from_slice(&ports.destination.to_be_bytes());
        data
    };
    let header = Ipv4Repr {
        src_addr: "10.0.0.1".parse().unwrap(),
        dst_addr: "10.0.0.2".parse().unwrap(),
        next_header: IpProtocol::Tcp,
        payload_len: 20,
        hop_limit: 60,
    };
    for source in [ports.source, ports.source + 1] {
        let data = &quote(source);
        let reason = Icmpv4DstUnreachable::HostUnreachable;
        lone.send(&raw::icmp_v4(mac, &Icmpv4Repr::DstUnreachable { reason, header, data }));
    }
    let statistics = lone.host.stack.statistics();
    assert_eq!((statistics.icmp_errors_matched, statistics.icmp_errors_unmatched), (1, 1));
    assert_eq!(notes.get().closed, None);
}

/// A SYN with one thing wrong, and the counter it belongs to.
fn unusable_frames(lone: &Lone) -> Vec<(&'static str, Vec<u8>)> {
    let mac = lone.mac();
    let good = lone.tcp(address(PEER), address(HERE), &syn(1), &[]);
    let change = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        // Keep the IP checksum right, so that only one thing is wrong.
        if (14..34).contains(&at) && frame[14] >> 4 == 4 && frame[14] & 15 >= 5 {
            let mut packet = smoltcp::wire::Ipv4Packet::new_unchecked(&mut frame[14..]);
            packet.fill_checksum();
        }
        frame
    };
    let from = |source: &str| lone.tcp(address(source), address(HERE), &syn(1), &[]);
    vec![
        ("rx_dropped_truncated", good[..13].to_vec()),
        ("rx_dropped_truncated", good[..30].to_vec()),
        ("rx_dropped_not_ours", change(0, 0x04)),
        ("rx_dropped_not_ours", change(33, 9)),
        ("rx_dropped_not_ours", {
            let mut f = good.clone();
            f[..6].fill(0xff);
            f
        }),
        ("rx_dropped_ethertype", raw::ethernet(mac, EthernetProtocol::Unknown(0x8100), &good[14..])),
        ("rx_dropped_ip_header", change(14, 0x55)),
        ("rx_dropped_ip_checksum", {
            let mut f = good.clone();
            f[24] ^= 1;
            f
        }),
        ("rx_dropped_fragment", change(20, 0x20)),
        ("rx_dropped_fragment", change(21, 0x01)),
        ("rx_dropped_martian", from("10.0.0.1:5")),
        ("rx_dropped_martian", from("127.0.0.1:5")),
        ("rx_dropped_martian", from("224.0.0.1:5")),
        ("rx_dropped_martian", from("10.0.0.255:5")),
        ("rx_dropped_martian", from("0.0.0.0:5")),
        ("rx_dropped_protocol", change(23, 17)),
        ("rx_dropped_checksum", change(40, 0xff)),
        (
            "rx_dropped_segment",
            raw::ip(
                mac,
                "10.0.0.2".parse().unwrap(),
                "10.0.0.1".parse().unwrap(),
                IpProtocol::Tcp,
                64,
                &[1; 19],
            ),
        ),
        ("rx_dropped_no_connection", good.clone()),
    ]
}

#[test]
fn every_unusable_frame_has_its_counter() {
    let mut lone = Lone::new(12);
    for (name, frame) in unusable_frames(&lone) {
        let value = |lone: &Lone| {
            let table = lone.host.stack.statistics().table();
            table.iter().find(|row| row.name == name).expect("a counter of the table").value
        };
        let before = value(&lone);
        lone.send(&frame);
        assert_eq!(value(&lone), before + 1, "{name}: {frame:02x?}");
    }
}

#[test]
fn a_segment_with_a_bad_option_is_counted_as_such() {
    let mut lone = Lone::new(14);
    let bad_option = {
        let mut bytes = lone.tcp(address(PEER), address(HERE), &syn(1), &[2, 77, 0, 0]);
        bytes[14 + 20 + 12] = 6 << 4;
        let mut packet = smoltcp::wire::TcpPacket::new_unchecked(&mut bytes[34..]);
        packet.fill_checksum(&address(PEER).ip().into(), &address(HERE).ip().into());
        bytes
    };
    lone.send(&bad_option);
    assert_eq!(lone.host.stack.statistics().rx_dropped_option, 1);
}

/// Every received frame ends in exactly one counter.
fn accounted_for(lone: &Lone) -> bool {
    let table = lone.host.stack.statistics().table();
    let used =
        ["rx_segments", "rx_slow_path", "cookies_sent", "icmp_errors_matched", "icmp_errors_unmatched"];
    let counted = table.iter().filter(|row| row.name.starts_with("rx_dropped") || used.contains(&row.name));
    let counted: u64 = counted.map(|row| row.value).sum();
    counted == lone.host.stack.statistics().rx_frames
}

#[test]
fn garbage_of_every_kind_is_survived_and_counted() {
    seeds(20, |seed| {
        let mut rng = Rng::new(seed);
        let mut lone = Lone::new(seed);
        lone.introduce_peer();
        let acceptor = listen(&mut lone, 8);
        let mac = lone.mac();
        let group = [0x33, 0x33, 0xff, 0, 0, 1];
        let solicitation = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
            target_addr: "fd00::1".parse().unwrap(),
            lladdr: Some(EthernetAddress(PEER_MAC).into()),
        });
        let header = Ipv4Repr {
            src_addr: "10.0.0.1".parse().unwrap(),
            dst_addr: "10.0.0.2".parse().unwrap(),
            next_header: IpProtocol::Tcp,
            payload_len: 8,
            hop_limit: 60,
        };
        let unreachable = Icmpv4Repr::DstUnreachable {
            reason: Icmpv4DstUnreachable::PortUnreachable,
            header,
            data: &[0; 8],
        };
        let kinds = [
            lone.tcp(address(PEER), address(HERE), &syn(1), b"payload"),
            lone.tcp(address("[fd00::2]:1"), address("[fd00::1]:4000"), &syn(1), b"payload"),
            raw::arp(ArpOperation::Request, PEER_MAC, "10.0.0.2", "10.0.0.1"),
            raw::icmp_v4(mac, &Icmpv4Repr::EchoRequest { ident: 1, seq_no: 1, data: b"x" }),
            raw::icmp_v4(mac, &unreachable),
            raw::icmp_v6(group, "fd00::2", "ff02::1:ff00:1", &solicitation),
            raw::icmp_v6(mac, "fd00::2", "fd00::1", &solicitation),
        ];
        for _ in 0..2_000 {
            let mut frame = kinds[rng.below(kinds.len() as u64) as usize].clone();
            for _ in 0..rng.below(4) {
                let at = rng.below(frame.len() as u64) as usize;
                frame[at] = rng.next_u32() as u8;
            }
            if rng.chance(0.3) {
                frame.truncate(1 + rng.below(frame.len() as u64) as usize);
            }
            if rng.chance(0.1) {
                rng.fill(&mut frame);
            }
            lone.send(&frame);
            lone.now += Duration::from_millis(rng.below(10));
        }
        drop(acceptor);
        let statistics = lone.host.stack.statistics();
        assert!(statistics.rx_slow_path > 0 && statistics.rx_segments > 0, "some of it was good");
        assert!(accounted_for(&lone), "{statistics:?}");
    });
}

#[test]
fn a_repeated_syn_is_answered_the_way_it_came_though_the_first_came_another() {
    let mut lone = Lone::new(40);
    lone.introduce_peer();
    listen(&mut lone, 4);
    let mut stray = lone.tcp(address(PEER), address(HERE), &syn(1), &[]);
    stray[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    lone.send(&stray);
    assert_eq!(lone.frames()[0][..6], [2, 9, 9, 9, 9, 9]);
    lone.send(&lone.tcp(address(PEER), address(HERE), &syn(1), &[]));
    assert_eq!(lone.frames()[0][..6], PEER_MAC);
}
