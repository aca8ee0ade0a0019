//! What a peer can do wrong with bytes.

use super::header::ChunkKind;

/// The peer's stream is not what the wire format allows. The connection cannot be used any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The header's own checksum does not match: the stream is corrupt or out of step.
    #[error("chunk header is corrupt: CRC32C {computed:#010x} computed, {received:#010x} received")]
    HeaderCorrupt {
        /// Over the bytes received.
        computed: u32,
        /// In the header.
        received: u32,
    },
    /// The payload's checksum does not match.
    #[error(
        "payload of {kind:?} chunk {id} is corrupt: CRC32C {computed:#010x} computed, {received:#010x} received"
    )]
    PayloadCorrupt {
        /// Kind of the chunk.
        kind: ChunkKind,
        /// Its id.
        id: u64,
        /// Over the bytes received.
        computed: u32,
        /// In the header.
        received: u32,
    },
    /// A kind that this version does not know. Features announce kinds, so the peer should have known.
    #[error("peer misbehaved: chunk of unknown kind {0}")]
    UnknownKind(u8),
    /// Flag bits that mean nothing, or a combination that the kind does not allow.
    #[error("peer misbehaved: {kind:?} chunk with flags {flags:#04x}")]
    BadFlags {
        /// Kind of the chunk.
        kind: ChunkKind,
        /// The flags.
        flags: u8,
    },
    /// An authentication tag although no encryption was agreed.
    #[error("peer misbehaved: chunk announces a tag of {0} bytes, but no encryption was agreed")]
    UnexpectedTag(u8),
    /// A lane that does not exist, or one other than the message's priority gives.
    #[error("peer misbehaved: {kind:?} chunk on lane {lane}")]
    BadLane {
        /// Kind of the chunk.
        kind: ChunkKind,
        /// The lane.
        lane: u8,
    },
    /// More payload than the kind may carry.
    #[error("peer misbehaved: {kind:?} chunk of {length} bytes, at most {limit} allowed")]
    PayloadTooLong {
        /// Kind of the chunk.
        kind: ChunkKind,
        /// Announced.
        length: u32,
        /// Allowed.
        limit: u32,
    },
    /// A message above the limit that this end announced.
    #[error("peer misbehaved: message of {length} bytes, at most {limit} announced")]
    MessageTooLong {
        /// Announced by the peer.
        length: u32,
        /// Announced by this end.
        limit: u32,
    },
    /// Message bytes beyond the receive credit granted.
    #[error("peer misbehaved: {needed} bytes of messages sent against a credit of {granted}")]
    CreditExceeded {
        /// Cumulative, with the chunk refused.
        needed: u64,
        /// Cumulative.
        granted: u64,
    },
    /// Not the message that should come next on its lane: a gap, a repetition, or a start in the middle of another.
    #[error("peer misbehaved: message chunk {id} on lane {lane}, expected {expected}")]
    OutOfSequence {
        /// The lane.
        lane: u8,
        /// In the chunk.
        id: u64,
        /// What had to come.
        expected: u64,
    },
    /// FIRST missing at a message's start, or present in its middle.
    #[error("peer misbehaved: message {id} on lane {lane} begins twice or not at all")]
    BadStart {
        /// The lane.
        lane: u8,
        /// In the chunk.
        id: u64,
    },
    /// Chunks of a message do not add up to the length announced.
    #[error("peer misbehaved: message {id} has {received} bytes of {announced} at its last chunk or beyond")]
    LengthMismatch {
        /// The message.
        id: u64,
        /// With the chunk refused.
        received: u64,
        /// In the message header.
        announced: u32,
    },
    /// The payload is too short for its kind, or says something impossible.
    #[error("peer misbehaved: malformed payload of {kind:?}: {what}")]
    Malformed {
        /// Kind of the chunk.
        kind: ChunkKind,
        /// What is wrong.
        what: &'static str,
    },
}
