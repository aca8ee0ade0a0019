//! The streaming decoder: bytes in, at any division, whole units out.

use bytes::Bytes;

use super::{
    CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, CodecError, Crc32c, FLAG_FIRST, FLAG_LAST,
    MESSAGE_HEADER_BYTES, MessageHeader, crc32c,
};
use crate::message::{LANES, Message, lane_of};

/// A message's buffer starts at its announced length up to this many bytes, or as many as the peer has sent in whole
/// messages before and has credit for; beyond, it grows as bytes arrive, so that a peer cannot make this end allocate
/// what it never sends.
const BUFFER_AT_ONCE_BYTES: usize = 256 << 10;

/// A chunk shorter than this is not worth a place of its own ([`Decoder::place`]): a transport reads more at a time into
/// a buffer, of as many as there are, and the copy out of that is from the cache. What is left of a chunk that is long
/// enough has a place however little it is, or the next one would be read into the buffer behind it.
const PLACED_CHUNK_BYTES_MIN: usize = 32 << 10;
/// Placed at a time at most: so many that a call is cheap for each, and so few that they are still in the cache when
/// they are summed up.
const PLACE_BYTES_MAX: usize = 256 << 10;

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

/// A message in progress.
#[derive(Debug)]
struct Partial {
    header: MessageHeader,
    buffer: Vec<u8>,
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
    Chunk(Vec<u8>),
    MessageHeader {
        bytes: [u8; MESSAGE_HEADER_BYTES],
        filled: usize,
    },
    Message {
        /// Bytes of the message that have been summed up.
        summed: usize,
    },
}

/// What has come in part.
#[derive(Debug, Default)]
struct Work {
    head: [u8; CHUNK_HEADER_BYTES],
    head_filled: usize,
    body: Option<Body>,
    /// The message in progress in each lane.
    partials: [Option<Partial>; LANES],
}

/// The decoder of one stream, from the first chunk on. Each in-order byte is copied once, into the buffer of the
/// message that it belongs to; one message per lane may be in progress.
///
/// Input: [`Self::decode`], or [`Self::place`] and [`Self::placed`]; [`Self::set_credit_limit`]. Read at any time: [`Self::spent`], [`Self::completed`].
/// After an error the decoder is of no more use.
#[derive(Debug)]
pub struct Decoder {
    limits: DecoderLimits,
    /// In a box that is there while the stream stands within a chunk or a message: an idle connection stands between
    /// two, and there are many of those.
    work: Option<Box<Work>>,
    /// Number of the message in progress, or of the next, in each lane.
    next_ids: [u64; LANES],
    spent: u64,
    completed: u64,
}

impl Decoder {
    /// A decoder at the start of a stream (after the banner).
    pub fn new(limits: DecoderLimits) -> Self {
        Decoder { limits, work: None, next_ids: [0; LANES], spent: 0, completed: 0 }
    }

    /// Sets the number of the next message of each lane and the credit limit, before the first message: where a
    /// session that outlived an earlier connection goes on.
    pub fn resume(&mut self, next_ids: [u64; LANES], credit_limit: u64) {
        self.next_ids = next_ids;
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
        self.work.as_ref().is_none_or(|work| work.body.is_none() && work.head_filled == 0)
    }

    /// Whether no memory is held for anything in progress.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.work.is_none()
    }

    /// Memory held for messages in progress.
    #[cfg(test)]
    pub(super) fn buffered_capacity(&self) -> usize {
        let partials = self.work.iter().flat_map(|work| work.partials.iter()).flatten();
        partials.map(|partial| partial.buffer.capacity()).sum()
    }

    /// Takes bytes off the front of `input` until a unit is whole or `input` is empty.
    ///
    /// # Errors
    /// The stream is corrupt, or breaks a rule or a limit.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Decoded>, CodecError> {
        loop {
            if self.work.as_ref().is_none_or(|work| work.body.is_none()) {
                let Some(header) = self.take_header(input)? else { return Ok(None) };
                if header.kind != ChunkKind::Message
                    && let Some((payload, rest)) = input.split_at_checked(header.length as usize)
                {
                    *input = rest;
                    self.settle();
                    check_sum(&header, crc32c(payload))?;
                    let payload = Bytes::copy_from_slice(payload);
                    return Ok(Some(Decoded::Chunk { kind: header.kind, id: header.id, payload }));
                }
                let target = self.open(&header)?;
                let remaining = header.length as usize;
                let body = Body { header, remaining, crc: Crc32c::default(), target };
                self.work.get_or_insert_default().body = Some(body);
            }
            if let Some(whole) = self.take_body(input)? {
                return Ok(Some(whole));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Where the next bytes belong, and how many of them, if they are of a message in a long chunk. Who appends some
    /// there calls [`Self::placed`]; who does not gives them to [`Self::decode`].
    pub fn place(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        let Work { body: Some(body), partials, .. } = self.work.as_deref_mut()? else { return None };
        let in_message = matches!(body.target, Target::Message { .. });
        if !in_message || (body.header.length as usize) < PLACED_CHUNK_BYTES_MIN {
            return None;
        }
        let partial = partials[usize::from(body.header.lane)].as_mut()?;
        let bytes = body.remaining.min(PLACE_BYTES_MAX);
        partial.make_room(bytes);
        Some((&mut partial.buffer, bytes))
    }

    /// Takes what has been appended to the buffer that [`Self::place`] gave; a unit, if that makes one whole.
    ///
    /// # Errors
    /// As [`Self::decode`].
    ///
    /// # Panics
    /// If it is more than [`Self::place`] allowed: that is a bug of the transport.
    pub fn placed(&mut self) -> Result<Option<Decoded>, CodecError> {
        let Some(Work { body: Some(body), partials, .. }) = self.work.as_deref_mut() else { return Ok(None) };
        let Target::Message { summed } = &mut body.target else { return Ok(None) };
        let Some(partial) = &partials[usize::from(body.header.lane)] else { return Ok(None) };
        let piece = &partial.buffer[*summed..];
        assert!(piece.len() <= body.remaining, "a transport places no more than it may");
        body.crc.update(piece);
        *summed += piece.len();
        body.remaining -= piece.len();
        if body.remaining > 0 { Ok(None) } else { self.close() }
    }

    fn take_header(&mut self, input: &mut &[u8]) -> Result<Option<ChunkHeader>, CodecError> {
        if self.work.as_ref().is_none_or(|work| work.head_filled == 0)
            && let Some((head, rest)) = input.split_first_chunk::<CHUNK_HEADER_BYTES>()
        {
            *input = rest;
            return ChunkHeader::decode(head).map(Some);
        }
        if input.is_empty() {
            return Ok(None);
        }
        let work = self.work.get_or_insert_default();
        let wanted = CHUNK_HEADER_BYTES - work.head_filled;
        let (piece, rest) = input.split_at(wanted.min(input.len()));
        work.head[work.head_filled..work.head_filled + piece.len()].copy_from_slice(piece);
        work.head_filled += piece.len();
        *input = rest;
        if work.head_filled < CHUNK_HEADER_BYTES {
            return Ok(None);
        }
        let header = ChunkHeader::decode(&work.head);
        work.head_filled = 0;
        header.map(Some)
    }

    /// The message in progress in a lane.
    fn partial(&self, lane: u8) -> Option<&Partial> {
        self.work.as_ref()?.partials[usize::from(lane)].as_ref()
    }

    /// Gives the memory of what has come in part back if there is nothing in it, a
    /// header apart: this is for where a chunk ends.
    fn settle(&mut self) {
        let is_idle = |work: &Work| work.body.is_none() && work.partials.iter().all(Option::is_none);
        if self.work.as_deref().is_some_and(is_idle) {
            self.work = None;
        }
    }

    /// Checks a chunk against what came before and decides where its payload goes.
    fn open(&mut self, header: &ChunkHeader) -> Result<Target, CodecError> {
        if header.kind != ChunkKind::Message {
            return Ok(Target::Chunk(Vec::with_capacity(header.length as usize)));
        }
        let expected = self.next_ids[usize::from(header.lane)];
        let first = header.flags & FLAG_FIRST != 0;
        if header.id != expected {
            return Err(CodecError::OutOfSequence { lane: header.lane, id: header.id, expected });
        }
        if first == self.partial(header.lane).is_some() {
            return Err(CodecError::BadStart { lane: header.lane, id: header.id });
        }
        let needed = self.spent + u64::from(header.length);
        if needed > self.limits.credit_limit {
            return Err(CodecError::CreditExceeded { needed, granted: self.limits.credit_limit });
        }
        let malformed = |what| CodecError::Malformed { kind: ChunkKind::Message, what };
        self.spent = needed;
        match self.partial(header.lane) {
            None if (header.length as usize) < MESSAGE_HEADER_BYTES => {
                Err(malformed("first chunk shorter than the message header"))
            }
            None => Ok(Target::MessageHeader { bytes: [0; MESSAGE_HEADER_BYTES], filled: 0 }),
            Some(_) if header.length == 0 => Err(malformed("empty continuation")),
            Some(partial) => {
                check_length(header, partial.buffer.len(), header.length as usize, partial.header.length)?;
                Ok(Target::Message { summed: partial.buffer.len() })
            }
        }
    }

    fn take_body(&mut self, input: &mut &[u8]) -> Result<Option<Decoded>, CodecError> {
        let Some(Work { body: Some(body), partials, .. }) = self.work.as_deref_mut() else { return Ok(None) };
        while body.remaining > 0 && !input.is_empty() {
            let wanted = match &body.target {
                Target::MessageHeader { filled, .. } => MESSAGE_HEADER_BYTES - filled,
                Target::Chunk(_) | Target::Message { .. } => body.remaining,
            };
            let (piece, rest) = input.split_at(wanted.min(input.len()));
            *input = rest;
            body.remaining -= piece.len();
            body.crc.update(piece);
            match &mut body.target {
                Target::Chunk(buffer) => buffer.extend_from_slice(piece),
                Target::MessageHeader { bytes, filled } => {
                    bytes[*filled..*filled + piece.len()].copy_from_slice(piece);
                    *filled += piece.len();
                    if *filled == MESSAGE_HEADER_BYTES {
                        let message = MessageHeader::decode(bytes);
                        check_message(&body.header, &message, self.limits.message_bytes_max)?;
                        let credit_left = self.limits.credit_limit.saturating_sub(self.spent);
                        let credit = credit_left.saturating_add(body.header.length.into());
                        partials[usize::from(body.header.lane)] =
                            Some(Partial::begin(message, self.completed.min(credit)));
                        body.target = Target::Message { summed: 0 };
                    }
                }
                Target::Message { summed } => {
                    if let Some(partial) = &mut partials[usize::from(body.header.lane)] {
                        partial.make_room(piece.len());
                        partial.buffer.extend_from_slice(piece);
                        *summed = partial.buffer.len();
                    }
                }
            }
        }
        if body.remaining > 0 { Ok(None) } else { self.close() }
    }

    /// The chunk's last byte is in: verifies it and hands out what it completes.
    fn close(&mut self) -> Result<Option<Decoded>, CodecError> {
        let Some(work) = &mut self.work else { return Ok(None) };
        let Some(Body { header, crc, target, .. }) = work.body.take() else { return Ok(None) };
        check_sum(&header, crc.value())?;
        if let Target::Chunk(buffer) = target {
            self.settle();
            return Ok(Some(Decoded::Chunk { kind: header.kind, id: header.id, payload: buffer.into() }));
        }
        if header.flags & FLAG_LAST == 0 {
            return Ok(None);
        }
        let Some(partial) = work.partials[usize::from(header.lane)].take() else { return Ok(None) };
        let Partial { header: message, buffer } = partial;
        self.settle();
        self.next_ids[usize::from(header.lane)] += 1;
        let credit_bytes = (MESSAGE_HEADER_BYTES + buffer.len()) as u64;
        self.completed += credit_bytes;
        let MessageHeader { kind, priority, tid, length: _ } = message;
        let message = Message { kind, priority, tid, payload: buffer.into() };
        Ok(Some(Decoded::Message { message, id: header.id, credit_bytes }))
    }
}

impl Partial {
    /// The start of a message from a peer that may be trusted with `trusted_bytes` of memory.
    fn begin(header: MessageHeader, trusted_bytes: u64) -> Self {
        let at_once = u64::from(header.length).min(trusted_bytes.max(BUFFER_AT_ONCE_BYTES as u64));
        Partial { header, buffer: Vec::with_capacity(at_once as usize) }
    }

    /// Makes room for the next `bytes`, which are of the message.
    fn make_room(&mut self, bytes: usize) {
        if self.buffer.capacity() - self.buffer.len() < bytes {
            // Doubling, but never beyond what the message can need.
            let total = self.header.length as usize;
            let target = (self.buffer.len() + bytes).max(self.buffer.len() * 2).min(total);
            self.buffer.reserve_exact(target - self.buffer.len());
        }
    }
}

/// Checks the sum of a chunk's payload.
fn check_sum(header: &ChunkHeader, computed: u32) -> Result<(), CodecError> {
    let ChunkHeader { kind, id, payload_crc: received, .. } = *header;
    if computed != received {
        return Err(CodecError::PayloadCorrupt { kind, id, computed, received });
    }
    Ok(())
}

/// Checks the start of a message against its first chunk.
fn check_message(
    chunk: &ChunkHeader,
    message: &MessageHeader,
    message_bytes_max: u32,
) -> Result<(), CodecError> {
    if message.length > message_bytes_max {
        return Err(CodecError::MessageTooLong { length: message.length, limit: message_bytes_max });
    }
    if lane_of(message.priority) != usize::from(chunk.lane) {
        return Err(CodecError::BadLane { kind: ChunkKind::Message, lane: chunk.lane });
    }
    check_length(chunk, 0, chunk.length as usize - MESSAGE_HEADER_BYTES, message.length)
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
