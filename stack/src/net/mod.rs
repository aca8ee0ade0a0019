//! Many connections on one port: [`Stack`].
//!
//! ```text
//! frame -> Ethernet -> IP -> TCP -> flow table -> Connection::on_segment -> Endpoint
//!                       |                                                      |
//!                       +-> slow path (ARP, NDP, ICMP)      ready queue  <-----+
//!                                     |                          |
//! frame <------------------------ control queue      poll_transmit, built in the port's memory
//! ```
//!
//! A stack is sans-IO: it reads no clock and owns no thread. It lives with one port, which each call of
//! [`Stack::poll`] borrows.

mod config;
mod control;
mod cookies;
mod flows;
mod frame;
mod group;
mod icmp;
mod key;
mod lifecycle;
mod listener;
mod neighbours;
mod open;
mod predict;
mod rate;
mod ready;
mod receive;
mod report;
mod routes;
mod slow_path;
mod spares;
mod statistics;
mod steering;
mod table;
mod train;
mod transmit;

use std::collections::VecDeque;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::queue::SegQueue;
use outrider_drivers::port::{Capabilities, Port, PortError, PortInfo};

pub use config::{ListenError, ListenOptions, StackConfig, StackError};
pub use group::{Bell, Member};
pub use listener::ListenerId;
pub use report::ConnectionReport;
pub use statistics::{StackStatistics, Statistic};
pub use steering::Steering;
pub use table::{ConnectionSummary, Phase};

use crate::endpoint::{ConnectionId, WakeTarget, Wakers};
use crate::tcp::connection::{CloseReason, Config as TcpConfig};
use crate::time::Instant;
use crate::wheel::Wheel;
use cookies::Cookies;
use frame::Mac;
use key::Secret;
use listener::Listeners;
use neighbours::Neighbours;
use predict::Prediction;
use rate::{DrainRate, TokenBucket};
use ready::ReadyQueue;
use routes::Routes;
use slow_path::SlowPath;
use spares::Spares;
use table::Table;

/// By how much fewer frames are received at once where a frame may be a super-segment.
const SUPER_FRAMES_SHARE: usize = 4;

/// What a call of [`Stack::poll`] did, and when to call again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    /// Frames received, from the port and from other shards, and transmitted. Zero: nothing to do until `next`, a frame, a wake or a command.
    pub work: usize,
    /// When something is due at the latest; not after `now` if there is more to do at once. Frames that the port
    /// knows to be on their way ([`Port::next_arrival`]) are the caller's to watch.
    pub next: Option<Instant>,
}

/// Many connections on one port.
///
/// - **Commands**, at any time: [`connect`](Self::connect), [`listen`](Self::listen), [`unlisten`](Self::unlisten),
///   [`wake`](Self::wake), [`abort`](Self::abort), [`abort_all`](Self::abort_all). They take effect on the wire with
///   the next poll, so poll after them.
/// - **The run loop**: [`poll`](Self::poll) receives, fires timers, transmits, and says when it wants to be called
///   again. Endpoints are called from within commands and polls, never otherwise.
/// - **Reading**, at any time: [`statistics`](Self::statistics), [`connections`](Self::connections).
/// - **The end**: after a [`PortError`] call [`fail`](Self::fail); nothing else is of use then.
pub struct Stack {
    config: StackConfig,
    mac: Mac,
    mtu: usize,
    capabilities: Capabilities,
    routes: Routes,
    secret: Secret,
    cookies: Cookies,
    table: Table,
    listeners: Listeners,
    neighbours: Neighbours,
    slow_path: SlowPath,
    wheel: Wheel,
    ready: ReadyQueue,
    /// Whole frames that wait for the port: they go before segments.
    control: VecDeque<Vec<u8>>,
    resets: TokenBucket,
    drain_rate: DrainRate,
    next_ephemeral: u32,
    /// When to try the port again, while it holds as much as it should; and when it last was found so.
    transmit_retry: Option<Instant>,
    port_blocked_at: Option<Instant>,
    wakers: Wakers,
    wake_list: Arc<WakeList>,
    /// The part in a group of shards, if there is one.
    member: Option<Member>,
    statistics: StackStatistics,
    /// Parameters of connections over IPv4, and over IPv6.
    tcp_configs: [Arc<TcpConfig>; 2],
    prediction: Prediction,
    spares: Spares,
    /// Connections that received something in the present burst.
    touched: Vec<u32>,
    woken: Vec<ConnectionId>,
    /// Scratch space of `poll`, kept for its capacity.
    fired: Vec<u32>,
    /// Tags of the flows of the coming burst, likewise.
    shown: Vec<u64>,
}

/// The default target of wakers: drained by [`Stack::poll`]. Bounded by the number of wakers, since each reports at
/// most once between two calls of `on_wake`.
#[derive(Default)]
struct WakeList(SegQueue<ConnectionId>);

impl WakeTarget for WakeList {
    fn wake(&self, id: ConnectionId) {
        self.0.push(id);
    }
}

/// From so many connections on they are fetched before a burst; fewer stay in the cache by themselves.
const FETCH_CONNECTIONS_MIN: usize = 256;
/// RFC 791 and RFC 8200: what every link must carry.
const MTU_MIN_V4: usize = 576;
const MTU_MIN_V6: usize = 1_280;

impl Stack {
    /// A stack for the port described by `port`. Whoever knows `seed` can predict sequence numbers and ports, so
    /// outside of tests it must be random.
    ///
    /// # Errors
    /// See [`StackError`]: what is wrong with the parameters.
    pub fn new(config: StackConfig, port: &PortInfo, seed: u64) -> Result<Stack, StackError> {
        let routes = Routes::new(&config)?;
        check_limits(&config)?;
        let v6 = config.addresses.iter().any(|(address, _)| address.is_ipv6());
        let needed = if v6 { MTU_MIN_V6 } else { MTU_MIN_V4 };
        if port.mtu < needed {
            return Err(StackError::MtuTooSmall { mtu: port.mtu, needed });
        }
        if port.mac[0] & 1 != 0 || port.mac == [0; 6] {
            return Err(StackError::BadMac);
        }
        let wake_list = Arc::new(WakeList::default());
        Ok(Stack {
            mac: port.mac,
            mtu: port.mtu,
            capabilities: port.capabilities,
            routes,
            secret: Secret::new(seed),
            cookies: Cookies::new(seed),
            table: Table::new(config.connections_max, seed),
            listeners: Listeners::default(),
            neighbours: Neighbours::new(&config, seed),
            slow_path: SlowPath::new(&config, port.mac, port.mtu, seed),
            wheel: Wheel::new(Instant::ZERO),
            ready: ReadyQueue::new(),
            control: VecDeque::new(),
            resets: TokenBucket::new(config.resets_per_second),
            drain_rate: DrainRate::new(),
            next_ephemeral: 0,
            transmit_retry: None,
            port_blocked_at: None,
            wakers: Wakers::new(Arc::clone(&wake_list) as Arc<dyn WakeTarget>),
            wake_list,
            member: None,
            statistics: StackStatistics::default(),
            tcp_configs: [false, true].map(|v6| Arc::new(open::tcp_config(&config.tcp, port.mtu, v6))),
            prediction: Prediction::default(),
            spares: Spares::default(),
            shown: Vec::new(),
            touched: Vec::new(),
            woken: Vec::new(),
            fired: Vec::new(),
            config,
        })
    }

    /// Has wakers report to `target` instead of the internal list that [`Self::poll`] drains.
    ///
    /// # Panics
    /// There are connections, whose wakers report to that list.
    pub fn set_wake_target(&mut self, target: Arc<dyn WakeTarget>) {
        assert!(self.table.len() == 0, "the target of wakers must be set before the first connection");
        self.wakers = Wakers::new(target);
    }

    /// Receives a burst, fires timers, transmits a burst, rings the port's doorbell once.
    ///
    /// # Errors
    /// The port failed for good: call [`Self::fail`].
    pub fn poll(&mut self, now: Instant, port: &mut dyn Port) -> Result<Poll, PortError> {
        self.collect_wakes();
        let budget = self.receive_budget();
        if self.table.len() >= FETCH_CONNECTIONS_MIN {
            self.prefetch(now, port, budget);
        }
        let received = port.receive(now, budget, &mut |frame| self.on_frame(now, frame))?;
        let handed = self.receive_handed(now, budget);
        self.settle_touched(now);
        self.fire_timers(now);
        self.fire_neighbours(now);
        self.spares.age(now);
        self.run_slow_path(now);
        // Last, so that what they need has had some time to come.
        self.call_woken(now);
        let sent = self.transmit(now, port)?;
        if sent > 0 {
            port.flush(now)?;
        }
        self.ring_others();
        let more = received == budget || self.has_mail() || !self.wake_list.0.is_empty();
        Ok(Poll { work: received + handed + sent, next: self.next_deadline(now, more) })
    }

    /// Frames to receive at once: fewer where each may be many segments, so that what is due to leave need not wait.
    fn receive_budget(&self) -> usize {
        let offloads = self.capabilities.tx_segment_bytes_max > 0;
        let burst = self.config.receive_burst;
        if offloads { burst.div_ceil(SUPER_FRAMES_SHARE) } else { burst }
    }

    /// Takes note of the endpoints that were woken. Bounded: those that wake themselves while they are called wait for the
    /// next poll.
    fn collect_wakes(&mut self) {
        self.woken.extend((0..self.wake_list.0.len()).map_while(|_| self.wake_list.0.pop()));
    }

    /// Calls them.
    fn call_woken(&mut self, now: Instant) {
        let mut woken = mem::take(&mut self.woken);
        woken.drain(..).for_each(|id| self.wake(now, id));
        self.woken = woken;
    }

    /// Asks for all that the woken endpoints and the frames of the coming burst will need. One after the other they would
    /// each wait for the memory, many times; asked for together, most of that passes at once: first the connections, then
    /// what those point to, which is not known before.
    fn prefetch(&mut self, now: Instant, port: &mut dyn Port, budget: usize) {
        let Stack { table, wheel, ready, spares, woken, shown, .. } = self;
        let ask = |table: &Table, index: u32, sends: bool| {
            table.prefetch(index, sends);
            wheel.prefetch(index);
            ready.prefetch(index);
        };
        woken.iter().for_each(|id| ask(table, id.index, true));
        shown.clear();
        port.show_next(now, budget, &mut |bytes| {
            let tag = frame::peek_flow(bytes).map(|key| table.tag(&key));
            shown.extend(tag.filter(|tag| shown.last() != Some(tag)));
        });
        table.expect(shown);
        // Those that have nothing in flight begin with what others have left.
        let bare = |id: &&ConnectionId| table.get(id.index).is_some_and(|entry| entry.connection.is_bare());
        spares.prefetch(woken.iter().filter(bare).count());
        woken.iter().for_each(|id| table.prefetch_parts(id.index, true));
        if !shown.is_empty() {
            table.find_expected(shown);
            table.expected().iter().for_each(|index| ask(table, *index, false));
            table.expected().iter().for_each(|index| table.prefetch_parts(*index, false));
        }
    }

    fn next_deadline(&self, now: Instant, more: bool) -> Option<Instant> {
        let waiting = !self.ready.is_empty() || !self.control.is_empty();
        let transmit = waiting.then(|| self.transmit_retry.unwrap_or(now));
        let timers =
            [self.wheel.next_deadline(), self.neighbours.next_timeout(), transmit, more.then_some(now)];
        timers.into_iter().chain([self.spares.next_look()]).flatten().min()
    }

    fn fire_timers(&mut self, now: Instant) {
        let mut fired = mem::take(&mut self.fired);
        self.wheel.expire(now, &mut fired);
        for index in fired.drain(..) {
            self.on_timer(now, index);
        }
        self.fired = fired;
    }

    /// Counters so far.
    pub fn statistics(&self) -> &StackStatistics {
        &self.statistics
    }

    /// Every connection, as of `now`, in no particular order.
    pub fn connections(&self, now: Instant) -> impl Iterator<Item = ConnectionSummary> {
        self.table.iter().map(move |entry| entry.summary(now))
    }

    /// Where a listener is: the address it was made with, and its port if that was left to the stack.
    pub fn listener_address(&self, id: ListenerId) -> Option<SocketAddr> {
        self.listeners.get(id).map(|listener| listener.local)
    }

    /// The port is gone: every endpoint is told [`CloseReason::PortGone`], every listener is dropped.
    pub fn fail(&mut self, now: Instant) {
        self.listeners.clear();
        for index in self.table.indexes() {
            self.close(now, index, CloseReason::PortGone);
        }
        self.control.clear();
    }
}

fn check_limits(config: &StackConfig) -> Result<(), StackError> {
    let limits = [
        ("connections_max", config.connections_max == 0),
        ("receive_burst", config.receive_burst == 0),
        ("transmit_burst", config.transmit_burst == 0),
        ("segments_per_turn", config.segments_per_turn == 0),
        ("port_queue_max", config.port_queue_max.is_zero()),
        ("port_retry", config.port_retry.is_zero()),
        ("ephemeral_ports", config.ephemeral_ports.is_empty() || *config.ephemeral_ports.start() == 0),
        ("neighbours_max", config.neighbours_max == 0),
        ("neighbour_retry", config.neighbour_retry.is_zero()),
        ("neighbour_requests_max", config.neighbour_requests_max == 0),
        ("slow_path_frames_max", config.slow_path_frames_max == 0),
        ("control_frames_max", config.control_frames_max == 0),
    ];
    match limits.into_iter().find(|(_, zero)| *zero) {
        Some((field, _)) => Err(StackError::ZeroLimit { field }),
        None => Ok(()),
    }
}
