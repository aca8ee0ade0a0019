//! The bytes in flight: those that were copied, in a ring, and those that the source keeps itself, by reference.

use std::num::NonZeroU32;
use std::ops::Range;

use bytes::Bytes;

use super::few::Few;
use super::ring::ByteRing;

/// What is shorter is copied: that costs less than to keep a handle of it, and does not keep the memory of all the rest.
const SHARED_BYTES_MIN: usize = 512;
/// Handles that are worth keeping room for.
const SHARED_MODEST: usize = 64;

/// Bytes that belong to the source, which lent them until they are acknowledged.
#[derive(Clone, Copy, Debug)]
struct Shared {
    /// Stream offset of the first.
    offset: u64,
    /// Bytes lent since the store was begun, these included.
    lent: u64,
    /// Where they begin in what they are of.
    from: usize,
    length: NonZeroU32,
    /// The low bits of the number of the handle of that.
    handle: u32,
}

impl Shared {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.length.get())
    }
}

/// What pieces that follow each other are of, such as the segments of a large message: held once for all of them, for to
/// take and to drop a handle is not free.
#[derive(Debug)]
struct Handle {
    whole: Bytes,
    pieces: u32,
}

/// The bytes from [`Self::release_to`]'s last offset to [`Self::end`] of a stream: appended at the end, released from the
/// start, and nothing between can be changed, which is what makes a retransmission byte-identical.
///
/// A bulk sender's bytes are thus read once, when their frame is written, and are written nowhere else: the ring of a
/// connection with a full window would be larger than what the cache holds.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct PayloadStore {
    /// Bytes lent and released since the store was begun.
    lent_released: u64,
    /// Handles given back since the store was begun.
    handles_released: u32,
    /// In order of the stream; what is between two is in the ring.
    shared: Few<Shared>,
    /// What these are of, in the same order.
    handles: Few<Handle>,
    /// What was copied. Its offsets count those bytes alone: those of the stream without what was lent before.
    ring: ByteRing,
}

impl PayloadStore {
    /// An empty store whose first byte will be at `start`.
    pub(crate) fn new(start: u64) -> Self {
        PayloadStore {
            lent_released: 0,
            handles_released: 0,
            shared: Few::new(),
            handles: Few::new(),
            ring: ByteRing::new(start),
        }
    }

    /// An empty store is to hold the bytes from `start` on.
    pub(crate) fn begin_at(&mut self, start: u64) {
        debug_assert!(self.shared.is_empty() && self.handles.is_empty(), "what is held stays where it is");
        self.ring.begin_at(start);
        self.lent_released = 0;
    }

    /// Offset after the newest byte held.
    pub(crate) fn end(&self) -> u64 {
        self.ring.end() + self.lent()
    }

    /// Bytes lent since the store was begun.
    fn lent(&self) -> u64 {
        self.shared.back().map_or(self.lent_released, |last| last.lent)
    }

    /// Bytes of own memory, used or not.
    pub(crate) fn memory_bytes(&self) -> usize {
        let handles = self.handles.capacity() * size_of::<Handle>();
        self.ring.capacity() + self.shared.capacity() * size_of::<Shared>() + handles
    }

    /// Whether it holds nothing, and has no more memory than any other might have use for.
    pub(crate) fn is_modest(&self) -> bool {
        self.shared.is_empty()
            && self.shared.capacity().max(self.handles.capacity()) <= SHARED_MODEST
            && self.ring.is_modest()
    }

    /// Appends a copy of `bytes` at [`Self::end`].
    #[inline]
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.ring.append(bytes);
    }

    /// Appends `range` of `whole`, by reference unless that is not worth while.
    pub(crate) fn append_shared(&mut self, whole: &Bytes, range: Range<usize>) {
        // A segment and a super-segment are shorter than four gigabytes.
        let length = NonZeroU32::new(range.len() as u32);
        let Some(length) = length.filter(|_| range.len() >= SHARED_BYTES_MIN) else {
            return self.append(&whole[range]);
        };
        assert!(range.end <= whole.len(), "a source must lend what it has");
        match self.handles.back_mut() {
            // What is held does not change, so the same place is the same bytes.
            Some(last) if core::ptr::eq::<[u8]>(&raw const **whole, &raw const *last.whole) => {
                last.pieces += 1;
            }
            _ => self.handles.push_back(Handle { whole: whole.clone(), pieces: 1 }),
        }
        let lent = self.lent();
        self.shared.push_back(Shared {
            offset: self.ring.end() + lent,
            lent: lent + range.len() as u64,
            from: range.start,
            length,
            handle: self.handles_released.wrapping_add(self.handles.len() as u32 - 1),
        });
    }

    /// Releases everything before `offset`.
    pub(crate) fn release_to(&mut self, offset: u64) {
        assert!(offset <= self.end(), "cannot release bytes that were never appended");
        while let Some(first) = self.shared.front()
            && first.end() <= offset
        {
            self.lent_released = first.lent;
            self.shared.drop_front();
            self.release_handle();
        }
        let copied_to = match self.shared.front() {
            // What is left of the stream begins with this, or before it.
            Some(first) => offset.min(first.offset),
            None => offset,
        };
        self.ring.release_to(copied_to.saturating_sub(self.lent_released));
        if self.shared.is_empty() && self.shared.capacity() > SHARED_MODEST {
            self.shared.shrink_to(SHARED_MODEST / 8);
            self.handles.shrink_to(SHARED_MODEST / 8);
        }
    }

    /// The first piece is gone.
    fn release_handle(&mut self) {
        let first = self.handles.front_mut().expect("every piece is of something");
        first.pieces -= 1;
        if first.pieces == 0 {
            self.handles.drop_front();
            self.handles_released = self.handles_released.wrapping_add(1);
        }
    }

    /// What was lent as `shared`.
    fn lent_bytes(&self, shared: &Shared) -> &[u8] {
        let handle = self.handles.get(shared.handle.wrapping_sub(self.handles_released) as usize);
        let whole = &handle.expect("every piece is of something").whole;
        &whole[shared.from..shared.from + shared.length.get() as usize]
    }

    /// `length` bytes from `offset` on.
    pub(crate) fn bytes(&self, offset: u64, length: usize) -> Payload<'_> {
        assert!(offset + length as u64 <= self.end(), "the range must be held: it is in flight");
        Payload { store: Some(self), offset, left: length, next: self.first_lent_behind(offset) }
    }

    /// Index of the first of what is lent that does not end before `offset`.
    fn first_lent_behind(&self, offset: u64) -> usize {
        /// What is sent is mostly what was just cut: it is looked for from there.
        const NEAR: usize = 16;
        let mut index = self.shared.len();
        while index > 0 && self.shared.get(index - 1).is_some_and(|before| before.end() > offset) {
            index -= 1;
            if self.shared.len() - index == NEAR {
                return self.shared.partition_point(|shared| shared.end() <= offset);
            }
        }
        index
    }
}

/// Payload of a segment, in the pieces in which it is in memory: an iterator over them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Payload<'a> {
    store: Option<&'a PayloadStore>,
    offset: u64,
    left: usize,
    /// Index of the first of what is lent that does not end before `offset`.
    next: usize,
}

impl<'a> Payload<'a> {
    /// Bytes of all pieces that are still to come.
    #[expect(clippy::len_without_is_empty, reason = "no segment without payload asks for one")]
    pub fn len(&self) -> usize {
        self.left
    }

    /// Takes the next `length` bytes off.
    #[inline]
    pub(crate) fn split_to(&mut self, length: usize) -> Payload<'a> {
        debug_assert!(length <= self.left, "there are not so many");
        let taken = Payload { left: length, ..*self };
        self.offset += length as u64;
        self.left -= length;
        while let Some(store) = self.store
            && store.shared.get(self.next).is_some_and(|shared| shared.end() <= self.offset)
        {
            self.next += 1;
        }
        taken
    }

    /// A copy in one piece.
    pub fn to_vec(self) -> Vec<u8> {
        self.collect::<Vec<_>>().concat()
    }
}

impl<'a> Iterator for Payload<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        let store = self.store?;
        let piece = match store.shared.get(self.next) {
            Some(shared) if shared.offset <= self.offset => {
                let bytes = &store.lent_bytes(shared)[(self.offset - shared.offset) as usize..];
                self.next += 1;
                &bytes[..self.left.min(bytes.len())]
            }
            following => {
                let until_lent = following
                    .map_or(self.left, |shared| self.left.min((shared.offset - self.offset) as usize));
                let before = self.next.checked_sub(1).and_then(|before| store.shared.get(before));
                let lent_before = before.map_or(store.lent_released, |before| before.lent);
                store.ring.slice(self.offset - lent_before, until_lent)
            }
        };
        self.offset += piece.len() as u64;
        self.left -= piece.len();
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use outrider_drivers::rng::Rng;

    use super::*;

    #[test]
    fn what_is_copied_and_what_is_lent_stays_in_order_and_as_it_was() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let wholes: Vec<Bytes> = (0..3u8)
                .map(|which| (0..8000usize).map(|at| (at * 7 + usize::from(which)) as u8).collect())
                .collect();
            let first = 1 + rng.below(1 << 33);
            let mut store = PayloadStore::new(first);
            let (mut expected, mut start) = (Vec::new(), first);
            for step in 0..200 {
                let whole = &wholes[rng.below(3) as usize];
                let length = rng.below(3000) as usize;
                let from = rng.below(5000) as usize;
                let range = from..from + length;
                expected.extend_from_slice(&whole[range.clone()]);
                if rng.chance(0.5) {
                    store.append_shared(whole, range);
                } else {
                    store.append(&whole[range]);
                }
                assert_eq!(store.end(), start + expected.len() as u64, "seed {seed} step {step}");
                let from = rng.below(expected.len() as u64 + 1) as usize;
                let length = rng.below((expected.len() - from) as u64 + 1) as usize;
                let found = store.bytes(start + from as u64, length);
                assert_eq!(found.len(), length);
                assert_eq!(found.to_vec(), expected[from..from + length], "seed {seed} step {step}");
                let (mut rest, middle) = (found, rng.below(length as u64 + 1) as usize);
                let taken = [rest.split_to(middle).to_vec(), rest.to_vec()].concat();
                assert_eq!(taken, expected[from..from + length], "seed {seed} step {step}");
                let released = if step % 20 == 19 { expected.len() } else { from };
                expected.drain(..released);
                start += released as u64;
                store.release_to(start);
                assert_eq!(store.bytes(start, expected.len()).to_vec(), expected, "seed {seed} step {step}");
                let lent: u64 =
                    store.shared.iter().map(|shared| shared.end() - shared.offset.max(start)).sum();
                let copied = store.ring.end() - store.ring.start();
                assert_eq!(
                    copied + lent,
                    expected.len() as u64,
                    "seed {seed} step {step}: all is given back"
                );
            }
        }
    }

    #[test]
    fn what_was_lent_is_given_back_when_it_is_acknowledged() {
        let whole = Bytes::from(vec![5; 4000]);
        let mut store = PayloadStore::new(1);
        for from in (0..4000).step_by(1000) {
            store.append_shared(&whole, from..from + 1000);
        }
        assert!(!whole.is_unique());
        assert_eq!(store.handles.len(), 1, "one handle is enough for all of a message");
        store.release_to(4000);
        assert!(!whole.is_unique(), "the last byte is still in flight");
        store.release_to(4001);
        assert!(whole.is_unique());
        assert!(store.is_modest());
    }

    #[test]
    fn little_is_copied() {
        let whole = Bytes::from(vec![5; 4000]);
        let mut store = PayloadStore::new(1);
        store.append_shared(&whole, 0..SHARED_BYTES_MIN - 1);
        assert!(whole.is_unique(), "a short piece does not keep the whole");
    }
}
