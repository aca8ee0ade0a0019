//! Many seeds of a faulty link: every byte once, in order, intact, within the window, and an orderly end.

use std::time::Duration;

use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::tcp::connection::{CloseReason, Config, Event};

use crate::pair::{Pair, Path, Random};

/// Seeds to run: the first `count`, or as many as `OUTRIDER_SEEDS` says, or the one in `OUTRIDER_SEED`, which
/// reproduces a failure.
pub(crate) fn seeds(count: u64) -> Vec<u64> {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
    };
    match number("OUTRIDER_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("OUTRIDER_SEEDS").unwrap_or(count)).collect(),
    }
}

/// Prints the seed when the story fails.
pub(crate) struct Seed(pub(crate) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failing seed: reproduce with OUTRIDER_SEED={}", self.0);
        }
    }
}

/// What the ports of a pair take in one super-segment, nothing in half of the runs, and whether it arrives uncut.
pub(crate) fn segmentation(seed: u64) -> (usize, bool) {
    [(0, false), (0, false), (0, false), (10_000, false), (65_000, false), (65_000, true)]
        [Random::new(seed ^ 0x0ff1_0ad5).below(6) as usize]
}

fn random_path(random: &mut Random) -> Path {
    let fault =
        |random: &mut Random| if random.chance(0.5) { random.below(100) as f64 / 1000.0 } else { 0.0 };
    Path {
        bits_per_second: [10_000_000, 1_000_000_000, 10_000_000_000][random.below(3) as usize],
        delay: Duration::from_micros([10, 100, 2000][random.below(3) as usize]),
        queue_bytes: [20_000, 200_000, 1_000_000][random.below(3) as usize],
        loss: fault(random),
        reorder: fault(random),
        duplicate: fault(random),
        cut: false,
        mark_above: [None, Some(10_000)][random.below(2) as usize],
        payload_max: usize::MAX,
    }
}

#[test]
fn every_byte_arrives_once_in_order_over_a_thousand_faulty_links() {
    for seed in seeds(1000) {
        let _seed = Seed(seed);
        let mut random = Random::new(seed + 1);
        let config = Config {
            algorithm: Algorithm::ALL[random.below(Algorithm::ALL.len() as u64) as usize],
            ecn: random.chance(0.5),
            sack: random.chance(0.9),
            timestamps: random.chance(0.8),
            window_scaling: random.chance(0.9),
            receive_window_max: [20_000, 300_000, 4 << 20][random.below(3) as usize],
            syn_retries: 12,
            ..Config::default()
        };
        let mut pair = Pair::new(seed, config);
        pair.paths = [random_path(&mut random), random_path(&mut random)];
        (pair.super_segment_bytes, pair.uncut) = segmentation(seed);
        let totals = [random.below(200_000), random.below(200_000)];
        for (node, total) in totals.iter().enumerate() {
            pair.nodes[node].app.total = *total;
            pair.nodes[node].app.finish = true;
        }
        pair.run_until(Duration::from_secs(3600), |pair| {
            pair.nodes.iter().all(|node| node.app.peer_finished) && (pair.closed(0) || pair.closed(1))
        });
        for (node, total) in totals.iter().enumerate() {
            assert_eq!(pair.nodes[1 - node].app.received, *total, "all bytes of node {node}");
        }
        pair.run_until(Duration::from_secs(3600), |pair| pair.closed(0) && pair.closed(1));
        for node in &pair.nodes {
            let reason = node.events.last().copied();
            // The last ACK may be lost for good once the peer has left TIME-WAIT.
            let fine =
                [CloseReason::Finished, CloseReason::UserTimeout].map(|reason| Some(Event::Closed(reason)));
            assert!(fine.contains(&reason), "{reason:?}");
        }
    }
}
