//! Address resolution frames: what we ask and what we hear. (What we answer is the slow path's.)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetProtocol, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, Ipv6Packet, Ipv6Repr, NdiscRepr,
};

use super::frame::{ETHERNET_BYTES, Mac, Packet, emit_ethernet};

const BROADCAST: Mac = [0xff; 6];
/// RFC 4861 section 7.1: what has a smaller hop limit came through a router and is not from the link.
const NDP_HOP_LIMIT: u8 = 255;
const IPV6_BYTES: usize = 40;

/// What an address resolution packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Somebody asks for `target` and tells his own address.
    Request { address: IpAddr, mac: Mac, target: IpAddr },
    /// The owner of `address` answers.
    Answer { address: IpAddr, mac: Mac },
}

/// Reads an ARP packet; `None` if it is unusable.
pub(super) fn read_arp(bytes: &[u8]) -> Option<Heard> {
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: mac,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&ArpPacket::new_checked(bytes).ok()?).ok()?
    else {
        return None;
    };
    let (address, target) = (IpAddr::V4(source_protocol_addr), IpAddr::V4(target_protocol_addr));
    match operation {
        _ if !mac.is_unicast() => None,
        ArpOperation::Request => Some(Heard::Request { address, mac: mac.0, target }),
        ArpOperation::Reply => Some(Heard::Answer { address, mac: mac.0 }),
        ArpOperation::Unknown(_) => None,
    }
}

/// Reads a neighbour solicitation or advertisement; `None` for every other ICMPv6 message and for unusable ones.
pub(super) fn read_ndp(packet: &Packet<'_>) -> Option<Heard> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (packet.source, packet.destination) else {
        return None;
    };
    if packet.hop_limit != NDP_HOP_LIMIT {
        return None;
    }
    let icmp = Icmpv6Packet::new_checked(packet.payload).ok()?;
    let Icmpv6Repr::Ndisc(message) =
        Icmpv6Repr::parse(&source, &destination, &icmp, &ChecksumCapabilities::default()).ok()?
    else {
        return None;
    };
    let unicast = |bytes: &[u8]| Mac::try_from(bytes).ok().filter(|mac| EthernetAddress(*mac).is_unicast());
    match message {
        NdiscRepr::NeighborSolicit { target_addr, lladdr } => Some(Heard::Request {
            address: packet.source,
            mac: unicast(lladdr?.as_bytes())?,
            target: IpAddr::V6(target_addr),
        }),
        NdiscRepr::NeighborAdvert { target_addr, lladdr, .. } => {
            Some(Heard::Answer { address: IpAddr::V6(target_addr), mac: unicast(lladdr?.as_bytes())? })
        }
        _ => None,
    }
}

/// The frame that asks for `target`: an ARP request, or a neighbour solicitation. Always to the group, also for a
/// neighbour that is only asked again: it may have another Ethernet address by now.
pub(super) fn request(mac: Mac, source: IpAddr, target: IpAddr) -> Option<Vec<u8>> {
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => Some(arp_request(mac, source, target)),
        (IpAddr::V6(source), IpAddr::V6(target)) => Some(solicitation(mac, source, target)),
        _ => None,
    }
}

fn arp_request(mac: Mac, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let message = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(mac),
        source_protocol_addr: source,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let mut frame = vec![0; ETHERNET_BYTES + message.buffer_len()];
    emit_ethernet(&mut frame, mac, BROADCAST, EthernetProtocol::Arp);
    message.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET_BYTES..]));
    frame
}

/// RFC 4861 section 7.2.2: to the solicited-node multicast address (RFC 4291 section 2.7.1).
fn solicitation(mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let message =
        NdiscRepr::NeighborSolicit { target_addr: target, lladdr: Some(EthernetAddress(mac).into()) };
    let message = Icmpv6Repr::Ndisc(message);
    let header = Ipv6Repr {
        src_addr: source,
        dst_addr: group,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.buffer_len(),
        hop_limit: NDP_HOP_LIMIT,
    };
    let mut frame = vec![0; ETHERNET_BYTES + IPV6_BYTES + message.buffer_len()];
    emit_ethernet(&mut frame, mac, [0x33, 0x33, 0xff, a, b, c], EthernetProtocol::Ipv6);
    header.emit(&mut Ipv6Packet::new_unchecked(&mut frame[ETHERNET_BYTES..]));
    let mut packet = Icmpv6Packet::new_unchecked(&mut frame[ETHERNET_BYTES + IPV6_BYTES..]);
    message.emit(&source, &group, &mut packet, &ChecksumCapabilities::default());
    frame
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{Heard, read_arp, read_ndp, request};
    use crate::net::config::StackConfig;
    use crate::net::frame::{Opened, Received, admit, open};
    use crate::net::routes::Routes;

    const ASKER: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const TARGET: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// What a host with the addresses of the target reads in `frame`.
    fn hear(frame: &[u8], mac: [u8; 6], address: &str) -> Option<Heard> {
        let routes = Routes::new(&StackConfig::new([(ip(address), 24)])).unwrap();
        let (protocol, packet) = match open(frame, mac).unwrap() {
            Opened::Arp(bytes) => return read_arp(bytes),
            Opened::Ip(protocol, packet) => (protocol, packet),
        };
        match admit(protocol, packet, &routes).unwrap() {
            Received::Icmpv6(packet) => read_ndp(&packet),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_are_read_as_they_were_meant() {
        for (asker, target) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::ab:cdef")] {
            let frame = request(ASKER, ip(asker), ip(target)).unwrap();
            let heard = hear(&frame, TARGET, target);
            assert_eq!(heard, Some(Heard::Request { address: ip(asker), mac: ASKER, target: ip(target) }));
        }
        assert_eq!(request(ASKER, ip("10.0.0.1"), ip("fd00::1")), None);
    }

    #[test]
    fn what_came_through_a_router_is_not_believed() {
        let mut frame = request(ASKER, ip("fd00::1"), ip("fd00::2")).unwrap();
        assert!(hear(&frame, TARGET, "fd00::2").is_some());
        frame[14 + 7] = 254;
        assert_eq!(hear(&frame, TARGET, "fd00::2"), None);
    }
}
