//! Accepting streams.

use core::time::Duration;
use std::io;
use std::net::SocketAddr;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::endpoint::{Accepted, pair};
use super::{StreamConfig, TcpStream};
use crate::endpoint::{Acceptor, Endpoint};
use crate::net::{ListenError, ListenOptions};
use crate::shard::{ListenerGuard, ShardHandle};
use crate::time::Instant;

/// A listening socket over a shard. Dropping it ends the listening; streams already accepted stay.
pub struct TcpListener {
    guard: ListenerGuard,
    accepted: Receiver<(TcpStream, SocketAddr)>,
}

impl TcpListener {
    /// Listens at `local`; port zero lets the stack choose. `options.backlog` also bounds the streams that wait to
    /// be accepted; a connection beyond them is reset.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn bind(
        shard: &ShardHandle,
        local: SocketAddr,
        options: ListenOptions,
        config: StreamConfig,
    ) -> Result<TcpListener, ListenError> {
        let (waiting, accepted) = bounded(options.backlog.max(1));
        let guard = shard.listen(local, options, Box::new(QueueAcceptor { waiting, config }))?;
        Ok(TcpListener { guard, accepted })
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.guard.local()
    }

    /// Waits for the next connection, and gives it with the peer's address.
    ///
    /// # Errors
    /// `NetworkDown` when the shard is gone.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accepted.recv().map_err(|_| io::ErrorKind::NetworkDown.into())
    }

    /// Like [`Self::accept`], but fails with `TimedOut` when nobody came in time.
    ///
    /// # Errors
    /// `TimedOut`; `NetworkDown` when the shard is gone.
    pub fn accept_timeout(&self, timeout: Duration) -> io::Result<(TcpStream, SocketAddr)> {
        self.accepted.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => io::ErrorKind::TimedOut.into(),
            RecvTimeoutError::Disconnected => io::ErrorKind::NetworkDown.into(),
        })
    }
}

struct QueueAcceptor {
    waiting: Sender<(TcpStream, SocketAddr)>,
    config: StreamConfig,
}

impl Acceptor for QueueAcceptor {
    fn accept(
        &mut self,
        _now: Instant,
        _local: SocketAddr,
        _remote: SocketAddr,
    ) -> Option<Box<dyn Endpoint>> {
        if self.waiting.is_full() {
            return None;
        }
        let (endpoint, ends) = pair(&self.config);
        let accepted = Accepted { queue: self.waiting.clone(), stream: TcpStream::new(ends, &self.config) };
        Some(Box::new(endpoint.with_accepted(accepted)))
    }
}
