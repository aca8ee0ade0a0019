//! As much of a frame as the wire must understand.

const ETHERNET_HEADER_BYTES: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const PROTOCOL_TCP: u8 = 6;

/// A TCP segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) sequence: u32,
    pub(super) syn: bool,
    pub(super) rst: bool,
    pub(super) payload: &'a [u8],
}

pub(super) enum Frame<'a> {
    Arp,
    Tcp(Segment<'a>),
    Other,
}

/// Reads a frame that a host has made, so what is short is none of ours.
pub(super) fn parse(frame: &[u8]) -> Frame<'_> {
    let Some((ethernet, packet)) = frame.split_at_checked(ETHERNET_HEADER_BYTES) else { return Frame::Other };
    match [ethernet[12], ethernet[13]] {
        ETHERTYPE_ARP => Frame::Arp,
        ETHERTYPE_IPV4 => segment(packet).map_or(Frame::Other, Frame::Tcp),
        _ => Frame::Other,
    }
}

fn segment(packet: &[u8]) -> Option<Segment<'_>> {
    let first = *packet.first()?;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    if *packet.get(9)? != PROTOCOL_TCP {
        return None;
    }
    let tcp = packet.get(usize::from(first & 0x0F) * 4..total)?;
    let sequence = u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?);
    let (offset, flags) = (usize::from(*tcp.get(12)? >> 4) * 4, *tcp.get(13)?);
    Some(Segment { sequence, syn: flags & 0x02 != 0, rst: flags & 0x04 != 0, payload: tcp.get(offset..)? })
}
