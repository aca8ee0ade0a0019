//! A TCP segment as the engine sees it: parsed options, no ports, no addresses.

use super::sequence::SeqNumber;

/// Control bits (RFC 9293 section 3.1, RFC 3168). ACK is [`Header::ack`] being present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flags {
    /// Synchronise sequence numbers.
    pub syn: bool,
    /// No more data from the sender.
    pub fin: bool,
    /// Reset.
    pub rst: bool,
    /// Push.
    pub psh: bool,
    /// ECN echo.
    pub ece: bool,
    /// Congestion window reduced.
    pub cwr: bool,
}

/// The timestamps option (RFC 7323 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// TSval.
    pub value: u32,
    /// TSecr.
    pub echo: u32,
}

/// A SACK block (RFC 2018): `start` inclusive, `end` exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SackBlock {
    /// Left edge.
    pub start: SeqNumber,
    /// Right edge.
    pub end: SeqNumber,
}

/// Up to four SACK blocks, first the most recent (or the D-SACK, RFC 2883).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SackBlocks {
    blocks: [SackBlock; 4],
    count: u8,
}

impl SackBlocks {
    /// Adds a block; one beyond the fourth is left out.
    pub fn push(&mut self, block: SackBlock) {
        if usize::from(self.count) < self.blocks.len() {
            self.blocks[usize::from(self.count)] = block;
            self.count += 1;
        }
    }

    /// The blocks.
    pub fn as_slice(&self) -> &[SackBlock] {
        &self.blocks[..usize::from(self.count)]
    }
}

/// Options of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// Maximum segment size (SYN only).
    pub segment_size_max: Option<u16>,
    /// Window scale shift (SYN only).
    pub window_scale: Option<u8>,
    /// SACK permitted (SYN only).
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK blocks.
    pub sack: SackBlocks,
}

/// All of a segment but its ports and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Header {
    /// Sequence number of the first byte (or of SYN).
    pub seq: SeqNumber,
    /// Acknowledgement number, if ACK is set.
    pub ack: Option<SeqNumber>,
    /// Control bits.
    pub flags: Flags,
    /// Window field as on the wire, unscaled.
    pub window: u16,
    /// Options.
    pub options: Options,
}

/// A received segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment<'a> {
    /// Everything but the payload.
    pub header: Header,
    /// Payload.
    pub payload: &'a [u8],
    /// The IP header carried the Congestion Experienced mark (RFC 3168).
    pub congestion_experienced: bool,
}

/// A segment to be put on the wire; its payload is read with [`super::connection::Connection::payload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Everything but the payload.
    pub header: Header,
    /// Stream offset of the first payload byte.
    pub payload_offset: u64,
    /// Payload length in bytes. Above the segment size only when a super-segment was allowed.
    pub payload_length: usize,
    /// Segment size by which a super-segment is to be cut.
    pub segment_size: usize,
    /// Mark the IP header ECN-capable, ECT(0).
    pub ecn_capable: bool,
}

impl Outgoing {
    /// Segments on the wire: more than one for a super-segment.
    pub fn segments(&self) -> usize {
        self.payload_length.div_ceil(self.segment_size.max(1)).max(1)
    }
}
