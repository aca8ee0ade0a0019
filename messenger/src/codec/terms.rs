//! Payloads about a session that outlives its connections: Connect, the answer in Ready, and Ack.

use super::reader::Reader;
use super::{ChunkKind, CodecError};
use crate::message::LANES;

/// Bytes of [`SessionTerms`] on the wire.
pub const SESSION_TERMS_BYTES: usize = 72;
/// Bytes of an Ack's payload.
pub const ACK_BYTES: usize = 8 * LANES;

const FLAG_LOSSY: u8 = 1;
const FLAG_RESUMED: u8 = 2;

/// Which session a connection is for, and where its sender stands in it: the payload of Connect, and of the Ready
/// that answers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionTerms {
    /// The sender keeps nothing beyond this connection.
    pub lossy: bool,
    /// In an answer: the session goes on where it stood. Otherwise it begins.
    pub resumed: bool,
    /// The sender's number for the session.
    pub cookie: u64,
    /// The other side's number for it; 0 if the sender does not know one, so the session is to begin.
    pub peer_cookie: u64,
    /// In Connect: the number of this attempt, which goes up with every one that the sender makes in its life. In an
    /// answer: the last attempt that its sender made; those up to it are void.
    pub attempt: u64,
    /// Message chunk payload that may be sent on this connection before the first grant, bytes.
    pub credit_limit: u64,
    /// Messages received in each lane since the session began.
    pub received: [u64; LANES],
}

impl SessionTerms {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let SessionTerms { lossy, resumed, cookie, peer_cookie, attempt, credit_limit, received } = self;
        let mut out = Vec::with_capacity(SESSION_TERMS_BYTES);
        let flags = if *lossy { FLAG_LOSSY } else { 0 } | if *resumed { FLAG_RESUMED } else { 0 };
        out.extend_from_slice(&[flags, 0, 0, 0, 0, 0, 0, 0]);
        for value in [cookie, peer_cookie, attempt, credit_limit].into_iter().chain(received) {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out
    }

    /// Reads the payload of a chunk of `kind`.
    ///
    /// # Errors
    /// [`CodecError::Malformed`].
    pub fn decode(kind: ChunkKind, payload: &[u8]) -> Result<SessionTerms, CodecError> {
        let short = CodecError::Malformed { kind, what: "too short" };
        let mut reader = Reader::new(payload);
        let flags = reader.u8().ok_or(short)?;
        reader.take(7).ok_or(short)?;
        let mut next = || reader.u64().ok_or(short);
        let terms = SessionTerms {
            lossy: flags & FLAG_LOSSY != 0,
            resumed: flags & FLAG_RESUMED != 0,
            cookie: next()?,
            peer_cookie: next()?,
            attempt: next()?,
            credit_limit: next()?,
            received: [next()?, next()?, next()?, next()?],
        };
        if terms.cookie == 0 {
            return Err(CodecError::Malformed { kind, what: "a cookie of zero" });
        }
        Ok(terms)
    }
}

/// The payload of an Ack: messages received in each lane since the session began.
pub fn encode_ack(received: &[u64; LANES]) -> [u8; ACK_BYTES] {
    let mut out = [0; ACK_BYTES];
    for (bytes, count) in out.chunks_exact_mut(8).zip(received) {
        bytes.copy_from_slice(&count.to_le_bytes());
    }
    out
}

/// Reads the payload of an Ack.
///
/// # Errors
/// [`CodecError::Malformed`].
pub fn decode_ack(payload: &[u8]) -> Result<[u64; LANES], CodecError> {
    let mut reader = Reader::new(payload);
    let mut received = [0; LANES];
    for count in &mut received {
        *count = reader.u64().ok_or(CodecError::Malformed { kind: ChunkKind::Ack, what: "too short" })?;
    }
    Ok(received)
}
