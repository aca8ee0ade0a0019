//! Heartbeats between nodes: on connections of their own, or on the data connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use outrider_drivers::time::Instant;
use outrider_messenger::{Connection, Dispatcher, Message, OobMessage, OobOp, OobRegistration, priority};

use super::world::Application;
use crate::error::BenchError;

/// Kinds of the messages that separate heartbeats are.
const PING: u16 = 1;
const PING_REPLY: u16 = 2;

/// Heartbeats of one node.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    sent: AtomicU64,
    answered: AtomicU64,
}

/// A reading of [`Counts`], of one node or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Beats {
    /// Heartbeats that the nodes sent.
    pub(crate) sent: u64,
    /// Those that their peers answered.
    pub(crate) answered: u64,
}

impl Beats {
    /// Those since `earlier`.
    pub(crate) fn since(self, earlier: Beats) -> Beats {
        Beats { sent: self.sent - earlier.sent, answered: self.answered - earlier.answered }
    }
}

impl Counts {
    fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    fn count_answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// What all of `counts` have.
    pub(crate) fn sum<'a>(counts: impl IntoIterator<Item = &'a Arc<Counts>>) -> Beats {
        counts.into_iter().fold(Beats::default(), |sum, one| Beats {
            sent: sum.sent + one.sent.load(Ordering::Relaxed),
            answered: sum.answered + one.answered.load(Ordering::Relaxed),
        })
    }
}

/// Hears heartbeats on the data connection. A peer's report echoes the last one that it had of ours.
#[derive(Debug, Default)]
pub(crate) struct OnData {
    pub(crate) counts: Arc<Counts>,
    /// The last sequence that came back, by connection.
    echoed: Mutex<HashMap<u64, u64>>,
}

impl OnData {
    /// Has every one of `connections` send a heartbeat of `payload_bytes` each `interval`, until what is returned is
    /// dropped.
    pub(crate) fn start(
        &self,
        connections: &[Connection],
        interval: Duration,
        payload_bytes: usize,
    ) -> Result<Vec<OobRegistration>, BenchError> {
        let payload = Bytes::from(vec![0; payload_bytes]);
        let register = |connection: &Connection| {
            let (counts, payload) = (Arc::clone(&self.counts), payload.clone());
            let part = move |_: &_| {
                counts.count_sent();
                Some(payload.clone())
            };
            connection
                .register_oob_message(OobOp::OSD_PING, part, interval)
                .map_err(|error| BenchError::failed(format!("cannot register a heartbeat: {error}")))
        };
        connections.iter().map(register).collect()
    }
}

impl Dispatcher for OnData {
    fn ms_dispatch(&self, _connection: &Connection, _message: Message) -> Result<(), Message> {
        Ok(())
    }

    fn ms_dispatch_oob(&self, connection: &Connection, message: OobMessage) {
        let Some(echo) = message.report.echo else { return };
        let mut echoed = self.echoed.lock().unwrap_or_else(PoisonError::into_inner);
        if echoed.insert(connection.id(), echo.sequence) != Some(echo.sequence) {
            self.counts.count_answered();
        }
    }
}

/// Hears heartbeats on their own connections and answers them, as a daemon of Ceph does: at once, on the thread that
/// received them.
#[derive(Debug, Default)]
pub(crate) struct OnTheirOwn {
    pub(crate) counts: Arc<Counts>,
}

impl Dispatcher for OnTheirOwn {
    fn ms_dispatch(&self, _connection: &Connection, message: Message) -> Result<(), Message> {
        Err(message)
    }

    fn ms_can_fast_dispatch(&self, kind: u16) -> bool {
        matches!(kind, PING | PING_REPLY)
    }

    fn ms_fast_dispatch(&self, connection: &Connection, message: Message) {
        if message.kind == PING {
            let reply = Message { kind: PING_REPLY, ..message };
            // A connection that takes no answer shows as a heartbeat that has none.
            let _ = connection.try_send_message(reply);
        } else {
            self.counts.count_answered();
        }
    }
}

/// The heartbeat thread of a daemon: once each interval it sends a ping on every connection that it dialled for that.
pub(crate) struct Rounds {
    connections: Vec<Connection>,
    interval: Duration,
    next: Instant,
    payload: Bytes,
    counts: Arc<Counts>,
}

impl Rounds {
    /// The first round is at `first`.
    pub(crate) fn new(
        connections: Vec<Connection>,
        interval: Duration,
        first: Instant,
        payload_bytes: usize,
        counts: Arc<Counts>,
    ) -> Self {
        let payload = Bytes::from(vec![0; payload_bytes]);
        Rounds { connections, interval, next: first, payload, counts }
    }
}

impl Application for Rounds {
    fn run(&mut self, now: Instant) {
        while self.next <= now {
            self.next += self.interval;
            for connection in &self.connections {
                let ping = Message::new(PING, self.payload.clone()).with_priority(priority::HIGHEST);
                if connection.try_send_message(ping).is_ok() {
                    self.counts.count_sent();
                }
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        Some(self.next)
    }
}
