//! How long a sender was busy, and what it waited for: `tcpi_busy_time`, `tcpi_rwnd_limited`, `tcpi_sndbuf_limited`.

use std::time::Duration;

use outrider_stack::time::Instant;

/// What a sender is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// It has nothing to send and nothing unacknowledged.
    Idle,
    /// It is busy, and neither of the following holds it up.
    Other,
    /// The peer's window holds back what was written.
    PeerWindow,
    /// Everything is sent, and the writer waits for room in the send buffer.
    SendBuffer,
}

/// The stopwatches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    present: Limit,
    since: Instant,
    busy: Duration,
    by_window: Duration,
    by_send_buffer: Duration,
}

impl Limits {
    pub(super) fn new(now: Instant) -> Self {
        Limits {
            present: Limit::Idle,
            since: now,
            busy: Duration::ZERO,
            by_window: Duration::ZERO,
            by_send_buffer: Duration::ZERO,
        }
    }

    /// From `now` on the sender does this.
    pub(super) fn note(&mut self, now: Instant, limit: Limit) {
        self.busy = self.busy(now);
        self.by_window = self.by_window(now);
        self.by_send_buffer = self.by_send_buffer(now);
        (self.present, self.since) = (limit, now);
    }

    /// Time with something unsent or unacknowledged.
    pub(super) fn busy(&self, now: Instant) -> Duration {
        self.busy + if self.present == Limit::Idle { Duration::ZERO } else { now - self.since }
    }

    /// Of that, held up by the peer's window.
    pub(super) fn by_window(&self, now: Instant) -> Duration {
        self.by_window + if self.present == Limit::PeerWindow { now - self.since } else { Duration::ZERO }
    }

    /// Of that, held up by the size of the send buffer.
    pub(super) fn by_send_buffer(&self, now: Instant) -> Duration {
        self.by_send_buffer
            + if self.present == Limit::SendBuffer { now - self.since } else { Duration::ZERO }
    }
}
