//! What other threads ask of a shard.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use crossbeam::channel::Sender;
use outrider_drivers::doorbell::Doorbell;

use super::handle::ShardSnapshot;
use crate::endpoint::{Acceptor, Endpoint};
use crate::mailbox::{Resident, refuse};
use crate::net::{ListenError, ListenOptions, ListenerId};
use crate::tcp::connection::CloseReason;
use crate::time::Clock;

pub(super) enum Command {
    Connect {
        remote: SocketAddr,
        endpoint: Box<dyn Endpoint>,
    },
    Listen {
        local: SocketAddr,
        options: ListenOptions,
        acceptor: Box<dyn Acceptor>,
        reply: Sender<Result<(ListenerId, SocketAddr), ListenError>>,
    },
    Snapshot(Sender<ShardSnapshot>),
}

/// The shared side of a shard.
pub(super) type Mailbox = crate::mailbox::Mailbox<Shared>;

/// What a shard shares with other threads besides its mailbox.
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    /// What the shard sleeps on.
    pub(super) doorbell: Doorbell,
    last_snapshot: OnceLock<ShardSnapshot>,
}

impl Shared {
    pub(super) fn new(clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        Ok(Shared { clock, doorbell: Doorbell::new()?, last_snapshot: OnceLock::new() })
    }

    /// As the shard was when it ended.
    pub(super) fn last_snapshot(&self) -> Option<ShardSnapshot> {
        self.last_snapshot.get().cloned()
    }

    /// For the shard, before it closes its mailbox.
    pub(super) fn leave_snapshot(&self, snapshot: ShardSnapshot) {
        self.last_snapshot.get_or_init(|| snapshot);
    }
}

impl Resident for Shared {
    type Command = Command;
    type Listener = ListenerId;

    fn ring(&self) {
        self.doorbell.ring();
    }

    fn refuse(&self, command: Command) {
        match command {
            Command::Connect { mut endpoint, .. } => {
                refuse(&mut *endpoint, self.clock.now(), CloseReason::PortGone);
            }
            Command::Listen { reply, .. } => {
                // Nobody waits any more if the asker is gone.
                let _ = reply.send(Err(ListenError::PortGone));
            }
            Command::Snapshot(reply) => {
                if let Some(snapshot) = self.last_snapshot() {
                    let _ = reply.send(snapshot);
                }
            }
        }
    }
}
