//! `setsockopt` and `getsockopt`.

use std::time::Duration;

use outrider_stack::tcp::connection::State;

use super::{Arguments, Attempt, Stop, unknown};
use crate::packetdrill::kernel::{Errno, Kernel, Role, SocketId, defer};
use crate::packetdrill::language::{Expression, constant};
use crate::packetdrill::settings::{RECEIVE_BUFFER_MIN, SEND_BUFFER_MIN};
use crate::packetdrill::shell;

/// Options whose value is kept and read back, because nothing here depends on it: level, name.
const HARMLESS: [(&str, &str); 26] = [
    ("SOL_SOCKET", "SO_REUSEADDR"),
    ("SOL_SOCKET", "SO_REUSEPORT"),
    ("SOL_SOCKET", "SO_PRIORITY"),
    ("SOL_SOCKET", "SO_MARK"),
    ("SOL_SOCKET", "SO_DONTROUTE"),
    ("SOL_SOCKET", "SO_OOBINLINE"),
    ("SOL_SOCKET", "SO_INCOMING_CPU"),
    ("SOL_SOCKET", "SO_BUSY_POLL"),
    ("SOL_IP", "IP_FREEBIND"),
    ("SOL_IP", "IP_BIND_ADDRESS_NO_PORT"),
    ("SOL_IP", "IP_MTU_DISCOVER"),
    ("SOL_IP", "IP_RECVERR"),
    ("SOL_IPV6", "IPV6_MTU_DISCOVER"),
    ("SOL_IPV6", "IPV6_RECVERR"),
    ("SOL_TCP", "TCP_THIN_DUPACK"),
    ("SOL_TCP", "TCP_THIN_LINEAR_TIMEOUTS"),
    ("SOL_TCP", "TCP_SAVE_SYN"),
    ("SOL_TCP", "TCP_FASTOPEN_NO_COOKIE"),
    ("SOL_SOCKET", "SO_SNDLOWAT"),
    ("SOL_SOCKET", "SO_TIMESTAMP"),
    ("SOL_SOCKET", "SO_NO_CHECK"),
    ("SOL_IP", "IP_TOS"),
    ("SOL_IP", "IP_TTL"),
    ("SOL_IPV6", "IPV6_TCLASS"),
    ("SOL_IPV6", "IPV6_UNICAST_HOPS"),
    ("SOL_IP", "IP_LOCAL_PORT_RANGE"),
];

/// Largest `SO_RCVBUF` and `SO_SNDBUF` before doubling (`net.core.rmem_max`, raised as test hosts do).
const BUFFER_MAX: i64 = 1 << 30;

/// `TCP_MAXSEG` where no peer has said anything (RFC 9293 section 3.7.1).
const SEGMENT_SIZE_UNKNOWN: i64 = 536;

/// Which option: the name that its numbers stand for.
fn option_name<'a>(arguments: &Arguments<'a>) -> Result<(&'static str, &'a str), Stop> {
    let level = arguments.integer(1)?;
    let level = match level {
        0 => "SOL_IP",
        1 => "SOL_SOCKET",
        6 => "SOL_TCP",
        41 => "SOL_IPV6",
        _ => return Err(Stop::Unsupported(format!("socket option level {}", arguments.get(1)?))),
    };
    match arguments.get(2)? {
        Expression::Word(name) => Ok((level, name)),
        other => Err(Stop::Unsupported(format!("socket option {other}"))),
    }
}

fn seconds(value: i64) -> Result<Duration, Stop> {
    match u64::try_from(value) {
        Ok(value) if value > 0 => Ok(Duration::from_secs(value)),
        _ => Err(Errno::EINVAL.into()),
    }
}

impl Kernel {
    pub(super) fn call_setsockopt(&mut self, arguments: &Arguments<'_>) -> Attempt {
        let id = self.socket_of(arguments.integer(0)?)?;
        let (level, name) = option_name(arguments)?;
        let value = arguments.get(3)?;
        match name {
            "TCP_CONGESTION" => return self.set_congestion(id, value),
            "SO_LINGER" => return self.set_linger(id, value),
            _ => {}
        }
        let number = value.value().ok_or_else(|| unknown(value))?;
        if HARMLESS.contains(&(level, name)) {
            let key = (arguments.integer(1)?, constant(name).unwrap_or(0));
            self.sockets[id].kept.insert(key, number);
            return Ok(0);
        }
        match level {
            "SOL_SOCKET" => self.set_socket_option(id, name, number),
            "SOL_TCP" => self.set_tcp_option(id, name, number),
            _ => Err(Stop::Unsupported(format!("socket option {name}"))),
        }
    }

    fn set_congestion(&mut self, id: SocketId, value: &Expression) -> Attempt {
        let Expression::Text(name) = value else { return Err(unknown(value)) };
        let algorithm = shell::algorithm(name).map_err(Stop::Unsupported)?;
        if self.connection_of(id).is_some() && self.sockets[id].options.algorithm != algorithm {
            return Err(Stop::Unsupported(format!(
                "change to congestion control {name} on an open connection"
            )));
        }
        self.sockets[id].options.algorithm = algorithm;
        Ok(0)
    }

    fn set_linger(&mut self, id: SocketId, value: &Expression) -> Attempt {
        let field = |name: &str| value.field(name).and_then(Expression::value);
        let (Some(on), Some(time)) = (field("onoff"), field("linger")) else { return Err(unknown(value)) };
        let time = Duration::from_secs(u64::try_from(time).unwrap_or(0));
        self.sockets[id].options.linger = (on != 0).then_some(time);
        Ok(0)
    }

    fn set_socket_option(&mut self, id: SocketId, name: &str, value: i64) -> Attempt {
        let doubled = |value: i64, least: u64| (2 * value.clamp(0, BUFFER_MAX) as u64).max(least);
        let connection = self.connection_of(id);
        let options = &mut self.sockets[id].options;
        match name {
            "SO_RCVBUF" | "SO_RCVBUFFORCE" => {
                options.receive_buffer = Some(doubled(value, RECEIVE_BUFFER_MIN));
                let space = self.settings.receive_space(&self.sockets[id].options);
                if let Some(connection) = connection {
                    let conn = &mut self.connections[connection];
                    conn.stream.receive_space = space;
                }
            }
            "SO_SNDBUF" | "SO_SNDBUFFORCE" => {
                let room = doubled(value, SEND_BUFFER_MIN);
                options.send_buffer = Some(room);
                if let Some(connection) = connection {
                    self.connections[connection].stream.set_send_buffer(room);
                }
            }
            "SO_ZEROCOPY" => options.zerocopy = value != 0,
            "SO_RCVLOWAT" => options.receive_low_water = u64::try_from(value).unwrap_or(0).max(1),
            "SO_KEEPALIVE" => {
                options.keepalive = value != 0;
                self.update_keepalive(id);
            }
            _ => return Err(Stop::Unsupported(format!("socket option {name}"))),
        }
        Ok(0)
    }

    fn set_tcp_option(&mut self, id: SocketId, name: &str, value: i64) -> Attempt {
        let connection = self.connection_of(id);
        let now = self.now;
        let options = &mut self.sockets[id].options;
        match name {
            "TCP_NODELAY" => options.nodelay = value != 0,
            "TCP_CORK" => options.cork = value != 0,
            "TCP_MAXSEG" => {
                if !(88..=32_767).contains(&value) {
                    return Err(Errno::EINVAL.into());
                }
                if connection.is_some() {
                    return Err(Stop::Unsupported("TCP_MAXSEG on an open connection".to_owned()));
                }
                options.segment_size = Some(value as u16);
            }
            "TCP_WINDOW_CLAMP" => options.window_clamp = u64::try_from(value).ok().filter(|clamp| *clamp > 0),
            "TCP_KEEPIDLE" => options.keepalive_times.idle = seconds(value)?,
            "TCP_KEEPINTVL" => options.keepalive_times.interval = seconds(value)?,
            "TCP_KEEPCNT" => {
                let count = u32::try_from(value).ok().filter(|count| (1..=127).contains(count));
                options.keepalive_times.probes_max = count.ok_or(Errno::EINVAL)?;
            }
            "TCP_SYNCNT" => options.syn_retries = u32::try_from(value).ok(),
            "TCP_LINGER2" => options.linger2 = Some(value),
            "TCP_USER_TIMEOUT" => {
                let timeout = Duration::from_millis(u64::try_from(value).map_err(|_| Errno::EINVAL)?);
                options.user_timeout = (!timeout.is_zero()).then_some(timeout);
            }
            "TCP_NOTSENT_LOWAT" => options.notsent_lowat = (value != 0).then_some(u64::from(value as u32)),
            "TCP_QUICKACK" => {
                if let Some(connection) = connection {
                    self.set_quick_acks(connection, value != 0);
                }
                return Ok(0);
            }
            "TCP_INQ" => options.report_queued = value != 0,
            "TCP_DEFER_ACCEPT" => {
                let seconds = u64::try_from(value).unwrap_or(0);
                options.defer_accept = if seconds == 0 { 0 } else { defer::repetitions(seconds) };
            }
            "TCP_FASTOPEN" if value == 0 => return Ok(0),
            _ => return Err(Stop::Unsupported(format!("socket option {name}"))),
        }
        let options = self.sockets[id].options.clone();
        if let Some(connection) = connection {
            let user_timeout = self.settings.config(&options, false).user_timeout;
            let fin_timeout = self.settings.fin_timeout(&options);
            let conn = &mut self.connections[connection];
            conn.fin_timeout = fin_timeout;
            if let Some(engine) = conn.engine_mut() {
                engine.set_user_timeout(now, user_timeout);
            }
            // Setting NODELAY lets go what is held back, even a cork holds; so does drawing the cork.
            let released =
                (name == "TCP_NODELAY" && options.nodelay) || (name == "TCP_CORK" && !options.cork);
            conn.stream.nodelay = options.nodelay;
            conn.stream.cork = options.cork;
            if released {
                conn.stream.flush();
            }
            self.pump(connection);
        }
        self.update_keepalive(id);
        Ok(0)
    }

    fn set_quick_acks(&mut self, connection: usize, quick: bool) {
        let now = self.now;
        let conn = &mut self.connections[connection];
        if conn.stream.acks.set_quick(quick)
            && let Some(engine) = conn.engine_mut()
        {
            engine.acknowledge_now(now);
        }
        self.pump(connection);
    }

    fn update_keepalive(&mut self, id: SocketId) {
        let options = &self.sockets[id].options;
        let keepalive = options.keepalive.then_some(options.keepalive_times);
        let now = self.now;
        if let Some(connection) = self.connection_of(id)
            && let Some(engine) = self.connections[connection].engine_mut()
        {
            engine.set_keepalive(now, keepalive);
        }
    }

    pub(super) fn call_getsockopt(&mut self, arguments: &Arguments<'_>) -> Attempt {
        let id = self.socket_of(arguments.integer(0)?)?;
        let (level, name) = option_name(arguments)?;
        let expected = arguments.get(3)?;
        if name == "TCP_CONGESTION" {
            let found = self.sockets[id].options.algorithm.name();
            return match expected {
                Expression::Text(wanted) if wanted != found => wrong(name, &format!("{found:?}"), expected),
                _ => Ok(0),
            };
        }
        if name == "SO_LINGER" {
            return self.get_linger(id, expected);
        }
        let found = if HARMLESS.contains(&(level, name)) {
            let key = (arguments.integer(1)?, constant(name).unwrap_or(0));
            Some(self.sockets[id].kept.get(&key).copied().unwrap_or(0))
        } else {
            self.get_option(id, name)?
        };
        let Some(found) = found else { return Err(Stop::Unsupported(format!("getsockopt {name}"))) };
        match expected {
            Expression::Ellipsis => Ok(0),
            _ => {
                let wanted = expected.value().ok_or_else(|| unknown(expected))?;
                // What is asked of a socket without a connection: older Linux says 536 whatever was set.
                let older = name == "TCP_MAXSEG"
                    && wanted == SEGMENT_SIZE_UNKNOWN
                    && matches!(self.sockets[id].role, Role::Fresh | Role::Listening { .. });
                if wanted == found || older { Ok(0) } else { wrong(name, &format!("[{found}]"), expected) }
            }
        }
    }

    fn get_linger(&self, id: SocketId, expected: &Expression) -> Attempt {
        let linger = self.sockets[id].options.linger;
        let found = (i64::from(linger.is_some()), linger.map_or(0, |time| time.as_secs() as i64));
        let field = |name: &str| expected.field(name).and_then(Expression::value);
        match (field("onoff"), field("linger")) {
            (Some(on), Some(time)) if (on, time) != found => {
                wrong("SO_LINGER", &format!("{{onoff={}, linger={}}}", found.0, found.1), expected)
            }
            _ => Ok(0),
        }
    }

    /// The value of an option; `None` if there is none.
    fn get_option(&mut self, id: SocketId, name: &str) -> Result<Option<i64>, Stop> {
        let connection = self.connection_of(id);
        if name == "SO_ERROR" {
            let error = connection.and_then(|connection| self.connections[connection].take_error());
            return Ok(Some(error.map_or(0, Errno::number)));
        }
        let socket = &self.sockets[id];
        let options = &socket.options;
        let conn = connection.map(|connection| &self.connections[connection]);
        let engine = conn.and_then(|conn| conn.engine());
        let milliseconds = |time: Duration| time.as_millis() as i64;
        Ok(Some(match name {
            "SO_TYPE" => 1,
            "SO_PROTOCOL" => 6,
            "SO_ACCEPTCONN" => i64::from(matches!(socket.role, Role::Listening { .. })),
            "SO_RCVBUF" => options.receive_buffer.unwrap_or(self.settings.receive_buffer.default) as i64,
            "SO_SNDBUF" => match conn {
                Some(conn) => conn.stream.send_buffer as i64,
                None => options.send_buffer.unwrap_or(self.settings.send_buffer.default) as i64,
            },
            "SO_RCVLOWAT" => options.receive_low_water as i64,
            "SO_ZEROCOPY" => i64::from(options.zerocopy),
            "SO_KEEPALIVE" => i64::from(options.keepalive),
            "TCP_NODELAY" => i64::from(options.nodelay),
            "TCP_CORK" => i64::from(options.cork),
            "TCP_MAXSEG" => match engine.filter(|engine| engine.state() != State::Closed) {
                Some(engine) => engine.segment_size() as i64,
                None => options.segment_size.map_or(SEGMENT_SIZE_UNKNOWN, i64::from),
            },
            "TCP_WINDOW_CLAMP" => match options.window_clamp {
                Some(clamp) => clamp as i64,
                None => return Ok(None),
            },
            "TCP_KEEPIDLE" => options.keepalive_times.idle.as_secs() as i64,
            "TCP_KEEPINTVL" => options.keepalive_times.interval.as_secs() as i64,
            "TCP_KEEPCNT" => i64::from(options.keepalive_times.probes_max),
            "TCP_SYNCNT" => i64::from(options.syn_retries.unwrap_or(self.settings.syn_retries)),
            "TCP_LINGER2" => options.linger2.unwrap_or(self.settings.fin_timeout.as_secs() as i64),
            "TCP_USER_TIMEOUT" => options.user_timeout.map_or(0, milliseconds),
            "TCP_NOTSENT_LOWAT" => options.notsent_lowat.unwrap_or(0) as i64,
            "TCP_QUICKACK" => conn.map_or(1, |conn| i64::from(conn.stream.acks.is_quick())),
            "TCP_INQ" => i64::from(options.report_queued),
            "TCP_DEFER_ACCEPT" => defer::period(options.defer_accept).as_secs() as i64,
            _ => return Ok(None),
        }))
    }
}

fn wrong(name: &str, found: &str, expected: &Expression) -> Attempt {
    Err(Stop::Wrong(format!("getsockopt {name} gives {found}, expected {expected}")))
}
