//! Frame buffers that go round: the steady path allocates nothing.

use std::sync::{Arc, Mutex, PoisonError};

/// Memory of one frame. Its length is a capacity; the frame's own length travels beside it.
pub(super) type Buffer = Box<[u8]>;

/// Buffers that move between a port and the shared pool under one lock. Few, because buffers that wait in a stock are
/// buffers that the cache has forgotten when their turn comes.
const BATCH: usize = 16;
/// Buffers a port keeps for itself.
const LOCAL_MAX: usize = 2 * BATCH;
/// Buffers the shared pool keeps; more are freed.
const SHARED_MAX: usize = 4096;

/// Spare buffers of one cable or switch.
#[derive(Debug, Default)]
pub(super) struct SharedPool {
    spare: Mutex<Vec<Buffer>>,
}

/// A port's own stock, exchanged with the shared one in batches: the sender runs out, the receiver piles up.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<SharedPool>,
    spare: Vec<Buffer>,
}

impl Pool {
    pub(super) fn new(shared: Arc<SharedPool>) -> Self {
        Pool { shared, spare: Vec::with_capacity(LOCAL_MAX + 1) }
    }

    /// A buffer of at least `bytes`, with whatever the last frame left in it.
    pub(super) fn take(&mut self, bytes: usize) -> Buffer {
        if self.spare.is_empty() {
            let mut shared = self.shared.spare.lock().unwrap_or_else(PoisonError::into_inner);
            let rest = shared.len().saturating_sub(BATCH);
            self.spare.extend(shared.drain(rest..));
        }
        match self.spare.pop() {
            Some(buffer) if buffer.len() >= bytes => buffer,
            // Either there is none, or it comes from a port with a smaller MTU on the same switch.
            _ => vec![0; bytes].into_boxed_slice(),
        }
    }

    /// Takes back a buffer whose frame is done.
    pub(super) fn give(&mut self, buffer: Buffer) {
        self.spare.push(buffer);
        if self.spare.len() > LOCAL_MAX {
            let mut shared = self.shared.spare.lock().unwrap_or_else(PoisonError::into_inner);
            shared.extend(self.spare.drain(..BATCH));
            shared.truncate(SHARED_MAX);
        }
    }
}
