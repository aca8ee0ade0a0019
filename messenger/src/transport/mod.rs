//! What carries the sessions.

mod driven;
mod kernel;
mod userspace;

pub use driven::DrivenStack;
pub use kernel::{
    CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, Kernel, KernelConfig, KernelStartError, ListenFailed, WORKERS_MAX,
};
pub use userspace::Userspace;

use std::net::SocketAddr;
use std::sync::Arc;

use outrider_stack::endpoint::{Acceptor, Endpoint};
use outrider_stack::time::Clock;

/// A transport makes connections and drives the endpoints on them. The session does not know which one it has.
pub trait Transport: Send + Sync {
    /// Dials `remote` and puts `endpoint` on the connection. What fails later comes through the endpoint.
    ///
    /// # Errors
    /// The transport is gone or takes nothing more; the endpoint comes back.
    fn connect(&self, remote: SocketAddr, endpoint: Box<dyn Endpoint>) -> Result<(), ConnectRefused>;

    /// Listens on `local` until the guard that it returns is dropped, and tells where: with the port that was chosen,
    /// where `local` has none.
    ///
    /// # Errors
    /// The transport is gone, or the address cannot be listened on.
    fn listen_at(&self, local: SocketAddr, acceptor: Box<dyn Acceptor>) -> Result<Listening, TransportError>;

    /// The same where it is known where.
    ///
    /// # Errors
    /// As [`Self::listen_at`].
    fn listen(
        &self,
        local: SocketAddr,
        acceptor: Box<dyn Acceptor>,
    ) -> Result<Box<dyn Send>, TransportError> {
        self.listen_at(local, acceptor).map(|listening| listening.guard)
    }

    /// Whether endpoints are shown bytes that arrive ahead of a gap
    /// ([`SegmentSink::peek_ahead`](outrider_stack::tcp::source::SegmentSink::peek_ahead)). Where they are not, a peer
    /// must not be told that they are.
    fn delivers_ahead(&self) -> bool {
        true
    }

    /// The clock of every `now` that the endpoints are given.
    fn clock(&self) -> Arc<dyn Clock>;
}

/// What keeps a transport listening.
pub struct Listening {
    /// Where it listens.
    pub address: SocketAddr,
    /// Dropping it ends the listening.
    pub guard: Box<dyn Send>,
}

/// A connection that a transport did not begin.
pub struct ConnectRefused {
    /// What was to be put on it.
    pub endpoint: Box<dyn Endpoint>,
    /// Why.
    pub error: TransportError,
}

/// Why a transport did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Its thread has ended.
    #[error("the transport has ended")]
    Gone,
    /// It was made of no shards.
    #[error("the transport has no shards")]
    NoShards,
    /// Its command queue is full, and the caller is on its own thread, where it must not wait.
    #[error("the transport is busy and cannot be waited for on its own thread")]
    Busy,
    /// The stack refused.
    #[error("{0}")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}
