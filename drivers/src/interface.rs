//! The few netdevice(7) requests that drivers need: flags, MTU, hardware address.

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
}
