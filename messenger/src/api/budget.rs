//! The send budget of a connection: bytes unsent and in flight, against a limit.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Taken by application threads, given back by the connection's thread. Lock-free unless somebody waits.
///
/// A message is taken while the budget is not spent, so the last one may exceed the limit: a message larger than
/// the whole budget can be sent, and nobody starves behind smaller ones.
pub(super) struct SendBudget {
    limit: usize,
    spent: AtomicUsize,
    closed: AtomicBool,
    waiters: AtomicUsize,
    turns: Mutex<Turns>,
    changed: Condvar,
}

/// Tickets of those who wait.
#[derive(Default)]
struct Turns {
    next: u64,
    serving: u64,
}

/// The budget is gone with its connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BudgetClosed;

impl SendBudget {
    pub(super) fn new(limit: usize) -> Self {
        SendBudget {
            limit: limit.max(1),
            spent: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            waiters: AtomicUsize::new(0),
            turns: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// What is taken and was not given back.
    pub(super) fn spent(&self) -> usize {
        self.spent.load(Ordering::SeqCst)
    }

    /// Takes `cost` if the budget is not spent and nobody waits for it.
    pub(super) fn try_take(&self, cost: usize) -> bool {
        self.waiters.load(Ordering::SeqCst) == 0 && self.take_if_free(cost)
    }

    fn take_if_free(&self, cost: usize) -> bool {
        self.spent
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |spent| {
                (spent < self.limit).then(|| spent.saturating_add(cost))
            })
            .is_ok()
    }

    /// Takes `cost`, waiting while the budget is spent. Waiters are served in the order of their arrival, so that a
    /// small sender does not starve beside one that always has the next message ready.
    pub(super) fn take(&self, cost: usize) -> Result<(), BudgetClosed> {
        if self.is_closed() {
            return Err(BudgetClosed);
        }
        if self.try_take(cost) {
            return Ok(());
        }
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = turns.next;
        turns.next += 1;
        // Announced before the last look, as `give_back` looks at the waiters after it has given: one of the two sees
        // the other.
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let mut taken = false;
        let mut turns = self
            .changed
            .wait_while(turns, |turns| {
                taken = turns.serving == ticket && self.take_if_free(cost);
                !taken && !self.is_closed()
            })
            .unwrap_or_else(PoisonError::into_inner);
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        turns.serving += u64::from(taken);
        drop(turns);
        // The next in line may find room too; after a close everybody leaves.
        self.changed.notify_all();
        if taken { Ok(()) } else { Err(BudgetClosed) }
    }

    /// Gives `cost` back. Waiters are woken once a quarter is free, not for each message.
    pub(super) fn give_back(&self, cost: usize) {
        let spent = self.spent.fetch_sub(cost, Ordering::SeqCst) - cost;
        if self.waiters.load(Ordering::SeqCst) > 0 && spent <= self.limit - self.limit.div_ceil(4) {
            self.wake_all();
        }
    }

    /// No more messages: waiters return with an error.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    fn wake_all(&self) {
        // Taken and released: a waiter is either before its last look or already waiting.
        drop(self.turns.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc;

    #[test]
    fn the_last_message_may_exceed_the_limit_and_then_nothing_is_taken() {
        let budget = SendBudget::new(100);
        assert!(budget.try_take(60));
        assert!(budget.try_take(1000));
        assert!(!budget.try_take(1));
        budget.give_back(1000);
        assert!(budget.try_take(1));
    }

    #[test]
    fn a_waiter_goes_on_when_a_quarter_is_free_and_all_return_on_close() {
        let budget = Arc::new(SendBudget::new(100));
        budget.take(100).unwrap();
        let (taken, results) = mpsc::channel();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (budget, taken) = (Arc::clone(&budget), taken.clone());
                std::thread::spawn(move || taken.send(budget.take(100)).unwrap())
            })
            .collect();
        budget.give_back(100);
        assert_eq!(results.recv().unwrap(), Ok(()));
        budget.close();
        assert_eq!(results.recv().unwrap(), Err(BudgetClosed));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn those_who_wait_are_served_in_the_order_of_their_arrival() {
        let budget = Arc::new(SendBudget::new(100));
        budget.take(100).unwrap();
        let (done, order) = mpsc::channel();
        let mut threads = Vec::new();
        for number in 0..5 {
            let (budget_of_waiter, done) = (Arc::clone(&budget), done.clone());
            threads.push(std::thread::spawn(move || {
                budget_of_waiter.take(100).unwrap();
                done.send(number).unwrap();
            }));
            // Each is in line before the next one comes.
            while budget.waiters.load(Ordering::SeqCst) <= number {
                std::thread::yield_now();
            }
        }
        assert!(!budget.try_take(1), "nobody jumps the queue");
        for expected in 0..5 {
            budget.give_back(100);
            assert_eq!(order.recv().unwrap(), expected);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
