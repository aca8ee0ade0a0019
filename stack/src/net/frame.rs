//! Between Ethernet frames and IP payloads: sorting what comes in, writing headers for what goes out.

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet};

use super::routes::{Routes, is_host};
use crate::tcp::segment::Header;
use crate::tcp::wire::{self, Emission, Ports};

/// Ethernet header, bytes.
pub(super) const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
/// RFC 1700's recommended default, as every host uses it.
const HOP_LIMIT: u8 = 64;
/// RFC 3168 section 5.
const ECN_CAPABLE: u8 = 0b10;
const ECN_CONGESTION: u8 = 0b11;
const ECN_MASK: u8 = 0b11;

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

/// Why a frame is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Discard {
    Truncated,
    NotOurs,
    Ethertype,
    IpHeader,
    IpChecksum,
    Fragment,
    Martian,
    Protocol,
}

/// The IP packet inside a frame, its header checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub(super) source_mac: Mac,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hop_limit: u8,
    pub(super) congestion_experienced: bool,
    pub(super) payload: &'a [u8],
}

/// What a frame is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Received<'a> {
    Tcp(Packet<'a>),
    Arp(&'a [u8]),
    Icmpv4(Packet<'a>),
    Icmpv6(Packet<'a>),
}

/// Sorts a frame that came in on the port with address `mac`.
pub(super) fn classify<'a>(bytes: &'a [u8], mac: Mac, routes: &Routes) -> Result<Received<'a>, Discard> {
    let frame = EthernetFrame::new_checked(bytes).map_err(|_| Discard::Truncated)?;
    let to_us = frame.dst_addr().0 == mac;
    if !to_us && frame.dst_addr().is_unicast() {
        return Err(Discard::NotOurs);
    }
    let (protocol, packet) = match frame.ethertype() {
        EthernetProtocol::Arp => return Ok(Received::Arp(frame.payload())),
        EthernetProtocol::Ipv4 => open_v4(frame.payload(), frame.src_addr().0)?,
        EthernetProtocol::Ipv6 => open_v6(frame.payload(), frame.src_addr().0)?,
        EthernetProtocol::Unknown(_) => return Err(Discard::Ethertype),
    };
    let ours = routes.is_ours(packet.destination);
    if routes.is_ours(packet.source) || packet.source.is_loopback() || routes.is_broadcast(packet.source) {
        return Err(Discard::Martian);
    }
    match protocol {
        // Duplicate address detection asks from the unspecified address (RFC 4862 section 5.4.2).
        IpProtocol::Icmpv6 if packet.source.is_unspecified() => Ok(Received::Icmpv6(packet)),
        _ if !is_host(packet.source) => Err(Discard::Martian),
        IpProtocol::Icmpv6 if packet.source.is_ipv6() && (ours || packet.destination.is_multicast()) => {
            Ok(Received::Icmpv6(packet))
        }
        _ if !ours => Err(Discard::NotOurs),
        IpProtocol::Tcp if to_us => Ok(Received::Tcp(packet)),
        IpProtocol::Tcp => Err(Discard::NotOurs),
        IpProtocol::Icmp if packet.source.is_ipv4() => Ok(Received::Icmpv4(packet)),
        IpProtocol::Ipv6Frag => Err(Discard::Fragment),
        _ => Err(Discard::Protocol),
    }
}

/// Checks an IPv4 header (RFC 1122 section 3.2.1) and skips its options.
fn open_v4(bytes: &[u8], source_mac: Mac) -> Result<(IpProtocol, Packet<'_>), Discard> {
    let packet = Ipv4Packet::new_checked(bytes).map_err(|_| Discard::Truncated)?;
    if packet.version() != 4 || usize::from(packet.header_len()) < IPV4_BYTES {
        return Err(Discard::IpHeader);
    }
    if !packet.verify_checksum() {
        return Err(Discard::IpChecksum);
    }
    if packet.more_frags() || packet.frag_offset() != 0 {
        return Err(Discard::Fragment);
    }
    let opened = Packet {
        source_mac,
        source: IpAddr::V4(packet.src_addr()),
        destination: IpAddr::V4(packet.dst_addr()),
        hop_limit: packet.hop_limit(),
        congestion_experienced: packet.ecn() & ECN_MASK == ECN_CONGESTION,
        payload: packet.payload(),
    };
    Ok((packet.next_header(), opened))
}

/// Checks an IPv6 header (RFC 8200 section 3). A packet with extension headers other than a fragment header is of
/// a "protocol" that is neither TCP nor ICMP.
fn open_v6(bytes: &[u8], source_mac: Mac) -> Result<(IpProtocol, Packet<'_>), Discard> {
    let packet = Ipv6Packet::new_checked(bytes).map_err(|_| Discard::Truncated)?;
    if packet.version() != 6 {
        return Err(Discard::IpHeader);
    }
    let opened = Packet {
        source_mac,
        source: IpAddr::V6(packet.src_addr()),
        destination: IpAddr::V6(packet.dst_addr()),
        hop_limit: packet.hop_limit(),
        congestion_experienced: packet.traffic_class() & ECN_MASK == ECN_CONGESTION,
        payload: packet.payload(),
    };
    Ok((packet.next_header(), opened))
}

/// All that surrounds a TCP segment on its way out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    pub(super) source_mac: Mac,
    pub(super) destination_mac: Mac,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) ecn_capable: bool,
    pub(super) checksum_offload: bool,
}

/// Bytes of Ethernet and IP header before a segment to `address`.
pub(super) fn overhead(address: IpAddr) -> usize {
    ETHERNET_BYTES + if address.is_ipv4() { IPV4_BYTES } else { IPV6_BYTES }
}

/// Length of the frame that carries `header` and `payload_length` bytes to `address`.
pub(super) fn length(address: IpAddr, header: &Header, payload_length: usize) -> usize {
    overhead(address) + wire::header_length(header) + payload_length
}

/// Writes the frame at the start of `buffer` and returns its length.
pub(super) fn emit(buffer: &mut [u8], envelope: &Envelope, header: &Header, payload: [&[u8]; 2]) -> usize {
    let (source, destination) = (envelope.local.ip(), envelope.remote.ip());
    let emission = Emission {
        ports: Ports { source: envelope.local.port(), destination: envelope.remote.port() },
        source,
        destination,
        checksum_offload: envelope.checksum_offload,
    };
    let overhead = overhead(destination);
    let segment_bytes = wire::emit(&mut buffer[overhead..], &emission, header, payload);
    emit_ip(&mut buffer[ETHERNET_BYTES..], envelope, segment_bytes);
    let ethertype = if destination.is_ipv4() { EthernetProtocol::Ipv4 } else { EthernetProtocol::Ipv6 };
    emit_ethernet(buffer, envelope.source_mac, envelope.destination_mac, ethertype);
    overhead + segment_bytes
}

/// Writes an Ethernet header at the start of `buffer`.
pub(super) fn emit_ethernet(buffer: &mut [u8], source: Mac, destination: Mac, ethertype: EthernetProtocol) {
    let mut frame = EthernetFrame::new_unchecked(buffer);
    frame.set_src_addr(EthernetAddress(source));
    frame.set_dst_addr(EthernetAddress(destination));
    frame.set_ethertype(ethertype);
}

fn emit_ip(buffer: &mut [u8], envelope: &Envelope, segment_bytes: usize) {
    let ecn = if envelope.ecn_capable { ECN_CAPABLE } else { 0 };
    match (envelope.local.ip(), envelope.remote.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut packet = Ipv4Packet::new_unchecked(buffer);
            packet.set_version(4);
            packet.set_header_len(IPV4_BYTES as u8);
            packet.set_dscp(0);
            packet.set_ecn(ecn);
            packet.set_total_len((IPV4_BYTES + segment_bytes) as u16);
            // Never fragmented, so the identification may be anything (RFC 6864 section 4.1).
            packet.set_ident(0);
            packet.clear_flags();
            packet.set_frag_offset(0);
            packet.set_dont_frag(true);
            packet.set_hop_limit(HOP_LIMIT);
            packet.set_next_header(IpProtocol::Tcp);
            packet.set_src_addr(source);
            packet.set_dst_addr(destination);
            packet.fill_checksum();
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut packet = Ipv6Packet::new_unchecked(buffer);
            packet.set_version(6);
            packet.set_traffic_class(ecn);
            packet.set_flow_label(0);
            packet.set_payload_len(segment_bytes as u16);
            packet.set_next_header(IpProtocol::Tcp);
            packet.set_hop_limit(HOP_LIMIT);
            packet.set_src_addr(source);
            packet.set_dst_addr(destination);
        }
        _ => unreachable!("both addresses of a connection are of one family"),
    }
}
