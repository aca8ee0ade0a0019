//! Two of our stacks on a cable in virtual time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use outrider_drivers::memory::{LinkConfig, MemoryPort};
use outrider_drivers::port::Port;
use outrider_drivers::time::Instant;
use outrider_stack::net::{ListenOptions, Stack, StackConfig};
use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::tcp::connection::Config as TcpConfig;

use super::flow::{Feed, Flow, Meter, Supply};
use super::world::{Counters, Hosts, plug};
use crate::error::BenchError;

const SENDER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
const RECEIVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
const PREFIX: u8 = 24;
const TCP_PORT: u16 = 7;
/// Half-open connections at most: as many as are ever begun.
const BACKLOG: usize = 1 << 17;

struct Host {
    stack: Stack,
    port: MemoryPort,
    next: Option<Instant>,
}

impl Host {
    fn new(address: IpAddr, port: MemoryPort, setting: &Setting, seed: u64) -> Result<Self, BenchError> {
        let tcp = TcpConfig {
            algorithm: setting.congestion,
            receive_window_initial: TcpConfig::default().receive_window_initial.min(setting.window_bytes),
            receive_window_max: setting.window_bytes,
            ..TcpConfig::default()
        };
        let config = StackConfig { tcp, ..StackConfig::new([(address, PREFIX)]) };
        let stack = Stack::new(config, port.info(), seed)
            .map_err(|error| BenchError::failed(format!("cannot make a stack: {error}")))?;
        Ok(Host { stack, port, next: Some(Instant::ZERO) })
    }

    fn next_event(&self, now: Instant) -> Option<Instant> {
        [self.next, self.port.next_arrival(now)].into_iter().flatten().min()
    }

    /// Polls if something is due; returns whether anything still is.
    fn poll(&mut self, now: Instant) -> Result<bool, BenchError> {
        if self.next_event(now).is_none_or(|at| at > now) {
            return Ok(false);
        }
        let poll = self
            .stack
            .poll(now, &mut self.port)
            .map_err(|error| BenchError::failed(format!("the cable failed: {error}")))?;
        self.next = poll.next;
        Ok(true)
    }
}

/// What the hosts of a pair are given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) congestion: Algorithm,
    /// Largest receive window.
    pub(super) window_bytes: u32,
    /// Connections send without end; otherwise what they are fed.
    pub(super) endless: bool,
}

/// The pair.
pub(super) struct OutriderPair {
    sender: Host,
    receiver: Host,
    /// Of the sender's ends: who is connected, and what went wrong.
    opened: Arc<Meter>,
    /// Of the receiver's ends.
    received: Arc<Meter>,
    feeds: Vec<Arc<Feed>>,
    setting: Setting,
}

impl OutriderPair {
    pub(super) fn new(link: &LinkConfig, setting: &Setting, seed: u64) -> Result<Self, BenchError> {
        let (near, far) = plug(link, seed);
        let received = Arc::new(Meter::default());
        let mut receiver = Host::new(RECEIVER, far, setting, seed.wrapping_add(1))?;
        let sink = Flow {
            supply: Supply::None,
            meter: Arc::clone(&received),
            room_bytes: setting.window_bytes as usize,
        };
        let options = ListenOptions { backlog: BACKLOG };
        receiver
            .stack
            .listen(SocketAddr::new(RECEIVER, TCP_PORT), options, Box::new(sink))
            .map_err(|error| BenchError::failed(format!("cannot listen: {error}")))?;
        Ok(OutriderPair {
            sender: Host::new(SENDER, near, setting, seed)?,
            receiver,
            opened: Arc::default(),
            received,
            feeds: Vec::new(),
            setting: *setting,
        })
    }
}

impl Hosts for OutriderPair {
    fn connect(&mut self, now: Instant) -> Result<(), BenchError> {
        let supply = if self.setting.endless {
            Supply::Endless
        } else {
            let feed = Arc::new(Feed::default());
            self.feeds.push(Arc::clone(&feed));
            Supply::Fed(feed)
        };
        let room_bytes = self.setting.window_bytes as usize;
        let flow = Flow { supply, meter: Arc::clone(&self.opened), room_bytes };
        self.sender.stack.connect(now, SocketAddr::new(RECEIVER, TCP_PORT), Box::new(flow));
        self.sender.next = Some(now);
        Ok(())
    }

    fn established(&mut self) -> usize {
        self.opened.established()
    }

    fn feed(&mut self, now: Instant, index: usize, bytes: usize) {
        self.feeds[index].add(bytes as u64);
        self.sender.next = Some(now);
    }

    fn poll(&mut self, now: Instant) -> Result<bool, BenchError> {
        let sender = self.sender.poll(now)?;
        let receiver = self.receiver.poll(now)?;
        match self.opened.closed().or(self.received.closed()) {
            Some(reason) => Err(BenchError::failed(format!("a connection of our stack ended: {reason}"))),
            None => Ok(sender || receiver),
        }
    }

    fn next_event(&self, now: Instant) -> Option<Instant> {
        [&self.sender, &self.receiver].into_iter().filter_map(|host| host.next_event(now)).min()
    }

    fn received(&self) -> &Meter {
        &self.received
    }

    fn counters(&self, now: Instant) -> Counters {
        let retransmits = self.sender.stack.connections(now).map(|connection| connection.send.retransmits);
        Counters {
            bytes: self.received.bytes(),
            retransmits: Some(retransmits.sum()),
            ..Counters::of_ports(&self.sender.port, &self.receiver.port)
        }
    }
}
