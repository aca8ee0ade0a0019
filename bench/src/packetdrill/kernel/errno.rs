//! Errors of system calls.

use core::fmt;

use crate::packetdrill::language::constant;

/// An `errno`, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) &'static str);

impl Errno {
    pub(crate) const EAGAIN: Errno = Errno("EAGAIN");
    pub(crate) const EALREADY: Errno = Errno("EALREADY");
    pub(crate) const EBADF: Errno = Errno("EBADF");
    pub(crate) const ECONNREFUSED: Errno = Errno("ECONNREFUSED");
    pub(crate) const ECONNRESET: Errno = Errno("ECONNRESET");
    pub(crate) const EEXIST: Errno = Errno("EEXIST");
    pub(crate) const EFAULT: Errno = Errno("EFAULT");
    pub(crate) const EHOSTUNREACH: Errno = Errno("EHOSTUNREACH");
    pub(crate) const EINPROGRESS: Errno = Errno("EINPROGRESS");
    pub(crate) const EINVAL: Errno = Errno("EINVAL");
    pub(crate) const EISCONN: Errno = Errno("EISCONN");
    pub(crate) const ENOENT: Errno = Errno("ENOENT");
    pub(crate) const ENOTCONN: Errno = Errno("ENOTCONN");
    pub(crate) const EPIPE: Errno = Errno("EPIPE");
    pub(crate) const ETIMEDOUT: Errno = Errno("ETIMEDOUT");

    /// The number, as `SO_ERROR` reports it.
    pub(crate) fn number(self) -> i64 {
        constant(self.0).unwrap_or(-1)
    }

    /// Whether `name` is this error, also by its other name.
    pub(crate) fn is_called(self, name: &str) -> bool {
        let canonical = if name == "EWOULDBLOCK" { "EAGAIN" } else { name };
        self.0 == canonical
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
