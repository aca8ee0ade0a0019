//! Between [`Segment`]s and the bytes of a TCP header and payload (RFC 9293 section 3.1).
//!
//! Reading never panics and never allocates; what cannot be read is a [`SegmentError`]. The fixed part of the header is
//! read and written here as one array, because every field of a view checks its bounds again. Options are walked here,
//! because smoltcp keeps three SACK blocks of the four that fit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use outrider_drivers::checksum;
use outrider_drivers::port::ReceiveChecksum;
use smoltcp::wire::{IpProtocol, TcpOption};

use super::segment::{Flags, Header, Options, SackBlock, Segment, Timestamps};
use super::sequence::SeqNumber;

/// TCP header without options, bytes.
pub const BASE_HEADER_BYTES: usize = 20;
/// Options at most, bytes: the data offset has four bits.
pub const OPTIONS_BYTES_MAX: usize = 40;
/// Largest shift of the window scale option (RFC 7323 section 2.3: a greater one counts as 14).
const WINDOW_SCALE_MAX: u8 = 14;

/// Where the sequence number, the control bits and the checksum are in the header.
pub(crate) const SEQUENCE_AT: usize = 4;
pub(crate) const FLAGS_AT: usize = 13;
pub(crate) const CHECKSUM_AT: usize = 16;
/// Bytes of options where they are the timestamps, padded as everyone does, and where the value is in such a header.
pub(crate) const TIMESTAMPS_ONLY_BYTES: usize = 2 + TIMESTAMPS_BYTES;
pub(crate) const TIMESTAMP_AT: usize = BASE_HEADER_BYTES + 4;
/// What such options begin with.
pub(crate) const TIMESTAMPS_LAYOUT: [u8; 4] =
    [KIND_NO_OPERATION, KIND_NO_OPERATION, KIND_TIMESTAMPS, TIMESTAMPS_BYTES as u8];
/// Control bits (RFC 9293 section 3.1, RFC 3168 section 6.1).
pub(crate) const FIN: u8 = 1;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
pub(crate) const PSH: u8 = 1 << 3;
const ACK: u8 = 1 << 4;
const ECE: u8 = 1 << 6;
pub(crate) const CWR: u8 = 1 << 7;

const KIND_END: u8 = 0;
const KIND_NO_OPERATION: u8 = 1;
const KIND_SACK: u8 = 5;
const KIND_TIMESTAMPS: u8 = 8;
const TIMESTAMPS_BYTES: usize = 10;

/// Why bytes are not a TCP segment. All of these are the peer's or the network's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Shorter than the header says, or a header shorter than 20 bytes.
    #[error("the TCP header is cut short")]
    Truncated,
    /// The checksum over pseudo-header, header and payload is wrong.
    #[error("the TCP checksum is wrong")]
    Checksum,
    /// An option is longer than the room for it, or has a length that its kind does not allow.
    #[error("a TCP option has an impossible length")]
    Option,
    /// Port zero, which no connection can have (RFC 6335 section 6).
    #[error("the TCP port is zero")]
    PortZero,
    /// Source and destination address are of different families.
    #[error("the IP addresses are of different families")]
    Family,
}

/// The two ports of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The sender's.
    pub source: u16,
    /// The receiver's.
    pub destination: u16,
}

/// What [`parse`] needs to know from below TCP.
#[derive(Clone, Copy, Debug)]
pub struct Envelope {
    /// The sender's address.
    pub source: IpAddr,
    /// The receiver's address.
    pub destination: IpAddr,
    /// Whether the device vouches for the checksum.
    pub checksum: ReceiveChecksum,
    /// The IP header carried the Congestion Experienced mark.
    pub congestion_experienced: bool,
}

/// Reads one TCP segment: `bytes` is the whole payload of the IP packet.
///
/// # Errors
/// See [`SegmentError`]; such a segment is dropped and counted, never answered.
pub fn parse<'a>(bytes: &'a [u8], envelope: &Envelope) -> Result<(Ports, Segment<'a>), SegmentError> {
    let (base, _) = bytes.split_first_chunk::<BASE_HEADER_BYTES>().ok_or(SegmentError::Truncated)?;
    let header_bytes = usize::from(base[12] >> 4) * 4;
    if header_bytes < BASE_HEADER_BYTES || header_bytes > bytes.len() {
        return Err(SegmentError::Truncated);
    }
    let (head, payload) = bytes.split_at(header_bytes);
    if envelope.source.is_ipv4() != envelope.destination.is_ipv4() {
        return Err(SegmentError::Family);
    }
    if envelope.checksum == ReceiveChecksum::Unverified {
        let pseudo_header = pseudo_header_sum(envelope.source, envelope.destination, bytes.len());
        // A correct segment, its checksum included, sums to minus zero (RFC 1071 section 1).
        if checksum::fold(u64::from(pseudo_header) + u64::from(checksum::sum(bytes))) != 0xffff {
            return Err(SegmentError::Checksum);
        }
    }
    let ports = ports_of(base);
    if ports.source == 0 || ports.destination == 0 {
        return Err(SegmentError::PortZero);
    }
    let number =
        |at: usize| SeqNumber(u32::from_be_bytes([base[at], base[at + 1], base[at + 2], base[at + 3]]));
    let has = |bit: u8| base[13] & bit != 0;
    let header = Header {
        seq: number(4),
        ack: has(ACK).then(|| number(8)),
        flags: Flags {
            syn: has(SYN),
            fin: has(FIN),
            rst: has(RST),
            psh: has(PSH),
            ece: has(ECE),
            cwr: has(CWR),
        },
        window: u16::from_be_bytes([base[14], base[15]]),
        options: parse_options(&head[BASE_HEADER_BYTES..])?,
    };
    let segment = Segment { header, payload, congestion_experienced: envelope.congestion_experienced };
    Ok((ports, segment))
}

/// The ports at the start of a TCP header; `None` if it is cut short.
pub(crate) fn peek_ports(bytes: &[u8]) -> Option<Ports> {
    bytes.first_chunk::<BASE_HEADER_BYTES>().map(ports_of)
}

fn ports_of(base: &[u8; BASE_HEADER_BYTES]) -> Ports {
    Ports {
        source: u16::from_be_bytes([base[0], base[1]]),
        destination: u16::from_be_bytes([base[2], base[3]]),
    }
}

/// Walks the options. Unknown kinds are skipped by their length (RFC 9293 section 3.2, MUST-6).
fn parse_options(mut bytes: &[u8]) -> Result<Options, SegmentError> {
    // Timestamps alone, in the layout that everyone uses (RFC 7323 appendix A): nearly every segment of a transfer.
    if let [KIND_NO_OPERATION, KIND_NO_OPERATION, KIND_TIMESTAMPS, length, a, b, c, d, e, f, g, h] = *bytes
        && usize::from(length) == TIMESTAMPS_BYTES
    {
        let (value, echo) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        return Ok(Options { timestamps: Some(Timestamps { value, echo }), ..Options::default() });
    }
    let mut options = Options::default();
    while let Some(&kind) = bytes.first() {
        match kind {
            KIND_END => break,
            KIND_NO_OPERATION => {
                bytes = &bytes[1..];
                continue;
            }
            _ => {}
        }
        let length = usize::from(*bytes.get(1).ok_or(SegmentError::Option)?);
        if length < 2 || length > bytes.len() {
            return Err(SegmentError::Option);
        }
        let (option, rest) = bytes.split_at(length);
        match kind {
            KIND_SACK => parse_sack(&option[2..], &mut options)?,
            KIND_TIMESTAMPS if length != TIMESTAMPS_BYTES => return Err(SegmentError::Option),
            _ => match TcpOption::parse(option).map_err(|_| SegmentError::Option)?.1 {
                TcpOption::MaxSegmentSize(bytes) => options.segment_size_max = Some(bytes),
                TcpOption::WindowScale(shift) => options.window_scale = Some(shift.min(WINDOW_SCALE_MAX)),
                TcpOption::SackPermitted => options.sack_permitted = true,
                TcpOption::TimeStamp { tsval, tsecr } => {
                    options.timestamps = Some(Timestamps { value: tsval, echo: tsecr });
                }
                TcpOption::SackRange(_)
                | TcpOption::EndOfList
                | TcpOption::NoOperation
                | TcpOption::Unknown { .. } => {}
            },
        }
        bytes = rest;
    }
    Ok(options)
}

/// Reads the blocks of a SACK option (RFC 2018 section 3).
fn parse_sack(blocks: &[u8], options: &mut Options) -> Result<(), SegmentError> {
    if blocks.is_empty() || !blocks.len().is_multiple_of(8) {
        return Err(SegmentError::Option);
    }
    for block in blocks.as_chunks::<8>().0 {
        let [a, b, c, d, e, f, g, h] = *block;
        options.sack.push(SackBlock {
            start: SeqNumber(u32::from_be_bytes([a, b, c, d])),
            end: SeqNumber(u32::from_be_bytes([e, f, g, h])),
        });
    }
    Ok(())
}

/// How many SACK blocks fit beside the other options, and how long all options are, padding included.
fn options_layout(options: &Options) -> (usize, usize) {
    let mut length = 0;
    if options.segment_size_max.is_some() {
        length += 4;
    }
    // Timestamps take ten bytes, and either SACK-permitted or two NOPs before them; SACK-permitted alone is padded.
    if options.timestamps.is_some() {
        length += 12;
    } else if options.sack_permitted {
        length += 4;
    }
    if options.window_scale.is_some() {
        length += 4;
    }
    let blocks = options.sack.as_slice().len().min((OPTIONS_BYTES_MAX - length).saturating_sub(4) / 8);
    if blocks > 0 {
        length += 4 + 8 * blocks;
    }
    (blocks, length)
}

/// Length in bytes of `header` on the wire, options and padding included: a multiple of four, 60 at most.
pub fn header_length(header: &Header) -> usize {
    BASE_HEADER_BYTES + options_layout(&header.options).1
}

/// Writes the options in the order and alignment of Linux, so that a 32-bit reader finds each value aligned.
fn emit_options(mut buffer: &mut [u8], options: &Options, blocks: usize) {
    let nop = TcpOption::NoOperation;
    if let Some(bytes) = options.segment_size_max {
        buffer = TcpOption::MaxSegmentSize(bytes).emit(buffer);
    }
    if let Some(Timestamps { value, echo }) = options.timestamps {
        let (room, rest) = buffer.split_at_mut(2 + TIMESTAMPS_BYTES);
        room[..4].copy_from_slice(&TIMESTAMPS_LAYOUT);
        if options.sack_permitted {
            // In the place of the padding.
            TcpOption::SackPermitted.emit(room);
        }
        room[4..8].copy_from_slice(&value.to_be_bytes());
        room[8..].copy_from_slice(&echo.to_be_bytes());
        buffer = rest;
    } else if options.sack_permitted {
        buffer = nop.emit(buffer);
        buffer = nop.emit(buffer);
        buffer = TcpOption::SackPermitted.emit(buffer);
    }
    if let Some(shift) = options.window_scale {
        buffer = nop.emit(buffer);
        buffer = TcpOption::WindowScale(shift).emit(buffer);
    }
    if blocks > 0 {
        buffer = nop.emit(buffer);
        buffer = nop.emit(buffer);
        buffer[0] = KIND_SACK;
        buffer[1] = (2 + 8 * blocks) as u8;
        let room = buffer[2..].as_chunks_mut::<8>().0;
        for (bytes, block) in room.iter_mut().zip(options.sack.as_slice()) {
            bytes[..4].copy_from_slice(&block.start.0.to_be_bytes());
            bytes[4..].copy_from_slice(&block.end.0.to_be_bytes());
        }
    }
}

/// What [`emit`] has to know beside the header.
#[derive(Clone, Copy, Debug)]
pub struct Emission {
    /// Ports.
    pub ports: Ports,
    /// The sender's address.
    pub source: IpAddr,
    /// The receiver's address, of the same family.
    pub destination: IpAddr,
    /// Leave the checksum to the device: the field gets the pseudo-header sum only.
    pub checksum_offload: bool,
}

/// Writes a segment at the start of `buffer` and returns its length: [`header_length`] plus the payload.
/// SACK blocks that do not fit beside the other options are left out.
///
/// # Panics
/// If `buffer` is too short, or the addresses are of different families: bugs of the caller.
pub fn emit(buffer: &mut [u8], emission: &Emission, header: &Header, payload: [&[u8]; 2]) -> usize {
    let addresses = pseudo_header_sum(emission.source, emission.destination, 0);
    let length = payload[0].len() + payload[1].len();
    let pieces = payload.into_iter();
    emit_between(buffer, emission.ports, addresses, emission.checksum_offload, header, (length, pieces))
}

/// [`emit`] for whoever knows `addresses`, the [`pseudo_header_sum`] of a length of zero, already; and of payload in any
/// number of pieces, so many bytes in all.
pub(crate) fn emit_between<'a>(
    buffer: &mut [u8],
    ports: Ports,
    addresses: u16,
    checksum_offload: bool,
    header: &Header,
    (payload_bytes, payload): (usize, impl Iterator<Item = &'a [u8]>),
) -> usize {
    let (sack_blocks, options_bytes) = options_layout(&header.options);
    let header_bytes = BASE_HEADER_BYTES + options_bytes;
    let length = header_bytes + payload_bytes;
    let (head, body) = buffer[..length].split_at_mut(header_bytes);
    let (base, options) = head.split_first_chunk_mut().expect("a header has its fixed part");
    emit_base(base, ports, header, header_bytes);
    emit_options(options, &header.options, sack_blocks);

    let pseudo_header = u64::from(addresses) + (length >> 16) as u64 + (length & 0xffff) as u64;
    let sum = if checksum_offload {
        checksum::gather(body, payload);
        checksum::fold(pseudo_header)
    } else {
        let sums = u64::from(checksum::sum(head)) + u64::from(checksum::copy_all(body, payload));
        !checksum::fold(pseudo_header + sums)
    };
    head[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
    length
}

/// The part that every header has (RFC 9293 section 3.1), its checksum still zero. Written as one array: of fields
/// that are set one by one, each checks its bounds, and this is done for every segment.
fn emit_base(base: &mut [u8; BASE_HEADER_BYTES], ports: Ports, header: &Header, header_bytes: usize) {
    let Flags { syn, fin, rst, psh, ece, cwr } = header.flags;
    let bits =
        [(FIN, fin), (SYN, syn), (RST, rst), (PSH, psh), (ACK, header.ack.is_some()), (ECE, ece), (CWR, cwr)];
    let flags = bits.iter().fold(0, |flags, (bit, set)| flags | if *set { *bit } else { 0 });
    base[..2].copy_from_slice(&ports.source.to_be_bytes());
    base[2..4].copy_from_slice(&ports.destination.to_be_bytes());
    base[4..8].copy_from_slice(&header.seq.0.to_be_bytes());
    base[8..12].copy_from_slice(&header.ack.unwrap_or_default().0.to_be_bytes());
    base[12] = (header_bytes as u8 / 4) << 4;
    base[13] = flags;
    base[14..16].copy_from_slice(&header.window.to_be_bytes());
    // Checksum and urgent pointer.
    base[16..].fill(0);
}

/// The one's complement sum over the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1), not inverted: what
/// a device that completes checksums expects to find in the field.
pub fn pseudo_header_sum(source: IpAddr, destination: IpAddr, length: usize) -> u16 {
    let mut sum: u32 = u32::from(u8::from(IpProtocol::Tcp));
    sum += (length >> 16) as u32 + (length & 0xffff) as u32;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => sum += words_v4(source) + words_v4(destination),
        (IpAddr::V6(source), IpAddr::V6(destination)) => sum += words_v6(source) + words_v6(destination),
        _ => unreachable!("both addresses of a connection are of one family"),
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn words_v4(address: Ipv4Addr) -> u32 {
    let bits = address.to_bits();
    (bits >> 16) + (bits & 0xffff)
}

fn words_v6(address: Ipv6Addr) -> u32 {
    address.segments().iter().map(|&word| u32::from(word)).sum()
}
