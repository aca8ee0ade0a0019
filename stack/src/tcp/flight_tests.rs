//! The flight's marks and its pipe stay in step under any order of acknowledgements.

use outrider_drivers::time::Instant;

use super::{Flight, Held, SentSegment};

/// One that was sent once, with payload alone.
pub(in crate::tcp) fn segment(offset: u64, length: u32) -> SentSegment {
    SentSegment {
        offset,
        length,
        control: false,
        sacked: false,
        lost: false,
        urgent: false,
        push: false,
        transmissions: 1,
        sent_at: Instant::ZERO,
        first_sent_at: Instant::ZERO,
        stamp: Default::default(),
    }
}

/// A lone segment needs few lines of the cache: its record is one, and what leads to it and to its payload four more.
#[test]
fn a_lone_segment_needs_five_lines() {
    assert_eq!(size_of::<SentSegment>(), 64);
    assert_eq!((size_of::<Held>(), align_of::<Held>()), (5 * 64, 64));
}

fn flight_of(lengths: &[u32]) -> Flight {
    let mut flight = Flight::new();
    let mut offset = 1;
    for &length in lengths {
        let bytes: Vec<u8> = (0..length).map(|i| (offset + u64::from(i)) as u8).collect();
        flight.payload_mut().append(&bytes);
        flight.push(segment(offset, length));
        offset += u64::from(length);
    }
    flight
}

fn check(flight: &Flight) {
    let pipe: u64 = flight.iter().filter(|s| s.in_pipe()).map(|s| u64::from(s.length)).sum();
    assert_eq!(flight.pipe(), pipe);
    assert_eq!(flight.sacked_segments(), flight.iter().filter(|s| s.sacked).count());
    assert_eq!(flight.has_lost(), flight.iter().any(|s| s.lost));
    let ends: Vec<u64> = flight.iter().map(SentSegment::end).collect();
    let starts: Vec<u64> = flight.iter().map(|s| s.offset).collect();
    assert!(ends.iter().zip(starts.iter().skip(1)).all(|(end, start)| end == start), "no gap and no overlap");
}

#[test]
fn a_partial_acknowledgement_splits_a_segment_and_keeps_the_rest_byte_identical() {
    let mut flight = flight_of(&[100, 100]);
    let mut seen = 0;
    flight.acknowledge_to(51, |s| seen += s.length);
    assert_eq!(seen, 50);
    check(&flight);
    assert_eq!(flight.pipe(), 150);
    let rest = flight.payload(51, 150).to_vec();
    assert_eq!(rest, (51u64..201).map(|o| o as u8).collect::<Vec<_>>());
}

#[test]
fn a_sack_counts_each_byte_once_however_often_it_comes() {
    let mut flight = flight_of(&[100, 100, 100]);
    let mut bytes = 0;
    for _ in 0..3 {
        flight.sack(151, 301, |s| bytes += s.length);
        check(&flight);
    }
    assert_eq!(bytes, 100, "the half of the second segment does not count");
    flight.acknowledge_to(301, |s| bytes += s.length);
    assert_eq!(bytes, 300);
    assert!(flight.is_empty());
    assert_eq!(flight.pipe(), 0);
}

#[test]
fn lost_then_retransmitted_then_sacked_leaves_the_pipe_right() {
    let mut flight = flight_of(&[100, 100, 100]);
    flight.sack(201, 301, |_| {});
    assert_eq!(flight.mark_lost(|s| Some(s.offset < 201)), 200);
    check(&flight);
    assert_eq!(flight.pipe(), 0);
    let first = flight.first_lost().expect("two are lost").offset;
    flight.on_retransmitted(first, Instant::from_millis(1), Default::default());
    check(&flight);
    assert_eq!(flight.pipe(), 100);
    flight.sack(101, 201, |_| {});
    check(&flight);
    assert!(!flight.has_lost());
    flight.acknowledge_to(301, |_| {});
    check(&flight);
}

#[test]
fn sack_ranges_outside_the_flight_are_harmless() {
    let mut flight = flight_of(&[100]);
    for (start, end) in [(0, 1), (101, 500), (500, 400), (u64::MAX - 1, u64::MAX), (0, 0)] {
        flight.sack(start, end, |_| panic!("nothing of it is in flight"));
        check(&flight);
    }
}

#[test]
fn random_acknowledgements_keep_marks_and_pipe_in_step() {
    for seed in 0..200u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut flight = flight_of(&[300; 20]);
        let mut acked = 1;
        for _ in 0..60 {
            let a = 1 + random(6000);
            let b = 1 + random(6000);
            match random(4) {
                0 => {
                    acked = acked.max(a.min(acked + 600));
                    flight.acknowledge_to(acked, |_| {});
                }
                1 => flight.sack(a.min(b), a.max(b), |_| {}),
                2 => {
                    flight.mark_lost(|s| Some(s.offset < a));
                }
                _ => {
                    if let Some(offset) = flight.first_lost().map(|s| s.offset) {
                        flight.on_retransmitted(offset, Instant::from_millis(1), Default::default());
                    }
                }
            }
            check(&flight);
        }
        flight.acknowledge_to(6001, |_| {});
        assert!(flight.is_empty() && flight.pipe() == 0, "seed {seed}");
    }
}

#[test]
fn a_peer_that_sacks_single_bytes_does_not_multiply_the_records() {
    let mut flight = flight_of(&[1448; 20]);
    for offset in (2..28_960).step_by(2) {
        flight.sack(offset, offset + 1, |_| panic!("no whole segment"));
    }
    check(&flight);
    assert_eq!(flight.segment_count(), 20);
}

#[test]
fn a_super_segment_is_cut_where_its_middle_is_sacked() {
    let mut flight = flight_of(&[60_000]);
    let mut bytes = 0;
    flight.sack(20_001, 40_001, |s| bytes += s.length);
    check(&flight);
    assert_eq!((bytes, flight.segment_count()), (20_000, 3));
}
