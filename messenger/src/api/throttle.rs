//! Limits on what waits for dispatch across connections.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::connection::Inner;

/// How much may be received and not dispatched, over all connections that share the throttle.
///
/// While a limit is reached no connection of these grants its peer more credit. What was granted before may still come:
/// so above the limit there is, for each connection, a receive credit and a message for each lane at most. A strict
/// bound would have to keep back what is granted and not used, and idle peers would hold it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleLimits {
    /// Bytes, message headers included.
    pub bytes: u64,
    /// Messages.
    pub messages: u64,
}

/// A throttle and those who wait for it.
pub(super) struct Throttle {
    limits: ThrottleLimits,
    bytes: AtomicU64,
    messages: AtomicU64,
    is_waited_for: AtomicBool,
    /// Connections whose peers wait for credit. Touched when a limit is exceeded and when it no longer is.
    waiting: Mutex<Vec<Weak<Inner>>>,
}

impl Throttle {
    pub(super) fn new(limits: ThrottleLimits) -> Arc<Self> {
        Arc::new(Throttle {
            limits,
            bytes: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            is_waited_for: AtomicBool::new(false),
            waiting: Mutex::default(),
        })
    }

    fn is_exceeded(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) >= self.limits.bytes
            || self.messages.load(Ordering::SeqCst) >= self.limits.messages
    }

    /// A message waits for dispatch.
    pub(super) fn take(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        self.messages.fetch_add(1, Ordering::SeqCst);
    }

    /// It has been dispatched.
    pub(super) fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.messages.fetch_sub(1, Ordering::SeqCst);
        if !self.is_exceeded() && self.is_waited_for.swap(false, Ordering::SeqCst) {
            let waiting = core::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.iter().filter_map(Weak::upgrade).for_each(|inner| inner.wake());
        }
    }

    /// Whether a limit is exceeded; then `inner` is woken when it no longer is.
    pub(super) fn is_exceeded_for(&self, inner: &Arc<Inner>) -> bool {
        if !self.is_exceeded() {
            return false;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|other| other.strong_count() > 0);
        if !waiting.iter().any(|other| core::ptr::eq(other.as_ptr(), Arc::as_ptr(inner))) {
            waiting.push(Arc::downgrade(inner));
        }
        self.is_waited_for.store(true, Ordering::SeqCst);
        // Whoever gave back meanwhile may not have seen that somebody waits.
        self.is_exceeded()
    }

    /// Bytes and messages that wait for dispatch now.
    pub(super) fn held(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::SeqCst), self.messages.load(Ordering::SeqCst))
    }
}
