//! What other threads ask of a worker.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::channel::Sender;
use mio::net::TcpStream;
use outrider_stack::endpoint::{Acceptor, Endpoint};
use outrider_stack::mailbox::{Resident, refuse};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::time::Clock;

use super::listener::{ListenFailed, ListenerId};
use super::worker::DOORBELL;

pub(super) enum Command {
    /// Dial.
    Connect { remote: SocketAddr, endpoint: Box<dyn Endpoint> },
    /// Take over a connection that another worker has accepted.
    Adopt { stream: TcpStream, remote: SocketAddr, endpoint: Box<dyn Endpoint> },
    /// Listen, and say where.
    Listen {
        local: SocketAddr,
        acceptor: Box<dyn Acceptor>,
        reply: Sender<Result<(ListenerId, SocketAddr), ListenFailed>>,
    },
}

/// The shared side of a worker.
pub(super) type Mailbox = outrider_stack::mailbox::Mailbox<Shared>;

/// What a worker shares with other threads besides its mailbox.
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    doorbell: mio::Waker,
}

impl Shared {
    pub(super) fn new(poll: &mio::Poll, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        Ok(Shared { clock, doorbell: mio::Waker::new(poll.registry(), DOORBELL)? })
    }
}

impl Resident for Shared {
    type Command = Command;
    type Listener = ListenerId;

    fn ring(&self) {
        if let Err(error) = self.doorbell.wake() {
            tracing::error!(%error, "a worker of the kernel transport could not be woken");
        }
    }

    fn refuse(&self, command: Command) {
        match command {
            Command::Connect { mut endpoint, .. } | Command::Adopt { mut endpoint, .. } => {
                refuse(&mut *endpoint, self.clock.now(), CloseReason::PortGone);
            }
            // Whoever waits for the reply finds that it is gone.
            Command::Listen { .. } => {}
        }
    }
}
