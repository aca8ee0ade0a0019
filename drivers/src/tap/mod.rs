//! [`Tap`]: a port whose other end is an interface of the host's own kernel (Linux TUN/TAP, in TAP mode).
//!
//! The kernel side is an ordinary interface with a name, an MTU and an address of its own; this side is another host
//! on the same wire. One system call carries one frame. Needs CAP_NET_ADMIN, except to attach to a persistent TAP
//! that belongs to the user and is already set up as asked.

mod options;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

pub use self::options::{TapError, TapOptions};

use crate::port::{
    Capabilities, Port, PortError, PortInfo, PortStatistics, ReceiveChecksum, RxFrame, TransmitRoom,
    TxOffload,
};
use crate::time::Instant;

/// Bytes of an Ethernet header.
const ETHERNET_HEADER_BYTES: usize = 14;
/// Bytes of an IEEE 802.1Q tag, by which a received frame may be longer.
const VLAN_TAG_BYTES: usize = 4;
/// Room for whatever the kernel sends if somebody raised the MTU of its side: the read must not cut it.
const READ_BYTES_MAX: usize = 65_535 + ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES;
/// Frames offered as room at a time. The kernel takes each at once, so this only bounds a burst.
const BURST_FRAMES_MAX: usize = 256;

/// Counters that only a TAP has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapStatistics {
    /// Writes that the kernel put off (EAGAIN, ENOBUFS); the frame was kept and written later.
    pub tx_put_off: u64,
    /// Frames dropped because the kernel side was down.
    pub tx_down: u64,
    /// Frames the kernel refused as malformed.
    pub tx_refused: u64,
    /// Received frames longer than the MTU allows.
    pub rx_too_long: u64,
}

/// One queue of a TAP device.
#[derive(Debug)]
pub struct Tap {
    info: PortInfo,
    interface_name: String,
    kernel_mac: [u8; 6],
    device: File,
    read_buffer: Box<[u8]>,
    write_buffer: Box<[u8]>,
    /// Bytes in `write_buffer` that were taken over and that the kernel has yet to take; zero for none.
    pending_bytes: usize,
    statistics: PortStatistics,
    tap_statistics: TapStatistics,
}

/// What came of a write.
enum Written {
    Yes,
    PutOff,
    Dropped,
}

impl Tap {
    /// Creates the interface, or attaches to it if it exists, sets it up as asked and brings it up. An interface that
    /// was created goes away when the port is dropped.
    ///
    /// # Errors
    /// See [`TapError`]: each tells what is wrong and what would help.
    pub fn open(options: &TapOptions) -> Result<Tap, TapError> {
        let opened = options::open(options)?;
        let write_bytes = opened.mtu + ETHERNET_HEADER_BYTES;
        Ok(Tap {
            info: PortInfo {
                name: format!("tap:{}", opened.name),
                mac: opened.mac,
                mtu: opened.mtu,
                capabilities: Capabilities::default(),
            },
            interface_name: opened.name,
            kernel_mac: opened.kernel_mac,
            device: opened.device,
            read_buffer: vec![0; READ_BYTES_MAX].into_boxed_slice(),
            write_buffer: vec![0; write_bytes].into_boxed_slice(),
            pending_bytes: 0,
            statistics: PortStatistics::default(),
            tap_statistics: TapStatistics::default(),
        })
    }

    /// Name of the kernel's interface.
    pub fn interface_name(&self) -> &str {
        &self.interface_name
    }

    /// Ethernet address of the kernel's side.
    pub fn kernel_mac(&self) -> [u8; 6] {
        self.kernel_mac
    }

    /// Counters that only a TAP has.
    pub fn tap_statistics(&self) -> TapStatistics {
        self.tap_statistics
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> PortError {
        match source.raw_os_error() {
            // The kernel's ways to say that the interface behind the descriptor was deleted.
            Some(libc::EBADFD | libc::ENODEV | libc::ENXIO | libc::EFAULT) => {
                PortError::Gone { port: self.info.name.clone() }
            }
            _ => PortError::Io { port: self.info.name.clone(), operation, source },
        }
    }

    /// Writes the frame that is in the buffer.
    fn write_frame(&mut self, length: usize) -> Result<Written, PortError> {
        loop {
            self.statistics.doorbells += 1;
            let Err(error) = (&self.device).write(&self.write_buffer[..length]) else {
                return Ok(Written::Yes);
            };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => {
                    self.tap_statistics.tx_put_off += 1;
                    return Ok(Written::PutOff);
                }
                Some(libc::EIO) => {
                    self.tap_statistics.tx_down += 1;
                    return Ok(Written::Dropped);
                }
                Some(libc::EINVAL) => {
                    self.tap_statistics.tx_refused += 1;
                    return Ok(Written::Dropped);
                }
                _ => return Err(self.failed("writing a frame", error)),
            }
        }
    }

    /// Tries again to write a frame that was put off.
    fn write_pending(&mut self) -> Result<(), PortError> {
        if self.pending_bytes == 0 {
            return Ok(());
        }
        match self.write_frame(self.pending_bytes)? {
            Written::Yes => self.pending_bytes = 0,
            Written::PutOff => {}
            Written::Dropped => {
                self.statistics.tx_dropped += 1;
                self.pending_bytes = 0;
            }
        }
        Ok(())
    }
}

impl Port for Tap {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        _now: Instant,
        budget: usize,
        accept: &mut dyn FnMut(RxFrame<'_>),
    ) -> Result<usize, PortError> {
        let frame_bytes_max = self.info.mtu + ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES;
        let mut frames = 0;
        while frames < budget {
            let length = match (&self.device).read(&mut self.read_buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed("reading a frame", error)),
            };
            // Frames that are too long count against the budget, so that a flood of them cannot hold the thread.
            frames += 1;
            if length > frame_bytes_max {
                self.statistics.rx_dropped += 1;
                self.tap_statistics.rx_too_long += 1;
                continue;
            }
            self.statistics.rx_frames += 1;
            self.statistics.rx_bytes += length as u64;
            accept(RxFrame { bytes: &self.read_buffer[..length], checksum: ReceiveChecksum::Unverified });
        }
        Ok(frames)
    }

    fn transmit_room(&mut self, _now: Instant) -> TransmitRoom {
        // An error here will come again at the next call that can report it.
        let _ = self.write_pending();
        let frames = if self.pending_bytes == 0 { BURST_FRAMES_MAX } else { 0 };
        TransmitRoom { frames, bytes_outstanding: self.pending_bytes }
    }

    fn transmit(
        &mut self,
        _now: Instant,
        length_max: usize,
        _offload: TxOffload,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<bool, PortError> {
        self.write_pending()?;
        if self.pending_bytes > 0 {
            return Ok(false);
        }
        let room = self.write_buffer.len();
        assert!(length_max <= room, "{length_max} bytes are more than a frame on {}", self.info.name);
        let length = fill(&mut self.write_buffer[..length_max]);
        assert!(length <= length_max, "{length} bytes were written into a buffer of {length_max}");
        if length == 0 {
            return Ok(false);
        }
        self.statistics.tx_frames += 1;
        self.statistics.tx_bytes += length as u64;
        match self.write_frame(length)? {
            Written::Yes => {}
            // The frame was cut and cannot be given back: it is kept and written before any other.
            Written::PutOff => self.pending_bytes = length,
            Written::Dropped => self.statistics.tx_dropped += 1,
        }
        Ok(true)
    }

    fn flush(&mut self, _now: Instant) -> Result<(), PortError> {
        self.write_pending()
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.device.as_fd())
    }

    fn next_arrival(&self, _now: Instant) -> Option<Instant> {
        None
    }

    fn statistics(&self) -> PortStatistics {
        self.statistics
    }
}
