//! What a host is told and given, and what it gives.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use outrider_messenger::{Connection, Dispatcher, Message};

use super::events::Events;

/// Messages that each side gives before its last one.
const MESSAGES: u64 = 40;
/// Given with each connection, and then one for each that comes.
pub(super) const AT_FIRST: u64 = 2;
/// To this messenger itself: what was queued before it has been dispatched when it comes.
const MARK: u16 = 99;

/// Numbers the messages of a host over all its lives.
#[derive(Default)]
pub(super) struct Giver(Mutex<u64>);

impl Giver {
    fn give_up_to(&self, connection: &Connection, count: u64, limit: u64) {
        let mut given = self.0.lock().unwrap();
        for _ in 0..count {
            let message = Message::new(1, vec![7; 500]).with_tid(*given);
            if *given < limit && connection.try_send_message(message).is_ok() {
                *given += 1;
            }
        }
    }

    pub(super) fn give(&self, connection: &Connection, count: u64) {
        self.give_up_to(connection, count, MESSAGES);
    }

    /// Beyond what is given otherwise. Its number.
    pub(super) fn give_last(&self, connection: &Connection) -> u64 {
        self.give_up_to(connection, 1, u64::MAX);
        self.given() - 1
    }

    pub(super) fn given(&self) -> u64 {
        *self.0.lock().unwrap()
    }
}

#[derive(Default)]
struct Book {
    told: Vec<&'static str>,
    tids: Vec<u64>,
    /// The connection that was ready last.
    latest: Option<Connection>,
    /// All that were ever seen.
    seen: Vec<Connection>,
}

/// The dispatcher of one life of a host.
pub(super) struct Recorder {
    book: Mutex<Book>,
    marks: AtomicU64,
    giver: Arc<Giver>,
    events: Events,
}

impl Recorder {
    pub(super) fn new(giver: &Arc<Giver>, events: &Events) -> Recorder {
        Recorder {
            book: Mutex::default(),
            marks: AtomicU64::new(0),
            giver: Arc::clone(giver),
            events: events.clone(),
        }
    }

    fn tell(&self, what: &'static str, connection: &Connection) {
        let mut book = self.book.lock().unwrap();
        book.told.push(what);
        book.seen.push(connection.clone());
        if ["connect", "accept"].contains(&what) {
            book.latest = Some(connection.clone());
        }
        drop(book);
        self.events.ring();
    }

    pub(super) fn told(&self) -> Vec<&'static str> {
        self.book.lock().unwrap().told.clone()
    }

    pub(super) fn latest(&self) -> Option<Connection> {
        self.book.lock().unwrap().latest.clone()
    }

    /// Empties the record of what holds the messenger: its connections.
    pub(super) fn take_connections(&self) -> Vec<Connection> {
        let mut book = self.book.lock().unwrap();
        let latest = book.latest.take();
        latest.into_iter().chain(core::mem::take(&mut book.seen)).collect()
    }

    pub(super) fn marks(&self) -> u64 {
        self.marks.load(Ordering::SeqCst)
    }

    pub(super) fn has(&self, tid: u64) -> bool {
        self.book.lock().unwrap().tids.contains(&tid)
    }

    /// The numbers of the messages that came: each once, and in order.
    pub(super) fn tids(&self) -> BTreeSet<u64> {
        let tids = &self.book.lock().unwrap().tids;
        assert!(tids.is_sorted_by(|a, b| a < b), "once and in order, whatever happens: {tids:?}");
        tids.iter().copied().collect()
    }
}

/// The message that tells that all before it was dispatched.
pub(super) fn mark() -> Message {
    Message::new(MARK, &b""[..])
}

impl Dispatcher for Recorder {
    fn ms_dispatch(&self, connection: &Connection, message: Message) -> Result<(), Message> {
        if message.kind == MARK {
            self.marks.fetch_add(1, Ordering::SeqCst);
        } else {
            self.book.lock().unwrap().tids.push(message.tid);
            self.giver.give(connection, 1);
        }
        self.events.ring();
        Ok(())
    }

    fn ms_handle_connect(&self, connection: &Connection) {
        self.tell("connect", connection);
        self.giver.give(connection, AT_FIRST);
    }

    fn ms_handle_accept(&self, connection: &Connection) {
        self.tell("accept", connection);
        self.giver.give(connection, AT_FIRST);
    }

    fn ms_handle_reset(&self, connection: &Connection) {
        self.tell("reset", connection);
    }

    fn ms_handle_remote_reset(&self, connection: &Connection) {
        self.tell("remote_reset", connection);
    }

    fn ms_handle_refused(&self, connection: &Connection) {
        self.tell("refused", connection);
    }
}
