//! Which transmit slots are free, and what is on its way in the others.

/// One slot.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    bytes: u32,
    /// Chunks that the kernel has yet to complete; zero for a free slot.
    chunks: u16,
}

/// All slots of a port. Nothing is allocated after it was made.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Box<[Slot]>,
    /// A stack, so that memory that is still in the cache is used again first.
    free: Vec<u32>,
    bytes_outstanding: usize,
}

impl Slots {
    pub(super) fn new(count: u32) -> Self {
        Slots {
            slots: vec![Slot::default(); count as usize].into_boxed_slice(),
            free: (0..count).rev().collect(),
            bytes_outstanding: 0,
        }
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Bytes sent and not completed.
    pub(super) fn bytes_outstanding(&self) -> usize {
        self.bytes_outstanding
    }

    /// The slot that the next [`Slots::send`] shall be of.
    pub(super) fn first_free(&self) -> Option<u32> {
        self.free.last().copied()
    }

    /// The first free slot is on its way, with `bytes` in `chunks` descriptors.
    pub(super) fn send(&mut self, slot: u32, bytes: usize, chunks: usize) {
        let taken = self.free.pop();
        assert_eq!(taken, Some(slot), "slots are used in the order of the free ones");
        let bytes_outstanding = self.bytes_outstanding + bytes;
        self.bytes_outstanding = bytes_outstanding;
        self.slots[slot as usize] = Slot {
            bytes: u32::try_from(bytes).expect("frames are short"),
            chunks: u16::try_from(chunks).expect("frames have few chunks"),
        };
    }

    /// The kernel has completed one chunk of `slot`. What was not sent is not completed either: such a completion is
    /// ignored, so that no slot is ever free twice.
    pub(super) fn complete(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize];
        match state.chunks {
            0 => {}
            1 => {
                self.bytes_outstanding -= state.bytes as usize;
                *state = Slot::default();
                self.free.push(slot);
            }
            _ => state.chunks -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_its_last_chunk_is_completed_and_only_once() {
        let mut slots = Slots::new(2);
        slots.send(0, 9000, 3);
        slots.send(1, 60, 1);
        assert_eq!((slots.free(), slots.bytes_outstanding()), (0, 9060));
        assert_eq!(slots.first_free(), None);
        slots.complete(0);
        slots.complete(0);
        assert_eq!((slots.free(), slots.bytes_outstanding()), (0, 9060));
        slots.complete(0);
        assert_eq!((slots.free(), slots.bytes_outstanding()), (1, 60));
        slots.complete(0);
        assert_eq!(slots.free(), 1, "completed once too often");
        assert_eq!(slots.first_free(), Some(0));
    }
}
