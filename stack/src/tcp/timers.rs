//! The timers of one connection, in one table.

use crate::time::Instant;

/// What a timer is for whose deadline is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Retransmission timeout or tail loss probe (RFC 6298, RFC 8985 section 7).
    Retransmit,
    /// RACK reordering window (RFC 8985 section 6.2).
    Reorder,
    /// Zero-window probe (RFC 9293 section 3.8.6.1).
    Persist,
    /// End of TIME-WAIT, in which nothing waits for a window: it has the place of [`Timer::Persist`].
    TimeWait,
}

impl Timer {
    const PLACES: usize = 3;

    fn place(self) -> usize {
        match self {
            Timer::Retransmit => 0,
            Timer::Reorder => 1,
            Timer::Persist | Timer::TimeWait => 2,
        }
    }
}

/// Deadlines by [`Timer`]; unarmed ones are in the far future.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimerTable([Instant; Timer::PLACES]);

impl Default for TimerTable {
    fn default() -> Self {
        TimerTable([Instant::FAR_FUTURE; Timer::PLACES])
    }
}

impl TimerTable {
    pub(crate) fn arm(&mut self, timer: Timer, at: Instant) {
        self.0[timer.place()] = at;
    }

    pub(crate) fn disarm(&mut self, timer: Timer) {
        self.0[timer.place()] = Instant::FAR_FUTURE;
    }

    pub(crate) fn is_armed(&self, timer: Timer) -> bool {
        self.0[timer.place()] != Instant::FAR_FUTURE
    }

    /// Disarms `timer` and says so if its deadline has come.
    pub(crate) fn take_expired(&mut self, timer: Timer, now: Instant) -> bool {
        let expired = self.is_armed(timer) && self.0[timer.place()] <= now;
        if expired {
            self.disarm(timer);
        }
        expired
    }

    /// The earliest deadline; the far future if there is none.
    pub(crate) fn next(&self) -> Instant {
        let [first, second, third] = self.0;
        first.min(second).min(third)
    }

    pub(crate) fn disarm_all(&mut self) {
        *self = TimerTable::default();
    }
}

/// A timer whose deadline follows from what the connection keeps anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follower {
    /// Delayed acknowledgement (RFC 1122 section 4.2.3.2).
    DelayedAck = 1,
    /// The pacer lets the next segment go.
    Pacing = 2,
    /// Keepalive probe (RFC 9293 section 3.8.4).
    Keepalive = 4,
    /// Outstanding data has been without an answer for too long (RFC 5482).
    UserTimeout = 8,
}

impl Follower {
    pub(crate) const ALL: [Follower; 4] =
        [Follower::DelayedAck, Follower::Pacing, Follower::Keepalive, Follower::UserTimeout];
}

/// Which of the [`Follower`]s run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Running(u8);

impl Running {
    pub(crate) fn set(&mut self, timer: Follower, runs: bool) {
        self.0 = self.0 & !(timer as u8) | if runs { timer as u8 } else { 0 };
    }

    pub(crate) fn has(self, timer: Follower) -> bool {
        self.0 & timer as u8 != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_armed_timer_is_next() {
        let mut timers = TimerTable::default();
        assert_eq!(timers.next(), Instant::FAR_FUTURE);
        timers.arm(Timer::Persist, Instant::from_millis(3));
        timers.arm(Timer::Reorder, Instant::from_millis(2));
        timers.arm(Timer::Retransmit, Instant::from_millis(4));
        assert_eq!(timers.next(), Instant::from_millis(2));
        assert!(!timers.take_expired(Timer::Reorder, Instant::from_millis(1)));
        assert!(timers.take_expired(Timer::Reorder, Instant::from_millis(2)));
        assert!(!timers.is_armed(Timer::Reorder));
        assert_eq!(timers.next(), Instant::from_millis(3));
        timers.disarm_all();
        assert_eq!(timers.next(), Instant::FAR_FUTURE);
    }

    #[test]
    fn each_follower_runs_by_itself() {
        let mut running = Running::default();
        for timer in Follower::ALL {
            running.set(timer, true);
        }
        running.set(Follower::Keepalive, false);
        running.set(Follower::Pacing, true);
        let left = Follower::ALL.map(|timer| running.has(timer));
        assert_eq!(left, [true, true, false, true]);
        Follower::ALL.into_iter().for_each(|timer| running.set(timer, false));
        assert!(running.is_empty());
    }
}
