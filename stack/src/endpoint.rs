//! What sits on a connection: a session of the messenger, or a byte stream.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::growth::lengthen;
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

    /// [`Waker::wake`] was called: another thread left something for this endpoint. It may be called for nothing, also
    /// before `on_established`: by a waker of the connection that had this one's place before.
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
    id: ConnectionId,
    marks: Arc<Marks>,
}

/// Connections in so many neighbouring places have their marks together, so that those of many connections stay in the
/// cache; of more, threads that wake different ones would get into each other's way.
const MARKS: usize = 8;

/// Which of some connections were woken since their last `on_wake`.
struct Marks {
    target: Arc<dyn WakeTarget>,
    pending: [AtomicBool; MARKS],
}

impl Marks {
    fn new(target: Arc<dyn WakeTarget>) -> Arc<Marks> {
        Arc::new(Marks { target, pending: Default::default() })
    }

    /// The mark of the connection with this index.
    fn of(&self, index: u32) -> &AtomicBool {
        &self.pending[index as usize % MARKS]
    }

    fn clear(&self, index: u32) {
        // A read-modify-write, not a store: it must acquire what a merged wake released before it.
        self.of(index).swap(false, Ordering::AcqRel);
    }
}

impl Waker {
    /// A waker for `id` that reports to `target`.
    pub fn new(id: ConnectionId, target: Arc<dyn WakeTarget>) -> Self {
        Waker { id, marks: Marks::new(target) }
    }

    /// The connection.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Has `on_wake` called soon on the endpoint's thread.
    pub fn wake(&self) {
        if !self.marks.of(self.id.index).swap(true, Ordering::AcqRel) {
            self.marks.target.wake(self.id);
        }
    }

    /// For whoever drives the endpoint: forget pending wakes, just before `on_wake` is called.
    pub fn clear(&self) {
        self.marks.clear(self.id.index);
    }
}

/// Makes the wakers of a stack's connections.
///
/// A mark belongs to a place of the connection table. A waker that outlives its connection may set the mark that the
/// next connection in that place has; so whatever id a wake is for, the place is what is to be looked at.
pub(crate) struct Wakers {
    target: Arc<dyn WakeTarget>,
    marks: Vec<Option<Arc<Marks>>>,
}

impl Wakers {
    pub(crate) fn new(target: Arc<dyn WakeTarget>) -> Self {
        Wakers { target, marks: Vec::new() }
    }

    /// A waker for `id`.
    pub(crate) fn make(&mut self, id: ConnectionId) -> Waker {
        let group = id.index as usize / MARKS;
        lengthen(&mut self.marks, group + 1, None);
        let marks = self.marks[group].get_or_insert_with(|| Marks::new(Arc::clone(&self.target)));
        Waker { id, marks: Arc::clone(marks) }
    }

    /// A waker for an endpoint that gets no connection.
    pub(crate) fn make_for_nobody(&self, id: ConnectionId) -> Waker {
        Waker::new(id, Arc::clone(&self.target))
    }

    /// Forgets pending wakes for the connection in place `index`, just before its `on_wake` is called.
    pub(crate) fn clear(&self, index: u32) {
        if let Some(Some(marks)) = self.marks.get(index as usize / MARKS) {
            marks.clear(index);
        }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waker").field(&self.id).finish()
    }
}

#[cfg(test)]
mod tests {
    use crossbeam::queue::SegQueue;

    use super::*;

    struct Woken(SegQueue<u32>);

    impl WakeTarget for Woken {
        fn wake(&self, id: ConnectionId) {
            self.0.push(id.index);
        }
    }

    #[test]
    fn neighbours_are_woken_each_for_itself() {
        let woken = Arc::new(Woken(SegQueue::new()));
        let mut wakers = Wakers::new(Arc::clone(&woken) as Arc<dyn WakeTarget>);
        let all: Vec<Waker> =
            (0..20).map(|index| wakers.make(ConnectionId { index, generation: 0 })).collect();
        let wake_all = || {
            all.iter().for_each(Waker::wake);
            std::iter::from_fn(|| woken.0.pop()).collect::<Vec<u32>>()
        };
        assert_eq!(wake_all(), (0..20).collect::<Vec<u32>>());
        assert_eq!(wake_all(), [0; 0], "merged until on_wake");
        wakers.clear(7);
        wakers.clear(8);
        assert_eq!(wake_all(), [7, 8]);
    }
}
