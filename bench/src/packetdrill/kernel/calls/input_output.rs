//! Reading and writing.

use outrider_stack::tcp::connection::State;

use super::{Arguments, Attempt, Progress, Stop, unknown};
use crate::packetdrill::kernel::completions::{PIECES_MAX, check_notice};
use crate::packetdrill::kernel::{Errno, File, Kernel, Role, SocketId};
use crate::packetdrill::language::{Expression, constant};

const MSG_PEEK: i64 = 2;
const MSG_TRUNC: i64 = 0x20;
const MSG_DONTWAIT: i64 = 0x40;
const MSG_EOR: i64 = 0x80;
const MSG_WAITALL: i64 = 0x100;
const MSG_NOSIGNAL: i64 = 0x4000;
const MSG_MORE: i64 = 0x8000;
const MSG_ERRQUEUE: i64 = 0x2000;
const MSG_ZEROCOPY: i64 = 0x400_0000;

/// How much a call moves, and how.
struct Transfer {
    bytes: u64,
    flags: i64,
    /// Ends of what one buffer takes of a vector that is not copied, counted from the first byte.
    cuts: Vec<u64>,
}

/// Sum of the lengths of `[{..., 100}, {..., 200}]`.
fn vector_length(list: &Expression) -> Result<u64, Stop> {
    let Expression::List(items) = list else { return Err(unknown(list)) };
    let mut total = 0u64;
    for item in items {
        let Expression::Structure(parts) = item else { return Err(unknown(item)) };
        let length = parts.get(1).and_then(Expression::value).ok_or_else(|| unknown(item))?;
        total = total.saturating_add(u64::try_from(length).unwrap_or(0));
    }
    Ok(total)
}

/// Where a vector that is not copied goes into another buffer.
fn vector_cuts(list: &Expression) -> Vec<u64> {
    let Expression::List(items) = list else { return Vec::new() };
    let length = |item: &Expression| match item {
        Expression::Structure(parts) => parts.get(1).and_then(Expression::value).unwrap_or(0),
        _ => 0,
    };
    let mut end = 0u64;
    let mut cuts = Vec::new();
    for pieces in items.chunks(PIECES_MAX) {
        let lengths = pieces.iter().map(|item| u64::try_from(length(item)).unwrap_or(0));
        end = lengths.fold(end, u64::saturating_add);
        cuts.push(end);
    }
    cuts
}

fn transfer(arguments: &Arguments<'_>) -> Result<Transfer, Stop> {
    let name = arguments.call.name.as_str();
    let (bytes, flags_at) = match name {
        "readv" | "writev" => (vector_length(arguments.get(1)?)?, None),
        "sendmsg" | "recvmsg" => {
            let header = arguments.get(1)?;
            let vector = header.field("msg_iov").ok_or_else(|| unknown(header))?;
            let control = header.field("msg_control");
            if name == "sendmsg" && control.is_some_and(|control| *control != Expression::List(Vec::new())) {
                return Err(Stop::Unsupported(format!("{name} with control messages")));
            }
            (vector_length(vector)?, Some(2))
        }
        _ => {
            let bytes = u64::try_from(arguments.integer(2)?).map_err(|_| Stop::Errno(Errno::EINVAL))?;
            (bytes, (!matches!(name, "read" | "write")).then_some(3))
        }
    };
    let flags = match flags_at {
        Some(index) => arguments.optional(index)?.unwrap_or(0),
        None => 0,
    };
    let known = match name {
        "recvmsg" => MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL | MSG_ERRQUEUE,
        "recv" | "recvfrom" => MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL,
        _ => MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE | MSG_EOR | MSG_ZEROCOPY,
    };
    if flags & !known != 0 {
        let all = ["MSG_OOB", "MSG_ERRQUEUE", "MSG_FASTOPEN", "MSG_ZEROCOPY", "MSG_MORE"];
        let what = all.iter().find(|flag| constant(flag).is_some_and(|bit| flags & !known & bit != 0));
        return Err(Stop::Unsupported(format!("{name} with {}", what.unwrap_or(&"unknown flags"))));
    }
    let vector = arguments.get(1)?.field("msg_iov").filter(|_| flags & MSG_ZEROCOPY != 0);
    Ok(Transfer { bytes, flags, cuts: vector.map(vector_cuts).unwrap_or_default() })
}

/// The buffer is `NULL`.
fn has_bad_buffer(arguments: &Arguments<'_>) -> bool {
    let plain =
        matches!(arguments.call.name.as_str(), "read" | "recv" | "recvfrom" | "write" | "send" | "sendto");
    let null = |buffer: &Expression| matches!(buffer, Expression::Word(name) if name == "NULL");
    plain && arguments.call.arguments.get(1).is_some_and(null)
}

/// Compares the control messages of `recvmsg`: `TCP_CM_INQ` with the bytes still queued, or none.
fn check_control(header: &Expression, reports: bool, queued: u64) -> Result<(), Stop> {
    let items = match header.field("msg_control") {
        Some(Expression::List(items)) => items.as_slice(),
        _ => return Ok(()),
    };
    for item in items {
        let field = |name: &str| item.field(name).and_then(Expression::value);
        if field("cmsg_type") != constant("TCP_CM_INQ") || field("cmsg_level") != constant("SOL_TCP") {
            return Err(Stop::Unsupported("recvmsg with other control messages than TCP_CM_INQ".to_owned()));
        }
        let wanted = field("cmsg_data");
        if !reports || wanted != i64::try_from(queued).ok() {
            let found = if reports { queued.to_string() } else { "nothing".to_owned() };
            return Err(Stop::Wrong(format!("recvmsg gives TCP_CM_INQ {found}, expected {item}")));
        }
    }
    Ok(())
}

impl Kernel {
    pub(super) fn call_receive(&mut self, arguments: &Arguments<'_>, progress: &mut Progress) -> Attempt {
        let id = self.socket_of(arguments.integer(0)?)?;
        let transfer = transfer(arguments)?;
        if transfer.flags & MSG_ERRQUEUE != 0 {
            return self.receive_notice(id, arguments.get(1)?);
        }
        let peek = transfer.flags & MSG_PEEK != 0;
        let nonblocking = self.sockets[id].nonblocking || transfer.flags & MSG_DONTWAIT != 0;
        let low_water = match transfer.flags & MSG_WAITALL {
            0 => self.sockets[id].options.receive_low_water.min(transfer.bytes),
            _ => transfer.bytes,
        };
        let Some(connection) = self.connection_of(id) else { return Err(Errno::ENOTCONN.into()) };
        let now = self.now;
        let conn = &mut self.connections[connection];
        let state = conn.state().unwrap_or(State::Closed);
        if state == State::SynSent || (state == State::SynReceived && !conn.established) {
            return Err(if nonblocking { Errno::EAGAIN.into() } else { Stop::Blocks });
        }
        if conn.stream.unread > 0 && transfer.bytes > 0 && has_bad_buffer(arguments) {
            return Err(Errno::EFAULT.into());
        }
        let taken = conn.stream.read(transfer.bytes - progress.bytes, peek);
        progress.bytes += if peek { 0 } else { taken };
        let total = if peek { taken } else { progress.bytes };
        if taken > 0 && !peek {
            conn.after_read(now);
            self.pump(connection);
        }
        let conn = &mut self.connections[connection];
        if total >= low_water.max(1) || transfer.bytes == 0 {
            if arguments.call.name == "recvmsg" {
                let queued =
                    conn.stream.unread + u64::from(conn.stream.unread == 0 && conn.stream.peer_finished);
                check_control(arguments.get(1)?, self.sockets[id].options.report_queued, queued)?;
            }
            return Ok(total as i64);
        }
        let over = conn.stream.peer_finished || conn.stream.read_shut || state == State::Closed;
        if total > 0 && (over || nonblocking) {
            return Ok(total as i64);
        }
        match conn.take_error() {
            Some(error) => Err(error.into()),
            None if over => Ok(0),
            None if nonblocking => Err(Errno::EAGAIN.into()),
            None => Err(Stop::Blocks),
        }
    }

    /// `recvmsg` from the error queue; it never blocks.
    fn receive_notice(&mut self, id: SocketId, header: &Expression) -> Attempt {
        let key = |level: &str, name: &str| Some((constant(level)?, constant(name)?));
        let reports_errors = [key("SOL_IP", "IP_RECVERR"), key("SOL_IPV6", "IPV6_RECVERR")]
            .into_iter()
            .flatten()
            .any(|key| self.sockets[id].kept.get(&key).is_some_and(|value| *value != 0));
        if reports_errors {
            return Err(Stop::Unsupported("recvmsg with MSG_ERRQUEUE after IP_RECVERR".to_owned()));
        }
        let connection = self.connection_of(id);
        match connection.and_then(|connection| self.connections[connection].completions.take()) {
            Some(notice) => check_notice(header, notice).map(|()| 0),
            None => Err(Errno::EAGAIN.into()),
        }
    }

    pub(super) fn call_send(&mut self, arguments: &Arguments<'_>, progress: &mut Progress) -> Attempt {
        let id = self.socket_of(arguments.integer(0)?)?;
        let mut transfer = transfer(arguments)?;
        if !self.sockets[id].options.zerocopy {
            transfer.flags &= !MSG_ZEROCOPY;
            transfer.cuts.clear();
        }
        let sent = self.send_bytes(id, arguments, &transfer, progress);
        if transfer.flags & MSG_ZEROCOPY != 0
            && sent.as_ref().is_ok_and(|bytes| *bytes > 0)
            && let Some(connection) = self.connection_of(id)
        {
            let conn = &mut self.connections[connection];
            conn.completions.begin(conn.stream.written);
        }
        sent
    }

    /// `open` of a file that the script has made.
    pub(super) fn call_open(&mut self, arguments: &Arguments<'_>) -> Attempt {
        let path = arguments.get(0)?;
        let Expression::Text(name) = path else { return Err(unknown(path)) };
        match self.settings.files.get(name) {
            Some(bytes) => {
                let file = File::Regular(*bytes);
                self.install(arguments.expected_fd(), file)
            }
            None => Err(Stop::Unsupported(format!("open of {path}, which the script has not made"))),
        }
    }

    /// `sendfile(socket, file, [offset], count)`.
    pub(super) fn call_sendfile(&mut self, arguments: &Arguments<'_>, progress: &mut Progress) -> Attempt {
        let id = self.socket_of(arguments.integer(0)?)?;
        let Some(File::Regular(length)) = self.files.get(&arguments.integer(1)?) else {
            return Err(Stop::Unsupported("sendfile from something that is no file".to_owned()));
        };
        let offset = arguments.optional(2)?.unwrap_or(0);
        let left = length.saturating_sub(u64::try_from(offset).unwrap_or(0));
        let bytes = u64::try_from(arguments.integer(3)?).unwrap_or(0).min(left);
        self.send_bytes(id, arguments, &Transfer { bytes, flags: 0, cuts: Vec::new() }, progress)
    }

    fn send_bytes(
        &mut self,
        id: SocketId,
        arguments: &Arguments<'_>,
        transfer: &Transfer,
        progress: &mut Progress,
    ) -> Attempt {
        let nonblocking = self.sockets[id].nonblocking || transfer.flags & MSG_DONTWAIT != 0;
        if let Role::Listening { .. } | Role::Fresh = self.sockets[id].role {
            return Err(Errno::EPIPE.into());
        }
        let Some(connection) = self.connection_of(id) else { return Err(Errno::EPIPE.into()) };
        let conn = &mut self.connections[connection];
        if progress.bytes == 0
            && let Some(error) = conn.take_error()
        {
            return Err(error.into());
        }
        let state = conn.state().unwrap_or(State::Closed);
        if state == State::SynSent || (state == State::SynReceived && !conn.established) {
            return Err(if nonblocking { Errno::EAGAIN.into() } else { Stop::Blocks });
        }
        if conn.stream.finish || !state.may_send() {
            return match progress.bytes {
                0 => Err(Errno::EPIPE.into()),
                bytes => Ok(bytes as i64),
            };
        }
        if has_bad_buffer(arguments) {
            return Err(Errno::EFAULT.into());
        }
        // A writer that waits is woken only when a third of the buffer is free.
        if progress.begun && !conn.stream.is_writable() {
            return Err(Stop::Blocks);
        }
        self.fill(id, connection, transfer, progress);
        match (progress.bytes == transfer.bytes, nonblocking, progress.bytes) {
            (true, _, bytes) => Ok(bytes as i64),
            (false, true, 0) => Err(Errno::EAGAIN.into()),
            (false, true, bytes) => Ok(bytes as i64),
            (false, false, _) => Err(Stop::Blocks),
        }
    }

    /// Appends to the send buffer what fits, letting the engine send on the way.
    fn fill(&mut self, socket: SocketId, connection: usize, transfer: &Transfer, progress: &mut Progress) {
        let lowat = self.sockets[socket].options.notsent_lowat.unwrap_or(self.settings.notsent_lowat);
        self.pump(connection);
        while progress.bytes < transfer.bytes {
            let stream = &mut self.connections[connection].stream;
            let cut =
                transfer.cuts.iter().copied().find(|cut| *cut > progress.bytes).unwrap_or(transfer.bytes);
            let taken = stream.append(cut - progress.bytes, lowat);
            if taken == 0 {
                break;
            }
            progress.bytes += taken;
            if progress.bytes == cut && cut < transfer.bytes {
                stream.end_write(false, true);
            }
            if progress.bytes < transfer.bytes && stream.ends_full() {
                self.pump(connection);
            }
        }
        let more = transfer.flags & MSG_MORE != 0;
        let sealed = transfer.flags & (MSG_EOR | MSG_ZEROCOPY) != 0 && progress.bytes == transfer.bytes;
        self.connections[connection].stream.end_write(more, sealed);
        self.pump(connection);
        self.connections[connection].stream.note_writer(progress.bytes == transfer.bytes);
    }
}
