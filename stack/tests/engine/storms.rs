//! Every trouble at once, by a seeded schedule: blackholes, smaller MTUs, stopped readers and shrunken windows, clocks
//! that jump, aborts, forged segments, ECN marks, changing rates, disorder.
//!
//! `OUTRIDER_SEEDS=10000` runs the first 10,000 schedules instead of 1,500; `OUTRIDER_SEED=7` runs that one.

use std::time::Duration;

use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::tcp::connection::{CloseReason, Config, Connection, Event, Keepalive, State};
use outrider_stack::time::Instant;

use crate::faults::{self, Seed, seeds};
use crate::pair::{Pair, Path, Random};
use crate::trouble::{self, KINDS, Trouble};

const SEEDS_DEFAULT: u64 = 1500;
/// Virtual time that a schedule is given: it takes half a minute to strike, and then the longest back-offs end.
const LIMIT: Duration = Duration::from_secs(3600);
/// Longest time to the next timer of a connection that has something to send.
const PATIENCE: Duration = Duration::from_secs(125);

fn config(random: &mut Random, aborts: bool) -> Config {
    // An idle end learns of an abort whose RST was lost by keepalive alone.
    let keepalive =
        Keepalive { idle: Duration::from_secs(30), interval: Duration::from_secs(10), probes_max: 6 };
    Config {
        algorithm: Algorithm::ALL[random.below(Algorithm::ALL.len() as u64) as usize],
        ecn: random.chance(0.5),
        sack: random.chance(0.85),
        timestamps: random.chance(0.8),
        window_scaling: random.chance(0.9),
        receive_window_initial: [16 << 10, 256 << 10][random.below(2) as usize],
        receive_window_max: [4_000, 20_000, 300_000, 4 << 20][random.below(4) as usize],
        segment_size_max: [536, 1460, 8960][random.below(3) as usize],
        out_of_order_bytes_max: [10_000, 4 << 20][random.below(2) as usize],
        holes_max: [4, 2048][random.below(2) as usize],
        rto_max: [Duration::from_secs(4), Duration::from_secs(60)][random.below(2) as usize],
        user_timeout: Duration::from_secs(900),
        syn_retries: 40,
        keepalive: aborts.then_some(keepalive),
        ..Config::default()
    }
}

fn path(random: &mut Random) -> Path {
    let fault = |random: &mut Random| if random.chance(0.7) { 0.0 } else { random.below(50) as f64 / 1000.0 };
    Path {
        bits_per_second: [1_000_000, 20_000_000, 1_000_000_000][random.below(3) as usize],
        delay: Duration::from_micros([10, 200, 5000, 60_000][random.below(4) as usize]),
        queue_bytes: [20_000, 100_000, 1_000_000][random.below(3) as usize],
        loss: fault(random),
        reorder: fault(random),
        duplicate: fault(random),
        ..Path::default()
    }
}

/// Bytes that a connection may hold, by what its windows allow.
fn memory_bound(config: &Config) -> usize {
    let window = config.receive_window_max as usize;
    // Out-of-order data is within the window and within its own bound.
    let receiving = window.min(config.out_of_order_bytes_max);
    // The ring of sent bytes doubles, so it may be twice the next power of two; the marks of a segment of few bytes
    // take as much again several times over.
    let ring = 2 * (window + 20_000).next_power_of_two();
    let marks = 256 * 128 + 2 * 256 * (window / 76 + 64);
    size_of::<Connection>() + receiving + ring + marks
}

/// Holds at every instant of the storm, once both nodes have done what they can.
fn check(pair: &Pair) {
    for (index, node) in pair.nodes.iter().enumerate() {
        let Some(tcp) = &node.tcp else { continue };
        let held = tcp.memory_bytes();
        let bound = memory_bound(&pair.config[index]);
        assert!(held <= bound, "memory is bounded: {held} of {bound} bytes");
        if tcp.state() == State::Closed || pair.is_frozen(index) {
            continue;
        }
        let in_flight = tcp.send_state(pair.now).bytes_in_flight > 0;
        let unsent = node.app.cut < node.app.total && tcp.state().may_send();
        let finish_due = node.app.finish && tcp.state().may_send();
        if !(in_flight || unsent || finish_due) {
            continue;
        }
        match tcp.next_timeout() {
            Some(at) => assert!(
                at <= pair.now + PATIENCE,
                "the next timer is too far: {at:?} at {:?} {:?}",
                pair.now,
                pair.summary()
            ),
            None => {
                assert!(pair.under_way() > 0, "stuck: node {index} at {:?} {:?}", pair.now, pair.summary());
            }
        }
    }
}

struct Storm {
    pair: Pair,
    random: Random,
    /// Latest first.
    schedule: Vec<(Instant, Trouble)>,
    aborted: bool,
}

impl Storm {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5707);
        let aborts = random.chance(0.5);
        let config = config(&mut random, aborts);
        let capacity = config.receive_window_max as usize;
        let mut pair = Pair::new(seed, config);
        pair.paths = [path(&mut random), path(&mut random)];
        // A generator of its own: whether the ports segment changes nothing else about a storm.
        (pair.super_segment_bytes, pair.uncut) = faults::segmentation(seed);
        // The others take trains, half of them.
        pair.train_segments = if pair.super_segment_bytes == 0 { (seed % 2) as usize * 8 } else { 0 };
        pair.reports_sizes = true;
        pair.resets_strays = true;
        for node in &mut pair.nodes {
            node.app.capacity = capacity;
            node.app.total = random.below(100_000);
        }
        let mut schedule = trouble::schedule(&mut random, pair.now);
        if !aborts {
            schedule.retain(|(_, trouble)| !matches!(trouble, Trouble::Abort(_)));
        }
        schedule.reverse();
        Storm { pair, random, schedule, aborted: false }
    }

    /// Strikes what is due; when all has been written, the applications finish.
    fn strike_due(&mut self, totals: &mut [u64; KINDS]) {
        while let Some((_, trouble)) = self.schedule.pop_if(|(at, _)| *at <= self.pair.now) {
            totals[trouble.kind()] += 1;
            self.aborted |= matches!(trouble, Trouble::Abort(_));
            trouble::strike(&mut self.pair, &mut self.random, trouble);
        }
        let written = !self
            .schedule
            .iter()
            .any(|(_, trouble)| matches!(trouble, Trouble::Write(..) | Trouble::Urgent(_)));
        for node in &mut self.pair.nodes {
            node.app.finish |= written;
        }
    }

    fn over(&self) -> bool {
        self.pair.closed(0) && (self.pair.closed(1) || self.pair.nodes[1].tcp.is_none())
    }

    fn run(&mut self, totals: &mut [u64; KINDS]) {
        let end = self.pair.now + LIMIT;
        let mut steps = 0u64;
        while !self.over() {
            self.strike_due(totals);
            self.pair.transmit_all(0);
            self.pair.transmit_all(1);
            check(&self.pair);
            let next = self.schedule.last().map(|(at, _)| *at);
            if !self.pair.step_within(next.unwrap_or(Instant::FAR_FUTURE)) {
                let Some(next) = next else { break };
                self.pair.now = self.pair.now.max(next);
            }
            steps += 1;
            assert!(self.pair.now <= end, "not over within {LIMIT:?}: {:?}", self.pair.summary());
            assert!(steps < 3_000_000, "busy without end: {:?}", self.pair.summary());
        }
    }

    /// Everything arrived, or the schedule says why not.
    fn judge(&self) {
        let reason = |node: usize| {
            self.pair.nodes[node].events.iter().find_map(|event| match event {
                Event::Closed(reason) => Some(*reason),
                Event::Established => None,
            })
        };
        let reasons = [reason(0), reason(1)];
        let mut allowed = vec![CloseReason::Finished];
        if self.aborted {
            allowed.extend([CloseReason::Aborted, CloseReason::Reset, CloseReason::Refused]);
            allowed.push(CloseReason::KeepaliveTimeout);
        }
        let explained = reasons.iter().all(|reason| match reason {
            Some(reason) => allowed.contains(reason),
            // The connection may have been given up before it reached the other side.
            None => self.aborted && self.pair.nodes[1].tcp.is_none(),
        });
        assert!(explained, "ended by {reasons:?}: {:?}", self.pair.summary());
        for node in 0..2 {
            // A node that ended in order has said everything, and all of it was heard.
            if reasons == [Some(CloseReason::Finished); 2] {
                let (app, peer) = (&self.pair.nodes[node].app, &self.pair.nodes[1 - node].app);
                assert_eq!(peer.received, app.total, "all bytes of node {node} {:?}", self.pair.summary());
                assert!(peer.peer_finished, "and its end");
            }
        }
    }
}

#[test]
fn everything_arrives_or_ends_for_a_reason_through_fifteen_hundred_storms() {
    let seeds = seeds(SEEDS_DEFAULT);
    let (mut totals, mut sizes_believed, mut super_segments) = ([0; KINDS], 0, 0);
    let mut statistics = outrider_stack::tcp::statistics::ConnectionStatistics::default();
    for seed in &seeds {
        let _seed = Seed(*seed);
        let mut storm = Storm::new(*seed);
        storm.run(&mut totals);
        storm.judge();
        sizes_believed += storm.pair.reports_believed;
        super_segments += storm.pair.super_segments;
        for tcp in storm.pair.nodes.iter().filter_map(|node| node.tcp.as_ref()) {
            statistics.add(&tcp.statistics());
        }
    }
    println!("{} storms: {totals:?}, {sizes_believed} reports of size believed, {statistics:?}", seeds.len());
    if seeds.len() as u64 >= SEEDS_DEFAULT {
        // A storm that hardly ever strikes proves nothing.
        assert!(totals.iter().all(|count| *count >= 50), "{totals:?}");
        assert!(sizes_believed > 100);
        assert!(super_segments > 2_000, "{super_segments}");
        assert!(
            statistics.window_probes > 100 && statistics.bad_acks > 100 && statistics.paws_rejected > 100
        );
    }
}
