//! What the table of connections and an endpoint on its shard leave for each other.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use outrider_stack::endpoint::Waker;

use super::connection::Connection;
use crate::codec::CloseCode;
use crate::link::TransportId;
use crate::session::Admission;

/// The answer to a claim.
pub(super) enum Verdict {
    Admit(Connection, Box<Admission>),
    Decline(CloseCode),
}

const RELEASE: u8 = 1;
const VERDICT: u8 = 2;

/// Shared by the messenger and one endpoint. Locked only where a session changes hands.
pub(super) struct Attachment {
    pub(super) id: TransportId,
    orders: AtomicU8,
    verdict: Mutex<Option<Verdict>>,
    waker: OnceLock<Waker>,
    /// It is for a connection, which closes it in order when it is marked down.
    pub(super) known: AtomicBool,
}

impl Attachment {
    pub(super) fn new(id: TransportId) -> Self {
        Attachment {
            id,
            orders: AtomicU8::new(0),
            verdict: Mutex::new(None),
            waker: OnceLock::new(),
            known: AtomicBool::new(false),
        }
    }

    pub(super) fn attach(&self, waker: Waker) {
        // What was ordered before there was a waker.
        waker.wake();
        if self.waker.set(waker).is_err() {
            tracing::error!(transport = self.id.0, "attached twice");
        }
        self.wake();
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    pub(super) fn waker(&self) -> Option<Waker> {
        self.waker.get().cloned()
    }

    /// Has the endpoint give up its session and reset the connection.
    pub(super) fn order_release(&self) {
        self.orders.fetch_or(RELEASE, Ordering::SeqCst);
        self.wake();
    }

    /// Leaves the answer to the endpoint's claim.
    pub(super) fn answer(&self, verdict: Verdict) {
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        self.orders.fetch_or(VERDICT, Ordering::SeqCst);
        self.wake();
    }

    /// For the endpoint: whether anything was left. One load where nothing was.
    pub(super) fn has_orders(&self) -> bool {
        self.orders.load(Ordering::Relaxed) != 0
    }

    pub(super) fn take_release(&self) -> bool {
        self.orders.fetch_and(!RELEASE, Ordering::SeqCst) & RELEASE != 0
    }

    pub(super) fn take_verdict(&self) -> Option<Verdict> {
        if self.orders.fetch_and(!VERDICT, Ordering::SeqCst) & VERDICT == 0 {
            return None;
        }
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
