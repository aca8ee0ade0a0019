//! [`Tap`]: a port whose other end is an interface of the host's own kernel (Linux TUN/TAP, in TAP mode).
//!
//! The kernel side is an ordinary interface with a name, an MTU and an address of its own; this side is another host
//! on the same wire. One system call carries one frame. Needs CAP_NET_ADMIN, except to attach to a persistent TAP
//! that belongs to the user and is already set up as asked.
//!
//! With [`TapOptions::offload`] a frame may be a TCP super-segment of 64 KiB, cut by the kernel if by anyone, and the
//! checksums of local senders are neither made nor verified. Across a bridge between two such TAPs frames stay as they
//! are: what one leaves to the device, the other receives as valid and uncut. If only one of them has offloads, the
//! kernel does the work between.

mod attach;
mod options;
mod virtio;

#[cfg(test)]
mod offload_tests;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use self::attach::Attached;
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
/// Largest IP packet, also as a super-segment: its length field has 16 bits.
const PACKET_BYTES_MAX: usize = 65_535;
/// Room for whatever the kernel sends if somebody raised the MTU of its side: the read must not cut it.
const READ_BYTES_MAX: usize = PACKET_BYTES_MAX + ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES;
/// Frames offered as room at a time. The kernel takes each at once, so this only bounds a burst.
const BURST_FRAMES_MAX: usize = 256;

/// Counters that only a TAP has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapStatistics {
    /// Writes that the kernel put off (EAGAIN, ENOBUFS); the frame was kept and written later.
    pub tx_put_off: u64,
    /// Frames dropped because the kernel side was down.
    pub tx_down: u64,
    /// Frames the kernel refused as malformed, and frames that were to be finished by it and are not TCP or UDP.
    pub tx_refused: u64,
    /// Super-segments accepted from the user.
    pub tx_super_segments: u64,
    /// Received frames longer than the MTU allows.
    pub rx_too_long: u64,
    /// Received frames of which the kernel says what it was not asked for.
    pub rx_unasked: u64,
    /// Super-segments handed to the user.
    pub rx_super_segments: u64,
}

/// One queue of a TAP device.
pub struct Tap {
    info: PortInfo,
    interface_name: String,
    kernel_mac: [u8; 6],
    device: File,
    /// Bytes before each frame in either buffer: none, or a [`virtio`] header.
    prefix_bytes: usize,
    read_buffer: Box<[u8]>,
    write_buffer: Box<[u8]>,
    /// Bytes in `write_buffer`, prefix included, that were taken over and that the kernel has yet to take; zero for
    /// none.
    pending_bytes: usize,
    statistics: PortStatistics,
    tap_statistics: TapStatistics,
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap")
            .field("info", &self.info)
            .field("statistics", &self.statistics)
            .field("tap_statistics", &self.tap_statistics)
            .finish_non_exhaustive()
    }
}

/// What came of a write.
enum Written {
    Yes,
    PutOff,
    Dropped,
}

impl Tap {
    /// Creates the interface, or attaches to it if it exists, sets it up as asked and brings it up. An interface that
    /// was created goes away when the port is dropped. Of a TAP with several queues this is the first; see
    /// [`Self::open_queues`] for all.
    ///
    /// # Errors
    /// See [`TapError`]: each tells what is wrong and what would help.
    pub fn open(options: &TapOptions) -> Result<Tap, TapError> {
        let one = TapOptions { queues: 1, ..options.clone() };
        let mut queues = Tap::open_queues(&one)?;
        Ok(queues.pop().expect("a TAP has as many queues as were asked for: one"))
    }

    /// The same with [`TapOptions::queues`] queues. All have the same addresses; the interface goes away with the last.
    ///
    /// # Errors
    /// See [`TapError`]: each tells what is wrong and what would help.
    pub fn open_queues(options: &TapOptions) -> Result<Vec<Tap>, TapError> {
        let options::Opened { attached, mac, kernel_mac, mtu } = options::open(options)?;
        let Attached { name, queues, offload } = attached;
        let (prefix_bytes, packet_bytes_max, capabilities) = if offload {
            let capabilities =
                Capabilities { tx_checksum: true, tx_segment_bytes_max: PACKET_BYTES_MAX as u32 };
            (virtio::HEADER_BYTES, PACKET_BYTES_MAX, capabilities)
        } else {
            (0, mtu, Capabilities::default())
        };
        let single = queues.len() == 1;
        let tap = |(number, device): (usize, File)| Tap {
            info: PortInfo {
                name: if single { format!("tap:{name}") } else { format!("tap:{name}/{number}") },
                mac,
                mtu,
                capabilities,
            },
            interface_name: name.clone(),
            kernel_mac,
            device,
            prefix_bytes,
            read_buffer: vec![0; prefix_bytes + READ_BYTES_MAX].into_boxed_slice(),
            write_buffer: vec![0; prefix_bytes + packet_bytes_max + ETHERNET_HEADER_BYTES].into_boxed_slice(),
            pending_bytes: 0,
            statistics: PortStatistics::default(),
            tap_statistics: TapStatistics::default(),
        };
        Ok(queues.into_iter().enumerate().map(tap).collect())
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

    /// Writes the frame that is in the buffer: `length` bytes with its prefix.
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

/// What is known of a frame read with `prefix` before it, or `None` if it is to be dropped.
fn admit(
    prefix: &[u8],
    frame: &[u8],
    mtu: usize,
    statistics: &mut TapStatistics,
) -> Option<(ReceiveChecksum, TxOffload)> {
    let said = if prefix.is_empty() {
        Some((ReceiveChecksum::Unverified, TxOffload::default()))
    } else {
        virtio::read(prefix)
    };
    let Some((checksum, left)) = said else {
        statistics.rx_unasked += 1;
        return None;
    };
    if left.segment_size > 0 {
        statistics.rx_super_segments += 1;
    } else if frame.len() > mtu + ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES {
        statistics.rx_too_long += 1;
        return None;
    }
    Some((checksum, left))
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
        let mut frames = 0;
        while frames < budget {
            let length = match (&self.device).read(&mut self.read_buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed("reading a frame", error)),
            };
            // Frames that are dropped count against the budget, so that a flood of them cannot hold the thread.
            frames += 1;
            let (prefix, bytes) = self.read_buffer[..length].split_at(self.prefix_bytes.min(length));
            let Some((checksum, left)) = admit(prefix, bytes, self.info.mtu, &mut self.tap_statistics) else {
                self.statistics.rx_dropped += 1;
                continue;
            };
            self.statistics.rx_frames += 1;
            self.statistics.rx_bytes += bytes.len() as u64;
            accept(RxFrame { bytes, checksum, left });
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
        offload: TxOffload,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<bool, PortError> {
        self.write_pending()?;
        if self.pending_bytes > 0 {
            return Ok(false);
        }
        let is_super = offload.segment_size > 0;
        debug_assert!(
            !offload.checksum || self.info.capabilities.tx_checksum,
            "{} has no offloads",
            self.info.name
        );
        let room = match self.info.capabilities.tx_segment_bytes_max as usize {
            super_bytes_max if is_super => super_bytes_max,
            _ => self.info.mtu,
        } + ETHERNET_HEADER_BYTES;
        assert!(length_max <= room, "{length_max} bytes are more than a frame on {}", self.info.name);
        let (prefix, buffer) = self.write_buffer.split_at_mut(self.prefix_bytes);
        let frame_bytes = fill(&mut buffer[..length_max]);
        assert!(frame_bytes <= length_max, "{frame_bytes} bytes were written into a buffer of {length_max}");
        if frame_bytes == 0 {
            return Ok(false);
        }
        self.statistics.tx_frames += 1;
        self.statistics.tx_bytes += frame_bytes as u64;
        self.tap_statistics.tx_super_segments += u64::from(is_super);
        if !prefix.is_empty() {
            let Some(header) = virtio::write(&buffer[..frame_bytes], offload) else {
                self.tap_statistics.tx_refused += 1;
                self.statistics.tx_dropped += 1;
                return Ok(true);
            };
            prefix.copy_from_slice(&header);
        }
        let length = self.prefix_bytes + frame_bytes;
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
