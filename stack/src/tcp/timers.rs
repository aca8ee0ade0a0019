//! The timers of one connection, in one table.

use crate::time::Instant;

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Retransmission timeout or tail loss probe (RFC 6298, RFC 8985 section 7).
    Retransmit,
    /// RACK reordering window (RFC 8985 section 6.2).
    Reorder,
    /// Zero-window probe (RFC 9293 section 3.8.6.1).
    Persist,
    /// Delayed acknowledgement (RFC 1122 section 4.2.3.2).
    DelayedAck,
    /// The pacer lets the next segment go.
    Pacing,
    /// Keepalive probe (RFC 9293 section 3.8.4).
    Keepalive,
    /// End of TIME-WAIT.
    TimeWait,
    /// Outstanding data has been without an answer for too long (RFC 5482).
    UserTimeout,
}

impl Timer {
    pub(crate) const ALL: [Timer; 8] = [
        Timer::Retransmit,
        Timer::Reorder,
        Timer::Persist,
        Timer::DelayedAck,
        Timer::Pacing,
        Timer::Keepalive,
        Timer::TimeWait,
        Timer::UserTimeout,
    ];
}

/// Deadlines by [`Timer`]; unarmed ones are in the far future.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimerTable([Instant; Timer::ALL.len()]);

impl Default for TimerTable {
    fn default() -> Self {
        TimerTable([Instant::FAR_FUTURE; Timer::ALL.len()])
    }
}

impl TimerTable {
    pub(crate) fn arm(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = at;
    }

    pub(crate) fn disarm(&mut self, timer: Timer) {
        self.0[timer as usize] = Instant::FAR_FUTURE;
    }

    pub(crate) fn is_armed(&self, timer: Timer) -> bool {
        self.0[timer as usize] != Instant::FAR_FUTURE
    }

    /// Disarms `timer` and says so if its deadline has come.
    pub(crate) fn take_expired(&mut self, timer: Timer, now: Instant) -> bool {
        let expired = self.is_armed(timer) && self.0[timer as usize] <= now;
        if expired {
            self.disarm(timer);
        }
        expired
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().copied().min().filter(|at| *at != Instant::FAR_FUTURE)
    }

    /// See [`super::connection::Connection::touch`].
    pub(crate) fn touch(&self) -> u64 {
        self.0[0].as_nanos() ^ self.0[Timer::ALL.len() - 1].as_nanos()
    }

    pub(crate) fn disarm_all(&mut self) {
        *self = TimerTable::default();
    }
}
