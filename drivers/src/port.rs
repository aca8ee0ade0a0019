//! [`Port`]: one queue of a network device, in bursts.
//!
//! A port is owned by one thread (a shard). The order of calls in a run loop:
//! 1. [`Port::receive`] hands over up to a budget of frames, each borrowed for the length of a callback.
//! 2. [`Port::transmit_room`], then [`Port::transmit`] for each frame that may leave.
//! 3. [`Port::flush`] rings the doorbell once for the burst.
//! 4. When idle: sleep until [`Port::readiness`] is readable or [`Port::next_arrival`] has come.

use core::time::Duration;
use std::os::fd::BorrowedFd;

use crate::rss::Rss;
use crate::time::Instant;

/// What is known about the transport checksum of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReceiveChecksum {
    /// Nothing: the receiver verifies it.
    #[default]
    Unverified,
    /// The device (or a memory copy that cannot corrupt) vouches for it.
    Valid,
}

/// A received frame, borrowed from the port's memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct RxFrame<'a> {
    /// The whole Ethernet frame, without frame check sequence. Longer than the MTU allows only if
    /// [`TxOffload::segment_size`] of `left` is set: segments of one flow that were not cut, or were put together.
    pub bytes: &'a [u8],
    /// State of the transport checksum.
    pub checksum: ReceiveChecksum,
    /// What the frame's sender left to a device, when it met none on its way here. Its receiver need do nothing about
    /// it. Who passes the frame on hands this to [`Port::transmit`], or does it ([`crate::offload`]).
    pub left: TxOffload,
}

/// What the device still has to do to a frame before it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TxOffload {
    /// The transport checksum field holds only the sum over the pseudo-header, with the length as it is in this frame;
    /// the device completes it. Always so for a super-segment.
    pub checksum: bool,
    /// The frame is a super-segment: the device cuts its TCP payload into pieces of this many bytes.
    /// Zero: an ordinary frame.
    pub segment_size: u16,
}

/// What a device can do for its user. All false and zero for a plain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// [`TxOffload::checksum`] is honoured.
    pub tx_checksum: bool,
    /// Largest IP packet accepted as a super-segment, in bytes; zero if the device cannot segment.
    pub tx_segment_bytes_max: u32,
}

/// What a port is: fixed when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Name for people and logs, such as `tap:or0` or `cable:0`.
    pub name: String,
    /// Ethernet address of this end.
    pub mac: [u8; 6],
    /// Largest IP packet in bytes (an Ethernet frame is 14 bytes longer).
    pub mtu: usize,
    /// Offloads.
    pub capabilities: Capabilities,
}

/// Counters of a port since it was opened. Frames and bytes count whole Ethernet frames without FCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStatistics {
    /// Frames handed to the user.
    pub rx_frames: u64,
    /// Bytes handed to the user.
    pub rx_bytes: u64,
    /// Frames that arrived and were dropped before the user saw them (too long, truncated, no memory).
    pub rx_dropped: u64,
    /// Frames accepted from the user.
    pub tx_frames: u64,
    /// Bytes accepted from the user.
    pub tx_bytes: u64,
    /// Frames that the user handed over and the device refused or lost knowingly.
    pub tx_dropped: u64,
    /// Doorbells rung (system calls or their like).
    pub doorbells: u64,
}

/// How much the port takes right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransmitRoom {
    /// Frames that [`Port::transmit`] will accept before it refuses.
    pub frames: usize,
    /// Bytes handed to the port and not yet known to have left it. What is in here is past recall, so the stack
    /// keeps it shallow. Zero where the device gives no completions and takes frames at once.
    pub bytes_outstanding: usize,
}

/// Why a port failed. The port is unusable afterwards.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// A system call on the device failed.
    #[error("{port}: {operation} failed: {source}")]
    Io {
        /// [`PortInfo::name`].
        port: String,
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The device went away (interface deleted, other end of the cable dropped).
    #[error("{port}: the device is gone")]
    Gone {
        /// [`PortInfo::name`].
        port: String,
    },
}

/// One queue of a network device. See the module for the order of calls.
pub trait Port: Send {
    /// What this port is.
    fn info(&self) -> &PortInfo;

    /// Hands at most `budget` received frames to `accept`, oldest first, and returns how many there were.
    ///
    /// # Errors
    /// When the device failed for good. A single bad frame is counted in [`PortStatistics::rx_dropped`] instead.
    fn receive(
        &mut self,
        now: Instant,
        budget: usize,
        accept: &mut dyn FnMut(RxFrame<'_>),
    ) -> Result<usize, PortError>;

    /// Shows the frames that [`Self::receive`] will hand over next, at most `budget` of them, without handing them
    /// over: a caller with many connections has those fetched into the cache meanwhile. A port may show none.
    fn show_next(&mut self, _now: Instant, _budget: usize, _show: &mut dyn FnMut(&[u8])) {}

    /// Reclaims completed frames and tells how much may be transmitted now.
    fn transmit_room(&mut self, now: Instant) -> TransmitRoom;

    /// Offers a buffer of `length_max` bytes to `fill`, which writes one Ethernet frame from its start and returns
    /// the frame's length, or zero to send nothing. Returns whether a frame was taken over.
    ///
    /// `fill` is called only if there is room for a frame; `false` without a call means the port is full.
    /// The frame may wait for [`Port::flush`].
    ///
    /// # Errors
    /// When the device failed for good. `length_max` above MTU + 14 (or above the super-segment limit when
    /// `offload.segment_size` is set) is a bug of the caller and may panic.
    fn transmit(
        &mut self,
        now: Instant,
        length_max: usize,
        offload: TxOffload,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<bool, PortError>;

    /// Rings the doorbell for the frames transmitted since the last call; nothing to do without any.
    ///
    /// # Errors
    /// When the device failed for good.
    fn flush(&mut self, now: Instant) -> Result<(), PortError>;

    /// A descriptor that polls readable when frames have arrived, if the device has one.
    /// Level-triggered: it stays readable until [`Port::receive`] has been told everything.
    ///
    /// Ask for it anew before each sleep, after the last [`Port::receive`]: asking may arm it, and a port need not
    /// ring for a user that is awake.
    fn readiness(&self) -> Option<BorrowedFd<'_>>;

    /// When the next frame that is already on its way will be there, if the port knows (the in-process cable does).
    /// A sleeper must wake at this instant as well as on [`Port::readiness`].
    fn next_arrival(&self, now: Instant) -> Option<Instant>;

    /// When room will be back after [`Port::transmit`] refused, if the port knows. `None`: try again soon.
    fn next_room(&self, _now: Instant) -> Option<Instant> {
        None
    }

    /// How the device spreads frames over its queues, of which this port is one; `None` if it has one queue or does
    /// not tell.
    fn rss(&self) -> Option<Rss> {
        None
    }

    /// Counters so far.
    fn statistics(&self) -> PortStatistics;
}

/// Converts a rate to the time `bytes` take on it, rounded up to a nanosecond; zero for an unlimited rate of zero.
pub fn serialisation_time(bytes: usize, bits_per_second: u64) -> Duration {
    if bits_per_second == 0 {
        return Duration::ZERO;
    }
    let nanos = (bytes as u128 * 8 * 1_000_000_000).div_ceil(u128::from(bits_per_second));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
