//! Stories about BBR on one bottleneck.

#[allow(dead_code, unreachable_pub)]
#[path = "congestion/model.rs"]
mod model;

use std::time::Duration;

use model::{AckPolicy, Load, Path, World};
use outrider_stack::tcp::congestion::Algorithm;

const GIGABIT: u64 = 1_000_000_000;

fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const SATURATING: Load = Load::Saturating { from: Duration::ZERO };

#[test]
fn table() {
    println!("case, util, p50, p99, max");
    let g = GIGABIT;
    let cases: Vec<(&str, Path, AckPolicy)> = vec![
        ("1G 10us", Path::new(g, us(10)), AckPolicy::Each),
        ("1G 50us", Path::new(g, us(50)), AckPolicy::Each),
        ("1G 100us", Path::new(g, us(100)), AckPolicy::Each),
        ("1G 1ms", Path::new(g, ms(1)), AckPolicy::Each),
        ("1G 5ms", Path::new(g, ms(5)), AckPolicy::Each),
        ("10G 50us", Path::new(10 * g, us(50)), AckPolicy::Each),
        ("10G 10us", Path::new(10 * g, us(10)), AckPolicy::Each),
        ("100G 50us", Path::new(100 * g, us(50)), AckPolicy::Each),
        ("100M 50us", Path::new(g / 10, us(50)), AckPolicy::Each),
        ("1G 50us jitter", Path::new(g, us(50)), AckPolicy::Jitter(us(100))),
        ("1G 1ms jitter", Path::new(g, ms(1)), AckPolicy::Jitter(us(100))),
        ("10G 50us jitter", Path::new(10 * g, us(50)), AckPolicy::Jitter(us(100))),
        ("1G 50us agg64/1ms", Path::new(g, us(50)), AckPolicy::Aggregate(64, ms(1))),
        ("1G 50us agg64/100us", Path::new(g, us(50)), AckPolicy::Aggregate(64, us(100))),
        ("1G 1ms agg64/1ms", Path::new(g, ms(1)), AckPolicy::Aggregate(64, ms(1))),
        ("10G 50us agg64/1ms", Path::new(10 * g, us(50)), AckPolicy::Aggregate(64, ms(1))),
        ("1G 50us sleep100", Path::new(g, us(50)), AckPolicy::Sleeping(us(100))),
        ("1G 50us sleep500", Path::new(g, us(50)), AckPolicy::Sleeping(us(500))),
        ("1G 50us sleep2ms", Path::new(g, us(50)), AckPolicy::Sleeping(ms(2))),
        ("10G 50us sleep100", Path::new(10 * g, us(50)), AckPolicy::Sleeping(us(100))),
        ("10G 50us sleep500", Path::new(10 * g, us(50)), AckPolicy::Sleeping(us(500))),
        ("1G 1ms sleep100", Path::new(g, ms(1)), AckPolicy::Sleeping(us(100))),
        ("1G 50us loss1", Path { loss_ppm: 10_000, ..Path::new(g, us(50)) }, AckPolicy::Each),
        ("1G 1ms loss1", Path { loss_ppm: 10_000, ..Path::new(g, ms(1)) }, AckPolicy::Each),
        ("10G 50us loss1", Path { loss_ppm: 10_000, ..Path::new(10 * g, us(50)) }, AckPolicy::Each),
        ("1G 50us loss.1", Path { loss_ppm: 1_000, ..Path::new(g, us(50)) }, AckPolicy::Each),
        ("1G 1ms shallow60k", Path { queue_bytes: 60_000, ..Path::new(g, ms(1)) }, AckPolicy::Each),
        ("1G 50us shallow8k", Path { queue_bytes: 8_000, ..Path::new(g, us(50)) }, AckPolicy::Each),
    ];
    for (name, path, policy) in cases {
        let (from, to) = (
            ms(200),
            if path.bits_per_second > 10 * g {
                ms(400)
            } else if path.bits_per_second > g {
                ms(1000)
            } else {
                ms(3000)
            },
        );
        let mut world = World::new(path, 1);
        world.add(Algorithm::Bbr, policy, SATURATING);
        world.run(to);
        let d = world.delays(from, to);
        let f = &world.flows[0];
        println!(
            "{name:22} util {:.3} p50 {:?} p99 {:?} max {:?} drops {} phases {} events {}",
            world.utilisation(from, to),
            d.percentile(50.),
            d.percentile(99.),
            d.percentile(100.),
            f.drops,
            f.phases.len(),
            f.events.len()
        );
    }
}

#[test]
fn explore() {
    for (n, rate, delay, from2) in [(2usize, GIGABIT, us(50), ms(0)), (2, GIGABIT, us(50), ms(500)), (2, GIGABIT, ms(1), ms(500)), (2, 10*GIGABIT, us(50), ms(200)), (8, GIGABIT, us(50), ms(100)), (8, GIGABIT, ms(1), ms(100)), (8, 10*GIGABIT, us(50), ms(100))] {
        let mut world = World::new(Path::new(rate, delay), 3);
        world.add(Algorithm::Bbr, AckPolicy::Each, SATURATING);
        for _ in 1..n { world.add(Algorithm::Bbr, AckPolicy::Each, Load::Saturating { from: from2 }); }
        let (a, b) = if rate > GIGABIT { (ms(1000), ms(2000)) } else { (ms(4000), ms(14000)) };
        world.run(b);
        let x: Vec<f64> = world.flows.iter().map(|f| (f.delivered_by(b) - f.delivered_by(a)) as f64 * 8. / (b - a).as_secs_f64() / 1e6).collect();
        let jain = x.iter().sum::<f64>().powi(2) / (x.len() as f64 * x.iter().map(|v| v * v).sum::<f64>());
        let d = world.delays(a, b);
        println!("{n} flows {rate} {delay:?}: {x:.0?} jain {jain:.3} util {:.3} p50 {:?} p99 {:?} max {:?} probertt {}", world.utilisation(a, b), d.percentile(50.), d.percentile(99.), d.percentile(100.), world.flows[0].phases.iter().filter(|p| p.1 == "probe-rtt").count());
    }
    // rate drop and return
    for delay in [us(50), ms(1)] {
        let mut world = World::new(Path::new(GIGABIT, delay), 3);
        world.add(Algorithm::Bbr, AckPolicy::Each, SATURATING);
        world.set_rate_at(ms(1000), GIGABIT / 10);
        world.set_rate_at(ms(3000), GIGABIT);
        world.run(ms(5000));
        for t in [900, 1005, 1010, 1020, 1050, 1100, 1200, 1500, 2000, 2900, 3005, 3020, 3050, 3100, 3200, 3400, 3600, 3800, 4000, 4800] {
            let tick = world.flows[0].ticks.iter().take_while(|k| k.at <= ms(t)).last().unwrap().clone();
            let d = world.delays(ms(t - 5), ms(t));
            println!("  {t} ms bw {} Mbit window {} p50 {:?} max {:?} util {:.3}", tick.bandwidth.unwrap() * 8 / 1_000_000, tick.window, d.percentile(50.), d.percentile(100.), world.utilisation(ms(t - 50), ms(t)));
        }
        println!("drops {}", world.flows[0].drops);
    }
    // long run
    let mut world = World::new(Path::new(GIGABIT, us(50)), 3);
    world.add(Algorithm::Bbr, AckPolicy::Each, SATURATING);
    world.run(ms(12000));
    for w in world.flows[0].phases.windows(2) { if w[0].1 == "probe-rtt" { println!("probe rtt at {:?} for {:?}", w[0].0, w[1].0 - w[0].0); } }
    println!("util 4..9 {:.3} {:.3}", world.utilisation(ms(1000), ms(4900)), world.utilisation(ms(4900), ms(9900)));
    // trickle
    let mut world = World::new(Path::new(GIGABIT, us(50)), 3);
    world.add(Algorithm::Bbr, AckPolicy::Each, Load::Trickle { bytes: 10 * SEG, every: ms(5), until: ms(3000) });
    world.run(ms(4000));
    println!("trickle: {:?} tick {:?}", world.flows[0].phases.iter().take(10).collect::<Vec<_>>(), world.flows[0].ticks.iter().rfind(|t| t.at < ms(3000)));
    for t in [3005, 3010, 3020, 3050, 3100] { println!("{t} util {:.3}", world.utilisation(ms(t - 5), ms(t))); }
}
const SEG: u64 = model::SEGMENT;
