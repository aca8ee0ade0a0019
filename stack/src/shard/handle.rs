//! Reaching a shard from other threads.

use core::fmt;
use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::channel::bounded;
use outrider_drivers::port::PortStatistics;

use super::command::{Command, Mailbox};
use crate::endpoint::{Acceptor, Endpoint};
use crate::mailbox::Refused;
use crate::net::{ConnectionSummary, ListenError, ListenOptions, ListenerId, StackStatistics};
use crate::time::Clock;

/// Reaches a shard from any thread. Cheap to clone.
#[derive(Clone)]
pub struct ShardHandle {
    mailbox: Arc<Mailbox>,
}

/// A shard at one instant.
#[derive(Clone, Debug, Default)]
pub struct ShardSnapshot {
    /// Counters of the stack.
    pub stack: StackStatistics,
    /// Counters of the port.
    pub port: PortStatistics,
    /// Its connections; none once it has ended.
    pub connections: Vec<ConnectionSummary>,
    /// CPU time of its thread.
    pub cpu_time: Duration,
    /// How often the thread went to sleep.
    pub sleeps: u64,
}

/// Why a connection could not be begun. The endpoint comes back, and has not been called.
#[derive(thiserror::Error)]
pub enum ConnectError {
    /// The command queue is full, and the caller is on the shard's own thread, where waiting would block it.
    #[error("the shard's command queue is full")]
    Full(Box<dyn Endpoint>),
    /// The shard has ended, or its port failed.
    #[error("the network port is gone")]
    PortGone(Box<dyn Endpoint>),
}

impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Full(_) => f.write_str("Full"),
            ConnectError::PortGone(_) => f.write_str("PortGone"),
        }
    }
}

impl ShardHandle {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Self {
        ShardHandle { mailbox }
    }

    pub(super) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Begins a connection. What becomes of it the endpoint is told, on the shard's thread.
    ///
    /// # Errors
    /// See [`ConnectError`]. Waits while the command queue is full, but not on the shard's own thread.
    pub fn connect(&self, remote: SocketAddr, endpoint: Box<dyn Endpoint>) -> Result<(), ConnectError> {
        self.mailbox.post(Command::Connect { remote, endpoint }).map_err(|refused| {
            let full = matches!(refused, Refused::Full(_));
            let (Refused::Full(command) | Refused::Gone(command)) = refused;
            match command {
                Command::Connect { endpoint, .. } if full => ConnectError::Full(endpoint),
                Command::Connect { endpoint, .. } => ConnectError::PortGone(endpoint),
                Command::Listen { .. } | Command::Snapshot(_) => unreachable!("a refused command comes back"),
            }
        })
    }

    /// Accepts connections to `local` (port zero: the stack chooses, see [`ListenerGuard::local`]). Waits for the
    /// shard's answer, so it must not be called on the shard's own thread.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn listen(
        &self,
        local: SocketAddr,
        options: ListenOptions,
        acceptor: Box<dyn Acceptor>,
    ) -> Result<ListenerGuard, ListenError> {
        let (reply, answer) = bounded(1);
        let command = Command::Listen { local, options, acceptor, reply };
        self.mailbox.post(command).map_err(|_| ListenError::PortGone)?;
        let (id, local) = answer.recv().map_err(|_| ListenError::PortGone)??;
        Ok(ListenerGuard { mailbox: Arc::clone(&self.mailbox), id, local })
    }

    /// Counters and connections now, or as they were when the shard ended. Waits for the shard's answer, so it must
    /// not be called on the shard's own thread.
    pub fn statistics(&self) -> ShardSnapshot {
        let (reply, answer) = bounded(1);
        // A refused command drops its reply, and then there is a last snapshot.
        let posted = self.mailbox.post(Command::Snapshot(reply)).is_ok();
        let answered = posted.then(|| answer.recv().ok()).flatten();
        answered.or_else(|| self.mailbox.resident().last_snapshot()).unwrap_or_default()
    }

    /// Whether the shard has ended or lost its port.
    pub fn is_gone(&self) -> bool {
        self.mailbox.is_gone()
    }

    /// The shard's clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.mailbox.resident().clock)
    }
}

impl fmt::Debug for ShardHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardHandle").field("gone", &self.is_gone()).finish()
    }
}

/// Keeps a listener alive: dropping it ends the listening, and resets what is half-open.
pub struct ListenerGuard {
    mailbox: Arc<Mailbox>,
    id: ListenerId,
    local: SocketAddr,
}

impl ListenerGuard {
    /// Where it listens.
    pub fn local(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        self.mailbox.post_unlisten(self.id);
    }
}

impl fmt::Debug for ListenerGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ListenerGuard").field(&self.local).finish()
    }
}
