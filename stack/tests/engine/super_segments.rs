//! Ports that segment: one pull carries several segments, and everything else is as before.

use std::time::Duration;

use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::tcp::connection::{Config, State, TransmitLimit};
use outrider_stack::tcp::segment::Outgoing;

use crate::pair::{InFlight, Pair, Path, Random};

const SECOND: Duration = Duration::from_secs(1);
const SEGMENT: usize = 1448;
const SUPER: usize = 65_000;

/// A connection whose ports segment, over 10 Gbit/s.
fn fast(seed: u64, algorithm: Algorithm) -> Pair {
    let config = Config { algorithm, receive_window_initial: 4 << 20, ..Config::default() };
    let path = Path { bits_per_second: 10_000_000_000, queue_bytes: 2_000_000, ..Path::default() };
    let mut pair = Pair::new(seed, config).both_paths(path);
    pair.super_segment_bytes = SUPER;
    pair.establish();
    pair
}

/// The next segment of node 0, as the engine gives it.
fn next(pair: &mut Pair) -> Option<Outgoing> {
    let (now, node) = (pair.now, &mut pair.nodes[0]);
    let tcp = node.tcp.as_mut().expect("it is connected");
    tcp.poll_transmit(
        now,
        &mut node.app,
        TransmitLimit { super_segment_bytes: SUPER, ..TransmitLimit::default() },
    )
}

#[test]
fn a_clean_link_is_filled_with_few_pulls() {
    for &algorithm in Algorithm::ALL {
        let mut pair = fast(1, algorithm);
        pair.nodes[0].app.total = 1 << 40;
        pair.run_for(Duration::from_millis(100));
        let received = pair.nodes[1].app.received;
        pair.run_for(Duration::from_millis(200));
        let goodput = (pair.nodes[1].app.received - received) as f64 * 8.0 / 0.2;
        assert!(goodput > 8.5e9, "{algorithm}: {goodput:.3e} {:?}", pair.summary());
        // Paced, as many leave as the pacer lets go; without, as many as an acknowledgement of two makes room for.
        let each = if algorithm == Algorithm::Bbr { 4 } else { 2 };
        let segments = pair.tcp(0).statistics().segments_sent;
        assert!(
            pair.super_segments * each < segments,
            "{algorithm}: {} super-segments of {segments} segments",
            pair.super_segments
        );
    }
}

#[test]
fn loss_costs_the_segments_that_were_lost_and_no_others() {
    for uncut in [false, true] {
        let mut pair = fast(2, Algorithm::Bbr);
        pair.uncut = uncut;
        pair.nodes[0].app.total = 20_000_000;
        pair.nodes[0].app.finish = true;
        pair.nodes[1].app.finish = true;
        pair.run_for(Duration::from_millis(3));
        pair.paths[0].loss = if uncut { 0.05 } else { 0.01 };
        pair.run_until(SECOND, |pair| pair.nodes[1].app.peer_finished);
        assert_eq!(pair.nodes[1].app.received, 20_000_000);
        let (statistics, drops) = (pair.tcp(0).statistics(), pair.drops);
        assert!(drops > 5 && pair.super_segments > 50, "{drops} {}", pair.super_segments);
        // A tail probe may repeat what was not lost.
        let needless = pair.tcp(0).statistics().tail_probes + 2;
        if !uncut {
            assert!(statistics.retransmits <= drops + needless, "{drops} drops, {statistics:?}");
        }
        assert!(
            statistics.retransmitted_bytes <= statistics.retransmits * SEGMENT as u64,
            "one segment each"
        );
    }
}

#[test]
fn only_the_last_segment_pushes_and_finishes() {
    let mut pair = fast(3, Algorithm::Cubic);
    pair.nodes[0].app.total = 10 * SEGMENT as u64 - 5;
    pair.nodes[0].app.finish = true;
    pair.keep_log = true;
    pair.run_until(SECOND, |pair| pair.nodes[1].app.peer_finished);
    assert_eq!(pair.super_segments, 1, "the initial window lets all of it go at once");
    let flags = |segment: &InFlight| (segment.header.flags.psh, segment.header.flags.fin);
    let sent: Vec<(bool, bool)> = pair.sent[0].iter().map(|(_, segment)| flags(segment)).collect();
    let mut wanted = vec![(false, false); 10];
    wanted[9] = (true, true);
    assert_eq!(sent[..10], wanted);
    pair.run_until(SECOND, |pair| pair.tcp(0).state() == State::FinWait2);
}

#[test]
fn something_urgent_has_a_segment_of_its_own_and_waits_for_no_more_than_one_super_segment() {
    let mut pair = fast(4, Algorithm::Bbr);
    pair.nodes[0].app.total = 1 << 40;
    pair.run_for(Duration::from_millis(50));
    while next(&mut pair).is_none() {
        assert!(pair.step());
    }
    let first = pair.tcp(0).send_state(pair.now).stream_offset;
    pair.nodes[0].app.urgent = true;
    let urgent = next(&mut pair).expect("nothing urgent waits for the window");
    assert_eq!((urgent.payload_offset, urgent.payload_length, urgent.segments()), (first, 100, 1));
    assert!(urgent.header.flags.psh);
}

#[test]
fn no_window_is_exceeded_however_much_the_port_takes() {
    for window in [4_000, 20_000, 50_000] {
        let config = Config {
            algorithm: Algorithm::Cubic,
            receive_window_initial: window,
            receive_window_max: window,
            ..Config::default()
        };
        let mut pair = Pair::new(5, config);
        pair.super_segment_bytes = SUPER;
        pair.nodes.iter_mut().for_each(|node| node.app.capacity = window as usize);
        pair.establish();
        pair.nodes[0].app.total = 2_000_000;
        pair.nodes[1].app.keeps = true;
        for _ in 0..1000 {
            // What the checkers of the pair see is the point; the reader takes an odd number of bytes at a time.
            pair.run_for(Duration::from_micros(200));
            let app = &mut pair.nodes[1].app;
            app.taken = app.received.min(app.taken + 2_901);
            let (now, node) = (pair.now, &mut pair.nodes[1]);
            if let Some(tcp) = &mut node.tcp {
                tcp.set_receive_room(now, node.app.capacity - (node.app.received - node.app.taken) as usize);
            }
        }
        assert!(pair.nodes[1].app.received > 1_000_000, "{:?}", pair.summary());
    }
}

#[test]
fn a_frame_of_many_segments_is_acknowledged_as_many_segments() {
    let mut pair = fast(6, Algorithm::Cubic);
    pair.uncut = true;
    pair.nodes[0].app.total = 3 * SEGMENT as u64;
    pair.transmit_all(0);
    assert_eq!(pair.super_segments, 1);
    let sent_at = pair.now;
    pair.run_until(SECOND, |pair| pair.tcp(0).acked_offset() == 1 + 3 * SEGMENT as u64);
    assert!(pair.now - sent_at < Duration::from_millis(1), "at once, not after the delay of a lone segment");
    // And the next plain segments are still acknowledged by twos.
    let acks = pair.tcp(1).statistics().acks_sent;
    pair.super_segment_bytes = 0;
    pair.nodes[0].app.total += 8 * SEGMENT as u64;
    pair.run_for(Duration::from_millis(10));
    assert_eq!(pair.nodes[1].app.received, 11 * SEGMENT as u64);
    assert_eq!(pair.tcp(1).statistics().acks_sent - acks, 4);
}

#[test]
fn a_smaller_path_mtu_is_obeyed_by_the_segments_of_a_super_segment() {
    let mut pair = fast(7, Algorithm::Cubic);
    pair.reports_sizes = true;
    pair.paths[0].payload_max = 900;
    pair.nodes[0].app.total = 500_000;
    pair.run_until(SECOND * 10, |pair| pair.nodes[1].app.received == 500_000);
    assert!(pair.reports_believed >= 1 && pair.super_segments > 3, "{}", pair.super_segments);
}

/// What the nodes of a faulty pair sent, in trains of `train_segments`, and how many trains that were.
fn transcript(seed: u64, train_segments: usize) -> (Vec<String>, u64) {
    let mut random = Random::new(seed);
    let config = Config {
        algorithm: Algorithm::ALL[random.below(3) as usize],
        sack: random.chance(0.8),
        timestamps: random.chance(0.8),
        ecn: random.chance(0.5),
        pacing: random.chance(0.8),
        receive_window_max: [20_000, 4 << 20][random.below(2) as usize],
        ..Config::default()
    };
    let path = Path {
        bits_per_second: [20_000_000, 1_000_000_000, 10_000_000_000][random.below(3) as usize],
        loss: [0.0, 0.01][random.below(2) as usize],
        reorder: [0.0, 0.01][random.below(2) as usize],
        mark_above: [None, Some(30_000)][random.below(2) as usize],
        ..Path::default()
    };
    let mut pair = Pair::new(seed, config).both_paths(path);
    pair.keep_log = true;
    pair.train_segments = train_segments;
    pair.nodes[0].app.total = 400_000 + random.below(1_000);
    pair.nodes[1].app.total = random.below(2) * 100_000;
    pair.nodes[0].app.finish = true;
    pair.nodes[1].app.finish = true;
    for step in 1..=20 {
        pair.run_for(Duration::from_micros(random.below(2_000)));
        pair.nodes[0].app.urgent |= step % 4 == 0;
        pair.transmit_all(0);
    }
    pair.run_until(SECOND * 60, |pair| pair.nodes.iter().all(|node| node.app.peer_finished));
    let lines = pair.sent.iter().flatten().map(|(at, segment)| format!("{at:?} {segment:?}")).collect();
    (lines, pair.trains)
}

#[test]
fn trains_put_on_the_wire_what_single_segments_would_when_they_would() {
    let mut trains = 0;
    for seed in 0..40 {
        let (singly, none) = transcript(seed, 0);
        let (together, some) = transcript(seed, 8);
        assert_eq!(none, 0);
        trains += some;
        let differs = singly.iter().zip(&together).position(|(one, other)| one != other);
        let show = |lines: &[String]| differs.map(|at| lines[at][..lines[at].len().min(300)].to_owned());
        assert_eq!(show(&singly), show(&together), "seed {seed}, segment {differs:?}");
        assert_eq!(singly.len(), together.len(), "seed {seed}");
    }
    assert!(trains > 500, "{trains} trains");
}
