//! Stories about cables and switches.

use core::time::Duration;

use super::*;
use crate::doorbell::poll_fds;
use crate::offload::tests::tcp_frame;
use crate::offload::{SuperSegment, complete_checksum};
use crate::port::ReceiveChecksum;
use crate::time::{Clock, MonotonicClock};

pub(super) fn send(port: &mut MemoryPort, now: Instant, frame: &[u8]) -> bool {
    port.transmit(now, frame.len(), TxOffload::default(), &mut |buffer| {
        buffer.copy_from_slice(frame);
        frame.len()
    })
    .unwrap()
}

/// A frame that tells its number and where it goes.
pub(super) fn frame(destination: [u8; 6], source: [u8; 6], number: u32, length: usize) -> Vec<u8> {
    let mut frame = vec![0; length];
    frame[..6].copy_from_slice(&destination);
    frame[6..12].copy_from_slice(&source);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]); // IEEE 802 local experimental
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}

fn numbered(number: u32, length: usize) -> Vec<u8> {
    frame([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1], number, length)
}

pub(super) fn number_of(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[14..18].try_into().unwrap())
}

/// Everything due at `now`.
pub(super) fn fetch(port: &mut MemoryPort, now: Instant) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    port.receive(now, usize::MAX, &mut |frame| frames.push(frame.bytes.to_vec())).unwrap();
    frames
}

pub(super) fn numbers(port: &mut MemoryPort, now: Instant) -> Vec<u32> {
    fetch(port, now).iter().map(|frame| number_of(frame)).collect()
}

/// Lets all frames arrive; each with the instant at which it did.
pub(super) fn drain(port: &mut MemoryPort) -> Vec<(Instant, Vec<u8>)> {
    let mut all = Vec::new();
    let mut last = Instant::ZERO;
    while let Some(at) = port.next_arrival(last) {
        last = last.max(at);
        all.extend(fetch(port, last).into_iter().map(|frame| (last, frame)));
    }
    all
}

fn impaired() -> LinkConfig {
    LinkConfig {
        rate_bits_per_second: 1_000_000_000,
        delay: Duration::from_micros(50),
        loss: 0.05,
        duplicate: 0.05,
        corrupt: 0.05,
        reorder: 0.05,
        reorder_delay: Duration::from_micros(200),
        ..LinkConfig::default()
    }
}

#[test]
fn a_plain_cable_delivers_at_once_in_order_and_both_ways() {
    let (mut a, mut b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    assert_ne!(a.info().mac, b.info().mac);
    for number in 0..10 {
        assert!(send(&mut a, Instant::ZERO, &numbered(number, 100)));
        assert!(send(&mut b, Instant::ZERO, &numbered(number + 100, 60)));
    }
    assert_eq!(numbers(&mut b, Instant::ZERO), [0; 0], "nothing before flush");
    a.flush(Instant::ZERO).unwrap();
    b.flush(Instant::ZERO).unwrap();
    assert_eq!(numbers(&mut b, Instant::ZERO), (0..10).collect::<Vec<_>>());
    assert_eq!(numbers(&mut a, Instant::ZERO), (100..110).collect::<Vec<_>>());
    assert_eq!((a.statistics().tx_frames, a.statistics().tx_bytes), (10, 1000));
    assert_eq!((a.statistics().rx_frames, a.statistics().rx_bytes), (10, 600));
    assert_eq!(a.statistics().doorbells, 0, "nobody sleeps in virtual time");
}

#[test]
fn the_budget_is_kept_and_the_rest_comes_next() {
    let (mut a, mut b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    (0..5).for_each(|number| assert!(send(&mut a, Instant::ZERO, &numbered(number, 64))));
    a.flush(Instant::ZERO).unwrap();
    let mut seen = Vec::new();
    for expected in [2, 2, 1, 0] {
        let got = b.receive(Instant::ZERO, 2, &mut |frame| seen.push(number_of(frame.bytes))).unwrap();
        assert_eq!(got, expected);
    }
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

#[test]
fn rate_and_delay_are_exact_to_the_nanosecond_over_many_frames() {
    // 3 Gbit/s: no frame takes a whole number of nanoseconds, so rounding would add up.
    let rate = 3_000_000_000;
    let config = LinkConfig {
        rate_bits_per_second: rate,
        delay: Duration::from_micros(50),
        queue_bytes: usize::MAX,
        ..LinkConfig::default()
    };
    let (mut a, mut b) = cable(config, LinkConfig::default(), 1);
    let start = Instant::from_micros(7);
    for number in 0..10_000 {
        if !send(&mut a, start, &numbered(number, 1514)) {
            a.flush(start).unwrap();
            assert!(send(&mut a, start, &numbered(number, 1514)));
        }
    }
    a.flush(start).unwrap();
    let arrivals = drain(&mut b);
    assert_eq!(arrivals.len(), 10_000);
    for (index, (at, _)) in arrivals.iter().enumerate() {
        let bits = (index as u128 + 1) * 1514 * 8;
        let exact = start
            + Duration::from_micros(50)
            + Duration::from_nanos((bits * 1_000_000_000 / u128::from(rate)) as u64);
        assert_eq!(*at, exact, "frame {index}");
    }
}

#[test]
fn a_full_queue_drops_the_tail_and_counts_it() {
    let config = LinkConfig { rate_bits_per_second: 8_000_000, queue_bytes: 10_000, ..LinkConfig::default() };
    let (mut a, mut b) = cable(config, LinkConfig::default(), 1);
    for number in 0..20 {
        assert!(send(&mut a, Instant::ZERO, &numbered(number, 1000)), "a middle box does not push back");
    }
    a.flush(Instant::ZERO).unwrap();
    let statistics = a.link_statistics();
    assert_eq!((statistics.carried_frames, statistics.dropped_queue_frames), (10, 10));
    assert_eq!((statistics.queued_bytes, statistics.queued_bytes_max), (10_000, 10_000));
    assert_eq!(
        a.transmit_room(Instant::ZERO).bytes_outstanding,
        0,
        "what a middle box holds is not the port's"
    );
    // One byte a microsecond: after a millisecond one frame has left, and there is room for one.
    let later = Instant::from_millis(1);
    assert!(send(&mut a, later, &numbered(20, 1000)) && send(&mut a, later, &numbered(21, 1000)));
    a.flush(later).unwrap();
    assert_eq!(a.link_statistics().dropped_queue_frames, 11);
    let arrived: Vec<u32> = drain(&mut b).iter().map(|(_, frame)| number_of(frame)).collect();
    assert_eq!(arrived, (0..10).chain([20]).collect::<Vec<_>>());
}

#[test]
fn a_receiver_that_does_not_fetch_overruns_an_unlimited_cable() {
    let config = LinkConfig { queue_bytes: 5_000, ..LinkConfig::default() };
    let (mut a, mut b) = cable(config, LinkConfig::default(), 1);
    (0..8).for_each(|number| assert!(send(&mut a, Instant::ZERO, &numbered(number, 1000))));
    a.flush(Instant::ZERO).unwrap();
    assert_eq!(a.link_statistics().dropped_overrun_frames, 3);
    assert_eq!(a.link_statistics().carried_frames, 5);
    assert_eq!(numbers(&mut b, Instant::ZERO), [0, 1, 2, 3, 4]);
    assert!(send(&mut a, Instant::ZERO, &numbered(8, 1000)));
    a.flush(Instant::ZERO).unwrap();
    assert_eq!(numbers(&mut b, Instant::ZERO), [8], "fetching made room");
}

#[test]
fn a_transmit_ring_pushes_back_and_tells_when_it_has_room() {
    let config = LinkConfig {
        rate_bits_per_second: 1_000_000_000,
        ring_bytes: Some(4 * 1514),
        queue_bytes: 0,
        ..LinkConfig::default()
    };
    let (mut a, mut b) = cable(config, LinkConfig::default(), 1);
    let mut now = Instant::ZERO;
    assert_eq!(a.transmit_room(now), TransmitRoom { frames: 4, bytes_outstanding: 0 });
    let mut sent = 0;
    for _ in 0..1000 {
        while send(&mut a, now, &numbered(sent, 1514)) {
            sent += 1;
        }
        let room = a.transmit_room(now);
        assert_eq!(room.frames, 0);
        assert!(room.bytes_outstanding > 3 * 1514 && room.bytes_outstanding <= 4 * 1514, "{room:?}");
        a.flush(now).unwrap();
        let room_at = a.next_room(now).expect("a full ring knows when it drains");
        assert!(!send(&mut a, room_at - Duration::from_nanos(2), &numbered(0, 1514)), "not earlier");
        now = room_at;
        assert!(a.transmit_room(now).frames > 0, "and not later");
    }
    assert_eq!(sent, 4 + 999, "one frame for each that left");
    assert_eq!(now, Instant::from_nanos(1000 * 12_112), "the ring drains at the rate of the link");
    assert_eq!(a.link_statistics().dropped_queue_frames, 0, "a ring does not drop");
    assert_eq!(drain(&mut b).len(), sent as usize);
}

#[test]
fn a_ring_smaller_than_a_frame_still_makes_progress() {
    let config = LinkConfig { rate_bits_per_second: 1_000_000, ring_bytes: Some(1), ..LinkConfig::default() };
    let (mut a, _b) = cable(config, LinkConfig::default(), 1);
    let mut now = Instant::ZERO;
    for number in 0..10 {
        assert!(send(&mut a, now, &numbered(number, 1514)), "an idle ring takes a frame");
        assert!(!send(&mut a, now, &numbered(number, 1514)));
        now = a.next_room(now).unwrap();
    }
}

#[test]
fn the_same_seed_and_calls_give_the_same_frames_at_the_same_instants() {
    let run = |seed| {
        let (mut a, mut b) = cable(impaired(), LinkConfig::default(), seed);
        let mut arrivals = Vec::new();
        for step in 0..2000 {
            let now = Instant::from_micros(10 * u64::from(step));
            assert!(send(&mut a, now, &numbered(step, 60 + step as usize % 1400)));
            a.flush(now).unwrap();
            arrivals.extend(fetch(&mut b, now).into_iter().map(|frame| (now, frame)));
        }
        arrivals.extend(drain(&mut b));
        (arrivals, a.link_statistics())
    };
    assert_eq!(run(42), run(42));
    assert_ne!(run(42), run(43));
}

#[test]
fn every_fault_is_counted_and_the_books_balance() {
    let (mut a, mut b) = cable(impaired(), LinkConfig::default(), 9);
    let sent: u64 = 10_000;
    let mut arrived = 0;
    for number in 0..sent {
        let now = Instant::from_micros(number * 13);
        assert!(send(&mut a, now, &numbered(number as u32, 1000)));
        a.flush(now).unwrap();
        arrived += fetch(&mut b, now).len();
    }
    arrived += drain(&mut b).len();
    let statistics = a.link_statistics();
    assert_eq!(statistics, a.outgoing().statistics(), "a handle sees the same after a flush");
    for (name, count) in [
        ("lost", statistics.dropped_loss_frames),
        ("duplicated", statistics.duplicated_frames),
        ("corrupted", statistics.corrupted_frames),
        ("reordered", statistics.reordered_frames),
    ] {
        assert!((400..600).contains(&count), "{count} of {sent} frames {name} at 5 %");
    }
    assert_eq!(statistics.offered_frames, sent);
    assert_eq!(
        sent + statistics.duplicated_frames - statistics.dropped_loss_frames,
        statistics.carried_frames
    );
    assert_eq!(statistics.carried_frames, arrived as u64);
}

#[test]
fn corruption_flips_one_bit_and_forbids_trust() {
    let config = LinkConfig { corrupt: 1.0, verify_checksums: false, ..LinkConfig::default() };
    let (mut a, mut b) = cable(config, LinkConfig::default(), 3);
    let original = numbered(1, 500);
    for _ in 0..100 {
        assert!(send(&mut a, Instant::ZERO, &original));
        a.flush(Instant::ZERO).unwrap();
        b.receive(Instant::ZERO, 1, &mut |frame| {
            let flipped: u32 = frame.bytes.iter().zip(&original).map(|(x, y)| (x ^ y).count_ones()).sum();
            assert_eq!((flipped, frame.checksum), (1, ReceiveChecksum::Unverified));
        })
        .unwrap();
    }
}

#[test]
fn checksums_are_vouched_for_only_on_request_and_only_without_corruption() {
    for (verify_checksums, corrupt, expected) in [
        (true, 0.0, ReceiveChecksum::Unverified),
        (false, 0.0, ReceiveChecksum::Valid),
        (false, 1e-9, ReceiveChecksum::Unverified),
    ] {
        let config = LinkConfig { verify_checksums, corrupt, ..LinkConfig::default() };
        let switch = Switch::new(1);
        let (mut c, mut d) = (switch.connect(config.clone()), switch.connect(config.clone()));
        let (mut a, mut b) = cable(config, LinkConfig::default(), 3);
        for (from, to) in [(&mut a, &mut b), (&mut c, &mut d)] {
            assert!(send(from, Instant::ZERO, &numbered(1, 64)));
            from.flush(Instant::ZERO).unwrap();
            let got =
                to.receive(Instant::ZERO, 1, &mut |frame| assert_eq!(frame.checksum, expected)).unwrap();
            assert_eq!(got, 1);
        }
    }
}

#[test]
fn a_reordered_frame_is_overtaken_by_those_of_the_next_moments() {
    let config = LinkConfig {
        reorder: 1.0,
        reorder_delay: Duration::from_micros(35),
        delay: Duration::from_micros(100),
        ..LinkConfig::default()
    };
    let (mut a, mut b) = cable(config.clone(), LinkConfig::default(), 1);
    assert!(send(&mut a, Instant::ZERO, &numbered(0, 64)));
    a.set_link(LinkConfig { reorder: 0.0, ..config });
    for number in 1..6 {
        let now = Instant::from_micros(10 * u64::from(number));
        assert!(send(&mut a, now, &numbered(number, 64)));
    }
    a.flush(Instant::ZERO).unwrap();
    let order: Vec<u32> = drain(&mut b).iter().map(|(_, frame)| number_of(frame)).collect();
    assert_eq!(order, [1, 2, 3, 0, 4, 5]);
    assert_eq!(a.link_statistics().reordered_frames, 1);
}

#[test]
fn ecn_capable_packets_are_marked_when_the_queue_is_long() {
    let config =
        LinkConfig { rate_bits_per_second: 8_000_000, ecn_mark_bytes: Some(3_000), ..LinkConfig::default() };
    let (mut a, mut b) = cable(config, LinkConfig::default(), 1);
    let mut packet = numbered(0, 1000);
    packet[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0x02]);
    (0..6).for_each(|_| assert!(send(&mut a, Instant::ZERO, &packet)));
    a.flush(Instant::ZERO).unwrap();
    let marks: Vec<u8> = drain(&mut b).iter().map(|(_, frame)| frame[15] & 3).collect();
    assert_eq!(marks, [2, 2, 2, 2, 3, 3], "the fifth finds 4000 bytes queued");
    assert_eq!(a.link_statistics().ce_marked_frames, 2);
}

#[test]
fn a_blackhole_swallows_what_is_sent_but_not_what_is_on_its_way() {
    let config = LinkConfig { delay: Duration::from_millis(1), ..LinkConfig::default() };
    let (mut a, mut b) = cable(config, LinkConfig::default(), 1);
    let control = a.outgoing();
    assert!(send(&mut a, Instant::ZERO, &numbered(0, 64)));
    control.set_blackhole(true);
    assert!(send(&mut a, Instant::ZERO, &numbered(1, 64)));
    b.incoming().set_blackhole(false);
    assert!(send(&mut a, Instant::ZERO, &numbered(2, 64)));
    a.flush(Instant::ZERO).unwrap();
    let order: Vec<u32> = drain(&mut b).iter().map(|(_, frame)| number_of(frame)).collect();
    assert_eq!(order, [0, 2]);
    assert_eq!(a.link_statistics().dropped_blackhole_frames, 1);
}

#[test]
fn a_change_of_rate_or_delay_keeps_order_and_a_smaller_mtu_swallows_long_frames() {
    let slow = LinkConfig {
        rate_bits_per_second: 8_000_000,
        delay: Duration::from_millis(100),
        ..LinkConfig::default()
    };
    let (mut a, mut b) = cable(slow.clone(), LinkConfig::default(), 1);
    assert!(send(&mut a, Instant::ZERO, &numbered(0, 1000)));
    a.set_link(LinkConfig { rate_bits_per_second: 0, delay: Duration::ZERO, mtu: 500, ..slow });
    assert!(send(&mut a, Instant::ZERO, &numbered(1, 514)));
    assert!(send(&mut a, Instant::ZERO, &numbered(2, 515)));
    a.flush(Instant::ZERO).unwrap();
    let arrivals: Vec<(Instant, u32)> =
        drain(&mut b).iter().map(|(at, frame)| (*at, number_of(frame))).collect();
    let first = Instant::from_millis(101);
    assert_eq!(arrivals, [(first, 0), (first, 1)]);
    assert_eq!(a.link_statistics().dropped_mtu_frames, 1);
    assert_eq!(a.info().mtu, 1500, "what the port announced does not change");
}

#[test]
fn staging_is_bounded_until_flush() {
    let (mut a, _b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    let taken = (0..1000).take_while(|&number| send(&mut a, Instant::ZERO, &numbered(number, 64))).count();
    assert_eq!(taken, STAGED_FRAMES_MAX);
    assert_eq!(a.transmit_room(Instant::ZERO).frames, 0);
    a.flush(Instant::ZERO).unwrap();
    assert_eq!(a.transmit_room(Instant::ZERO).frames, STAGED_FRAMES_MAX);
}

#[test]
fn filling_nothing_sends_nothing() {
    let (mut a, mut b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    assert!(!a.transmit(Instant::ZERO, 1514, TxOffload::default(), &mut |_| 0).unwrap());
    a.flush(Instant::ZERO).unwrap();
    assert_eq!(fetch(&mut b, Instant::ZERO).len(), 0);
    assert_eq!(a.statistics(), PortStatistics::default());
}

#[test]
fn a_dropped_end_is_noticed_after_its_last_frame_and_swallows_what_is_sent_to_it() {
    let config = LinkConfig { delay: Duration::from_micros(5), ..LinkConfig::default() };
    let (mut a, mut b) = cable(config, LinkConfig::default(), 1);
    assert!(send(&mut a, Instant::ZERO, &numbered(7, 64)));
    drop(a);
    assert_eq!(numbers(&mut b, Instant::ZERO), [0; 0], "still on its way, and nothing is wrong yet");
    assert_eq!(numbers(&mut b, Instant::from_micros(5)), [7]);
    let error = b.receive(Instant::from_micros(5), 1, &mut |_| ()).unwrap_err();
    assert!(matches!(&error, PortError::Gone { port } if port == "cable:1"), "{error}");
    assert!(send(&mut b, Instant::from_micros(5), &numbered(8, 64)));
    b.flush(Instant::from_micros(5)).unwrap();
    assert_eq!((b.statistics().tx_frames, b.statistics().tx_dropped), (1, 1));
    assert_eq!(b.link_statistics().dropped_unreachable_frames, 1);
    let fd = b.readiness().unwrap();
    poll_fds(&[fd], None).unwrap(); // a sleeper would be told, else this hangs
}

/// Receives `expected` frames in real time, asleep in between, and checks their order.
fn sleep_and_count(port: &mut MemoryPort, expected: u32) {
    let clock = MonotonicClock;
    let mut next = 0;
    while next < expected {
        let now = clock.now();
        let got = port
            .receive(now, 64, &mut |frame| {
                assert_eq!(number_of(frame.bytes), next, "in order, nothing lost");
                next += 1;
            })
            .unwrap();
        if got == 0 {
            let timeout = port.next_arrival(now).map(|at| at - clock.now());
            poll_fds(&[port.readiness().unwrap()], timeout).unwrap();
        }
    }
}

fn send_all(port: &mut MemoryPort, frames: u32, burst: u32, destination: [u8; 6]) {
    let source = port.info().mac;
    for number in 0..frames {
        let bytes = frame(destination, source, number, 200);
        while !send(port, MonotonicClock.now(), &bytes) {
            port.flush(MonotonicClock.now()).unwrap();
            std::thread::yield_now();
        }
        if number % burst == 0 {
            port.flush(MonotonicClock.now()).unwrap();
        }
    }
    port.flush(MonotonicClock.now()).unwrap();
}

#[test]
fn two_threads_exchange_thousands_of_frames_asleep_in_between() {
    for config in [
        LinkConfig { queue_bytes: usize::MAX, held_bytes_max: usize::MAX, ..LinkConfig::default() },
        LinkConfig { delay: Duration::from_micros(100), held_bytes_max: usize::MAX, ..LinkConfig::default() },
        LinkConfig {
            rate_bits_per_second: 1_000_000_000,
            ring_bytes: Some(10_000),
            held_bytes_max: usize::MAX,
            ..LinkConfig::default()
        },
    ] {
        let (mut a, mut b) = cable(config.clone(), LinkConfig::default(), 1);
        let switch = Switch::new(2);
        let (mut c, mut d) = (switch.connect(config.clone()), switch.connect(config));
        std::thread::scope(|scope| {
            scope.spawn(|| send_all(&mut a, 20_000, 7, [2; 6]));
            scope.spawn(|| sleep_and_count(&mut b, 20_000));
        });
        let destination = d.info().mac;
        std::thread::scope(|scope| {
            scope.spawn(|| send_all(&mut c, 5_000, 3, destination));
            scope.spawn(|| sleep_and_count(&mut d, 5_000));
        });
        assert_eq!(b.statistics().rx_frames, 20_000);
        assert_eq!(d.statistics().rx_frames, 5_000);
    }
}

#[test]
fn a_super_segment_is_on_the_link_as_the_frames_it_is_cut_into() {
    let offloads = LinkConfig {
        rate_bits_per_second: 1_000_000_000,
        segment_bytes_max: u32::MAX,
        ..LinkConfig::default()
    };
    let (mut a, mut b) = cable(offloads, LinkConfig::default(), 1);
    let plain = crate::port::Capabilities::default();
    assert_eq!((a.info().capabilities.tx_segment_bytes_max, b.info().capabilities), (65_535, plain));
    let whole = tcp_frame(false, 12, 0x18, &[5; 60_000]);
    let offload = TxOffload { checksum: true, segment_size: 1448 };
    let mut fill = |buffer: &mut [u8]| {
        buffer.copy_from_slice(&whole);
        whole.len()
    };
    assert!(a.transmit(Instant::ZERO, whole.len(), offload, &mut fill).unwrap());
    a.flush(Instant::ZERO).unwrap();
    let cut = SuperSegment::new(&whole, 1448).unwrap();
    let arrived = drain(&mut b);
    assert_eq!(arrived.len(), cut.frames());
    let mut buffer = vec![0; cut.frame_bytes_max()];
    for (index, (at, frame)) in arrived.iter().enumerate() {
        let length = cut.write(index, &mut buffer);
        assert_eq!(frame[..], buffer[..length]);
        let sent = arrived[..=index].iter().map(|(_, frame)| frame.len() as u64).sum::<u64>();
        assert_eq!(at.as_nanos(), 8 * sent, "each takes its time on the wire");
    }
    assert_eq!(a.statistics().tx_frames, 1);
    assert_eq!(a.link_statistics().offered_frames, cut.frames() as u64);
}

#[test]
fn a_checksum_left_to_the_port_is_completed_and_what_it_cannot_finish_is_dropped() {
    let offloads = LinkConfig { segment_bytes_max: 9_000, ..LinkConfig::default() };
    let (mut a, mut b) = cable(offloads, LinkConfig::default(), 1);
    let mut frame = tcp_frame(true, 0, 0x10, &[5; 777]);
    let nothing = vec![0; 100];
    for (bytes, segment_size) in [(&frame, 0), (&nothing, 0), (&nothing, 10)] {
        let mut fill = |buffer: &mut [u8]| {
            buffer.copy_from_slice(bytes);
            bytes.len()
        };
        let offload = TxOffload { checksum: true, segment_size };
        assert!(a.transmit(Instant::ZERO, bytes.len(), offload, &mut fill).unwrap());
    }
    assert!(
        !a.transmit(Instant::ZERO, 60, TxOffload { checksum: true, segment_size: 0 }, &mut |_| 0).unwrap()
    );
    a.flush(Instant::ZERO).unwrap();
    assert!(complete_checksum(&mut frame));
    assert_eq!(fetch(&mut b, Instant::ZERO), [frame]);
    assert_eq!((a.statistics().tx_frames, a.statistics().tx_dropped), (3, 2));
}
