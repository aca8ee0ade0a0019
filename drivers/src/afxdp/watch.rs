//! One descriptor to sleep on, for frames as well as for the end of the interface.
//!
//! An AF_XDP socket whose interface was deleted polls neither readable nor in error, so a sleeper would never learn of
//! it. The socket and a netlink socket that hears of interfaces are therefore watched together, by an epoll.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::netlink::Netlink;
use super::socket::XdpSocket;

#[derive(Debug)]
pub(super) struct Watch {
    epoll: OwnedFd,
    changes: Netlink,
}

impl Watch {
    pub(super) fn new(socket: &XdpSocket) -> io::Result<Self> {
        let changes = Netlink::interface_changes()?;
        // SAFETY: epoll_create1 takes no pointers; the result is checked before use.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned by the kernel as a new descriptor that nothing else owns.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let watch = Watch { epoll, changes };
        watch.add(socket.as_fd())?;
        watch.add(watch.changes.as_fd())?;
        Ok(watch)
    }

    fn add(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: `event` is readable for the length of the call and both descriptors are open.
        let status = unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event)
        };
        if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Whether anything has happened to interfaces since the last call.
    pub(super) fn interfaces_changed(&self) -> bool {
        self.changes.drain()
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
