//! How connections begin: by a command of this end, or by a SYN from a peer.

use std::net::SocketAddr;
use std::sync::Arc;

use super::config::{ListenError, ListenOptions};
use super::frame::overhead;
use super::key::FlowKey;
use super::lifecycle::Cause;
use super::listener::ListenerId;
use super::table::{Entry, Nobody, Phase};
use super::{Stack, frame};
use crate::endpoint::{Acceptor, ConnectionId, Endpoint, Waker};
use crate::tcp::connection::{CloseReason, Config, Connection};
use crate::tcp::segment::Segment;
use crate::tcp::wire::BASE_HEADER_BYTES;
use crate::time::Instant;

/// Room promised in a SYN-ACK, before there is an endpoint to ask: what its window field can say (RFC 9293
/// section 3.1; the window of a SYN is never scaled).
const HALF_OPEN_ROOM: usize = 65_535;

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
        let target = Arc::clone(&self.wake_target);
        let id = self.table.insert(|id| {
            let waker = Waker::new(id, target);
            endpoint.on_attached(now, waker.clone());
            let room = endpoint.room();
            connection.set_receive_room(now, room);
            Entry {
                id,
                key,
                next_hop: route.next_hop,
                acked_offset: connection.acked_offset(),
                connection,
                user: endpoint,
                waker: Some(waker),
                phase: Phase::Connecting,
                listener: None,
                room,
                aborted: false,
                parked: false,
                ready_since: now,
                turn_segments: 0,
            }
        });
        let id = id.expect("the table was found not to be full");
        self.settle(now, id.index, Cause::Input);
        id
    }

    /// Tells an endpoint that never got a connection. The name it is given belongs to none.
    fn refuse(&mut self, now: Instant, mut endpoint: Box<dyn Endpoint>, reason: CloseReason) -> ConnectionId {
        let id = ConnectionId { index: u32::MAX, generation: 0 };
        endpoint.on_attached(now, Waker::new(id, Arc::clone(&self.wake_target)));
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
        let orphans = self.table.iter().filter(|entry| entry.listener == Some(id));
        let orphans: Vec<u32> = orphans.map(|entry| entry.id.index).collect();
        for index in orphans {
            self.abort_index(now, index);
        }
    }

    /// A SYN arrived for no connection. Returns whether somebody listens there.
    pub(super) fn on_syn(&mut self, now: Instant, key: FlowKey, syn: &Segment<'_>) -> bool {
        let Some(listener) = self.listeners.find(key.local()) else { return false };
        if listener.half_open >= listener.backlog {
            self.statistics.rx_dropped_backlog += 1;
            return true;
        }
        let remote = key.remote();
        let Some(route) = self.routes.back(key.local().ip(), remote.ip()) else {
            self.statistics.failed_unreachable += 1;
            return true;
        };
        let listener_id = listener.id;
        let config = tcp_config(&self.config.tcp, self.mtu, remote);
        let sequence = self.secret.initial_sequence(now, &key);
        let offset = self.secret.timestamp_offset(&key);
        let id = self.table.insert(|id| {
            let mut connection = Connection::accept(now, &config, sequence, offset, syn);
            connection.set_receive_room(now, HALF_OPEN_ROOM);
            Entry {
                id,
                key,
                next_hop: route.next_hop,
                acked_offset: connection.acked_offset(),
                connection,
                user: Box::new(Nobody { room: HALF_OPEN_ROOM }),
                waker: None,
                phase: Phase::HalfOpen,
                listener: Some(listener_id),
                room: HALF_OPEN_ROOM,
                aborted: false,
                parked: false,
                ready_since: now,
                turn_segments: 0,
            }
        });
        let Some(id) = id else {
            self.statistics.rx_dropped_table_full += 1;
            return true;
        };
        listener.half_open += 1;
        self.statistics.accepts += 1;
        self.settle(now, id.index, Cause::Input);
        true
    }

    /// The handshake of the half-open `index` is about to be completed: gets it an endpoint. Returns whether it
    /// got one; otherwise the connection is reset.
    pub(super) fn promote(&mut self, now: Instant, index: u32) -> bool {
        let Some(entry) = self.table.get_mut(index) else { return false };
        let Some(listener) = entry.listener.take().and_then(|id| self.listeners.get_mut(id)) else {
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
        let waker = Waker::new(entry.id, Arc::clone(&self.wake_target));
        endpoint.on_attached(now, waker.clone());
        entry.room = endpoint.room();
        entry.connection.set_receive_room(now, entry.room);
        entry.waker = Some(waker);
        entry.user = endpoint;
        // The segment that completes the handshake may carry data, and the endpoint hears of the connection first.
        self.statistics.established += u64::from(entry.establish(now));
        true
    }

    fn tcp_config(&self, remote: SocketAddr) -> Config {
        tcp_config(&self.config.tcp, self.mtu, remote)
    }

    /// A free local port for a connection to `remote` (RFC 6056 section 3.3.3, algorithm 3): a counter for all
    /// destinations, offset by a keyed hash of the destination.
    fn choose_port(&mut self, local: std::net::IpAddr, remote: SocketAddr) -> Option<FlowKey> {
        let (first, last) = (*self.config.ephemeral_ports.start(), *self.config.ephemeral_ports.end());
        let count = u32::from(last - first) + 1;
        let offset = self.secret.port_offset(local, remote);
        for _ in 0..count {
            let port = first + (offset.wrapping_add(self.next_ephemeral) % count) as u16;
            self.next_ephemeral = self.next_ephemeral.wrapping_add(1);
            let key = FlowKey::new(SocketAddr::new(local, port), remote);
            if self.table.find(&key).is_none() && !self.listeners.uses_port(port) {
                return Some(key);
            }
        }
        None
    }
}

/// The parameters of a connection to `remote`: no larger segments than the link carries.
fn tcp_config(config: &Config, mtu: usize, remote: SocketAddr) -> Config {
    let headers = overhead(remote.ip()) - frame::ETHERNET_BYTES + BASE_HEADER_BYTES;
    let fits = u16::try_from(mtu - headers).unwrap_or(u16::MAX);
    Config { segment_size_max: config.segment_size_max.min(fits), ..config.clone() }
}
