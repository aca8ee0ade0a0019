//! One stack, and a test that plays its peer frame by frame.

use std::net::{IpAddr, SocketAddr};

use outrider_drivers::memory::{LinkConfig, MemoryPort, cable};
use outrider_drivers::port::{Port, ReceiveChecksum, TxOffload};
use outrider_stack::net::StackConfig;
use outrider_stack::tcp::segment::{Header, Segment};
use outrider_stack::tcp::wire::{self, Emission, Envelope, Ports};
use outrider_stack::time::Instant;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Packet,
    Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr,
};

use super::{Host, host_config};

/// The Ethernet address that the test's peer has.
pub const PEER_MAC: [u8; 6] = [0x02, 0xbe, 0xef, 0, 0, 2];

/// The stack of host 1, and the bare end of its cable.
pub struct Lone {
    pub now: Instant,
    pub host: Host,
    pub wire: MemoryPort,
}

impl Lone {
    pub fn new(seed: u64) -> Self {
        Lone::with(seed, host_config(1))
    }

    pub fn with(seed: u64, config: StackConfig) -> Self {
        let (port, wire) = cable(LinkConfig::default(), LinkConfig::default(), seed);
        Lone { now: Instant::from_millis(1), host: Host::new(config, port, seed), wire }
    }

    pub fn mac(&self) -> [u8; 6] {
        self.host.port.info().mac
    }

    /// Sends a frame to the stack and lets it react.
    pub fn send(&mut self, frame: &[u8]) {
        let mut fill = |buffer: &mut [u8]| {
            buffer[..frame.len()].copy_from_slice(frame);
            frame.len()
        };
        let taken = self.wire.transmit(self.now, frame.len(), TxOffload::default(), &mut fill);
        assert!(taken.expect("the cable is plugged in"), "the cable has room");
        self.wire.flush(self.now).expect("the cable is plugged in");
        self.react();
    }

    pub fn react(&mut self) {
        while self.host.poll(self.now) > 0 {}
    }

    /// Moves time to `now` and lets the stack react.
    pub fn at(&mut self, now: Instant) {
        self.now = now;
        self.react();
    }

    /// The frames that the stack has sent.
    pub fn frames(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut accept = |frame: outrider_drivers::port::RxFrame<'_>| frames.push(frame.bytes.to_vec());
        while self.wire.receive(self.now, 64, &mut accept).expect("the cable is plugged in") > 0 {}
        frames
    }

    /// The TCP headers among the frames that the stack has sent.
    pub fn segments(&mut self) -> Vec<(Ports, Header)> {
        self.frames().iter().filter_map(|frame| read_tcp(frame)).collect()
    }

    /// Has the peer 10.0.0.2 ask for the stack's address, so that the stack knows the peer's.
    pub fn introduce_peer(&mut self) {
        let request = arp(ArpOperation::Request, PEER_MAC, "10.0.0.2", "10.0.0.1");
        self.send(&request);
        assert_eq!(self.frames().len(), 1, "the stack answers ARP");
    }

    /// A TCP segment from `source` to `destination`.
    pub fn tcp(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        header: &Header,
        payload: &[u8],
    ) -> Vec<u8> {
        let emission = Emission {
            ports: Ports { source: source.port(), destination: destination.port() },
            source: source.ip(),
            destination: destination.ip(),
            checksum_offload: false,
        };
        let mut segment = vec![0; wire::header_length(header) + payload.len()];
        wire::emit(&mut segment, &emission, header, [payload, &[]]);
        ip(self.mac(), source.ip(), destination.ip(), IpProtocol::Tcp, 64, &segment)
    }
}

/// An IP packet in a frame from the peer.
pub fn ip(
    to: [u8; 6],
    source: IpAddr,
    destination: IpAddr,
    next_header: IpProtocol,
    hop_limit: u8,
    payload: &[u8],
) -> Vec<u8> {
    let payload_len = payload.len();
    let (ethertype, mut packet) = match (source, destination) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            let header = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit };
            let mut packet = vec![0; 20 + payload_len];
            header.emit(&mut Ipv4Packet::new_unchecked(&mut packet), &ChecksumCapabilities::default());
            (EthernetProtocol::Ipv4, packet)
        }
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            let header = Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit };
            let mut packet = vec![0; 40 + payload_len];
            header.emit(&mut Ipv6Packet::new_unchecked(&mut packet));
            (EthernetProtocol::Ipv6, packet)
        }
        _ => panic!("both addresses are of one family"),
    };
    let start = packet.len() - payload_len;
    packet[start..].copy_from_slice(payload);
    ethernet(to, ethertype, &packet)
}

/// A frame from the peer.
pub fn ethernet(to: [u8; 6], ethertype: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 14 + payload.len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(EthernetAddress(PEER_MAC));
    frame.set_dst_addr(EthernetAddress(to));
    frame.set_ethertype(ethertype);
    frame.payload_mut().copy_from_slice(payload);
    bytes
}

/// An ARP packet to everybody.
pub fn arp(operation: ArpOperation, mac: [u8; 6], source: &str, target: &str) -> Vec<u8> {
    let message = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(mac),
        source_protocol_addr: source.parse().unwrap(),
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target.parse().unwrap(),
    };
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut ArpPacket::new_unchecked(&mut bytes));
    ethernet([0xff; 6], EthernetProtocol::Arp, &bytes)
}

/// An ICMPv4 packet from 10.0.0.2 to 10.0.0.1.
pub fn icmp_v4(to: [u8; 6], message: &Icmpv4Repr<'_>) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes), &ChecksumCapabilities::default());
    let (source, destination) = ("10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap());
    ip(to, source, destination, IpProtocol::Icmp, 64, &bytes)
}

/// An ICMPv6 packet, with the hop limit of neighbour discovery.
pub fn icmp_v6(to: [u8; 6], source: &str, destination: &str, message: &Icmpv6Repr<'_>) -> Vec<u8> {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    let mut bytes = vec![0; message.buffer_len()];
    let mut packet = Icmpv6Packet::new_unchecked(&mut bytes);
    message.emit(&source, &destination, &mut packet, &ChecksumCapabilities::default());
    ip(to, IpAddr::V6(source), IpAddr::V6(destination), IpProtocol::Icmpv6, 255, &bytes)
}

/// The TCP header of an IPv4 frame; its checksum must be right.
pub fn read_tcp(frame: &[u8]) -> Option<(Ports, Header)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    assert!(packet.verify_checksum(), "what the stack sends has a right IP checksum");
    if packet.next_header() != IpProtocol::Tcp {
        return None;
    }
    let envelope = Envelope {
        source: packet.src_addr().into(),
        destination: packet.dst_addr().into(),
        checksum: ReceiveChecksum::Unverified,
        congestion_experienced: false,
    };
    let parsed: (Ports, Segment<'_>) =
        wire::parse(packet.payload(), &envelope).expect("what the stack sends is right");
    Some((parsed.0, parsed.1.header))
}
