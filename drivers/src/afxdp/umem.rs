//! The memory that frames lie in, shared with the kernel (UMEM): chunks for receiving, then slots for sending.

use std::io;

use memmap2::{MmapOptions, MmapRaw};

use super::options::{AfXdpOptions, Layout};

/// Size of a huge page: the one that x86_64 and aarch64 with pages of 4 KiB have in common.
const HUGE_PAGE_BITS: u8 = 21;

/// Which part of the memory a slice may be taken from is decided by the caller, see [`Umem::bytes`].
#[derive(Debug)]
pub(super) struct Umem {
    memory: MmapRaw,
    layout: Layout,
    rx_chunks: u32,
    tx_slots: u32,
    huge_pages: bool,
}

impl Umem {
    /// Maps memory for the frames of one port.
    pub(super) fn new(options: &AfXdpOptions, layout: Layout) -> io::Result<Self> {
        let (rx_chunks, tx_slots) = (options.rx_frames, options.tx_frames);
        let chunks = rx_chunks as usize + tx_slots as usize * layout.chunks_per_tx_frame;
        let length = chunks * layout.chunk_bytes;
        let huge = options.huge_pages.then(|| {
            let whole_pages = length.next_multiple_of(1 << HUGE_PAGE_BITS);
            MmapOptions::new().len(whole_pages).huge(Some(HUGE_PAGE_BITS)).populate().map_anon()
        });
        let (memory, huge_pages) = match huge {
            Some(Ok(memory)) => (memory, true),
            // None configured, or none left: ordinary pages do.
            _ => (MmapOptions::new().len(length).populate().map_anon()?, false),
        };
        Ok(Umem { memory: MmapRaw::from(memory), layout, rx_chunks, tx_slots, huge_pages })
    }

    /// What the kernel is told.
    pub(super) fn registration(&self, metadata_bytes: u32) -> libc::xdp_umem_reg {
        libc::xdp_umem_reg {
            addr: self.memory.as_mut_ptr() as u64,
            len: self.memory.len() as u64,
            chunk_size: self.layout.chunk_bytes as u32,
            headroom: 0,
            flags: if metadata_bytes > 0 { libc::XDP_UMEM_TX_METADATA_LEN } else { 0 },
            tx_metadata_len: metadata_bytes,
        }
    }

    /// Bytes in all.
    pub(super) fn length(&self) -> usize {
        self.memory.len()
    }

    pub(super) fn huge_pages(&self) -> bool {
        self.huge_pages
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn tx_slots(&self) -> u32 {
        self.tx_slots
    }

    /// Addresses of the receive chunks, as the kernel counts them: bytes from the start.
    pub(super) fn rx_addresses(&self) -> impl Iterator<Item = u64> + use<> {
        let bytes = self.layout.chunk_bytes as u64;
        (0..u64::from(self.rx_chunks)).map(move |chunk| chunk * bytes)
    }

    /// The receive chunk that `address` lies in, if it does and `length` bytes from there do too.
    pub(super) fn rx_chunk(&self, address: u64, length: u32) -> Option<u64> {
        let bytes = self.layout.chunk_bytes as u64;
        let base = address / bytes * bytes;
        let within = address - base + u64::from(length) <= bytes;
        (within && base / bytes < u64::from(self.rx_chunks)).then_some(base)
    }

    fn slot_bytes(&self) -> usize {
        self.layout.chunk_bytes * self.layout.chunks_per_tx_frame
    }

    fn tx_start(&self) -> u64 {
        u64::from(self.rx_chunks) * self.layout.chunk_bytes as u64
    }

    /// Address of a transmit slot.
    pub(super) fn slot_address(&self, slot: u32) -> u64 {
        self.tx_start() + u64::from(slot) * self.slot_bytes() as u64
    }

    /// The transmit slot that `address` lies in.
    pub(super) fn slot_at(&self, address: u64) -> Option<u32> {
        let slot = address.checked_sub(self.tx_start())? / self.slot_bytes() as u64;
        u32::try_from(slot).ok().filter(|slot| *slot < self.tx_slots)
    }

    /// The bytes of a received descriptor that [`Umem::rx_chunk`] has accepted.
    ///
    /// # Safety
    /// The chunk must be the caller's (received and not yet put into the fill ring) for as long as the slice lives.
    ///
    /// # Panics
    /// If the bytes are not within the memory.
    pub(super) unsafe fn received(&self, address: u64, length: u32) -> &[u8] {
        let (start, length) = (address as usize, length as usize);
        assert!(start + length <= self.memory.len(), "received bytes lie within the memory");
        // SAFETY: within the mapping by the assertion, initialised (anonymous pages are zero at first), and nobody
        // writes them: the caller owns the chunk, and the kernel writes only to chunks of the fill ring.
        unsafe { core::slice::from_raw_parts(self.memory.as_ptr().add(start), length) }
    }

    /// The bytes of a transmit slot, from `skip` on.
    ///
    /// # Safety
    /// The slot must be the caller's (free, or completed) for as long as the slice lives.
    ///
    /// # Panics
    /// If the slot does not exist, or `skip + length` bytes are more than it has.
    pub(super) unsafe fn slot_mut(&mut self, slot: u32, skip: usize, length: usize) -> &mut [u8] {
        assert!(slot < self.tx_slots && skip + length <= self.slot_bytes(), "bytes lie within a slot");
        let start = self.slot_address(slot) as usize + skip;
        // SAFETY: within the mapping by the assertion and the construction of slots; the caller owns the slot, so the
        // kernel neither reads nor writes it, and `&mut self` keeps every other slice away.
        unsafe { core::slice::from_raw_parts_mut(self.memory.as_mut_ptr().add(start), length) }
    }
}

/// RLIMIT_MEMLOCK of this process, in bytes.
pub(super) fn locked_bytes_max() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable for the length of the call.
    let status = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    assert_eq!(status, 0, "getrlimit cannot fail for a limit that every Linux has");
    limit.rlim_cur
}

#[cfg(test)]
mod tests {
    use super::*;

    fn umem(chunks_per_tx_frame: usize) -> Umem {
        let options = AfXdpOptions { rx_frames: 16, tx_frames: 4, ..AfXdpOptions::default() };
        let layout = Layout { chunk_bytes: 2048, chunks_per_tx_frame, multi_buffer: chunks_per_tx_frame > 1 };
        Umem::new(&options, layout).unwrap()
    }

    #[test]
    fn addresses_lead_back_to_chunks_and_slots_and_no_others() {
        let umem = umem(3);
        assert_eq!(umem.rx_addresses().last(), Some(15 * 2048));
        assert_eq!(umem.rx_chunk(2048 + 256, 1514), Some(2048));
        assert_eq!(umem.rx_chunk(2048 + 256, 1800), None, "runs into the next chunk");
        assert_eq!(umem.rx_chunk(16 * 2048, 64), None, "a transmit slot");
        assert_eq!(umem.slot_address(1), 16 * 2048 + 3 * 2048);
        assert_eq!(umem.slot_at(16 * 2048 + 3 * 2048 + 2048), Some(1), "its second chunk");
        assert_eq!(umem.slot_at(15 * 2048), None);
        assert_eq!(umem.slot_at(16 * 2048 + 12 * 2048), None, "behind the last");
    }

    #[test]
    fn a_slot_of_several_chunks_is_one_stretch_of_memory() {
        let mut umem = umem(3);
        // SAFETY: no kernel knows this memory.
        unsafe { umem.slot_mut(3, 0, 3 * 2048) }.fill(7);
        let last = umem.slot_address(3);
        // SAFETY: as above.
        let bytes = unsafe { umem.received(last, 3 * 2048) };
        assert!(bytes.iter().all(|&byte| byte == 7));
    }
}
