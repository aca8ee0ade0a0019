//! A whole stack under any frames: made up, valid, and valid ones with something changed.
#![allow(missing_docs, unreachable_pub)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use outrider_drivers::memory::{LinkConfig, MemoryPort, cable};
use outrider_drivers::port::{Port, ReceiveChecksum, RxFrame, TxOffload};
use outrider_stack::endpoint::{Acceptor, Endpoint, Established};
use outrider_stack::net::{ListenOptions, Stack, StackConfig};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::segment::{Flags, Header, Options, Timestamps};
use outrider_stack::tcp::sequence::SeqNumber;
use outrider_stack::tcp::source::{
    AckUrgency, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault,
};
use outrider_stack::tcp::wire::{self, Emission, Envelope, Ports};
use outrider_stack::time::Instant;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpHardware, ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    IpProtocol, Ipv4Packet, Ipv4Repr,
};

use crate::input::Input;

const EVENTS_MAX: usize = 200;
/// Polls at one instant: more than any burst needs.
const POLLS_MAX: usize = 100_000;
/// Timers that fire in the end.
const TIMERS_MAX: usize = 500;
const HERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const LISTENING: u16 = 4000;
const CONNECTING_TO: u16 = 999;

/// Sends a little, takes anything, ends when the peer does.
#[derive(Default)]
struct Chatty {
    unsent: usize,
    finished: bool,
    established: bool,
    closed: bool,
}

impl SegmentSource for Chatty {
    fn demand(&mut self, _now: Instant) -> Demand {
        if self.unsent > 0 { Demand::Data } else { Demand::Nothing }
    }

    fn cut(&mut self, _now: Instant, _state: &SendState, cut: &mut dyn Cut) {
        let count = self.unsent.min(cut.room());
        cut.append(&vec![1; count]);
        self.unsent -= count;
    }

    fn next_demand(&self) -> Option<Instant> {
        None
    }

    fn finished(&self) -> bool {
        self.finished
    }
}

impl SegmentSink for Chatty {
    fn deliver(&mut self, _now: Instant, _bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        assert!(self.established && !self.closed && !self.finished);
        Ok(AckUrgency::Normal)
    }

    fn room(&self) -> usize {
        50_000
    }

    fn on_peer_finished(&mut self, _now: Instant) {
        self.finished = true;
    }
}

impl Endpoint for Chatty {
    fn on_established(&mut self, _now: Instant, _established: &Established) {
        assert!(!core::mem::replace(&mut self.established, true), "established once");
    }

    fn on_closed(&mut self, _now: Instant, _reason: CloseReason) {
        assert!(!core::mem::replace(&mut self.closed, true), "closed once");
    }
}

struct Everybody;

impl Acceptor for Everybody {
    fn accept(&mut self, _: Instant, _: SocketAddr, _: SocketAddr) -> Option<Box<dyn Endpoint>> {
        Some(Box::new(Chatty { unsent: 10_000, ..Chatty::default() }))
    }
}

struct Run {
    now: Instant,
    stack: Stack,
    port: MemoryPort,
    wire: MemoryPort,
    /// The last segment that the stack sent: what a peer would answer.
    last: Option<(Ports, Header, u32)>,
}

impl Run {
    fn new() -> Run {
        let (port, wire) = cable(LinkConfig::default(), LinkConfig::default(), 1);
        let mut config = StackConfig::new([(IpAddr::V4(HERE), 24), ("fd00::1".parse().expect("ours"), 64)]);
        config.connections_max = 16;
        let mut stack = Stack::new(config, port.info(), 1).expect("a sound configuration");
        let now = Instant::from_millis(1);
        let listening = SocketAddr::from((HERE, LISTENING));
        stack.listen(listening, ListenOptions { backlog: 4 }, Box::new(Everybody)).expect("a free address");
        let endpoint = Box::new(Chatty { unsent: 5000, ..Chatty::default() });
        stack.connect(now, SocketAddr::from((PEER, CONNECTING_TO)), endpoint);
        Run { now, stack, port, wire, last: None }
    }

    /// Lets the stack do all it can, and reads what it says.
    fn settle(&mut self) -> Option<Instant> {
        let mut polls = 0;
        let next = loop {
            let poll = self.stack.poll(self.now, &mut self.port).expect("the cable is plugged in");
            if poll.work == 0 {
                break poll.next;
            }
            polls += 1;
            assert!(polls < POLLS_MAX, "busy without end");
        };
        let (last, now) = (&mut self.last, self.now);
        let mut read = |frame: RxFrame<'_>| *last = read_tcp(frame.bytes).or(*last);
        while self.wire.receive(now, 64, &mut read).expect("the cable is plugged in") > 0 {}
        next
    }

    fn send(&mut self, frame: &[u8]) {
        let bytes = &frame[..frame.len().min(1514)];
        let mut fill = |buffer: &mut [u8]| {
            buffer[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        };
        let taken = self.wire.transmit(self.now, bytes.len().max(14), TxOffload::default(), &mut fill);
        if taken.expect("the cable is plugged in") {
            self.wire.flush(self.now).expect("the cable is plugged in");
        }
        self.settle();
    }

    /// A segment that answers the last one, with anything changed.
    fn segment(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let bits = input.u8();
        let (ports, theirs, length) = self.last.unwrap_or_default_segment();
        let to_listener = bits & 1 == 0 || ports.source == 0;
        let ports = if to_listener && bits & 2 == 0 {
            Ports { source: 1 + u16::from(input.u8() % 4), destination: LISTENING }
        } else {
            Ports { source: ports.destination.max(1), destination: ports.source.max(1) }
        };
        let flags = input.u8();
        let flags = Flags {
            syn: flags & 1 != 0,
            fin: flags & 6 == 6,
            rst: flags & 24 == 24,
            psh: flags & 32 != 0,
            ece: flags & 64 != 0,
            cwr: flags & 128 != 0,
        };
        let ack = (bits & 4 == 0).then(|| theirs.seq.add(length).add(input.distance()));
        let mut options = Options::default();
        if bits & 8 != 0 {
            let echo = theirs.options.timestamps.map_or(0, |timestamps| timestamps.value);
            options.timestamps = Some(Timestamps { value: input.distance(), echo });
        }
        if flags.syn {
            options.segment_size_max = Some(input.u16());
            options.window_scale = Some(input.u8() % 15);
            options.sack_permitted = bits & 16 != 0;
        }
        let seq = theirs.ack.unwrap_or(SeqNumber(500)).add(input.distance());
        let header = Header { seq, ack, flags, window: input.u16(), options };
        let count = if bits & 32 != 0 { usize::from(input.u16()) % 1400 } else { 0 };
        let payload = vec![7; count];
        let (source, destination) = (IpAddr::V4(PEER), IpAddr::V4(HERE));
        let emission = Emission { ports, source, destination, checksum_offload: false };
        let mut segment = vec![0; wire::header_length(&header) + count];
        wire::emit(&mut segment, &emission, &header, [&payload, &[]]);
        self.ip(IpProtocol::Tcp, &segment)
    }

    fn ip(&self, next_header: IpProtocol, payload: &[u8]) -> Vec<u8> {
        let repr = Ipv4Repr {
            src_addr: PEER,
            dst_addr: HERE,
            next_header,
            payload_len: payload.len(),
            hop_limit: 64,
        };
        let mut packet = vec![0; 20 + payload.len()];
        repr.emit(&mut Ipv4Packet::new_unchecked(&mut packet), &ChecksumCapabilities::default());
        packet[20..].copy_from_slice(payload);
        self.ethernet(EthernetProtocol::Ipv4, &packet)
    }

    fn ethernet(&self, ethertype: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 14 + payload.len()];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        frame.set_dst_addr(EthernetAddress(self.port.info().mac));
        frame.set_src_addr(EthernetAddress(PEER_MAC));
        frame.set_ethertype(ethertype);
        frame.payload_mut().copy_from_slice(payload);
        bytes
    }

    fn arp(&self, operation: ArpOperation) -> Vec<u8> {
        let message = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(PEER_MAC),
            source_protocol_addr: PEER,
            target_hardware_addr: EthernetAddress(self.port.info().mac),
            target_protocol_addr: HERE,
        };
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut ArpPacket::new_unchecked(&mut bytes));
        assert_eq!(u16::from(ArpHardware::Ethernet), 1);
        self.ethernet(EthernetProtocol::Arp, &bytes)
    }

    fn event(&mut self, input: &mut Input<'_>) {
        match input.u8() % 12 {
            0 => {
                let count = usize::from(input.u8()) * 4;
                let bytes = input.take(count).to_vec();
                self.send(&bytes);
            }
            1 => {
                // Right addresses and protocol, anything within.
                let kind = input.pick(&[
                    EthernetProtocol::Ipv4,
                    EthernetProtocol::Ipv6,
                    EthernetProtocol::Arp,
                    EthernetProtocol::Unknown(0x8100),
                ]);
                let count = usize::from(input.u8());
                let frame = self.ethernet(kind, input.take(count));
                self.send(&frame);
            }
            2 => {
                let protocol = input.pick(&[IpProtocol::Icmp, IpProtocol::Tcp, IpProtocol::Udp]);
                let count = usize::from(input.u8());
                let mut payload = input.take(count).to_vec();
                if protocol == IpProtocol::Icmp && payload.len() >= 4 {
                    fill_checksum(&mut payload);
                }
                let frame = self.ip(protocol, &payload);
                self.send(&frame);
            }
            3 => {
                let operation = if input.flag() { ArpOperation::Request } else { ArpOperation::Reply };
                let frame = self.arp(operation);
                self.send(&frame);
            }
            4 | 5 => {
                let mut frame = self.segment(input);
                for _ in 0..1 + input.u8() % 3 {
                    let at = usize::from(input.u16()) % frame.len();
                    frame[at] ^= input.u8();
                }
                frame.truncate(frame.len() - usize::from(input.u8() % 8).min(frame.len()));
                self.send(&frame);
            }
            6 => {
                self.now += Duration::from_micros(u64::from(input.u32() >> (input.u8() % 32)));
                self.settle();
            }
            _ => {
                let frame = self.segment(input);
                self.send(&frame);
            }
        }
        let open = self.stack.connections(self.now).count();
        assert!(open <= 16, "the table is bounded");
    }
}

/// What to answer before the stack has said anything.
trait OrDefault {
    fn unwrap_or_default_segment(self) -> (Ports, Header, u32);
}

impl OrDefault for Option<(Ports, Header, u32)> {
    fn unwrap_or_default_segment(self) -> (Ports, Header, u32) {
        self.unwrap_or((Ports { source: 0, destination: 0 }, Header::default(), 0))
    }
}

/// The Internet checksum (RFC 1071) into the place where ICMP has it.
fn fill_checksum(bytes: &mut [u8]) {
    bytes[2..4].fill(0);
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    bytes[2..4].copy_from_slice(&(!sum as u16).to_be_bytes());
}

/// Ports, header and sequence space of a TCP segment; what the stack sends must be right.
fn read_tcp(bytes: &[u8]) -> Option<(Ports, Header, u32)> {
    let frame = EthernetFrame::new_checked(bytes).expect("the stack sends frames");
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).expect("the stack sends packets");
    assert!(packet.verify_checksum());
    if packet.next_header() != IpProtocol::Tcp {
        return None;
    }
    let envelope = Envelope {
        source: IpAddr::V4(packet.src_addr()),
        destination: IpAddr::V4(packet.dst_addr()),
        checksum: ReceiveChecksum::Unverified,
        congestion_experienced: false,
    };
    let (ports, segment) = wire::parse(packet.payload(), &envelope).expect("the stack sends segments");
    let flags = segment.header.flags;
    Some((ports, segment.header, segment.payload.len() as u32 + u32::from(flags.syn) + u32::from(flags.fin)))
}

/// The input is a series of frames and waits.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut run = Run::new();
    if input.flag() {
        let request = run.arp(ArpOperation::Request);
        run.send(&request);
    }
    for _ in 0..EVENTS_MAX {
        if input.is_empty() {
            break;
        }
        run.event(&mut input);
    }
    // Left alone, everything that waits for an answer ends.
    for _ in 0..TIMERS_MAX {
        let Some(next) = run.settle() else { break };
        run.now = run.now.max(next);
    }
    run.stack.fail(run.now);
    assert_eq!(run.stack.connections(run.now).count(), 0);
}

/// Both kinds of opening, data, and an end.
pub fn examples() -> Vec<Vec<u8>> {
    // Bits, port, flags, numbers, window: see `Run::segment`.
    let syn = [8u8, 4, 1, 1, 0, 0xb4, 5, 7, 0, 0xff, 0xff];
    let ack = [8u8, 3, 0, 0, 0, 0xff, 0xff];
    let data = [8u8, 3 | 32, 32, 0, 0, 0xff, 0xff, 100, 0];
    let fin = [8u8, 3, 6, 0, 0, 0xff, 0xff];
    let syn_ack = [8u8, 3, 1, 0, 0xb4, 5, 7, 0, 0xff, 0xff];
    let wait = [6u8, 0xff, 0xff, 0xff, 0, 4];
    vec![
        [&[1u8][..], &syn_ack, &data, &ack, &wait, &fin, &ack].concat(),
        [&[1u8][..], &syn, &ack, &data, &data, &ack, &fin, &wait, &ack].concat(),
        [&[0u8, 3, 1][..], &syn_ack, &data, &wait].concat(),
    ]
}
