//! [`Timer`]: a timerfd(2), for event loops whose own time limits are in milliseconds.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::time::Instant;

/// Polls readable from the instant for which it was last set. On the clock of [`crate::time::MonotonicClock`], to the
/// nanosecond, and not subject to the timer slack of the thread.
#[derive(Debug)]
pub struct Timer {
    fd: OwnedFd,
}

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// When the process or the system is out of descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: timerfd_create takes no pointers; the result is checked before use.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned by the kernel as a new descriptor that nothing else owns.
        Ok(Timer { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Sets it for `at`, instead of what it was set for; an instant that has passed makes it readable at once. Until
    /// then it is not readable. There is no need to read it.
    ///
    /// # Errors
    /// None on a descriptor that is a timer.
    pub fn set(&self, at: Instant) -> io::Result<()> {
        // Zero would unset it.
        let nanos = at.as_nanos().max(1);
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value = libc::itimerspec {
            it_interval: zero,
            it_value: libc::timespec {
                tv_sec: libc::time_t::try_from(nanos / 1_000_000_000).unwrap_or(libc::time_t::MAX),
                tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
            },
        };
        let fd = self.fd.as_raw_fd();
        // SAFETY: `value` is a valid itimerspec for the length of the call, and null asks for no old value.
        let status = unsafe {
            libc::timerfd_settime(fd, libc::TFD_TIMER_ABSTIME, &raw const value, core::ptr::null_mut())
        };
        if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::doorbell::poll_fds;
    use crate::time::{Clock, MonotonicClock};

    #[test]
    fn it_is_readable_at_its_time_and_not_before() {
        let timer = Timer::new().unwrap();
        let at = MonotonicClock.now() + Duration::from_millis(2);
        timer.set(at).unwrap();
        poll_fds(&[timer.as_fd()], None).unwrap();
        assert!(MonotonicClock.now() >= at);
        // Set anew, it is not readable any more.
        timer.set(MonotonicClock.now() + Duration::from_secs(3600)).unwrap();
        let began = MonotonicClock.now();
        poll_fds(&[timer.as_fd()], Some(Duration::from_millis(1))).unwrap();
        assert!(MonotonicClock.now() >= began + Duration::from_millis(1), "the timeout passed");
        timer.set(Instant::ZERO).unwrap();
        poll_fds(&[timer.as_fd()], None).unwrap();
    }
}
