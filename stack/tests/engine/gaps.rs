//! What a receiver tells of gaps, and how much it takes beyond them.

use std::time::Duration;

use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::tcp::connection::Config;
use outrider_stack::tcp::segment::Header;

use crate::pair::{InFlight, Pair, pattern};

const SECOND: Duration = Duration::from_secs(1);
const SEGMENT_BYTES: u64 = 1000;

/// Four blocks to an acknowledgement, for there are no timestamps.
fn established(config: &Config) -> Pair {
    let mut pair = Pair::new(1, Config { timestamps: false, ..config.clone() });
    pair.establish();
    pair.run_for(Duration::from_millis(100));
    pair.keep_log = true;
    pair
}

/// The segments with these numbers reach node 1 in one burst, before it has a turn.
fn burst(pair: &mut Pair, numbers: &[u64]) {
    let until = Duration::from_micros(10);
    let at = pair.now + until;
    for number in numbers {
        let offset = 1 + number * SEGMENT_BYTES;
        let header = Header {
            seq: pair.nodes[0].initial.at(offset),
            ack: Some(pair.nodes[1].initial.at(1)),
            window: 1000,
            ..Header::default()
        };
        let payload = (offset..offset + SEGMENT_BYTES).map(pattern).collect();
        pair.schedule(at, 1, InFlight { header, payload, ecn_capable: false, marked: false });
    }
    pair.run_for(until);
    // Its turn comes once all of them have been received.
    pair.transmit_all(1);
}

/// SACK blocks of what node 1 has sent since the last call, an acknowledgement each, by numbers of segments.
fn told(pair: &mut Pair) -> Vec<Vec<(u64, u64)>> {
    let initial = pair.nodes[0].initial;
    let number = |seq| (initial.offset_near(seq, 1).expect("near the beginning") - 1) / SEGMENT_BYTES;
    let blocks = |(_, segment): (_, InFlight)| {
        let blocks = segment.header.options.sack;
        blocks.as_slice().iter().map(|block| (number(block.start), number(block.end))).collect()
    };
    std::mem::take(&mut pair.sent[1]).into_iter().map(blocks).collect()
}

#[test]
fn every_gap_is_told_however_many_segments_came_after_it() {
    let mut pair = established(&Config::default());
    let (first, second, third) = ([1, 2, 3, 4, 5, 6], [8, 9, 10, 11, 12, 13], [15, 16, 17, 18, 19]);
    for numbers in [&first[..], &second, &third] {
        numbers.iter().for_each(|number| burst(&mut pair, &[*number]));
    }
    let last = told(&mut pair).pop().expect("each was acknowledged");
    assert_eq!(last, [(15, 20), (8, 14), (1, 7)], "as many blocks as there is room for (RFC 2018 section 4)");
}

#[test]
fn a_burst_that_leaves_more_gaps_than_an_acknowledgement_tells_has_several() {
    let mut pair = established(&Config::default());
    burst(&mut pair, &[1, 3, 4, 6, 8, 10, 12]);
    let acks = told(&mut pair);
    assert_eq!(acks[0], [(8, 9), (6, 7), (3, 5), (1, 2)], "what came first, the newest of it first");
    assert_eq!(
        acks[1],
        [(12, 13), (10, 11), (8, 9), (6, 7)],
        "then the rest, and what there is room for again"
    );
    assert_eq!(acks.len(), 2, "and no more than are needed: {acks:?}");
}

#[test]
fn every_duplicate_of_a_burst_is_told_once() {
    let mut pair = established(&Config::default());
    burst(&mut pair, &[2, 3, 4, 5, 6, 7, 8, 9]);
    told(&mut pair);
    burst(&mut pair, &[2, 3, 6, 8]);
    let acks = told(&mut pair);
    let expected: Vec<Vec<(u64, u64)>> = [(2, 4), (6, 7), (8, 9)].map(|again| vec![again, (2, 10)]).into();
    assert_eq!(acks, expected, "each before what holds it (RFC 2883 section 4)");
}

#[test]
fn half_a_window_ahead_of_a_gap_makes_the_window_grow_up_to_its_bound() {
    let window = 16_000;
    let config =
        Config { receive_window_initial: window, receive_window_max: 4 * window, ..Config::default() };
    let mut pair = established(&config);
    let mut edges = Vec::new();
    for number in 1..60 {
        burst(&mut pair, &[number]);
        edges.push(pair.tcp(1).inspect(pair.now).receive_window);
    }
    assert_eq!(edges[0], u64::from(window), "a gap alone is no reason");
    assert_eq!(edges[8], 2 * u64::from(window), "half of it is: {edges:?}");
    assert_eq!(edges.last(), Some(&(4 * u64::from(window))));
}

#[test]
fn a_sender_with_a_long_timeout_learns_by_later_segments_that_repairs_were_lost() {
    // What is in flight is as much as the window, which does not grow: with the queue a round trip takes as long as a
    // window does.
    let config = Config {
        algorithm: Algorithm::Cubic,
        receive_window_initial: 256 << 10,
        rto_min: Duration::from_millis(200),
        ..Config::default()
    };
    let mut pair = Pair::new(7, config);
    pair.establish();
    pair.nodes[0].app.total = 1 << 40;
    pair.run_for(Duration::from_millis(100));
    let offset = 1 + pair.nodes[0].app.cut;
    pair.lost_at = vec![pair.nodes[0].initial.at(offset); 3];
    pair.run_until(SECOND, |pair| pair.tcp(0).acked_offset() > offset);
    assert!(pair.lost_at.is_empty(), "the segment and two repairs of it");
    assert_eq!(pair.tcp(0).statistics().retransmission_timeouts, 0, "{:?}", pair.summary());
}
