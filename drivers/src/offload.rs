//! What a device with offloads does to a frame, done by the processor: for links in memory, for captures, and for
//! whoever passes on a frame that reached no device.

use crate::checksum;

const ETHERNET_HEADER_BYTES: usize = 14;
/// IEEE 802.1Q tags that a frame may have before its packet.
const VLAN_TAGS_MAX: usize = 2;
const VLAN_TAG_BYTES: usize = 4;
const IPV4_HEADER_BYTES_MIN: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
const TCP_HEADER_BYTES_MIN: usize = 20;
const UDP_HEADER_BYTES: usize = 8;

const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// Flags in byte 13 of a TCP header (RFC 9293 section 3.1, RFC 3168).
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Where the headers of a TCP or UDP frame are, all in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Headers {
    network: usize,
    pub(crate) transport: usize,
    /// Where the headers end.
    pub(crate) payload: usize,
    /// Where the packet ends; a short frame may be padded behind it.
    end: usize,
    pub(crate) is_ipv6: bool,
    pub(crate) is_tcp: bool,
}

impl Headers {
    /// Looks for them. `None`: not a whole TCP or UDP packet, or one behind IPv6 extension headers.
    pub(crate) fn locate(frame: &[u8]) -> Option<Headers> {
        let mut network = ETHERNET_HEADER_BYTES;
        let mut ethertype = pair(frame, network - 2)?;
        for _ in 0..VLAN_TAGS_MAX {
            if !matches!(ethertype, 0x8100 | 0x88a8) {
                break;
            }
            network += VLAN_TAG_BYTES;
            ethertype = pair(frame, network - 2)?;
        }
        let (is_ipv6, transport, length, protocol) = match ethertype {
            0x0800 => {
                let header = frame.get(network..network + IPV4_HEADER_BYTES_MIN)?;
                let header_bytes = usize::from(header[0] & 0xf) * 4;
                // No part of a packet: its transport header is not that of the part (RFC 791 section 3.2).
                let whole = u16::from_be_bytes([header[6], header[7]]) & 0x3fff == 0;
                if header[0] >> 4 != 4 || header_bytes < IPV4_HEADER_BYTES_MIN || !whole {
                    return None;
                }
                (false, network + header_bytes, usize::from(pair(header, 2)?), header[9])
            }
            0x86dd => {
                let header = frame.get(network..network + IPV6_HEADER_BYTES)?;
                if header[0] >> 4 != 6 {
                    return None;
                }
                let length = IPV6_HEADER_BYTES + usize::from(pair(header, 4)?);
                (true, network + IPV6_HEADER_BYTES, length, header[6])
            }
            _ => return None,
        };
        let end = network + length;
        let packet = frame.get(..end)?;
        let header_bytes = match protocol {
            PROTOCOL_TCP => usize::from(packet.get(transport + 12)? >> 4) * 4,
            PROTOCOL_UDP => UDP_HEADER_BYTES,
            _ => return None,
        };
        let is_tcp = protocol == PROTOCOL_TCP;
        let payload = transport + header_bytes;
        let long_enough = !is_tcp || header_bytes >= TCP_HEADER_BYTES_MIN;
        (long_enough && payload <= end).then_some(Headers {
            network,
            transport,
            payload,
            end,
            is_ipv6,
            is_tcp,
        })
    }

    /// Where the checksum is in the transport header, bytes from its start.
    pub(crate) fn checksum_offset(&self) -> usize {
        if self.is_tcp { 16 } else { 6 }
    }

    /// Bytes of payload.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.end - self.payload
    }

    /// Whether the transport header says that the sender has reduced its congestion window (RFC 3168 section 6.1.2).
    pub(crate) fn says_cwr(&self, frame: &[u8]) -> bool {
        self.is_tcp && frame[self.transport + 13] & CWR != 0
    }

    /// The sum over the addresses, protocol and length of the packet (RFC 9293 section 3.1, RFC 8200 section 8.1).
    fn pseudo_header_sum(&self, frame: &[u8], segment_bytes: usize) -> u16 {
        let addresses = if self.is_ipv6 { 8..40 } else { 12..20 };
        let addresses = &frame[self.network + addresses.start..self.network + addresses.end];
        let protocol = if self.is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
        let length = segment_bytes as u64;
        let rest = (length >> 16) + (length & 0xffff) + u64::from(protocol);
        checksum::fold(u64::from(checksum::sum(addresses)) + rest)
    }
}

fn pair(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Writes the checksum of a TCP or UDP frame whose field holds the sum over the pseudo-header. Returns whether it is
/// such a frame; another is left as it is.
pub fn complete_checksum(frame: &mut [u8]) -> bool {
    let Some(headers) = Headers::locate(frame) else { return false };
    let at = headers.transport + headers.checksum_offset();
    let sum = !checksum::sum(&frame[headers.transport..headers.end]);
    // Zero says that there is none (RFC 768); the other zero is as good.
    let sum = if sum == 0 && !headers.is_tcp { 0xffff } else { sum };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// A TCP super-segment, to be cut into frames as a device cuts it.
///
/// Each frame gets the headers of the whole: lengths, sequence number, IPv4 identification (counting up) and checksums
/// are its own, FIN and PSH go with the last, CWR with the first.
#[derive(Clone, Copy, Debug)]
pub struct SuperSegment<'a> {
    frame: &'a [u8],
    headers: Headers,
    segment_size: usize,
}

impl<'a> SuperSegment<'a> {
    /// Of `frame`, with `segment_size` bytes of payload to each but the last. `None`: it is no whole TCP packet, or
    /// the size is zero.
    pub fn new(frame: &'a [u8], segment_size: u16) -> Option<Self> {
        let headers = Headers::locate(frame).filter(|headers| headers.is_tcp && segment_size > 0)?;
        Some(SuperSegment { frame, headers, segment_size: usize::from(segment_size) })
    }

    /// How many frames it makes: at least one.
    pub fn frames(&self) -> usize {
        self.headers.payload_bytes().div_ceil(self.segment_size).max(1)
    }

    /// Bytes of the longest of them.
    pub fn frame_bytes_max(&self) -> usize {
        self.headers.payload + self.headers.payload_bytes().min(self.segment_size)
    }

    /// Writes frame number `index` at the start of `buffer` and returns its length.
    ///
    /// # Panics
    /// If there is no such frame, or the buffer is shorter than it: bugs of the caller.
    pub fn write(&self, index: usize, buffer: &mut [u8]) -> usize {
        assert!(index < self.frames(), "frame {index} of {}", self.frames());
        let Headers { network, transport, payload, end, is_ipv6, .. } = self.headers;
        let from = index * self.segment_size;
        let bytes = &self.frame[payload + from..end.min(payload + from + self.segment_size)];
        let length = payload + bytes.len();
        let is_last = payload + from + bytes.len() == end;
        let buffer = &mut buffer[..length];
        buffer[..payload].copy_from_slice(&self.frame[..payload]);
        buffer[payload..].copy_from_slice(bytes);

        let packet_bytes = length - network;
        let ip = &mut buffer[network..transport];
        if is_ipv6 {
            ip[4..6].copy_from_slice(&((packet_bytes - IPV6_HEADER_BYTES) as u16).to_be_bytes());
        } else {
            ip[2..4].copy_from_slice(&(packet_bytes as u16).to_be_bytes());
            let identification = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(index as u16);
            ip[4..6].copy_from_slice(&identification.to_be_bytes());
            ip[10..12].fill(0);
            let sum = !checksum::sum(ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let pseudo_header = self.headers.pseudo_header_sum(buffer, length - transport);
        let tcp = &mut buffer[transport..];
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(from as u32);
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        if !is_last {
            tcp[13] &= !(FIN | PSH);
        }
        if index > 0 {
            tcp[13] &= !CWR;
        }
        let at = self.headers.checksum_offset();
        tcp[at..at + 2].copy_from_slice(&pseudo_header.to_be_bytes());
        let sum = !checksum::sum(tcp);
        tcp[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        length
    }
}

#[cfg(test)]
#[path = "offload_tests.rs"]
pub(crate) mod tests;
