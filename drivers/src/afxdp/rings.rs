//! The rings that a socket shares with the kernel: one side produces, the other consumes, no locks.
//!
//! A ring is a power of two of descriptors and two counters that only grow (and wrap). Whoever produces writes
//! descriptors and then moves `producer` with release; whoever consumes reads `producer` with acquire, reads the
//! descriptors, and moves `consumer` with release. Each side keeps its own counter and a copy of the other's, and
//! looks at the shared one only when the copy says that nothing is left.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::Arc;

use memmap2::MmapRaw;

/// What a ring may hold.
///
/// # Safety
/// Any bytes must be a valid value, since the other side writes them.
pub(super) unsafe trait Descriptor: Copy {}

// SAFETY: any eight bytes are a number.
unsafe impl Descriptor for u64 {}
// SAFETY: a structure of integers.
unsafe impl Descriptor for libc::xdp_desc {}

/// Where things are in the ring's memory, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingOffsets {
    pub producer: usize,
    pub consumer: usize,
    pub flags: usize,
    pub descriptors: usize,
}

impl RingOffsets {
    /// Bytes that a ring of `size` descriptors of `T` needs.
    pub(super) fn bytes<T>(&self, size: u32) -> usize {
        self.descriptors + size as usize * size_of::<T>()
    }
}

/// One side's view of the shared memory.
struct Shared<T> {
    /// Keeps the memory mapped.
    _memory: Arc<MmapRaw>,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    descriptors: NonNull<T>,
    size: u32,
    _holds: PhantomData<T>,
}

// SAFETY: the pointers lead into memory that is kept mapped by `_memory`, whichever thread uses them; the counters are
// atomic, and descriptors are touched through `&mut self` of the one side that owns them.
unsafe impl<T: Descriptor + Send> Send for Shared<T> {}

impl<T: Descriptor> Shared<T> {
    /// # Panics
    /// If the offsets do not fit the memory or the type: the kernel, or a test, described another ring.
    fn new(memory: &Arc<MmapRaw>, offsets: RingOffsets, size: u32) -> Self {
        assert!(size.is_power_of_two(), "rings have a power of two of descriptors");
        assert!(offsets.bytes::<T>(size) <= memory.len(), "the ring lies within its memory");
        let counters = [offsets.producer, offsets.consumer, offsets.flags];
        assert!(
            counters.iter().all(|at| at % 4 == 0 && at + 4 <= memory.len()),
            "counters lie within the memory"
        );
        assert!(offsets.descriptors.is_multiple_of(align_of::<T>()), "descriptors are aligned");
        let at = |offset: usize| {
            // SAFETY: the assertions above put every offset used here within the mapping.
            let address = unsafe { memory.as_mut_ptr().add(offset) };
            NonNull::new(address).expect("a mapping does not begin at zero")
        };
        Shared {
            producer: at(offsets.producer).cast(),
            consumer: at(offsets.consumer).cast(),
            flags: at(offsets.flags).cast(),
            descriptors: at(offsets.descriptors).cast(),
            size,
            _memory: Arc::clone(memory),
            _holds: PhantomData,
        }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: aligned and within the mapping by `new`; the kernel touches it atomically too.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // The counter that was just published must be visible before the flag is read: the kernel sets the flag and
        // then looks at the counter, so one of the two sees the other.
        fence(Ordering::SeqCst);
        // SAFETY: as for `producer`.
        let flags = unsafe { self.flags.as_ref() }.load(Ordering::Relaxed);
        flags & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// The place of the descriptor with this running number.
    fn slot(&self, index: u32) -> NonNull<T> {
        let index = (index & (self.size - 1)) as usize;
        // SAFETY: the masked index is below `size`, and `size` descriptors lie within the mapping by `new`.
        unsafe { self.descriptors.add(index) }
    }
}

/// The side that produces: fill and transmit.
pub(super) struct ProducerRing<T> {
    shared: Shared<T>,
    /// Descriptors written.
    written: u32,
    /// Descriptors the other side may see.
    published: u32,
    /// Descriptors the other side has taken, as last looked at.
    taken: u32,
}

impl<T: Descriptor> ProducerRing<T> {
    pub(super) fn new(memory: &Arc<MmapRaw>, offsets: RingOffsets, size: u32) -> Self {
        let shared = Shared::new(memory, offsets, size);
        let written = shared.producer().load(Ordering::Relaxed);
        let taken = shared.consumer().load(Ordering::Acquire);
        ProducerRing { shared, written, published: written, taken }
    }

    fn room(&self) -> u32 {
        self.shared.size.saturating_sub(self.written.wrapping_sub(self.taken))
    }

    /// Writes a descriptor that [`ProducerRing::publish`] will show; `false` if the ring is full.
    pub(super) fn push(&mut self, descriptor: T) -> bool {
        if self.room() == 0 {
            self.taken = self.shared.consumer().load(Ordering::Acquire);
            if self.room() == 0 {
                return false;
            }
        }
        // SAFETY: the place is within the mapping, and the other side does not touch it: it has taken what was there
        // (the acquire above saw that) and cannot see the new one before `publish`.
        unsafe { self.shared.slot(self.written).write(descriptor) };
        self.written = self.written.wrapping_add(1);
        true
    }

    /// Shows what was pushed.
    pub(super) fn publish(&mut self) {
        if self.published != self.written {
            self.published = self.written;
            self.shared.producer().store(self.written, Ordering::Release);
        }
    }

    /// Descriptors shown that the other side has not taken yet.
    pub(super) fn waiting(&mut self) -> u32 {
        self.taken = self.shared.consumer().load(Ordering::Acquire);
        self.published.wrapping_sub(self.taken)
    }

    /// Whether the other side wants to be told of what was published.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.shared.needs_wakeup()
    }
}

/// The side that consumes: receive and completion.
pub(super) struct ConsumerRing<T> {
    shared: Shared<T>,
    /// Descriptors read.
    read: u32,
    /// Descriptors given back to the other side.
    released: u32,
    /// Descriptors the other side has shown, as last looked at.
    shown: u32,
}

impl<T: Descriptor> ConsumerRing<T> {
    pub(super) fn new(memory: &Arc<MmapRaw>, offsets: RingOffsets, size: u32) -> Self {
        let shared = Shared::new(memory, offsets, size);
        let read = shared.consumer().load(Ordering::Relaxed);
        ConsumerRing { shared, read, released: read, shown: read }
    }

    /// The next descriptor. Its place stays ours until [`ConsumerRing::release`].
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.read == self.shown {
            self.shown = self.shared.producer().load(Ordering::Acquire);
            if self.read == self.shown {
                return None;
            }
        }
        // SAFETY: the place is within the mapping; the acquire that set `shown` made its content visible, and the
        // other side does not write it again before `release`.
        let descriptor = unsafe { self.shared.slot(self.read).read() };
        self.read = self.read.wrapping_add(1);
        Some(descriptor)
    }

    /// Gives the places of all that was popped back.
    pub(super) fn release(&mut self) {
        if self.released != self.read {
            self.released = self.read;
            self.shared.consumer().store(self.read, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use memmap2::MmapOptions;

    use super::*;

    const OFFSETS: RingOffsets = RingOffsets { producer: 0, consumer: 64, flags: 128, descriptors: 192 };

    fn pair(size: u32) -> (ProducerRing<u64>, ConsumerRing<u64>) {
        let memory = MmapOptions::new().len(OFFSETS.bytes::<u64>(size)).map_anon().unwrap();
        let memory = Arc::new(MmapRaw::from(memory));
        (ProducerRing::new(&memory, OFFSETS, size), ConsumerRing::new(&memory, OFFSETS, size))
    }

    #[test]
    fn nothing_is_seen_before_it_is_published_nor_overwritten_before_it_is_released() {
        let (mut producer, mut consumer) = pair(4);
        for value in 0..4 {
            assert!(producer.push(value));
        }
        assert!(!producer.push(4), "four places");
        assert_eq!(consumer.pop(), None, "not published");
        producer.publish();
        assert_eq!(producer.waiting(), 4);
        assert_eq!(consumer.pop(), Some(0));
        assert!(!producer.push(4), "read, but not released");
        consumer.release();
        assert!(producer.push(4));
        assert!(!producer.push(5));
        assert_eq!(producer.waiting(), 3);
    }

    #[test]
    fn two_threads_pass_numbers_in_order_and_the_counters_wrap() {
        const COUNT: u64 = 200_000;
        let (mut producer, mut consumer) = pair(64);
        // Close to the end of the counters' range.
        for counter in [producer.shared.producer(), producer.shared.consumer()] {
            counter.store(u32::MAX - 1000, Ordering::Relaxed);
        }
        let start = u32::MAX - 1000;
        (producer.written, producer.published, producer.taken) = (start, start, start);
        (consumer.read, consumer.released, consumer.shown) = (start, start, start);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut value = 0;
                while value < COUNT {
                    if producer.push(value) {
                        value += 1;
                    } else {
                        producer.publish();
                        std::thread::yield_now();
                    }
                }
                producer.publish();
            });
            for expected in 0..COUNT {
                let value = loop {
                    match consumer.pop() {
                        Some(value) => break value,
                        None => {
                            consumer.release();
                            std::thread::yield_now();
                        }
                    }
                };
                assert_eq!(value, expected);
            }
        });
        assert_eq!(consumer.pop(), None);
    }

    #[test]
    fn the_other_side_may_ask_to_be_woken() {
        let (producer, consumer) = pair(4);
        assert!(!producer.needs_wakeup());
        // SAFETY: as for `Shared::producer`.
        unsafe { consumer.shared.flags.as_ref() }.store(libc::XDP_RING_NEED_WAKEUP, Ordering::Relaxed);
        assert!(producer.needs_wakeup());
    }
}
