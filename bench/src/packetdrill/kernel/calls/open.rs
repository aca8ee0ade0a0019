//! Calls that make, connect and end sockets.

use std::collections::VecDeque;

use outrider_stack::tcp::connection::State;

use super::{Arguments, Attempt, Progress, Stop};
use crate::packetdrill::kernel::{Errno, File, Kernel, Role, SocketId, Target};
use crate::packetdrill::language::{Expression, constant};
use crate::packetdrill::settings::SocketOptions;

const SOCK_NONBLOCK: i64 = 0o4000;
const SOCK_CLOEXEC: i64 = 0o2_000_000;

/// Whether a kind of socket cannot be had with a protocol: a stream of UDP, datagrams of TCP.
fn is_contradiction(kind: i64, protocol: i64) -> bool {
    let (stream, datagram) = (constant("SOCK_STREAM"), constant("SOCK_DGRAM"));
    let (tcp, udp) = (constant("IPPROTO_TCP"), constant("IPPROTO_UDP"));
    (Some(kind) == stream && Some(protocol) == udp) || (Some(kind) == datagram && Some(protocol) == tcp)
}

impl Kernel {
    /// Gives a file the descriptor that the script expects, or the least free one.
    pub(super) fn install(&mut self, expected: Option<i64>, file: File) -> Attempt {
        let least_free = (3..).find(|fd| !self.files.contains_key(fd)).unwrap_or(3);
        let fd = expected.unwrap_or(least_free);
        if self.files.contains_key(&fd) {
            return Err(Stop::Wrong(format!("file descriptor {fd} is open already")));
        }
        self.files.insert(fd, file);
        Ok(fd)
    }

    pub(super) fn call_socket(&mut self, arguments: &Arguments<'_>) -> Attempt {
        if let Some(domain) = arguments.optional(0)?
            && Some(domain) != constant("AF_INET")
            && Some(domain) != constant("AF_INET6")
        {
            return Err(Stop::Unsupported(format!("socket domain {}", arguments.get(0)?)));
        }
        let kind = arguments.optional(1)?.unwrap_or(1);
        let protocol = arguments.optional(2)?.unwrap_or(6);
        let base = kind & !(SOCK_NONBLOCK | SOCK_CLOEXEC);
        if is_contradiction(base, protocol) {
            return Err(Errno("EPROTONOSUPPORT").into());
        }
        if base != 1 || !matches!(protocol, 0 | 6) {
            let (kind, protocol) = (arguments.get(1)?, arguments.get(2)?);
            return Err(Stop::Unsupported(format!("socket {kind} {protocol}")));
        }
        let options = SocketOptions::new(&self.settings);
        let id = self.new_socket(Role::Fresh, options, kind & SOCK_NONBLOCK != 0);
        self.sockets[id].close_on_exec = kind & SOCK_CLOEXEC != 0;
        self.target = Target::Socket(id);
        self.install(arguments.expected_fd(), File::Socket(id))
    }

    pub(super) fn call_bind(&mut self, arguments: &Arguments<'_>) -> Attempt {
        let id = self.socket_of(arguments.integer(0)?)?;
        match self.sockets[id].role {
            Role::Fresh => Ok(0),
            Role::Listening { .. } | Role::Connected(_) => Err(Errno::EINVAL.into()),
        }
    }

    pub(super) fn call_listen(&mut self, arguments: &Arguments<'_>) -> Attempt {
        let id = self.socket_of(arguments.integer(0)?)?;
        let wanted = usize::try_from(arguments.integer(1)?).unwrap_or(usize::MAX);
        match &mut self.sockets[id].role {
            Role::Connected(_) => return Err(Errno::EINVAL.into()),
            Role::Listening { backlog, .. } => *backlog = wanted,
            role @ Role::Fresh => *role = Role::Listening { backlog: wanted, ready: VecDeque::new() },
        }
        Ok(0)
    }

    pub(super) fn call_accept(&mut self, arguments: &Arguments<'_>) -> Attempt {
        let id = self.socket_of(arguments.integer(0)?)?;
        let flags = if arguments.call.name == "accept4" { arguments.optional(3)?.unwrap_or(0) } else { 0 };
        let socket = &mut self.sockets[id];
        let (nonblocking, options) = (socket.nonblocking, socket.options.clone());
        let Role::Listening { ready, .. } = &mut socket.role else { return Err(Errno::EINVAL.into()) };
        let Some(connection) = ready.pop_front() else {
            return Err(if nonblocking { Errno::EAGAIN.into() } else { Stop::Blocks });
        };
        let child = self.new_socket(Role::Connected(connection), options, flags & SOCK_NONBLOCK != 0);
        self.connections[connection].socket = Some(child);
        self.install(arguments.expected_fd(), File::Socket(child))
    }

    pub(super) fn call_connect(&mut self, arguments: &Arguments<'_>, progress: &Progress) -> Attempt {
        let id = self.socket_of(arguments.integer(0)?)?;
        if let Some(Expression::Structure(_)) = arguments.call.arguments.get(1)
            && let Some(family) = arguments.get(1)?.field("sa_family")
            && family.value().is_none()
        {
            return Err(Stop::Unsupported(format!("connect to family {family}")));
        }
        let nonblocking = self.sockets[id].nonblocking;
        let connection = match self.sockets[id].role {
            Role::Listening { .. } => return Err(Errno::EISCONN.into()),
            Role::Connected(connection) => connection,
            Role::Fresh => {
                let connection = self.new_active(id);
                self.sockets[id].role = Role::Connected(connection);
                self.pump(connection);
                return Err(if nonblocking { Errno::EINPROGRESS.into() } else { Stop::Blocks });
            }
        };
        let conn = &mut self.connections[connection];
        if let Some(error) = conn.take_error() {
            self.sockets[id].role = Role::Fresh;
            return Err(error.into());
        }
        match (conn.established, conn.ended.is_some()) {
            // The first call after success says so, later ones that it was done.
            (true, _) if conn.connect_reported && !progress.begun => Err(Errno::EISCONN.into()),
            (true, _) => {
                conn.connect_reported = true;
                Ok(0)
            }
            (false, true) => Err(Errno("ECONNABORTED").into()),
            (false, false) if nonblocking => Err(Errno::EALREADY.into()),
            (false, false) => Err(Stop::Blocks),
        }
    }

    pub(super) fn call_close(&mut self, arguments: &Arguments<'_>, progress: &Progress) -> Attempt {
        let fd = arguments.integer(0)?;
        if progress.begun {
            return self.finish_lingering(fd);
        }
        match self.files.get(&fd).cloned() {
            None => return Err(Errno::EBADF.into()),
            Some(File::Epoll(_) | File::Regular(_)) => {
                self.files.remove(&fd);
                return Ok(0);
            }
            Some(File::Socket(id)) => {
                for file in self.files.values_mut() {
                    if let File::Epoll(interests) = file {
                        interests.retain(|interest| interest.fd != fd);
                    }
                }
                if self.close_socket(id) {
                    return Err(Stop::Blocks);
                }
            }
        }
        self.files.remove(&fd);
        Ok(0)
    }

    /// Ends a socket. Says whether the caller lingers.
    fn close_socket(&mut self, id: SocketId) -> bool {
        let now = self.now;
        self.sockets[id].open = false;
        let linger = self.sockets[id].options.linger;
        let nonblocking = self.sockets[id].nonblocking;
        match &mut self.sockets[id].role {
            Role::Fresh => false,
            Role::Listening { ready, .. } => {
                let waiting: Vec<_> = ready.drain(..).collect();
                for connection in waiting {
                    self.connections[connection].close(now, true);
                    self.pump(connection);
                }
                for conn in self.connections.iter_mut().filter(|conn| conn.listener == Some(id)) {
                    conn.forget_half_open();
                }
                false
            }
            Role::Connected(connection) => {
                let connection = *connection;
                let abort = linger.is_some_and(|time| time.is_zero());
                self.connections[connection].close(now, abort);
                self.pump(connection);
                let lingers = linger.is_some_and(|time| !time.is_zero()) && !nonblocking;
                if lingers {
                    self.connections[connection].linger_end = linger.map(|time| now + time);
                }
                lingers && !self.connections[connection].is_finished_sending()
            }
        }
    }

    /// `close` with a linger time returns when everything was acknowledged, or the time is over.
    fn finish_lingering(&mut self, fd: i64) -> Attempt {
        let Some(File::Socket(id)) = self.files.get(&fd).cloned() else { return Ok(0) };
        if let Some(connection) = self.connection_of(id) {
            let conn = &self.connections[connection];
            let over = conn.linger_end.is_none_or(|end| end <= self.now);
            if !over && !conn.is_finished_sending() {
                return Err(Stop::Blocks);
            }
        }
        self.files.remove(&fd);
        Ok(0)
    }

    pub(super) fn call_shutdown(&mut self, arguments: &Arguments<'_>) -> Attempt {
        let id = self.socket_of(arguments.integer(0)?)?;
        let how = arguments.integer(1)?;
        let Some(connection) = self.connection_of(id) else {
            if let Role::Listening { .. } = self.sockets[id].role {
                self.sockets[id].role = Role::Fresh;
                return Ok(0);
            }
            return Err(Errno::ENOTCONN.into());
        };
        let conn = &mut self.connections[connection];
        let state = conn.state().unwrap_or(State::Closed);
        if matches!(state, State::Closed | State::SynSent | State::TimeWait) {
            return Err(Errno::ENOTCONN.into());
        }
        match how {
            0 => conn.stream.read_shut = true,
            1 => conn.stream.finish = true,
            2 => {
                conn.stream.read_shut = true;
                conn.stream.finish = true;
            }
            _ => return Err(Errno::EINVAL.into()),
        }
        self.pump(connection);
        Ok(0)
    }
}
