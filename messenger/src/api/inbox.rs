//! What application threads leave for the connection's thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Entries on their way to the connection's thread, first in, first out. Bounded by who puts them in.
///
/// Many threads put entries in and one takes them all. The taker never waits: where it finds the box locked it comes away
/// with nothing, and whoever held the lock wakes it again. An empty box holds no memory.
pub(super) struct Inbox<T> {
    filled: AtomicBool,
    entries: Mutex<Vec<T>>,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Inbox { filled: AtomicBool::new(false), entries: Mutex::new(Vec::new()) }
    }
}

impl<T> Inbox<T> {
    /// Puts an entry in. The taker must be woken after it.
    pub(super) fn push(&self, entry: T) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(entry);
        self.filled.store(true, Ordering::Release);
    }

    /// Puts an entry in unless there are `limit` already; gives it back then.
    pub(super) fn push_below(&self, limit: usize, entry: T) -> Result<(), T> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= limit {
            return Err(entry);
        }
        // As many as there are, and no room for more: most often it is one.
        entries.reserve_exact(1);
        entries.push(entry);
        self.filled.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether there is nothing in it. One load.
    pub(super) fn is_empty(&self) -> bool {
        !self.filled.load(Ordering::Acquire)
    }

    /// For the connection's thread: all entries, unless somebody is putting one in at this very moment.
    pub(super) fn take(&self) -> Vec<T> {
        if self.is_empty() {
            return Vec::new();
        }
        match self.entries.try_lock() {
            Ok(mut entries) => self.empty(&mut entries),
            Err(_) => Vec::new(),
        }
    }

    /// All entries. May wait for those who put some in.
    pub(super) fn drain(&self) -> Vec<T> {
        self.empty(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn empty(&self, entries: &mut Vec<T>) -> Vec<T> {
        self.filled.store(false, Ordering::Release);
        core::mem::take(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_in_their_order_and_leave_nothing_behind() {
        let inbox = Inbox::default();
        assert!(inbox.is_empty() && inbox.take().is_empty());
        (0..3).for_each(|entry| inbox.push(entry));
        assert!(!inbox.is_empty());
        assert_eq!(inbox.take(), [0, 1, 2]);
        assert!(inbox.is_empty() && inbox.drain().is_empty());
        assert_eq!(inbox.entries.lock().unwrap().capacity(), 0);
    }

    #[test]
    fn a_full_box_gives_the_entry_back() {
        let inbox = Inbox::default();
        assert_eq!([1, 2, 3].map(|entry| inbox.push_below(2, entry)), [Ok(()), Ok(()), Err(3)]);
        assert_eq!(inbox.take(), [1, 2]);
    }

    #[test]
    fn the_taker_does_not_wait_for_one_who_puts_something_in() {
        let inbox = Inbox::default();
        inbox.push(1);
        let held = inbox.entries.lock().unwrap();
        assert!(inbox.take().is_empty());
        drop(held);
        assert_eq!(inbox.take(), [1]);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let inbox = Inbox::default();
        let mut taken = Vec::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4u32)
                .map(|thread| {
                    let inbox = &inbox;
                    scope.spawn(move || (0..1000).for_each(|entry| inbox.push((thread, entry))))
                })
                .collect();
            while threads.iter().any(|thread| !thread.is_finished()) {
                taken.extend(inbox.take());
                std::thread::yield_now();
            }
        });
        taken.extend(inbox.take());
        for thread in 0..4 {
            let of_thread = taken.iter().filter(|(from, _)| *from == thread).map(|(_, entry)| *entry);
            assert_eq!(of_thread.collect::<Vec<_>>(), (0..1000).collect::<Vec<_>>());
        }
    }
}
