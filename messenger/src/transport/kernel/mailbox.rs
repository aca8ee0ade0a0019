//! What other threads leave for a worker, and how they wake it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use crossbeam::queue::SegQueue;
use mio::net::TcpStream;
use outrider_stack::endpoint::{Acceptor, ConnectionId, Endpoint, WakeTarget, Waker};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::time::Clock;

use super::listener::{ListenFailed, ListenerId};
use super::worker::DOORBELL;

/// Commands that may wait.
const COMMANDS_MAX: usize = 1_024;

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

/// Why a command was not taken; it comes back.
pub(super) enum Refused {
    /// The queue is full, and the caller must not wait.
    Full(Command),
    /// The worker has ended.
    Gone(Command),
}

/// The shared side of a worker.
pub(super) struct Mailbox {
    clock: Arc<dyn Clock>,
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
    doorbell: mio::Waker,
    thread: OnceLock<ThreadId>,
}

impl Mailbox {
    pub(super) fn new(poll: &mio::Poll, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        Ok(Mailbox {
            clock,
            commands: bounded(COMMANDS_MAX),
            wakes: SegQueue::new(),
            unlisten: SegQueue::new(),
            stop: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            doorbell: mio::Waker::new(poll.registry(), DOORBELL)?,
            thread: OnceLock::new(),
        })
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Leaves a command. Waits for room, except on the worker's own thread, which would wait for itself.
    pub(super) fn post(&self, command: Command) -> Result<(), Refused> {
        if self.is_gone() {
            return Err(Refused::Gone(command));
        }
        match self.commands.0.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(command)) if self.is_own_thread() => return Err(Refused::Full(command)),
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => {
                // The mailbox holds both ends, so the queue is never disconnected.
                if let Err(refused) = self.commands.0.send(command) {
                    return Err(Refused::Gone(refused.0));
                }
            }
        }
        self.posted();
        Ok(())
    }

    /// Leaves a command if there is room. For other workers, which must not wait for each other.
    pub(super) fn try_post(&self, command: Command) -> Result<(), Refused> {
        if self.is_gone() {
            return Err(Refused::Gone(command));
        }
        match self.commands.0.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(command)) => return Err(Refused::Full(command)),
            Err(TrySendError::Disconnected(command)) => return Err(Refused::Gone(command)),
        }
        self.posted();
        Ok(())
    }

    fn posted(&self) {
        self.ring();
        if self.is_gone() {
            // The worker may have drained the queue just before the command got there.
            self.refuse_all();
        }
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

    fn ring(&self) {
        // Pairs with the fence in `prepare_sleep`: either this thread sees that the worker sleeps, or the worker sees
        // what this thread left. Who finds it asleep first rings; the others need not.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed)
            && self.sleeping.swap(false, Ordering::Relaxed)
            && let Err(error) = self.doorbell.wake()
        {
            tracing::error!(%error, "a worker of the kernel transport could not be woken");
        }
    }

    /// For the worker: announces sleep. Returns whether nothing was left meanwhile, so that it may sleep.
    pub(super) fn prepare_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let idle = self.commands.1.is_empty()
            && self.wakes.is_empty()
            && self.unlisten.is_empty()
            && !self.should_stop();
        if !idle {
            self.end_sleep();
        }
        idle
    }

    /// For the worker: it is awake.
    pub(super) fn end_sleep(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
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

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// For the worker: this is its thread.
    pub(super) fn set_thread(&self) {
        self.thread.get_or_init(|| std::thread::current().id());
    }

    pub(super) fn is_own_thread(&self) -> bool {
        self.thread.get() == Some(&std::thread::current().id())
    }

    /// For the worker: it executes no more commands.
    pub(super) fn close(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.refuse_all();
        while self.wakes.pop().is_some() {}
    }

    /// Answers every command in the queue as one whose worker is gone.
    fn refuse_all(&self) {
        while let Some(command) = self.take_command() {
            match command {
                Command::Connect { mut endpoint, .. } | Command::Adopt { mut endpoint, .. } => {
                    refuse(&mut *endpoint, &*self.clock, CloseReason::PortGone);
                }
                // Whoever waits for the reply finds that it is gone.
                Command::Listen { .. } => {}
            }
        }
    }
}

/// Tells an endpoint that it gets no connection.
pub(super) fn refuse(endpoint: &mut dyn Endpoint, clock: &dyn Clock, reason: CloseReason) {
    let nobody = ConnectionId { index: u32::MAX, generation: 0 };
    endpoint.on_attached(clock.now(), Waker::new(nobody, Arc::new(Nowhere)));
    endpoint.on_closed(clock.now(), reason);
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
