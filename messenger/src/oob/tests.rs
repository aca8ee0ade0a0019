use core::time::Duration;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use outrider_stack::time::Instant;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn request(op: u16, interval: Duration, bytes: usize) -> OobRequest {
    OobRequest::new(OobOp(op), move |_| Some(Bytes::from(vec![op as u8; bytes])), interval).unwrap()
}

/// A registry with these ops, started at its first instant due.
fn started(requests: Vec<OobRequest>) -> (Registry, Instant) {
    let mut registry = Registry::new(1);
    for request in requests {
        registry.insert(Instant::ZERO, request).unwrap();
    }
    assert_eq!(registry.earliest().get(), None, "nothing is due before the start");
    registry.start(Instant::ZERO);
    let first = registry.earliest().get().unwrap();
    (registry, first)
}

fn ops(collected: &registry::Collected) -> Vec<u16> {
    collected.parts.iter().map(|part| part.op.0).collect()
}

#[test]
fn the_first_turn_is_spread_over_the_shortest_interval_and_ops_share_messages_from_then_on() {
    let mut firsts = Vec::new();
    for seed in 0..200 {
        let mut registry = Registry::new(seed);
        for (op, interval) in [(1, 20 * MS), (2, 10 * MS), (3, 10 * MS)] {
            registry.insert(Instant::ZERO, request(op, interval, 4)).unwrap();
        }
        registry.start(Instant::from_millis(5));
        let first = registry.earliest().get().unwrap();
        assert!((5.0..15.0).contains(&(first.as_micros() as f64 / 1000.0)));
        firsts.push(first);
        assert_eq!(ops(&registry.collect(first, 1, 1000, 500)).len(), 3);
        assert_eq!(ops(&registry.collect(first + 10 * MS, 2, 1000, 500)), [2, 3]);
        assert_eq!(ops(&registry.collect(first + 20 * MS, 3, 1000, 500)).len(), 3);
    }
    firsts.sort_unstable();
    assert!(firsts[199].since(firsts[0]) > 8 * MS, "the seed spreads connections");
}

#[test]
fn parts_due_within_the_slack_ride_along_and_keep_their_turns() {
    let (mut registry, first) = started(vec![request(1, 100 * MS, 4)]);
    // Registered later, so that it falls 9 ms behind: within a tenth of 100 ms.
    registry.insert(first, request(2, 109 * MS, 4)).unwrap();
    assert_eq!(ops(&registry.collect(first, 1, 1000, 500)), [1, 2], "one origin");
    assert_eq!(ops(&registry.collect(first + 100 * MS, 2, 1000, 500)), [1, 2], "9 ms early");
    assert_eq!(registry.earliest().get(), Some(first + 200 * MS));
    assert_eq!(ops(&registry.collect(first + 200 * MS, 3, 1000, 500)), [1], "18 ms is beyond the slack");
    assert_eq!(registry.earliest().get(), Some(first + 218 * MS));
}

#[test]
fn a_late_turn_takes_over_those_that_came_meanwhile() {
    let (mut registry, first) = started(vec![request(1, 10 * MS, 4)]);
    let collected = registry.collect(first + 35 * MS, 1, 1000, 500);
    assert_eq!(collected.earliest_due, Some(first), "waited since it was first due");
    assert_eq!(collected.parts.len(), 1, "never queued up");
    assert_eq!(registry.turns().superseded, 3);
    assert_eq!(registry.earliest().get(), Some(first + 40 * MS), "the phase is kept");
}

#[test]
fn a_turn_passed_is_counted_and_makes_no_part() {
    let (mut registry, first) = started(vec![OobRequest::new(OobOp(1), |_| None, 10 * MS).unwrap()]);
    assert!(registry.collect(first, 1, 1000, 500).parts.is_empty());
    assert_eq!(registry.turns().skipped, 1);
    assert_eq!(registry.earliest().get(), Some(first + 10 * MS));
}

#[test]
fn an_oversized_part_is_refused_and_its_owner_can_see_it() {
    let oversized = request(1, 10 * MS, 501);
    let state = Arc::clone(&oversized.state);
    let (mut registry, first) = started(vec![oversized]);
    assert!(registry.collect(first, 1, 1000, 500).parts.is_empty());
    assert_eq!(registry.turns().refused, 1);
    assert_eq!(state.refused(), 1);
}

#[test]
fn a_part_without_room_is_first_in_the_next_message_and_its_callback_is_not_asked_again() {
    let (mut registry, first) = started(vec![request(1, 10 * MS, 400), request(2, 10 * MS, 400)]);
    assert_eq!(ops(&registry.collect(first, 1, 500, 500)), [1]);
    assert_eq!(registry.earliest().get(), Some(first), "the other is still due");
    let next = registry.collect(first + MS, 2, 500, 500);
    assert_eq!((ops(&next), next.earliest_due), (vec![2], Some(first)));
    assert_eq!(registry.turns().superseded, 0);
}

#[test]
fn a_dropped_registration_has_no_further_turn() {
    let dropped = request(1, 10 * MS, 4);
    let state = Arc::clone(&dropped.state);
    let (mut registry, first) = started(vec![dropped]);
    state.drop_registration();
    assert!(registry.collect(first, 1, 1000, 500).parts.is_empty());
    assert!(!registry.has_live());
    assert_eq!(registry.earliest().get(), None);
    registry.insert(first, request(1, 10 * MS, 4)).expect("its place is free");
}

#[test]
fn the_callback_learns_when_it_was_due_when_it_leaves_and_in_what() {
    let turns = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&turns);
    let callback = move |turn: &OobTurn| {
        seen.lock().unwrap().push(*turn);
        None
    };
    let (mut registry, first) = started(vec![OobRequest::new(OobOp(1), callback, 10 * MS).unwrap()]);
    registry.collect(first + MS, 42, 1000, 500);
    let expected = OobTurn { now: first + MS, due: first, sequence: 42, bytes_max: 500 };
    assert_eq!(*turns.lock().unwrap(), [expected]);
}

#[test]
fn what_cannot_be_registered_is_refused_with_a_reason() {
    let refuse = |interval| OobRequest::new(OobOp::PING, |_| None, interval).map(|_| ());
    assert!(matches!(refuse(Duration::ZERO), Err(RegisterError::IntervalOutOfRange { .. })));
    assert!(matches!(refuse(INTERVAL_MAX + MS), Err(RegisterError::IntervalOutOfRange { .. })));
    let mut registry = Registry::new(1);
    registry.insert(Instant::ZERO, request(1, MS, 1)).unwrap();
    let again = registry.insert(Instant::ZERO, request(1, MS, 1));
    assert_eq!(again, Err(RegisterError::AlreadyRegistered { op: OobOp(1) }));
    for op in 2..=OPS_MAX as u16 {
        registry.insert(Instant::ZERO, request(op, MS, 1)).unwrap();
    }
    assert_eq!(registry.insert(Instant::ZERO, request(9999, MS, 1)), Err(RegisterError::TooMany));
}

#[test]
fn the_application_range_is_apart_from_the_well_known_ops() {
    assert_eq!(OobOp::application(0), Some(OobOp(0x8000)));
    assert_eq!(OobOp::application(0x7FFF), Some(OobOp(0xFFFF)));
    assert_eq!(OobOp::application(0x8000), None);
}

#[test]
fn ops_of_less_than_the_slack_leave_once_each_in_the_order_in_which_they_are_due() {
    let micros = Duration::from_micros(1);
    let (mut registry, first) =
        started(vec![request(1, 300 * micros, 4), request(2, 100 * micros, 4), request(3, 200 * micros, 4)]);
    assert_eq!(ops(&registry.collect(first, 1, 1000, 500)), [1, 2, 3]);
    // Of the second there are ten turns within the slack of a millisecond.
    assert_eq!(ops(&registry.collect(first + 100 * micros, 2, 1000, 500)), [2, 3, 1]);
    assert_eq!(registry.turns().superseded, 0);
}
