//! The fixed header of every chunk, and the one at the start of every message.

use super::{CodecError, crc32c};

/// Bytes of [`ChunkHeader`] on the wire.
pub const CHUNK_HEADER_BYTES: usize = 24;
/// Bytes of [`MessageHeader`] on the wire.
pub const MESSAGE_HEADER_BYTES: usize = 16;
/// The chunk begins its unit.
pub const FLAG_FIRST: u8 = 1;
/// The chunk ends its unit.
pub const FLAG_LAST: u8 = 2;

/// What a chunk carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChunkKind {
    /// Identity and limits. First chunk of either side.
    Hello = 1,
    /// Authentication.
    Auth = 2,
    /// The sender has accepted the other side; messages may follow.
    Ready = 3,
    /// An OOB message.
    Oob = 4,
    /// Asks for an answer.
    Keepalive = 5,
    /// The answer.
    KeepaliveAck = 6,
    /// Receive credit.
    Credit = 7,
    /// The last chunk of either side.
    Close = 8,
    /// The side that dialled says which session it is for.
    Connect = 9,
    /// Messages received, of a session that resends.
    Ack = 10,
    /// Bytes of a message.
    Message = 16,
}

impl ChunkKind {
    /// The kind of a number on the wire.
    pub const fn from_code(code: u8) -> Option<ChunkKind> {
        Some(match code {
            1 => ChunkKind::Hello,
            2 => ChunkKind::Auth,
            3 => ChunkKind::Ready,
            4 => ChunkKind::Oob,
            5 => ChunkKind::Keepalive,
            6 => ChunkKind::KeepaliveAck,
            7 => ChunkKind::Credit,
            8 => ChunkKind::Close,
            9 => ChunkKind::Connect,
            10 => ChunkKind::Ack,
            16 => ChunkKind::Message,
            _ => return None,
        })
    }

    /// Payload bytes at most. Later versions may append to a payload, so the limits leave room.
    pub const fn payload_bytes_max(self) -> u32 {
        match self {
            ChunkKind::Hello | ChunkKind::Auth => 4096,
            ChunkKind::Oob => super::OOB_PAYLOAD_BYTES_MAX as u32,
            ChunkKind::Ready
            | ChunkKind::Keepalive
            | ChunkKind::KeepaliveAck
            | ChunkKind::Credit
            | ChunkKind::Close
            | ChunkKind::Connect
            | ChunkKind::Ack => 256,
            // Bounded by credit and by the message's announced length instead.
            ChunkKind::Message => u32::MAX,
        }
    }
}

/// The fixed header of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// What it carries.
    pub kind: ChunkKind,
    /// [`FLAG_FIRST`], [`FLAG_LAST`].
    pub flags: u8,
    /// Bytes of authentication tag after the payload: 0, or 16 once encryption is agreed.
    pub tag_length: u8,
    /// Lane of a message, 0 for all else.
    pub lane: u8,
    /// Payload bytes.
    pub length: u32,
    /// Number of a message within its lane, sequence of an OOB message, 0 for all else.
    pub id: u64,
    /// CRC32C of the payload.
    pub payload_crc: u32,
}

impl ChunkHeader {
    /// A header of something that is whole in one chunk.
    pub fn whole(kind: ChunkKind, id: u64, payload: &[u8]) -> ChunkHeader {
        ChunkHeader {
            kind,
            flags: FLAG_FIRST | FLAG_LAST,
            tag_length: 0,
            lane: 0,
            length: payload.len() as u32,
            id,
            payload_crc: crc32c(payload),
        }
    }

    /// The header as it is on the wire.
    pub fn encode(&self) -> [u8; CHUNK_HEADER_BYTES] {
        let mut bytes = [0; CHUNK_HEADER_BYTES];
        bytes[0] = self.kind as u8;
        bytes[1] = self.flags;
        bytes[2] = self.tag_length;
        bytes[3] = self.lane;
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c(&bytes[..20]);
        bytes[20..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header and checks all that needs no context.
    ///
    /// # Errors
    /// A header that is corrupt, unknown or impossible.
    pub fn decode(bytes: &[u8; CHUNK_HEADER_BYTES]) -> Result<ChunkHeader, CodecError> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (computed, received) = (crc32c(&bytes[..20]), u32_at(20));
        if computed != received {
            return Err(CodecError::HeaderCorrupt { computed, received });
        }
        let kind = ChunkKind::from_code(bytes[0]).ok_or(CodecError::UnknownKind(bytes[0]))?;
        let header = ChunkHeader {
            kind,
            flags: bytes[1],
            tag_length: bytes[2],
            lane: bytes[3],
            length: u32_at(4),
            id: u64::from(u32_at(8)) | u64::from(u32_at(12)) << 32,
            payload_crc: u32_at(16),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), CodecError> {
        let kind = self.kind;
        let known = FLAG_FIRST | FLAG_LAST;
        if self.flags & !known != 0 || (kind != ChunkKind::Message && self.flags != known) {
            return Err(CodecError::BadFlags { kind, flags: self.flags });
        }
        if self.tag_length != 0 {
            return Err(CodecError::UnexpectedTag(self.tag_length));
        }
        let lanes = if kind == ChunkKind::Message { crate::message::LANES } else { 1 };
        if usize::from(self.lane) >= lanes {
            return Err(CodecError::BadLane { kind, lane: self.lane });
        }
        if self.length > kind.payload_bytes_max() {
            return Err(CodecError::PayloadTooLong {
                kind,
                length: self.length,
                limit: kind.payload_bytes_max(),
            });
        }
        Ok(())
    }
}

/// The start of every message: the first bytes of its first chunk's payload, never divided between chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHeader {
    /// The application's message type.
    pub kind: u16,
    /// Priority.
    pub priority: u8,
    /// Payload bytes of the message, this header not counted.
    pub length: u32,
    /// Transaction id.
    pub tid: u64,
}

impl MessageHeader {
    /// The header as it is on the wire.
    pub fn encode(&self) -> [u8; MESSAGE_HEADER_BYTES] {
        let mut bytes = [0; MESSAGE_HEADER_BYTES];
        bytes[0..2].copy_from_slice(&self.kind.to_le_bytes());
        bytes[2] = self.priority;
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..].copy_from_slice(&self.tid.to_le_bytes());
        bytes
    }

    /// Reads a header.
    pub fn decode(bytes: &[u8; MESSAGE_HEADER_BYTES]) -> MessageHeader {
        let mut tid = [0; 8];
        tid.copy_from_slice(&bytes[8..]);
        MessageHeader {
            kind: u16::from_le_bytes([bytes[0], bytes[1]]),
            priority: bytes[2],
            length: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            tid: u64::from_le_bytes(tid),
        }
    }
}
