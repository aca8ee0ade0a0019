//! What AF_XDP ports shall be, and what they turned out to be.

use std::net::IpAddr;

use super::error::AfXdpError;
use super::metadata::METADATA_BYTES;
use super::program::ADDRESSES_MAX;
use crate::busy_poll::BusyPoll;

/// Which frames a port takes; all others go on to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Take {
    /// ARP and neighbour solicitations for these addresses, and IP packets to them. The kernel keeps everything else,
    /// so its own addresses on the same interface go on working. Frames with a VLAN tag stay with the kernel.
    Shared(Vec<IpAddr>),
    /// Everything: the interface belongs to the port.
    Dedicated,
}

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Attach {
    /// In the driver where it can, otherwise in the kernel's generic hook.
    #[default]
    Automatic,
    /// In the driver, or not at all.
    Native,
    /// In the generic hook: any interface, slower, always with a copy.
    Generic,
}

/// Whether frames are copied between the kernel and the port's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CopyMode {
    /// Without a copy where the driver can.
    #[default]
    Automatic,
    /// Without a copy, or not at all.
    ZeroCopy,
    /// With a copy, even where it could be avoided.
    Copy,
}

/// What AF_XDP ports shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfXdpOptions {
    /// Queues of the interface, one port each. Empty: all it has.
    pub queues: Vec<u32>,
    /// Which frames to take.
    pub take: Take,
    /// Where the program runs.
    pub attach: Attach,
    /// Whether frames are copied.
    pub copy: CopyMode,
    /// Frames (chunks) for receiving, per port: a power of two. Also the length of the receive ring.
    pub rx_frames: u32,
    /// Frames that may be on their way out, per port.
    pub tx_frames: u32,
    /// Bytes of a chunk: 2048 or 4096. `None`: the smaller one that holds a frame of the interface's MTU.
    pub chunk_bytes: Option<usize>,
    /// Frames that are longer than a chunk may use several (XDP_USE_SG, Linux 6.6).
    pub multi_buffer: bool,
    /// Try huge pages for the frame memory first.
    pub huge_pages: bool,
    /// Busy polling by the kernel.
    pub busy_poll: Option<BusyPoll>,
}

impl Default for AfXdpOptions {
    /// All queues, everything, best modes available, 25 ms of full frames at 1 Gbit/s for a receiver that is late.
    fn default() -> Self {
        AfXdpOptions {
            queues: Vec::new(),
            take: Take::Dedicated,
            attach: Attach::default(),
            copy: CopyMode::default(),
            rx_frames: 2048,
            tx_frames: 512,
            chunk_bytes: None,
            multi_buffer: true,
            huge_pages: true,
            busy_poll: None,
        }
    }
}

/// Where the XDP program runs in fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// In the driver.
    Native,
    /// In the generic hook.
    Generic,
}

/// What a port turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfXdpInfo {
    /// The interface.
    pub interface: String,
    /// Its queue.
    pub queue: u32,
    /// Where the program runs.
    pub attached: Attached,
    /// Why not in the driver, if that was tried first.
    pub native_refused: Option<String>,
    /// No copy between kernel and port.
    pub zero_copy: bool,
    /// The frame memory is in huge pages.
    pub huge_pages: bool,
    /// Bytes of a chunk.
    pub chunk_bytes: usize,
    /// Long frames use several chunks.
    pub multi_buffer: bool,
    /// The kernel polls the queue when the port looks.
    pub busy_poll: bool,
    /// The device completes transport checksums of frames sent (TX metadata, netdev `xsk-features`).
    pub tx_checksum: bool,
}

impl core::fmt::Display for AfXdpInfo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mode = match self.attached {
            Attached::Native => "native",
            Attached::Generic => "generic",
        };
        let copy = if self.zero_copy { "zero copy" } else { "copy" };
        write!(f, "{} queue {}: {mode}, {copy}, chunks of {}", self.interface, self.queue, self.chunk_bytes)?;
        let extras = [
            (self.multi_buffer, ", multi-buffer"),
            (self.huge_pages, ", huge pages"),
            (self.busy_poll, ", busy poll"),
            (self.tx_checksum, ", checksum offload"),
        ];
        for (_, text) in extras.iter().filter(|(has, _)| *has) {
            f.write_str(text)?;
        }
        match &self.native_refused {
            Some(why) => write!(f, " (native refused: {why})"),
            None => Ok(()),
        }
    }
}

/// Chunks that the kernel takes in aligned mode on every page size in use.
pub(super) const CHUNK_BYTES: [usize; 2] = [2048, 4096];
/// Bytes at the start of each received chunk that XDP keeps for itself (XDP_PACKET_HEADROOM, linux/bpf.h).
pub(super) const XDP_HEADROOM_BYTES: usize = 256;
/// Bytes of an Ethernet header.
pub(super) const ETHERNET_HEADER_BYTES: usize = 14;
/// Bytes of an IEEE 802.1Q tag, by which a received frame may be longer.
pub(super) const VLAN_TAG_BYTES: usize = 4;
/// Frames of either kind at most: a bound on memory, and below what any ring may have.
const FRAMES_MAX: u32 = 1 << 16;
/// Largest MTU of any interface: an IP packet less the Ethernet header of a 65535-byte frame.
const MTU_BYTES_MAX: usize = 65_521;

/// How frames of an MTU lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub chunk_bytes: usize,
    /// Chunks of a frame to be sent; more than one only with multi-buffer.
    pub chunks_per_tx_frame: usize,
    pub multi_buffer: bool,
}

impl AfXdpOptions {
    /// Refuses what no interface could do.
    pub(super) fn check(&self, interface: &str) -> Result<(), AfXdpError> {
        let reason = if !self.rx_frames.is_power_of_two() || !(16..=FRAMES_MAX).contains(&self.rx_frames) {
            format!("rx_frames {} is no power of two from 16 to {FRAMES_MAX}", self.rx_frames)
        } else if !(1..=FRAMES_MAX).contains(&self.tx_frames) {
            format!("tx_frames {} is not from 1 to {FRAMES_MAX}", self.tx_frames)
        } else if self.chunk_bytes.is_some_and(|bytes| !CHUNK_BYTES.contains(&bytes)) {
            "chunks have 2048 or 4096 bytes".to_owned()
        } else if self.attach == Attach::Generic && self.copy == CopyMode::ZeroCopy {
            "generic mode always copies; ask for zero copy in native mode".to_owned()
        } else if self.queues.iter().enumerate().any(|(at, queue)| self.queues[..at].contains(queue)) {
            "a queue is named twice; name each once".to_owned()
        } else {
            match &self.take {
                Take::Shared(addresses) if addresses.is_empty() => {
                    "shared mode takes the frames of no address; name at least one, or use dedicated mode"
                        .to_owned()
                }
                Take::Shared(addresses) if addresses.len() > ADDRESSES_MAX => {
                    format!("{} addresses are too many; shared mode takes {ADDRESSES_MAX}", addresses.len())
                }
                _ => return Ok(()),
            }
        };
        Err(AfXdpError::InvalidOptions { interface: interface.to_owned(), reason })
    }

    /// Chooses chunks for frames of `mtu`.
    pub(super) fn layout(&self, interface: &str, mtu: usize) -> Result<Layout, AfXdpError> {
        let rx_bytes = mtu + ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES;
        let fits = |chunk_bytes: usize| rx_bytes <= chunk_bytes - XDP_HEADROOM_BYTES;
        let fixed = self.chunk_bytes;
        let candidate = fixed
            .unwrap_or_else(|| CHUNK_BYTES.into_iter().find(|&bytes| fits(bytes)).unwrap_or(CHUNK_BYTES[1]));
        if fits(candidate) {
            return Ok(Layout { chunk_bytes: candidate, chunks_per_tx_frame: 1, multi_buffer: false });
        }
        if !self.multi_buffer || mtu > MTU_BYTES_MAX {
            return Err(AfXdpError::MtuTooLarge {
                interface: interface.to_owned(),
                mtu,
                chunk_bytes: candidate,
                mtu_max: candidate - XDP_HEADROOM_BYTES - ETHERNET_HEADER_BYTES - VLAN_TAG_BYTES,
            });
        }
        let chunks_per_tx_frame = (METADATA_BYTES + ETHERNET_HEADER_BYTES + mtu).div_ceil(candidate);
        Ok(Layout { chunk_bytes: candidate, chunks_per_tx_frame, multi_buffer: true })
    }
}
