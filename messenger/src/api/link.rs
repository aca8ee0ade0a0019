//! Between a session on its shard and the application's side of the connection.

use core::time::Duration;
use std::sync::atomic::Ordering;

use crossbeam::channel::Sender;
use outrider_stack::endpoint::Waker;
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::SendState;
use outrider_stack::time::Instant;

use super::connection::{Connection, EndCause, MESSAGE_OVERHEAD_BYTES, State};
use super::dispatch::{Chain, Item, Notice};
use crate::codec::CloseCode;
use crate::report::Occupancy;
use crate::session::{Released, Session, SessionEvent, SessionUser};

/// Snapshots for other threads are renewed at most this often, and at every OOB message.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(1);

/// The messenger's user of a session. Lives on the connection's thread.
pub(super) struct Link {
    connection: Connection,
    chain: Chain,
    queue: Sender<Item>,
    dispatched_seen: u64,
    state: SendState,
    published_at: Option<Instant>,
    ended: bool,
}

impl Link {
    pub(super) fn new(connection: Connection, chain: Chain, queue: Sender<Item>) -> Self {
        Link {
            connection,
            chain,
            queue,
            dispatched_seen: 0,
            state: SendState::default(),
            published_at: None,
            ended: false,
        }
    }

    fn notify(&self, notice: Notice) {
        // Fails only when the dispatch threads have ended, after a shutdown.
        let _ = self.queue.send(Item::Notice { connection: self.connection.clone(), notice });
    }

    fn publish(&mut self, now: Instant, session: &Session) {
        self.published_at = Some(now);
        let inner = &self.connection.inner;
        inner.occupancy.store(Occupancy {
            at: now,
            send: session.send_report(&self.state),
            receive: session.receive_report(now),
        });
        inner.statistics.store(session.statistics());
        inner.oob_statistics.store(session.oob_statistics());
        inner.last_heard.store(session.last_heard());
    }

    fn publish_if_due(&mut self, now: Instant, session: &Session) {
        if self.published_at.is_none_or(|last| now.since(last) >= PUBLISH_INTERVAL) {
            self.publish(now, session);
        }
    }

    /// The connection is gone; says so once.
    fn end(&mut self, reason: CloseReason) {
        if core::mem::replace(&mut self.ended, true) {
            return;
        }
        let inner = &self.connection.inner;
        let before = self.connection.state();
        inner.state.store(State::Closed as u8, Ordering::Release);
        inner.budget.close();
        while inner.inbox.pop().is_some() {}
        while inner.requests.pop().is_some() {}
        let refused = match inner.end.get() {
            Some(EndCause::PeerClosed(code)) => !matches!(code, None | Some(CloseCode::Finished)),
            Some(EndCause::Fault(error)) => {
                tracing::warn!(peer = %inner.peer_address, %error, "connection failed");
                false
            }
            None => reason == CloseReason::Refused,
        };
        if !inner.marked_down.load(Ordering::Acquire) {
            match before {
                State::Ready => self.notify(Notice::Reset),
                State::Connecting if inner.dialled && refused => self.notify(Notice::Refused),
                State::Connecting if inner.dialled => self.notify(Notice::Reset),
                // The application never saw it.
                State::Connecting | State::Closed => {}
            }
        }
        inner.core.forget(inner.id);
    }
}

impl SessionUser for Link {
    fn on_attached(&mut self, _now: Instant, waker: Waker) {
        if self.connection.inner.waker.set(waker).is_err() {
            tracing::error!(id = self.connection.id(), "connection attached twice");
        }
        // What was left before there was a waker.
        self.connection.inner.wake();
    }

    fn refill(&mut self, now: Instant, session: &mut Session) {
        let inner = &self.connection.inner;
        let dispatched = inner.dispatched_messages.load(Ordering::Acquire);
        if dispatched != self.dispatched_seen {
            session.dispatched(dispatched - self.dispatched_seen);
            self.dispatched_seen = dispatched;
        }
        while let Some(request) = inner.requests.pop() {
            if let Err(error) = session.register_oob(now, request) {
                tracing::debug!(%error, "registration came too late");
            }
        }
        while let Some(message) = inner.inbox.pop() {
            if session.send(message).is_err() {
                tracing::trace!("message dropped: the connection is closing");
            }
        }
        if inner.keepalive.swap(false, Ordering::AcqRel) {
            session.send_keepalive();
        }
        if inner.marked_down.load(Ordering::Acquire) {
            session.close(now, CloseCode::Finished);
        }
    }

    fn on_event(&mut self, now: Instant, session: &mut Session, event: SessionEvent) {
        let inner = &self.connection.inner;
        match event {
            SessionEvent::Ready(peer) => {
                if inner.peer.set(peer).is_err() {
                    tracing::error!(id = inner.id, "session ready twice");
                }
                inner.state.store(State::Ready as u8, Ordering::Release);
                self.notify(if inner.dialled { Notice::Connected } else { Notice::Accepted });
            }
            SessionEvent::Message { message, arrived_at, credit_bytes } => {
                let Some(message) = self.chain.fast_dispatch(&self.connection, message) else {
                    session.dispatched_at_once(credit_bytes);
                    return;
                };
                session.queued_for_dispatch(arrived_at, credit_bytes);
                inner.queued_bytes.fetch_add(credit_bytes, Ordering::Relaxed);
                inner.queued_messages.fetch_add(1, Ordering::Release);
                let connection = self.connection.clone();
                // Fails only when the dispatch threads have ended, after a shutdown.
                let _ = self.queue.send(Item::Message { connection, message, credit_bytes });
                self.publish_if_due(now, session);
            }
            SessionEvent::Oob(message) => {
                inner.peer_report.store(Some(message.report));
                self.publish(now, session);
                self.chain.dispatch_oob(&self.connection, *message);
            }
            SessionEvent::KeepaliveAck(_) => self.publish(now, session),
            // The first cause is the one to tell.
            SessionEvent::PeerClosed(code) => drop(inner.end.set(EndCause::PeerClosed(code))),
            SessionEvent::Ended => self.end(CloseReason::Finished),
            SessionEvent::Fault(error) => drop(inner.end.set(EndCause::Fault(error))),
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
        if released.messages > 0 {
            let overhead = released.messages as usize * MESSAGE_OVERHEAD_BYTES;
            self.connection.inner.budget.give_back(released.payload_bytes as usize + overhead);
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
        self.publish(now, session);
        self.end(reason);
    }
}

impl Drop for Link {
    /// A transport that drops an endpoint without a word is gone.
    fn drop(&mut self) {
        self.end(CloseReason::PortGone);
    }
}
