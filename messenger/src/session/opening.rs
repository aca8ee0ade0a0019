//! The handshake of a session, as far as it is ours, and what is kept while it lasts.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::{Phase, Session};
use crate::codec::{AUTH_METHOD_NONE, Auth, Banner, ChunkHeader, ChunkKind, Hello, SessionTerms, VERSION};
use crate::features::Features;
use crate::sparse::Moment;

/// What is of use until both sides are ready and the last byte of the handshake has left.
#[derive(Default)]
pub(super) struct Opening {
    pub(super) is_dialler: bool,
    /// What the peer supports, once its banner has come.
    pub(super) peer_features: Features,
    pub(super) own_terms: SessionTerms,
    pub(super) peer_terms: SessionTerms,
    /// The peer's, as far as it has come.
    pub(super) banner: Vec<u8>,
    /// Bytes of ours that are still to be sent.
    pub(super) unsent: VecDeque<u8>,
    pub(super) deadline: Moment,
}

impl Session {
    /// The state of the handshake. After it, one that asks for nothing.
    pub(super) fn opening(&mut self) -> &mut Opening {
        self.opening.get_or_insert_default()
    }

    /// Whether bytes of the handshake are still to be sent.
    #[inline]
    pub(super) fn is_opening(&self) -> bool {
        self.opening.as_ref().is_some_and(|opening| !opening.unsent.is_empty())
    }

    /// Forgets the handshake once it is over and its last byte has left.
    pub(super) fn settle_opening(&mut self) {
        if self.phase == Phase::Open && !self.is_opening() {
            self.opening = None;
        }
    }

    /// Our side of the handshake up to Ready. The segment that completed the transport's handshake may have brought so
    /// much of the peer's that an answer is queued already: this goes before it.
    pub(super) fn open_handshake(&mut self, local: IpAddr) {
        let later = core::mem::take(&mut self.opening().unsent);
        // An end that listens on all its addresses is reached by the one of this connection.
        let addresses = self.config.addresses.iter().map(|address| match address.ip().is_unspecified() {
            true => SocketAddr::new(local, address.port()),
            false => *address,
        });
        let hello = Hello {
            name: self.config.name,
            nonce: self.config.nonce,
            addresses: addresses.collect(),
            receive_credit_bytes: self.config.receive_credit_bytes,
            message_bytes_max: self.config.message_bytes_max,
        };
        let banner =
            Banner { version: VERSION, supported: self.config.supported, required: self.config.required };
        self.opening().unsent.extend(banner.encode());
        self.push_handshake(ChunkKind::Hello, &hello.encode());
        self.push_handshake(ChunkKind::Auth, &Auth { method: AUTH_METHOD_NONE }.encode());
        if self.opening().is_dialler {
            let terms = self.opening().own_terms.encode();
            self.push_handshake(ChunkKind::Connect, &terms);
        }
        self.opening().unsent.extend(later);
    }

    pub(super) fn push_handshake(&mut self, kind: ChunkKind, payload: &[u8]) {
        let unsent = &mut self.opening().unsent;
        unsent.extend(ChunkHeader::whole(kind, 0, payload).encode());
        unsent.extend(payload);
    }
}
