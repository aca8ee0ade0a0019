//! The two ends: a client that keeps its requests outstanding, a server that answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use outrider_drivers::time::{Instant, process_cpu_time};
use outrider_messenger::{Connection, Dispatcher, EntityName, Message, OobMessage};

use super::Shape;
use crate::error::BenchError;
use crate::node::{Node, NodeOptions, SessionSignals, now};
use crate::progress::Progress;
use crate::stop;

const PORT: u16 = 7078;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// How long the session may take to come up.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Between looks at whether the connection still stands.
const LOOK: Duration = Duration::from_millis(100);
/// Between looks for a reply that is late.
const STEP_AFTER: Duration = Duration::from_millis(1);
/// How late it may be.
const REPLY_PATIENCE: Duration = Duration::from_secs(20);
/// What a message costs of a budget or a credit besides its payload, generously.
const OVERHEAD_BYTES: usize = 1 << 10;
/// Budget and credit at least, so that they are not what is measured.
const BUDGET_BYTES_MIN: usize = 4 << 20;

/// Counters, shared with the dispatchers.
#[derive(Debug, Default)]
struct Counters {
    replies: AtomicU64,
    /// A message found no room, which ends the run: it would have ended the load.
    refused: AtomicBool,
    signals: Arc<SessionSignals>,
}

/// An exchange to be, and then under way.
pub(super) struct Exchange {
    shape: Shape,
    server: SocketAddr,
    payload: Bytes,
    counters: Arc<Counters>,
}

/// Readings at an instant.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    replies: u64,
    cpu: Duration,
}

/// What one round measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Round {
    pub(super) messages: u64,
    pub(super) time: Duration,
    pub(super) cpu: Duration,
}

impl Reading {
    fn since(&self, before: &Reading) -> Round {
        Round {
            messages: self.replies - before.replies,
            time: self.at - before.at,
            cpu: self.cpu - before.cpu,
        }
    }
}

impl Exchange {
    pub(super) fn new(shape: Shape, server: IpAddr) -> Self {
        let payload = (0..shape.message_bytes).map(|n| n as u8).collect::<Vec<u8>>();
        Exchange {
            shape,
            server: SocketAddr::new(server, PORT),
            payload: payload.into(),
            counters: Arc::new(Counters::default()),
        }
    }

    /// Twice what is outstanding: a reply may be back before TCP has told that its request was received.
    fn budget_bytes(&self) -> usize {
        (2 * self.shape.depth * (self.shape.message_bytes + OVERHEAD_BYTES)).max(BUDGET_BYTES_MIN)
    }

    pub(super) fn client(&self) -> NodeOptions {
        let dispatcher = Client { payload: self.payload.clone(), counters: Arc::clone(&self.counters) };
        NodeOptions {
            name: EntityName::client(1),
            bind: None,
            dispatcher: Arc::new(dispatcher),
            send_budget_bytes: Some(self.budget_bytes()),
            health: None,
        }
    }

    pub(super) fn server(&self) -> NodeOptions {
        let dispatcher = Server { counters: Arc::clone(&self.counters) };
        NodeOptions {
            name: EntityName::osd(1),
            bind: Some(self.server),
            dispatcher: Arc::new(dispatcher),
            send_budget_bytes: Some(self.budget_bytes()),
            health: None,
        }
    }

    pub(super) fn connect(&self, client: &Node) -> Result<Connection, BenchError> {
        let connection = client
            .messenger()
            .connect_to(self.server)
            .map_err(|error| BenchError::failed(format!("cannot connect to {}: {error}", self.server)))?;
        self.counters.signals.wait(&connection, CONNECT_PATIENCE, "try another --link")?;
        Ok(connection)
    }

    /// Sends as many requests as shall be outstanding.
    pub(super) fn begin(&self, connection: &Connection) -> Result<(), BenchError> {
        for tid in 0..self.shape.depth as u64 {
            connection
                .try_send_message(Message::new(REQUEST, self.payload.clone()).with_tid(tid))
                .map_err(|error| BenchError::failed(format!("a request could not be sent: {error}")))?;
        }
        Ok(())
    }

    /// Lets `length` pass, and more if no reply has come by then: a machine that is too busy for one message is slow,
    /// and not infinitely so.
    fn pass(&self, length: Duration, progress: &Progress) -> Result<(), BenchError> {
        let before = self.read();
        let end = before.at + length;
        loop {
            stop::check()?;
            let (at, answered) = (now(), self.read().replies > before.replies);
            if at >= end && answered {
                return Ok(());
            }
            if at >= end + REPLY_PATIENCE {
                return Err(BenchError::failed("no message was answered; try a smaller --size"));
            }
            let left = end - at;
            let step = if left.is_zero() { STEP_AFTER } else { LOOK.min(left) };
            if self.counters.signals.lost.wait(step) {
                return Err(BenchError::failed("the connection was lost while it was measured"));
            }
            if self.counters.refused.load(Ordering::Relaxed) {
                return Err(BenchError::failed("a message found no room in the send budget"));
            }
            progress.advance(step.min(left));
        }
    }

    /// What passes in `length` after the warm-up.
    pub(super) fn measure(
        &self,
        warm_up: Duration,
        length: Duration,
        progress: &Progress,
    ) -> Result<Round, BenchError> {
        self.pass(warm_up, progress)?;
        let before = self.read();
        self.pass(length, progress)?;
        Ok(self.read().since(&before))
    }

    fn read(&self) -> Reading {
        let replies = self.counters.replies.load(Ordering::Relaxed);
        Reading { at: now(), replies, cpu: process_cpu_time() }
    }
}

impl Counters {
    fn send(&self, connection: &Connection, message: Message) {
        // On a connection that is being closed there is nothing to be measured any more.
        if connection.try_send_message(message).is_err() && connection.is_connected() {
            self.refused.store(true, Ordering::Relaxed);
        }
    }
}

struct Client {
    payload: Bytes,
    counters: Arc<Counters>,
}

impl Dispatcher for Client {
    fn ms_dispatch(&self, _: &Connection, message: Message) -> Result<(), Message> {
        Err(message)
    }

    fn ms_can_fast_dispatch(&self, kind: u16) -> bool {
        kind == REPLY
    }

    fn ms_fast_dispatch(&self, connection: &Connection, message: Message) {
        self.counters.replies.fetch_add(1, Ordering::Relaxed);
        let request = Message::new(REQUEST, self.payload.clone()).with_tid(message.tid);
        self.counters.send(connection, request);
    }

    fn ms_dispatch_oob(&self, _: &Connection, _: OobMessage) {}

    fn ms_handle_connect(&self, _: &Connection) {
        self.counters.signals.connected.raise();
    }

    fn ms_handle_reset(&self, _: &Connection) {
        self.counters.signals.lost.raise();
    }

    fn ms_handle_refused(&self, _: &Connection) {
        self.counters.signals.refused.raise();
        self.counters.signals.lost.raise();
    }
}

struct Server {
    counters: Arc<Counters>,
}

impl Dispatcher for Server {
    fn ms_dispatch(&self, _: &Connection, message: Message) -> Result<(), Message> {
        Err(message)
    }

    fn ms_can_fast_dispatch(&self, kind: u16) -> bool {
        kind == REQUEST
    }

    fn ms_fast_dispatch(&self, connection: &Connection, message: Message) {
        self.counters.send(connection, Message::new(REPLY, Bytes::new()).with_tid(message.tid));
    }
}
