//! Dispatchers, and the threads that call them.

use std::panic;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::connection::{Connection, Inner};
use crate::message::Message;
use crate::oob::OobMessage;

/// Where messages and changes of connections go. The messenger asks its dispatchers in order.
///
/// `ms_dispatch` and `ms_handle_*` run on dispatch threads, in order per connection, and may block; what waits behind
/// them holds receive credit. `ms_can_fast_dispatch`, `ms_fast_dispatch` and `ms_dispatch_oob` run on the connection's
/// shard and must not block: no locks held for long, no [`Connection::send_message`] (use
/// [`Connection::try_send_message`]).
pub trait Dispatcher: Send + Sync {
    /// A message arrived. `Err` gives it to the next dispatcher.
    ///
    /// # Errors
    /// The message, if it is not this dispatcher's.
    fn ms_dispatch(&self, connection: &Connection, message: Message) -> Result<(), Message>;

    /// Whether messages of this kind go to [`Self::ms_fast_dispatch`], past all that wait for a dispatch thread.
    fn ms_can_fast_dispatch(&self, _kind: u16) -> bool {
        false
    }

    /// A message arrived whose kind [`Self::ms_can_fast_dispatch`] takes.
    fn ms_fast_dispatch(&self, _connection: &Connection, _message: Message) {}

    /// An OOB message arrived. Every dispatcher gets it.
    fn ms_dispatch_oob(&self, _connection: &Connection, _message: OobMessage) {}

    /// A connection that this end dialled is ready.
    fn ms_handle_connect(&self, _connection: &Connection) {}

    /// A connection that the peer dialled is ready.
    fn ms_handle_accept(&self, _connection: &Connection) {}

    /// A connection was lost, and with it what was not sent.
    fn ms_handle_reset(&self, _connection: &Connection) {}

    /// The peer lost its side of a session that was to be resumed.
    fn ms_handle_remote_reset(&self, _connection: &Connection) {}

    /// Nobody listens at the address dialled, or the peer refused this end.
    fn ms_handle_refused(&self, _connection: &Connection) {}
}

/// A change of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Connected,
    Accepted,
    Reset,
    Refused,
}

/// Work for a dispatch thread. Bounded: messages by their connections' receive credit, notices by two a connection.
pub(super) enum Item {
    Message { connection: Connection, message: Message, credit_bytes: u64 },
    Notice { connection: Connection, notice: Notice },
    Stop,
}

/// The chain of dispatchers.
#[derive(Clone)]
pub(super) struct Chain(pub(super) Arc<[Arc<dyn Dispatcher>]>);

impl Chain {
    /// Calls the first dispatcher that fast-dispatches the message's kind; gives the message back if none does.
    pub(super) fn fast_dispatch(&self, connection: &Connection, message: Message) -> Option<Message> {
        match self.0.iter().find(|dispatcher| dispatcher.ms_can_fast_dispatch(message.kind)) {
            Some(dispatcher) => {
                dispatcher.ms_fast_dispatch(connection, message);
                None
            }
            None => Some(message),
        }
    }

    pub(super) fn dispatch_oob(&self, connection: &Connection, message: OobMessage) {
        if let Some((last, others)) = self.0.split_last() {
            for dispatcher in others {
                dispatcher.ms_dispatch_oob(connection, message.clone());
            }
            last.ms_dispatch_oob(connection, message);
        }
    }

    fn dispatch(&self, connection: &Connection, mut message: Message) {
        for dispatcher in &*self.0 {
            match dispatcher.ms_dispatch(connection, message) {
                Ok(()) => return,
                Err(refused) => message = refused,
            }
        }
        tracing::warn!(kind = message.kind, peer = ?connection.peer_name(), "no dispatcher takes this kind of message");
    }

    fn notify(&self, connection: &Connection, notice: Notice) {
        for dispatcher in &*self.0 {
            match notice {
                Notice::Connected => dispatcher.ms_handle_connect(connection),
                Notice::Accepted => dispatcher.ms_handle_accept(connection),
                Notice::Reset => dispatcher.ms_handle_reset(connection),
                Notice::Refused => dispatcher.ms_handle_refused(connection),
            }
        }
    }
}

/// The dispatch threads. A connection belongs to one of them, so its messages stay in order.
pub(super) struct Pool {
    queues: Vec<Sender<Item>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pool {
    pub(super) fn start(name: &str, count: usize, chain: &Chain) -> Result<Pool, std::io::Error> {
        let mut pool =
            Pool { queues: Vec::with_capacity(count), threads: Mutex::new(Vec::with_capacity(count)) };
        for index in 0..count {
            let (queue, items) = unbounded();
            let chain = chain.clone();
            let thread = thread::Builder::new().name(format!("{name} ms{index}"));
            match thread.spawn(move || run(&items, &chain)) {
                Ok(thread) => {
                    pool.queues.push(queue);
                    pool.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(thread);
                }
                Err(error) => {
                    pool.stop();
                    return Err(error);
                }
            }
        }
        Ok(pool)
    }

    /// The queue of the thread that a connection belongs to.
    pub(super) fn queue(&self, connection_id: u64) -> Sender<Item> {
        self.queues[(connection_id % self.queues.len() as u64) as usize].clone()
    }

    /// Each thread ends when it has done what is queued before this.
    pub(super) fn stop(&self) {
        for queue in &self.queues {
            // Fails only if the thread has ended already.
            let _ = queue.send(Item::Stop);
        }
    }

    /// Waits until all threads have ended. A dispatcher's panic goes on here.
    pub(super) fn join(&self) {
        let threads = core::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if let Err(payload) = thread.join() {
                panic::resume_unwind(payload);
            }
        }
    }
}

fn run(items: &Receiver<Item>, chain: &Chain) {
    for item in items {
        match item {
            Item::Message { connection, message, credit_bytes } => {
                chain.dispatch(&connection, message);
                connection.inner.on_dispatched(credit_bytes);
            }
            Item::Notice { connection, notice } => chain.notify(&connection, notice),
            Item::Stop => break,
        }
    }
}

impl Inner {
    /// A dispatch thread is done with a message: its credit can be granted again. The connection's thread is woken
    /// for every eighth of the window only; it grants by quarters.
    fn on_dispatched(&self, credit_bytes: u64) {
        let before = self.dispatched_bytes.fetch_add(credit_bytes, Ordering::Relaxed);
        self.dispatched_messages.fetch_add(1, Ordering::Release);
        let step = (self.core.receive_credit_bytes() / 8).max(1);
        if before / step != (before + credit_bytes) / step {
            self.wake();
        }
    }
}
