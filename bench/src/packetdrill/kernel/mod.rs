//! A host in small: sockets on the engine, in virtual time. Sans-IO like the engine: the runner moves the clock,
//! injects bytes and takes what was sent.

mod acks;
pub(crate) mod calls;
mod completions;
mod connection;
mod defer;
mod errno;
pub(crate) mod information;
mod limits;
mod mapping;
mod offload;
mod stream;

use std::collections::{BTreeMap, VecDeque};

use outrider_stack::time::Instant;

use super::language::packet::{Ecn, IcmpSpec, TcpSpec};
use super::settings::{Settings, SocketOptions};
pub(crate) use connection::Conn;
use connection::Transmission;
pub(crate) use errno::Errno;
pub(crate) use mapping::Mapping;

/// Index into [`Kernel::sockets`].
pub(crate) type SocketId = usize;
/// Index into [`Kernel::connections`].
pub(crate) type ConnectionId = usize;

/// Segments sent at one instant, at most: more is a loop.
const BURST_MAX: usize = 200_000;

/// What a file descriptor stands for.
#[derive(Clone, Debug)]
pub(crate) enum File {
    Socket(SocketId),
    Epoll(Vec<calls::ready::Interest>),
    /// A file on disk: its length, bytes.
    Regular(u64),
}

/// What a socket is used for.
#[derive(Debug)]
pub(crate) enum Role {
    /// Fresh from `socket`, or bound.
    Fresh,
    Listening {
        backlog: usize,
        ready: VecDeque<ConnectionId>,
    },
    Connected(ConnectionId),
}

/// A socket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) role: Role,
    pub(crate) options: SocketOptions,
    pub(crate) nonblocking: bool,
    pub(crate) close_on_exec: bool,
    pub(crate) open: bool,
    /// Options that change nothing here, kept to be read back: level, name, value.
    pub(crate) kept: BTreeMap<(i64, i64), i64>,
}

/// A segment that left.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    pub(crate) connection: ConnectionId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) ecn: Ecn,
}

/// What packets of the script belong to: the socket made last, or the connection that came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Nothing,
    Socket(SocketId),
    Connection(ConnectionId),
}

/// The host.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) now: Instant,
    pub(crate) settings: Settings,
    files: BTreeMap<i64, File>,
    sockets: Vec<Socket>,
    connections: Vec<Conn>,
    target: Target,
    /// What was sent and not yet compared with the script.
    pub(crate) sent: VecDeque<Sent>,
    /// When the `poll` that blocks began.
    poll_begun: Option<Instant>,
}

/// Why a packet could not be injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InjectError {
    /// The runner does not do this.
    Unsupported(String),
    /// It makes no sense here.
    Wrong(String),
}

impl Kernel {
    pub(crate) fn new(now: Instant, settings: Settings) -> Self {
        Kernel {
            now,
            settings,
            files: BTreeMap::new(),
            sockets: Vec::new(),
            connections: Vec::new(),
            target: Target::Nothing,
            sent: VecDeque::new(),
            poll_begun: None,
        }
    }

    /// When something happens by itself.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.connections.iter().filter_map(Conn::next_timeout).min()
    }

    /// Lets time pass until `until`, with everything that happens on the way.
    pub(crate) fn run_until(&mut self, until: Instant) {
        while let Some(at) = self.next_timeout().filter(|at| *at <= until) {
            self.step_to(at);
        }
        self.now = self.now.max(until);
    }

    /// Moves on to `at`, when something is due.
    pub(crate) fn step_to(&mut self, at: Instant) {
        self.now = self.now.max(at);
        for id in 0..self.connections.len() {
            self.connections[id].on_timeout(self.now);
            self.pump(id);
        }
    }

    /// The connection that packets and `TCP_INFO` of the script refer to.
    pub(crate) fn connection_under_test(&mut self) -> Option<(ConnectionId, &mut Conn)> {
        match self.target {
            Target::Connection(id) => Some((id, &mut self.connections[id])),
            Target::Nothing | Target::Socket(_) => None,
        }
    }

    /// The options of the connection under test's socket.
    fn options_of(&self, socket: SocketId) -> &SocketOptions {
        &self.sockets[socket].options
    }

    /// Lets a connection send what it may, and tells its socket what happened.
    pub(super) fn pump(&mut self, id: ConnectionId) {
        let now = self.now;
        let least = self.settings.group_segments_min;
        let mut run = offload::Run::default();
        let mut waiting: Option<Transmission> = None;
        for _ in 0..BURST_MAX {
            let next = self.connections[id].transmit(now);
            if let Some(mut sent) = waiting.take() {
                let conn = &mut self.connections[id];
                let limit = conn.inspect(now).map_or(1, |seen| offload::group_segments(&seen, least));
                let following = next.as_ref().and_then(|next| next.data);
                conn.groups.send(&mut run, &mut sent.bytes, sent.data, following, limit);
                self.put_on_wire(id, sent.bytes, sent.ecn);
            }
            if next.is_none() {
                break;
            }
            waiting = next;
        }
        if self.connections[id].take_established(self.now)
            && let Some(listener) = self.connections[id].listener
            && let Role::Listening { ready, .. } = &mut self.sockets[listener].role
        {
            ready.push_back(id);
        }
    }

    /// A segment leaves, unless the device's queue refuses it.
    fn put_on_wire(&mut self, connection: ConnectionId, bytes: Vec<u8>, ecn: Ecn) {
        if !self.settings.queue_refuses {
            self.sent.push_back(Sent { at: self.now, connection, bytes, ecn });
        }
    }

    /// A segment of the script arrives.
    pub(crate) fn inject(&mut self, spec: &TcpSpec, ecn: Ecn) -> Result<(), InjectError> {
        let id = match self.target {
            Target::Connection(id) => id,
            Target::Nothing | Target::Socket(_) => self.new_passive(spec),
        };
        let now = self.now;
        let conn = &mut self.connections[id];
        let segment = conn.mapping.inbound(spec).map_err(InjectError::Wrong)?;
        let bytes = segment.emit(conn.remote_port, conn.local_port);
        let listener = conn.listener.filter(|listener| self.may_accept(*listener));
        let config = listener.map(|listener| {
            let options = self.options_of(listener);
            (self.settings.config(options, true), options.clone())
        });
        let answer = self.connections[id].receive(now, &bytes, ecn, config.as_ref(), &self.settings);
        if let Some(bytes) = answer.map_err(InjectError::Wrong)? {
            self.put_on_wire(id, bytes, Ecn::None);
        }
        self.pump(id);
        Ok(())
    }

    /// Whether a SYN to this listener is taken: it is open and its queue has room.
    fn may_accept(&self, listener: SocketId) -> bool {
        let socket = &self.sockets[listener];
        match &socket.role {
            // Linux allows one more than asked for.
            Role::Listening { backlog, ready } => socket.open && ready.len() <= *backlog,
            _ => false,
        }
    }

    /// A connection for a packet that comes from nowhere: a SYN to a listener, or something to be refused.
    fn new_passive(&mut self, spec: &TcpSpec) -> ConnectionId {
        let id = self.connections.len();
        let mut conn = Conn::new(self.now, id);
        if let Target::Socket(socket) = self.target
            && matches!(self.sockets[socket].role, Role::Listening { .. })
        {
            conn.listener = Some(socket);
        }
        conn.mapping.set_remote(spec.seq);
        self.connections.push(conn);
        self.target = Target::Connection(id);
        id
    }

    /// A connection for `connect`; its SYN leaves at once.
    fn new_active(&mut self, socket: SocketId) -> ConnectionId {
        let id = self.connections.len();
        let mut conn = Conn::new(self.now, id);
        let options = self.options_of(socket).clone();
        conn.socket = Some(socket);
        conn.open(self.now, &self.settings, &options);
        self.connections.push(conn);
        self.target = Target::Connection(id);
        id
    }

    /// An ICMP error of the script arrives.
    pub(crate) fn inject_icmp(&mut self, spec: &IcmpSpec) -> Result<(), InjectError> {
        let (now, overhead) = (self.now, self.settings.ip_header_bytes + 20);
        let Some((id, conn)) = self.connection_under_test() else {
            return Err(InjectError::Wrong(
                "there is no connection that the ICMP error could be about".to_owned(),
            ));
        };
        if let Some(size) = conn.receive_icmp(now, spec, overhead)? {
            // Linux remembers the path of a destination, and all connections of a script go to one.
            self.settings.path_segment_size = Some(size);
        }
        self.pump(id);
        Ok(())
    }

    fn socket_of(&self, fd: i64) -> Result<SocketId, Errno> {
        match self.files.get(&fd) {
            Some(File::Socket(id)) => Ok(*id),
            Some(File::Epoll(_) | File::Regular(_)) => Err(Errno::EINVAL),
            None => Err(Errno::EBADF),
        }
    }

    /// The connection of a socket.
    fn connection_of(&self, socket: SocketId) -> Option<ConnectionId> {
        match self.sockets[socket].role {
            Role::Connected(id) => Some(id),
            Role::Fresh | Role::Listening { .. } => None,
        }
    }

    fn new_socket(&mut self, role: Role, options: SocketOptions, nonblocking: bool) -> SocketId {
        self.sockets.push(Socket {
            role,
            options,
            nonblocking,
            close_on_exec: false,
            open: true,
            kept: BTreeMap::new(),
        });
        self.sockets.len() - 1
    }
}
