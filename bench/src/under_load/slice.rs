//! One slice: a world is built, loaded, measured and taken down.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use outrider_drivers::port::PortError;
use outrider_messenger::{Connection, EntityName};

use super::ends::{Departures, Receiver, Sender};
use super::heartbeats::Heartbeats;
use super::load::{Load, RightOfWay};
use super::tally::{Counts, Recent, Samples, Tally};
use super::{Point, Variant};
use crate::error::BenchError;
use crate::host::cpu_seconds;
use crate::lab::Lab;
use crate::node::{Addressing, Node, NodeOptions, SessionSignals, now};

/// Load runs this long before anything counts: congestion control has found the rate by then.
pub(crate) const WARM_UP: Duration = Duration::from_millis(500);
/// Between settling the window and its begin.
const WINDOW_LEAD: Duration = Duration::from_millis(20);
/// How long the session may take to come up, at any loss that is worth measuring.
pub(crate) const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Between looks at whether it has.
const CONNECT_STEP: Duration = Duration::from_millis(1);
/// How long heartbeats that were due within the window are waited for after it.
const DRAIN_PATIENCE: Duration = Duration::from_secs(3);
/// Between looks at whether they have arrived.
const DRAIN_STEP: Duration = Duration::from_millis(2);
/// Between live lines.
const SECOND: Duration = Duration::from_secs(1);

pub(crate) const PREFIX: u8 = 24;
pub(crate) const SENDER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
pub(crate) const RECEIVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
pub(crate) const PORT: u16 = 7077;

/// What one slice is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) point: Point,
    pub(super) variant: Variant,
    pub(super) seed: u64,
    /// Measured; the warm-up comes before it.
    pub(super) length: Duration,
}

/// A live report.
#[derive(Clone, Debug)]
pub(super) struct Second {
    /// Time since the last one.
    pub(super) passed: Duration,
    /// Whether it counts, or belongs to the warm-up.
    pub(super) measuring: bool,
    /// Payload received in it, bits per second.
    pub(super) goodput_bps: f64,
    /// Heartbeats in it.
    pub(super) recent: Recent,
}

/// What one slice, or several of them together, measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slice {
    pub(crate) samples: Samples,
    pub(crate) counts: Counts,
    pub(crate) payload_bytes: u64,
    /// Frame bytes that the receiver's port took off the link.
    pub(crate) link_bytes: u64,
    pub(crate) measured: Duration,
    pub(crate) cpu_seconds: f64,
    pub(crate) retransmits: u64,
}

impl Slice {
    /// Adds another slice of the same variant.
    pub(crate) fn add(&mut self, other: &Slice) {
        // Exhaustive, so that a new figure cannot be forgotten here.
        let Slice { samples, counts, payload_bytes, link_bytes, measured, cpu_seconds, retransmits } = other;
        self.samples.merge(samples);
        self.counts.add(*counts);
        self.payload_bytes += payload_bytes;
        self.link_bytes += link_bytes;
        self.measured += *measured;
        self.cpu_seconds += cpu_seconds;
        self.retransmits += retransmits;
    }
}

/// The world of a slice while it runs.
struct World {
    sender: Node,
    receiver: Node,
    connection: Connection,
    /// That of the heartbeats, where they have one of their own.
    separate: Option<Connection>,
    tally: Arc<Tally>,
    departures: Arc<Departures>,
    session: Arc<SessionSignals>,
    // Last: what the ports are attached to goes after those who use them.
    lab: Lab,
}

/// Readings at an instant; differences of two are what was measured between them.
struct Reading {
    at: outrider_drivers::time::Instant,
    payload_bytes: u64,
    link_bytes: u64,
    retransmits: u64,
    cpu_seconds: f64,
}

impl Plan {
    /// Runs the slice; `each_second` is called about every second.
    pub(super) fn run(&self, each_second: &mut dyn FnMut(&Second)) -> Result<Slice, BenchError> {
        let world = self.build()?;
        let right_of_way = Arc::new(RightOfWay::default());
        let load = Load::start(&world.connection, self.point.message_size.0 as usize, &right_of_way)?;
        // On a connection of their own they need no right of way: the load does not use its budget.
        let carrier = world.separate.as_ref().unwrap_or(&world.connection);
        let heartbeats = Heartbeats::start(
            self.variant,
            carrier,
            self.point.interval.0,
            (&world.tally, &world.departures, &right_of_way),
        )?;

        world.pass(WARM_UP, false, each_second)?;
        // Both ends of the window are settled before the first heartbeat in it is due: then no heartbeat is counted
        // by one node and not by the other.
        let from = now() + WINDOW_LEAD;
        world.tally.window.open(from);
        world.tally.window.close(from + self.length);
        world.pass(from - now(), false, each_second)?;
        let before = world.read();
        world.pass(from + self.length - now(), true, each_second)?;
        let after = world.read();
        world.drain();

        let slice = world.measured(&before, &after);
        world.take_down(heartbeats, load)?;
        Ok(slice)
    }

    fn build(&self) -> Result<World, BenchError> {
        let mut lab = self.variant.lab(&self.point, self.seed)?;
        let tally = Arc::new(Tally::default());
        let departures = Arc::new(Departures::default());
        let session = Arc::new(SessionSignals::default());
        let address = SocketAddr::new(RECEIVER, PORT);
        let send_budget_bytes = Some(self.point.send_budget.0 as usize);
        let receiver = NodeOptions {
            name: EntityName::osd(2),
            bind: Some(address),
            dispatcher: Arc::new(Receiver { tally: tally.clone() }),
            send_budget_bytes,
            health: None,
        };
        let dispatcher = Sender {
            tally: tally.clone(),
            departures: departures.clone(),
            session: session.clone(),
            samples_occupancy: false,
        };
        let sender = NodeOptions {
            name: EntityName::osd(1),
            bind: None,
            dispatcher: Arc::new(dispatcher),
            send_budget_bytes,
            health: None,
        };
        let [sender, receiver] =
            start_nodes(&mut lab, &self.point, self.variant, self.seed, [sender, receiver])?;
        let connection = dial(&sender, address)?;
        session.wait(&connection, CONNECT_PATIENCE, "try less --loss")?;
        let separate = dial_separate(&sender, address, self.variant)?;
        Ok(World { sender, receiver, connection, separate, tally, departures, session, lab })
    }
}

/// Starts the nodes of a lab, the receiver first, so that it listens when the sender dials.
pub(crate) fn start_nodes(
    lab: &mut Lab,
    point: &Point,
    variant: Variant,
    seed: u64,
    options: [NodeOptions; 2],
) -> Result<[Node; 2], BenchError> {
    let congestion = point.congestion;
    let seeds = [seed.wrapping_mul(2), seed.wrapping_mul(2).wrapping_add(1)];
    let [sender, receiver] = options;
    if let Some(hosts) = lab.hosts() {
        let config = variant.kernel_config(congestion);
        let [near, far] = &hosts.namespaces;
        let receiver = Node::start_on_kernel(Some(far), &config, seeds[1], receiver)?;
        let sender = Node::start_on_kernel(Some(near), &config, seeds[0], sender)?;
        return Ok([sender, receiver]);
    }
    let (port_a, port_b) = lab.take_ports();
    let addressing =
        |address, seed| Addressing { address: (address, PREFIX), gateway: None, congestion, seed };
    let receiver = Node::start(port_b, &addressing(RECEIVER, seeds[1]), receiver)?;
    let sender = Node::start(port_a, &addressing(SENDER, seeds[0]), sender)?;
    Ok([sender, receiver])
}

pub(crate) fn dial(sender: &Node, address: SocketAddr) -> Result<Connection, BenchError> {
    sender
        .messenger()
        .connect_to(address)
        .map_err(|error| BenchError::failed(format!("cannot connect to {address}: {error}")))
}

/// The connection of the heartbeats, where they have one of their own.
pub(crate) fn dial_separate(
    sender: &Node,
    address: SocketAddr,
    variant: Variant,
) -> Result<Option<Connection>, BenchError> {
    if variant != Variant::Separate {
        return Ok(None);
    }
    let second = dial(sender, address)?;
    wait_until_connected(&second)?;
    Ok(Some(second))
}

/// Waits for a connection whose callbacks are taken for another's.
fn wait_until_connected(connection: &Connection) -> Result<(), BenchError> {
    let deadline = now() + CONNECT_PATIENCE;
    while !connection.is_connected() {
        if now() >= deadline {
            let peer = connection.peer_address();
            return Err(BenchError::failed(format!("no second session with {peer}; try less --loss")));
        }
        std::thread::sleep(CONNECT_STEP);
    }
    Ok(())
}

impl World {
    /// Lets `length` pass, reporting about every second.
    fn pass(
        &self,
        length: Duration,
        measuring: bool,
        each_second: &mut dyn FnMut(&Second),
    ) -> Result<(), BenchError> {
        let end = now() + length;
        loop {
            let (began, bytes) = (now(), self.tally.payload_bytes());
            let left = end - began;
            if left.is_zero() {
                return Ok(());
            }
            if self.session.lost.wait(left.min(SECOND)) {
                return Err(BenchError::failed("the connection was lost while it was measured"));
            }
            let passed = now() - began;
            let received = self.tally.payload_bytes() - bytes;
            each_second(&Second {
                passed,
                measuring,
                goodput_bps: received as f64 * 8.0 / passed.as_secs_f64(),
                recent: self.tally.take_recent(),
            });
        }
    }

    fn read(&self) -> Reading {
        Reading {
            at: now(),
            payload_bytes: self.tally.payload_bytes(),
            link_bytes: self.link_bytes(),
            retransmits: self.connection.occupancy().send.retransmits,
            cpu_seconds: cpu_seconds(),
        }
    }

    /// Frame bytes that the receiver took off the link.
    fn link_bytes(&self) -> u64 {
        match (self.lab.hosts(), self.receiver.shards()) {
            (Some(hosts), _) => hosts.received_bytes(),
            (None, Some(shards)) => shards.statistics().port().rx_bytes,
            (None, None) => 0,
        }
    }

    /// Waits for heartbeats that were due within the window and are still on their way. The load goes on meanwhile.
    fn drain(&self) {
        let deadline = now() + DRAIN_PATIENCE;
        loop {
            let counts = self.tally.counts();
            if counts.received >= counts.sent || now() >= deadline {
                return;
            }
            std::thread::sleep(DRAIN_STEP);
        }
    }

    fn measured(&self, before: &Reading, after: &Reading) -> Slice {
        Slice {
            samples: self.tally.distributions(),
            counts: self.tally.counts(),
            payload_bytes: after.payload_bytes - before.payload_bytes,
            link_bytes: after.link_bytes - before.link_bytes,
            measured: after.at - before.at,
            cpu_seconds: after.cpu_seconds - before.cpu_seconds,
            retransmits: after.retransmits - before.retransmits,
        }
    }

    fn take_down(self, heartbeats: Heartbeats, load: Load) -> Result<(), BenchError> {
        self.connection.mark_down();
        if let Some(separate) = &self.separate {
            separate.mark_down();
        }
        heartbeats.stop();
        load.join();
        let failed = |error| BenchError::failed(format!("a port failed while it was measured: {error}"));
        if let Some(error) = self.sender.stop_now().and_then(|report| report.error) {
            return Err(failed(error));
        }
        match self.receiver.stop_now().and_then(|report| report.error) {
            // The other end of a cable goes with the sender.
            None | Some(PortError::Gone { .. }) => {}
            Some(error) => return Err(failed(error)),
        }
        Ok(())
    }
}
