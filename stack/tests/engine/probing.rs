//! Paths that swallow long segments without a word (RFC 4821).

use std::time::Duration;

use outrider_stack::tcp::connection::{Config, MtuProbing};

use crate::pair::{Pair, Path};

const SECOND: Duration = Duration::from_secs(1);
/// Payload of a full segment with timestamps, at an MTU of 1500.
const FULL: usize = 1448;

fn pair(seed: u64, probing: MtuProbing, path: Path) -> Pair {
    let config = Config { mtu_probing: probing, ..Config::default() };
    let mut pair = Pair::new(seed, config).both_paths(path);
    pair.establish();
    pair
}

#[test]
fn a_black_hole_for_long_segments_is_found_and_measured() {
    for seed in 0..30 {
        for payload_max in [1020, 1100, 1234, 1400] {
            let loss = if seed % 2 == 0 { 0.0 } else { 0.005 };
            let mut pair = pair(seed, MtuProbing::BlackHole, Path { payload_max, loss, ..Path::default() });
            pair.nodes[0].app.total = 3_000_000;
            pair.run_until(20 * SECOND, |pair| pair.nodes[1].app.received == 3_000_000);
            let size = pair.tcp(0).segment_size();
            assert!(size <= payload_max, "seed {seed}: {size} of {payload_max}");
            if loss == 0.0 {
                assert!(size + 40 >= payload_max.min(FULL), "seed {seed}: {size} of {payload_max}");
            }
            let probes = pair.tcp(0).statistics().path_mtu_probes;
            assert!((1..40).contains(&probes), "seed {seed}: {probes} probes");
        }
    }
}

#[test]
fn without_probing_a_black_hole_is_the_end() {
    let mut pair = pair(1, MtuProbing::Off, Path { payload_max: 1200, ..Path::default() });
    pair.nodes[0].app.total = 100_000;
    pair.run_for(60 * SECOND);
    assert_eq!(pair.nodes[1].app.received, 0);
}

#[test]
fn an_outage_of_the_whole_path_is_not_remembered_as_a_small_one() {
    let mut pair = pair(2, MtuProbing::BlackHole, Path::default());
    pair.nodes[0].app.total = 100_000;
    pair.run_until(SECOND, |pair| pair.nodes[1].app.received == 100_000);
    pair.paths[0].cut = true;
    pair.nodes[0].app.total += 5_000_000;
    pair.run_for(3 * SECOND);
    assert!(pair.tcp(0).segment_size() < FULL, "it could have been the size");
    pair.paths[0].cut = false;
    pair.run_until(30 * SECOND, |pair| pair.nodes[1].app.received == 5_100_000);
    assert_eq!(pair.tcp(0).segment_size(), FULL, "{:?}", pair.summary());
}

#[test]
fn a_connection_that_always_probes_starts_small_and_grows() {
    let mut pair = pair(3, MtuProbing::Always, Path::default());
    assert_eq!(pair.tcp(0).segment_size(), 1012);
    pair.nodes[0].app.total = 1_000_000;
    pair.run_until(10 * SECOND, |pair| pair.nodes[1].app.received == 1_000_000);
    assert_eq!(pair.tcp(0).segment_size(), FULL);
    assert_eq!(pair.tcp(0).statistics().path_mtu_probes, 1, "the likeliest size first");
}

#[test]
fn the_loss_of_a_probe_alone_is_no_sign_of_congestion() {
    let mut pair = pair(4, MtuProbing::Always, Path { payload_max: 1200, ..Path::default() });
    pair.nodes[0].app.total = 3_000_000;
    pair.run_until(10 * SECOND, |pair| pair.nodes[1].app.received == 3_000_000);
    let statistics = pair.tcp(0).statistics();
    assert!(statistics.path_mtu_probes >= 3, "{statistics:?}");
    assert_eq!((statistics.recoveries, statistics.retransmission_timeouts), (0, 0), "{statistics:?}");
    assert!((1160..=1200).contains(&pair.tcp(0).segment_size()), "{}", pair.tcp(0).segment_size());
}
