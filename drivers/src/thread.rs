//! How the scheduler treats the thread that polls a port.

use core::time::Duration;
use std::io;

/// Asks the scheduler to give the calling thread the processor in slices of `slice` instead of its default of some
/// milliseconds.
///
/// Under EEVDF (Linux 6.6 and later; the request is honoured from 6.12) a thread with a shorter slice has an earlier
/// deadline: it gets less at a time, and it gets it sooner when others compete for its core. That is the bargain a
/// thread that answers heartbeats wants. Policy, nice value and everything else stay as they are; no privilege is
/// needed.
///
/// # Errors
/// What the system says. An older kernel takes the request and ignores it.
pub fn request_short_slice(slice: Duration) -> io::Result<()> {
    let size = u32::try_from(size_of::<libc::sched_attr>()).expect("the structure has some fifty bytes");
    // SAFETY: an all-zero `sched_attr` is a valid value of a structure of plain integers.
    let mut attributes: libc::sched_attr = unsafe { core::mem::zeroed() };
    // SAFETY: the pointer is to a writable `sched_attr` of `size` bytes, and 0 means the calling thread.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    attributes.size = size;
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the pointer is to an initialised `sched_attr` that states its own size; the call only reads it.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_may_be_asked_for_without_privilege() {
        // On a thread of its own: the request would stay with the test runner's thread.
        std::thread::spawn(|| {
            request_short_slice(Duration::from_micros(100)).expect("a normal thread may ask");
        })
        .join()
        .expect("the thread only asks");
    }
}
