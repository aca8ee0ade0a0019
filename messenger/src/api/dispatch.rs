//! Dispatchers, and the threads that call them.

use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, Sender, unbounded};

use super::connection::{Connection, Inner, MESSAGE_OVERHEAD_BYTES};
use super::throttle::Throttle;
use crate::link::Notice;
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

    /// A connection that this end dialled is ready. Of a lossless one, each time.
    fn ms_handle_connect(&self, _connection: &Connection) {}

    /// A connection is ready that the peer dialled. Of a lossless one, each time.
    fn ms_handle_accept(&self, _connection: &Connection) {}

    /// A connection has ended, and with it what was not delivered.
    fn ms_handle_reset(&self, _connection: &Connection) {}

    /// The peer has lost its side of a lossless session, as when it was restarted. What was meant for it is dropped; the
    /// connection goes on with a session that begins anew.
    fn ms_handle_remote_reset(&self, _connection: &Connection) {}

    /// Nobody listens at the address dialled, or the peer refused this end. A lossy connection has ended with this; a
    /// lossless one goes on trying, and this is told once until it is ready.
    fn ms_handle_refused(&self, _connection: &Connection) {}
}

/// Work for a dispatch thread. Bounded: messages by the receive credit of their connections (by the send budget in a
/// loopback connection), notices to one of each kind for a connection.
pub(super) enum Item {
    Message { connection: Connection, message: Message, credit_bytes: u64, throttles: Vec<Arc<Throttle>> },
    Loopback { connection: Connection, message: Message },
    Notice { connection: Connection, notice: Notice },
    Stop,
}

/// The chain of dispatchers.
#[derive(Clone)]
pub(super) struct Chain(Arc<ArcSwap<Vec<Arc<dyn Dispatcher>>>>);

impl Chain {
    pub(super) fn new(dispatchers: Vec<Arc<dyn Dispatcher>>) -> Self {
        Chain(Arc::new(ArcSwap::from_pointee(dispatchers)))
    }

    /// Adds a dispatcher, at the head or at the tail.
    pub(super) fn add(&self, dispatcher: &Arc<dyn Dispatcher>, at_head: bool) {
        self.0.rcu(|before| {
            let mut after = Vec::clone(before);
            after.insert(if at_head { 0 } else { after.len() }, Arc::clone(dispatcher));
            after
        });
    }

    /// Calls the first dispatcher that fast-dispatches the message's kind; gives the message back if none does.
    pub(super) fn fast_dispatch(&self, connection: &Connection, message: Message) -> Option<Message> {
        match self.0.load().iter().find(|dispatcher| dispatcher.ms_can_fast_dispatch(message.kind)) {
            Some(dispatcher) => {
                dispatcher.ms_fast_dispatch(connection, message);
                None
            }
            None => Some(message),
        }
    }

    pub(super) fn dispatch_oob(&self, connection: &Connection, message: OobMessage) {
        if let Some((last, others)) = self.0.load().split_last() {
            for dispatcher in others {
                dispatcher.ms_dispatch_oob(connection, message.clone());
            }
            last.ms_dispatch_oob(connection, message);
        }
    }

    fn dispatch(&self, connection: &Connection, mut message: Message) {
        for dispatcher in self.0.load().iter() {
            match dispatcher.ms_dispatch(connection, message) {
                Ok(()) => return,
                Err(refused) => message = refused,
            }
        }
        tracing::warn!(kind = message.kind, peer = ?connection.peer_name(), "no dispatcher takes this kind of message");
    }

    fn notify(&self, connection: &Connection, notice: Notice) {
        for dispatcher in self.0.load().iter() {
            match notice {
                Notice::Connected => dispatcher.ms_handle_connect(connection),
                Notice::Accepted => dispatcher.ms_handle_accept(connection),
                Notice::Reset => dispatcher.ms_handle_reset(connection),
                Notice::RemoteReset => dispatcher.ms_handle_remote_reset(connection),
                Notice::Refused => dispatcher.ms_handle_refused(connection),
            }
        }
    }
}

/// The dispatch threads, or their queues where somebody else empties them. A connection belongs to one of them, so its
/// messages stay in order.
pub(super) struct Pool {
    queues: Vec<Sender<Item>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stopped: AtomicBool,
}

impl Pool {
    /// Queues without threads, and their other ends.
    pub(super) fn driven(count: usize) -> (Pool, Vec<Receiver<Item>>) {
        let (queues, items) = (0..count).map(|_| unbounded()).unzip();
        (Pool { queues, threads: Mutex::default(), stopped: AtomicBool::new(false) }, items)
    }

    pub(super) fn start(name: &str, count: usize, chain: &Chain) -> Result<Pool, std::io::Error> {
        let (mut pool, receivers) = Pool::driven(count);
        for (index, items) in receivers.into_iter().enumerate() {
            let chain = chain.clone();
            let thread = thread::Builder::new().name(format!("{name} ms{index}"));
            match thread.spawn(move || while items.recv().is_ok_and(|item| run(item, &chain)) {}) {
                Ok(thread) => pool.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(thread),
                Err(error) => {
                    pool.stop();
                    return Err(error);
                }
            }
        }
        Ok(pool)
    }

    /// Leaves something to the thread that the connection belongs to. Fails only when the threads have ended, after
    /// a shutdown.
    fn push(&self, connection: &Connection, item: Item) {
        let _ = self.queues[(connection.inner.id % self.queues.len() as u64) as usize].send(item);
    }

    /// A message waits for dispatch.
    pub(super) fn message(
        &self,
        connection: &Connection,
        message: Message,
        credit_bytes: u64,
        throttles: &[Arc<Throttle>],
    ) {
        let inner = &connection.inner;
        inner.queued_bytes.fetch_add(credit_bytes, Ordering::Relaxed);
        inner.queued_messages.fetch_add(1, Ordering::Release);
        throttles.iter().for_each(|throttle| throttle.take(credit_bytes));
        let (throttles, to) = (throttles.to_vec(), connection.clone());
        self.push(connection, Item::Message { connection: to, message, credit_bytes, throttles });
    }

    /// A message comes from this messenger itself.
    pub(super) fn loop_back(&self, connection: &Connection, message: Message) {
        self.push(connection, Item::Loopback { connection: connection.clone(), message });
    }

    /// Something has happened to a connection. What waits to be told already is told once.
    pub(super) fn notify(&self, connection: &Connection, notice: Notice) {
        let before = connection.inner.pending_notices.fetch_or(notice.bit(), Ordering::AcqRel);
        if before & notice.bit() == 0 {
            self.push(connection, Item::Notice { connection: connection.clone(), notice });
        }
    }

    /// Each thread ends when it has done what is queued before this.
    pub(super) fn stop(&self) {
        if !self.stopped.swap(true, Ordering::AcqRel) {
            for queue in &self.queues {
                // Fails only if the thread has ended already.
                let _ = queue.send(Item::Stop);
            }
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

impl Notice {
    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Does one piece of work; whether more may follow.
pub(super) fn run(item: Item, chain: &Chain) -> bool {
    match item {
        Item::Message { connection, message, credit_bytes, throttles } => {
            chain.dispatch(&connection, message);
            connection.inner.on_dispatched(credit_bytes);
            throttles.iter().for_each(|throttle| throttle.give_back(credit_bytes));
        }
        Item::Loopback { connection, message } => {
            let cost = message.payload.len() + MESSAGE_OVERHEAD_BYTES;
            if let Some(message) = chain.fast_dispatch(&connection, message) {
                chain.dispatch(&connection, message);
            }
            connection.inner.budget.give_back(cost);
        }
        Item::Notice { connection, notice } => {
            connection.inner.pending_notices.fetch_and(!notice.bit(), Ordering::AcqRel);
            chain.notify(&connection, notice);
        }
        Item::Stop => return false,
    }
    true
}

impl Inner {
    /// A dispatch thread is done with a message: its credit can be granted again. The connection's thread is woken
    /// for every eighth of the window only; it grants by quarters.
    fn on_dispatched(&self, credit_bytes: u64) {
        let before = self.dispatched_bytes.fetch_add(credit_bytes, Ordering::Relaxed);
        self.dispatched_messages.fetch_add(1, Ordering::Release);
        let step = (self.core.session.receive_credit_bytes / 8).max(1);
        if before / step != (before + credit_bytes) / step {
            self.wake();
        }
    }
}
