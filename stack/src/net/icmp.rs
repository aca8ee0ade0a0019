//! ICMP errors: which connection one is about (RFC 792, RFC 4443). The errors are counted; nothing acts on them.

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet,
};

use super::key::FlowKey;

/// What an ICMP packet is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Icmp {
    /// An error about a TCP segment that we may have sent.
    Error(FlowKey),
    /// An error about something else.
    Foreign,
    /// No error: for the slow path.
    Query,
}

/// Reads an ICMPv4 packet.
pub(super) fn read_v4(bytes: &[u8]) -> Icmp {
    let Ok(packet) = Icmpv4Packet::new_checked(bytes) else { return Icmp::Query };
    match packet.msg_type() {
        Icmpv4Message::DstUnreachable | Icmpv4Message::TimeExceeded | Icmpv4Message::ParamProblem => {}
        _ => return Icmp::Query,
    }
    if !packet.verify_checksum() {
        return Icmp::Foreign;
    }
    // The quoted packet may be cut after 8 bytes of its payload, so its length field is not checked.
    let quoted = packet.data();
    if quoted.len() < 20 {
        return Icmp::Foreign;
    }
    let header = Ipv4Packet::new_unchecked(quoted);
    if header.version() != 4 || header.next_header() != IpProtocol::Tcp {
        return Icmp::Foreign;
    }
    let rest = quoted.get(usize::from(header.header_len())..).unwrap_or_default();
    about(IpAddr::V4(header.src_addr()), IpAddr::V4(header.dst_addr()), rest)
}

/// Reads an ICMPv6 packet (its checksum is not verified: it is only counted).
pub(super) fn read_v6(bytes: &[u8]) -> Icmp {
    let Ok(packet) = Icmpv6Packet::new_checked(bytes) else { return Icmp::Query };
    match packet.msg_type() {
        Icmpv6Message::DstUnreachable
        | Icmpv6Message::PktTooBig
        | Icmpv6Message::TimeExceeded
        | Icmpv6Message::ParamProblem => {}
        _ => return Icmp::Query,
    }
    let quoted = packet.payload();
    if quoted.len() < 40 {
        return Icmp::Foreign;
    }
    let header = Ipv6Packet::new_unchecked(quoted);
    if header.version() != 6 || header.next_header() != IpProtocol::Tcp {
        return Icmp::Foreign;
    }
    about(IpAddr::V6(header.src_addr()), IpAddr::V6(header.dst_addr()), &quoted[40..])
}

fn about(local: IpAddr, remote: IpAddr, tcp: &[u8]) -> Icmp {
    let Some(&[a, b, c, d]) = tcp.first_chunk::<4>() else { return Icmp::Foreign };
    let local = SocketAddr::new(local, u16::from_be_bytes([a, b]));
    let remote = SocketAddr::new(remote, u16::from_be_bytes([c, d]));
    Icmp::Error(FlowKey::new(local, remote))
}
