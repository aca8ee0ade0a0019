//! Where a connection meets the session that it is for.

use outrider_stack::time::Instant;

use super::{Carry, Opening, Phase, Session, SessionEvent};
use crate::codec::{ChunkKind, CloseCode, SessionTerms};
use crate::sparse::Moment;

/// How a session that the peer asked for by [`SessionEvent::Connect`] is taken up.
#[derive(Debug)]
pub struct Admission {
    /// What outlived an earlier connection; `None` for a session that has just begun.
    pub carry: Option<Box<Carry>>,
    /// Either side keeps nothing beyond the connection.
    pub lossy: bool,
    /// The session goes on; otherwise it begins, for both.
    pub resumed: bool,
    /// This end's number for the session.
    pub cookie: u64,
    /// The last attempt that this end made to reach the peer; it is void now.
    pub attempt: u64,
}

impl Admission {
    /// A session that ends with its connection.
    pub fn lossy(cookie: u64) -> Self {
        Admission { carry: None, lossy: true, resumed: false, cookie, attempt: 0 }
    }
}

/// A session was not taken up; what was to be carried on comes back.
#[derive(Debug)]
pub struct NotTakenUp {
    /// What was given.
    pub carry: Option<Box<Carry>>,
    /// The peer claims messages that this end never sent, or lost some that it had: the two do not belong together.
    pub mismatch: bool,
}

impl Session {
    /// Input, on the side that accepted, in answer to [`SessionEvent::Connect`] at any later time: takes the session
    /// up and tells the peer.
    ///
    /// # Errors
    /// The connection has ended meanwhile, or the two sides do not fit; then it must be declined.
    pub fn admit(&mut self, now: Instant, admission: Admission) -> Result<(), NotTakenUp> {
        let Admission { carry, lossy, resumed, cookie, attempt } = admission;
        if self.phase != Phase::Deciding {
            return Err(NotTakenUp { carry, mismatch: false });
        }
        let peer_terms = self.opening().peer_terms;
        self.take_up(carry, lossy, resumed)?;
        let mut terms = SessionTerms { lossy, resumed, cookie, attempt, ..SessionTerms::default() };
        terms.peer_cookie = peer_terms.cookie;
        self.life.state_in(&mut terms);
        self.decoder.resume(terms.received, terms.credit_limit);
        self.push_handshake(ChunkKind::Ready, &terms.encode());
        self.can_send = true;
        self.phase = Phase::Ready;
        self.life.last_heard = now.into();
        Ok(())
    }

    /// Input, on the side that accepted: the session asked for is refused.
    pub fn decline(&mut self, now: Instant, code: CloseCode) {
        if self.phase == Phase::Deciding {
            self.phase = Phase::Over;
        }
        self.close(now, code);
    }

    /// Input, on the side that dialled, in answer to [`SessionEvent::Accepted`] and before anything else: takes the
    /// session up. `carry` is what outlived an earlier connection, `None` for a session that has just begun.
    ///
    /// # Errors
    /// The connection has ended meanwhile, or the two sides do not fit.
    pub fn resume(&mut self, now: Instant, carry: Option<Box<Carry>>) -> Result<(), NotTakenUp> {
        if self.phase != Phase::Answered {
            return Err(NotTakenUp { carry, mismatch: false });
        }
        let Opening { own_terms: own, peer_terms: answer, .. } = *self.opening();
        self.take_up(carry, own.lossy || answer.lossy, answer.resumed)?;
        self.life.credit.begin();
        self.decoder.resume(self.life.received, own.credit_limit);
        self.push_handshake(ChunkKind::Ready, &[]);
        self.can_send = true;
        self.life.last_heard = now.into();
        self.open(now);
        Ok(())
    }

    fn take_up(&mut self, carry: Option<Box<Carry>>, lossy: bool, resumed: bool) -> Result<(), NotTakenUp> {
        let given = carry.is_some();
        let peer_terms = self.opening().peer_terms;
        if let Some(carry) = carry {
            self.life = carry;
        }
        let released = if resumed { self.life.queue.resume(&peer_terms.received) } else { None };
        match released {
            Some(released) => self.life.released.merge(released),
            None if resumed => {
                return Err(NotTakenUp { carry: given.then(|| self.replace_life()), mismatch: true });
            }
            None => {}
        }
        self.message_bytes_max = self.peer.as_ref().map_or(0, |peer| peer.message_bytes_max);
        self.lossless = !lossy;
        self.life.queue.set_credit_limit(peer_terms.credit_limit);
        Ok(())
    }

    pub(super) fn open(&mut self, now: Instant) {
        self.phase = Phase::Open;
        self.opening().deadline = Moment::NEVER;
        self.settle_opening();
        if !self.closing {
            self.deadline = self.config.idle_timeout.map(|idle| now + idle).into();
        }
        if let Some(peer) = self.peer.clone().filter(|_| !self.closing) {
            if self.speaks_oob {
                self.life.oob.registry.start(now);
            }
            self.events.push_back(SessionEvent::Ready(peer));
        }
    }

    /// Input. The session leaves the connection: what outlives it. The connection goes on to its end without it.
    pub fn release(&mut self) -> Box<Carry> {
        self.phase = Phase::Over;
        if !self.closing {
            // It need not be looked at for idleness any more.
            self.deadline = Moment::NEVER;
        }
        self.closing = true;
        self.can_send = false;
        self.lossless = false;
        self.replace_life()
    }

    /// Input. The connection is to be reset.
    pub fn reset(&mut self) {
        self.phase = Phase::Over;
        if !self.closing {
            self.deadline = Moment::NEVER;
        }
        self.closing = true;
        self.abort = true;
    }

    fn replace_life(&mut self) -> Box<Carry> {
        let fresh = Box::new(Carry::new(self.config.receive_credit_bytes, self.config.seed));
        let mut carry = core::mem::replace(&mut self.life, fresh);
        carry.oob.detach();
        carry
    }

    /// For [`super::Endpoint`]: an answer that nobody took up makes the connection of no use.
    pub(super) fn settle_answer(&mut self) {
        if self.phase == Phase::Answered {
            self.reset();
        }
    }
}
