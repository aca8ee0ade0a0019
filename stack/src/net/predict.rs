//! Header prediction over a burst: a frame that only goes on where the one before it stopped.
//!
//! A frame is compared, in whole words, with the last one that brought a connection data. If nothing differs but what
//! does from one segment of a transfer to the next (lengths, IPv4 identification, checksums, sequence number, PSH,
//! timestamp), then it is of the same connection, and what was found out about its headers still holds. The checksums
//! are verified like anybody's, and the connection gets the same segment as by the long way. Any other frame takes
//! that.

use std::mem;

use outrider_drivers::checksum;
use outrider_drivers::port::{ReceiveChecksum, RxFrame};

use super::frame::{ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, OVERHEAD_MAX, Packet};
use crate::tcp::segment::Segment;
use crate::tcp::sequence::SeqNumber;
use crate::tcp::wire::{
    self, BASE_HEADER_BYTES, CHECKSUM_AT, FLAGS_AT, PSH, SEQUENCE_AT, TIMESTAMP_AT, TIMESTAMPS_LAYOUT,
    TIMESTAMPS_ONLY_BYTES,
};

/// Compared at a time, bytes.
const WORD: usize = size_of::<u64>();
/// The longest headers that are predicted, in whole words.
const HEADERS_MAX: usize = (OVERHEAD_MAX + BASE_HEADER_BYTES + TIMESTAMPS_ONLY_BYTES).next_multiple_of(WORD);

/// Headers of one kind: which of their bits the next frame has to have too.
#[derive(Debug)]
struct Kind {
    mask: [[u8; WORD]; HEADERS_MAX / WORD],
    /// Where TCP begins.
    transport: usize,
    /// Bytes of all headers.
    length: usize,
    /// TCP has the timestamps option, in the usual layout, and no other; else none at all.
    timestamps: bool,
}

impl Kind {
    const fn new(transport: usize, timestamps: bool) -> Kind {
        let length = transport + BASE_HEADER_BYTES + if timestamps { TIMESTAMPS_ONLY_BYTES } else { 0 };
        let mut mask = [[0; WORD]; HEADERS_MAX / WORD];
        let mut at = 0;
        while at < length {
            let free = if at < transport {
                // Length, identification and checksum of IPv4; length of IPv6.
                if transport == ETHERNET_BYTES + IPV4_BYTES {
                    matches!(at, 16..20 | 24..26)
                } else {
                    matches!(at, 18..20)
                }
            } else {
                let at = at - transport;
                let number = at >= SEQUENCE_AT && at < SEQUENCE_AT + 4;
                let checksum = at >= CHECKSUM_AT && at < CHECKSUM_AT + 2;
                number || checksum || (timestamps && at >= TIMESTAMP_AT && at < TIMESTAMP_AT + 4)
            };
            mask[at / WORD][at % WORD] = match free {
                true => 0,
                false if at == transport + FLAGS_AT => !PSH,
                false => 0xff,
            };
            at += 1;
        }
        Kind { mask, transport, length, timestamps }
    }

    /// Bytes that are compared.
    const fn compared_bytes(&self) -> usize {
        self.length.next_multiple_of(WORD)
    }
}

static V4: [Kind; 2] =
    [Kind::new(ETHERNET_BYTES + IPV4_BYTES, false), Kind::new(ETHERNET_BYTES + IPV4_BYTES, true)];
static V6: [Kind; 2] =
    [Kind::new(ETHERNET_BYTES + IPV6_BYTES, false), Kind::new(ETHERNET_BYTES + IPV6_BYTES, true)];

/// What the next frame may look like.
#[derive(Debug, Default)]
pub(super) struct Prediction {
    /// `None`: nothing is predicted.
    kind: Option<&'static Kind>,
    /// The connection that was last met; if anything is predicted, it is for this one.
    index: u32,
    headers: [[u8; WORD]; HEADERS_MAX / WORD],
    /// [`free_v4_sum`] of these, if they are of IPv4.
    free_sum: u16,
    segment: Segment<'static>,
    /// Sum of the addresses and the protocol.
    addresses_sum: u64,
}

impl Prediction {
    /// Expects more of what `frame` was, which brought `segment`, in `packet`, to the connection `index`. Forgets
    /// everything if that is nothing that goes on like this, or if it is the first in a row for this connection: where
    /// many send single segments by turns, what is learned of one would be of no use to the next. (Of one that has the
    /// place of the last it is learned at once, which does no harm.)
    pub(super) fn learn(&mut self, index: u32, frame: &[u8], packet: &Packet<'_>, segment: &Segment<'_>) {
        self.kind = None;
        if mem::replace(&mut self.index, index) != index {
            return;
        }
        let flags = segment.header.flags;
        let plain = !(flags.syn || flags.fin || flags.rst || flags.ece || flags.cwr);
        if !plain || segment.congestion_experienced || segment.payload.is_empty() {
            return;
        }
        let kinds = match frame.get(12..15) {
            // Without options.
            Some([0x08, 0x00, 0x45]) => &V4,
            Some([0x86, 0xdd, _]) => &V6,
            _ => return,
        };
        let kind = &kinds[usize::from(segment.header.options.timestamps.is_some())];
        let tcp_bytes = packet.payload.len() - segment.payload.len();
        let Some(head) = frame.get(..kind.compared_bytes()) else { return };
        if kind.transport + tcp_bytes != kind.length {
            return;
        }
        // Other layouts are as good, but their values are elsewhere.
        let options = &head[kind.transport + BASE_HEADER_BYTES..kind.length];
        if kind.timestamps && !options.starts_with(&TIMESTAMPS_LAYOUT) {
            return;
        }
        self.kind = Some(kind);
        for (word, bytes) in self.headers.iter_mut().zip(head.as_chunks().0) {
            *word = *bytes;
        }
        self.free_sum = free_v4_sum(&self.headers);
        self.segment = Segment { payload: &[], ..*segment };
        self.addresses_sum = u64::from(wire::pseudo_header_sum(packet.source, packet.destination, 0));
    }

    /// The connection `index` is gone.
    pub(super) fn forget(&mut self, index: u32) {
        if self.index == index {
            self.kind = None;
        }
    }

    /// Whether the first `WORDS` words are as predicted.
    fn is_same<const WORDS: usize>(&self, kind: &Kind, words: &[[u8; WORD]]) -> bool {
        let Some(words) = words.first_chunk::<WORDS>() else { return false };
        let differences = words.iter().zip(&self.headers).zip(&kind.mask);
        differences.fold(0, |all, ((word, expected), mask)| all | differing(word, expected, mask)) == 0
    }

    /// What `frame` brings if it is as predicted and intact.
    #[inline]
    pub(super) fn read<'a>(&self, frame: &RxFrame<'a>) -> Option<Foreseen<'a>> {
        let kind = self.kind?;
        let bytes = frame.bytes;
        let words = bytes.as_chunks::<WORD>().0;
        let same = match kind.compared_bytes() / WORD {
            // IPv4 with timestamps: known in length, it needs no loop.
            9 => self.is_same::<9>(kind, words),
            11 => self.is_same::<11>(kind, words),
            count => {
                let mut all = words.get(..count)?.iter().zip(&self.headers).zip(&kind.mask);
                all.all(|((word, expected), mask)| differing(word, expected, mask) == 0)
            }
        };
        if !same {
            return None;
        }
        let end = if kind.transport == ETHERNET_BYTES + IPV4_BYTES {
            // The header that was learned was intact, and this one is if what differs has the same sum.
            if free_v4_sum(words) != self.free_sum {
                return None;
            }
            ETHERNET_BYTES + usize::from(u16::from_be_bytes([words[2][0], words[2][1]]))
        } else {
            kind.transport + usize::from(u16::from_be_bytes([words[2][2], words[2][3]]))
        };
        let payload = bytes.get(kind.length..end).filter(|payload| !payload.is_empty())?;
        if frame.checksum == ReceiveChecksum::Unverified {
            let segment = &bytes[kind.transport..end];
            let sum = self.addresses_sum + segment.len() as u64 + u64::from(checksum::sum(segment));
            if checksum::fold(sum) != 0xffff {
                return None;
            }
        }
        let tcp = &bytes[kind.transport..];
        let number = |at: usize| tcp[at..].first_chunk().map_or(0, |number| u32::from_be_bytes(*number));
        Some(Foreseen {
            payload,
            sequence: number(SEQUENCE_AT),
            push: tcp[FLAGS_AT] & PSH != 0,
            timestamp: if kind.timestamps { number(TIMESTAMP_AT) } else { 0 },
        })
    }

    /// The segment that was found, and to which connection it belongs.
    #[inline]
    pub(super) fn segment<'a>(&self, found: &Foreseen<'a>) -> (u32, Segment<'a>) {
        let mut segment = Segment { payload: found.payload, ..self.segment };
        segment.header.seq = SeqNumber(found.sequence);
        segment.header.flags.psh = found.push;
        if let Some(timestamps) = &mut segment.header.options.timestamps {
            timestamps.value = found.timestamp;
        }
        (self.index, segment)
    }
}

/// What a frame has that was foreseen and is not known: in few words, for a segment has many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foreseen<'a> {
    payload: &'a [u8],
    sequence: u32,
    push: bool,
    /// Zero without timestamps.
    timestamp: u32,
}

/// The sum of those words of an IPv4 header that are not compared: length, identification and checksum. The length is
/// not zero, so neither is the sum, which would have two forms then (RFC 1071 section 1).
#[inline]
fn free_v4_sum(words: &[[u8; WORD]]) -> u16 {
    let [[a, b, c, d, ..], [e, f, ..]] = [words[2], words[3]];
    let sum = [[a, b], [c, d], [e, f]].map(u16::from_ne_bytes).map(u64::from).iter().sum();
    checksum::fold(sum)
}

/// The bits of `mask` in which two words differ.
fn differing(word: &[u8; WORD], expected: &[u8; WORD], mask: &[u8; WORD]) -> u64 {
    (u64::from_ne_bytes(*word) ^ u64::from_ne_bytes(*expected)) & u64::from_ne_bytes(*mask)
}
