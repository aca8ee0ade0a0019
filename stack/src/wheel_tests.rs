use std::collections::BTreeMap;

use proptest::prelude::{Strategy, prop, prop_oneof, proptest};
use proptest::{prop_assert, prop_assert_eq};

use super::Wheel;
use crate::time::Instant;

fn expire(wheel: &mut Wheel, nanos: u64) -> Vec<u32> {
    let mut fired = Vec::new();
    wheel.expire(Instant::from_nanos(nanos), &mut fired);
    fired.sort_unstable();
    fired
}

#[test]
fn fires_to_the_nanosecond_and_once() {
    let mut wheel = Wheel::new(Instant::ZERO);
    wheel.arm(3, Instant::from_nanos(1_500));
    wheel.arm(4, Instant::from_nanos(1_501));
    assert_eq!(wheel.next_deadline(), Some(Instant::from_nanos(1_500)));
    assert!(expire(&mut wheel, 1_499).is_empty());
    assert_eq!(expire(&mut wheel, 1_500), [3]);
    assert_eq!(wheel.next_deadline(), Some(Instant::from_nanos(1_501)));
    assert_eq!(expire(&mut wheel, 1_000_000), [4]);
    assert!(wheel.is_empty());
    assert_eq!(wheel.next_deadline(), None);
}

#[test]
fn a_deadline_in_the_past_is_due_at_once() {
    let mut wheel = Wheel::new(Instant::from_millis(50));
    wheel.arm(0, Instant::from_millis(1));
    assert_eq!(wheel.next_deadline(), Some(Instant::from_millis(1)));
    assert_eq!(expire(&mut wheel, 50_000_000), [0]);
}

#[test]
fn far_deadlines_come_down_level_by_level() {
    let mut wheel = Wheel::new(Instant::from_nanos(7));
    let day = 86_400_000_000_000;
    wheel.arm(9, Instant::from_nanos(day));
    wheel.arm(8, Instant::FAR_FUTURE);
    for step in 1..=1_000u64 {
        assert!(expire(&mut wheel, day / 1_001 * step).is_empty());
    }
    assert_eq!(wheel.next_deadline(), Some(Instant::from_nanos(day)));
    assert_eq!(expire(&mut wheel, day), [9]);
    assert_eq!(wheel.next_deadline(), None, "the far future never comes");
}

/// Calls that [`Wheel::next_deadline`] asks for before a timer fires at `due`.
fn early_calls(wheel: &mut Wheel, due: u64) -> usize {
    for early in 0.. {
        let next = wheel.next_deadline().expect("a timer is armed").as_nanos();
        assert!(next <= due, "never late");
        if !expire(wheel, next).is_empty() {
            assert_eq!(next, due);
            return early;
        }
    }
    unreachable!("the loop has no end")
}

#[test]
fn a_timer_that_is_put_off_again_and_again_wakes_early_once_a_level() {
    let mut wheel = Wheel::new(Instant::ZERO);
    for micros in 1..10_000 {
        wheel.arm(3, Instant::from_micros(1_000 + micros));
    }
    let early = early_calls(&mut wheel, 10_999_000);
    assert!(early <= 3, "{early} early calls");
}

#[test]
fn a_stopped_timer_wakes_nobody() {
    let mut wheel = Wheel::new(Instant::ZERO);
    wheel.arm(0, Instant::from_micros(5));
    wheel.arm(1, Instant::from_millis(5));
    wheel.disarm(0);
    assert_eq!(wheel.len(), 1);
    assert_eq!(wheel.deadline(0), None);
    assert!(early_calls(&mut wheel, 5_000_000) <= 2);
    assert_eq!(wheel.next_deadline(), None);
    wheel.arm(0, Instant::from_millis(6));
    assert_eq!(early_calls(&mut wheel, 6_000_000), 0);
}

#[test]
fn a_crowd_in_one_slot_wakes_early_a_bounded_number_of_times() {
    let mut wheel = Wheel::new(Instant::ZERO);
    let due = Instant::from_nanos(200_000_000_123);
    for index in 0..1_000 {
        wheel.arm(index, due);
    }
    let mut early = 0;
    loop {
        let next = wheel.next_deadline().expect("timers are armed");
        assert!(next <= due, "never late");
        let fired = expire(&mut wheel, next.as_nanos());
        if !fired.is_empty() {
            assert!(next == due);
            assert_eq!(fired.len(), 1_000);
            break;
        }
        early += 1;
        assert!(early < 12, "each early call must bring the crowd nearer");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Arm(u32, u64),
    Disarm(u32),
    Advance(u64),
    ToNext,
}

fn span() -> impl Strategy<Value = u64> {
    (0u32..44).prop_flat_map(|bits| 0..(1u64 << bits))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u32..40, span()).prop_map(|(index, after)| Step::Arm(index, after)),
        1 => (0u32..40).prop_map(Step::Disarm),
        2 => span().prop_map(Step::Advance),
        2 => proptest::strategy::Just(Step::ToNext),
    ]
}

proptest! {
    #[test]
    fn agrees_with_a_sorted_map(start in 0u64..1 << 50, steps in prop::collection::vec(step(), 1..200)) {
        let mut now = start;
        let mut wheel = Wheel::new(Instant::from_nanos(now));
        let mut model: BTreeMap<u32, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Arm(index, after) => {
                    wheel.arm(index, Instant::from_nanos(now + after));
                    model.insert(index, now + after);
                }
                Step::Disarm(index) => {
                    wheel.disarm(index);
                    model.remove(&index);
                }
                Step::Advance(by) => now += by,
                Step::ToNext => now = now.max(wheel.next_deadline().map_or(now, Instant::as_nanos)),
            }
            let due: Vec<u32> = model.iter().filter(|(_, at)| **at <= now).map(|(index, _)| *index).collect();
            prop_assert_eq!(expire(&mut wheel, now), due);
            model.retain(|_, at| *at > now);
            prop_assert_eq!(wheel.len(), model.len());
            let earliest = model.values().min().copied();
            let next = wheel.next_deadline().map(Instant::as_nanos);
            prop_assert!(next <= earliest && next.is_some() == earliest.is_some());
            for (index, at) in &model {
                prop_assert_eq!(wheel.deadline(*index), Some(Instant::from_nanos(*at)));
            }
        }
    }
}
