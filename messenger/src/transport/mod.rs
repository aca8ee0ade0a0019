//! What carries the sessions.

use std::net::SocketAddr;
use std::sync::Arc;

use outrider_stack::endpoint::{Acceptor, Endpoint};
use outrider_stack::time::Clock;

/// A transport makes connections and drives the endpoints on them. The session does not know which one it has.
pub trait Transport: Send + Sync {
    /// Dials `remote` and puts `endpoint` on the connection. What fails later comes through the endpoint.
    ///
    /// # Errors
    /// The transport is gone or takes nothing more; the endpoint has been dropped.
    fn connect(&self, remote: SocketAddr, endpoint: Box<dyn Endpoint>) -> Result<(), TransportError>;

    /// Listens on `local` until what it returns is dropped.
    ///
    /// # Errors
    /// The transport is gone, or the address cannot be listened on.
    fn listen(&self, local: SocketAddr, acceptor: Box<dyn Acceptor>) -> Result<Box<dyn Send>, TransportError>;

    /// The clock of every `now` that the endpoints are given.
    fn clock(&self) -> Arc<dyn Clock>;
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
    /// The stack refused.
    #[error("{0}")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}
