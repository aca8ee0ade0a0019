//! Busy polling by the kernel: the reader of a socket works on the device's queue itself instead of waiting for an
//! interrupt.

use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// How the kernel polls for a socket (SO_PREFER_BUSY_POLL, Linux 5.11).
///
/// Gives its full effect when the interface puts its interrupts off as well: `napi_defer_hard_irqs` and
/// `gro_flush_timeout` in its sysfs directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// SO_BUSY_POLL: how long the kernel may look for frames at a time, to the microsecond.
    pub time: Duration,
    /// SO_BUSY_POLL_BUDGET: frames it handles at a time.
    pub budget_frames: u16,
}

impl Default for BusyPoll {
    fn default() -> Self {
        BusyPoll { time: Duration::from_micros(20), budget_frames: 64 }
    }
}

impl BusyPoll {
    /// Asks for it on `socket`, of any family.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN; ENOPROTOOPT on a kernel that does not know it.
    pub fn prefer_on(self, socket: impl AsFd) -> io::Result<()> {
        let micros = libc::c_int::try_from(self.time.as_micros()).unwrap_or(libc::c_int::MAX);
        let options = [
            (libc::SO_PREFER_BUSY_POLL, 1),
            (libc::SO_BUSY_POLL, micros),
            (libc::SO_BUSY_POLL_BUDGET, libc::c_int::from(self.budget_frames)),
        ];
        let socket = socket.as_fd();
        for (option, value) in options {
            let length = size_of::<libc::c_int>() as libc::socklen_t;
            // SAFETY: `value` is `length` readable bytes for the length of the call, and the descriptor is open.
            let status = unsafe {
                let value = core::ptr::from_ref(&value).cast();
                libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, length)
            };
            if status < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}
