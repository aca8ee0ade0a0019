//! Between Ethernet frames and IP payloads: sorting what comes in, writing headers for what goes out.

use std::net::{IpAddr, SocketAddr};

use outrider_drivers::checksum;
use smoltcp::wire::{EthernetAddress, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet};

use super::key::FlowKey;
use super::routes::{Routes, is_host};
use crate::tcp::connection::Payload;
use crate::tcp::segment::Header;
use crate::tcp::wire::{self, Ports};

/// Ethernet header, bytes.
pub(super) const ETHERNET_BYTES: usize = 14;
pub(super) const IPV4_BYTES: usize = 20;
pub(super) const IPV6_BYTES: usize = 40;
/// RFC 1700's recommended default, as every host uses it.
const HOP_LIMIT: u8 = 64;
/// RFC 3168 section 5.
const ECN_CAPABLE: u8 = 0b10;
const ECN_CONGESTION: u8 = 0b11;
const ECN_MASK: u8 = 0b11;
/// RFC 791 section 3.1: flags and fragment offset share a field.
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

/// The 4-tuple of a frame, if it is as most are: an IPv4 packet without options that holds a TCP segment. Nothing else
/// about it is looked at.
pub(super) fn peek_flow(bytes: &[u8]) -> Option<FlowKey> {
    let head = bytes.first_chunk::<{ ETHERNET_BYTES + IPV4_BYTES + 4 }>()?;
    if head[12..15] != [0x08, 0x00, 0x45] || head[23] != u8::from(IpProtocol::Tcp) {
        return None;
    }
    let address = |at: usize| IpAddr::from([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let port = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let remote = SocketAddr::new(address(26), port(34));
    Some(FlowKey::new(SocketAddr::new(address(30), port(36)), remote))
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

/// Bytes of Ethernet and IP header before a segment to `address`.
pub(super) fn overhead(address: IpAddr) -> usize {
    ETHERNET_BYTES + if address.is_ipv4() { IPV4_BYTES } else { IPV6_BYTES }
}

/// Longest [`overhead`].
pub(super) const OVERHEAD_MAX: usize = ETHERNET_BYTES + IPV6_BYTES;

/// What the headers of one 4-tuple sum to: all that is kept of its [`Template`], the rest is quickly written again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    /// Sum of an IPv4 header so far.
    ip: u16,
    /// Sum of the addresses and the protocol, for the checksum of TCP.
    addresses: u16,
}

/// All that surrounds the TCP segments of one 4-tuple on their way out. What differs from frame to frame is zero in it:
/// the Ethernet address of the next hop, length, ECN, and the checksums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Template {
    head: [u8; OVERHEAD_MAX],
    overhead: u8,
    ports: Ports,
    sums: Sums,
}

/// What [`Template::emit`] fills in besides the segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    pub(super) destination_mac: Mac,
    pub(super) ecn_capable: bool,
    pub(super) checksum_offload: bool,
}

impl Template {
    pub(super) fn new(source_mac: Mac, key: &FlowKey) -> Self {
        let mut template = Template::with(source_mac, key, Sums { ip: 0, addresses: 0 });
        let overhead = template.overhead();
        if overhead == ETHERNET_BYTES + IPV4_BYTES {
            template.sums.ip = checksum::sum(&template.head[ETHERNET_BYTES..overhead]);
        }
        template.sums.addresses = wire::pseudo_header_sum(key.local().ip(), key.remote().ip(), 0);
        template
    }

    /// The template whose sums are known.
    pub(super) fn with(source_mac: Mac, key: &FlowKey, sums: Sums) -> Self {
        let (local, remote) = (key.local(), key.remote());
        let mut head = [0; OVERHEAD_MAX];
        let ethertype = if remote.is_ipv4() { EthernetProtocol::Ipv4 } else { EthernetProtocol::Ipv6 };
        emit_ethernet(&mut head, source_mac, Mac::default(), ethertype);
        emit_ip(&mut head[ETHERNET_BYTES..], local.ip(), remote.ip());
        let ports = Ports { source: local.port(), destination: remote.port() };
        Template { overhead: overhead(remote.ip()) as u8, ports, sums, head }
    }

    pub(super) fn sums(&self) -> Sums {
        self.sums
    }

    /// Bytes before the TCP header.
    pub(super) fn overhead(&self) -> usize {
        usize::from(self.overhead)
    }

    /// Sum of the addresses and the protocol.
    pub(super) fn addresses_sum(&self) -> u16 {
        self.sums.addresses
    }

    /// Length of the frame that carries `header` and `payload_length` bytes.
    pub(super) fn length(&self, header: &Header, payload_length: usize) -> usize {
        usize::from(self.overhead) + wire::header_length(header) + payload_length
    }

    /// Writes the frame at the start of `buffer` and returns its length.
    pub(super) fn emit(
        &self,
        buffer: &mut [u8],
        envelope: &Envelope,
        header: &Header,
        payload: Payload<'_>,
    ) -> usize {
        let overhead = usize::from(self.overhead);
        let ecn = if envelope.ecn_capable { ECN_CAPABLE } else { 0 };
        // More than an IPv4 frame has there: the segment is written over the rest. The shortest frame is longer.
        let head = buffer.first_chunk_mut::<OVERHEAD_MAX>().expect("a frame has room for its headers");
        *head = self.head;
        head[..6].copy_from_slice(&envelope.destination_mac);
        let (segment_room, offload) = (&mut buffer[overhead..], envelope.checksum_offload);
        let (addresses, payload) = (self.sums.addresses, (payload.len(), payload));
        let segment_bytes = wire::emit_between(segment_room, self.ports, addresses, offload, header, payload);
        let head = buffer.first_chunk_mut::<OVERHEAD_MAX>().expect("it was there before");
        if overhead < OVERHEAD_MAX {
            let total_bytes = (IPV4_BYTES + segment_bytes) as u16;
            let sum = u64::from(self.sums.ip) + u64::from(total_bytes) + u64::from(ecn);
            head[15] = ecn;
            head[16..18].copy_from_slice(&total_bytes.to_be_bytes());
            head[24..26].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
        } else {
            // The traffic class begins in the first byte, behind the version (RFC 8200 section 3).
            head[15] = ecn << 4;
            head[18..20].copy_from_slice(&(segment_bytes as u16).to_be_bytes());
        }
        overhead + segment_bytes
    }
}

/// Writes an Ethernet header at the start of `buffer`.
pub(super) fn emit_ethernet(buffer: &mut [u8], source: Mac, destination: Mac, ethertype: EthernetProtocol) {
    let header = buffer.first_chunk_mut::<ETHERNET_BYTES>().expect("a frame has room for its header");
    header[..6].copy_from_slice(&destination);
    header[6..12].copy_from_slice(&source);
    header[12..].copy_from_slice(&u16::from(ethertype).to_be_bytes());
}

/// Writes an IP header without length, ECN and checksum.
fn emit_ip(buffer: &mut [u8], source: IpAddr, destination: IpAddr) {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut packet = Ipv4Packet::new_unchecked(buffer);
            packet.set_version(4);
            packet.set_header_len(IPV4_BYTES as u8);
            // Never fragmented, so the identification, zero here, may be anything (RFC 6864 section 4.1).
            packet.set_dont_frag(true);
            packet.set_hop_limit(HOP_LIMIT);
            packet.set_next_header(IpProtocol::Tcp);
            packet.set_src_addr(source);
            packet.set_dst_addr(destination);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut packet = Ipv6Packet::new_unchecked(buffer);
            packet.set_version(6);
            packet.set_next_header(IpProtocol::Tcp);
            packet.set_hop_limit(HOP_LIMIT);
            packet.set_src_addr(source);
            packet.set_dst_addr(destination);
        }
        _ => unreachable!("both addresses of a connection are of one family"),
    }
}
