//! Stories about BBR on one bottleneck, in virtual time. The figures asserted are the goals of the design, not what
//! the controller happens to reach; `cargo test -- --nocapture` prints what it reaches.

#[allow(dead_code, unreachable_pub)]
#[path = "congestion/model.rs"]
mod model;

use std::time::Duration;

use model::{AckPolicy, Load, Path, SEGMENT, World};
use outrider_stack::tcp::congestion::{Algorithm, CongestionEvent};
use outrider_stack::time::Instant;

const GIGABIT: u64 = 1_000_000_000;
const SATURATING: Load = Load::Saturating { from: Duration::ZERO };

const fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What one or more flows made of a path, Startup left out.
struct Outcome {
    utilisation: f64,
    p50: Duration,
    p99: Duration,
}

/// A saturating flow, sending bursts of `burst` segments, for as many rounds as a fair picture takes.
fn saturate(name: &str, path: Path, policy: AckPolicy, burst: u64, seed: u64) -> Outcome {
    let (from, to) = if path.bits_per_second > 10 * GIGABIT {
        (ms(50), ms(200))
    } else if path.bits_per_second > GIGABIT {
        (ms(100), ms(600))
    } else {
        (ms(200), ms(2200))
    };
    let mut world = World::new(path, seed);
    let flow = world.add(Algorithm::Bbr, policy, SATURATING);
    world.flows[flow].burst = burst;
    world.run(to);
    let delays = world.delays(from, to);
    let outcome = Outcome {
        utilisation: world.utilisation(from, to),
        p50: delays.percentile(50.0),
        p99: delays.percentile(99.0),
    };
    println!(
        "{name}, seed {seed}: utilisation {:.3}, queueing p50 {:?} p99 {:?} max {:?}",
        outcome.utilisation,
        outcome.p50,
        outcome.p99,
        delays.percentile(100.0)
    );
    outcome
}

fn assert_outcome(name: &str, outcome: &Outcome, utilisation: f64, p50: Duration, p99: Duration) {
    assert!(outcome.utilisation >= utilisation, "{name}: utilisation {}", outcome.utilisation);
    assert!(outcome.p50 < p50, "{name}: median queueing delay {:?}", outcome.p50);
    assert!(outcome.p99 < p99, "{name}: 99th percentile of the queueing delay {:?}", outcome.p99);
}

#[test]
fn a_saturating_flow_keeps_the_link_busy_and_the_queue_short() {
    for (name, rate, delay) in [
        ("1 Gbit/s, 10 us", GIGABIT, us(10)),
        ("1 Gbit/s, 50 us", GIGABIT, us(50)),
        ("1 Gbit/s, 100 us", GIGABIT, us(100)),
        ("1 Gbit/s, 1 ms", GIGABIT, ms(1)),
        ("10 Gbit/s, 10 us", 10 * GIGABIT, us(10)),
        ("10 Gbit/s, 50 us", 10 * GIGABIT, us(50)),
        ("100 Gbit/s, 50 us", 100 * GIGABIT, us(50)),
    ] {
        for seed in 1..3 {
            let outcome = saturate(name, Path::new(rate, delay), AckPolicy::Each, 1, seed);
            assert_outcome(name, &outcome, 0.95, us(300), ms(1));
        }
    }
}

#[test]
fn super_segments_of_a_hundred_microseconds_cost_no_more_than_themselves() {
    for (name, rate, burst) in [("1 Gbit/s", GIGABIT, 8), ("10 Gbit/s", 10 * GIGABIT, 44)] {
        let outcome = saturate(name, Path::new(rate, us(50)), AckPolicy::Each, burst, 1);
        assert_outcome(name, &outcome, 0.95, us(300), ms(1));
    }
}

#[test]
fn receivers_that_answer_late_neither_starve_the_flow_nor_make_it_fill_the_queue() {
    for (name, policy) in [
        ("each ACK up to 100 us late", AckPolicy::Jitter(us(100))),
        ("64 segments or 1 ms to an ACK", AckPolicy::Aggregate(64, ms(1))),
        ("64 segments or 100 us to an ACK", AckPolicy::Aggregate(64, us(100))),
        ("a thread that sleeps up to 100 us", AckPolicy::Sleeping(us(100))),
        ("a thread that sleeps up to 500 us", AckPolicy::Sleeping(us(500))),
        ("a thread that sleeps up to 2 ms", AckPolicy::Sleeping(ms(2))),
    ] {
        for (rate, delay) in [(GIGABIT, us(50)), (GIGABIT, ms(1)), (10 * GIGABIT, us(50))] {
            // Two milliseconds of a 10 Gbit/s link are 2.5 MB: more than such a receiver's window.
            if rate > GIGABIT && matches!(policy, AckPolicy::Sleeping(most) if most > ms(1)) {
                continue;
            }
            let name = format!("{name}, {} Gbit/s, {delay:?}", rate / GIGABIT);
            for seed in 1..3 {
                let outcome = saturate(&name, Path::new(rate, delay), policy, 1, seed);
                assert_outcome(&name, &outcome, 0.9, us(300), ms(1));
            }
        }
    }
}

#[test]
fn random_loss_of_one_percent_costs_less_than_a_tenth() {
    for (name, rate, delay) in [
        ("1 % loss, 1 Gbit/s, 50 us", GIGABIT, us(50)),
        ("1 % loss, 1 Gbit/s, 1 ms", GIGABIT, ms(1)),
        ("1 % loss, 10 Gbit/s, 50 us", 10 * GIGABIT, us(50)),
    ] {
        for seed in 1..4 {
            let path = Path { loss_ppm: 10_000, ..Path::new(rate, delay) };
            let outcome = saturate(name, path, AckPolicy::Each, 1, seed);
            assert_outcome(name, &outcome, 0.9, us(300), ms(1));
        }
    }
}

#[test]
fn a_buffer_shallower_than_the_probe_is_respected() {
    let path = Path { queue_bytes: 60_000, ..Path::new(GIGABIT, ms(1)) };
    let mut world = World::new(path, 1);
    world.add(Algorithm::Bbr, AckPolicy::Each, SATURATING);
    world.run(ms(3000));
    let flow = &world.flows[0];
    let lost = flow.drops as f64 * SEGMENT as f64 / flow.delivered as f64;
    println!("60 kB of buffer: utilisation {:.3}, lost {lost:.5}", world.utilisation(ms(200), ms(3000)));
    assert!(world.utilisation(ms(200), ms(3000)) >= 0.9);
    assert!(lost < 0.01, "lost {lost}");
}

#[test]
fn flows_share_a_link_and_still_keep_its_queue_short() {
    for (name, count, rate, delay, queue_max) in [
        ("2 flows, 1 Gbit/s, 50 us", 2, GIGABIT, us(50), us(300)),
        ("2 flows, 1 Gbit/s, 1 ms", 2, GIGABIT, ms(1), ms(2)),
        ("2 flows, 10 Gbit/s, 50 us", 2, 10 * GIGABIT, us(50), us(300)),
        // Four segments each are 32: the window's floor, not the model, makes this queue.
        ("8 flows, 1 Gbit/s, 50 us", 8, GIGABIT, us(50), us(600)),
    ] {
        let (late, from, to) =
            if rate > GIGABIT { (ms(200), ms(500), ms(1200)) } else { (ms(500), ms(2000), ms(7000)) };
        let mut world = World::new(Path::new(rate, delay), 3);
        world.add(Algorithm::Bbr, AckPolicy::Each, SATURATING);
        for _ in 1..count {
            world.add(Algorithm::Bbr, AckPolicy::Each, Load::Saturating { from: late });
        }
        world.run(to);
        let shares: Vec<f64> =
            world.flows.iter().map(|flow| (flow.delivered_by(to) - flow.delivered_by(from)) as f64).collect();
        let sum: f64 = shares.iter().sum();
        let squares: f64 = shares.iter().map(|share| share * share).sum();
        let jain = sum * sum / (shares.len() as f64 * squares);
        let (least, most) = shares
            .iter()
            .fold((f64::MAX, 0.0f64), |(least, most), share| (least.min(*share), most.max(*share)));
        let (utilisation, p50) = (world.utilisation(from, to), world.delays(from, to).percentile(50.0));
        let p99 = world.delays(from, to).percentile(99.0);
        println!(
            "{name}: Jain {jain:.3}, {:.2}:1, utilisation {utilisation:.3}, p50 {p50:?} p99 {p99:?}",
            most / least
        );
        assert!(jain >= 0.8 && most / least <= 3.0, "{name}: shares {shares:?}");
        assert!(utilisation >= 0.95, "{name}: utilisation {utilisation}");
        assert!(p50 < queue_max, "{name}: median queueing delay {p50:?}");
    }
}

#[test]
fn a_rate_that_falls_to_a_tenth_is_followed_within_a_second_and_so_is_its_return() {
    for delay in [us(50), ms(1)] {
        let mut world = World::new(Path::new(GIGABIT, delay), 3);
        world.add(Algorithm::Bbr, AckPolicy::Each, SATURATING);
        world.set_rate_at(ms(1000), GIGABIT / 10);
        world.set_rate_at(ms(3000), GIGABIT);
        world.run(ms(5000));
        let flow = &world.flows[0];
        let bandwidth = |at| flow.tick(at).bandwidth.unwrap_or(0) * 8;
        let settled = world.delays(ms(2000), ms(3000));
        println!(
            "rate steps, {delay:?}: {} then {} then {} bit/s, settled p50 {:?}",
            bandwidth(ms(1000)),
            bandwidth(ms(2000)),
            bandwidth(ms(4000)),
            settled.percentile(50.0)
        );
        assert!(bandwidth(ms(1000)) > GIGABIT * 9 / 10);
        assert!(bandwidth(ms(2000)) < GIGABIT / 10 * 11 / 10, "still too fast after a second");
        assert!(world.utilisation(ms(2000), ms(3000)) >= 0.9);
        assert!(settled.percentile(50.0) < ms(1), "the queue of the fast link still stands");
        assert!(world.utilisation(ms(4000), ms(5000)) >= 0.95, "the faster link was not found");
    }
}

#[test]
fn a_longer_way_is_learnt_when_min_rtt_expires() {
    let mut world = World::new(Path::new(GIGABIT, us(50)), 3);
    world.add(Algorithm::Bbr, AckPolicy::Each, SATURATING);
    world.set_delay_at(ms(1000), us(500));
    world.run(ms(13_000));
    println!(
        "longer way: utilisation {:.3} while unlearnt, {:.3} after",
        world.utilisation(ms(1000), ms(11_000)),
        world.utilisation(ms(12_000), ms(13_000))
    );
    assert!(world.utilisation(ms(12_000), ms(13_000)) >= 0.95);
}

#[test]
fn silence_of_the_application_does_not_make_the_path_look_slow() {
    let mut world = World::new(Path::new(GIGABIT, us(50)), 3);
    let load = Load::Trickle {
        bytes: 20 * SEGMENT,
        every: ms(5),
        saturating: vec![(ms(0), ms(500)), (ms(3000), ms(4000))],
    };
    world.add(Algorithm::Bbr, AckPolicy::Each, load);
    world.run(ms(4000));
    let before = world.flows[0].tick(ms(490)).bandwidth.unwrap_or(0);
    let after = world.flows[0].tick(ms(2990)).bandwidth.unwrap_or(0);
    println!("application-limited: {before} then {after} bytes/s");
    assert!(after * 10 >= before * 9, "the estimate fell from {before} to {after} bytes/s");
    assert!(world.utilisation(ms(3010), ms(3510)) >= 0.95);
}

#[test]
fn probe_rtt_comes_every_five_seconds_and_is_cheap() {
    let mut world = World::new(Path::new(GIGABIT, us(50)), 3);
    world.add(Algorithm::Bbr, AckPolicy::Each, SATURATING);
    world.run(ms(11_000));
    let flow = &world.flows[0];
    let mut visits = Vec::new();
    for pair in flow.phases.windows(2) {
        if pair[0].1 == "probe-rtt" {
            visits.push((pair[0].0, pair[1].0 - pair[0].0));
        }
    }
    let without = world.utilisation(ms(1000), ms(4900));
    let with = world.utilisation(ms(4900), ms(10_900));
    println!("ProbeRTT: {visits:?}, utilisation {without:.4} without, {with:.4} with");
    assert_eq!(visits.len(), 2);
    for (at, length) in visits {
        assert!(length >= ms(10) && length < ms(20), "{length:?}");
        let delays = world.delays(at, at + length);
        assert!(delays.percentile(99.0) < ms(1));
        // The window shrinks to half a BDP, but at least to four segments; it does not close.
        assert!(flow.tick(at + length / 2).window >= 4 * SEGMENT);
        assert!(flow.tick(at + length / 2).window <= 8 * SEGMENT);
    }
    assert!(with > without - 0.02);
}

#[test]
fn a_spurious_timeout_gives_back_the_window() {
    let mut world = World::new(Path::new(GIGABIT, ms(1)), 3);
    world.add(Algorithm::Bbr, AckPolicy::Each, SATURATING);
    world.run(ms(1000));
    let now = Instant::ZERO + ms(1000);
    let flow = &mut world.flows[0];
    let (window, bandwidth) = (flow.controller.window(), flow.controller.bandwidth());
    flow.controller.on_event(now, CongestionEvent::Timeout, 0);
    assert_eq!(flow.controller.window(), SEGMENT);
    flow.controller.on_event(now, CongestionEvent::Undo, flow.pipe());
    assert_eq!(flow.controller.window(), window);
    assert_eq!(flow.controller.bandwidth(), bandwidth);
}

#[test]
fn a_startup_ended_by_spurious_loss_is_resumed() {
    let path = Path { loss_ppm: 60_000, ..Path::new(10 * GIGABIT, ms(1)) };
    let mut world = World::new(path, 3);
    world.add(Algorithm::Bbr, AckPolicy::Each, SATURATING);
    let mut elapsed = Duration::ZERO;
    while world.flows[0].controller.phase() == "startup" {
        world.run(us(10));
        elapsed += us(10);
        assert!(elapsed < ms(100), "6 % loss did not end Startup");
    }
    let flow = &mut world.flows[0];
    assert!(flow.controller.bandwidth().is_some_and(|rate| rate * 8 < 9 * GIGABIT), "ended by the plateau");
    flow.controller.on_event(Instant::ZERO + elapsed, CongestionEvent::Undo, flow.pipe());
    assert_eq!(flow.controller.phase(), "startup");
}

#[test]
fn startup_drain_and_the_four_phases_follow_each_other() {
    let mut world = World::new(Path::new(GIGABIT, ms(1)), 3);
    world.add(Algorithm::Bbr, AckPolicy::Each, SATURATING);
    world.run(ms(1000));
    let names: Vec<&str> = world.flows[0].phases.iter().map(|(_, name)| *name).collect();
    assert_eq!(names[..2], ["startup", "drain"], "{names:?}");
    for pair in names[1..].windows(2) {
        let allowed: &[&str] = match pair[0] {
            // A pipe that Drain has emptied needs no DOWN.
            "drain" => &["probe-bw-down", "probe-bw-cruise"],
            "probe-bw-down" => &["probe-bw-cruise", "probe-bw-refill"],
            "probe-bw-cruise" => &["probe-bw-refill"],
            "probe-bw-refill" => &["probe-bw-up"],
            "probe-bw-up" => &["probe-bw-down"],
            other => panic!("{other} in a second of steady sending"),
        };
        assert!(allowed.contains(&pair[1]), "{pair:?}");
    }
    assert!(names.iter().filter(|name| **name == "probe-bw-up").count() >= 3);
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let run = |seed| {
        let mut world = World::new(Path::new(GIGABIT, us(50)), 1);
        world.add_controller(Algorithm::Bbr.build(SEGMENT, 10, seed), AckPolicy::Each, SATURATING);
        world.run(ms(300));
        world.flows[0].phases.clone()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
