//! `poll` and `epoll`.

use outrider_stack::tcp::connection::State;

use super::{Arguments, Attempt, Stop, unknown};
use crate::packetdrill::kernel::{Errno, File, Kernel, Role};
use crate::packetdrill::language::Expression;

const IN: i64 = 1;
const OUT: i64 = 4;
const ERR: i64 = 8;
const HUP: i64 = 0x10;
const NVAL: i64 = 0x20;
const RDNORM: i64 = 0x40;
const WRNORM: i64 = 0x100;
const RDHUP: i64 = 0x2000;
const ONESHOT: i64 = 1 << 30;
const EDGE: i64 = 1 << 31;
const EXCLUSIVE: i64 = 1 << 28;
/// How to watch, not what for.
const MANNER: i64 = ONESHOT | EDGE | EXCLUSIVE;

/// One descriptor that an epoll watches.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Interest {
    pub(crate) fd: i64,
    events: i64,
    /// What the script wants back beside the events, as written: `fd=4`, `ptr=0`.
    data: Expression,
    /// Edge-triggered: what was reported and has not gone away since.
    reported: i64,
    /// Edge-triggered: times the descriptor could be written again after it could not.
    seen: Edges,
}

/// What happened on a descriptor so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Edges {
    /// How often it became writable again.
    writable: u64,
    /// Bytes that arrived.
    received: u64,
    /// Notices that came into its error queue.
    notices: u64,
}

impl Kernel {
    /// The events of a descriptor.
    fn events_of(&self, fd: i64) -> i64 {
        let Some(File::Socket(id)) = self.files.get(&fd) else { return NVAL };
        let connection = match &self.sockets[*id].role {
            Role::Fresh => return OUT | WRNORM | HUP,
            Role::Listening { ready, .. } => return if ready.is_empty() { 0 } else { IN | RDNORM },
            Role::Connected(connection) => &self.connections[*connection],
        };
        let state = connection.state().unwrap_or(State::Closed);
        let stream = &connection.stream;
        let mut events = 0;
        let read_shut = stream.read_shut || stream.peer_finished;
        if (read_shut && stream.finish) || state == State::Closed {
            events |= HUP;
        }
        if read_shut || state == State::Closed {
            events |= IN | RDNORM | RDHUP;
        }
        if connection.has_error() || connection.completions.has_notice() {
            events |= ERR;
        }
        if state != State::SynSent {
            if stream.unread >= self.sockets[*id].options.receive_low_water.max(1) {
                events |= IN | RDNORM;
            }
            // Linux wakes a writer when half of it is free.
            let lowat = self.sockets[*id].options.notsent_lowat.unwrap_or(self.settings.notsent_lowat);
            let below = 2 * stream.unsent_bytes() < lowat;
            if (stream.is_writable() && below) || stream.finish || state == State::Closed {
                events |= OUT | WRNORM;
            }
        }
        events
    }

    pub(super) fn call_poll(&mut self, arguments: &Arguments<'_>) -> Attempt {
        let list = arguments.get(0)?;
        let Expression::List(items) = list else { return Err(unknown(list)) };
        let mut ready = 0;
        let mut wrong = None;
        for item in items {
            let field = |name: &str| item.field(name).and_then(Expression::value);
            let (Some(fd), Some(wanted)) = (field("fd"), field("events")) else { return Err(unknown(item)) };
            let got = self.events_of(fd) & (wanted | ERR | HUP | NVAL);
            ready += i64::from(got != 0);
            let expected = field("revents").unwrap_or(0);
            if got != expected {
                wrong = Some(format!("revents of fd {fd} is {}, expected {}", names(got), names(expected)));
            }
        }
        if ready == 0 && arguments.optional(2)?.unwrap_or(0) != 0 {
            return self.poll_timeout(arguments, 2);
        }
        match wrong {
            Some(wrong) => Err(Stop::Wrong(wrong)),
            None => Ok(ready),
        }
    }

    /// Nothing is ready: a call with a time limit blocks until it is over.
    fn poll_timeout(&mut self, arguments: &Arguments<'_>, index: usize) -> Attempt {
        let limit_ms = arguments.integer(index)?;
        let now = self.now;
        let begun = *self.poll_begun.get_or_insert(now);
        let limit = u64::try_from(limit_ms).ok().map(std::time::Duration::from_millis);
        if limit.is_some_and(|limit| now - begun >= limit) {
            self.poll_begun = None;
            return Ok(0);
        }
        Err(Stop::Blocks)
    }

    pub(super) fn call_epoll_create(&mut self, arguments: &Arguments<'_>) -> Attempt {
        self.install(arguments.expected_fd(), File::Epoll(Vec::new()))
    }

    pub(super) fn call_epoll_ctl(&mut self, arguments: &Arguments<'_>) -> Attempt {
        let epoll = arguments.integer(0)?;
        let (operation, fd) = (arguments.integer(1)?, arguments.integer(2)?);
        self.socket_of(fd)?;
        let seen = self.edges_of(fd);
        let Some(File::Epoll(interests)) = self.files.get_mut(&epoll) else {
            return Err(Errno::EBADF.into());
        };
        let at = interests.iter().position(|interest| interest.fd == fd);
        if operation == 2 {
            let at = at.ok_or(Errno::ENOENT)?;
            interests.remove(at);
            return Ok(0);
        }
        let event = arguments.get(3)?;
        let events = event.field("events").and_then(Expression::value).ok_or_else(|| unknown(event))?;
        let data = match event {
            Expression::Structure(items) => items.get(1).cloned().unwrap_or(Expression::Ellipsis),
            _ => Expression::Ellipsis,
        };
        // Errors are always watched for.
        let events = events | ERR | HUP;
        let interest = Interest { fd, events, data, reported: 0, seen };
        match (operation, at) {
            (1, None) => interests.push(interest),
            (1, Some(_)) => return Err(Errno::EEXIST.into()),
            (3, Some(at)) => interests[at] = interest,
            (3, None) => return Err(Errno::ENOENT.into()),
            _ => return Err(Errno::EINVAL.into()),
        }
        Ok(0)
    }

    fn edges_of(&self, fd: i64) -> Edges {
        let Some(File::Socket(id)) = self.files.get(&fd) else { return Edges::default() };
        let Role::Connected(connection) = &self.sockets[*id].role else { return Edges::default() };
        let conn = &self.connections[*connection];
        Edges {
            writable: conn.stream.write_edges,
            received: conn.stream.received,
            notices: conn.completions.completed,
        }
    }

    pub(super) fn call_epoll_wait(&mut self, arguments: &Arguments<'_>) -> Attempt {
        let epoll = arguments.integer(0)?;
        let interests = match self.files.get(&epoll) {
            Some(File::Epoll(interests)) => interests.clone(),
            _ => return Err(Errno::EBADF.into()),
        };
        let mut ready = Vec::new();
        let mut after = Vec::new();
        for mut interest in interests {
            // One that was to report once, and has, waits to be armed again.
            let armed = interest.events & !MANNER != 0;
            let now = if armed { self.events_of(interest.fd) & interest.events } else { 0 };
            let mut fresh = now;
            if interest.events & EDGE != 0 {
                let edges = self.edges_of(interest.fd);
                let mut old = interest.reported & now;
                if edges.writable != interest.seen.writable {
                    old &= !(OUT | WRNORM);
                }
                if edges.received != interest.seen.received {
                    old &= !(IN | RDNORM);
                }
                if edges.notices != interest.seen.notices {
                    old &= !ERR;
                }
                // An edge reports everything that holds, not only what is new.
                fresh = if now & !old != 0 { now } else { 0 };
                interest.reported = now;
                interest.seen = edges;
            }
            if fresh != 0 {
                if interest.events & ONESHOT != 0 {
                    interest.events &= MANNER;
                }
                ready.push((fresh, interest.data.clone()));
            }
            after.push(interest);
        }
        if ready.is_empty() && arguments.optional(3)?.unwrap_or(0) != 0 {
            return self.poll_timeout(arguments, 3);
        }
        if let Some(File::Epoll(interests)) = self.files.get_mut(&epoll) {
            *interests = after;
        }
        check_events(arguments.get(1)?, &ready)?;
        Ok(ready.len() as i64)
    }
}

/// Compares what `epoll_wait` gives with what the script says: one structure or a list of them.
fn check_events(expected: &Expression, ready: &[(i64, Expression)]) -> Result<(), Stop> {
    let items: Vec<&Expression> = match expected {
        Expression::Ellipsis => return Ok(()),
        Expression::List(items) => items.iter().collect(),
        one => vec![one],
    };
    for (item, (events, data)) in items.iter().zip(ready) {
        let wanted = item.field("events").and_then(Expression::value).ok_or_else(|| unknown(item))?;
        let Expression::Structure(parts) = item else { return Err(unknown(item)) };
        if wanted != *events || parts.get(1).is_some_and(|wanted| wanted != data) {
            let found = format!("{{events={}, {data}}}", names(*events));
            return Err(Stop::Wrong(format!("epoll_wait gives {found}, expected {item}")));
        }
    }
    if ready.len() < items.len() && !ready.is_empty() {
        return Err(Stop::Wrong(format!("epoll_wait gives {} events of {}", ready.len(), items.len())));
    }
    Ok(())
}

/// Events by name.
fn names(events: i64) -> String {
    let all = [
        (IN, "IN"),
        (OUT, "OUT"),
        (ERR, "ERR"),
        (HUP, "HUP"),
        (NVAL, "NVAL"),
        (RDNORM, "RDNORM"),
        (WRNORM, "WRNORM"),
        (RDHUP, "RDHUP"),
    ];
    let set: Vec<&str> = all.iter().filter(|(bit, _)| events & bit != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "0".to_owned() } else { set.join("|") }
}
