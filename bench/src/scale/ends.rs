//! What sits on the ends of a connection: a session with a heartbeat, or nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use outrider_drivers::time::Instant;
use outrider_messenger::oob::OobRequest;
use outrider_messenger::session::{
    Admission, Endpoint as SessionEndpoint, Role, Session, SessionConfig, SessionEvent, SessionUser,
};
use outrider_messenger::{Connection, Dispatcher, Message, OobMessage, OobOp, OobRegistration};
use outrider_stack::endpoint::{Acceptor, Endpoint, Established};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::{
    AckUrgency, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault,
};

use crate::error::BenchError;

/// Bytes that a bare connection is always ready to take.
const ROOM_BYTES: usize = 64 << 10;

/// What the ends of all connections have seen. Written by one thread.
#[derive(Debug, Default)]
pub(super) struct Tally {
    ready: AtomicU64,
    sent: AtomicU64,
    echoed: AtomicU64,
    ended: AtomicU64,
}

impl Tally {
    fn add(counter: &AtomicU64) {
        // One writer: a load and a store cost less than a read-modify-write.
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Ends that are ready.
    pub(super) fn ready(&self) -> u64 {
        self.ready.load(Ordering::Relaxed)
    }

    /// Heartbeats that left.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Heartbeats that came back.
    pub(super) fn echoed(&self) -> u64 {
        self.echoed.load(Ordering::Relaxed)
    }

    /// Ends that are gone.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    fn hear(&self, message: &OobMessage) {
        if message.parts.is_empty() && message.report.echo.is_some() {
            Tally::add(&self.echoed);
        }
    }
}

/// The user of a session: it takes it up, and registers the heartbeat where this end has one.
struct Beating {
    tally: Arc<Tally>,
    /// Between heartbeats, on the side that dials.
    interval: Option<Duration>,
}

impl SessionUser for Beating {
    fn on_event(&mut self, now: Instant, session: &mut Session, event: SessionEvent) {
        match event {
            // A session that ends with its connection has nothing to be told from another by.
            SessionEvent::Connect { .. } if session.admit(now, Admission::lossy(1)).is_ok() => {}
            SessionEvent::Accepted { .. } if session.resume(now, None).is_ok() => {}
            SessionEvent::Ready(_) => {
                Tally::add(&self.tally.ready);
                let Some(interval) = self.interval else { return };
                let tally = Arc::clone(&self.tally);
                let part = move |_: &_| {
                    Tally::add(&tally.sent);
                    Some(Bytes::new())
                };
                let request = OobRequest::new(OobOp::PING, part, interval);
                let registered = request.and_then(|request| session.register_oob(now, request));
                if registered.is_err() {
                    Tally::add(&self.tally.ended);
                }
            }
            SessionEvent::Oob(message) => self.tally.hear(&message),
            SessionEvent::KeepaliveAck(_) | SessionEvent::Message { .. } => {}
            _ => Tally::add(&self.tally.ended),
        }
    }

    fn on_closed(&mut self, _now: Instant, _session: &mut Session, _reason: CloseReason) {
        Tally::add(&self.tally.ended);
    }
}

/// Makes the ends of sessions.
#[derive(Clone)]
pub(super) struct Sessions {
    pub(super) config: Arc<SessionConfig>,
    /// Made so far. Its number is a session's seed, which spreads the heartbeats over the interval.
    pub(super) made: u64,
    pub(super) interval: Duration,
    pub(super) tally: Arc<Tally>,
}

impl Sessions {
    /// The end that dials.
    pub(super) fn dialler(&mut self) -> Box<dyn Endpoint> {
        let role = Role::lossy_dialler(&self.config);
        self.end(role, Some(self.interval))
    }

    fn end(&mut self, role: Role, interval: Option<Duration>) -> Box<dyn Endpoint> {
        self.made += 1;
        let seed = self.config.seed.wrapping_add(self.made);
        let session = Session::with_seed(Arc::clone(&self.config), role, seed);
        Box::new(SessionEndpoint::new(session, Beating { tally: Arc::clone(&self.tally), interval }))
    }
}

impl Acceptor for Sessions {
    fn accept(
        &mut self,
        _now: Instant,
        _local: SocketAddr,
        _remote: SocketAddr,
    ) -> Option<Box<dyn Endpoint>> {
        Some(self.end(Role::Acceptor, None))
    }
}

/// Nothing: a connection without a session, by which the engine's share is told.
#[derive(Clone)]
pub(super) struct Bare {
    pub(super) tally: Arc<Tally>,
}

impl SegmentSource for Bare {
    fn demand(&mut self, _now: Instant) -> Demand {
        Demand::Nothing
    }

    fn cut(&mut self, _now: Instant, _state: &SendState, _cut: &mut dyn Cut) {}

    fn next_demand(&self) -> Option<Instant> {
        None
    }
}

impl SegmentSink for Bare {
    fn deliver(&mut self, _now: Instant, _bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        Ok(AckUrgency::Normal)
    }

    fn room(&self) -> usize {
        ROOM_BYTES
    }
}

impl Endpoint for Bare {
    fn on_established(&mut self, _now: Instant, _established: &Established) {
        Tally::add(&self.tally.ready);
    }

    fn on_closed(&mut self, _now: Instant, _reason: CloseReason) {
        Tally::add(&self.tally.ended);
    }
}

impl Acceptor for Bare {
    fn accept(
        &mut self,
        _now: Instant,
        _local: SocketAddr,
        _remote: SocketAddr,
    ) -> Option<Box<dyn Endpoint>> {
        Some(Box::new(self.clone()))
    }
}

/// The dispatcher of a messenger whose connections have heartbeats.
pub(super) struct Listening {
    pub(super) tally: Arc<Tally>,
}

impl Listening {
    /// Has `connection` send heartbeats.
    pub(super) fn register(
        &self,
        connection: &Connection,
        interval: Duration,
    ) -> Result<OobRegistration, BenchError> {
        let tally = Arc::clone(&self.tally);
        let part = move |_: &_| {
            Tally::add(&tally.sent);
            Some(Bytes::new())
        };
        connection
            .register_oob_message(OobOp::PING, part, interval)
            .map_err(|error| BenchError::failed(format!("cannot register a heartbeat: {error}")))
    }
}

impl Dispatcher for Listening {
    fn ms_dispatch(&self, _connection: &Connection, _message: Message) -> Result<(), Message> {
        Ok(())
    }

    fn ms_dispatch_oob(&self, _connection: &Connection, message: OobMessage) {
        self.tally.hear(&message);
    }

    fn ms_handle_connect(&self, _connection: &Connection) {
        Tally::add(&self.tally.ready);
    }

    fn ms_handle_accept(&self, _connection: &Connection) {
        Tally::add(&self.tally.ready);
    }

    fn ms_handle_reset(&self, _connection: &Connection) {
        Tally::add(&self.tally.ended);
    }

    fn ms_handle_refused(&self, _connection: &Connection) {
        Tally::add(&self.tally.ended);
    }
}
