//! The streaming decoder: bytes in, at any division, whole units out.

use bytes::{Bytes, BytesMut};

use super::{
    CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, CodecError, Crc32c, FLAG_FIRST, FLAG_LAST,
    MESSAGE_HEADER_BYTES, MessageHeader,
};
use crate::message::{LANES, Message, lane_of};

/// A message's buffer starts at its announced length up to this many bytes; beyond, it grows as bytes arrive, so
/// that a peer cannot make this end allocate what it never sends.
const BUFFER_AT_ONCE_BYTES: usize = 256 << 10;

/// What the decoder lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderLimits {
    /// Largest message payload.
    pub message_bytes_max: u32,
    /// Message chunk payload allowed before the first grant, cumulative.
    pub credit_limit: u64,
}

/// A whole unit off the stream, its checksums verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Any chunk that is not part of a message.
    Chunk {
        /// Its kind.
        kind: ChunkKind,
        /// Its id.
        id: u64,
        /// Its payload.
        payload: Bytes,
    },
    /// A message, complete.
    Message {
        /// The message.
        message: Message,
        /// Its number within its lane.
        id: u64,
        /// Receive credit that it holds until it is dispatched.
        credit_bytes: u64,
    },
}

#[derive(Debug)]
struct Partial {
    header: MessageHeader,
    buffer: BytesMut,
}

/// A chunk of which the end has yet to come. Nothing of it is kept where chunks arrive whole.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at most, in a box of its own")]
enum CutShort {
    Header { bytes: [u8; CHUNK_HEADER_BYTES], filled: usize },
    Body(Body),
}

/// The chunk being read.
#[derive(Debug)]
struct Body {
    header: ChunkHeader,
    remaining: usize,
    crc: Crc32c,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Chunk(BytesMut),
    MessageHeader { bytes: [u8; MESSAGE_HEADER_BYTES], filled: usize },
    Message(Partial),
}

/// The decoder of one stream, from the first chunk on. Each in-order byte is copied once, into the buffer of the
/// message that it belongs to; one message per lane may be in progress.
///
/// Input: [`Self::decode`], [`Self::set_credit_limit`]. Read at any time: [`Self::spent`], [`Self::completed`].
/// After an error the decoder is of no more use.
#[derive(Debug)]
pub struct Decoder {
    limits: DecoderLimits,
    cut_short: Option<Box<CutShort>>,
    /// By lane: the number of the message in progress, or of the next.
    next_ids: [u64; LANES],
    /// Messages between two of their chunks, by lane; none while no lane has one.
    partials: Option<Box<[Option<Partial>; LANES]>>,
    spent: u64,
    completed: u64,
}

impl Decoder {
    /// A decoder at the start of a stream (after the banner).
    pub fn new(limits: DecoderLimits) -> Self {
        Decoder { limits, cut_short: None, next_ids: [0; LANES], partials: None, spent: 0, completed: 0 }
    }

    /// Sets the number of the next message of each lane and the credit limit, before the first message: where a
    /// session that outlived an earlier connection goes on.
    pub fn resume(&mut self, next_ids: [u64; LANES], credit_limit: u64) {
        self.next_ids = next_ids;
        self.partials = None;
        self.limits.credit_limit = credit_limit;
    }

    /// Raises the credit limit; a lower one is ignored, for a grant cannot be taken back.
    pub fn set_credit_limit(&mut self, limit: u64) {
        self.limits.credit_limit = self.limits.credit_limit.max(limit);
    }

    /// The credit limit in force.
    pub fn credit_limit(&self) -> u64 {
        self.limits.credit_limit
    }

    /// Credit spent by the peer: message chunk payload announced so far.
    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// Credit spent on messages that are complete.
    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// Whether the stream stands between two chunks: where a side may end.
    pub fn is_between_chunks(&self) -> bool {
        self.cut_short.is_none()
    }

    /// Memory held for messages in progress.
    #[cfg(test)]
    pub(super) fn buffered_capacity(&self) -> usize {
        let reading = match self.cut_short.as_deref() {
            Some(CutShort::Body(Body { target: Target::Message(partial), .. })) => partial.buffer.capacity(),
            _ => 0,
        };
        let between = self.partials.iter().flat_map(|partials| partials.iter().flatten());
        reading + between.map(|partial| partial.buffer.capacity()).sum::<usize>()
    }

    /// Takes bytes off the front of `input` until a unit is whole or `input` is empty.
    ///
    /// # Errors
    /// The stream is corrupt, or breaks a rule or a limit.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Decoded>, CodecError> {
        loop {
            let mut body = match self.cut_short.take().map(|cut_short| *cut_short) {
                Some(CutShort::Body(body)) => body,
                Some(CutShort::Header { bytes, filled }) => match self.finish_header(bytes, filled, input)? {
                    Some(header) => self.open(header)?,
                    None => return Ok(None),
                },
                None => match input.split_first_chunk::<CHUNK_HEADER_BYTES>() {
                    Some((head, rest)) => {
                        *input = rest;
                        self.open(ChunkHeader::decode(head)?)?
                    }
                    None if input.is_empty() => return Ok(None),
                    None => {
                        self.finish_header([0; CHUNK_HEADER_BYTES], 0, input)?;
                        return Ok(None);
                    }
                },
            };
            body.fill(input, &self.limits)?;
            if body.remaining > 0 {
                self.cut_short = Some(Box::new(CutShort::Body(body)));
                return Ok(None);
            }
            if let Some(whole) = self.close(body)? {
                return Ok(Some(whole));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Takes more of a header of which `filled` bytes are there; keeps what is not whole.
    fn finish_header(
        &mut self,
        mut bytes: [u8; CHUNK_HEADER_BYTES],
        filled: usize,
        input: &mut &[u8],
    ) -> Result<Option<ChunkHeader>, CodecError> {
        let wanted = CHUNK_HEADER_BYTES - filled;
        let (piece, rest) = input.split_at(wanted.min(input.len()));
        let now_filled = filled + piece.len();
        bytes[filled..now_filled].copy_from_slice(piece);
        *input = rest;
        if now_filled == CHUNK_HEADER_BYTES {
            return ChunkHeader::decode(&bytes).map(Some);
        }
        self.cut_short = Some(Box::new(CutShort::Header { bytes, filled: now_filled }));
        Ok(None)
    }

    /// Checks a chunk against what came before and decides where its payload goes.
    fn open(&mut self, header: ChunkHeader) -> Result<Body, CodecError> {
        let target = self.target(&header)?;
        Ok(Body { header, remaining: header.length as usize, crc: Crc32c::default(), target })
    }

    fn target(&mut self, header: &ChunkHeader) -> Result<Target, CodecError> {
        if header.kind != ChunkKind::Message {
            return Ok(Target::Chunk(BytesMut::with_capacity(header.length as usize)));
        }
        let lane = usize::from(header.lane);
        let first = header.flags & FLAG_FIRST != 0;
        let expected = self.next_ids[lane];
        if header.id != expected {
            return Err(CodecError::OutOfSequence { lane: header.lane, id: header.id, expected });
        }
        let partial = self.partials.as_mut().and_then(|partials| partials[lane].take());
        if first == partial.is_some() {
            return Err(CodecError::BadStart { lane: header.lane, id: header.id });
        }
        let needed = self.spent + u64::from(header.length);
        if needed > self.limits.credit_limit {
            return Err(CodecError::CreditExceeded { needed, granted: self.limits.credit_limit });
        }
        let malformed = |what| CodecError::Malformed { kind: ChunkKind::Message, what };
        self.spent = needed;
        match partial {
            None if (header.length as usize) < MESSAGE_HEADER_BYTES => {
                Err(malformed("first chunk shorter than the message header"))
            }
            None => Ok(Target::MessageHeader { bytes: [0; MESSAGE_HEADER_BYTES], filled: 0 }),
            Some(_) if header.length == 0 => Err(malformed("empty continuation")),
            Some(partial) => {
                check_length(header, partial.buffer.len(), header.length as usize, partial.header.length)?;
                Ok(Target::Message(partial))
            }
        }
    }

    /// The chunk's last byte is in: verifies it and hands out what it completes.
    fn close(&mut self, body: Body) -> Result<Option<Decoded>, CodecError> {
        let Body { header, crc, target, .. } = body;
        let computed = crc.value();
        if computed != header.payload_crc {
            let ChunkHeader { kind, id, payload_crc: received, .. } = header;
            return Err(CodecError::PayloadCorrupt { kind, id, computed, received });
        }
        let lane = usize::from(header.lane);
        let Partial { header: message, buffer } = match target {
            Target::Chunk(buffer) => {
                let (kind, id, payload) = (header.kind, header.id, buffer.freeze());
                return Ok(Some(Decoded::Chunk { kind, id, payload }));
            }
            // A first chunk has a whole message header at least, so that it was read to the end.
            Target::MessageHeader { .. } => return Ok(None),
            Target::Message(partial) if header.flags & FLAG_LAST == 0 => {
                self.partials.get_or_insert_default()[lane] = Some(partial);
                return Ok(None);
            }
            Target::Message(partial) => partial,
        };
        if self.partials.as_ref().is_some_and(|partials| partials.iter().all(Option::is_none)) {
            self.partials = None;
        }
        self.next_ids[lane] += 1;
        let credit_bytes = (MESSAGE_HEADER_BYTES + buffer.len()) as u64;
        self.completed += credit_bytes;
        let MessageHeader { kind, priority, tid, length: _ } = message;
        let message = Message { kind, priority, tid, payload: buffer.freeze() };
        Ok(Some(Decoded::Message { message, id: header.id, credit_bytes }))
    }
}

impl Body {
    /// Takes what belongs to the chunk off the front of `input`.
    fn fill(&mut self, input: &mut &[u8], limits: &DecoderLimits) -> Result<(), CodecError> {
        while self.remaining > 0 && !input.is_empty() {
            let wanted = match &self.target {
                Target::MessageHeader { filled, .. } => MESSAGE_HEADER_BYTES - filled,
                Target::Chunk(_) | Target::Message(_) => self.remaining,
            };
            let (piece, rest) = input.split_at(wanted.min(input.len()));
            *input = rest;
            self.remaining -= piece.len();
            self.crc.update(piece);
            match &mut self.target {
                Target::Chunk(buffer) => buffer.extend_from_slice(piece),
                Target::MessageHeader { bytes, filled } => {
                    bytes[*filled..*filled + piece.len()].copy_from_slice(piece);
                    *filled += piece.len();
                    if *filled == MESSAGE_HEADER_BYTES {
                        let message = MessageHeader::decode(bytes);
                        self.target = Target::Message(begin(&self.header, message, limits)?);
                    }
                }
                Target::Message(partial) => partial.append(piece),
            }
        }
        Ok(())
    }
}

impl Partial {
    fn append(&mut self, piece: &[u8]) {
        let total = self.header.length as usize;
        if self.buffer.capacity() - self.buffer.len() < piece.len() {
            // Doubling, but never beyond what the message can need.
            let target = (self.buffer.len() + piece.len()).max(self.buffer.len() * 2).min(total);
            self.buffer.reserve(target - self.buffer.len());
        }
        self.buffer.extend_from_slice(piece);
    }
}

fn begin(chunk: &ChunkHeader, message: MessageHeader, limits: &DecoderLimits) -> Result<Partial, CodecError> {
    if message.length > limits.message_bytes_max {
        return Err(CodecError::MessageTooLong { length: message.length, limit: limits.message_bytes_max });
    }
    if lane_of(message.priority) != usize::from(chunk.lane) {
        return Err(CodecError::BadLane { kind: ChunkKind::Message, lane: chunk.lane });
    }
    check_length(chunk, 0, chunk.length as usize - MESSAGE_HEADER_BYTES, message.length)?;
    let capacity = (message.length as usize).min(BUFFER_AT_ONCE_BYTES);
    Ok(Partial { header: message, buffer: BytesMut::with_capacity(capacity) })
}

/// LAST must be set exactly on the chunk that completes the announced length.
fn check_length(chunk: &ChunkHeader, before: usize, more: usize, announced: u32) -> Result<(), CodecError> {
    let received = before as u64 + more as u64;
    let complete = received == u64::from(announced);
    let last = chunk.flags & FLAG_LAST != 0;
    if received > u64::from(announced) || complete != last {
        return Err(CodecError::LengthMismatch { id: chunk.id, received, announced });
    }
    Ok(())
}
