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
