//! What sits on a connection: a session of the messenger, or a byte stream.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::tcp::connection::CloseReason;
use crate::tcp::source::{SegmentSink, SegmentSource};
use crate::time::Instant;

/// Names a connection within one stack; never reused for another while the stack lives (generation).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Slot in the connection table.
    pub index: u32,
    /// How many connections the slot held before.
    pub generation: u32,
}

/// Both ends of an established connection and what was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Established {
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Payload bytes of one segment at most.
    pub segment_size: usize,
}

/// What the endpoint wants done with its connection. (An orderly end is [`SegmentSource::finished`].)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Directive {
    /// Carry on.
    #[default]
    Continue,
    /// Reset the connection at once.
    Abort,
}

/// The user of one connection. All calls come from the thread that runs the stack, none may block.
///
/// Order: `on_attached`, then `on_established`, then source and sink calls and wakes in any order, then exactly one
/// `on_closed` (also when the connection never was established), then drop. [`Self::directive`] is asked after each.
pub trait Endpoint: SegmentSource + SegmentSink + Send {
    /// The endpoint now belongs to a connection. `waker` may be given to other threads.
    fn on_attached(&mut self, _now: Instant, _waker: Waker) {}

    /// The handshake is complete.
    fn on_established(&mut self, now: Instant, established: &Established);

    /// [`Waker::wake`] was called: another thread left something for this endpoint.
    fn on_wake(&mut self, _now: Instant) {}

    /// What shall be done with the connection.
    fn directive(&mut self) -> Directive {
        Directive::Continue
    }

    /// The connection has ended, or could not be made.
    fn on_closed(&mut self, now: Instant, reason: CloseReason);
}

/// Makes endpoints for incoming connections. Runs on the stack's thread, must not block.
pub trait Acceptor: Send {
    /// A peer completed the handshake with `local`; `None` resets it.
    fn accept(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) -> Option<Box<dyn Endpoint>>;
}

/// Where wakes go: the command queue of a shard, or a list of a stack run in virtual time.
pub trait WakeTarget: Send + Sync {
    /// Have [`Endpoint::on_wake`] called for `id` soon.
    fn wake(&self, id: ConnectionId);
}

/// Wakes one endpoint from any thread. Cheap to clone; wakes between two `on_wake` calls are merged into one.
#[derive(Clone)]
pub struct Waker {
    inner: Arc<WakerInner>,
}

struct WakerInner {
    id: ConnectionId,
    pending: AtomicBool,
    target: Arc<dyn WakeTarget>,
}

impl Waker {
    /// A waker for `id` that reports to `target`.
    pub fn new(id: ConnectionId, target: Arc<dyn WakeTarget>) -> Self {
        Waker { inner: Arc::new(WakerInner { id, pending: AtomicBool::new(false), target }) }
    }

    /// The connection.
    pub fn id(&self) -> ConnectionId {
        self.inner.id
    }

    /// Has `on_wake` called soon on the endpoint's thread.
    pub fn wake(&self) {
        if !self.inner.pending.swap(true, Ordering::AcqRel) {
            self.inner.target.wake(self.inner.id);
        }
    }

    /// For the stack: forget pending wakes, just before `on_wake` is called.
    pub fn clear(&self) {
        // A read-modify-write, not a store: it must acquire what a merged wake released before it.
        self.inner.pending.swap(false, Ordering::AcqRel);
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waker").field(&self.inner.id).finish()
    }
}
