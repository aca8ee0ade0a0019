//! Seven policies, five faults, each stage of a connection's life: what comes of it is what `docs/messenger.md` tabulates.
//!
//! When the table is to change, the failing test prints the new one.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use super::cluster::{Cluster, HALF_TRIP, Recorder, Told, address, calm};
use super::outcomes::{DOCUMENT, FAULTS, Fault, STAGES, hosts};
use outrider_messenger::{Connection, Message, Policy};
use outrider_stack::time::Instant;

/// Messages that each side gives, from the dial on: one every half trip.
const MESSAGES: u64 = 40;
/// All is over by then: attempts, time limits of TCP, back-off.
const PATIENCE: Duration = Duration::from_secs(90);

/// Half trips from the dial on until what a stage is named for is on its way.
const HALF_TRIPS: [u32; STAGES.len()] = [3, 4, 5, 6, 7, 30];

/// Every message of one sender, once, in order? What the receiver's lives got, one after the other.
#[derive(Default)]
struct Received(Vec<Vec<u64>>);

impl Received {
    fn add(&mut self, recorder: &Recorder) {
        self.0.push(recorder.messages().iter().map(|message| message.tid).collect());
    }

    fn verdict(&self, given: u64) -> &'static str {
        for life in &self.0 {
            assert!(life.is_sorted_by(|a, b| a < b), "once and in order, whatever happens: {life:?}");
        }
        let all: BTreeSet<u64> = self.0.iter().flatten().copied().collect();
        let count: usize = self.0.iter().map(Vec::len).sum();
        if given == 0 {
            return "none given";
        }
        match (all.len() as u64 == given, count == all.len()) {
            (true, true) => "all",
            (true, false) => "all, some to both lives",
            (false, _) if all.is_empty() => "none",
            (false, _) => "part",
        }
    }
}

struct Play {
    cluster: Cluster,
    policies: [Policy; 2],
    tested: u8,
    received: [Received; 2],
    given: [u64; 2],
    dialled: Vec<Connection>,
}

impl Play {
    fn new(policy: Policy) -> Play {
        let (policies, tested) = hosts(policy);
        let tune = move |host: u8, builder: outrider_messenger::MessengerBuilder| {
            builder.default_policy(policies[usize::from(host) - 1])
        };
        let mut cluster = Cluster::new(2, &calm(), 1, tune);
        let connection = cluster.host(1).messenger.connect_to(address(2)).unwrap();
        cluster.kick();
        let dialled = vec![connection];
        Play { cluster, policies, tested, received: Default::default(), given: [0; 2], dialled }
    }

    /// Half a trip passes, and each side gives a message on the newest connection it has.
    fn tick(&mut self) {
        for host in [1u8, 2] {
            let index = usize::from(host) - 1;
            if !self.cluster.is_up(host) || self.given[index] == MESSAGES {
                continue;
            }
            let newest = self.cluster.host(host).messenger.connections().pop();
            let Some(connection) = newest else { continue };
            let message = Message::new(host.into(), vec![host; 500]).with_tid(self.given[index]);
            // Who has had a connection and lost it does not give any more.
            if connection.try_send_message(message).is_ok() {
                self.given[index] += 1;
            }
        }
        self.cluster.run_for(HALF_TRIP);
    }

    fn crash(&mut self, host: u8) {
        let recorder = self.cluster.crash(host);
        self.received[usize::from(host) - 1].add(&recorder);
    }

    fn strike(&mut self, fault: Fault) {
        let mate = 3 - self.tested;
        match fault {
            Fault::Reset => drop(self.cluster.host(1).reset_connections(self.cluster.now)),
            Fault::Blackhole => {
                self.cluster.set_blackhole(true);
                self.cluster.run_for(Duration::from_secs(8));
                self.cluster.set_blackhole(false);
            }
            Fault::Restart => {
                self.crash(mate);
                self.cluster.run_for(Duration::from_millis(100));
                self.cluster.boot(mate);
                self.redial(mate);
            }
            Fault::Refuse => {
                self.crash(mate);
                self.cluster.boot_deaf(mate);
                self.cluster.run_for(Duration::from_secs(3));
                self.cluster.crash(mate);
                self.cluster.boot(mate);
                self.redial(mate);
            }
            Fault::Race if self.policies[1].server => {
                // The client's end is reset, and the server does not hear of it.
                self.cluster.set_blackhole(true);
                self.cluster.host(1).reset_connections(self.cluster.now);
                self.cluster.run_for(HALF_TRIP / 10);
                self.cluster.set_blackhole(false);
                if self.policies[0].lossy {
                    self.redial(1);
                }
            }
            Fault::Race => {
                let back = self.cluster.host(2).messenger.connect_to(address(1)).unwrap();
                self.dialled.push(back);
            }
        }
    }

    /// The next life of a client dials as the last did.
    fn redial(&mut self, host: u8) {
        if host == 1 {
            let connection = self.cluster.host(1).messenger.connect_to(address(2)).unwrap();
            self.dialled.push(connection);
            self.cluster.kick();
        }
    }

    /// What the tested side was told, and what arrived of its messages and at it.
    fn outcome(mut self, lossless: bool, peer_dies: bool) -> String {
        let told = self.cluster.host(self.tested).recorder.callbacks();
        let words: Vec<&str> = told
            .iter()
            .map(|told| match told {
                Told::Connect(_) => "connect",
                Told::Accept(_) => "accept",
                Told::Reset(_) => "reset",
                Told::RemoteReset(_) => "remote_reset",
                Told::Refused(_) => "refused",
                Told::Message(..) => unreachable!("callbacks only"),
            })
            .collect();
        for host in [1, 2] {
            let recorder = std::sync::Arc::clone(&self.cluster.host(host).recorder);
            self.received[usize::from(host) - 1].add(&recorder);
        }
        let mate = 3 - self.tested;
        let sent = self.received[usize::from(mate) - 1].verdict(self.given[usize::from(self.tested) - 1]);
        let got = self.received[usize::from(self.tested) - 1].verdict(self.given[usize::from(mate) - 1]);
        if lossless && !peer_dies {
            let whole = |verdict| ["all", "none given"].contains(&verdict);
            assert!(
                whole(sent) && whole(got),
                "a lossless connection loses nothing: {words:?}: {sent}, {got}"
            );
        }
        self.check_that_nothing_is_left();
        let words = if words.is_empty() { "nothing".to_owned() } else { words.join(", ") };
        format!("{words}; {sent}")
    }

    fn check_that_nothing_is_left(&mut self) {
        for host in [1, 2] {
            self.cluster.host(host).messenger.shutdown();
        }
        self.cluster.run_for(Duration::from_secs(20));
        for host in [1, 2] {
            assert!(self.cluster.host(host).messenger.is_done(), "host {host} has connections left");
            assert_eq!(self.cluster.host(host).transports(self.cluster.now), 0, "host {host}");
        }
        for connection in &self.dialled {
            assert!(!connection.is_connected());
        }
    }
}

fn play(policy: Policy, fault: Fault, half_trips: u32) -> String {
    let mut play = Play::new(policy);
    for _ in 0..half_trips {
        play.tick();
    }
    play.strike(fault);
    let until = play.cluster.now + PATIENCE;
    for _ in 0..2 * MESSAGES {
        play.tick();
    }
    let left = until.since(play.cluster.now);
    play.cluster.run_for(left);
    let lossless = play.policies.iter().all(|policy| !policy.lossy);
    play.outcome(lossless, fault.kills())
}

/// One line for each policy and fault; stages with the same outcome together.
fn table() -> String {
    let mut table = String::from(
        "| policy | fault | stage | callbacks; messages delivered |\n| --- | --- | --- | --- |\n",
    );
    for (name, policy) in Policy::ALL {
        for (fault_name, fault) in FAULTS {
            let mut groups: Vec<(Vec<&str>, String)> = Vec::new();
            for (stage, half_trips) in STAGES.into_iter().zip(HALF_TRIPS) {
                let outcome = play(policy, fault, half_trips);
                match groups.last_mut() {
                    Some((stages, last)) if *last == outcome => stages.push(stage),
                    _ => groups.push((vec![stage], outcome)),
                }
            }
            for (stages, outcome) in groups {
                let stages = match &stages[..] {
                    all if all.len() == STAGES.len() => "all".to_owned(),
                    [one] => (*one).to_owned(),
                    [first, .., last] => format!("{first} to {last}"),
                    [] => unreachable!("a group has a stage"),
                };
                writeln!(table, "| {name} | {fault_name} | {stages} | {outcome} |").unwrap();
            }
        }
    }
    table
}

#[test]
fn outcomes_and_callbacks_are_as_the_document_tabulates() {
    let table = table();
    assert!(DOCUMENT.contains(&table), "docs/messenger.md must contain\n{table}");
}

#[test]
fn the_stages_are_what_they_are_called() {
    let mut play = Play::new(Policy::lossless_peer());
    let start = Instant::from_millis(1);
    let ready = |play: &Play, host: u8| {
        let connections = play.cluster.host(host).messenger.connections();
        connections.first().is_some_and(Connection::is_connected)
    };
    let mut at = [None, None];
    for _ in 0..12 {
        play.tick();
        for host in [1u8, 2] {
            if ready(&play, host) {
                at[usize::from(host) - 1].get_or_insert(play.cluster.now.since(start).as_millis());
            }
        }
    }
    // ARP takes two half trips. What arrives at the end of a half trip is seen after the next.
    assert_eq!(at, [Some(7), Some(8)], "the answer arrives after six half trips, Ready after seven");
}
