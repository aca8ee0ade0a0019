//! The bytes in flight: a growable ring addressed by stream offset.

/// Smallest storage kept once anything was stored, bytes.
const CAPACITY_MIN_BYTES: usize = 256;
/// Storage of this size is not worth moving for being too large, bytes.
const CAPACITY_MODEST_BYTES: usize = 4096;

/// Bytes from [`Self::start`] to [`Self::end`] of a stream: appended at the end, released from the start.
///
/// Nothing between can be changed, which is what makes a retransmission byte-identical. Storage doubles when
/// needed. It shrinks when it was gone round, or emptied, without a quarter of it being used: an idle connection
/// holds little, and a busy one whose start asked for too much does not go on wandering through all of that, which no
/// cache would hold.
#[derive(Debug, Default)]
pub(crate) struct ByteRing {
    /// Length is zero or a power of two.
    storage: Vec<u8>,
    start: u64,
    /// Where in the storage the first byte is: at its begin again whenever nothing is held, so that who sends little at a
    /// time has the same few lines of the cache for it.
    at: usize,
    length: usize,
    /// Most bytes held since the ring was last looked at for being too large.
    peak: usize,
}

impl ByteRing {
    /// An empty ring whose first byte will be at `start`.
    pub(crate) fn new(start: u64) -> Self {
        ByteRing { start, ..ByteRing::default() }
    }

    /// Offset of the oldest byte held.
    #[cfg(test)]
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Offset after the newest byte held.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.length as u64
    }

    /// Bytes of storage, used or not.
    pub(crate) fn capacity(&self) -> usize {
        self.storage.len()
    }

    /// Whether it holds nothing, and has no more memory than any other ring might have use for.
    pub(crate) fn is_modest(&self) -> bool {
        self.length == 0 && self.storage.len() <= CAPACITY_MODEST_BYTES
    }

    /// An empty ring is to hold the bytes from `start` on.
    pub(crate) fn begin_at(&mut self, start: u64) {
        debug_assert_eq!(self.length, 0, "what is held stays where it is");
        self.start = start;
        self.at = 0;
        self.peak = 0;
    }

    /// Appends `bytes` at [`Self::end`].
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if self.length + bytes.len() > self.storage.len() {
            self.resize(self.length + bytes.len());
        }
        let at = self.index(self.length);
        let first = bytes.len().min(self.storage.len() - at);
        self.storage[at..at + first].copy_from_slice(&bytes[..first]);
        if first < bytes.len() {
            self.storage[..bytes.len() - first].copy_from_slice(&bytes[first..]);
        }
        self.length += bytes.len();
        self.peak = self.peak.max(self.length);
    }

    /// Releases everything before `offset`.
    #[inline]
    pub(crate) fn release_to(&mut self, offset: u64) {
        assert!(offset <= self.end(), "cannot release bytes that were never appended");
        if offset <= self.start {
            return;
        }
        let released = (offset - self.start) as usize;
        let gone_round = self.at + released >= self.storage.len();
        self.at = self.index(released);
        self.length -= released;
        self.start = offset;
        if self.length == 0 || gone_round {
            if self.storage.len() > CAPACITY_MODEST_BYTES && self.peak * 4 <= self.storage.len() {
                self.resize(self.peak);
            }
            self.peak = self.length;
        }
        if self.length == 0 {
            self.at = 0;
        }
    }

    /// The bytes from `offset` on, as many of the next `length` as are together: all of them, or those before the ring
    /// begins anew.
    #[inline]
    pub(crate) fn slice(&self, offset: u64, length: usize) -> &[u8] {
        assert!(
            offset >= self.start && offset + length as u64 <= self.end(),
            "the range must be held: it is in flight"
        );
        let at = self.index((offset - self.start) as usize);
        &self.storage[at..at + length.min(self.storage.len() - at)]
    }

    /// The bytes from `offset` on, `length` of them, in order in two pieces.
    fn slices(&self, offset: u64, length: usize) -> [&[u8]; 2] {
        let first = self.slice(offset, length);
        [first, &self.storage[..length - first.len()]]
    }

    /// Where in the storage the byte is that follows the first one by `distance`.
    fn index(&self, distance: usize) -> usize {
        if self.storage.is_empty() { 0 } else { (self.at + distance) & (self.storage.len() - 1) }
    }

    /// Moves to storage for at least `needed` bytes.
    fn resize(&mut self, needed: usize) {
        let mut moved = vec![0; needed.next_power_of_two().max(CAPACITY_MIN_BYTES)];
        let [first, second] = self.slices(self.start, self.length);
        moved[..first.len()].copy_from_slice(first);
        moved[first.len()..self.length].copy_from_slice(second);
        self.storage = moved;
        self.at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(ring: &ByteRing) -> Vec<u8> {
        ring.slices(ring.start(), (ring.end() - ring.start()) as usize).concat()
    }

    #[test]
    fn bytes_survive_wrapping_growth_and_shrinking() {
        let mut ring = ByteRing::new(1);
        let mut expected = std::collections::VecDeque::new();
        let mut next = 0u8;
        for round in 0..2000usize {
            let count = (round * 37) % 301;
            let bytes: Vec<u8> = (0..count)
                .map(|_| {
                    next = next.wrapping_add(7);
                    next
                })
                .collect();
            ring.append(&bytes);
            expected.extend(&bytes);
            let release =
                if round % 50 == 49 { expected.len() } else { expected.len().min((round * 53) % 290) };
            expected.drain(..release);
            ring.release_to(ring.start() + release as u64);
            assert_eq!(held(&ring), Vec::from(expected.clone()), "round {round}");
        }
    }

    #[test]
    fn an_idle_ring_gives_its_storage_back() {
        let mut ring = ByteRing::new(1);
        ring.append(&vec![1; 1 << 20]);
        ring.release_to(ring.end());
        for _ in 0..2 {
            ring.append(&[1; 100]);
            ring.release_to(ring.end());
        }
        assert_eq!(ring.capacity(), CAPACITY_MIN_BYTES);
    }
}
