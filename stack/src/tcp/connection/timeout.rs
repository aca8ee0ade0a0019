//! Timers: retransmission, tail loss probe, reordering, persist, user timeout, TIME-WAIT.

use core::time::Duration;

use super::{Connection, Recovery, Undo};
use crate::tcp::config::CloseReason;
use crate::tcp::congestion::CongestionEvent;
use crate::tcp::receiver::AckDue;
use crate::tcp::state::State;
use crate::tcp::timers::{Follower, Running, Timer};
use crate::time::Instant;

/// Back-off stops doubling here; the ceiling of the configuration applies besides.
const BACKOFF_MAX: u16 = 16;
/// Probes of a shut window within a user timeout, at least.
const PROBES_PER_USER_TIMEOUT: u32 = 4;

impl Connection {
    /// Input. [`Self::next_timeout`] has come (an early call does no harm).
    pub fn on_timeout(&mut self, now: Instant) {
        if self.state == State::Closed {
            return;
        }
        if self.state == State::TimeWait && self.timers.take_expired(Timer::TimeWait, now) {
            return self.close(CloseReason::Finished);
        }
        if self.take_elapsed(Follower::UserTimeout, now) {
            return self.on_user_timeout();
        }
        if self.take_elapsed(Follower::DelayedAck, now) {
            self.receiver.on_ack_timer();
        }
        self.take_elapsed(Follower::Pacing, now);
        if self.timers.take_expired(Timer::Reorder, now) {
            self.detect_loss(now, false);
        }
        if self.state != State::TimeWait && self.timers.take_expired(Timer::Persist, now) {
            self.on_persist(now);
        }
        if self.take_elapsed(Follower::Keepalive, now) {
            self.on_keepalive(now);
        }
        if self.timers.take_expired(Timer::Retransmit, now) {
            self.on_retransmit_timer(now);
        }
        self.settle(now);
    }

    /// When `timer` is due, if it runs.
    fn deadline(&self, timer: Follower) -> Instant {
        let deadline = match timer {
            Follower::DelayedAck => match self.receiver.due() {
                AckDue::At(at) => Some(at),
                AckDue::No | AckDue::Now => None,
            },
            Follower::Pacing => Some(self.paced_until),
            Follower::Keepalive => self.config.keepalive.map(|keepalive| {
                self.last_heard_at + keepalive.idle + keepalive.interval * self.keepalive_probes
            }),
            Follower::UserTimeout => Some(self.progress_at + self.config.user_timeout),
        };
        deadline.unwrap_or(Instant::FAR_FUTURE)
    }

    /// When those timers are due that run and whose deadlines are not in the table.
    pub(super) fn running_deadlines(&self) -> impl Iterator<Item = Instant> {
        Follower::ALL.into_iter().filter(|timer| self.running.has(*timer)).map(|timer| self.deadline(timer))
    }

    /// Stops `timer` and says so if it runs and its deadline has come.
    fn take_elapsed(&mut self, timer: Follower, now: Instant) -> bool {
        let elapsed = self.running.has(timer) && self.deadline(timer) <= now;
        if elapsed {
            self.running.set(timer, false);
        }
        elapsed
    }

    pub(super) fn disarm_all(&mut self) {
        self.timers.disarm_all();
        self.running = Running::default();
    }

    /// The retransmission timeout with back-off. A flight of one ordinary segment gives the peer time for its
    /// delayed acknowledgement.
    pub(super) fn retransmission_timeout(&self) -> Duration {
        let patience = self.peer_ack_delay().saturating_sub(self.config.rto_granularity);
        let base = self.base_timeout() + patience;
        let factor = 1u32 << self.backoff.min(BACKOFF_MAX);
        base.saturating_mul(factor).min(self.config.rto_max)
    }

    fn base_timeout(&self) -> Duration {
        self.rtt.timeout(self.config.rto_initial, self.config.rto_min, self.config.rto_granularity)
    }

    fn peer_ack_delay(&self) -> Duration {
        let lone = self.flight.segment_count() == 1
            && self.flight.front().is_some_and(|segment| !segment.urgent && segment.offset > 0);
        if lone { self.config.peer_ack_delay_max } else { Duration::ZERO }
    }

    /// RFC 8985 section 7.2: when the tail is probed, if it may be.
    fn probe_timeout(&self) -> Option<Duration> {
        let may = self.sack
            && self.config.tail_probes
            && self.recovery == Recovery::Open
            && !self.tail_probe_out
            && !self.tail_probe_due
            && self.state.is_synchronised()
            && self.backoff == 0
            && self.flight.sacked_segments() == 0
            && !self.flight.has_lost();
        let smoothed = self.rtt.smoothed().filter(|_| may)?;
        Some((smoothed * 2 + self.peer_ack_delay()).max(self.config.tail_probe_timeout_min))
    }

    /// When the tail is probed, if it may be. An out-of-band message at the tail is acknowledged at once, so its probe
    /// counts from its own departure and not from the acknowledgement of what was before it; and of the round trips
    /// measured, delays of the peer's acknowledgements are no part.
    fn probe_at(&self) -> Option<Instant> {
        let timeout = self.probe_timeout()?;
        match (self.flight.back(), self.rtt.min()) {
            (Some(last), Some(least)) if last.urgent && !last.was_retransmitted() => {
                let bound =
                    least * 2 + self.config.peer_ack_delay_max.max(self.config.tail_probe_timeout_min);
                Some(last.sent_at + timeout.min(bound))
            }
            _ => Some(self.probe_base + timeout),
        }
    }

    pub(super) fn arm_retransmit(&mut self, now: Instant) {
        self.arm_user_timeout();
        if self.flight.is_empty() {
            return self.timers.disarm(Timer::Retransmit);
        }
        let timeout = self.timeout_base + self.retransmission_timeout();
        let at = self.probe_at().map_or(timeout, |probe| timeout.min(probe));
        // A probe or timeout already overdue fires at the next opportunity.
        self.timers.arm(Timer::Retransmit, at.max(now));
    }

    fn on_retransmit_timer(&mut self, now: Instant) {
        if self.flight.is_empty() {
            return;
        }
        let timeout = self.timeout_base + self.retransmission_timeout();
        // RFC 8985 section 7.2: a probe that would come after the timeout comes in its stead.
        if let Some(probe) = self.probe_at() {
            if timeout.min(probe) <= now {
                self.tail_probe_due = true;
                // The probe counts as activity whether or not it can leave at once, and the timeout starts over.
                self.probe_base = now;
                self.timeout_base = now;
            }
            return;
        }
        if timeout > now {
            return;
        }
        match self.state {
            State::SynSent | State::SynReceived => self.on_syn_timeout(now),
            _ => self.on_data_timeout(now),
        }
    }

    /// The user timeout runs while something is unacknowledged, or held back by the peer's window. While the window is
    /// shut the peer may keep it so for as long as it answers (RFC 9293 section 3.8.6.1).
    fn arm_user_timeout(&mut self) {
        let shut = self.timers.is_armed(Timer::Persist) && self.state != State::TimeWait;
        let waits = if shut {
            // From the first probe that was not answered; `on_persist` notes when that was.
            self.window_probe_backoff > 0 && self.last_heard_at < self.progress_at
        } else {
            !self.flight.is_empty()
        };
        self.running.set(Follower::UserTimeout, waits);
    }

    /// RFC 9293 section 3.10.8: the user is told and everything is dropped; there is no word to a peer that has not
    /// answered for so long. Should it come back, its next segment meets no connection and is reset.
    fn on_user_timeout(&mut self) {
        self.close(match self.state {
            State::SynSent | State::SynReceived => CloseReason::ConnectTimeout,
            _ => CloseReason::UserTimeout,
        });
    }

    fn on_syn_timeout(&mut self, now: Instant) {
        if u32::from(self.backoff) >= self.config.syn_retries {
            return self.close(CloseReason::ConnectTimeout);
        }
        self.backoff = self.backoff.saturating_add(1);
        self.timeout_base = now;
        self.flight.mark_lost(|_| Some(true));
    }

    /// RFC 6298 section 5.4 to 5.6.
    fn on_data_timeout(&mut self, now: Instant) {
        self.rare_count().retransmission_timeouts += 1;
        self.trace.timeout(now, self.next - self.una);
        tracing::debug!(target: "outrider::tcp", trace = %self.trace, "retransmission timeout");
        if self.flight.front().is_some_and(|segment| segment.sacked) {
            // The peer took back what it had SACKed (RFC 2018 section 8).
            self.flight.forget_sacks();
        }
        let lost = self.flight.mark_lost(|_| Some(true));
        self.rate.on_lost(lost);
        let (first, until) = (self.backoff == 0, self.next);
        let rare = self.rare_mut();
        rare.recovery_until = until;
        if first {
            rare.undo = Some(Undo::Waiting);
            rare.undo_balance = Some(0);
            self.congestion.on_event(now, CongestionEvent::Timeout, self.flight.pipe());
        }
        self.recovery = Recovery::Timeout;
        self.tail_probe_out = false;
        self.backoff = self.backoff.saturating_add(1);
        self.timeout_base = now;
        self.check_black_hole(self.backoff);
    }

    /// An idle connection is probed; one with data in flight or a shut window has timers of its own.
    pub(super) fn arm_keepalive(&mut self) {
        if self.config.keepalive.is_some() {
            let idle =
                self.state.is_synchronised() && self.state != State::TimeWait && self.flight.is_empty();
            self.running.set(Follower::Keepalive, idle);
        }
    }

    /// RFC 9293 section 3.8.4, with an old sequence number like the window probe.
    fn on_keepalive(&mut self, _now: Instant) {
        let Some(keepalive) = self.config.keepalive else { return };
        if self.keepalive_probes >= keepalive.probes_max {
            return self.close_with_reset(CloseReason::KeepaliveTimeout);
        }
        self.keepalive_probes += 1;
        self.rare_count().keepalive_probes += 1;
        self.window_probe_due = true;
    }

    pub(super) fn window_probe_interval(&self) -> Duration {
        let base = self.base_timeout();
        // Several probes must be lost before the user timeout ends the connection.
        let ceiling = self.config.rto_max.min(self.config.user_timeout / PROBES_PER_USER_TIMEOUT).max(base);
        base.saturating_mul(1 << u16::from(self.window_probe_backoff).min(BACKOFF_MAX)).min(ceiling)
    }

    /// The window has stayed shut (or silly): probe, without end while the peer answers (RFC 9293 section 3.8.6.1).
    fn on_persist(&mut self, now: Instant) {
        if self.window_probe_backoff == 0 || self.last_heard_at >= self.progress_at {
            self.progress_at = now;
        }
        self.window_probe_backoff = self.window_probe_backoff.saturating_add(1);
        if self.peer_window() > 0 {
            self.silly_window_override = true;
        } else {
            self.window_probe_due = true;
        }
    }
}
