//! [`Doorbell`]: wakes a thread that sleeps in [`poll_fds`]; safe wrappers of eventfd(2) and ppoll(2), so that the
//! crates above need no `unsafe`.

use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub use crate::time::{process_cpu_time, thread_cpu_time};

/// An eventfd. It polls readable from the first [`Doorbell::ring`] until [`Doorbell::clear`].
#[derive(Debug)]
pub struct Doorbell {
    fd: OwnedFd,
}

impl Doorbell {
    /// A doorbell that has not been rung.
    ///
    /// # Errors
    /// When the process or the system is out of descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; the result is checked before use.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned by the kernel as a new descriptor that nothing else owns.
        Ok(Doorbell { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Makes the descriptor readable. From any thread; never blocks. Rings between two clears are merged.
    pub fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: `one` is eight readable bytes for the length of the call; the descriptor is open while `self` is.
        // The only failure is EAGAIN when the counter is full, and then the descriptor is readable anyway.
        unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Makes the descriptor unreadable again and returns whether it had been rung. Clear first and look for work
    /// after: work left between the two rings again.
    pub fn clear(&self) -> bool {
        let mut count = [0_u8; 8];
        // SAFETY: `count` is eight writable bytes for the length of the call; the descriptor is open while `self` is.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        read == count.len() as isize
    }

    /// What to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Descriptors [`poll_fds`] takes at most; a shard needs two.
pub const POLL_FDS_MAX: usize = 16;

/// Sleeps until one of `fds` is readable (or in error), `timeout` has passed, or a signal arrives; `None` waits
/// without end. Callers look at their sources of work after every return, so it does not say which it was.
/// The timeout is honoured to the nanosecond as far as the kernel's timer slack allows.
///
/// # Errors
/// More than [`POLL_FDS_MAX`] descriptors, or out of kernel memory.
pub fn poll_fds(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    if fds.len() > POLL_FDS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("poll_fds takes {POLL_FDS_MAX} descriptors at most, not {}", fds.len()),
        ));
    }
    let mut table = [libc::pollfd { fd: -1, events: 0, revents: 0 }; POLL_FDS_MAX];
    for (entry, fd) in table.iter_mut().zip(fds) {
        entry.fd = fd.as_raw_fd();
        entry.events = libc::POLLIN;
    }
    let timeout = timeout.map(|t| libc::timespec {
        tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(t.subsec_nanos() as i32),
    });
    let timeout = timeout.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: `table` holds at least `fds.len()` writable entries, `timeout` is null or points to a timespec that
    // outlives the call, and a null signal mask leaves the mask alone.
    let status =
        unsafe { libc::ppoll(table.as_mut_ptr(), fds.len() as libc::nfds_t, timeout, core::ptr::null()) };
    if status < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_from_another_thread_ends_the_sleep() {
        let doorbell = Doorbell::new().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| doorbell.ring());
            poll_fds(&[doorbell.fd()], None).unwrap();
        });
        assert!(doorbell.clear(), "it had been rung");
        assert!(!doorbell.clear(), "and is silent after clear");
    }

    #[test]
    fn a_silent_doorbell_lets_the_timeout_pass_and_a_rung_one_stays_readable() {
        let doorbell = Doorbell::new().unwrap();
        poll_fds(&[doorbell.fd()], Some(Duration::from_nanos(1))).unwrap();
        doorbell.ring();
        doorbell.ring();
        // Without a timeout these would hang if the descriptor were not level-triggered.
        poll_fds(&[doorbell.fd()], None).unwrap();
        poll_fds(&[doorbell.fd()], None).unwrap();
        assert!(doorbell.clear());
        assert!(!doorbell.clear(), "two rings are merged into one");
    }

    #[test]
    fn too_many_descriptors_are_refused() {
        let doorbell = Doorbell::new().unwrap();
        let fds = vec![doorbell.fd(); POLL_FDS_MAX + 1];
        let error = poll_fds(&fds, Some(Duration::ZERO)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn cpu_time_grows_with_work_and_a_thread_has_no_more_than_its_process() {
        let before = thread_cpu_time();
        let mut sum = 0_u64;
        while thread_cpu_time() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(thread_cpu_time() > before);
        assert!(process_cpu_time() > before);
    }
}
