//! What other threads leave for a shard, and how they wake it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use crossbeam::queue::SegQueue;
use outrider_drivers::doorbell::Doorbell;

use super::handle::ShardSnapshot;
use crate::endpoint::{Acceptor, ConnectionId, Endpoint, WakeTarget, Waker};
use crate::net::{ListenError, ListenOptions, ListenerId};
use crate::tcp::connection::CloseReason;
use crate::time::Clock;

/// Commands that may wait.
const COMMANDS_MAX: usize = 1_024;

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

/// Why a command was not taken; it comes back.
pub(super) enum Refused {
    /// The queue is full, and the caller must not wait.
    Full(Command),
    /// The shard has ended or lost its port.
    Gone(Command),
}

/// The shared side of a shard.
pub(super) struct Mailbox {
    pub(super) clock: Arc<dyn Clock>,
    commands: (Sender<Command>, Receiver<Command>),
    /// At most one per waker, since a waker reports once between two calls of `on_wake`: a wake is never lost for
    /// want of room.
    wakes: SegQueue<ConnectionId>,
    /// At most one per listener.
    unlisten: SegQueue<ListenerId>,
    stop: AtomicBool,
    /// No command is executed any more: whoever finds one in the queue refuses it.
    gone: AtomicBool,
    sleeping: AtomicBool,
    doorbell: Doorbell,
    thread: OnceLock<ThreadId>,
    last_snapshot: OnceLock<ShardSnapshot>,
}

impl Mailbox {
    pub(super) fn new(clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        Ok(Mailbox {
            clock,
            commands: bounded(COMMANDS_MAX),
            wakes: SegQueue::new(),
            unlisten: SegQueue::new(),
            stop: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            doorbell: Doorbell::new()?,
            thread: OnceLock::new(),
            last_snapshot: OnceLock::new(),
        })
    }

    /// Leaves a command. Waits for room, except on the shard's own thread, which would wait for itself.
    pub(super) fn post(&self, command: Command) -> Result<(), Refused> {
        if self.is_gone() {
            return Err(Refused::Gone(command));
        }
        match self.commands.0.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(command)) if self.thread.get() == Some(&std::thread::current().id()) => {
                return Err(Refused::Full(command));
            }
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => {
                // The mailbox holds both ends, so the queue is never disconnected.
                if let Err(refused) = self.commands.0.send(command) {
                    return Err(Refused::Gone(refused.0));
                }
            }
        }
        self.ring();
        if self.is_gone() {
            // The shard may have drained the queue just before this command got there.
            self.refuse_all();
        }
        Ok(())
    }

    pub(super) fn post_unlisten(&self, id: ListenerId) {
        if !self.is_gone() {
            self.unlisten.push(id);
            self.ring();
        }
    }

    pub(super) fn post_stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// Wakes the shard if it sleeps, after something was left where it looks.
    pub(super) fn ring(&self) {
        // Pairs with the fence in `prepare_sleep`: either this thread sees that the shard sleeps, or the shard sees
        // what this thread left.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) {
            self.doorbell.ring();
        }
    }

    /// For the shard: announces sleep. Returns the doorbell to sleep on, or `None` if something was left meanwhile.
    pub(super) fn prepare_sleep(&self) -> Option<&Doorbell> {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let idle = self.commands.1.is_empty()
            && self.wakes.is_empty()
            && self.unlisten.is_empty()
            && !self.should_stop();
        if !idle {
            self.end_sleep();
        }
        idle.then_some(&self.doorbell)
    }

    /// For the shard: it is awake.
    pub(super) fn end_sleep(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
        self.doorbell.clear();
    }

    pub(super) fn take_command(&self) -> Option<Command> {
        self.commands.1.try_recv().ok()
    }

    pub(super) fn take_wake(&self) -> Option<ConnectionId> {
        self.wakes.pop()
    }

    pub(super) fn take_unlisten(&self) -> Option<ListenerId> {
        self.unlisten.pop()
    }

    pub(super) fn should_stop(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    pub(super) fn set_thread(&self) {
        self.thread.get_or_init(|| std::thread::current().id());
    }

    pub(super) fn last_snapshot(&self) -> Option<ShardSnapshot> {
        self.last_snapshot.get().cloned()
    }

    /// For the shard: it executes no more commands.
    pub(super) fn close(&self, snapshot: ShardSnapshot) {
        self.last_snapshot.get_or_init(|| snapshot);
        self.gone.store(true, Ordering::SeqCst);
        self.refuse_all();
        while self.wakes.pop().is_some() {}
    }

    /// Answers every command in the queue as one whose port is gone.
    fn refuse_all(&self) {
        while let Some(command) = self.take_command() {
            match command {
                Command::Connect { mut endpoint, .. } => {
                    let nobody = ConnectionId { index: u32::MAX, generation: 0 };
                    endpoint.on_attached(self.clock.now(), Waker::new(nobody, Arc::new(Nowhere)));
                    endpoint.on_closed(self.clock.now(), CloseReason::PortGone);
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
}

/// Where the wakes of an endpoint without a connection go.
struct Nowhere;

impl WakeTarget for Nowhere {
    fn wake(&self, _id: ConnectionId) {}
}

impl WakeTarget for Mailbox {
    fn wake(&self, id: ConnectionId) {
        if !self.is_gone() {
            self.wakes.push(id);
            self.ring();
        }
    }
}
