//! Header prediction makes no difference but to the processor: the same worlds with and without it.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use common::endpoints::{Checked, CheckedAcceptor, Notes, Plan};
use common::{address, faulty, gigabit, host_config, seeds};
use outrider_drivers::capture::Capture;
use outrider_drivers::memory::{LinkConfig, MemoryPort, cable};
use outrider_drivers::port::Port;
use outrider_drivers::rng::Rng;
use outrider_stack::net::{ListenOptions, Stack, StackConfig, StackStatistics};
use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::time::Instant;

/// What one world showed from outside.
#[derive(Debug, PartialEq)]
struct Seen {
    /// Every counter of both stacks, but how many segments were predicted.
    counters: [StackStatistics; 2],
    /// What each connection looked like after each step, at both ends.
    steps: Vec<String>,
    /// Every frame that either host sent or received, and when.
    captures: [Vec<u8>; 2],
}

/// A file in memory.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Vec<u8>>>);

impl Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stack, its end of the cable, and what crosses it.
struct Host {
    stack: Stack,
    port: Box<dyn Port>,
    tape: Tape,
}

impl Host {
    fn new(config: StackConfig, port: MemoryPort, seed: u64) -> Host {
        let (stack, tape) = (Stack::new(config, port.info(), seed).unwrap(), Tape::default());
        Host { stack, port: Box::new(Capture::new(port, tape.clone(), 0)), tape }
    }
}

fn link(rng: &mut Rng) -> LinkConfig {
    let rate_bits_per_second = [50_000_000, 1_000_000_000, 10_000_000_000][rng.below(3) as usize];
    let link = if rng.chance(0.5) { faulty() } else { gigabit() };
    LinkConfig {
        rate_bits_per_second,
        verify_checksums: rng.chance(0.8),
        ecn_mark_bytes: rng.chance(0.3).then_some(30_000),
        ..link
    }
}

fn host(number: u8, rng: &mut Rng, header_prediction: bool) -> StackConfig {
    let mut config = host_config(number);
    config.tcp.header_prediction = header_prediction;
    config.tcp.algorithm = Algorithm::ALL[rng.below(Algorithm::ALL.len() as u64) as usize];
    config.tcp.timestamps = rng.chance(0.7);
    config.tcp.sack = rng.chance(0.8);
    config.tcp.ecn = rng.chance(0.5);
    config.receive_burst = [3, 64][rng.below(2) as usize];
    config
}

/// Runs the world of `seed`: some connections, in both families and both directions, over links with faults, polled
/// now and then so that frames come in bursts, with consumers that stop and connections that are aborted.
fn run(seed: u64, header_prediction: bool) -> (Seen, u64) {
    let mut rng = Rng::new(seed);
    let (there, back) = (link(&mut rng), link(&mut rng));
    let (a, b) = (host(1, &mut rng, header_prediction), host(2, &mut rng, header_prediction));
    let (port_a, port_b) = cable(there, back, seed);
    let mut now = Instant::from_millis(1);
    let (mut a, mut b) = (Host::new(a, port_a, seed), Host::new(b, port_b, seed + 1));
    let echoes = if rng.chance(0.4) { 150_000 } else { 0 };
    let mut listen = |at: SocketAddr| {
        let acceptor = CheckedAcceptor::new(Plan::server(echoes));
        b.stack.listen(at, ListenOptions::default(), Box::new(acceptor.clone())).unwrap();
        acceptor
    };
    let servers = [address("10.0.0.2:7000"), address("[fd00::2]:7000")];
    let acceptors = servers.map(&mut listen);
    let mut clients = Vec::new();
    for _ in 0..1 + rng.below(3) {
        let notes = Notes::default();
        let plan = Plan::client(200_000 + rng.below(400_000));
        a.stack.connect(now, servers[rng.below(2) as usize], Checked::new(plan, &notes));
        clients.push(notes);
    }
    let mut steps = Vec::new();
    for _ in 0..300 {
        // Neither host looks at anything meanwhile, and what arrives is a burst.
        now += Duration::from_micros(1 + rng.below(300));
        for host in [&mut a, &mut b] {
            host.stack.poll(now, &mut *host.port).unwrap();
        }
        let accepted: Vec<Notes> = acceptors.iter().flat_map(CheckedAcceptor::notes).collect();
        if rng.chance(0.02) && !accepted.is_empty() {
            let notes = &accepted[rng.below(accepted.len() as u64) as usize];
            let stopped = notes.get().stopped;
            notes.get().stopped = !stopped;
            let waker = notes.get().waker.clone();
            waker.iter().for_each(|waker| waker.wake());
        }
        if rng.chance(0.002) {
            clients[0].get().abort = true;
        }
        let mut step: Vec<String> = [&a, &b]
            .iter()
            .flat_map(|host| host.stack.connections(now))
            .map(|connection| format!("{connection:?}"))
            .collect();
        step.extend(accepted.iter().map(|notes| format!("{}", notes.get().received)));
        steps.push(step.join("\n"));
    }
    let mut counters = [*a.stack.statistics(), *b.stack.statistics()];
    let predicted = counters.iter().map(|counters| counters.rx_predicted).sum();
    counters.iter_mut().for_each(|counters| counters.rx_predicted = 0);
    for host in [&mut a, &mut b] {
        // Whoever is still connected is told.
        host.stack.fail(now);
    }
    let captures = [a, b].map(|host| {
        drop(host.port);
        host.tape.0.lock().unwrap().clone()
    });
    (Seen { counters, steps, captures }, predicted)
}

#[test]
fn stacks_that_predict_headers_do_what_those_do_that_do_not() {
    let all = std::sync::atomic::AtomicU64::new(0);
    seeds(200, |seed| {
        let (plain, none) = run(seed, false);
        let (short, predicted) = run(seed, true);
        assert_eq!(none, 0);
        all.fetch_add(predicted, std::sync::atomic::Ordering::Relaxed);
        for (at, (plain, short)) in plain.steps.iter().zip(&short.steps).enumerate() {
            assert_eq!(plain, short, "step {at}");
        }
        assert_eq!(plain.counters, short.counters);
        assert!(plain.captures == short.captures, "other frames crossed the cable");
    });
    let all = all.into_inner();
    assert!(all > 2_000, "only {all} segments were predicted");
}
