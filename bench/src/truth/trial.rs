//! One trial: a world is built and loaded, left alone for a while, and then something happens to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrider_drivers::port::PortError;
use outrider_drivers::time::Instant;
use outrider_messenger::{Connection, EntityName, HealthConfig};

use super::event::Event;
use super::judge::{Judge, Said};
use super::scissors::Scissors;
use super::sieve::Lost;
use super::victim::{Gates, Victim};
use crate::error::BenchError;
use crate::lab::Lab;
use crate::node::{Node, NodeOptions, SessionSignals, now};
use crate::under_load::{
    CONNECT_PATIENCE, Counts, Departures, Heartbeats, Load, PORT, Point, RECEIVER, Receiver, RightOfWay,
    Samples, Sender, Tally, Variant, WARM_UP, dial, dial_separate, start_nodes,
};

/// Between settling a window and its begin: the heartbeats that count are not yet due.
const WINDOW_LEAD: Duration = Duration::from_millis(5);
const GOLDEN_RATIO: f64 = 1.618_033_988_749_895;
/// Load and heartbeats run for so many intervals at least before anything counts.
const WARM_UP_INTERVALS: u32 = 5;
/// After a window: what was due in it arrives.
const SETTLE: Duration = Duration::from_millis(200);
/// How long nothing may be said before the event, if that can be had.
const QUIET_PATIENCE: Duration = Duration::from_secs(1);
/// How long the victim's threads may take to come to their gates.
const CATCH_PATIENCE: Duration = Duration::from_secs(10);
/// Between looks at whether the receiver has accepted.
const ACCEPT_STEP: Duration = Duration::from_millis(1);

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    pub(super) point: Point,
    pub(super) variant: Variant,
    pub(super) event: Event,
    pub(super) seed: u64,
    /// How long the heartbeats are watched before the event.
    pub(super) calm: Duration,
    /// How long the event lasts.
    pub(super) length: Duration,
    /// Heartbeats of a design that has nothing else to go by may stay unanswered for so long.
    pub(super) grace: Duration,
    /// Whether messages saturate the link.
    pub(super) loaded: bool,
}

/// The heartbeats that were due in some time.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    pub(super) samples: Samples,
    pub(super) counts: Counts,
}

/// How a trial went.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) before: Phase,
    pub(super) during: Phase,
    /// What was said for most of the event, and how long after its begin first.
    pub(super) verdict: Option<(&'static str, Duration)>,
    /// Verdicts during the event other than that.
    pub(super) passing_verdicts: u64,
    /// Verdicts come to while nothing was the matter.
    pub(super) false_verdicts: u64,
}

/// What a trial that ends with the verdict found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Detection {
    /// From the event until the fault was named; `None`: it was not.
    pub(super) after: Option<Duration>,
    /// Verdicts come to while nothing was the matter.
    pub(super) false_positives: u64,
}

/// A world under load, with heartbeats and one who judges by them.
struct Running {
    world: World,
    judge: Judge,
    heartbeats: Heartbeats,
    load: Option<Load>,
}

/// Opens the gates however the trial ends: threads that are held cannot be joined.
struct Release(Arc<Gates>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.open();
    }
}

struct World {
    // First: dropped before the nodes, whose threads it frees.
    gates: Release,
    sender: Node,
    receiver: Node,
    connection: Connection,
    separate: Option<Connection>,
    /// The port that the data connection was dialled from.
    data_port: u16,
    tally: Arc<Tally>,
    departures: Arc<Departures>,
    session: Arc<SessionSignals>,
    scissors: Scissors,
    // Last: what the ports are attached to goes after those who use them.
    _lab: Lab,
}

impl Trial {
    /// How long it takes, for the progress bar.
    pub(super) fn duration(&self) -> Duration {
        WARM_UP.max(self.point.interval.0 * WARM_UP_INTERVALS)
            + self.phase()
            + self.calm
            + self.length
            + 2 * SETTLE
    }

    /// Runs it; `passed` is called with the time as it passes.
    pub(super) fn run(&self, passed: &mut dyn FnMut(Duration)) -> Result<Outcome, BenchError> {
        let Running { world, judge, heartbeats, load } = self.begin(passed)?;
        let from = now() + WINDOW_LEAD + self.phase();
        let (before, heard_before) = world.watch(&judge, from, from + self.calm, passed);
        let happened_at = self.happen(&world, &judge)?;
        let from = now().max(happened_at) + WINDOW_LEAD;
        let (during, heard) = world.watch(&judge, from, happened_at + self.length, passed);

        world.take_down(heartbeats, load)?;
        let verdict = heard.mostly().and_then(|said| Some((said.verdict?, said.first_at - happened_at)));
        Ok(Outcome {
            before,
            during,
            passing_verdicts: heard.verdicts_other_than(verdict.map(|(name, _)| name)),
            verdict,
            false_verdicts: heard_before.verdicts_other_than(None),
        })
    }

    /// Runs it until the fault is named, or for as long as it lasts.
    pub(super) fn detect(&self, passed: &mut dyn FnMut(Duration)) -> Result<Detection, BenchError> {
        let Running { world, judge, heartbeats, load } = self.begin(passed)?;
        let false_positives =
            judge.listen(now() + self.calm + self.phase(), passed).verdicts_other_than(None);
        let happened_at = self.happen(&world, &judge)?;
        let named_at = judge.listen_for(self.event.expected(), happened_at + self.length, passed);
        world.take_down(heartbeats, load)?;
        Ok(Detection { after: named_at.map(|at| at - happened_at), false_positives })
    }

    /// Added to the time before the event, so that trials of one experiment do not all begin alike.
    fn phase(&self) -> Duration {
        // Multiples of the golden ratio are spread evenly, however many there are.
        self.point.interval.0.mul_f64((self.seed as f64 * GOLDEN_RATIO).fract())
    }

    /// Builds the world and loads it until congestion control has found the rate.
    fn begin(&self, passed: &mut dyn FnMut(Duration)) -> Result<Running, BenchError> {
        let world = self.build()?;
        let right_of_way = Arc::new(RightOfWay::default());
        let message_bytes = self.point.message_size.0 as usize;
        let load = if self.loaded {
            Some(Load::start(&world.connection, message_bytes, &right_of_way)?)
        } else {
            None
        };
        let carrier = world.separate.as_ref().unwrap_or(&world.connection);
        let interval = self.point.interval.0;
        let shared = (&world.tally, &world.departures, &right_of_way);
        let heartbeats = Heartbeats::start(self.variant, carrier, interval, shared)?;
        let judge = self.judge(&world);
        // A design is not blamed for what it says before its first heartbeats can have been answered.
        judge.listen(now() + WARM_UP.max(interval * WARM_UP_INTERVALS), passed);
        Ok(Running { world, judge, heartbeats, load })
    }

    fn build(&self) -> Result<World, BenchError> {
        let mut lab = self.variant.lab(&self.point, self.seed)?;
        let scissors = Scissors::of(&mut lab);
        let tally = Arc::new(Tally::default());
        let departures = Arc::new(Departures::default());
        let session = Arc::new(SessionSignals::default());
        let gates = Arc::new(Gates::default());
        let address = SocketAddr::new(RECEIVER, PORT);
        let send_budget_bytes = Some(self.point.send_budget.0 as usize);
        // What is older than a turn is late: the next heartbeat tells.
        let health = Some(HealthConfig { stalled_after: self.point.interval.0, ..HealthConfig::default() });
        let receiver = NodeOptions {
            name: EntityName::osd(2),
            bind: Some(address),
            dispatcher: Arc::new(Victim {
                receiver: Receiver { tally: tally.clone() },
                gates: Arc::clone(&gates),
            }),
            send_budget_bytes,
            health,
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
            health,
        };
        let nodes = start_nodes(&mut lab, &self.point, self.variant, self.seed, [sender, receiver])?;
        let [sender, receiver] = nodes;
        let connection = dial(&sender, address)?;
        session.wait(&connection, CONNECT_PATIENCE, "try less --loss")?;
        let data_port = dialled_from(&receiver)?;
        let separate = dial_separate(&sender, address, self.variant)?;
        Ok(World {
            gates: Release(gates),
            sender,
            receiver,
            connection,
            separate,
            data_port,
            tally,
            departures,
            session,
            scissors,
            _lab: lab,
        })
    }

    fn judge(&self, world: &World) -> Judge {
        match self.variant {
            Variant::Oob | Variant::Lowat => Judge::Health(world.connection.clone()),
            Variant::Fifo | Variant::Separate => Judge::Grace {
                tally: Arc::clone(&world.tally),
                session: Arc::clone(&world.session),
                interval: self.point.interval.0,
                grace: self.grace,
            },
        }
    }

    /// Makes it happen, if possible at a time when nothing is said; when it did.
    fn happen(&self, world: &World, judge: &Judge) -> Result<Instant, BenchError> {
        judge.is_quiet_within(QUIET_PATIENCE);
        if world.session.lost.is_raised() {
            return Err(BenchError::failed("the connection was lost before anything happened to it"));
        }
        let gates = &world.gates.0;
        let lost = if self.event.spares_others() && world.separate.is_some() {
            Lost::Connection(world.data_port)
        } else {
            Lost::Everything
        };
        let blades = world.scissors.open(lost, self.event.cuts())?;
        let at = now();
        match self.event {
            Event::ConsumerStopped => gates.consumer.close(),
            Event::PathCut | Event::WayThereCut | Event::WayBackCut => blades.close()?,
            Event::PeerKilled => {
                // First: the last that is heard of it is from before.
                blades.close()?;
                gates.consumer.close();
                gates.connections.close();
            }
            Event::PeerPaused => {
                gates.consumer.close();
                gates.connections.close();
            }
        }
        let gate = match self.event {
            Event::ConsumerStopped => &gates.consumer,
            Event::PeerPaused => &gates.connections,
            _ => return Ok(at),
        };
        let nobody = || BenchError::failed("no thread of the peer could be held; is the link saturated?");
        gate.caught(CATCH_PATIENCE).ok_or_else(nobody)
    }
}

/// The port of the peer of the only connection that `receiver` has.
fn dialled_from(receiver: &Node) -> Result<u16, BenchError> {
    let deadline = now() + CONNECT_PATIENCE;
    loop {
        if let Some(accepted) = receiver.messenger().connections().first() {
            return Ok(accepted.peer_address().port());
        }
        if now() >= deadline {
            return Err(BenchError::failed("the peer has not accepted the connection; try less --loss"));
        }
        std::thread::sleep(ACCEPT_STEP);
    }
}

impl World {
    /// Counts the heartbeats that are due between two instants, and listens meanwhile.
    fn watch(
        &self,
        judge: &Judge,
        from: Instant,
        until: Instant,
        passed: &mut dyn FnMut(Duration),
    ) -> (Phase, Said) {
        self.tally.window.open(from);
        self.tally.window.close(until);
        let said = judge.listen(until, passed);
        judge.listen(now() + SETTLE, passed);
        let (samples, counts) = self.tally.take();
        (Phase { samples, counts }, said)
    }

    fn take_down(self, heartbeats: Heartbeats, load: Option<Load>) -> Result<(), BenchError> {
        self.gates.0.open();
        self.scissors.mend()?;
        self.connection.mark_down();
        if let Some(separate) = &self.separate {
            separate.mark_down();
        }
        heartbeats.stop();
        if let Some(load) = load {
            load.join();
        }
        for node in [self.sender, self.receiver] {
            match node.stop_now().and_then(|report| report.error) {
                // The other end of a cable goes with the first.
                None | Some(PortError::Gone { .. }) => {}
                Some(error) => {
                    return Err(BenchError::failed(format!("a port failed while it was measured: {error}")));
                }
            }
        }
        Ok(())
    }
}
