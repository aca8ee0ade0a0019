//! How much memory a program holds, counted where it asks for it.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::alloc::System;

/// What was allocated and not freed while it was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes as they were asked for: what the system's allocator adds to each block is not in it. Negative where more
    /// was freed than allocated.
    pub bytes: i64,
    /// Blocks.
    pub blocks: i64,
}

impl Held {
    /// What has been added since `earlier`.
    pub fn since(self, earlier: Held) -> Held {
        Held { bytes: self.bytes - earlier.bytes, blocks: self.blocks - earlier.blocks }
    }
}

/// The system's allocator, which counts when told to. A program makes it its own:
///
/// ```
/// use outrider_drivers::allocation::CountingAllocator;
///
/// #[global_allocator]
/// static ALLOCATOR: CountingAllocator = CountingAllocator::new();
///
/// ALLOCATOR.start();
/// let before = ALLOCATOR.held();
/// let kept = vec![0u8; 1000];
/// assert_eq!(ALLOCATOR.held().since(before).bytes, 1000);
/// drop(kept);
/// ```
///
/// Until [`Self::start`] an allocation costs one load more than without it.
#[derive(Debug, Default)]
pub struct CountingAllocator {
    counts: AtomicBool,
    bytes: AtomicI64,
    blocks: AtomicI64,
    requests: AtomicU64,
}

impl CountingAllocator {
    /// One that does not count yet.
    pub const fn new() -> Self {
        CountingAllocator {
            counts: AtomicBool::new(false),
            bytes: AtomicI64::new(0),
            blocks: AtomicI64::new(0),
            requests: AtomicU64::new(0),
        }
    }

    /// Counts from here on, all threads.
    pub fn start(&self) {
        self.counts.store(true, Ordering::Relaxed);
    }

    /// Counts no longer.
    pub fn stop(&self) {
        self.counts.store(false, Ordering::Relaxed);
    }

    /// What was allocated less what was freed while this counted. Only the difference of two readings, with no stop
    /// between them, means something.
    pub fn held(&self) -> Held {
        Held { bytes: self.bytes.load(Ordering::Relaxed), blocks: self.blocks.load(Ordering::Relaxed) }
    }

    /// How often memory was asked for while this counted, be it a new block or a larger one.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn count(&self, bytes: i64, blocks: i64) {
        if self.counts.load(Ordering::Relaxed) {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.blocks.fetch_add(blocks, Ordering::Relaxed);
            self.requests.fetch_add(u64::from(blocks >= 0), Ordering::Relaxed);
        }
    }
}

/// The size of a block as a signed number: a layout has at most `isize::MAX` bytes.
fn signed(bytes: usize) -> i64 {
    bytes as i64
}

// SAFETY: every method hands its arguments on to `System` as they are and returns what it returns; counting neither
// allocates nor panics.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is the one that `System` asks for.
        let block = unsafe { System.alloc(layout) };
        if !block.is_null() {
            self.count(signed(layout.size()), 1);
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is the one that `System` asks for.
        let block = unsafe { System.alloc_zeroed(layout) };
        if !block.is_null() {
            self.count(signed(layout.size()), 1);
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.count(-signed(layout.size()), -1);
        // SAFETY: the block came from `System`, for all that this allocator gives does, with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the block came from `System` with this layout, and the caller promises that the new size is valid.
        let moved = unsafe { System.realloc(block, layout, new_size) };
        if !moved.is_null() {
            self.count(signed(new_size) - signed(layout.size()), 0);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_counted_while_it_is_told_to() {
        let allocator = CountingAllocator::new();
        let (small, large) = (Layout::new::<[u8; 100]>(), Layout::new::<[u8; 300]>());
        // SAFETY: the layouts are valid and not empty; each block is given back once, with the layout it has by then.
        unsafe {
            let unseen = allocator.alloc(small);
            allocator.start();
            let block = allocator.alloc(small);
            let zeroed = allocator.alloc_zeroed(large);
            assert_eq!(allocator.held(), Held { bytes: 400, blocks: 2 });
            let before = allocator.held();
            let block = allocator.realloc(block, small, large.size());
            assert_eq!(allocator.held().since(before), Held { bytes: 200, blocks: 0 });
            allocator.dealloc(block, large);
            allocator.dealloc(zeroed, large);
            assert_eq!(allocator.held(), Held::default());
            assert_eq!(allocator.requests(), 3);
            allocator.stop();
            allocator.dealloc(unseen, small);
        }
        assert_eq!(allocator.held(), Held::default());
    }
}
