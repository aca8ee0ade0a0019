//! ICMP errors: which segment of which connection one is about, and what it says (RFC 792, RFC 4443).

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet,
};

use super::MTU_MIN_V6;
use super::frame::Packet;
use super::key::FlowKey;
use crate::tcp::sequence::SeqNumber;

/// "Fragmentation needed and DF set" (RFC 792).
const FRAGMENTATION_NEEDED: u8 = 4;
/// Where RFC 1191 section 4 puts the MTU of the next hop; zero from a router that does not know it.
const NEXT_HOP_MTU: usize = 6;
/// Sizes that links are likely to have, for routers that name none (RFC 1191 section 7.1, table 7-1).
const PLATEAUS: [u16; 10] = [32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 508, 296, 68];

/// What an ICMP packet is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Icmp {
    /// An error about a TCP segment that we may have sent.
    Error(Report),
    /// An error about something else.
    Foreign,
    /// No error: for the slow path.
    Query,
}

/// An error about a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) key: FlowKey,
    /// Sequence number of the segment.
    pub(super) sequence: SeqNumber,
    pub(super) trouble: Trouble,
}

/// What is wrong with the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It carries IP packets of this many bytes at most.
    PathMtu(u32),
    /// It does not lead to the peer.
    Unreachable,
    /// Something that a host can do nothing about (time exceeded, parameter problem).
    Other,
}

/// Reads an ICMPv4 packet.
pub(super) fn read_v4(bytes: &[u8]) -> Icmp {
    let Ok(packet) = Icmpv4Packet::new_checked(bytes) else { return Icmp::Query };
    let unreachable = match packet.msg_type() {
        Icmpv4Message::DstUnreachable => true,
        Icmpv4Message::TimeExceeded | Icmpv4Message::ParamProblem => false,
        _ => return Icmp::Query,
    };
    if !packet.verify_checksum() {
        return Icmp::Foreign;
    }
    // The quoted packet may be cut after 8 bytes of its payload, so its length field is not checked.
    let quoted = packet.data();
    if quoted.len() < 20 {
        return Icmp::Foreign;
    }
    let header = Ipv4Packet::new_unchecked(quoted);
    if header.version() != 4 || header.next_header() != IpProtocol::Tcp || header.frag_offset() != 0 {
        return Icmp::Foreign;
    }
    let trouble = match packet.msg_code() {
        _ if !unreachable => Trouble::Other,
        FRAGMENTATION_NEEDED => {
            let named = u16::from_be_bytes([bytes[NEXT_HOP_MTU], bytes[NEXT_HOP_MTU + 1]]);
            let mtu = if named == 0 { plateau_below(header.total_len()) } else { named };
            Trouble::PathMtu(u32::from(mtu))
        }
        _ => Trouble::Unreachable,
    };
    let rest = quoted.get(usize::from(header.header_len())..).unwrap_or_default();
    about(IpAddr::V4(header.src_addr()), IpAddr::V4(header.dst_addr()), rest, trouble)
}

/// The largest size in the table that is below the length of the packet that was too long.
fn plateau_below(length: u16) -> u16 {
    PLATEAUS.into_iter().find(|plateau| *plateau < length).unwrap_or(PLATEAUS[PLATEAUS.len() - 1])
}

/// Reads an ICMPv6 packet.
pub(super) fn read_v6(packet: &Packet<'_>) -> Icmp {
    let Ok(icmp) = Icmpv6Packet::new_checked(packet.payload) else { return Icmp::Query };
    let trouble = match icmp.msg_type() {
        Icmpv6Message::DstUnreachable => Trouble::Unreachable,
        // RFC 8201 section 4: an MTU below what every IPv6 link carries says nothing.
        Icmpv6Message::PktTooBig if icmp.pkt_too_big_mtu() < MTU_MIN_V6 as u32 => Trouble::Other,
        Icmpv6Message::PktTooBig => Trouble::PathMtu(icmp.pkt_too_big_mtu()),
        Icmpv6Message::TimeExceeded | Icmpv6Message::ParamProblem => Trouble::Other,
        _ => return Icmp::Query,
    };
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination) else {
        return Icmp::Foreign;
    };
    let quoted = icmp.payload();
    if !icmp.verify_checksum(&source, &destination) || quoted.len() < 40 {
        return Icmp::Foreign;
    }
    let header = Ipv6Packet::new_unchecked(quoted);
    if header.version() != 6 || header.next_header() != IpProtocol::Tcp {
        return Icmp::Foreign;
    }
    about(IpAddr::V6(header.src_addr()), IpAddr::V6(header.dst_addr()), &quoted[40..], trouble)
}

/// The 8 bytes of the TCP header that every error quotes: ports and sequence number.
fn about(local: IpAddr, remote: IpAddr, tcp: &[u8], trouble: Trouble) -> Icmp {
    let Some(&[a, b, c, d, sequence @ ..]) = tcp.first_chunk::<8>() else { return Icmp::Foreign };
    let local = SocketAddr::new(local, u16::from_be_bytes([a, b]));
    let remote = SocketAddr::new(remote, u16::from_be_bytes([c, d]));
    let sequence = SeqNumber(u32::from_be_bytes(sequence));
    Icmp::Error(Report { key: FlowKey::new(local, remote), sequence, trouble })
}

#[cfg(test)]
mod tests {
    use super::plateau_below;

    #[test]
    fn a_router_that_names_no_mtu_means_the_next_smaller_plateau() {
        for (length, mtu) in [(65_535, 32_000), (1_500, 1_492), (1_492, 1_006), (69, 68), (68, 68), (0, 68)] {
            assert_eq!(plateau_below(length), mtu, "{length}");
        }
    }
}
