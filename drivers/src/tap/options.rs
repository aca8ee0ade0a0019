//! What a TAP shall be, how it is opened, and what can go wrong then.

use std::io;

use super::attach::{Attached, attach};
use crate::interface::Interface;
use crate::rng::Rng;

/// RFC 791 requires 68 bytes; the kernel accepts no less for an Ethernet device.
const MTU_BYTES_MIN: usize = 68;
/// Largest MTU the kernel gives a TAP: a 65535-byte frame less its header.
const MTU_BYTES_MAX: usize = 65_521;

/// Most queues the kernel gives a TAP.
const QUEUES_MAX: usize = 256;

/// Frames kept for a reader that is late, by default: 25 ms at 1 Gbit/s and 1500 bytes.
const QUEUE_FRAMES: u32 = 2048;

/// What a TAP shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapOptions {
    /// Name of the kernel's interface, 1 to 15 bytes. `None`: the kernel finds a free one, `or0`, `or1` and so on.
    pub name: Option<String>,
    /// MTU of both sides. `None`: as it is (1500 for a new interface).
    pub mtu: Option<usize>,
    /// Ethernet address of this side. `None`: locally administered, derived from the name and `seed`.
    pub mac: Option<[u8; 6]>,
    /// Ethernet address of the kernel's side. `None`: as it is (random for a new interface).
    pub kernel_mac: Option<[u8; 6]>,
    /// Frames the kernel keeps for this side while it does not read (the interface's `txqueuelen`). `None`: as it is
    /// (500 for a new interface, 6 ms at 1 Gbit/s: less than a thread may have to wait for its core).
    pub queue_frames: Option<u32>,
    /// Queues, each of them a port of its own ([`Tap::open_queues`](super::Tap::open_queues)): 1 to 256. The kernel
    /// sends each flow to the queue that last transmitted a frame of it, and a new one to any, so all must be read.
    pub queues: usize,
    /// Exchange frames with checksums to be completed and TCP super-segments to be cut, both ways, if the kernel can
    /// (IFF_VNET_HDR; Linux since 2.6.27): what came of it is in [`PortInfo`](crate::port::PortInfo).
    pub offload: bool,
    /// Bring the kernel's side up.
    pub bring_up: bool,
    /// Makes derived addresses of equal names differ.
    pub seed: u64,
}

impl Default for TapOptions {
    fn default() -> Self {
        TapOptions {
            name: None,
            mtu: None,
            mac: None,
            kernel_mac: None,
            queue_frames: Some(QUEUE_FRAMES),
            queues: 1,
            offload: false,
            bring_up: true,
            seed: 0,
        }
    }
}

/// Why a TAP could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel has no TUN/TAP driver, or its device node is missing.
    #[error("/dev/net/tun: {source}; load the module (modprobe tun) or do without: --link memory")]
    DeviceMissing {
        /// What the system said.
        source: io::Error,
    },
    /// The process may not do this.
    #[error(
        "{operation} {name}: permission denied; TAP needs root (CAP_NET_ADMIN); without it works: --link memory"
    )]
    NoPrivilege {
        /// The interface.
        name: String,
        /// What was being done.
        operation: &'static str,
    },
    /// Another process is attached to the interface.
    #[error("TAP {name} is in use by another process; choose another name")]
    Busy {
        /// The interface.
        name: String,
    },
    /// No interface can have this name.
    #[error("{name:?} cannot name an interface: {reason}")]
    InvalidName {
        /// The name asked for.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An interface of this name exists and is of another kind.
    #[error("{name} exists and is not a TAP; choose another name")]
    NotATap {
        /// The interface.
        name: String,
    },
    /// An interface of this name exists and has one queue only.
    #[error("TAP {name} exists with one queue only, not {queues}; delete it, or ask for one queue")]
    SingleQueue {
        /// The interface.
        name: String,
        /// How many were asked for.
        queues: usize,
    },
    /// The interface has no queue left.
    #[error("TAP {name} has no queue left; ask for fewer, or end the process that holds the others")]
    QueuesTaken {
        /// The interface.
        name: String,
    },
    /// The number of queues is out of range.
    #[error("a TAP cannot have {queues} queues: 1 to {QUEUES_MAX} are possible")]
    InvalidQueues {
        /// The number asked for.
        queues: usize,
    },
    /// The MTU is out of range.
    #[error("an MTU of {mtu} bytes is not possible on a TAP: {MTU_BYTES_MIN} to {MTU_BYTES_MAX} are")]
    InvalidMtu {
        /// The MTU asked for.
        mtu: usize,
    },
    /// The system refused for another reason.
    #[error("{operation} {name} failed: {source}")]
    Io {
        /// The interface.
        name: String,
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A TAP whose queues are ready for frames.
pub(super) struct Opened {
    pub attached: Attached,
    pub mac: [u8; 6],
    pub kernel_mac: [u8; 6],
    pub mtu: usize,
}

pub(super) fn open(options: &TapOptions) -> Result<Opened, TapError> {
    if let Some(name) = &options.name {
        check_name(name)?;
    }
    if let Some(mtu) = options.mtu
        && !(MTU_BYTES_MIN..=MTU_BYTES_MAX).contains(&mtu)
    {
        return Err(TapError::InvalidMtu { mtu });
    }
    if !(1..=QUEUES_MAX).contains(&options.queues) {
        return Err(TapError::InvalidQueues { queues: options.queues });
    }
    // The kernel puts the lowest free number in place of %d.
    let wanted = options.name.as_deref().unwrap_or("or%d");
    let attached = attach(wanted, options.queues, options.offload)?;
    let name = &attached.name;
    let (mtu, kernel_mac) = set_up(name, options)?;
    let mac = options.mac.unwrap_or_else(|| derive_mac(name, options.seed, kernel_mac));
    Ok(Opened { attached, mac, kernel_mac, mtu })
}

fn check_name(name: &str) -> Result<(), TapError> {
    let reason = match name {
        "" => "it is empty",
        "." | ".." => "it is a directory",
        _ if name.len() >= libc::IFNAMSIZ => "it is longer than 15 bytes",
        _ if name.contains(['/', ':', '%', '\0']) => "it contains one of / : % and zero",
        _ if name.contains(char::is_whitespace) => "it contains white space",
        _ => return Ok(()),
    };
    Err(TapError::InvalidName { name: name.to_owned(), reason })
}

/// Makes the kernel's side as asked, touching only what differs, since touching needs a privilege that attaching may
/// not. Returns its MTU and address.
fn set_up(name: &str, options: &TapOptions) -> Result<(usize, [u8; 6]), TapError> {
    let step = |operation| move |source| failed(name, operation, source);
    let kernel_side = Interface::new(name).map_err(step("looking at"))?;
    if let Some(mac) = options.kernel_mac
        && kernel_side.mac().map_err(step("reading the address of"))? != mac
    {
        kernel_side.set_mac(mac).map_err(step("setting the address of"))?;
    }
    if let Some(mtu) = options.mtu
        && kernel_side.mtu().map_err(step("reading the MTU of"))? != mtu
    {
        kernel_side.set_mtu(mtu).map_err(step("setting the MTU of"))?;
    }
    if options.bring_up && !kernel_side.is_up().map_err(step("reading the flags of"))? {
        kernel_side.bring_up().map_err(step("bringing up"))?;
    }
    if let Some(frames) = options.queue_frames
        && kernel_side.queue_frames().map_err(step("reading the queue length of"))? != frames
    {
        kernel_side.set_queue_frames(frames).map_err(step("setting the queue length of"))?;
    }
    let mtu = kernel_side.mtu().map_err(step("reading the MTU of"))?;
    let mac = kernel_side.mac().map_err(step("reading the address of"))?;
    Ok((mtu, mac))
}

pub(super) fn failed(name: &str, operation: &'static str, source: io::Error) -> TapError {
    let name = name.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => TapError::NoPrivilege { name, operation },
        _ => TapError::Io { name, operation, source },
    }
}

/// A locally administered unicast address that is stable for a name and seed and is not the kernel's.
fn derive_mac(name: &str, seed: u64, kernel_mac: [u8; 6]) -> [u8; 6] {
    let mut mixed = seed;
    for byte in name.bytes() {
        mixed = Rng::new(mixed ^ u64::from(byte)).next_u64();
    }
    let mut mac = [0; 6];
    Rng::new(mixed).fill(&mut mac);
    mac[0] = (mac[0] & !0b01) | 0b10;
    if mac == kernel_mac {
        mac[5] ^= 1;
    }
    mac
}
