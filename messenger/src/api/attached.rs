//! Between a session on its shard and the application's side of the connection.

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use outrider_stack::endpoint::Waker;
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::SendState;
use outrider_stack::time::Instant;

use super::attachment::{Attachment, Verdict};
use super::connection::{Connection, EndCause, MESSAGE_OVERHEAD_BYTES, State};
use super::core::Core;
use super::throttle::Throttle;
use crate::codec::{CloseCode, SessionTerms};
use crate::health::{Arrivals, Trouble};
use crate::link::{Cause, LinkId};
use crate::report::Occupancy;
use crate::session::{Peer, Released, Session, SessionError, SessionEvent, SessionUser};

/// Snapshots for other threads are renewed at most this often, and at every OOB message.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(1);

/// The messenger's user of a session. Lives on the connection's thread, for one connection of the transport.
pub(super) struct Attached {
    core: Arc<Core>,
    attachment: Arc<Attachment>,
    /// Known from the start if this end dialled, else once the session is admitted.
    connection: Option<Connection>,
    /// The other end of an accepted transport.
    pub(super) remote: Option<SocketAddr>,
    /// The session has what outlives it, and takes what the application leaves.
    holds: bool,
    throttles: Vec<Arc<Throttle>>,
    state: SendState,
    arrivals: Arrivals,
    trouble: Trouble,
    published_at: Option<Instant>,
    cause: Option<Cause>,
    ended: bool,
}

impl Attached {
    pub(super) fn new(core: Arc<Core>, attachment: Arc<Attachment>, connection: Option<Connection>) -> Self {
        Attached {
            core,
            attachment,
            connection,
            remote: None,
            holds: false,
            throttles: Vec::new(),
            state: SendState::default(),
            arrivals: Arrivals::default(),
            trouble: Trouble::default(),
            published_at: None,
            cause: None,
            ended: false,
        }
    }

    fn publish(&mut self, now: Instant, session: &Session) {
        let Some(connection) = self.connection.as_ref().filter(|_| self.holds) else { return };
        self.published_at = Some(now);
        let inner = &connection.inner;
        let occupancy = Occupancy {
            at: now,
            send: session.send_report(&self.state),
            receive: session.receive_report(now),
        };
        self.trouble.note(now, &occupancy);
        inner.trouble.store(self.trouble);
        inner.occupancy.store(occupancy);
        inner.statistics.store(session.statistics());
        inner.oob_statistics.store(session.oob_statistics());
        inner.last_heard.store(session.last_heard());
    }

    fn publish_if_due(&mut self, now: Instant, session: &Session) {
        if self.published_at.is_none_or(|last| now.since(last) >= PUBLISH_INTERVAL) {
            self.publish(now, session);
        }
    }

    /// Does what the messenger has ordered.
    fn obey(&mut self, now: Instant, session: &mut Session) {
        if self.attachment.take_release() {
            self.end(now, session, Cause::Lost);
            session.reset();
            return;
        }
        match self.attachment.take_verdict() {
            Some(Verdict::Admit(connection, mut admission)) => {
                self.connection = Some(connection);
                // Prepared first: what the session takes up may be asked for at once.
                let carry = admission.carry.take();
                match session.admit(now, crate::session::Admission { carry, ..*admission }) {
                    Ok(()) => self.take_up(now),
                    Err(not) => {
                        let cause = if not.mismatch { Cause::Mismatch } else { Cause::Lost };
                        self.ended = true;
                        self.core.down(now, self.attachment.id, not.carry, cause, false);
                        session.decline(now, CloseCode::UnknownSession);
                    }
                }
            }
            Some(Verdict::Decline(code)) => session.decline(now, code),
            None => {}
        }
    }

    /// The session is this connection's from here on.
    fn take_up(&mut self, now: Instant) {
        let Some(connection) = &self.connection else { return };
        let inner = &connection.inner;
        self.attachment.known.store(true, Ordering::Release);
        self.holds = true;
        if let Some(remote) = self.remote {
            inner.peer_address.get_or_init(|| remote);
        }
        self.arrivals = inner.arrivals.load();
        self.arrivals.restart(now);
        self.trouble = inner.trouble.load();
        if let Some(waker) = self.attachment.waker() {
            inner.attach(&waker);
        }
    }

    fn on_accepted(&mut self, now: Instant, session: &mut Session, peer: &Peer, terms: &SessionTerms) {
        let Some(carry) = self.core.answered(self.attachment.id, peer, terms) else { return };
        match session.resume(now, Some(carry)) {
            Ok(()) => self.take_up(now),
            Err(not) => {
                let cause = if not.mismatch { Cause::Mismatch } else { Cause::Lost };
                self.ended = true;
                self.core.down(now, self.attachment.id, not.carry, cause, false);
            }
        }
    }

    fn on_ready(&mut self, now: Instant, peer: Arc<Peer>) {
        let Some(connection) = &self.connection else { return };
        self.throttles = self.core.throttles_for(peer.name.kind);
        connection.inner.ready(peer);
        self.core.opened(now, self.attachment.id);
    }

    fn on_message(&mut self, now: Instant, session: &mut Session, event: MessageEvent) {
        let Some(connection) = &self.connection else { return };
        let MessageEvent { message, arrived_at, credit_bytes } = event;
        let Some(message) = self.core.chain.fast_dispatch(connection, message) else {
            session.dispatched_at_once(credit_bytes);
            return;
        };
        session.queued_for_dispatch(arrived_at, credit_bytes);
        self.core.pool.message(connection, message, credit_bytes, &self.throttles);
        self.publish_if_due(now, session);
    }

    /// This end's part in the connection is over; says so once.
    fn end(&mut self, now: Instant, session: &mut Session, cause: Cause) {
        if core::mem::replace(&mut self.ended, true) {
            return;
        }
        self.state.bytes_in_flight = 0;
        self.publish(now, session);
        let held = core::mem::take(&mut self.holds);
        let mut wanted = false;
        let mut carry = None;
        if let Some(connection) = self.connection.as_ref().filter(|_| held) {
            let released = session.take_released();
            connection.inner.give_back(released);
            carry = Some(session.release());
            connection.inner.detach(now);
            wanted = connection.inner.has_left_something();
        }
        self.core.down(now, self.attachment.id, carry, self.cause.unwrap_or(cause), wanted);
    }

    /// Passes on what the application left.
    fn take_from_application(&mut self, now: Instant, session: &mut Session) {
        let Some(connection) = &self.connection else { return };
        let inner = &connection.inner;
        let dispatched = inner.dispatched_messages.load(Ordering::Acquire);
        // Written here only, by the one endpoint that has the session.
        let seen = inner.dispatched_seen.load(Ordering::Relaxed);
        if dispatched != seen {
            session.dispatched(dispatched - seen);
            inner.dispatched_seen.store(dispatched, Ordering::Relaxed);
        }
        if !self.throttles.is_empty() {
            let exceeded = self.throttles.iter().any(|throttle| throttle.is_exceeded_for(inner));
            session.hold_credit(exceeded);
        }
        for request in inner.requests.take() {
            if let Err(error) = session.register_oob(now, request) {
                tracing::debug!(%error, "registration came too late");
            }
        }
        for message in inner.inbox.take() {
            if let Err(message) = session.send(message) {
                tracing::trace!("message dropped: the connection is closing");
                inner.budget.give_back(message.payload.len() + MESSAGE_OVERHEAD_BYTES);
            }
        }
        if inner.keepalive.swap(false, Ordering::AcqRel) {
            session.send_keepalive();
        }
        if inner.draining.load(Ordering::Acquire) && session.is_drained() {
            inner.marked_down.store(true, Ordering::Release);
            self.core.mark_down(LinkId(inner.id));
        }
    }
}

/// The fields of [`SessionEvent::Message`].
struct MessageEvent {
    message: crate::Message,
    arrived_at: Instant,
    credit_bytes: u64,
}

impl SessionUser for Attached {
    fn on_attached(&mut self, _now: Instant, waker: Waker) {
        self.attachment.attach(waker);
    }

    fn refill(&mut self, now: Instant, session: &mut Session) {
        if self.attachment.has_orders() {
            self.obey(now, session);
        }
        if self.holds {
            self.take_from_application(now, session);
        }
        if let Some(connection) = &self.connection
            && connection.inner.marked_down.load(Ordering::Acquire)
        {
            session.close(now, CloseCode::Finished);
        }
    }

    fn on_event(&mut self, now: Instant, session: &mut Session, event: SessionEvent) {
        match event {
            SessionEvent::Connect { peer, terms } => {
                self.core.claim(now, self.attachment.id, &peer, &terms);
                self.obey(now, session);
            }
            SessionEvent::Accepted { peer, terms } => self.on_accepted(now, session, &peer, &terms),
            SessionEvent::Ready(peer) => self.on_ready(now, peer),
            SessionEvent::Message { message, arrived_at, credit_bytes } => {
                self.on_message(now, session, MessageEvent { message, arrived_at, credit_bytes });
            }
            SessionEvent::Oob(message) => {
                let Some(connection) = self.connection.clone() else { return };
                if self.core.injector.as_ref().is_some_and(|injector| injector.drops_ping()) {
                    return;
                }
                self.arrivals.hear(now, &message.report);
                connection.inner.arrivals.store(self.arrivals);
                connection.inner.peer_report.store(Some(message.report));
                if let Some(round_trip) = message.round_trip() {
                    connection.inner.round_trip.store(Some(round_trip));
                }
                self.publish(now, session);
                self.core.chain.dispatch_oob(&connection, *message);
            }
            SessionEvent::KeepaliveAck(_) => self.publish(now, session),
            // The first cause is the one to tell.
            SessionEvent::PeerClosed(code) => {
                self.cause.get_or_insert(Cause::Closed(code));
                if let Some(connection) = &self.connection {
                    connection.inner.note_end(EndCause::PeerClosed(code));
                }
            }
            SessionEvent::Ended => self.end(now, session, Cause::Closed(None)),
            SessionEvent::Fault(error) => {
                let cause = if error == SessionError::Idle { Cause::Idle } else { Cause::Lost };
                self.cause.get_or_insert(cause);
                if let Some(connection) = &self.connection {
                    tracing::warn!(peer = %connection.peer_address(), %error, "connection failed");
                    connection.inner.note_end(EndCause::Fault(error));
                }
            }
        }
    }

    fn on_cut(&mut self, now: Instant, session: &mut Session, state: &SendState, oob: bool) {
        self.state = *state;
        if oob {
            self.publish(now, session);
        } else {
            self.publish_if_due(now, session);
        }
    }

    fn on_acked(&mut self, now: Instant, session: &mut Session, released: Released) {
        if let Some(connection) = &self.connection {
            connection.inner.give_back(released);
        }
        self.state.bytes_in_flight = session.bytes_in_flight();
        if self.state.bytes_in_flight == 0 {
            // Nothing may follow for long: the last word must be right.
            self.state.oldest_unacked_age = Duration::ZERO;
            self.publish(now, session);
        } else {
            self.publish_if_due(now, session);
        }
    }

    fn on_closed(&mut self, now: Instant, session: &mut Session, reason: CloseReason) {
        let cause = if reason == CloseReason::Refused { Cause::Refused } else { Cause::Lost };
        self.end(now, session, cause);
    }
}

/// What a state means to the application's handles.
impl State {
    pub(super) fn from_code(code: u8) -> State {
        match code {
            0 => State::Connecting,
            1 => State::Ready,
            _ => State::Closed,
        }
    }
}
