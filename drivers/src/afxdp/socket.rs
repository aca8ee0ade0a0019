//! The AF_XDP socket: safe wrappers of the system calls on it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};

use super::rings::{ConsumerRing, Descriptor, ProducerRing, RingOffsets};
use super::umem::Umem;

/// The four rings of a socket.
pub(super) struct Rings {
    pub fill: ProducerRing<u64>,
    pub completion: ConsumerRing<u64>,
    pub rx: ConsumerRing<libc::xdp_desc>,
    pub tx: ProducerRing<libc::xdp_desc>,
}

/// How many descriptors each ring has; powers of two.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingSizes {
    /// Of receive.
    pub rx: u32,
    /// Of fill: twice the chunks. The kernel shows a received chunk before it says that it has taken it out of here.
    pub fill: u32,
    /// Of transmit and completion: twice the chunks, for the same reason.
    pub tx: u32,
}

/// An AF_XDP socket.
#[derive(Debug)]
pub(super) struct XdpSocket {
    fd: OwnedFd,
}

impl XdpSocket {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: socket takes no pointers; the result is checked before use.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned by the kernel as a new descriptor that nothing else owns.
        Ok(XdpSocket { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    fn set<T: Copy>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        let length = size_of::<T>() as libc::socklen_t;
        // SAFETY: `value` is `length` readable bytes for the length of the call, which only reads them.
        let status = unsafe {
            libc::setsockopt(self.fd.as_raw_fd(), level, option, core::ptr::from_ref(value).cast(), length)
        };
        if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads an option that is a structure of integers.
    ///
    /// # Safety
    /// All zeroes, and any bytes, must be a valid `T`.
    unsafe fn get<T: Copy>(&self, level: libc::c_int, option: libc::c_int) -> io::Result<T> {
        // SAFETY: the caller says that all zeroes are valid.
        let mut value: T = unsafe { core::mem::zeroed() };
        let mut length = size_of::<T>() as libc::socklen_t;
        let to = core::ptr::from_mut(&mut value).cast();
        // SAFETY: `value` is `length` writable bytes, and `length` a writable number, for the length of the call.
        let status = unsafe { libc::getsockopt(self.fd.as_raw_fd(), level, option, to, &raw mut length) };
        if status < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
    }

    /// Registers the memory. The kernel pins its pages, so they outlive even the mapping.
    pub(super) fn register(&self, umem: &Umem, metadata_bytes: u32) -> io::Result<()> {
        self.set(libc::SOL_XDP, libc::XDP_UMEM_REG, &umem.registration(metadata_bytes))
    }

    /// Makes the rings and maps them.
    pub(super) fn rings(&self, sizes: RingSizes) -> io::Result<Rings> {
        let rings = [
            (libc::XDP_UMEM_FILL_RING, sizes.fill),
            (libc::XDP_UMEM_COMPLETION_RING, sizes.tx),
            (libc::XDP_RX_RING, sizes.rx),
            (libc::XDP_TX_RING, sizes.tx),
        ];
        for (option, size) in rings {
            self.set(libc::SOL_XDP, option, &size)?;
        }
        // SAFETY: a structure of integers.
        let offsets: libc::xdp_mmap_offsets = unsafe { self.get(libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)? };
        let fill = self.map::<u64>(&offsets.fr, sizes.fill, libc::XDP_UMEM_PGOFF_FILL_RING)?;
        let completion = self.map::<u64>(&offsets.cr, sizes.tx, libc::XDP_UMEM_PGOFF_COMPLETION_RING)?;
        let rx = self.map::<libc::xdp_desc>(&offsets.rx, sizes.rx, libc::XDP_PGOFF_RX_RING as u64)?;
        let tx = self.map::<libc::xdp_desc>(&offsets.tx, sizes.tx, libc::XDP_PGOFF_TX_RING as u64)?;
        Ok(Rings {
            fill: ProducerRing::new(&fill.0, fill.1, sizes.fill),
            completion: ConsumerRing::new(&completion.0, completion.1, sizes.tx),
            rx: ConsumerRing::new(&rx.0, rx.1, sizes.rx),
            tx: ProducerRing::new(&tx.0, tx.1, sizes.tx),
        })
    }

    fn map<T: Descriptor>(
        &self,
        offset: &libc::xdp_ring_offset,
        size: u32,
        at: u64,
    ) -> io::Result<(Arc<MmapRaw>, RingOffsets)> {
        let offsets = RingOffsets {
            producer: offset.producer as usize,
            consumer: offset.consumer as usize,
            flags: offset.flags as usize,
            descriptors: offset.desc as usize,
        };
        let memory = MmapOptions::new()
            .offset(at)
            .len(offsets.bytes::<T>(size))
            .no_probe_handle()
            .populate()
            .map_raw(self.fd.as_raw_fd())?;
        Ok((Arc::new(memory), offsets))
    }

    /// Lets a burst of copied frames be on its way: in copy mode each is charged to the socket's send buffer.
    pub(super) fn allow_send_buffer(&self, bytes: usize) {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // The kernel's own bound stays if this is refused; then a burst takes more than one doorbell.
        let _ = self.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes);
    }

    /// Binds it to a queue of an interface.
    pub(super) fn bind(&self, interface: u32, queue: u32, flags: u16) -> io::Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags,
            sxdp_ifindex: interface,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        let length = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
        // SAFETY: `address` is `length` readable bytes for the length of the call.
        let status = unsafe { libc::bind(self.fd.as_raw_fd(), core::ptr::from_ref(&address).cast(), length) };
        if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Whether a bound socket works without copying.
    pub(super) fn is_zero_copy(&self) -> io::Result<bool> {
        // SAFETY: a structure of integers.
        let options: libc::xdp_options = unsafe { self.get(libc::SOL_XDP, libc::XDP_OPTIONS)? };
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// What the kernel has counted.
    pub(super) fn statistics(&self) -> io::Result<libc::xdp_statistics> {
        // SAFETY: a structure of integers.
        unsafe { self.get(libc::SOL_XDP, libc::XDP_STATISTICS) }
    }

    /// The error that happened to the socket, if one did, once.
    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        // SAFETY: an integer.
        let error: libc::c_int = unsafe { self.get(libc::SOL_SOCKET, libc::SO_ERROR)? };
        Ok((error != 0).then(|| io::Error::from_raw_os_error(error)))
    }

    /// Makes the kernel look at the transmit ring.
    pub(super) fn ring_transmit(&self) -> io::Result<()> {
        // SAFETY: no bytes and no address are passed.
        let sent = unsafe {
            libc::sendto(self.fd.as_raw_fd(), core::ptr::null(), 0, libc::MSG_DONTWAIT, core::ptr::null(), 0)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Makes the kernel look at the fill ring, and at the device when busy polling.
    pub(super) fn ring_receive(&self) -> io::Result<()> {
        let (nothing, nobody, no_length) =
            (core::ptr::null_mut(), core::ptr::null_mut(), core::ptr::null_mut());
        // SAFETY: no buffer and no address are passed.
        let received =
            unsafe { libc::recvfrom(self.fd.as_raw_fd(), nothing, 0, libc::MSG_DONTWAIT, nobody, no_length) };
        if received < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for XdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
