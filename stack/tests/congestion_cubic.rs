//! Stories about CUBIC and HyStart++, and about choosing an algorithm by name.

#[allow(dead_code, unreachable_pub)]
#[path = "congestion/model.rs"]
mod model;

use std::time::Duration;

use model::{AckPolicy, Load, Path, SEGMENT, World};
use outrider_stack::tcp::congestion::cubic::Cubic;
use outrider_stack::tcp::congestion::{AckSample, Algorithm, CongestionControl, CongestionEvent};
use outrider_stack::time::Instant;

const SATURATING: Load = Load::Saturating { from: Duration::ZERO };

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An acknowledgement of `acked` bytes at `now`, with the window in use and nothing wrong.
fn ack(now: Instant, acked: u64, rtt: Duration, round_start: bool) -> AckSample {
    AckSample {
        now,
        newly_delivered: acked,
        newly_acked: acked,
        newly_lost: 0,
        rtt: Some(rtt),
        rtt_min: Some(rtt),
        smoothed_rtt: Some(rtt),
        pipe_before: acked,
        pipe: 0,
        rate: None,
        delivered: acked,
        round_start,
        app_limited: false,
        ce_marked: 0,
        in_recovery: false,
    }
}

/// Lets `cubic` live through rounds of `rtt` in which it uses `used` of its window at most, until `until` says so.
fn rounds(
    cubic: &mut Cubic,
    now: &mut Instant,
    rtt: Duration,
    used: u64,
    mut until: impl FnMut(&Cubic, Instant) -> bool,
) {
    for _ in 0..1_000_000 {
        if until(cubic, *now) {
            return;
        }
        let flight = cubic.window().min(used) / SEGMENT;
        for segment in 0..flight {
            cubic.on_sent(*now, SEGMENT, segment * SEGMENT);
        }
        *now += rtt;
        for segment in 0..flight {
            cubic.on_ack(&ack(*now, SEGMENT, rtt, segment == 0));
        }
    }
    panic!("a million rounds did not do it: {cubic:?}");
}

/// A controller whose window was `segments` when it met its first loss, and the instant at which it recovered.
fn after_loss_at(segments: u64, rtt: Duration) -> (Cubic, Instant) {
    let mut cubic = Cubic::new(SEGMENT, 10);
    let mut now = Instant::ZERO;
    rounds(&mut cubic, &mut now, rtt, segments * SEGMENT, |cubic, _| cubic.window() >= segments * SEGMENT);
    // One more round, so that all of the window has been used.
    let mut once = false;
    rounds(&mut cubic, &mut now, rtt, segments * SEGMENT, |_, _| std::mem::replace(&mut once, true));
    let pipe = cubic.window();
    cubic.on_event(now, CongestionEvent::Loss, pipe);
    cubic.on_event(now, CongestionEvent::RecoveryEnd, 0);
    (cubic, now)
}

#[test]
fn a_saturating_flow_fills_the_pipe_and_backs_off_by_three_tenths() {
    // 100 Mbit/s, 20 ms: 172 segments, and 100 kB of queue are another 65.
    let path = Path { queue_bytes: 100_000, ..Path::new(100_000_000, ms(10)) };
    let mut world = World::new(path, 1);
    world.add(Algorithm::Cubic, AckPolicy::Each, SATURATING);
    world.run(ms(60_000));
    let flow = &world.flows[0];
    let losses: Vec<_> = flow
        .events
        .iter()
        .filter(|told| told.event == CongestionEvent::Loss && told.at > ms(10_000))
        .collect();
    assert!(losses.len() >= 3, "{losses:?}");
    for loss in &losses {
        let ratio = loss.after as f64 / loss.before as f64;
        assert!((0.67..=0.71).contains(&ratio), "{loss:?}");
    }
    let utilisation = world.utilisation(ms(10_000), ms(60_000));
    println!("CUBIC, 100 Mbit/s, 20 ms: utilisation {utilisation:.3}, {} losses in 50 s", losses.len());
    assert!(utilisation >= 0.9);
}

#[test]
fn the_window_returns_to_its_plateau_in_time_k() {
    // At 1 s RTT Reno is far slower than the curve, so it is the curve that is seen.
    let (mut cubic, start) = after_loss_at(1000, ms(1000));
    let reduced = cubic.window();
    assert!(reduced.abs_diff(700 * SEGMENT) <= SEGMENT, "{}", reduced / SEGMENT);
    // RFC 9438 equation 2: K = cbrt(0.3 W_max / 0.4).
    let k = (0.3 * 1000.0f64 / 0.4).cbrt();
    let mut now = start;
    let mut half_way = 0;
    rounds(&mut cubic, &mut now, ms(1000), u64::MAX, |cubic, now| {
        if now.since(start).as_secs_f64() <= k / 2.0 {
            half_way = cubic.window();
        }
        cubic.window() >= 999 * SEGMENT
    });
    let took = now.since(start).as_secs_f64();
    assert!((took - k).abs() <= 2.0, "took {took} s, K is {k} s");
    // Concave: most of the way is gone in half of the time.
    assert!(half_way > (700 + 200) * SEGMENT, "{} segments after K/2", half_way / SEGMENT);
    // Convex beyond: slow near the plateau, then faster.
    let plateau = now;
    rounds(&mut cubic, &mut now, ms(1000), u64::MAX, |cubic, _| cubic.window() >= 1300 * SEGMENT);
    let again = now.since(plateau).as_secs_f64();
    assert!((again - k).abs() <= 3.0, "took {again} s to rise as far above the plateau, K is {k} s");
}

#[test]
fn at_short_round_trips_it_is_no_slower_than_reno() {
    let rtt = Duration::from_micros(100);
    let (mut cubic, start) = after_loss_at(1000, rtt);
    let mut now = start;
    rounds(&mut cubic, &mut now, rtt, u64::MAX, |cubic, _| cubic.window() >= 1000 * SEGMENT);
    // 300 segments at 0.53 a round are 567 rounds, 57 ms; the curve alone would take 9 s.
    let took = now.since(start);
    assert!(took > ms(50) && took < ms(65), "{took:?}");
}

#[test]
fn a_flow_that_did_not_get_back_to_its_plateau_makes_room() {
    let (mut cubic, start) = after_loss_at(1000, ms(100));
    let mut now = start;
    rounds(&mut cubic, &mut now, ms(100), u64::MAX, |cubic, _| cubic.window() >= 800 * SEGMENT);
    let window = cubic.window();
    cubic.on_event(now, CongestionEvent::Loss, window);
    cubic.on_event(now, CongestionEvent::RecoveryEnd, 0);
    // Section 4.7: the new plateau is 0.85 of the window, not the window: it is flat there.
    let plateau = window / 100 * 85;
    let k = (0.15 * window as f64 / SEGMENT as f64 / 0.4).cbrt();
    let begun = now;
    rounds(&mut cubic, &mut now, ms(100), u64::MAX, |_, now| now.since(begun).as_secs_f64() >= k);
    assert!(cubic.window().abs_diff(plateau) < window / 50, "{} instead of {plateau}", cubic.window());
}

#[test]
fn hystart_leaves_slow_start_before_the_queue_overflows() {
    // 100 Mbit/s, 10 ms: 125 kB. The five rounds of conservative slow start may still triple the window.
    let path = Path { queue_bytes: 2_000_000, ..Path::new(100_000_000, ms(5)) };
    let mut world = World::new(path, 1);
    world.add(Algorithm::Cubic, AckPolicy::Each, SATURATING);
    world.run(ms(1500));
    let flow = &world.flows[0];
    let conservative = flow.entered("conservative-slow-start", Duration::ZERO).expect("the RTT rose");
    let avoidance = flow.entered("avoidance", Duration::ZERO).expect("the rise lasted");
    println!("HyStart++: conservative after {conservative:?}, avoidance after {avoidance:?}");
    assert!(conservative < avoidance);
    assert_eq!(flow.drops, 0, "slow start overflowed the queue");
    assert!(world.utilisation(ms(500), ms(1500)) > 0.99, "slow start was left too soon");
}

#[test]
fn a_rise_of_the_rtt_that_passes_does_not_end_slow_start() {
    let mut cubic = Cubic::new(SEGMENT, 10);
    let mut now = Instant::ZERO;
    let mut left = 3;
    let mut count = |_: &Cubic, _: Instant| {
        left -= 1;
        left < 0
    };
    rounds(&mut cubic, &mut now, ms(10), u64::MAX, &mut count);
    assert_eq!(cubic.phase(), "slow-start");
    for segment in 0..10 {
        cubic.on_ack(&ack(now, SEGMENT, ms(15), segment == 0));
    }
    assert_eq!(cubic.phase(), "conservative-slow-start");
    for segment in 0..10 {
        cubic.on_ack(&ack(now, SEGMENT, ms(10), segment == 0));
    }
    assert_eq!(cubic.phase(), "slow-start");
}

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    let mut cubic = Cubic::new(SEGMENT, 10);
    let mut now = Instant::ZERO;
    let mut left = 100;
    rounds(&mut cubic, &mut now, ms(10), 4 * SEGMENT, |_, _| {
        left -= 1;
        left < 0
    });
    assert_eq!(cubic.window(), 10 * SEGMENT);

    let (mut cubic, start) = after_loss_at(1000, ms(100));
    let mut now = start;
    let mut left = 5;
    rounds(&mut cubic, &mut now, ms(100), u64::MAX, |_, _| {
        left -= 1;
        left < 0
    });
    let window = cubic.window();
    rounds(&mut cubic, &mut now, ms(100), 100 * SEGMENT, |_, now| now.since(start) > ms(60_000));
    assert!(cubic.window() < window + 40 * SEGMENT, "grew by {} bytes unused", cubic.window() - window);
    // Nor is the time in which it was not used made up for afterwards.
    let before = cubic.window();
    let mut left = 3;
    rounds(&mut cubic, &mut now, ms(100), u64::MAX, |_, _| {
        left -= 1;
        left < 0
    });
    assert!(cubic.window() < before / 10 * 13, "{} to {}", before, cubic.window());
}

#[test]
fn undo_gives_back_window_and_threshold() {
    let mut cubic = Cubic::new(SEGMENT, 10);
    let mut now = Instant::ZERO;
    rounds(&mut cubic, &mut now, ms(10), u64::MAX, |cubic, _| cubic.window() >= 500 * SEGMENT);
    let window = cubic.window();
    for event in [CongestionEvent::Loss, CongestionEvent::Timeout] {
        cubic.on_event(now, event, window);
        assert!(cubic.window() < window && cubic.slow_start_threshold() < window);
        cubic.on_event(now, CongestionEvent::Undo, window);
        assert_eq!(cubic.window(), window);
        assert_eq!(cubic.slow_start_threshold(), u64::MAX);
    }
    // A second one has nothing left to give.
    cubic.on_event(now, CongestionEvent::Undo, window);
    assert_eq!(cubic.window(), window);
}

#[test]
fn timeouts_in_a_row_are_one_reduction() {
    let (mut cubic, now) = after_loss_at(1000, ms(10));
    cubic.on_event(now, CongestionEvent::Timeout, 0);
    let threshold = cubic.slow_start_threshold();
    assert_eq!(cubic.window(), SEGMENT);
    assert!(threshold > 400 * SEGMENT);
    cubic.on_event(now + ms(20), CongestionEvent::Timeout, 0);
    assert_eq!(cubic.slow_start_threshold(), threshold);
    // Slow start brings the window back to the threshold and no further.
    let mut later = now + ms(40);
    rounds(&mut cubic, &mut later, ms(10), u64::MAX, |cubic, _| cubic.window() >= threshold);
    assert!(later.since(now) < ms(200));
    assert_eq!(cubic.window(), threshold);
}

#[test]
fn sending_after_an_idle_time_starts_with_the_initial_window() {
    let (mut cubic, now) = after_loss_at(1000, ms(10));
    let window = cubic.window();
    cubic.on_event(now + ms(5000), CongestionEvent::IdleRestart, 0);
    assert_eq!(cubic.window(), 10 * SEGMENT);
    assert!(cubic.slow_start_threshold() >= window / 4 * 3);
    let mut later = now + ms(5000);
    rounds(&mut cubic, &mut later, ms(10), u64::MAX, |cubic, _| cubic.window() >= window / 4 * 3);
    assert!(later.since(now + ms(5000)) <= ms(80), "slow start to where it was");
}

#[test]
fn pacing_is_twice_the_window_in_slow_start_and_a_fifth_above_it_later() {
    let mut cubic = Cubic::new(SEGMENT, 10);
    assert_eq!(cubic.pacing_rate(), None, "no RTT, no rate");
    cubic.on_ack(&ack(Instant::ZERO, SEGMENT, ms(10), true));
    assert_eq!(cubic.pacing_rate(), Some(cubic.window() * 2 * 100));
    let (cubic, _) = after_loss_at(1000, ms(10));
    assert_eq!(cubic.pacing_rate(), Some(cubic.window() * 12 * 100 / 10));
    let (cubic, _) = after_loss_at(100, ms(10));
    assert_eq!(cubic.without_pacing().pacing_rate(), None);
}

#[test]
fn an_algorithm_is_chosen_by_its_name() {
    for algorithm in Algorithm::ALL {
        assert_eq!(algorithm.to_string().parse(), Ok(*algorithm));
        let controller = algorithm.build(SEGMENT, 10, 1);
        assert_eq!(controller.name(), algorithm.to_string());
        assert_eq!(controller.window(), 10 * SEGMENT);
    }
    let error = "reno".parse::<Algorithm>().unwrap_err().to_string();
    assert!(error.contains("`reno`") && error.contains("bbr, cubic"), "{error}");
}

#[test]
fn no_sequence_of_extreme_inputs_panics_or_closes_the_window() {
    // A small generator of its own: the point is the extremes, not their distribution.
    let mut state = 42u64;
    let mut pick = |choices: &[u64]| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        choices[(state >> 33) as usize % choices.len()]
    };
    let bytes = [0, 1, SEGMENT, 1 << 20, u64::MAX / 4];
    let times = [0, 1, 1_000, 1_000_000_000, 20_000_000_000];
    for algorithm in Algorithm::ALL {
        let mut controller = algorithm.build(SEGMENT, 10, 1);
        let mut now = Instant::ZERO;
        let mut delivered = 0u64;
        for step in 0..20_000 {
            now += Duration::from_nanos(pick(&times));
            let mut sample = ack(now, pick(&bytes), Duration::from_nanos(pick(&times)), pick(&[0, 1]) == 1);
            delivered = delivered.saturating_add(sample.newly_delivered.min(1 << 30));
            sample.delivered = delivered;
            sample.newly_lost = pick(&bytes);
            sample.pipe = pick(&bytes);
            sample.in_recovery = pick(&[0, 1]) == 1;
            sample.rate = Some(outrider_stack::tcp::congestion::RateSample {
                delivered: pick(&bytes),
                interval: Duration::from_nanos(pick(&times).max(1)),
                prior_delivered: delivered.saturating_sub(pick(&bytes)),
                lost: pick(&bytes),
                pipe_at_send: pick(&bytes),
                app_limited: pick(&[0, 1]) == 1,
            });
            controller.on_sent(now, pick(&bytes), pick(&bytes));
            controller.on_ack(&sample);
            let event = match pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) {
                0 => CongestionEvent::Loss,
                1 => CongestionEvent::Timeout,
                2 => CongestionEvent::Undo,
                3 => CongestionEvent::RecoveryEnd,
                4 => CongestionEvent::IdleRestart,
                5 => CongestionEvent::EcnEcho,
                _ => continue,
            };
            controller.on_event(now, event, pick(&bytes));
            if step % 100 == 0 {
                controller.set_segment_size(pick(&[0, 1, 536, SEGMENT, 8948]));
            }
            assert!(controller.window() >= 1, "{algorithm} closed its window at step {step}");
            assert!(controller.pacing_rate() != Some(0), "{algorithm} stopped pacing at step {step}");
        }
    }
}
