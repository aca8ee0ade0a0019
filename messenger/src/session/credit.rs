//! Receive credit as this end grants it, and what it holds undispatched.

use std::collections::VecDeque;

use outrider_stack::time::Instant;

use crate::report::ReceiveReport;

#[derive(Clone, Copy)]
struct Undispatched {
    arrived_at: Instant,
    bytes: u64,
}

/// Complete messages that wait for their dispatchers.
#[derive(Default)]
struct Waiting {
    messages: VecDeque<Undispatched>,
    bytes: u64,
}

/// Who holds the credit that the peer has spent.
///
/// The limit granted is: bytes freed, plus the window less what earlier connections left undispatched, plus what is in
/// messages not yet complete. So complete
/// messages that nobody dispatches use the window up, while one message larger than the window still gets through.
pub(super) struct ReceiveCredit {
    window: u64,
    /// Bytes freed, less those held by messages of earlier connections when this one began.
    freed: i64,
    /// There while a message waits.
    waiting: Option<Box<Waiting>>,
}

impl ReceiveCredit {
    pub(super) fn new(window: u64) -> Self {
        ReceiveCredit { window, freed: 0, waiting: None }
    }

    /// A new connection begins: what its sender may send before the first grant.
    pub(super) fn begin(&mut self) -> u64 {
        let held = self.waiting.as_ref().map_or(0, |waiting| waiting.bytes);
        self.freed = 0i64.saturating_sub_unsigned(held);
        self.window.saturating_sub(held)
    }

    /// A complete message waits for its dispatcher.
    pub(super) fn queued(&mut self, arrived_at: Instant, bytes: u64) {
        let waiting = self.waiting.get_or_insert_default();
        waiting.messages.push_back(Undispatched { arrived_at, bytes });
        waiting.bytes += bytes;
    }

    /// A complete message was dispatched without waiting.
    pub(super) fn dispatched_at_once(&mut self, bytes: u64) {
        self.freed = self.freed.saturating_add_unsigned(bytes);
    }

    /// The `count` messages that waited longest have been dispatched.
    pub(super) fn dispatched(&mut self, count: u64) {
        let Some(waiting) = &mut self.waiting else { return };
        for _ in 0..count {
            let Some(message) = waiting.messages.pop_front() else { break };
            waiting.bytes -= message.bytes;
            self.freed = self.freed.saturating_add_unsigned(message.bytes);
        }
        if waiting.messages.is_empty() {
            self.waiting = None;
        }
    }

    /// The limit to grant, if it is a quarter of the window above the one in force.
    #[inline]
    pub(super) fn grant(&self, granted: u64, spent: u64, completed: u64) -> Option<u64> {
        let limit = self.window.saturating_add_signed(self.freed) + (spent - completed);
        (limit.saturating_sub(granted) >= self.window / 4).then_some(limit)
    }

    pub(super) fn report(&self, now: Instant, granted: u64, spent: u64) -> ReceiveReport {
        let credit_left = granted.saturating_sub(spent);
        let Some(waiting) = &self.waiting else {
            return ReceiveReport { credit_left, ..ReceiveReport::default() };
        };
        ReceiveReport {
            undispatched_bytes: waiting.bytes,
            undispatched_messages: waiting.messages.len() as u64,
            oldest_age: waiting
                .messages
                .front()
                .map(|message| now.since(message.arrived_at))
                .unwrap_or_default(),
            credit_left,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_connection_left_undispatched_comes_back_as_it_is_dispatched() {
        let now = Instant::from_millis(1);
        let mut credit = ReceiveCredit::new(10_000);
        credit.dispatched_at_once(500);
        credit.queued(now, 3_000);
        credit.queued(now, 1_000);
        assert_eq!(credit.begin(), 6_000);
        assert_eq!(credit.grant(6_000, 0, 0), None);
        credit.dispatched(1);
        assert_eq!(credit.grant(6_000, 0, 0), Some(9_000));
        let report = credit.report(now, 9_000, 200);
        assert_eq!((report.undispatched_bytes, report.undispatched_messages), (1_000, 1));
        credit.dispatched(5);
        assert!(credit.waiting.is_none(), "more than there are is no harm");
        assert_eq!(credit.grant(6_000, 0, 0), Some(10_000));
    }
}
