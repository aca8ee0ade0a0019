//! Listening sockets.

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use outrider_drivers::kernel_socket::set_reset_on_close;
use outrider_stack::endpoint::{Acceptor, Endpoint};
use outrider_stack::time::Instant;

use super::command::Mailbox;
use super::failure::{is_exhaustion, is_temporary};

/// After the system had no descriptor left for a connection: when to try again.
const EXHAUSTION_PAUSE: Duration = Duration::from_millis(50);
/// Connections accepted in a turn at most.
const TURN_ACCEPTS_MAX: usize = 64;

/// Names a listener of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListenerId {
    pub(super) index: usize,
    /// Tells it from another that has its place later.
    pub(super) generation: u32,
}

/// Why an address is not listened on.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be listened on: {source}")]
pub struct ListenFailed {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub source: std::io::Error,
}

/// Ends the listening when dropped.
pub(super) struct Guard {
    mailbox: Arc<Mailbox>,
    id: ListenerId,
}

impl Guard {
    pub(super) fn new(mailbox: Arc<Mailbox>, id: ListenerId) -> Self {
        Guard { mailbox, id }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.mailbox.post_unlisten(self.id);
    }
}

/// A connection that was accepted, with its endpoint.
pub(super) type Accepted = (TcpStream, SocketAddr, Box<dyn Endpoint>);

/// A listener on its worker.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) id: ListenerId,
    local: SocketAddr,
    acceptor: Box<dyn Acceptor>,
    /// There may be somebody at the door.
    pub(super) ready: bool,
    /// The system had no room for a connection: not before this time again.
    pub(super) retry_at: Option<Instant>,
}

impl Listener {
    pub(super) fn new(
        socket: TcpListener,
        id: ListenerId,
        local: SocketAddr,
        acceptor: Box<dyn Acceptor>,
    ) -> Self {
        Listener { socket, id, local, acceptor, ready: true, retry_at: None }
    }

    /// Whether a turn would do something now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.ready && self.retry_at.is_none_or(|at| at <= now)
    }

    /// Accepts who waits, and hands each with its endpoint to `take`.
    pub(super) fn turn(&mut self, now: Instant, take: &mut dyn FnMut(Accepted)) {
        self.retry_at = None;
        for _ in 0..TURN_ACCEPTS_MAX {
            match self.socket.accept() {
                Ok((stream, remote)) => match self.acceptor.accept(now, self.local, remote) {
                    Some(endpoint) => take((stream, remote, endpoint)),
                    None => {
                        // An error here is that of a peer that has left already.
                        let _ = set_reset_on_close(&stream);
                    }
                },
                Err(error) if is_temporary(&error) => {
                    self.ready = error.kind() == std::io::ErrorKind::Interrupted;
                    return;
                }
                Err(error) if is_exhaustion(&error) => {
                    tracing::warn!(%error, local = %self.local, "connections must wait to be accepted");
                    self.retry_at = Some(now + EXHAUSTION_PAUSE);
                    return;
                }
                // Of the connection that was to be accepted (accept(2)); it is gone, and the next one has its turn.
                Err(error) => tracing::debug!(%error, local = %self.local, "a connection was not accepted"),
            }
        }
    }
}
