//! [`AfXdpPort`]: one queue of an interface as a [`Port`].

use core::cell::Cell;
use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::attach::Attachment;
use super::metadata::{METADATA_BYTES, ask_for_checksum};
use super::options::{AfXdpInfo, ETHERNET_HEADER_BYTES, VLAN_TAG_BYTES};
use super::slots::Slots;
use super::socket::{Rings, XdpSocket};
use super::umem::Umem;
use super::watch::Watch;
use crate::port::{
    Port, PortError, PortInfo, PortStatistics, ReceiveChecksum, RxFrame, TransmitRoom, TxOffload,
};
use crate::rss::Rss;
use crate::time::Instant;

/// A port that is never slept on looks this often whether its interface is still there.
const INTERFACE_CHECK: Duration = Duration::from_millis(10);
/// After a doorbell that the kernel put off (no room in the device), and while the interface is down.
const DOORBELL_RETRY: Duration = Duration::from_micros(100);
const DOWN_RETRY: Duration = Duration::from_millis(5);

/// Counters that only an AF_XDP port has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AfXdpStatistics {
    /// Doorbells after which the kernel left frames in the ring, to be rung again.
    pub tx_put_off: u64,
    /// Doorbells in vain because the interface was down.
    pub tx_down: u64,
    /// Frames the device refused.
    pub tx_refused: u64,
    /// Received descriptors outside the frame memory: none, unless the kernel is broken.
    pub rx_invalid: u64,
    /// Received frames longer than the MTU allows.
    pub rx_too_long: u64,
    /// Frames the kernel dropped because the receive ring was full, or no chunk was free.
    pub rx_ring_full: u64,
}

/// One queue of an interface. Dropped, it gives the queue back to the kernel.
pub struct AfXdpPort {
    pub(super) info: PortInfo,
    pub(super) details: AfXdpInfo,
    /// As the driver told when the port was opened, in the namespace of the interface.
    pub(super) rss: Option<Rss>,
    pub(super) rings: Rings,
    pub(super) umem: Umem,
    pub(super) slots: Slots,
    pub(super) watch: Watch,
    pub(super) socket: XdpSocket,
    pub(super) state: State,
    /// After the socket: the queue is empty when the program goes.
    pub(super) _attachment: Arc<Attachment>,
}

/// What changes while a port runs.
pub(super) struct State {
    /// Frames of several chunks are put together here.
    assembly: Box<[u8]>,
    assembled: usize,
    /// The frame being put together is to be dropped.
    spoilt: bool,
    /// Frames wait in the transmit ring for another doorbell, after this time.
    retry: Option<Duration>,
    /// Somebody may have slept on the port since interfaces were last looked at.
    armed: Cell<bool>,
    interface_checked: Instant,
    gone: bool,
    statistics: PortStatistics,
    own: AfXdpStatistics,
}

impl State {
    pub(super) fn new(assembly_bytes: usize) -> Self {
        State {
            assembly: vec![0; assembly_bytes].into_boxed_slice(),
            assembled: 0,
            spoilt: false,
            retry: None,
            armed: Cell::new(false),
            interface_checked: Instant::ZERO,
            gone: false,
            statistics: PortStatistics::default(),
            own: AfXdpStatistics::default(),
        }
    }
}

impl core::fmt::Debug for AfXdpPort {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("AfXdpPort").field("details", &self.details).finish_non_exhaustive()
    }
}

impl AfXdpPort {
    /// What the port turned out to be: where the program runs, whether frames are copied, and so on.
    pub fn details(&self) -> &AfXdpInfo {
        &self.details
    }

    /// Counters that only an AF_XDP port has.
    pub fn afxdp_statistics(&self) -> AfXdpStatistics {
        let mut own = self.state.own;
        if let Ok(kernel) = self.socket.statistics() {
            own.rx_ring_full = kernel.rx_dropped + kernel.rx_ring_full;
        }
        own
    }

    fn failed(&mut self, operation: &'static str, source: io::Error) -> PortError {
        match source.raw_os_error() {
            // The kernel's ways to say that the socket has lost its interface.
            Some(libc::ENXIO | libc::ENODEV) => {
                self.state.gone = true;
                self.gone()
            }
            _ => PortError::Io { port: self.info.name.clone(), operation, source },
        }
    }

    fn gone(&self) -> PortError {
        PortError::Gone { port: self.info.name.clone() }
    }

    /// Takes one descriptor of the receive ring; returns whether a frame was handed over.
    fn take(&mut self, descriptor: libc::xdp_desc, accept: &mut dyn FnMut(RxFrame<'_>)) -> bool {
        let Some(chunk) = self.umem.rx_chunk(descriptor.addr, descriptor.len) else {
            // It cannot be given back, since nobody knows what it is.
            self.state.own.rx_invalid += 1;
            self.state.statistics.rx_dropped += 1;
            return false;
        };
        // SAFETY: the chunk came out of the receive ring and goes into the fill ring below, after the last use.
        let bytes = unsafe { self.umem.received(descriptor.addr, descriptor.len) };
        let frame_bytes_max = self.info.mtu + ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES;
        let state = &mut self.state;
        let more = descriptor.options & libc::XDP_PKT_CONTD != 0;
        let whole = if !more && state.assembled == 0 && !state.spoilt {
            (bytes.len() <= frame_bytes_max).then_some(bytes)
        } else {
            let end = state.assembled + bytes.len();
            match state.assembly.get_mut(state.assembled..end) {
                Some(room) if !state.spoilt => room.copy_from_slice(bytes),
                _ => state.spoilt = true,
            }
            state.assembled = end;
            (!more && !state.spoilt).then(|| &state.assembly[..end])
        };
        let handed_over = match whole {
            Some(bytes) => {
                state.statistics.rx_frames += 1;
                state.statistics.rx_bytes += bytes.len() as u64;
                accept(RxFrame { bytes, checksum: ReceiveChecksum::Unverified, ..RxFrame::default() });
                true
            }
            None => {
                if !more {
                    state.own.rx_too_long += 1;
                    state.statistics.rx_dropped += 1;
                }
                false
            }
        };
        if !more {
            (state.assembled, state.spoilt) = (0, false);
        }
        let recycled = self.rings.fill.push(chunk);
        assert!(recycled, "the fill ring has a place for every chunk");
        handed_over
    }

    /// Empties the receive ring up to `budget` frames. Frames that are dropped count against it too.
    fn take_burst(&mut self, budget: usize, accept: &mut dyn FnMut(RxFrame<'_>)) -> usize {
        let mut frames = 0;
        while frames < budget
            && let Some(descriptor) = self.rings.rx.pop()
        {
            let ends = descriptor.options & libc::XDP_PKT_CONTD == 0;
            self.take(descriptor, accept);
            frames += usize::from(ends);
        }
        self.rings.fill.publish();
        self.rings.rx.release();
        frames
    }

    /// Fails once the interface is gone.
    fn check_interface(&mut self, now: Instant) -> Result<(), PortError> {
        let slept = self.state.armed.take() && self.watch.interfaces_changed();
        if slept || now.since(self.state.interface_checked) >= INTERFACE_CHECK {
            self.state.interface_checked = now;
            let error = self.socket.take_error();
            // The one error that the kernel reports this way: the interface was unregistered.
            if !matches!(error, Ok(None)) {
                self.state.gone = true;
            }
        }
        if self.state.gone { Err(self.gone()) } else { Ok(()) }
    }

    /// Takes completed slots back.
    fn reclaim(&mut self) {
        while let Some(address) = self.rings.completion.pop() {
            if let Some(slot) = self.umem.slot_at(address) {
                self.slots.complete(slot);
            }
        }
        self.rings.completion.release();
    }

    /// Rings until the kernel has taken every frame, or takes no more for now.
    fn ring(&mut self) -> Result<(), PortError> {
        self.state.retry = None;
        let mut waiting = self.rings.tx.waiting();
        while waiting > 0 && self.rings.tx.needs_wakeup() {
            self.state.statistics.doorbells += 1;
            let rung = self.socket.ring_transmit();
            let before = core::mem::replace(&mut waiting, self.rings.tx.waiting());
            let retry = match rung.map_err(|error| (error.raw_os_error(), error)) {
                Ok(()) | Err((Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR), _)) => {
                    self.state.own.tx_put_off += u64::from(waiting == before);
                    DOORBELL_RETRY
                }
                // The device threw a frame away; it counts as sent, since it will be completed.
                Err((Some(libc::EBUSY), _)) => {
                    self.state.own.tx_refused += 1;
                    self.state.statistics.tx_dropped += 1;
                    DOORBELL_RETRY
                }
                Err((Some(libc::ENETDOWN), _)) => {
                    self.state.own.tx_down += 1;
                    DOWN_RETRY
                }
                Err((_, error)) => return Err(self.failed("sending frames", error)),
            };
            if waiting == before {
                self.state.retry = Some(retry);
                break;
            }
        }
        Ok(())
    }

    /// Writes the descriptors of a frame of `length` bytes in `slot`.
    fn post(&mut self, slot: u32, length: usize, skip: usize, checksum: bool) {
        let chunk_bytes = self.umem.layout().chunk_bytes;
        let address = self.umem.slot_address(slot);
        let end = skip + length;
        let chunks = end.div_ceil(chunk_bytes);
        for chunk in 0..chunks {
            let start = if chunk == 0 { skip } else { chunk * chunk_bytes };
            let stop = end.min((chunk + 1) * chunk_bytes);
            let mut options = 0;
            if chunk + 1 < chunks {
                options |= libc::XDP_PKT_CONTD;
            }
            if checksum && chunk == 0 {
                options |= libc::XDP_TX_METADATA;
            }
            let descriptor =
                libc::xdp_desc { addr: address + start as u64, len: (stop - start) as u32, options };
            let posted = self.rings.tx.push(descriptor);
            assert!(posted, "the transmit ring has a place for every chunk of every slot");
        }
        self.slots.send(slot, length, chunks);
    }

    fn metadata_bytes(&self) -> usize {
        if self.details.tx_checksum { METADATA_BYTES } else { 0 }
    }
}

impl Port for AfXdpPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        now: Instant,
        budget: usize,
        accept: &mut dyn FnMut(RxFrame<'_>),
    ) -> Result<usize, PortError> {
        let mut frames = self.take_burst(budget, accept);
        if frames == 0 && budget > 0 && self.details.busy_poll {
            self.state.statistics.doorbells += 1;
            // Failures show in the check below.
            let _ = self.socket.ring_receive();
            frames = self.take_burst(budget, accept);
        } else if self.rings.fill.needs_wakeup() {
            self.state.statistics.doorbells += 1;
            let _ = self.socket.ring_receive();
        }
        if frames == 0 {
            self.check_interface(now)?;
        }
        if self.state.retry.is_some() {
            self.ring()?;
        }
        Ok(frames)
    }

    fn transmit_room(&mut self, _now: Instant) -> TransmitRoom {
        self.reclaim();
        TransmitRoom { frames: self.slots.free(), bytes_outstanding: self.slots.bytes_outstanding() }
    }

    fn transmit(
        &mut self,
        _now: Instant,
        length_max: usize,
        offload: TxOffload,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<bool, PortError> {
        if self.state.gone {
            return Err(self.gone());
        }
        let frame_bytes_max = self.info.mtu + ETHERNET_HEADER_BYTES;
        assert!(
            length_max <= frame_bytes_max,
            "{length_max} bytes are more than a frame on {}",
            self.info.name
        );
        if self.slots.free() == 0 {
            self.reclaim();
        }
        let Some(slot) = self.slots.first_free() else { return Ok(false) };
        let skip = self.metadata_bytes();
        // SAFETY: the slot is free: it was never sent, or the kernel has completed every chunk of it.
        let whole = unsafe { self.umem.slot_mut(slot, 0, skip + length_max) };
        let (metadata, buffer) = whole.split_at_mut(skip);
        let length = fill(buffer);
        assert!(length <= length_max, "{length} bytes were written into a buffer of {length_max}");
        if length == 0 {
            return Ok(false);
        }
        self.state.statistics.tx_frames += 1;
        self.state.statistics.tx_bytes += length as u64;
        if length < ETHERNET_HEADER_BYTES {
            self.state.own.tx_refused += 1;
            self.state.statistics.tx_dropped += 1;
            return Ok(true);
        }
        let checksum = offload.checksum && ask_for_checksum(metadata, &buffer[..length]);
        self.post(slot, length, skip, checksum);
        Ok(true)
    }

    fn flush(&mut self, _now: Instant) -> Result<(), PortError> {
        self.rings.tx.publish();
        self.ring()
    }

    /// Polls readable as well when something happens to an interface: a call of [`Port::receive`] clears that.
    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.state.armed.set(true);
        Some(self.watch.as_fd())
    }

    /// No arrival is known ahead; but while the kernel has put a doorbell off, the port wants to ring again.
    fn next_arrival(&self, now: Instant) -> Option<Instant> {
        self.state.retry.map(|retry| now + retry)
    }

    fn next_room(&self, now: Instant) -> Option<Instant> {
        self.next_arrival(now)
    }

    fn rss(&self) -> Option<Rss> {
        self.rss.clone()
    }

    fn statistics(&self) -> PortStatistics {
        let lost = self.afxdp_statistics().rx_ring_full;
        PortStatistics { rx_dropped: self.state.statistics.rx_dropped + lost, ..self.state.statistics }
    }
}

#[cfg(test)]
impl AfXdpPort {
    /// Detaches the program and keeps the queue, for tests of what others may leave behind.
    pub(super) fn without_program(self) -> XdpSocket {
        self.socket
    }
}
