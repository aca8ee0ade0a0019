//! System calls. Each is attempted, and attempted again after anything happened while it blocks.

mod control;
mod input_output;
mod open;
mod options;
pub(crate) mod ready;

use super::{Errno, Kernel};
use crate::packetdrill::language::{Call, Expression};

/// Why an attempt did not give a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The call fails with this error.
    Errno(Errno),
    /// It blocks.
    Blocks,
    /// This runner does not do it; what, in words.
    Unsupported(String),
    /// It gave back something else than the script says.
    Wrong(String),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Stop::Errno(errno)
    }
}

/// Result of an attempt.
pub(crate) type Attempt = Result<i64, Stop>;

/// What a call that blocked has already done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// It was attempted before.
    pub(crate) begun: bool,
    /// Bytes it has taken so far.
    pub(crate) bytes: u64,
}

/// The calls there are.
const KNOWN: [&str; 24] = [
    "accept",
    "accept4",
    "bind",
    "close",
    "connect",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "fcntl",
    "getsockopt",
    "ioctl",
    "listen",
    "poll",
    "read",
    "readv",
    "recv",
    "recvfrom",
    "recvmsg",
    "send",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
];
const KNOWN_TOO: [&str; 5] = ["socket", "write", "writev", "open", "sendfile"];

/// Whether there is such a call.
pub(crate) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name) || KNOWN_TOO.contains(&name)
}

/// A call, its arguments easier to get at.
pub(super) struct Arguments<'a> {
    pub(super) call: &'a Call,
}

impl<'a> Arguments<'a> {
    pub(super) fn get(&self, index: usize) -> Result<&'a Expression, Stop> {
        self.call.arguments.get(index).ok_or_else(|| {
            let (name, count) = (&self.call.name, self.call.arguments.len());
            Stop::Wrong(format!("{name} needs more than {count} arguments"))
        })
    }

    /// A number; a name that stands for none is unsupported.
    pub(super) fn integer(&self, index: usize) -> Result<i64, Stop> {
        let argument = self.get(index)?;
        argument.value().ok_or_else(|| unknown(argument))
    }

    /// A number that is `...` or absent otherwise.
    pub(super) fn optional(&self, index: usize) -> Result<Option<i64>, Stop> {
        match self.call.arguments.get(index) {
            None | Some(Expression::Ellipsis) => Ok(None),
            Some(argument) => argument.value().map(Some).ok_or_else(|| unknown(argument)),
        }
    }

    /// The descriptor that the script says the call gives.
    pub(super) fn expected_fd(&self) -> Option<i64> {
        self.call.result.value().filter(|fd| *fd >= 0)
    }
}

/// The complaint about an argument that cannot be read.
pub(in crate::packetdrill::kernel) fn unknown(argument: &Expression) -> Stop {
    match argument.unknown_name() {
        Some(name) => Stop::Unsupported(name.to_owned()),
        None => Stop::Unsupported(format!("argument {argument}")),
    }
}

impl Kernel {
    /// Attempts a call.
    pub(crate) fn attempt(&mut self, call: &Call, progress: &mut Progress) -> Attempt {
        let arguments = Arguments { call };
        let result = match call.name.as_str() {
            "socket" => self.call_socket(&arguments),
            "bind" => self.call_bind(&arguments),
            "listen" => self.call_listen(&arguments),
            "accept" | "accept4" => self.call_accept(&arguments),
            "connect" => self.call_connect(&arguments, progress),
            "close" => self.call_close(&arguments, progress),
            "shutdown" => self.call_shutdown(&arguments),
            "read" | "recv" | "recvfrom" | "readv" | "recvmsg" => self.call_receive(&arguments, progress),
            "write" | "send" | "sendto" | "writev" | "sendmsg" => self.call_send(&arguments, progress),
            "open" => self.call_open(&arguments),
            "sendfile" => self.call_sendfile(&arguments, progress),
            "fcntl" => self.call_fcntl(&arguments),
            "ioctl" => self.call_ioctl(&arguments),
            "setsockopt" => self.call_setsockopt(&arguments),
            "getsockopt" => self.call_getsockopt(&arguments),
            "poll" => self.call_poll(&arguments),
            "epoll_create" | "epoll_create1" => self.call_epoll_create(&arguments),
            "epoll_ctl" => self.call_epoll_ctl(&arguments),
            "epoll_wait" => self.call_epoll_wait(&arguments),
            other => Err(Stop::Unsupported(format!("system call {other}"))),
        };
        progress.begun = true;
        result
    }
}
