//! Receive credit as this end grants it, and what it holds undispatched.

use outrider_stack::time::Instant;

use crate::report::ReceiveReport;
use crate::sparse::SparseQueue;

#[derive(Clone, Copy)]
struct Undispatched {
    arrived_at: Instant,
    bytes: u64,
}

/// Who holds the credit that the peer has spent.
///
/// The limit granted is: bytes freed, plus the window less what earlier connections left undispatched, plus what is in
/// messages not yet complete. So complete
/// messages that nobody dispatches use the window up, while one message larger than the window still gets through.
pub(super) struct ReceiveCredit {
    window: u64,
    /// Held by messages of earlier connections when this one began.
    held_before: u64,
    freed: u64,
    queue: SparseQueue<Undispatched>,
    queued_bytes: u64,
}

impl ReceiveCredit {
    pub(super) fn new(window: u64) -> Self {
        ReceiveCredit { window, held_before: 0, freed: 0, queue: SparseQueue::default(), queued_bytes: 0 }
    }

    /// A new connection begins: what its sender may send before the first grant.
    pub(super) fn begin(&mut self) -> u64 {
        self.held_before = self.queued_bytes;
        self.freed = 0;
        self.window.saturating_sub(self.held_before)
    }

    /// A complete message waits for its dispatcher.
    pub(super) fn queued(&mut self, arrived_at: Instant, bytes: u64) {
        self.queue.push_back(Undispatched { arrived_at, bytes });
        self.queued_bytes += bytes;
    }

    /// A complete message was dispatched without waiting.
    pub(super) fn dispatched_at_once(&mut self, bytes: u64) {
        self.freed += bytes;
    }

    /// The `count` messages that waited longest have been dispatched.
    pub(super) fn dispatched(&mut self, count: u64) {
        for _ in 0..count {
            let Some(message) = self.queue.pop_front() else { return };
            self.queued_bytes -= message.bytes;
            self.freed += message.bytes;
        }
    }

    /// The limit to grant, if it is a quarter of the window above the one in force.
    pub(super) fn grant(&self, granted: u64, spent: u64, completed: u64) -> Option<u64> {
        let limit = (self.freed + self.window).saturating_sub(self.held_before) + (spent - completed);
        (limit.saturating_sub(granted) >= self.window / 4).then_some(limit)
    }

    pub(super) fn report(&self, now: Instant, granted: u64, spent: u64) -> ReceiveReport {
        ReceiveReport {
            undispatched_bytes: self.queued_bytes,
            undispatched_messages: self.queue.len() as u64,
            oldest_age: self.queue.front().map(|message| now.since(message.arrived_at)).unwrap_or_default(),
            credit_left: granted.saturating_sub(spent),
        }
    }
}
