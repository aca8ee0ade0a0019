//! What ends a session other than an orderly close.

use core::fmt;

use crate::codec::{ChunkKind, CloseCode, CodecError, VERSION};
use crate::features::Features;

/// The first bytes of a peer that speaks another protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FirstBytes {
    pub(crate) bytes: [u8; 16],
    pub(crate) length: usize,
}

impl FirstBytes {
    pub(crate) fn new(stream: &[u8]) -> Self {
        let mut first = FirstBytes { bytes: [0; 16], length: stream.len().min(16) };
        first.bytes[..first.length].copy_from_slice(&stream[..first.length]);
        first
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Display for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_slice().escape_ascii())
    }
}

impl fmt::Debug for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a session failed. All but the last are the peer's doing, or the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The stream does not begin with the magic.
    #[error("the peer does not speak Outrider: its stream begins with {0}")]
    NotOutrider(FirstBytes),
    /// Another version of the wire format.
    #[error("the peer speaks version {0} of the wire format, this end version {VERSION}")]
    Version(u16),
    /// The banner's checksum does not match.
    #[error("the peer's banner is corrupt")]
    BannerCorrupt,
    /// The peer lacks features that this end requires.
    #[error("the peer lacks features {0}, which this end requires")]
    PeerLacksFeatures(Features),
    /// The peer requires features that this end lacks.
    #[error("the peer requires features {0}, which this end lacks")]
    PeerRequiresFeatures(Features),
    /// An authentication method that this end does not accept.
    #[error("the peer uses authentication method {0}, which this end does not accept")]
    AuthMethod(u8),
    /// Limits with which no message could be sent.
    #[error("the peer grants a receive credit of {credit_bytes} bytes, too little to work with")]
    UnusableLimits {
        /// What it grants.
        credit_bytes: u64,
    },
    /// A chunk at a time when its kind has no place.
    #[error("peer misbehaved: {kind:?} chunk while {phase}")]
    UnexpectedChunk {
        /// Its kind.
        kind: ChunkKind,
        /// What was expected then.
        phase: &'static str,
    },
    /// A grant below an earlier one.
    #[error("peer misbehaved: receive credit taken back from {from} to {to}")]
    CreditShrunk {
        /// Before.
        from: u64,
        /// The new limit.
        to: u64,
    },
    /// OOB sequences go up.
    #[error("peer misbehaved: OOB message {sequence} after {last}")]
    OobSequence {
        /// Of the chunk.
        sequence: u64,
        /// Of the one before it on the stream.
        last: u64,
    },
    /// The stream is corrupt or breaks a rule.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// An acknowledgement of messages that were not sent, or one taken back.
    #[error("peer misbehaved: it acknowledges messages that were not sent, or no longer those that it did")]
    ImpossibleAck,
    /// The answer is for another session than the one dialled for.
    #[error("peer misbehaved: its answer is for another session")]
    OtherSession,
    /// Nothing was said for a long time.
    #[error("nothing was said for a long time")]
    Idle,
    /// The peer did not complete the handshake in time.
    #[error("the peer did not complete the handshake in time")]
    HandshakeTimeout,
}

impl SessionError {
    /// What the peer is told, when it can be told anything.
    pub(super) fn close_code(&self) -> Option<CloseCode> {
        match self {
            SessionError::PeerLacksFeatures(_) | SessionError::PeerRequiresFeatures(_) => {
                Some(CloseCode::MissingFeature)
            }
            SessionError::AuthMethod(_) => Some(CloseCode::AuthenticationRefused),
            SessionError::UnusableLimits { .. } => Some(CloseCode::UnusableLimits),
            SessionError::HandshakeTimeout => Some(CloseCode::HandshakeTimeout),
            SessionError::Idle => Some(CloseCode::Idle),
            SessionError::NotOutrider(_)
            | SessionError::Version(_)
            | SessionError::BannerCorrupt
            | SessionError::UnexpectedChunk { .. }
            | SessionError::CreditShrunk { .. }
            | SessionError::OobSequence { .. }
            | SessionError::ImpossibleAck
            | SessionError::OtherSession
            | SessionError::Codec(_) => None,
        }
    }
}
