//! The few netdevice(7) and ethtool requests that drivers and labs need: flags, MTU, hardware address, queues.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;

/// An `ifreq` for the interface `name`. Names are at most 15 bytes and hold no zero byte; longer ones are refused.
pub(crate) fn request(name: &str) -> io::Result<libc::ifreq> {
    if name.len() >= libc::IFNAMSIZ || name.bytes().any(|byte| byte == 0) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: `ifreq` is plain old data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// The name in an `ifreq`.
pub(crate) fn name_of(request: &libc::ifreq) -> String {
    let bytes: Vec<u8> =
        request.ifr_name.iter().take_while(|&&byte| byte != 0).map(|&byte| byte as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An ioctl that reads and writes an `ifreq`.
pub(crate) fn ioctl(fd: impl AsFd, operation: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: every operation used in this crate (SIOC[GS]IF*, TUNSETIFF) takes a pointer to an `ifreq`, which is
    // writable and lives for the length of the call; the descriptor is open while `fd` is borrowed.
    let status = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), operation, core::ptr::from_mut(request)) };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads and changes the settings of one interface of the calling thread's network namespace.
#[derive(Debug)]
pub(crate) struct Interface {
    name: String,
    /// Any socket will do; it remembers the namespace it was made in.
    socket: UnixDatagram,
}

impl Interface {
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        Ok(Interface { name: name.to_owned(), socket: UnixDatagram::unbound()? })
    }

    fn ask(&self, operation: libc::Ioctl) -> io::Result<libc::ifreq> {
        let mut answer = request(&self.name)?;
        ioctl(&self.socket, operation, &mut answer)?;
        Ok(answer)
    }

    pub(crate) fn exists(&self) -> bool {
        self.ask(libc::SIOCGIFFLAGS as libc::Ioctl).is_ok()
    }

    pub(crate) fn is_up(&self) -> io::Result<bool> {
        // SAFETY: SIOCGIFFLAGS succeeded, so the flags are the member that was written.
        let flags = unsafe { self.ask(libc::SIOCGIFFLAGS as libc::Ioctl)?.ifr_ifru.ifru_flags };
        Ok(libc::c_int::from(flags) & libc::IFF_UP != 0)
    }

    pub(crate) fn bring_up(&self) -> io::Result<()> {
        let mut change = self.ask(libc::SIOCGIFFLAGS as libc::Ioctl)?;
        // SAFETY: SIOCGIFFLAGS succeeded, so the flags are the member that was written.
        let flags = unsafe { change.ifr_ifru.ifru_flags };
        change.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
        ioctl(&self.socket, libc::SIOCSIFFLAGS as libc::Ioctl, &mut change)
    }

    pub(crate) fn mtu(&self) -> io::Result<usize> {
        // SAFETY: SIOCGIFMTU succeeded, so the MTU is the member that was written.
        let mtu = unsafe { self.ask(libc::SIOCGIFMTU as libc::Ioctl)?.ifr_ifru.ifru_mtu };
        usize::try_from(mtu).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
    }

    pub(crate) fn set_mtu(&self, mtu: usize) -> io::Result<()> {
        let mut change = request(&self.name)?;
        change.ifr_ifru.ifru_mtu =
            libc::c_int::try_from(mtu).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        ioctl(&self.socket, libc::SIOCSIFMTU as libc::Ioctl, &mut change)
    }

    /// Length of the transmit queue, frames.
    pub(crate) fn queue_frames(&self) -> io::Result<u32> {
        // SAFETY: SIOCGIFTXQLEN succeeded, so the integer that `ifru_metric` also names is the member that was written.
        let frames = unsafe { self.ask(libc::SIOCGIFTXQLEN as libc::Ioctl)?.ifr_ifru.ifru_metric };
        u32::try_from(frames).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
    }

    /// Sets it; a TAP resizes its ring accordingly.
    pub(crate) fn set_queue_frames(&self, frames: u32) -> io::Result<()> {
        let mut change = request(&self.name)?;
        change.ifr_ifru.ifru_metric =
            libc::c_int::try_from(frames).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        ioctl(&self.socket, libc::SIOCSIFTXQLEN as libc::Ioctl, &mut change)
    }

    pub(crate) fn mac(&self) -> io::Result<[u8; 6]> {
        // SAFETY: SIOCGIFHWADDR succeeded, so the address is the member that was written.
        let address = unsafe { self.ask(libc::SIOCGIFHWADDR as libc::Ioctl)?.ifr_ifru.ifru_hwaddr };
        Ok(core::array::from_fn(|index| address.sa_data[index] as u8))
    }

    pub(crate) fn set_mac(&self, mac: [u8; 6]) -> io::Result<()> {
        let mut change = request(&self.name)?;
        let mut sa_data = [0; 14];
        for (to, from) in sa_data.iter_mut().zip(mac) {
            *to = from as libc::c_char;
        }
        change.ifr_ifru.ifru_hwaddr = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data };
        ioctl(&self.socket, libc::SIOCSIFHWADDR as libc::Ioctl, &mut change)
    }

    /// The number that the kernel knows the interface by.
    pub(crate) fn index(&self) -> io::Result<u32> {
        // SAFETY: SIOCGIFINDEX succeeded, so the index is the member that was written.
        let index = unsafe { self.ask(libc::SIOCGIFINDEX as libc::Ioctl)?.ifr_ifru.ifru_ifindex };
        u32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
    }

    /// An ethtool request that reads and writes `T`.
    ///
    /// # Safety
    /// `T` must be the structure that its own `cmd` field, its first, stands for.
    unsafe fn ethtool<T>(&self, argument: &mut T) -> io::Result<()> {
        let mut change = request(&self.name)?;
        change.ifr_ifru.ifru_data = core::ptr::from_mut(argument).cast();
        // The kernel writes through the pointer in `change` no more than the structure that the caller vouches for,
        // and `argument` lives for the length of the call.
        ioctl(&self.socket, libc::SIOCETHTOOL as libc::Ioctl, &mut change)
    }

    /// Receive queues in use, where the driver tells.
    pub(crate) fn receive_queues(&self) -> Option<u32> {
        let mut channels = EthtoolChannels { cmd: ETHTOOL_GCHANNELS, ..EthtoolChannels::default() };
        // SAFETY: ETHTOOL_GCHANNELS stands for this structure.
        unsafe { self.ethtool(&mut channels) }.ok()?;
        let queues = channels.rx_count.saturating_add(channels.combined_count);
        (queues > 0).then_some(queues)
    }
}

/// linux/ethtool.h.
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_channels` (linux/ethtool.h).
#[repr(C)]
#[derive(Default)]
struct EthtoolChannels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

/// `struct ethtool_value` (linux/ethtool.h).
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// Lets the kernel leave the checksums of what it sends over `interface` to the device, or not (`ethtool -K IF tx`).
/// The interface is one of the calling thread's network namespace.
///
/// Over veth that means that checksums stay unfinished: a port on the other end, which sees bare frames, would drop
/// them. Labs turn it off for every kernel that talks to a port over veth.
///
/// # Errors
/// No such interface, no CAP_NET_ADMIN, or a driver that cannot.
pub fn set_transmit_checksum_offload(interface: &str, on: bool) -> io::Result<()> {
    let mut value = EthtoolValue { cmd: ETHTOOL_STXCSUM, data: u32::from(on) };
    // SAFETY: ETHTOOL_STXCSUM stands for this structure.
    unsafe { Interface::new(interface)?.ethtool(&mut value) }
}
