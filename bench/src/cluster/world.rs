//! Virtual time: nodes on a switch, all run by one thread, from event to event.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use outrider_drivers::memory::{LinkConfig, MemoryPort, Switch};
use outrider_drivers::port::Port;
use outrider_drivers::time::{Clock, Instant, VirtualClock, thread_cpu_time};
use outrider_messenger::transport::{DrivenStack, Transport};
use outrider_messenger::{Driven, MessengerBuilder};
use outrider_stack::net::{Stack, StackConfig};

use crate::error::BenchError;
use crate::stop;

/// All nodes are in 10.77.0.0/16, from 10.77.0.1 on.
const NETWORK: u32 = 10 << 24 | 77 << 16;
const PREFIX: u8 = 16;
/// Polls of one node at one instant before it is taken to be stuck.
const POLLS_PER_INSTANT_MAX: u32 = 100_000;

/// The address of the node of this number, from zero.
pub(crate) fn ip(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(NETWORK + 1 + node as u32))
}

/// What a node does by itself at times, besides what its messengers do.
pub(crate) trait Application {
    /// Does what is due at `now`.
    fn run(&mut self, now: Instant);

    /// When something is due next.
    fn next(&self) -> Option<Instant>;
}

/// What has passed through a node's port, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Frames that the node sent.
    pub(crate) frames: u64,
    /// Their bytes, Ethernet headers included.
    pub(crate) bytes: u64,
    /// Frames that the node received.
    pub(crate) received_frames: u64,
    /// Frames that had no room.
    pub(crate) dropped: u64,
}

/// A host: a stack on a port of the switch, and the messengers on it.
pub(crate) struct Node {
    carrier: Arc<DrivenStack>,
    port: MemoryPort,
    pub(crate) messengers: Vec<Driven>,
    pub(crate) application: Option<Box<dyn Application>>,
    next: Option<Instant>,
    /// Processor time spent in this node, the switch's work on what it sends included, and in how many turns.
    cpu: Duration,
    turns: u32,
}

impl Node {
    fn next_event(&self, now: Instant) -> Option<Instant> {
        let application = self.application.as_ref().and_then(|application| application.next());
        [self.next, self.port.next_arrival(now), application].into_iter().flatten().min()
    }

    fn poll(&mut self, now: Instant) -> Result<(), BenchError> {
        if let Some(application) = &mut self.application {
            application.run(now);
        }
        let failed = |error| BenchError::failed(format!("a port of the switch failed: {error}"));
        for _ in 0..POLLS_PER_INSTANT_MAX {
            let polled = self.carrier.poll(now, &mut self.port, &mut self.messengers).map_err(failed)?;
            self.next = polled.next;
            if polled.next.is_none_or(|next| next > now) {
                return Ok(());
            }
        }
        Err(BenchError::failed(format!("a node is busy without end at {now:?}; report this")))
    }

    /// Ends of connections on this node.
    pub(crate) fn connection_ends(&self, now: Instant) -> usize {
        self.stack().connections(now).count()
    }

    /// Its stack. Must be given back before the node has its turn.
    pub(crate) fn stack(&self) -> MutexGuard<'_, Stack> {
        self.carrier.stack()
    }

    pub(crate) fn traffic(&self) -> Traffic {
        let statistics = self.port.statistics();
        let link = self.port.link_statistics();
        Traffic {
            frames: statistics.tx_frames,
            bytes: statistics.tx_bytes,
            received_frames: statistics.rx_frames,
            dropped: statistics.tx_dropped + link.dropped_queue_frames + link.dropped_overrun_frames,
        }
    }
}

/// Nodes on a switch, and the clock of them all.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    pub(crate) switch: Switch,
    clock: Arc<VirtualClock>,
    link: LinkConfig,
    seed: u64,
    /// Between two looks of the nodes at what has happened; zero: they see each event at its instant.
    pub(crate) poll_every: Duration,
    /// Whether the processor time of each node is told: a reading for each of its turns, which costs a microsecond.
    pub(crate) meters_nodes: bool,
    /// What it costs to read the processor's time once.
    reading: Duration,
    /// Processor time of everything in [`Self::run_to`].
    cpu: Duration,
    /// The nodes that have something to do at the present instant.
    due: Vec<usize>,
}

impl World {
    /// Without nodes. Every link to the switch is `link` both ways.
    pub(crate) fn new(link: LinkConfig, seed: u64) -> Self {
        let now = Instant::from_millis(1);
        let clock = Arc::new(VirtualClock::default());
        clock.set(now);
        World {
            now,
            nodes: Vec::new(),
            switch: Switch::new(seed),
            clock,
            link,
            seed,
            poll_every: Duration::ZERO,
            meters_nodes: false,
            reading: cost_of_reading(),
            cpu: Duration::ZERO,
            due: Vec::new(),
        }
    }

    /// One more node, with these messengers; the builders get transport and nonce here. `tune` makes its stack what it
    /// is to be.
    pub(crate) fn add(
        &mut self,
        tune: impl FnOnce(&mut StackConfig),
        builders: Vec<MessengerBuilder>,
    ) -> Result<(), BenchError> {
        let number = self.nodes.len();
        let mut config = StackConfig::new([(ip(number), PREFIX)]);
        tune(&mut config);
        let port = self.switch.connect(self.link.clone());
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
        let stack = Stack::new(config, port.info(), seed);
        let stack = stack.map_err(|error| BenchError::failed(format!("cannot make a stack: {error}")))?;
        let carrier = DrivenStack::new(stack, Arc::clone(&self.clock) as Arc<dyn Clock>);
        let mut messengers = Vec::new();
        for (index, builder) in builders.into_iter().enumerate() {
            let transport = Arc::clone(&carrier) as Arc<dyn Transport>;
            let nonce = seed.wrapping_mul(16).wrapping_add(index as u64);
            let started = builder.transport(transport).nonce(nonce).start_driven();
            messengers.push(
                started.map_err(|error| BenchError::failed(format!("a messenger did not start: {error}")))?,
            );
        }
        let next = Some(self.now);
        self.nodes.push(Node {
            carrier,
            port,
            messengers,
            application: None,
            next,
            cpu: Duration::ZERO,
            turns: 0,
        });
        Ok(())
    }

    /// Something was done to a node from outside: it has its turn at once.
    pub(crate) fn kick(&mut self, node: usize) {
        self.nodes[node].next = Some(self.now);
    }

    /// Runs to `limit`.
    pub(crate) fn run_to(&mut self, limit: Instant) -> Result<(), BenchError> {
        let before = thread_cpu_time();
        while let Some(next) =
            self.next_event().map(|event| self.look_at(event)).filter(|next| *next <= limit)
        {
            stop::check()?;
            self.set_now(next.max(self.now));
            self.poll_due()?;
        }
        self.set_now(limit);
        self.cpu += thread_cpu_time().saturating_sub(before);
        Ok(())
    }

    /// When the nodes look at what happens at `event`.
    fn look_at(&self, event: Instant) -> Instant {
        let step = u64::try_from(self.poll_every.as_nanos()).unwrap_or(u64::MAX);
        let nanos = event.as_nanos();
        Instant::from_nanos(if step == 0 { nanos } else { nanos.div_ceil(step).saturating_mul(step) })
    }

    fn set_now(&mut self, now: Instant) {
        self.now = now;
        self.clock.set(now);
    }

    fn next_event(&self) -> Option<Instant> {
        self.nodes.iter().filter_map(|node| node.next_event(self.now)).min()
    }

    /// Gives every node a turn that has something to do now, and writes down what each takes.
    fn poll_due(&mut self) -> Result<(), BenchError> {
        let now = self.now;
        let is_due = |node: &Node| node.next_event(now).is_some_and(|next| next <= now);
        let due = &mut self.due;
        due.clear();
        due.extend(self.nodes.iter().enumerate().filter(|(_, node)| is_due(node)).map(|(index, _)| index));
        let mut before = if self.meters_nodes { thread_cpu_time() } else { Duration::ZERO };
        for index in due.drain(..) {
            let node = &mut self.nodes[index];
            node.poll(now)?;
            if !self.meters_nodes {
                continue;
            }
            let after = thread_cpu_time();
            node.cpu += after.saturating_sub(before);
            node.turns += 1;
            before = after;
        }
        Ok(())
    }

    /// Runs until `done`, for `limit` at most; whether it is.
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&World) -> bool,
    ) -> Result<bool, BenchError> {
        /// Between two looks.
        const STEP: Duration = Duration::from_millis(1);
        let give_up = self.now + limit;
        while !done(self) {
            if self.now >= give_up {
                return Ok(false);
            }
            self.run_to(self.now + STEP)?;
        }
        Ok(true)
    }

    /// Processor time of a node since [`Self::clear_cpu`], with [`Self::meters_nodes`].
    pub(crate) fn cpu_of(&self, node: &Node) -> Duration {
        node.cpu.saturating_sub(self.reading * node.turns)
    }

    /// Processor time of everything since [`Self::clear_cpu`]: the nodes, the switch, and the clock that moves from event
    /// to event.
    pub(crate) fn cpu(&self) -> Duration {
        self.cpu
    }

    /// Forgets the processor time spent so far.
    pub(crate) fn clear_cpu(&mut self) {
        self.cpu = Duration::ZERO;
        for node in &mut self.nodes {
            (node.cpu, node.turns) = (Duration::ZERO, 0);
        }
    }

    /// What all nodes' ports have counted.
    pub(crate) fn traffic(&self) -> Traffic {
        self.nodes.iter().map(Node::traffic).fold(Traffic::default(), |sum, one| Traffic {
            frames: sum.frames + one.frames,
            bytes: sum.bytes + one.bytes,
            received_frames: sum.received_frames + one.received_frames,
            dropped: sum.dropped + one.dropped,
        })
    }
}

/// A port of a node.
pub(crate) fn address(node: usize, port: u16) -> SocketAddr {
    SocketAddr::new(ip(node), port)
}

/// What it costs to read the processor's time: a call into the kernel, once for each turn of a node.
fn cost_of_reading() -> Duration {
    const READINGS: u32 = 1_000;
    let before = thread_cpu_time();
    for _ in 1..READINGS {
        std::hint::black_box(thread_cpu_time());
    }
    thread_cpu_time().saturating_sub(before) / READINGS
}
