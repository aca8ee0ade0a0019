//! What a TAP shall be, how it is opened, and what can go wrong then.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use crate::interface::{self, Interface};
use crate::rng::Rng;

const DEVICE_PATH: &str = "/dev/net/tun";
/// RFC 791 requires 68 bytes; the kernel accepts no less for an Ethernet device.
const MTU_BYTES_MIN: usize = 68;
/// Largest MTU the kernel gives a TAP: a 65535-byte frame less its header.
const MTU_BYTES_MAX: usize = 65_521;

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
    /// Bring the kernel's side up.
    pub bring_up: bool,
    /// Makes derived addresses of equal names differ.
    pub seed: u64,
}

impl Default for TapOptions {
    fn default() -> Self {
        TapOptions { name: None, mtu: None, mac: None, kernel_mac: None, bring_up: true, seed: 0 }
    }
}

/// Why a TAP could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel has no TUN/TAP driver, or its device node is missing.
    #[error("{DEVICE_PATH}: {source}; load the module (modprobe tun) or do without: --link memory")]
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
    #[error("{name} exists and is not a single-queue TAP; choose another name")]
    NotATap {
        /// The interface.
        name: String,
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

/// A TAP that is ready for frames.
pub(super) struct Opened {
    pub device: File,
    pub name: String,
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
    // The kernel puts the lowest free number in place of %d.
    let wanted = options.name.as_deref().unwrap_or("or%d");
    let (device, name) = attach(wanted)?;
    let (mtu, kernel_mac) = set_up(&name, options)?;
    let mac = options.mac.unwrap_or_else(|| derive_mac(&name, options.seed, kernel_mac));
    Ok(Opened { device, name, mac, kernel_mac, mtu })
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

/// Opens one queue of the interface, which is created if it does not exist.
fn attach(wanted: &str) -> Result<(File, String), TapError> {
    let name = wanted.to_owned();
    let device =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE_PATH).map_err(
            |source| match source.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::DeviceMissing { source },
                _ => failed(&name, "opening /dev/net/tun for", source),
            },
        )?;
    let refused = |source| failed(wanted, "creating or attaching to TAP", source);
    let mut request = interface::request(wanted).map_err(refused)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    interface::ioctl(&device, libc::TUNSETIFF, &mut request).map_err(|source| {
        match source.raw_os_error() {
            Some(libc::EBUSY) => TapError::Busy { name: wanted.to_owned() },
            // The kernel says EINVAL alike for a name in use by another kind of device and for other flags.
            Some(libc::EINVAL) if Interface::new(wanted).is_ok_and(|existing| existing.exists()) => {
                TapError::NotATap { name: wanted.to_owned() }
            }
            _ => refused(source),
        }
    })?;
    Ok((device, interface::name_of(&request)))
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
    let mtu = kernel_side.mtu().map_err(step("reading the MTU of"))?;
    let mac = kernel_side.mac().map_err(step("reading the address of"))?;
    Ok((mtu, mac))
}

fn failed(name: &str, operation: &'static str, source: io::Error) -> TapError {
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
