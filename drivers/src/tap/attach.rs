//! From a name to the descriptors of a TAP's queues: the requests of Linux's TUN/TAP driver.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use super::options::{TapError, failed};
use super::virtio;
use crate::interface::{self, Interface};

const DEVICE_PATH: &str = "/dev/net/tun";
/// What the kernel may leave to us: checksums, and the cutting of TCP segments, also of those that carry ECN's CWR.
const OFFLOADS: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;

/// An interface with its queues.
pub(super) struct Attached {
    pub(super) name: String,
    /// One descriptor for each queue, at least one.
    pub(super) queues: Vec<File>,
    /// Each frame has a [`virtio`] header before it.
    pub(super) offload: bool,
}

/// Creates the interface, or attaches to it. `wanted` may hold one `%d`, for which the kernel puts a free number.
pub(super) fn attach(wanted: &str, queues: usize, offload: bool) -> Result<Attached, TapError> {
    let first = open_device(wanted)?;
    let offload = offload && has_feature(&first, libc::IFF_VNET_HDR);
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
    if offload {
        flags |= libc::IFF_VNET_HDR;
    }
    if queues > 1 {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let (first, name) = match claim(first, wanted, flags) {
        Ok(claimed) => claimed,
        // The kernel says EINVAL alike for a name in use by another kind of device and for other flags.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && exists(wanted) => {
            let otherwise = claim(open_device(wanted)?, wanted, flags ^ libc::IFF_MULTI_QUEUE);
            match otherwise.map_err(|error| (error.raw_os_error(), error)) {
                // One queue of several: the others are not ours to use, but the kernel gives each flow its queue.
                Ok(claimed) if queues == 1 => claimed,
                Err((Some(libc::EINVAL), _)) => return Err(TapError::NotATap { name: wanted.to_owned() }),
                Err((code, error)) if queues == 1 || code != Some(libc::EBUSY) => {
                    return Err(refused(wanted, error));
                }
                _ => return Err(TapError::SingleQueue { name: wanted.to_owned(), queues }),
            }
        }
        Err(error) => return Err(refused(wanted, error)),
    };
    let mut files = vec![first];
    while files.len() < queues {
        let claimed = claim(open_device(&name)?, &name, flags).map_err(|error| refused(&name, error))?;
        files.push(claimed.0);
    }
    set_offload(&files[0], offload).map_err(|source| failed(&name, "setting the offloads of", source))?;
    Ok(Attached { name, queues: files, offload })
}

fn open_device(name: &str) -> Result<File, TapError> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE_PATH);
    file.map_err(|source| match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::DeviceMissing { source },
        _ => failed(name, "opening /dev/net/tun for", source),
    })
}

/// Makes `device` a queue of the interface; returns it with the interface's name.
fn claim(device: File, wanted: &str, flags: libc::c_int) -> io::Result<(File, String)> {
    let mut request = interface::request(wanted)?;
    // The flags are the 16 bits of a mask, some of them above what a signed number holds.
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    interface::ioctl(&device, libc::TUNSETIFF, &mut request)?;
    Ok((device, interface::name_of(&request)))
}

fn exists(name: &str) -> bool {
    Interface::new(name).is_ok_and(|existing| existing.exists())
}

fn refused(name: &str, error: io::Error) -> TapError {
    match error.raw_os_error() {
        Some(libc::EBUSY) => TapError::Busy { name: name.to_owned() },
        Some(libc::E2BIG) => TapError::QueuesTaken { name: name.to_owned() },
        _ => failed(name, "creating or attaching to TAP", error),
    }
}

/// Whether the driver knows the flag of TUNSETIFF.
fn has_feature(device: &File, flag: libc::c_int) -> bool {
    let mut features: libc::c_uint = 0;
    // SAFETY: TUNGETFEATURES writes an unsigned integer through the pointer, which is valid for the length of the
    // call; the descriptor is open while `device` is borrowed.
    let status = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNGETFEATURES, &raw mut features) };
    status >= 0 && features & flag as libc::c_uint != 0
}

/// Tells the kernel what it may leave to us. Nothing is said as well: an interface that lives on remembers what an
/// earlier user took.
fn set_offload(device: &File, offload: bool) -> io::Result<()> {
    if offload {
        let bytes = virtio::HEADER_BYTES as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads an integer through the pointer, which is valid for the length of the call; the
        // descriptor is open while `device` is borrowed.
        let status = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const bytes) };
        if status < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let offloads = libc::c_ulong::from(if offload { OFFLOADS } else { 0 });
    // SAFETY: TUNSETOFFLOAD takes its argument by value; the descriptor is open while `device` is borrowed.
    let status = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
