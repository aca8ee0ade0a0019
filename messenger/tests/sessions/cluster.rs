//! Whole messengers on stacks of their own, joined by a switch, in virtual time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrider_drivers::memory::{LinkConfig, MemoryPort, Switch};
use outrider_drivers::port::Port;
use outrider_messenger::transport::{DrivenStack, Transport};
use outrider_messenger::{
    Connection, Dispatcher, Driven, EntityName, Message, Messenger, MessengerBuilder, OobMessage,
};
use outrider_stack::net::{Stack, StackConfig};
use outrider_stack::time::{Clock, Instant, VirtualClock};

/// What a dispatcher was told. Connections are named by their number within their messenger.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Message(u64, Message),
    Connect(u64),
    Accept(u64),
    Reset(u64),
    RemoteReset(u64),
    Refused(u64),
}

/// Takes down all that its messenger tells.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) told: Mutex<Vec<Told>>,
    /// Out-of-band messages by connection: how many, and when the last one came.
    pub(super) oobs: Mutex<BTreeMap<u64, (u64, Instant)>>,
}

impl Recorder {
    fn tell(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }

    pub(super) fn messages(&self) -> Vec<Message> {
        let of =
            |told: &Told| if let Told::Message(_, message) = told { Some(message.clone()) } else { None };
        self.told.lock().unwrap().iter().filter_map(of).collect()
    }

    /// All but messages.
    pub(super) fn callbacks(&self) -> Vec<Told> {
        let told = self.told.lock().unwrap();
        told.iter().filter(|told| !matches!(told, Told::Message(..))).cloned().collect()
    }

    pub(super) fn heartbeats(&self) -> u64 {
        self.oobs.lock().unwrap().values().map(|(count, _)| count).sum()
    }
}

impl Dispatcher for Recorder {
    fn ms_dispatch(&self, connection: &Connection, message: Message) -> Result<(), Message> {
        self.tell(Told::Message(connection.id(), message));
        Ok(())
    }

    fn ms_dispatch_oob(&self, connection: &Connection, message: OobMessage) {
        let mut oobs = self.oobs.lock().unwrap();
        let entry = oobs.entry(connection.id()).or_insert((0, Instant::ZERO));
        *entry = (entry.0 + 1, message.arrived_at);
    }

    fn ms_handle_connect(&self, connection: &Connection) {
        self.tell(Told::Connect(connection.id()));
    }

    fn ms_handle_accept(&self, connection: &Connection) {
        self.tell(Told::Accept(connection.id()));
    }

    fn ms_handle_reset(&self, connection: &Connection) {
        self.tell(Told::Reset(connection.id()));
    }

    fn ms_handle_remote_reset(&self, connection: &Connection) {
        self.tell(Told::RemoteReset(connection.id()));
    }

    fn ms_handle_refused(&self, connection: &Connection) {
        self.tell(Told::Refused(connection.id()));
    }
}

/// A host with a messenger on it.
pub(super) struct Host {
    pub(super) messenger: Driven,
    pub(super) recorder: Arc<Recorder>,
    carrier: Arc<DrivenStack>,
    next: Option<Instant>,
}

impl Host {
    /// Resets every connection of this host's stack.
    pub(super) fn reset_connections(&self, now: Instant) -> usize {
        let mut stack = self.carrier.stack();
        let ids: Vec<_> = stack.connections(now).map(|connection| connection.id).collect();
        ids.iter().for_each(|id| stack.abort(now, *id));
        ids.len()
    }

    /// Connections of this host's stack.
    pub(super) fn transports(&self, now: Instant) -> usize {
        self.carrier.stack().connections(now).count()
    }
}

type Tune = Box<dyn Fn(u8, MessengerBuilder) -> MessengerBuilder>;

/// Hosts on a switch, named osd.1 and up, at 10.0.0.1:6800 and up.
pub(super) struct Cluster {
    pub(super) now: Instant,
    pub(super) hosts: Vec<Option<Host>>,
    pub(super) ports: Vec<MemoryPort>,
    clock: Arc<VirtualClock>,
    tune: Tune,
    /// Lives so far, of all hosts.
    lives: u64,
    seed: u64,
}

pub(super) fn address(host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 0, 0, host]), 6800)
}

/// Half a round trip between two hosts.
pub(super) const HALF_TRIP: Duration = Duration::from_millis(1);

/// Links without faults that take [`HALF_TRIP`] from host to host.
pub(super) fn calm() -> LinkConfig {
    LinkConfig { delay: HALF_TRIP / 2, ..LinkConfig::default() }
}

impl Cluster {
    /// `count` hosts; `tune` makes the messenger of each life of host 1, 2, ... what it is to be.
    pub(super) fn new(
        count: u8,
        link: &LinkConfig,
        seed: u64,
        tune: impl Fn(u8, MessengerBuilder) -> MessengerBuilder + 'static,
    ) -> Cluster {
        let switch = Switch::new(seed);
        let ports = (0..count).map(|_| switch.connect(link.clone())).collect();
        let mut cluster = Cluster {
            now: Instant::from_millis(1),
            hosts: (0..count).map(|_| None).collect(),
            ports,
            clock: Arc::default(),
            tune: Box::new(tune),
            lives: 0,
            seed,
        };
        cluster.set_now(cluster.now);
        (1..=count).for_each(|host| cluster.boot(host));
        cluster
    }

    fn set_now(&mut self, now: Instant) {
        self.now = now;
        self.clock.set(now);
    }

    pub(super) fn host(&self, host: u8) -> &Host {
        self.hosts[usize::from(host) - 1].as_ref().expect("it is up")
    }

    pub(super) fn is_up(&self, host: u8) -> bool {
        self.hosts[usize::from(host) - 1].is_some()
    }

    /// Whether links swallow all that is sent from now on.
    pub(super) fn set_blackhole(&mut self, swallow: bool) {
        for port in &mut self.ports {
            port.set_blackhole(swallow);
        }
    }

    /// Starts a host that is down.
    pub(super) fn boot(&mut self, host: u8) {
        self.start(host, true);
    }

    /// Starts a host whose messenger listens nowhere.
    pub(super) fn boot_deaf(&mut self, host: u8) {
        self.start(host, false);
    }

    fn start(&mut self, host: u8, listens: bool) {
        self.lives += 1;
        let port = &self.ports[usize::from(host) - 1];
        let mut config = StackConfig::new([(address(host).ip(), 24)]);
        config.tcp.rto_initial = Duration::from_millis(200);
        config.tcp.user_timeout = Duration::from_secs(5);
        config.neighbour_retry = Duration::from_millis(100);
        let seed = self.seed.wrapping_mul(1_000_003) ^ self.lives;
        let stack = Stack::new(config, port.info(), seed).expect("a sound configuration");
        let carrier = DrivenStack::new(stack, Arc::clone(&self.clock) as Arc<dyn Clock>);
        let recorder = Arc::new(Recorder::default());
        let builder = Messenger::builder(EntityName::osd(host.into()))
            .nonce(seed)
            .transport(Arc::clone(&carrier) as Arc<dyn Transport>)
            .handshake_timeout(Duration::from_secs(3))
            .dispatcher(Arc::clone(&recorder) as Arc<dyn Dispatcher>);
        let builder = if listens { builder.bind(address(host)) } else { builder };
        let messenger = (self.tune)(host, builder).start_driven().expect("a messenger starts");
        let next = Some(self.now);
        self.hosts[usize::from(host) - 1] = Some(Host { messenger, recorder, carrier, next });
    }

    /// A host is gone without a word. What its dispatcher was told is left.
    pub(super) fn crash(&mut self, host: u8) -> Arc<Recorder> {
        let Host { messenger, recorder, carrier, .. } =
            self.hosts[usize::from(host) - 1].take().expect("it is up");
        // The stack goes first: nothing of the end reaches the wire.
        let config = StackConfig::new([(address(host).ip(), 24)]);
        let port = &self.ports[usize::from(host) - 1];
        let empty = Stack::new(config, port.info(), 0).expect("a sound configuration");
        let old = std::mem::replace(&mut *carrier.stack(), empty);
        drop(old);
        drop(messenger);
        recorder
    }

    /// Something was done to a host from outside: it is polled at once.
    pub(super) fn kick(&mut self) {
        self.hosts.iter_mut().flatten().for_each(|host| host.next = Some(self.now));
    }

    /// Does all that is due at this instant, and moves to the next at which something is. Returns whether there is one.
    pub(super) fn step(&mut self) -> bool {
        let now = self.now;
        let next = loop {
            let mut busy = false;
            let mut next: Option<Instant> = None;
            for (host, port) in self.hosts.iter_mut().zip(&mut self.ports) {
                let Some(host) = host else {
                    // Nobody fetches what comes for a host that is down.
                    continue;
                };
                let arrival = port.next_arrival(now);
                let due = [host.next, arrival].into_iter().flatten().min();
                if due.is_some_and(|due| due <= now) {
                    busy |= host.poll(now, port);
                }
                next = [next, host.next, port.next_arrival(now)].into_iter().flatten().min();
            }
            if !busy && next.is_none_or(|next| next > now) {
                break next;
            }
        };
        if let Some(next) = next {
            self.set_now(next);
        }
        next.is_some()
    }

    /// Steps until `done` or until `limit` has come. Returns whether it is done.
    pub(super) fn run_until(&mut self, limit: Instant, mut done: impl FnMut(&Cluster) -> bool) -> bool {
        while !done(self) {
            if self.now >= limit {
                return false;
            }
            if !self.step() || self.now > limit {
                self.set_now(limit);
            }
        }
        true
    }

    /// Lets this much time pass.
    pub(super) fn run_for(&mut self, time: Duration) {
        let limit = self.now + time;
        self.kick();
        self.run_until(limit, |_| false);
    }
}

impl Host {
    /// Whether anything was done.
    fn poll(&mut self, now: Instant, port: &mut MemoryPort) -> bool {
        let messengers = std::slice::from_mut(&mut self.messenger);
        let polled = self.carrier.poll(now, port, messengers).expect("the link lasts");
        self.next = polled.next;
        polled.work > 0
    }
}
