//! The two nodes of an experiment: one sends load and heartbeats, the other receives them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use outrider_drivers::port::PortError;
use outrider_messenger::{Connection, Dispatcher, EntityName, HealthConfig};

use super::ends::{Departures, Receiver, Sender};
use super::heartbeats::Heartbeats;
use super::load::{Load, RightOfWay};
use super::tally::Tally;
use super::{Point, Variant};
use crate::error::BenchError;
use crate::lab::Lab;
use crate::node::{Addressing, Node, NodeOptions, SessionSignals, now};

/// How long the session may take to come up, at any loss that is worth measuring.
pub(crate) const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// Between looks at whether it has.
const CONNECT_STEP: Duration = Duration::from_millis(1);

const PREFIX: u8 = 24;
pub(crate) const SENDER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
pub(crate) const RECEIVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
pub(crate) const PORT: u16 = 7077;

/// What the nodes are to be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairPlan {
    /// The setting.
    pub(crate) point: Point,
    /// How heartbeats travel.
    pub(crate) variant: Variant,
    /// Of the lab and the nodes.
    pub(crate) seed: u64,
    /// When a peer counts as stalled or silent, if that is asked.
    pub(crate) health: Option<HealthConfig>,
}

impl PairPlan {
    /// The lab for [`Pair::connect`].
    pub(crate) fn lab(&self) -> Result<Lab, BenchError> {
        if self.variant.is_over_sockets(self.point.link) {
            Lab::between_hosts(&self.point, [(SENDER, PREFIX), (RECEIVER, PREFIX)])
        } else {
            Lab::of_ports(&self.point, self.seed)
        }
    }
}

/// The nodes while they run, connected.
pub(crate) struct Pair {
    plan: PairPlan,
    pub(crate) sender: Node,
    pub(crate) receiver: Node,
    pub(crate) connection: Connection,
    /// That of the heartbeats, where they have one of their own.
    separate: Option<Connection>,
    pub(crate) tally: Arc<Tally>,
    departures: Arc<Departures>,
    pub(crate) session: Arc<SessionSignals>,
    // Last: what the ports are attached to goes after those who use them.
    pub(crate) lab: Lab,
}

/// What they send to each other.
pub(crate) struct Traffic {
    heartbeats: Heartbeats,
    load: Option<Load>,
}

impl Pair {
    /// Starts the nodes of `lab` and connects them. `dispatcher` makes the receiver's out of the one that counts.
    pub(crate) fn connect(
        plan: PairPlan,
        mut lab: Lab,
        dispatcher: impl FnOnce(Receiver) -> Arc<dyn Dispatcher>,
    ) -> Result<Self, BenchError> {
        let tally = Arc::new(Tally::default());
        let departures = Arc::new(Departures::default());
        let session = Arc::new(SessionSignals::default());
        let address = SocketAddr::new(RECEIVER, PORT);
        let send_budget_bytes = Some(plan.point.send_budget.0 as usize);
        let receiver = NodeOptions {
            name: EntityName::osd(2),
            bind: Some(address),
            dispatcher: dispatcher(Receiver { tally: tally.clone() }),
            send_budget_bytes,
            health: plan.health,
        };
        let counting = Sender {
            tally: tally.clone(),
            departures: departures.clone(),
            session: session.clone(),
            samples_occupancy: false,
        };
        let sender = NodeOptions {
            name: EntityName::osd(1),
            bind: None,
            dispatcher: Arc::new(counting),
            send_budget_bytes,
            health: plan.health,
        };
        let [sender, receiver] = start_nodes(&mut lab, &plan, [sender, receiver])?;
        let connection = dial(&sender)?;
        session.wait(&connection, CONNECT_PATIENCE, "try less --loss")?;
        Ok(Pair { plan, sender, receiver, connection, separate: None, tally, departures, session, lab })
    }

    /// Gives the heartbeats a connection of their own, where they are to have one.
    pub(crate) fn connect_separately(&mut self) -> Result<(), BenchError> {
        if self.plan.variant == Variant::Separate {
            let second = dial(&self.sender)?;
            wait_until_connected(&second)?;
            self.separate = Some(second);
        }
        Ok(())
    }

    /// Whether heartbeats have a connection of their own.
    pub(crate) fn is_separate(&self) -> bool {
        self.separate.is_some()
    }

    /// Begins to send heartbeats, and load if wanted.
    pub(crate) fn start(&self, loaded: bool) -> Result<Traffic, BenchError> {
        let right_of_way = Arc::new(RightOfWay::default());
        let message_bytes = self.plan.point.message_size.0 as usize;
        let load =
            if loaded { Some(Load::start(&self.connection, message_bytes, &right_of_way)?) } else { None };
        // On a connection of their own they need no right of way: the load does not use its budget.
        let carrier = self.separate.as_ref().unwrap_or(&self.connection);
        let shared = (&self.tally, &self.departures, &right_of_way);
        let interval = self.plan.point.interval.0;
        let heartbeats = Heartbeats::start(self.plan.variant, carrier, interval, shared)?;
        Ok(Traffic { heartbeats, load })
    }

    /// Ends the traffic and the nodes.
    pub(crate) fn take_down(self, traffic: Traffic) -> Result<(), BenchError> {
        self.connection.mark_down();
        if let Some(separate) = &self.separate {
            separate.mark_down();
        }
        traffic.heartbeats.stop();
        if let Some(load) = traffic.load {
            load.join();
        }
        let failed = |error| BenchError::failed(format!("a port failed while it was measured: {error}"));
        if let Some(error) = self.sender.stop_now().and_then(|report| report.error) {
            return Err(failed(error));
        }
        match self.receiver.stop_now().and_then(|report| report.error) {
            // The other end of a cable goes with the sender.
            None | Some(PortError::Gone { .. }) => Ok(()),
            Some(error) => Err(failed(error)),
        }
    }
}

/// Starts the nodes of a lab, the receiver first, so that it listens when the sender dials.
fn start_nodes(lab: &mut Lab, plan: &PairPlan, options: [NodeOptions; 2]) -> Result<[Node; 2], BenchError> {
    let congestion = plan.point.congestion;
    let seeds = [plan.seed.wrapping_mul(2), plan.seed.wrapping_mul(2).wrapping_add(1)];
    let [sender, receiver] = options;
    if let Some(hosts) = lab.hosts() {
        let config = plan.variant.kernel_config(congestion);
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

fn dial(sender: &Node) -> Result<Connection, BenchError> {
    let address = SocketAddr::new(RECEIVER, PORT);
    sender
        .messenger()
        .connect_to(address)
        .map_err(|error| BenchError::failed(format!("cannot connect to {address}: {error}")))
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
