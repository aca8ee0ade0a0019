//! The frames of a train of segments, which differ in sequence number, payload and checksums alone: their headers are
//! written once.

use outrider_drivers::checksum;

use super::frame::{ETHERNET_BYTES, Envelope, IPV4_BYTES, OVERHEAD_MAX, Template};
use crate::tcp::connection::Payload;
use crate::tcp::segment::{Flags, Header};
use crate::tcp::sequence::SeqNumber;
use crate::tcp::wire::{
    BASE_HEADER_BYTES, CHECKSUM_AT, CWR, FIN, FLAGS_AT, OPTIONS_BYTES_MAX, PSH, SEQUENCE_AT,
};

/// Headers of every frame of a train: those below TCP, and TCP's with its options.
const HEADERS_MAX: usize = OVERHEAD_MAX + BASE_HEADER_BYTES + OPTIONS_BYTES_MAX;

/// The headers that the frames of a train have in common, and the sums over them. Zero in them are the sequence number,
/// the lengths, the checksums, PSH and FIN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mould {
    headers: [u8; HEADERS_MAX],
    length: usize,
    /// Where TCP begins.
    transport: usize,
    first: SeqNumber,
    checksum_offload: bool,
    /// Of the IPv4 header.
    ip_sum: u64,
    /// Of addresses, protocol and TCP header.
    tcp_sum: u64,
}

/// One frame of a train.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    /// Bytes of payload in the frames before it.
    pub(super) before: usize,
    pub(super) payload: Payload<'a>,
    pub(super) push: bool,
    pub(super) finish: bool,
}

impl Mould {
    /// For a train whose first segment has `header`.
    pub(super) fn new(template: &Template, envelope: &Envelope, header: &Header) -> Self {
        let flags = Flags { psh: false, fin: false, ..header.flags };
        let bare = Header { seq: SeqNumber(0), flags, ..*header };
        let mut headers = [0; HEADERS_MAX];
        let length = template.emit(&mut headers, envelope, &bare, Payload::default());
        let transport = template.overhead();
        headers[transport + CHECKSUM_AT..][..2].fill(0);
        let mut ip_sum = 0;
        if transport == ETHERNET_BYTES + IPV4_BYTES {
            headers[16..18].fill(0);
            headers[24..26].fill(0);
            ip_sum = u64::from(checksum::sum(&headers[ETHERNET_BYTES..transport]));
        }
        let tcp_sum =
            u64::from(template.addresses_sum()) + u64::from(checksum::sum(&headers[transport..length]));
        let checksum_offload = envelope.checksum_offload;
        let tcp_sum = if checksum_offload { u64::from(template.addresses_sum()) } else { tcp_sum };
        Mould { headers, length, transport, first: header.seq, checksum_offload, ip_sum, tcp_sum }
    }

    /// Bytes of headers in a frame.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// The first frame has been written: what it alone has to say (RFC 3168 section 6.1.2) is not said again.
    pub(super) fn end_first(&mut self) {
        let flags = &mut self.headers[self.transport + FLAGS_AT];
        if *flags & CWR != 0 {
            *flags &= !CWR;
            if !self.checksum_offload {
                // The sum of the same header without it: adding the complement takes it out.
                self.tcp_sum += u64::from(!u16::from(CWR));
            }
        }
    }

    /// Writes nothing but the headers.
    #[cold]
    fn copy_headers(&self, buffer: &mut [u8]) {
        buffer[..self.length].copy_from_slice(&self.headers[..self.length]);
    }

    /// Writes the frame of `piece` at the start of `buffer` and returns its length.
    pub(super) fn emit(&self, buffer: &mut [u8], piece: &Piece<'_>) -> usize {
        let payload_bytes = piece.payload.len();
        match buffer.first_chunk_mut() {
            // More than there are: the payload is written over the rest, and a length known in advance needs no call.
            Some(head) if payload_bytes + self.length >= HEADERS_MAX => *head = self.headers,
            _ => self.copy_headers(buffer),
        }
        let (head, body) = buffer.split_at_mut(self.length);
        let segment_bytes = self.length - self.transport + payload_bytes;
        let (below, tcp) = head.split_at_mut(self.transport);
        if self.transport == ETHERNET_BYTES + IPV4_BYTES {
            let total_bytes = (IPV4_BYTES + segment_bytes) as u16;
            below[16..18].copy_from_slice(&total_bytes.to_be_bytes());
            let sum = !checksum::fold(self.ip_sum + u64::from(total_bytes));
            below[24..26].copy_from_slice(&sum.to_be_bytes());
        } else {
            below[18..20].copy_from_slice(&(segment_bytes as u16).to_be_bytes());
        }
        let sequence = self.first.add(piece.before as u32).0;
        tcp[SEQUENCE_AT..SEQUENCE_AT + 4].copy_from_slice(&sequence.to_be_bytes());
        let flags = if piece.push { PSH } else { 0 } | if piece.finish { FIN } else { 0 };
        tcp[FLAGS_AT] |= flags;
        let body = &mut body[..payload_bytes];
        let sum = if self.checksum_offload {
            checksum::gather(body, piece.payload);
            checksum::fold(self.tcp_sum + segment_bytes as u64)
        } else {
            let words = u64::from(sequence >> 16) + u64::from(sequence & 0xffff) + u64::from(flags);
            let payload = u64::from(checksum::copy_all(body, piece.payload));
            !checksum::fold(self.tcp_sum + segment_bytes as u64 + words + payload)
        };
        tcp[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_be_bytes());
        self.length + payload_bytes
    }
}
