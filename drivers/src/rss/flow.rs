//! What a NIC reads in a frame before it chooses a queue.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_TCP: u8 = 6;
/// "More fragments" and the offset (RFC 791 section 3.1).
const FRAGMENT_BITS: u16 = 0x3fff;

/// The addresses that are hashed. Only a look: nothing is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameFlow {
    /// A whole TCP segment.
    Tcp {
        /// Sender.
        source: SocketAddr,
        /// Receiver.
        destination: SocketAddr,
    },
    /// Another IP packet, or a fragment.
    Ip {
        /// Sender.
        source: IpAddr,
        /// Receiver.
        destination: IpAddr,
    },
}

impl FrameFlow {
    /// Reads it; `None` for what is not IP, or too short.
    pub fn read(frame: &[u8]) -> Option<FrameFlow> {
        let packet = frame.get(ETHERNET_BYTES..)?;
        let (source, destination, segment) = match u16::from_be_bytes([frame[12], frame[13]]) {
            ETHERTYPE_IPV4 => {
                let header: &[u8; IPV4_BYTES] = packet.first_chunk()?;
                let source: [u8; 4] = *header[12..].first_chunk()?;
                let destination: [u8; 4] = *header[16..].first_chunk()?;
                let whole = u16::from_be_bytes([header[6], header[7]]) & FRAGMENT_BITS == 0;
                let header_bytes = usize::from(header[0] & 0x0f) * 4;
                let segment =
                    (whole && header[9] == PROTOCOL_TCP).then(|| packet.get(header_bytes..)).flatten();
                (Ipv4Addr::from(source).into(), Ipv4Addr::from(destination).into(), segment)
            }
            ETHERTYPE_IPV6 => {
                let header: &[u8; IPV6_BYTES] = packet.first_chunk()?;
                let source: [u8; 16] = *header[8..].first_chunk()?;
                let destination: [u8; 16] = *header[24..].first_chunk()?;
                let segment = (header[6] == PROTOCOL_TCP).then(|| packet.get(IPV6_BYTES..)).flatten();
                (Ipv6Addr::from(source).into(), Ipv6Addr::from(destination).into(), segment)
            }
            _ => return None,
        };
        let ports = segment.and_then(|segment| segment.first_chunk::<4>());
        Some(match ports {
            Some(&[a, b, c, d]) => FrameFlow::Tcp {
                source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
                destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
            },
            None => FrameFlow::Ip { source, destination },
        })
    }
}
