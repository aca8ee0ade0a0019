//! Between Ethernet frames and IP payloads: sorting what comes in, writing headers for what goes out.

use std::net::{IpAddr, SocketAddr};

use outrider_drivers::checksum;
use smoltcp::wire::{EthernetAddress, EthernetProtocol, IpProtocol, Ipv6Packet};

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
/// RFC 791 section 3.1: flags and fragment offset share a field.
const DONT_FRAGMENT: u16 = 1 << 14;
const MORE_FRAGMENTS: u16 = 1 << 13;
const FRAGMENT_OFFSET: u16 = (1 << 13) - 1;

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
    /// The frame had our Ethernet address, not that of a group.
    pub(super) to_us: bool,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hop_limit: u8,
    pub(super) congestion_experienced: bool,
    pub(super) payload: &'a [u8],
}

/// What an IP packet is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Received<'a> {
    Tcp(Packet<'a>),
    Icmpv4(Packet<'a>),
    Icmpv6(Packet<'a>),
}

/// What an Ethernet frame carries, before anybody has asked whether its addresses make sense.
#[derive(Clone, Copy, Debug)]
pub(super) enum Opened<'a> {
    Arp(&'a [u8]),
    Ip(IpProtocol, Packet<'a>),
}

/// Takes apart a frame that came in on the port with address `mac`.
pub(super) fn open(bytes: &[u8], mac: Mac) -> Result<Opened<'_>, Discard> {
    let (header, payload) = bytes.split_first_chunk::<ETHERNET_BYTES>().ok_or(Discard::Truncated)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
    let destination = [d0, d1, d2, d3, d4, d5];
    let to_us = destination == mac;
    if !to_us && EthernetAddress(destination).is_unicast() {
        return Err(Discard::NotOurs);
    }
    let source_mac = [s0, s1, s2, s3, s4, s5];
    let (protocol, packet) = match EthernetProtocol::from(u16::from_be_bytes([t0, t1])) {
        EthernetProtocol::Arp => return Ok(Opened::Arp(payload)),
        EthernetProtocol::Ipv4 => open_v4(payload, source_mac, to_us)?,
        EthernetProtocol::Ipv6 => open_v6(payload, source_mac, to_us)?,
        EthernetProtocol::Unknown(_) => return Err(Discard::Ethertype),
    };
    Ok(Opened::Ip(protocol, packet))
}

/// Sorts a packet by its addresses and its protocol.
pub(super) fn admit<'a>(
    protocol: IpProtocol,
    packet: Packet<'a>,
    routes: &Routes,
) -> Result<Received<'a>, Discard> {
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
        IpProtocol::Tcp if packet.to_us => Ok(Received::Tcp(packet)),
        IpProtocol::Tcp => Err(Discard::NotOurs),
        IpProtocol::Icmp if packet.source.is_ipv4() => Ok(Received::Icmpv4(packet)),
        IpProtocol::Ipv6Frag => Err(Discard::Fragment),
        _ => Err(Discard::Protocol),
    }
}

/// Checks an IPv4 header (RFC 1122 section 3.2.1) and skips its options.
fn open_v4(bytes: &[u8], source_mac: Mac, to_us: bool) -> Result<(IpProtocol, Packet<'_>), Discard> {
    let (base, _) = bytes.split_first_chunk::<IPV4_BYTES>().ok_or(Discard::Truncated)?;
    let header_bytes = usize::from(base[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16::from_be_bytes([base[2], base[3]]));
    if header_bytes < IPV4_BYTES || header_bytes > total_bytes || total_bytes > bytes.len() {
        return Err(Discard::Truncated);
    }
    if base[0] >> 4 != 4 {
        return Err(Discard::IpHeader);
    }
    let (header, payload) = bytes[..total_bytes].split_at(header_bytes);
    // A correct header, its checksum included, sums to minus zero (RFC 1071 section 1).
    if checksum::sum(header) != 0xffff {
        return Err(Discard::IpChecksum);
    }
    if u16::from_be_bytes([base[6], base[7]]) & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0 {
        return Err(Discard::Fragment);
    }
    let opened = Packet {
        source_mac,
        to_us,
        source: IpAddr::from([base[12], base[13], base[14], base[15]]),
        destination: IpAddr::from([base[16], base[17], base[18], base[19]]),
        hop_limit: base[8],
        congestion_experienced: base[1] & ECN_MASK == ECN_CONGESTION,
        payload,
    };
    Ok((IpProtocol::from(base[9]), opened))
}

/// Checks an IPv6 header (RFC 8200 section 3). A packet with extension headers other than a fragment header is of
/// a "protocol" that is neither TCP nor ICMP.
fn open_v6(bytes: &[u8], source_mac: Mac, to_us: bool) -> Result<(IpProtocol, Packet<'_>), Discard> {
    let packet = Ipv6Packet::new_checked(bytes).map_err(|_| Discard::Truncated)?;
    if packet.version() != 6 {
        return Err(Discard::IpHeader);
    }
    let opened = Packet {
        source_mac,
        to_us,
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
    let header = buffer.first_chunk_mut::<ETHERNET_BYTES>().expect("a frame has room for its header");
    header[..6].copy_from_slice(&destination);
    header[6..12].copy_from_slice(&source);
    header[12..].copy_from_slice(&u16::from(ethertype).to_be_bytes());
}

fn emit_ip(buffer: &mut [u8], envelope: &Envelope, segment_bytes: usize) {
    let ecn = if envelope.ecn_capable { ECN_CAPABLE } else { 0 };
    match (envelope.local.ip(), envelope.remote.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = buffer.first_chunk_mut::<IPV4_BYTES>().expect("a frame has room for its header");
            let total_bytes = (IPV4_BYTES + segment_bytes) as u16;
            header[0] = 0x45;
            header[1] = ecn;
            header[2..4].copy_from_slice(&total_bytes.to_be_bytes());
            // Never fragmented, so the identification may be anything (RFC 6864 section 4.1).
            header[4..6].fill(0);
            header[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
            header[8] = HOP_LIMIT;
            header[9] = IpProtocol::Tcp.into();
            header[10..12].fill(0);
            header[12..16].copy_from_slice(&source.octets());
            header[16..].copy_from_slice(&destination.octets());
            let sum = !checksum::sum(header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
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
