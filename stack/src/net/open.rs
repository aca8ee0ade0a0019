//! How connections begin: by a command of this end, or by a SYN from a peer.

use std::net::SocketAddr;
use std::sync::Arc;

use super::config::{ListenError, ListenOptions};
use super::cookies::Cookie;
use super::frame::Mac;
use super::key::FlowKey;
use super::lifecycle::Cause;
use super::listener::ListenerId;
use super::table::{Entry, HalfOpen, Nobody, Phase};
use super::{Stack, frame};
use crate::endpoint::{Acceptor, ConnectionId, Endpoint};
use crate::tcp::connection::{CloseReason, Config, Connection, SynParameters};
use crate::tcp::maybe::FlightBytes;
use crate::tcp::segment::Segment;
use crate::tcp::sequence::SeqNumber;
use crate::tcp::wire::BASE_HEADER_BYTES;
use crate::time::Instant;

/// Room promised in a SYN-ACK, before there is an endpoint to ask: what its window field can say (RFC 9293
/// section 3.1; the window of a SYN is never scaled).
const HALF_OPEN_ROOM: usize = 65_535;

/// What became of a SYN for no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SynFate {
    /// It opened a connection.
    Opened,
    /// Somebody listens, but it opened none; why is counted.
    Ignored,
    /// Nobody listens there.
    Unwanted,
}

/// What became of an acknowledgement for no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CookieFate {
    /// It made this connection, which has yet to be given the segment.
    Opened(u32),
    /// It might have, but there was no room; that is counted.
    Ignored,
    /// It brings no cookie of ours.
    None,
}

impl Stack {
    /// Begins a connection to `remote`. The endpoint is told of success by `on_established` and of every failure,
    /// also a lack of ports or of table entries, by `on_closed` (which may happen before this returns).
    pub fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        mut endpoint: Box<dyn Endpoint>,
    ) -> ConnectionId {
        self.statistics.connects += 1;
        let Some(route) = self.routes.to(remote.ip()).filter(|_| remote.port() != 0) else {
            self.statistics.failed_unreachable += 1;
            return self.refuse(now, endpoint, CloseReason::Unreachable);
        };
        let Some(key) = self.choose_port(route.source, remote).filter(|_| !self.table.is_full()) else {
            self.statistics.failed_no_resources += 1;
            return self.refuse(now, endpoint, CloseReason::NoResources);
        };
        let config = self.tcp_config(remote);
        let sequence = self.secret.initial_sequence(now, &key);
        let mut connection = Connection::connect(now, &config, sequence, self.secret.timestamp_offset(&key));
        connection.share_config(&config);
        let mac = self.mac;
        let wakers = &mut self.wakers;
        let id = self.table.insert(|id| {
            endpoint.on_attached(now, wakers.make(id));
            let room = endpoint.room();
            connection.set_receive_room(now, room);
            Entry {
                id,
                key,
                through_gateway: route.next_hop != remote.ip(),
                sums: frame::Template::new(mac, &key).sums(),
                half_open: None,
                acked_offset: connection.acked_offset(),
                connection,
                user: endpoint,
                attached: true,
                phase: Phase::Connecting,
                room: FlightBytes::from(room as u64),
                aborted: false,
                parked: false,
                ready_since: now,
                turn_segments: 0,
                touched: false,
            }
        });
        let id = id.expect("the table was found not to be full");
        self.settle(now, id.index, Cause::Input);
        id
    }

    /// Tells an endpoint that never got a connection. The name it is given belongs to none.
    fn refuse(&mut self, now: Instant, mut endpoint: Box<dyn Endpoint>, reason: CloseReason) -> ConnectionId {
        let id = ConnectionId { index: u32::MAX, generation: 0 };
        endpoint.on_attached(now, self.wakers.make_for_nobody(id));
        endpoint.on_closed(now, reason);
        id
    }

    /// Accepts connections to `local`. An unspecified address stands for all of ours of its family; with port zero
    /// the stack chooses one, see [`Self::listener_address`].
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn listen(
        &mut self,
        mut local: SocketAddr,
        options: ListenOptions,
        acceptor: Box<dyn Acceptor>,
    ) -> Result<ListenerId, ListenError> {
        if local.port() == 0 {
            let mut ports = self.config.ephemeral_ports.clone();
            let free = ports.find(|port| !self.listeners.uses_port(*port));
            local.set_port(free.ok_or(ListenError::NoPort)?);
        }
        self.listeners.add(local, options, acceptor, &self.routes)
    }

    /// Stops listening: half-open connections are reset, the established ones stay.
    pub fn unlisten(&mut self, now: Instant, id: ListenerId) {
        if self.listeners.remove(id).is_none() {
            return;
        }
        let orphans = self.table.iter().filter(|entry| entry.listener() == Some(id));
        let orphans: Vec<u32> = orphans.map(|entry| entry.id.index).collect();
        for index in orphans {
            self.abort_index(now, index);
        }
    }

    /// A SYN arrived for no connection, from the station `source_mac`. `beyond` bounds our initial sequence number
    /// from below, if the 4-tuple was in use until now.
    pub(super) fn on_syn(
        &mut self,
        now: Instant,
        key: FlowKey,
        syn: &Segment<'_>,
        source_mac: Mac,
        beyond: Option<SeqNumber>,
    ) -> SynFate {
        let Some(listener) = self.listeners.find(key.local()) else { return SynFate::Unwanted };
        if self.routes.back(key.local().ip(), key.remote().ip()).is_none() {
            self.statistics.failed_unreachable += 1;
            self.statistics.rx_dropped_no_connection += 1;
            return SynFate::Ignored;
        }
        if listener.is_full() {
            listener.overflowed_at = Some(now);
            self.send_cookie(now, &key, syn, source_mac);
            return SynFate::Ignored;
        }
        let listener = listener.id;
        let config = self.tcp_config(key.remote());
        let mut sequence = self.secret.initial_sequence(now, &key);
        if let Some(beyond) = beyond.filter(|beyond| !beyond.before(sequence)) {
            sequence = beyond.add(1);
        }
        let offset = self.secret.timestamp_offset(&key);
        let mut connection = Connection::accept(now, &config, sequence, offset, syn);
        connection.share_config(&config);
        connection.set_receive_room(now, HALF_OPEN_ROOM);
        match self.insert_half_open(now, key, listener, source_mac, connection) {
            Some(index) => {
                self.settle(now, index, Cause::Input);
                SynFate::Opened
            }
            None => SynFate::Ignored,
        }
    }

    /// Adds a connection that a peer began; `None`, counted, if there is no room or no way back.
    fn insert_half_open(
        &mut self,
        now: Instant,
        key: FlowKey,
        listener: ListenerId,
        source_mac: Mac,
        connection: Connection,
    ) -> Option<u32> {
        let Some(route) = self.routes.back(key.local().ip(), key.remote().ip()) else {
            self.statistics.failed_unreachable += 1;
            self.statistics.rx_dropped_no_connection += 1;
            return None;
        };
        let mac = self.mac;
        let id = self.table.insert(|id| Entry {
            id,
            key,
            through_gateway: route.next_hop != key.remote().ip(),
            sums: frame::Template::new(mac, &key).sums(),
            half_open: Some(Box::new(HalfOpen { came_from: source_mac, listener: Some(listener) })),
            acked_offset: connection.acked_offset(),
            connection,
            user: Box::new(Nobody { room: HALF_OPEN_ROOM }),
            attached: false,
            phase: Phase::HalfOpen,
            room: FlightBytes::from(HALF_OPEN_ROOM as u64),
            aborted: false,
            parked: false,
            ready_since: now,
            turn_segments: 0,
            touched: false,
        });
        let Some(id) = id else {
            self.statistics.rx_dropped_table_full += 1;
            return None;
        };
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.half_open += 1;
        }
        self.statistics.accepts += 1;
        Some(id.index)
    }

    /// Answers a SYN for which the backlog has no room with a SYN cookie: nothing of it is kept.
    fn send_cookie(&mut self, now: Instant, key: &FlowKey, syn: &Segment<'_>, source_mac: Mac) {
        // ARP, NDP and resets keep the other half of the queue, whatever the flood.
        if self.control.len() >= self.config.control_frames_max.div_ceil(2) {
            self.statistics.rx_dropped_backlog += 1;
            return;
        }
        let config = self.tcp_config(key.remote());
        let agreed = SynParameters::agreed(&config, &syn.header);
        let clock = timestamp_clock(now, self.secret.timestamp_offset(key));
        let Cookie { sequence, timestamp, agreed } = self.cookies.make(now, key, &agreed, clock);
        let header = agreed.syn_ack(&config, sequence, timestamp);
        if self.send_stateless(key, &header, source_mac) {
            self.statistics.cookies_sent += 1;
        } else {
            self.statistics.rx_dropped_backlog += 1;
        }
    }

    /// A segment without SYN arrived for no connection. If it brings back a cookie, makes the connection that the
    /// cookie stands for, half-open still, and returns its index.
    pub(super) fn open_from_cookie(
        &mut self,
        now: Instant,
        key: FlowKey,
        segment: &Segment<'_>,
        source_mac: Mac,
    ) -> CookieFate {
        let flags = segment.header.flags;
        if flags.rst || flags.syn || segment.header.ack.is_none() {
            return CookieFate::None;
        }
        let listener = self.listeners.find(key.local());
        let Some(listener) = listener.filter(|listener| listener.may_have_given_cookies(now)) else {
            return CookieFate::None;
        };
        let listener = listener.id;
        let config = self.tcp_config(key.remote());
        let agreed = self.cookies.check(now, &key, &segment.header, config.timestamps);
        let connection = agreed.zip(segment.header.ack).map(|(agreed, ack)| {
            let offset = self.secret.timestamp_offset(&key);
            Connection::from_cookie(now, &config, ack.add(u32::MAX), offset, &agreed)
        });
        let Some(connection) = connection.filter(|connection| connection.completes_handshake(segment)) else {
            self.statistics.cookies_rejected += 1;
            return CookieFate::None;
        };
        match self.insert_half_open(now, key, listener, source_mac, connection) {
            Some(index) => {
                self.statistics.cookies_accepted += 1;
                CookieFate::Opened(index)
            }
            None => CookieFate::Ignored,
        }
    }

    /// Whether a SYN to `local` would open a connection now.
    pub(super) fn has_backlog(&mut self, local: SocketAddr) -> bool {
        self.listeners.find(local).is_some_and(|listener| !listener.is_full())
    }

    /// The handshake of the half-open `index` is about to be completed: gets it an endpoint. Returns whether it
    /// got one; otherwise the connection is reset.
    pub(super) fn promote(&mut self, now: Instant, index: u32) -> bool {
        let Some(entry) = self.table.get_mut(index) else { return false };
        let Some(listener) = entry.take_listener().and_then(|id| self.listeners.get_mut(id)) else {
            self.abort_index(now, index);
            return false;
        };
        listener.half_open -= 1;
        let (local, remote) = (entry.key.local(), entry.key.remote());
        let Some(mut endpoint) = listener.acceptor.accept(now, local, remote) else {
            self.statistics.refused_by_acceptor += 1;
            self.abort_index(now, index);
            return false;
        };
        endpoint.on_attached(now, self.wakers.make(entry.id));
        let room = endpoint.room();
        entry.room = FlightBytes::from(room as u64);
        entry.connection.set_receive_room(now, room);
        entry.attached = true;
        entry.user = endpoint;
        // The segment that completes the handshake may carry data, and the endpoint hears of the connection first.
        self.statistics.established += u64::from(entry.establish(now));
        true
    }

    fn tcp_config(&self, remote: SocketAddr) -> Arc<Config> {
        Arc::clone(&self.tcp_configs[usize::from(remote.is_ipv6())])
    }

    /// A free local port for a connection to `remote` (RFC 6056 section 3.3.3, algorithm 3): a counter for all
    /// destinations, offset by a keyed hash of the destination. In a group of shards one whose flow is this shard's,
    /// so that what the peer sends comes back here; one in as many ports as there are shards will do.
    fn choose_port(&mut self, local: std::net::IpAddr, remote: SocketAddr) -> Option<FlowKey> {
        let (first, last) = (*self.config.ephemeral_ports.start(), *self.config.ephemeral_ports.end());
        let count = u32::from(last - first) + 1;
        let offset = self.secret.port_offset(local, remote);
        for _ in 0..count {
            let port = first + (offset.wrapping_add(self.next_ephemeral) % count) as u16;
            self.next_ephemeral = self.next_ephemeral.wrapping_add(1);
            let key = FlowKey::new(SocketAddr::new(local, port), remote);
            if self.owns(&key) && self.table.find(&key).is_none() && !self.listeners.uses_port(port) {
                return Some(key);
            }
        }
        None
    }
}

/// The timestamp clock of a connection with this offset: milliseconds, like [`Connection`]'s own.
fn timestamp_clock(now: Instant, offset: u32) -> u32 {
    ((now.as_micros() / 1_000) as u32).wrapping_add(offset)
}

/// The parameters of a connection over IPv4 or IPv6: no larger segments than the link carries.
pub(super) fn tcp_config(config: &Config, mtu: usize, v6: bool) -> Config {
    let headers = if v6 { frame::IPV6_BYTES } else { frame::IPV4_BYTES } + BASE_HEADER_BYTES;
    let fits = u16::try_from(mtu - headers).unwrap_or(u16::MAX);
    Config { segment_size_max: config.segment_size_max.min(fits), ..config.clone() }
}
