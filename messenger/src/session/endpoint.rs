//! A session on a connection of the stack.

use core::time::Duration;

use outrider_stack::endpoint::{self, Directive, Established, Waker};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::{
    AckUrgency, Cut, Demand, Place, SegmentSink, SegmentSource, SendState, SinkFault,
};
use outrider_stack::time::Instant;

use super::{Released, Session, SessionEvent};

/// Bytes delivered to the session between two looks at its events: bounds how many there can be.
const DELIVERY_BYTES_MAX: usize = 64 << 10;

/// The user of a session that sits on a connection. All calls come from the connection's thread; none may block.
///
/// In virtual time a test implements this itself; on a shard it is the messenger's connection.
pub trait SessionUser: Send {
    /// The connection can be woken by `waker` from other threads.
    fn on_attached(&mut self, _now: Instant, _waker: Waker) {}

    /// Hand over what waits for the session: messages, ops, dispatched counts. Asked before each demand and cut,
    /// and after each wake.
    fn refill(&mut self, _now: Instant, _session: &mut Session) {}

    /// Something happened.
    fn on_event(&mut self, now: Instant, session: &mut Session, event: SessionEvent);

    /// A segment was cut; `oob` if an OOB message is in it.
    fn on_cut(&mut self, _now: Instant, _session: &mut Session, _state: &SendState, _oob: bool) {}

    /// The peer's transport acknowledged bytes; `released` no longer counts against the send budget.
    fn on_acked(&mut self, _now: Instant, _session: &mut Session, _released: Released) {}

    /// The connection has ended, or could not be made. The last call.
    fn on_closed(&mut self, now: Instant, session: &mut Session, reason: CloseReason);
}

/// Puts a [`Session`] and its user on a connection.
pub struct Endpoint<U: SessionUser> {
    session: Session,
    user: U,
    waker: Option<Waker>,
    closed: bool,
    /// The last `now` that was given.
    now: Instant,
}

impl<U: SessionUser> Endpoint<U> {
    /// A session with its user, for a connection to be.
    pub fn new(session: Session, user: U) -> Self {
        Endpoint { session, user, waker: None, closed: false, now: Instant::ZERO }
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    fn pass_events(&mut self, now: Instant) {
        while let Some(event) = self.session.poll_event() {
            self.user.on_event(now, &mut self.session, event);
        }
    }

    fn close(&mut self, now: Instant, reason: CloseReason) {
        if !core::mem::replace(&mut self.closed, true) {
            self.pass_events(now);
            self.user.on_closed(now, &mut self.session, reason);
        }
    }

    fn pass_released(&mut self, now: Instant) {
        let released = self.session.take_released();
        self.user.on_acked(now, &mut self.session, released);
    }
}

impl<U: SessionUser> SegmentSource for Endpoint<U> {
    fn demand(&mut self, now: Instant) -> Demand {
        self.now = now;
        self.user.refill(now, &mut self.session);
        let before = self.session.directive();
        let demand = self.session.demand(now);
        self.pass_events(now);
        if self.session.directive() != before
            && let Some(waker) = &self.waker
        {
            // A time limit has run out. The stack asks for the directive after calls to the endpoint, not here.
            waker.wake();
        }
        demand
    }

    fn cut(&mut self, now: Instant, state: &SendState, cut: &mut dyn Cut) {
        self.user.refill(now, &mut self.session);
        let summary = self.session.cut(now, state, cut);
        self.user.on_cut(now, &mut self.session, state, summary.oob);
    }

    fn next_demand(&self) -> Option<Instant> {
        self.session.next_demand()
    }

    fn on_acked(&mut self, now: Instant, offset: u64) {
        self.session.on_acked(now, offset);
        self.pass_released(now);
        self.pass_events(now);
    }

    fn urgent_overtakes(&self) -> bool {
        self.session.urgent_overtakes()
    }

    fn queued_bytes(&self) -> Option<u64> {
        Some(self.session.unsent_bytes())
    }

    fn is_out_of_credit(&self) -> bool {
        self.session.is_out_of_credit()
    }

    fn heartbeat_rtt(&self) -> Option<Duration> {
        self.session.heartbeat_rtt()
    }

    fn finished(&self) -> bool {
        self.session.finished()
    }
}

impl<U: SessionUser> SegmentSink for Endpoint<U> {
    fn deliver(&mut self, now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        let mut urgency = AckUrgency::Normal;
        for piece in bytes.chunks(DELIVERY_BYTES_MAX) {
            let mut rest = piece;
            while !rest.is_empty() {
                let delivered = self.session.deliver(now, rest);
                self.pass_events(now);
                self.session.settle_answer();
                let Ok(delivery) = delivered else { return Err(SinkFault) };
                rest = &rest[delivery.taken..];
                if delivery.oob {
                    urgency = AckUrgency::Now;
                }
            }
            if self.session.has_released() {
                self.pass_released(now);
            }
        }
        Ok(urgency)
    }

    fn place(&mut self) -> Option<Place<'_>> {
        self.session.place().map(|(buffer, bytes_max)| Place { buffer, bytes_max })
    }

    fn placed(&mut self, now: Instant, bytes: usize) -> Result<AckUrgency, SinkFault> {
        let placed = self.session.placed(now, bytes);
        self.pass_events(now);
        if self.session.has_released() {
            self.pass_released(now);
        }
        placed.map_or(Err(SinkFault), |()| Ok(AckUrgency::Normal))
    }

    fn peek_ahead(&mut self, now: Instant, _offset: u64, bytes: &[u8]) -> AckUrgency {
        let any = self.session.peek_ahead(now, bytes);
        self.pass_events(now);
        if any { AckUrgency::Now } else { AckUrgency::Normal }
    }

    fn room(&self) -> usize {
        self.session.receive_room()
    }

    fn on_peer_finished(&mut self, now: Instant) {
        self.session.on_peer_finished(now);
        self.pass_events(now);
    }
}

impl<U: SessionUser> endpoint::Endpoint for Endpoint<U> {
    fn on_attached(&mut self, now: Instant, waker: Waker) {
        self.now = now;
        self.waker = Some(waker.clone());
        self.user.on_attached(now, waker);
    }

    fn on_established(&mut self, now: Instant, established: &Established) {
        self.session.on_established(now, established);
    }

    fn on_wake(&mut self, now: Instant) {
        self.user.refill(now, &mut self.session);
        self.pass_events(now);
    }

    fn directive(&mut self) -> Directive {
        self.session.directive()
    }

    fn on_closed(&mut self, now: Instant, reason: CloseReason) {
        self.close(now, reason);
    }
}

impl<U: SessionUser> Drop for Endpoint<U> {
    /// A transport that drops an endpoint without a word is gone.
    fn drop(&mut self) {
        self.close(self.now, CloseReason::PortGone);
    }
}
