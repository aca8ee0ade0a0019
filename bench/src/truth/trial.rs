//! One trial: a world is built and loaded, left alone for a while, and then something happens to it.

use std::sync::Arc;
use std::time::Duration;

use outrider_drivers::time::Instant;
use outrider_messenger::HealthConfig;

use super::event::Event;
use super::judge::{Judge, Said};
use super::scissors::Scissors;
use super::sieve::Lost;
use super::victim::{Gates, Victim};
use crate::error::BenchError;
use crate::node::{Node, now};
use crate::under_load::{
    CONNECT_PATIENCE, Counts, Pair, PairPlan, Point, Samples, Traffic, Variant, WARM_UP,
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
    traffic: Traffic,
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
    pair: Pair,
    /// The port that the data connection was dialled from.
    data_port: u16,
    scissors: Scissors,
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
        let Running { world, judge, traffic } = self.begin(passed)?;
        let outcome = self.watch(&world, &judge, passed);
        world.take_down(traffic)?;
        outcome
    }

    fn watch(
        &self,
        world: &World,
        judge: &Judge,
        passed: &mut dyn FnMut(Duration),
    ) -> Result<Outcome, BenchError> {
        let from = now() + WINDOW_LEAD + self.phase();
        let (before, heard_before) = world.watch(judge, from, from + self.calm, passed)?;
        let happened_at = self.happen(world, judge)?;
        let from = now().max(happened_at) + WINDOW_LEAD;
        let (during, heard) = world.watch(judge, from, happened_at + self.length, passed)?;
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
        let Running { world, judge, traffic } = self.begin(passed)?;
        let detection = self.listen(&world, &judge, passed);
        world.take_down(traffic)?;
        detection
    }

    fn listen(
        &self,
        world: &World,
        judge: &Judge,
        passed: &mut dyn FnMut(Duration),
    ) -> Result<Detection, BenchError> {
        let heard = judge.listen(now() + self.calm + self.phase(), passed)?;
        let happened_at = self.happen(world, judge)?;
        let named_at = judge.listen_for(self.event.expected(), happened_at + self.length, passed)?;
        Ok(Detection {
            after: named_at.map(|at| at - happened_at),
            false_positives: heard.verdicts_other_than(None),
        })
    }

    /// Added to the time before the event, so that trials of one experiment do not all begin alike.
    fn phase(&self) -> Duration {
        // Multiples of the golden ratio are spread evenly, however many there are.
        self.point.interval.0.mul_f64((self.seed as f64 * GOLDEN_RATIO).fract())
    }

    /// Builds the world and loads it until congestion control has found the rate.
    fn begin(&self, passed: &mut dyn FnMut(Duration)) -> Result<Running, BenchError> {
        let world = self.build()?;
        let traffic = world.pair.start(self.loaded)?;
        let judge = self.judge(&world);
        // A design is not blamed for what it says before its first heartbeats can have been answered.
        let warm = judge.listen(now() + WARM_UP.max(self.point.interval.0 * WARM_UP_INTERVALS), passed);
        match warm {
            Ok(_) => Ok(Running { world, judge, traffic }),
            Err(error) => world.take_down(traffic).and(Err(error)),
        }
    }

    fn build(&self) -> Result<World, BenchError> {
        let Trial { point, variant, seed, .. } = *self;
        // What is older than a turn is late: the next heartbeat tells.
        let health = HealthConfig { stalled_after: point.interval.0, ..HealthConfig::default() };
        let plan = PairPlan { point, variant, seed, health: Some(health) };
        let mut lab = plan.lab()?;
        let scissors = Scissors::of(&mut lab);
        let gates = Arc::new(Gates::default());
        let mut pair =
            Pair::connect(plan, lab, |receiver| Arc::new(Victim { receiver, gates: Arc::clone(&gates) }))?;
        let data_port = dialled_from(&pair.receiver)?;
        pair.connect_separately()?;
        Ok(World { gates: Release(gates), pair, data_port, scissors })
    }

    fn judge(&self, world: &World) -> Judge {
        match self.variant {
            Variant::Oob | Variant::Lowat => Judge::Health(world.pair.connection.clone()),
            Variant::Fifo | Variant::Separate => Judge::Grace {
                tally: Arc::clone(&world.pair.tally),
                session: Arc::clone(&world.pair.session),
                interval: self.point.interval.0,
                grace: self.grace,
            },
        }
    }

    /// Makes it happen, if possible at a time when nothing is said; when it did.
    fn happen(&self, world: &World, judge: &Judge) -> Result<Instant, BenchError> {
        judge.is_quiet_within(QUIET_PATIENCE);
        if world.pair.session.lost.is_raised() {
            return Err(BenchError::failed("the connection was lost before anything happened to it"));
        }
        let gates = &world.gates.0;
        let lost = if self.event.spares_others() && world.pair.is_separate() {
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
    ) -> Result<(Phase, Said), BenchError> {
        let tally = &self.pair.tally;
        tally.window.open(from);
        tally.window.close(until);
        let said = judge.listen(until, passed)?;
        judge.listen(now() + SETTLE, passed)?;
        let (samples, counts) = tally.take();
        Ok((Phase { samples, counts }, said))
    }

    fn take_down(self, traffic: Traffic) -> Result<(), BenchError> {
        self.gates.0.open();
        self.scissors.mend()?;
        self.pair.take_down(traffic)
    }
}
