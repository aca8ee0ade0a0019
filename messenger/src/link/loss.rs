//! The end of a transport, and what follows for its link.

use core::time::Duration;

use outrider_stack::time::Instant;

use super::table::State;
use super::{Action, Cause, LinkId, Notice, Table, TransportId};
use crate::codec::CloseCode;
use crate::session::Carry;

/// A transport that was ready for less counts as a failed attempt, so that a peer which drops every connection at once
/// is not dialled without pause.
const UPTIME_MIN: Duration = Duration::from_secs(1);
/// Attempts that may fail one after another for a reason that the next one mends, before they count as failures.
const PROMPT_RETRIES: u32 = 3;

impl Table {
    /// Input. A transport has ended, or could not be made; `carry` is what it had of its session. `wanted` says whether
    /// the application has left something that the session had not taken.
    pub fn down(
        &mut self,
        now: Instant,
        transport: TransportId,
        carry: Option<Box<Carry>>,
        cause: Cause,
        wanted: bool,
    ) {
        let Some(id) = self.transports.remove(transport) else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        link.wanted |= wanted;
        let held = link.holder == Some(transport);
        if held {
            link.holder = None;
            link.carry = carry;
        }
        if link.pending.as_ref().is_some_and(|pending| pending.transport == transport) {
            // It went before its turn came; the one before is about to let go.
            link.pending = None;
            link.state = State::Standby;
            return;
        }
        if link.pending.is_some() {
            return self.admit_pending(id);
        }
        match link.state {
            State::Dialling(own) if own == transport => self.attempt_failed(now, id, cause),
            State::Entering(theirs) | State::Open(theirs) if theirs == transport => self.lost(now, id, cause),
            // The claim that took its place has gone too.
            State::Standby if held => self.lost(now, id, Cause::Lost),
            _ => {}
        }
    }

    /// The link was ready, or about to be, on a transport of the peer's.
    fn lost(&mut self, now: Instant, id: LinkId, cause: Cause) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.state = State::Standby;
        let up = link.opened_at.take().map(|at| now.since(at));
        if up.is_some_and(|up| up >= UPTIME_MIN) {
            link.failures = 0;
        }
        let finished = cause == Cause::Closed(Some(CloseCode::Finished));
        if link.lossy || (link.policy.server && finished) {
            return self.end(id, Some(Notice::Reset));
        }
        if cause == Cause::Mismatch {
            self.renew(id);
        }
        self.rest_or_dial(now, id, cause);
    }

    fn rest_or_dial(&mut self, now: Instant, id: LinkId, cause: Cause) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let idle = matches!(cause, Cause::Idle | Cause::Closed(Some(CloseCode::Idle)));
        let rests = (link.policy.standby || idle) && !link.wants_transport();
        if !link.may_dial() {
            let limit = self.config.server_standby_max;
            self.set_timer(id, Some(now + limit));
        } else if !rests {
            link.failures += 1;
            if link.failures == 1 {
                self.dial(now, id);
            } else {
                self.back_off(now, id);
            }
        }
    }

    fn back_off(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.state = State::Backoff;
        let wait = self.config.backoff.wait(link.failures, &mut self.random);
        self.set_timer(id, Some(now + wait));
    }

    /// An attempt of ours came to nothing.
    fn attempt_failed(&mut self, now: Instant, id: LinkId, cause: Cause) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.state = State::Standby;
        let code = match cause {
            Cause::Closed(code) => code,
            Cause::Mismatch => Some(CloseCode::UnknownSession),
            Cause::Refused | Cause::Idle | Cause::Lost => None,
        };
        let mended = matches!(code, Some(CloseCode::Stale(_) | CloseCode::UnknownSession));
        let refused = cause == Cause::Refused
            || !mended
                && !matches!(code, None | Some(CloseCode::Finished | CloseCode::Wait | CloseCode::Replaced));
        if link.lossy {
            let notice = if refused { Notice::Refused } else { Notice::Reset };
            return self.end(id, Some(notice));
        }
        if refused && !core::mem::replace(&mut link.refusal_told, true) {
            self.actions.push_back(Action::Notify { link: id, notice: Notice::Refused });
        }
        link.failures += 1;
        let prompt = link.failures <= PROMPT_RETRIES;
        match code {
            Some(CloseCode::Wait) => {
                link.state = State::Waiting;
                let wait = self.config.backoff.wait(link.failures, &mut self.random);
                self.set_timer(id, Some(now + wait));
            }
            Some(CloseCode::Stale(last)) => {
                self.raise_attempts(last);
                self.retry(now, id, prompt);
            }
            Some(CloseCode::UnknownSession) => {
                self.renew(id);
                self.retry(now, id, prompt);
            }
            _ => self.back_off(now, id),
        }
    }

    fn retry(&mut self, now: Instant, id: LinkId, prompt: bool) {
        if prompt { self.dial(now, id) } else { self.back_off(now, id) }
    }

    pub(super) fn on_link_timer(&mut self, now: Instant, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match link.state {
            State::Backoff | State::Waiting => self.dial(now, id),
            State::Dialling(transport) => {
                self.transports.remove(transport);
                self.actions.push_back(Action::Release { transport });
                self.attempt_failed(now, id, Cause::Lost);
            }
            // The client did not come back.
            State::Standby => self.end(id, Some(Notice::Reset)),
            State::Entering(_) | State::Open(_) => {}
        }
    }
}
