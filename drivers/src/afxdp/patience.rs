//! Waiting for what is taken for a moment only.

use core::time::Duration;
use std::io;

/// Between two attempts.
const RETRY: Duration = Duration::from_millis(5);

/// Tries again what somebody else has (EBUSY, and EEXIST, which is what a native program is told while a generic one
/// is there), for `patience` at most.
pub(super) fn patiently<T>(patience: Duration, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut waited = Duration::ZERO;
    loop {
        match attempt() {
            Err(source) if is_taken(&source) && waited < patience => {
                std::thread::sleep(RETRY);
                waited += RETRY;
            }
            outcome => return outcome,
        }
    }
}

fn is_taken(source: &io::Error) -> bool {
    matches!(source.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses so many times, as the kernel does, and counts the attempts.
    fn refusing(times: u32, errno: i32, patience: Duration) -> (u32, io::Result<u32>) {
        let mut attempts = 0;
        let outcome = patiently(patience, || {
            attempts += 1;
            if attempts > times { Ok(attempts) } else { Err(io::Error::from_raw_os_error(errno)) }
        });
        (attempts, outcome)
    }

    #[test]
    fn what_is_busy_is_tried_until_it_is_free_or_patience_ends() {
        for errno in [libc::EBUSY, libc::EEXIST] {
            let (attempts, outcome) = refusing(2, errno, 10 * RETRY);
            assert_eq!((attempts, outcome.ok()), (3, Some(3)));
        }
        let (attempts, outcome) = refusing(100, libc::EBUSY, 2 * RETRY);
        assert_eq!((attempts, outcome.unwrap_err().raw_os_error()), (3, Some(libc::EBUSY)));
    }

    #[test]
    fn any_other_refusal_is_final() {
        let (attempts, outcome) = refusing(100, libc::EINVAL, 10 * RETRY);
        assert_eq!((attempts, outcome.unwrap_err().raw_os_error()), (1, Some(libc::EINVAL)));
    }
}
