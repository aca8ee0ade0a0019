//! One case: a policy, a fault, a stage, on two hosts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use outrider_messenger::{Connection, OobOp, OobRegistration, Policy};

use super::events::Events;
use super::host::{Life, Terms, World, address};
use super::outcomes::{FAULTS, Fault, STAGES, expected_callbacks, hosts};
use super::recorder::{AT_FIRST, Giver, Recorder};
use super::stage::Hit;
use super::wire::{Mode, Side};

/// What is registered with each dial has no turn while a case lasts: it is there to be given back.
const OP_INTERVAL: Duration = Duration::from_secs(3_600);

#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) policy: (&'static str, Policy),
    pub(super) fault: (&'static str, Fault),
    pub(super) stage: usize,
}

impl Case {
    pub(super) fn all() -> Vec<Case> {
        let mut cases = Vec::new();
        for fault in FAULTS {
            for policy in Policy::ALL {
                cases.extend((0..STAGES.len()).map(|stage| Case { policy, fault, stage }));
            }
        }
        // What must wait for time limits goes first: the others fill the time.
        cases.sort_by_key(|case| case.fault.1 != Fault::Blackhole);
        cases
    }

    pub(super) fn name(&self) -> String {
        format!("{}, {}, {}", self.policy.0, self.fault.0, STAGES[self.stage])
    }
}

/// The time limits were too short for this machine: the attempt had ended before the fault could strike.
#[derive(Debug)]
pub(super) struct TooSlow;

pub(super) struct Play<'a> {
    world: &'a World,
    case: Case,
    policies: [Policy; 2],
    tested: Side,
    port: u16,
    silence: Duration,
    events: Events,
    givers: [Arc<Giver>; 2],
    lives: [Option<Life>; 2],
    /// The records of lives that have ended.
    graves: [Vec<Arc<Recorder>>; 2],
    dialled: Vec<(Connection, OobRegistration)>,
    /// Held by every callback that was registered.
    token: Arc<()>,
}

impl<'a> Play<'a> {
    pub(super) fn new(world: &'a World, case: Case, port: u16, silence: Duration) -> Play<'a> {
        let (policies, tested) = hosts(case.policy.1);
        Play {
            world,
            case,
            policies,
            tested: usize::from(tested) - 1,
            port,
            silence,
            events: Events::default(),
            givers: Default::default(),
            lives: [None, None],
            graves: Default::default(),
            dialled: Vec::new(),
            token: Arc::default(),
        }
    }

    /// Plays the case.
    pub(super) fn run(mut self) -> Result<(), TooSlow> {
        self.world.wire.begin(self.case.stage);
        (0..2).for_each(|side| self.boot(side, true));
        self.dial(0);
        let dialler = &self.life(0).watched.lives;
        let hit = self.world.wire.wait_for_stage(|| dialler.made() == 0 || !dialler.are_gone(1));
        if let Some(hit) = hit {
            self.strike(hit);
            self.check_outcome();
        }
        self.check_that_nothing_is_left();
        hit.map(|_| ()).ok_or(TooSlow)
    }

    fn life(&self, side: Side) -> &Life {
        self.lives[side].as_ref().expect("it is up")
    }

    fn until(&self, what: &str, holds: impl FnMut() -> bool) {
        let found = || {
            let told = |life: &Option<Life>| life.as_ref().map(|life| life.recorder.told());
            format!("told {:?} and {:?}; {:?}", told(&self.lives[0]), told(&self.lives[1]), self.world.wire)
        };
        self.events.until(what, holds, found);
    }

    fn boot(&mut self, side: Side, listens: bool) {
        let terms = Terms { policy: self.policies[side], port: self.port, listens, silence: self.silence };
        self.lives[side] = Some(self.world.boot(side, &terms, &self.givers[side], &self.events));
    }

    fn crash(&mut self, side: Side) {
        let life = self.lives[side].take().expect("it is up");
        self.graves[side].push(self.world.crash(side, life));
    }

    fn dial(&mut self, side: Side) {
        let connection =
            self.life(side).messenger.connect_to(address(1 - side, self.port)).expect("it may dial");
        let token = Arc::clone(&self.token);
        let part = move |_: &_| {
            let _held = &token;
            None
        };
        if let Ok(registration) = connection.register_oob_message(OobOp::PING, part, OP_INTERVAL) {
            self.dialled.push((connection.clone(), registration));
        }
        self.givers[side].give(&connection, AT_FIRST);
    }

    /// The transports that a host has now are reset, and what that makes of the wire is on it.
    fn abort(&self, side: Side) {
        let lives = &self.life(side).watched.lives;
        let made = lives.made();
        lives.abort_all();
        self.until("transports are reset", || lives.are_gone(made));
        self.life(side).settle(&self.events);
    }

    /// What was under way when the fault struck arrives, and everybody is told what follows from that alone.
    fn deliver(&self, count: usize, hit: Hit, listens: bool) {
        self.world.wire.release(count);
        let receiver = self.life(1 - hit.from);
        if listens {
            let lives = &receiver.watched.lives;
            self.until("what was under way arrives", || lives.delivered_most() >= hit.stream_bytes);
        }
        self.lives.iter().flatten().for_each(|life| life.settle(&self.events));
    }

    /// The transports that a host had at the strike have ended.
    fn wait_gone(&self, side: Side, before: u64) {
        let lives = &self.life(side).watched.lives;
        self.until("the loss is noticed", || lives.are_gone(before));
    }

    fn made(&self, side: Side) -> u64 {
        self.life(side).watched.lives.made()
    }

    fn strike(&mut self, hit: Hit) {
        let wire = &self.world.wire;
        let under_way = wire.held();
        let mate = 1 - self.tested;
        match self.case.fault.1 {
            Fault::Reset => {
                self.abort(0);
                self.deliver(under_way, hit, hit.from == 0);
                wire.set_mode(Mode::Pass);
            }
            Fault::Blackhole => {
                self.deliver(under_way, hit, true);
                let made = [self.made(0), self.made(1)];
                wire.set_mode(Mode::Swallow);
                (0..2).for_each(|side| self.wait_gone(side, made[side]));
                wire.set_mode(Mode::Pass);
            }
            Fault::Restart => {
                self.crash(mate);
                self.boot(mate, true);
                self.survive(hit, under_way);
                self.return_of(mate);
            }
            Fault::Refuse => {
                self.crash(mate);
                self.boot(mate, false);
                self.survive(hit, under_way);
                self.wait_refused();
                self.crash(mate);
                self.boot(mate, true);
                self.return_of(mate);
            }
            Fault::Race if self.policies[1].server => self.race_of_client(hit, under_way),
            Fault::Race => {
                self.dial(1);
                if self.case.stage <= 2 {
                    self.until("both dial", || wire.holds_attempt_of(1));
                }
                wire.set_mode(Mode::Pass);
            }
        }
    }

    /// What was under way arrives at the survivor, or at the next life of its peer.
    fn survive(&self, hit: Hit, under_way: usize) {
        self.deliver(under_way, hit, 1 - hit.from == self.tested);
        self.world.wire.set_mode(Mode::Pass);
    }

    /// The next life of a client dials as the last did, once its server has noticed.
    fn return_of(&mut self, mate: Side) {
        if mate == 0 {
            let made = self.made(1);
            self.wait_gone(1, made);
            self.dial(0);
        }
    }

    fn wait_refused(&self) {
        let policy = self.policies[self.tested];
        let survivor = self.life(self.tested);
        if policy.lossy || policy.server {
            self.wait_gone(self.tested, survivor.watched.lives.made());
        } else {
            self.until("the refusal is told", || survivor.recorder.told().contains(&"refused"));
        }
    }

    /// The client's end is reset, and the server does not hear of it.
    fn race_of_client(&mut self, hit: Hit, under_way: usize) {
        self.abort(0);
        self.world.wire.lose_resets_since(under_way, 0);
        let made = self.made(1);
        if self.policies[0].lossy && self.policies[1].registered {
            self.dial(0);
        }
        self.deliver(under_way, hit, hit.from == 0);
        let made = made.max(self.made(1));
        self.world.wire.set_mode(Mode::Pass);
        if self.policies[0].lossy && !self.policies[1].registered {
            // Two connections that have nothing to do with each other: what is told of them has no order.
            self.wait_gone(1, made);
            self.dial(0);
        }
    }
}

/// Of peers either may dial after a loss, whoever is first.
fn normal<'b>(told: &[&'b str], policy: &Policy) -> Vec<&'b str> {
    let dials_both = !policy.server && policy.standby;
    told.iter().map(|told| if dials_both && *told == "accept" { "connect" } else { told }).collect()
}

impl Play<'_> {
    fn check_outcome(&self) {
        let (policy, fault) = (self.case.policy.1, self.case.fault.1);
        let (tested, mate) = (self.life(self.tested), self.life(1 - self.tested));
        let expected = expected_callbacks(self.case.policy.0, self.case.fault.0, self.case.stage);
        let expected = normal(&expected, &policy);
        let as_expected = || normal(&tested.recorder.told(), &policy) == expected;
        self.until(&format!("callbacks {expected:?} are told"), as_expected);
        let lossless = self.policies.iter().all(|policy| !policy.lossy);
        let lives = expected.last().is_some_and(|last| ["connect", "accept"].contains(last));
        if lives {
            self.check_that_it_works();
        } else {
            let both = [tested, mate];
            self.until("all transports end", || both.iter().all(|life| life.watched.lives.count() == 0));
        }
        if lossless && (!fault.kills() || !policy.reset_check) {
            self.until("all arrives", || self.arrived(self.tested) == self.givers[self.tested].given());
        }
        if lossless && !fault.kills() {
            let mate = 1 - self.tested;
            self.until("all comes back", || self.arrived(mate) == self.givers[mate].given());
        }
        self.lives.iter().flatten().for_each(|life| {
            let throttled = || life.messenger.throttled(None) == Some((0, 0));
            self.until("the throttle has all back", throttled);
            life.settle(&self.events);
        });
        assert!(as_expected(), "told {:?} and not only {expected:?}", tested.recorder.told());
    }

    /// What each side gives now arrives, and its send budget comes back.
    fn check_that_it_works(&self) {
        for side in 0..2 {
            let (from, to) = (self.life(side), self.life(1 - side));
            let ready = || from.recorder.latest().filter(Connection::is_connected);
            self.until("a connection is ready", || ready().is_some());
            let connection = ready().expect("it is ready");
            let tid = self.givers[side].give_last(&connection);
            self.until("the last message arrives", || to.recorder.has(tid));
            self.until("the budget comes back", || connection.send_budget_spent_bytes() == 0);
        }
    }

    /// How many messages of a host's came to any life of the other.
    fn arrived(&self, side: Side) -> u64 {
        let to = 1 - side;
        let lives = self.graves[to].iter().chain(self.lives[to].as_ref().map(|life| &life.recorder));
        lives.flat_map(|recorder| recorder.tids()).collect::<BTreeSet<u64>>().len() as u64
    }

    fn check_that_nothing_is_left(mut self) {
        self.world.wire.set_mode(Mode::Pass);
        let dialled: Vec<Connection> = self.dialled.drain(..).map(|(connection, _)| connection).collect();
        self.lives.iter().flatten().for_each(|life| life.messenger.shutdown());
        let ended = |life: &Life| life.watched.lives.count() == 0 && life.messenger.connections().is_empty();
        self.until("everything ends", || self.lives.iter().flatten().all(ended));
        let mut seen = dialled;
        for side in 0..2 {
            let life = self.lives[side].take().expect("it is up");
            let recorder = self.world.end(side, life, &self.events);
            seen.extend(recorder.take_connections());
            self.graves[side].push(recorder);
        }
        for connection in seen {
            assert!(!connection.is_connected(), "{connection:?}");
        }
        for recorder in self.graves.iter().flatten() {
            recorder.tids();
        }
        assert_eq!(Arc::strong_count(&self.token), 1, "callbacks that were registered are gone");
    }
}
