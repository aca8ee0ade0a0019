//! Payloads of the handshake and control chunks.
//!
//! A payload longer than this version knows is read as far as it is known: a later version may append fields.

use core::fmt;
use std::net::{IpAddr, SocketAddr};

use super::reader::Reader;
use super::{ChunkKind, CodecError};
use crate::name::{EntityKind, EntityName};

/// Addresses that a [`Hello`] carries at most.
pub const ADDRESSES_MAX: usize = 16;
/// No authentication: the network is trusted.
pub const AUTH_METHOD_NONE: u8 = 0;

/// Who the sender is and what it allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Name.
    pub name: EntityName,
    /// Tells one life of the entity from the next.
    pub nonce: u64,
    /// Where it listens; empty for a client.
    pub addresses: Vec<SocketAddr>,
    /// The window of its receive credit, bytes. What may be sent before the first grant stands in [`super::SessionTerms`].
    pub receive_credit_bytes: u64,
    /// Largest message payload taken.
    pub message_bytes_max: u32,
}

impl Hello {
    /// The payload. Addresses beyond [`ADDRESSES_MAX`] are left out.
    pub fn encode(&self) -> Vec<u8> {
        let addresses = &self.addresses[..self.addresses.len().min(ADDRESSES_MAX)];
        let mut out = Vec::with_capacity(32 + addresses.len() * 20);
        out.extend_from_slice(&[self.name.kind.code(), 0]);
        out.extend_from_slice(&(addresses.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.message_bytes_max.to_le_bytes());
        out.extend_from_slice(&self.name.id.to_le_bytes());
        out.extend_from_slice(&self.nonce.to_le_bytes());
        out.extend_from_slice(&self.receive_credit_bytes.to_le_bytes());
        for address in addresses {
            out.extend_from_slice(&[if address.is_ipv4() { 4 } else { 6 }, 0]);
            out.extend_from_slice(&address.port().to_le_bytes());
            match address.ip() {
                IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
            }
        }
        out
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// [`CodecError::Malformed`].
    pub fn decode(payload: &[u8]) -> Result<Hello, CodecError> {
        let malformed = |what| CodecError::Malformed { kind: ChunkKind::Hello, what };
        let short = || malformed("too short");
        let mut reader = Reader::new(payload);
        let code = reader.u8().ok_or_else(short)?;
        let kind = EntityKind::from_code(code).ok_or(malformed("unknown entity kind"))?;
        reader.u8().ok_or_else(short)?;
        let count = usize::from(reader.u16().ok_or_else(short)?);
        if count > ADDRESSES_MAX {
            return Err(malformed("too many addresses"));
        }
        let message_bytes_max = reader.u32().ok_or_else(short)?;
        let name = EntityName { kind, id: reader.u64().ok_or_else(short)? };
        let nonce = reader.u64().ok_or_else(short)?;
        let receive_credit_bytes = reader.u64().ok_or_else(short)?;
        let mut addresses = Vec::with_capacity(count);
        for _ in 0..count {
            let family = reader.u8().ok_or_else(short)?;
            reader.u8().ok_or_else(short)?;
            let port = reader.u16().ok_or_else(short)?;
            let ip = match family {
                4 => IpAddr::from(reader.octets::<4>().ok_or_else(short)?),
                6 => IpAddr::from(reader.octets::<16>().ok_or_else(short)?),
                _ => return Err(malformed("unknown address family")),
            };
            addresses.push(SocketAddr::new(ip, port));
        }
        Ok(Hello { name, nonce, addresses, receive_credit_bytes, message_bytes_max })
    }
}

/// One step of the authentication phase. With method `none` there is one from either side, without data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// [`AUTH_METHOD_NONE`]; others follow.
    pub method: u8,
}

impl Auth {
    /// The payload.
    pub fn encode(&self) -> [u8; 2] {
        [self.method, 0]
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// [`CodecError::Malformed`].
    pub fn decode(payload: &[u8]) -> Result<Auth, CodecError> {
        let method =
            payload.first().ok_or(CodecError::Malformed { kind: ChunkKind::Auth, what: "too short" })?;
        Ok(Auth { method: *method })
    }
}

/// Why a side closed in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// It has no more use for the connection.
    Finished,
    /// The other side lacks a feature that it requires.
    MissingFeature,
    /// It does not accept the other side's authentication.
    AuthenticationRefused,
    /// The handshake took too long.
    HandshakeTimeout,
    /// The other side's limits are unusable.
    UnusableLimits,
    /// The attempt is older than another one of the same peer, whose number this is.
    Stale(u64),
    /// The side that closes dials too, and its attempt is the one that counts.
    Wait,
    /// The session that was to be resumed is not there.
    UnknownSession,
    /// Another connection has taken this one's place.
    Replaced,
    /// Nothing was to be said for a long time.
    Idle,
    /// A reason of a later version.
    Other(u16),
}

impl CloseCode {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            CloseCode::Finished => 0,
            CloseCode::MissingFeature => 1,
            CloseCode::AuthenticationRefused => 2,
            CloseCode::HandshakeTimeout => 3,
            CloseCode::UnusableLimits => 4,
            CloseCode::Stale(_) => 5,
            CloseCode::Wait => 6,
            CloseCode::UnknownSession => 7,
            CloseCode::Replaced => 8,
            CloseCode::Idle => 9,
            CloseCode::Other(code) => code,
        }
    }

    /// The reason of a number on the wire.
    pub const fn from_code(code: u16) -> CloseCode {
        match code {
            0 => CloseCode::Finished,
            1 => CloseCode::MissingFeature,
            2 => CloseCode::AuthenticationRefused,
            3 => CloseCode::HandshakeTimeout,
            4 => CloseCode::UnusableLimits,
            5 => CloseCode::Stale(0),
            6 => CloseCode::Wait,
            7 => CloseCode::UnknownSession,
            8 => CloseCode::Replaced,
            9 => CloseCode::Idle,
            other => CloseCode::Other(other),
        }
    }

    /// Reads the payload of a Close chunk.
    ///
    /// # Errors
    /// [`CodecError::Malformed`].
    pub fn decode(payload: &[u8]) -> Result<CloseCode, CodecError> {
        let malformed = CodecError::Malformed { kind: ChunkKind::Close, what: "too short" };
        let mut reader = Reader::new(payload);
        match CloseCode::from_code(reader.u16().ok_or(malformed)?) {
            CloseCode::Stale(_) => {
                reader.take(6).ok_or(malformed)?;
                reader.u64().map(CloseCode::Stale).ok_or(malformed)
            }
            code => Ok(code),
        }
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseCode::Finished => f.write_str("it has no more use for the connection"),
            CloseCode::MissingFeature => f.write_str("it requires a feature that this end lacks"),
            CloseCode::AuthenticationRefused => f.write_str("it does not accept this end's authentication"),
            CloseCode::HandshakeTimeout => f.write_str("the handshake took too long"),
            CloseCode::UnusableLimits => f.write_str("it cannot work with this end's limits"),
            CloseCode::Stale(_) => f.write_str("this end has dialled anew since"),
            CloseCode::Wait => f.write_str("it dials itself"),
            CloseCode::UnknownSession => f.write_str("it does not know the session"),
            CloseCode::Replaced => f.write_str("another connection has taken this one's place"),
            CloseCode::Idle => f.write_str("nothing was said for a long time"),
            CloseCode::Other(code) => write!(f, "reason {code}, unknown to this version"),
        }
    }
}

/// The payload of a Close chunk.
pub fn encode_close(code: CloseCode) -> Vec<u8> {
    let mut out = code.code().to_le_bytes().to_vec();
    if let CloseCode::Stale(attempt) = code {
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&attempt.to_le_bytes());
    }
    out
}

/// The payload of a Credit chunk (cumulative limit) or of a keepalive (the asker's stamp).
pub fn encode_u64(value: u64) -> [u8; 8] {
    value.to_le_bytes()
}

/// Reads the payload of a Credit or keepalive chunk.
///
/// # Errors
/// [`CodecError::Malformed`].
pub fn decode_u64(kind: ChunkKind, payload: &[u8]) -> Result<u64, CodecError> {
    Reader::new(payload).u64().ok_or(CodecError::Malformed { kind, what: "too short" })
}
