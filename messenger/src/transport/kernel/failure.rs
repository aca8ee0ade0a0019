//! What the kernel's errors mean to an endpoint.

use std::io::{Error, ErrorKind};

use outrider_stack::tcp::connection::CloseReason;

/// Whether the call is to be made again, later.
pub(super) fn is_temporary(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Whether the process or the system has run out of descriptors, memory or ports.
pub(super) fn is_exhaustion(error: &Error) -> bool {
    // ENFILE 23, EMFILE 24, ENOBUFS 105 (asm-generic/errno.h); the standard library has no names for these.
    matches!(error.raw_os_error(), Some(23 | 24 | 105))
        || matches!(error.kind(), ErrorKind::OutOfMemory | ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse)
}

/// Why a connection could not be made.
pub(super) fn of_connecting(error: &Error) -> CloseReason {
    match error.kind() {
        ErrorKind::ConnectionRefused => CloseReason::Refused,
        ErrorKind::TimedOut => CloseReason::ConnectTimeout,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            CloseReason::Reset
        }
        _ if is_exhaustion(error) => CloseReason::NoResources,
        // No route, or an address that nobody can have; connect(2) calls the latter invalid.
        _ => CloseReason::Unreachable,
    }
}

/// Why a connection ended.
pub(super) fn of_connected(error: &Error) -> CloseReason {
    match error.kind() {
        ErrorKind::TimedOut => CloseReason::UserTimeout,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            CloseReason::Unreachable
        }
        _ if is_exhaustion(error) => CloseReason::NoResources,
        _ => CloseReason::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_the_kernel_has_its_meaning() {
        let connecting = |errno| of_connecting(&Error::from_raw_os_error(errno));
        assert_eq!(connecting(111), CloseReason::Refused, "ECONNREFUSED");
        assert_eq!(connecting(110), CloseReason::ConnectTimeout, "ETIMEDOUT");
        assert_eq!(connecting(113), CloseReason::Unreachable, "EHOSTUNREACH");
        assert_eq!(connecting(101), CloseReason::Unreachable, "ENETUNREACH");
        assert_eq!(connecting(22), CloseReason::Unreachable, "EINVAL");
        assert_eq!(connecting(24), CloseReason::NoResources, "EMFILE");
        assert_eq!(connecting(99), CloseReason::NoResources, "EADDRNOTAVAIL: the ports are used up");
        let connected = |errno| of_connected(&Error::from_raw_os_error(errno));
        assert_eq!(connected(104), CloseReason::Reset, "ECONNRESET");
        assert_eq!(connected(32), CloseReason::Reset, "EPIPE");
        assert_eq!(connected(110), CloseReason::UserTimeout, "ETIMEDOUT");
        assert_eq!(connected(113), CloseReason::Unreachable, "EHOSTUNREACH");
        assert!(is_temporary(&Error::from_raw_os_error(11)) && is_temporary(&Error::from_raw_os_error(4)));
        assert!(
            is_exhaustion(&Error::from_raw_os_error(23)) && !is_exhaustion(&Error::from_raw_os_error(104))
        );
    }
}
