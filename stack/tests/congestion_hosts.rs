//! Stories about controllers between hosts that sleep, in virtual time.

#[allow(unreachable_pub)]
#[path = "congestion/hosts.rs"]
mod hosts;

use std::time::Duration;

use hosts::{Bottleneck, Thread, Work, World};
use outrider_stack::tcp::congestion::Algorithm;

const fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What the bench's bridge is: 200 Mbit/s, a bucket of 32 KB, a queue of 1 MB, hosts in the same machine.
fn bridge() -> Bottleneck {
    Bottleneck {
        bits_per_second: 200_000_000,
        bucket_bytes: 32 << 10,
        queue_bytes: 1_000_000,
        timer_late_max: us(60),
        delay: us(2),
        loss: 0.0,
    }
}

/// Payload's share of the rate.
const PAYLOAD: f64 = 1448.0 / 1514.0;

/// What a flow made of the bottleneck, its beginning left out.
#[derive(Debug)]
struct Outcome {
    /// Goodput over what the rate allows.
    share: f64,
    /// Time in the bottleneck.
    p50: Duration,
    p99: Duration,
}

fn saturate(name: &str, bottleneck: Bottleneck, sender: Thread, receiver: Thread) -> Outcome {
    let rate = bottleneck.bits_per_second as f64 * PAYLOAD;
    let mut world = World::new(bottleneck, 1);
    let flow = world.add(Algorithm::Bbr, sender, receiver);
    world.run(ms(300));
    let before = world.received(flow);
    world.waits.clear();
    world.run(ms(1500));
    let mut waits = std::mem::take(&mut world.waits);
    waits.sort();
    let at = |part: usize| waits[(waits.len() * part / 100).min(waits.len() - 1)];
    let goodput = (world.received(flow) - before) as f64 * 8.0 / 1.5;
    let outcome = Outcome { share: goodput / rate, p50: at(50), p99: at(99) };
    println!("{name}: {outcome:?}, {} sent again", world.sender(flow).statistics().retransmits);
    outcome
}

/// A shard: it polls for 20 us, then sleeps, and wakes between half of `late` and `late` after it should.
fn shard(late: Duration, hiccup_max: Duration) -> Thread {
    let late = late.as_nanos() as u64;
    Thread {
        spin: us(20),
        late: late / 2..late,
        hiccup_every: (!hiccup_max.is_zero()).then_some(ms(4)),
        hiccup_max,
        ..Thread::PROMPT
    }
}

fn kernel(late: Duration) -> Thread {
    Thread { late: 1_000..late.as_nanos() as u64, ..Thread::PROMPT }
}

#[test]
fn a_sender_that_wakes_late_fills_a_token_bucket_and_leaves_no_queue() {
    for late in [us(10), us(50), us(100), us(250), us(500)] {
        for (timer, receiver) in [(us(0), us(3)), (us(60), us(3)), (us(60), us(60)), (us(150), us(60))] {
            let name = format!("late by {late:?}, shaper by {timer:?}, receiver by {receiver:?}");
            let bottleneck = Bottleneck { timer_late_max: timer, ..bridge() };
            let outcome = saturate(&name, bottleneck, shard(late, Duration::ZERO), kernel(receiver));
            assert!(outcome.share >= 0.98, "{name}: {outcome:?}");
            assert!(outcome.p50 < us(300) && outcome.p99 < ms(1), "{name}: {outcome:?}");
        }
    }
}

#[test]
fn a_sender_kept_from_its_core_for_milliseconds_catches_up_without_a_queue() {
    for (hiccup, share) in [(us(300), 0.97), (ms(1), 0.95), (ms(2), 0.9)] {
        for late in [us(50), us(100), us(400)] {
            let name = format!("off its core for up to {hiccup:?} every 4 ms, late by {late:?}");
            let outcome = saturate(&name, bridge(), shard(late, hiccup), kernel(us(60)));
            assert!(outcome.share >= share, "{name}: {outcome:?}");
            assert!(outcome.p99 < ms(2), "{name}: {outcome:?}");
        }
    }
}

#[test]
fn random_loss_costs_such_a_sender_little() {
    for loss in [0.001, 0.01] {
        let name = format!("loss {loss}");
        let bottleneck = Bottleneck { loss, ..bridge() };
        let outcome = saturate(&name, bottleneck, shard(us(100), us(300)), kernel(us(60)));
        assert!(outcome.share >= 0.9 && outcome.p99 < ms(2), "{name}: {outcome:?}");
    }
}

/// How a host whose frames take `frame` each, whatever their length, is disturbed: up to so many percent longer, and so many
/// of a thousand frames interrupted for up to so long.
fn work(
    frame: Duration,
    (longer_percent, interrupted_permille, interruption_max): (u32, u64, Duration),
) -> Work {
    Work { frame, longer_percent, interrupted_permille, interruption_max, ..Work::default() }
}

/// What a flow makes of two hosts of one machine whose ports segment, and that have nothing between them: bytes a second
/// in half a second, and the smoothed RTT at its end. 1000 bytes take sender and receiver so many nanoseconds.
fn pipeline(algorithm: Algorithm, seed: u64, work: Work, kilobyte_nanos: [u64; 2]) -> (f64, Duration) {
    let [sender, receiver] = kilobyte_nanos.map(|nanos| Thread {
        spin: us(50),
        work: Work { kilobyte: Duration::from_nanos(nanos), ..work },
        super_segment_bytes: 65_000,
        ..shard(us(60), Duration::ZERO)
    });
    let nothing_between = Bottleneck {
        bits_per_second: 400_000_000_000,
        bucket_bytes: 1 << 20,
        queue_bytes: 64 << 20,
        timer_late_max: Duration::ZERO,
        delay: us(2),
        loss: 0.0,
    };
    let mut world = World::new(nothing_between, seed);
    let flow = world.add(algorithm, sender, receiver);
    world.run(ms(200));
    let before = world.received(flow);
    world.run(ms(500));
    let rate = (world.received(flow) - before) as f64 * 2.0;
    let rtt = world.sender(flow).send_state(world.now).smoothed_rtt.expect("there were round trips");
    (rate, rtt)
}

#[test]
fn super_segments_between_busy_threads_keep_both_of_them_at_work() {
    // Each frame takes up to half as long again or twice as long, and one in so many is interrupted for a while.
    for disturbed in [(60, 0, us(0)), (100, 0, us(0)), (60, 20, us(200)), (60, 50, us(300))] {
        for seed in 1..7 {
            let (bbr, rtt) = pipeline(Algorithm::Bbr, seed, work(us(6), disturbed), [500, 560]);
            // It knows of no queue but the one that loses, and there is none: it shows what the hosts can do.
            let (cubic, _) = pipeline(Algorithm::Cubic, seed, work(us(6), disturbed), [500, 560]);
            let name = format!(
                "{disturbed:?}, seed {seed}: {:.2} of {:.2} GB/s, RTT {rtt:?}",
                bbr / 1e9,
                cubic / 1e9
            );
            println!("{name}");
            assert!(bbr > cubic * 2.0 / 3.0, "{name}");
            assert!(rtt < ms(1), "{name}");
        }
    }
}

#[test]
fn a_round_of_one_acknowledgement_is_not_judged_by_itself() {
    // Each frame takes most of its time whatever its length, and an interruption is the only sample of its round.
    let work = work(us(40), (100, 20, us(300)));
    let rate = |algorithm| (1..5).map(|seed| pipeline(algorithm, seed, work, [100, 120]).0).sum::<f64>();
    let share = rate(Algorithm::Bbr) / rate(Algorithm::Cubic);
    assert!(share > 0.6, "{share:.2} of what the hosts can do");
}
