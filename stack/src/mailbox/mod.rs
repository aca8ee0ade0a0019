//! What other threads leave for the one that drives endpoints, and how they wake it.
//!
//! A [`Mailbox`] has two sides. Any thread leaves commands ([`Mailbox::post`]), wakes ([`WakeTarget`]) and notices; its
//! owner, the thread that drives the endpoints, takes them between its other work, and announces when it goes to sleep.
//! Nothing here takes a lock, and nothing left is overlooked: see [`Mailbox::prepare_sleep`] and [`Mailbox::close`].

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use crossbeam::queue::SegQueue;

use crate::endpoint::{ConnectionId, Endpoint, WakeTarget, Waker};
use crate::tcp::connection::CloseReason;
use crate::time::Instant;

/// Commands that may wait.
const COMMANDS_MAX: usize = 1_024;

/// What the owner of a mailbox is, as far as the mailbox has to know.
pub trait Resident: Send + Sync {
    /// What it is told to do.
    type Command: Send;
    /// Names a listener whose guard was dropped.
    type Listener: Send;

    /// Wakes the owner from the sleep that it has announced. May come late, when it is awake or sleeps again: then it
    /// finds nothing.
    fn ring(&self);

    /// Answers a command that is never executed, because the owner has ended.
    fn refuse(&self, command: Self::Command);
}

/// Why a command was not taken; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<C> {
    /// The queue is full, and the caller must not wait.
    Full(C),
    /// The owner has ended.
    Gone(C),
}

/// The shared side of a thread that drives endpoints.
pub struct Mailbox<R: Resident> {
    resident: R,
    commands: (Sender<R::Command>, Receiver<R::Command>),
    /// At most one per waker, since a waker reports once between two calls of `on_wake`: a wake is never lost for
    /// want of room.
    wakes: SegQueue<ConnectionId>,
    /// At most one per listener.
    unlisten: SegQueue<R::Listener>,
    stop: AtomicBool,
    /// No command is executed any more: whoever finds one in the queue refuses it.
    gone: AtomicBool,
    sleeping: AtomicBool,
    thread: OnceLock<ThreadId>,
}

impl<R: Resident> Mailbox<R> {
    /// An empty mailbox.
    pub fn new(resident: R) -> Self {
        Mailbox {
            resident,
            commands: bounded(COMMANDS_MAX),
            wakes: SegQueue::new(),
            unlisten: SegQueue::new(),
            stop: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    }

    /// Whose it is.
    pub fn resident(&self) -> &R {
        &self.resident
    }

    /// Leaves a command. Waits for room, except on the owner's own thread, which would wait for itself.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn post(&self, command: R::Command) -> Result<(), Refused<R::Command>> {
        match self.try_post(command) {
            Err(Refused::Full(command)) if !self.is_own_thread() => {
                // The mailbox holds both ends, so the queue is never disconnected. It is emptied when the owner ends.
                self.commands.0.send(command).map_err(|refused| Refused::Gone(refused.0))?;
                self.posted();
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Leaves a command if there is room. For threads that must not wait for each other.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn try_post(&self, command: R::Command) -> Result<(), Refused<R::Command>> {
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
            // The owner may have emptied the queue just before the command got there.
            self.refuse_all();
        }
    }

    /// Notes that a listener is wanted no more.
    pub fn post_unlisten(&self, id: R::Listener) {
        if !self.is_gone() {
            self.unlisten.push(id);
            self.ring();
        }
    }

    /// Asks the owner to end.
    pub fn post_stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// Wakes the owner if it sleeps, after something was left where it looks.
    pub fn ring(&self) {
        // Pairs with the fence in `prepare_sleep`: either this thread sees that the owner sleeps, or the owner sees what
        // this thread left. Who finds it asleep first rings; the others need not.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.resident.ring();
        }
    }

    /// For the owner: announces sleep. Returns whether nothing was left meanwhile, so that it may sleep until
    /// [`Resident::ring`]; then [`Self::end_sleep`] ends the sleep. A source of work of its own it looks at after this:
    /// who leaves something there calls [`Self::ring`].
    #[must_use]
    pub fn prepare_sleep(&self) -> bool {
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

    /// For the owner: it is awake.
    pub fn end_sleep(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// For the owner: the next command.
    pub fn take_command(&self) -> Option<R::Command> {
        self.commands.1.try_recv().ok()
    }

    /// For the owner: the next connection whose waker was called.
    pub fn take_wake(&self) -> Option<ConnectionId> {
        self.wakes.pop()
    }

    /// For the owner: the next listener that is wanted no more.
    pub fn take_unlisten(&self) -> Option<R::Listener> {
        self.unlisten.pop()
    }

    /// For the owner: whether it is to end.
    pub fn should_stop(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Whether the owner has ended: it executes no more commands.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// For the owner: this is its thread.
    pub fn set_thread(&self) {
        self.thread.get_or_init(|| std::thread::current().id());
    }

    /// Whether the caller is on the owner's thread, which must not wait for its own answers.
    pub fn is_own_thread(&self) -> bool {
        self.thread.get() == Some(&std::thread::current().id())
    }

    /// For the owner: it executes no more commands. Each that is in the queue, or gets there yet, is refused.
    pub fn close(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.refuse_all();
        while self.wakes.pop().is_some() {}
    }

    fn refuse_all(&self) {
        while let Some(command) = self.take_command() {
            self.resident.refuse(command);
        }
    }
}

impl<R: Resident> WakeTarget for Mailbox<R> {
    fn wake(&self, id: ConnectionId) {
        if !self.is_gone() {
            self.wakes.push(id);
            self.ring();
        }
    }
}

/// Tells an endpoint that it gets no connection.
pub fn refuse(endpoint: &mut dyn Endpoint, now: Instant, reason: CloseReason) {
    let nobody = ConnectionId { index: u32::MAX, generation: 0 };
    endpoint.on_attached(now, Waker::new(nobody, Arc::new(Nowhere)));
    endpoint.on_closed(now, reason);
}

/// Where the wakes of an endpoint without a connection go.
struct Nowhere;

impl WakeTarget for Nowhere {
    fn wake(&self, _id: ConnectionId) {}
}
