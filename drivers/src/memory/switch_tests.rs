//! Stories about switches.

use core::time::Duration;

use super::tests::{drain, fetch, frame, number_of, numbers, send};
use super::*;
use crate::port::serialisation_time;

#[test]
fn a_switch_floods_the_unknown_and_learns() {
    let switch = Switch::new(5);
    let mut ports: Vec<MemoryPort> = (0..3).map(|_| switch.connect(LinkConfig::default())).collect();
    let macs: Vec<[u8; 6]> = ports.iter().map(|port| port.info().mac).collect();
    let mut exchange = |from: usize, destination: [u8; 6], number| {
        assert!(send(&mut ports[from], Instant::ZERO, &frame(destination, macs[from], number, 64)));
        ports[from].flush(Instant::ZERO).unwrap();
        ports.iter_mut().map(|port| numbers(port, Instant::ZERO)).collect::<Vec<_>>()
    };
    assert_eq!(exchange(0, [0xff; 6], 1), [vec![], vec![1], vec![1]], "broadcast");
    assert_eq!(exchange(0, macs[1], 2), [vec![], vec![2], vec![2]], "not heard of yet");
    assert_eq!(exchange(1, macs[0], 3), [vec![3], vec![], vec![]], "known from the broadcast");
    assert_eq!(exchange(0, macs[1], 4), [vec![], vec![4], vec![]], "known from the answer");
    assert_eq!(exchange(0, macs[0], 5), [vec![], vec![], vec![]], "to itself: filtered");
    let statistics = switch.statistics();
    assert_eq!(
        (statistics.flooded_frames, statistics.forwarded_frames, statistics.filtered_frames),
        (2, 2, 1)
    );
    assert_eq!(statistics.addresses, 2);
    // A port that is dropped is forgotten, and its place can be taken.
    drop(ports.remove(1));
    assert_eq!(switch.statistics().addresses, 1);
    let mut late = switch.connect(LinkConfig::default());
    assert!(!macs.contains(&late.info().mac), "an address is never given twice");
    assert!(send(&mut ports[0], Instant::ZERO, &frame(late.info().mac, macs[0], 6, 64)));
    ports[0].flush(Instant::ZERO).unwrap();
    assert_eq!(numbers(&mut late, Instant::ZERO), [6]);
}

#[test]
fn the_address_table_is_bounded_and_short_frames_are_malformed() {
    let switch = Switch::new(5);
    let (mut a, mut b) = (switch.connect(LinkConfig::default()), switch.connect(LinkConfig::default()));
    for number in 0..ADDRESSES_MAX as u32 + 10 {
        let [p, q, r, s] = number.to_be_bytes();
        assert!(send(&mut a, Instant::ZERO, &frame([0xff; 6], [2, 9, p, q, r, s], number, 64)));
        a.flush(Instant::ZERO).unwrap();
        fetch(&mut b, Instant::ZERO);
    }
    assert_eq!((switch.statistics().addresses, switch.statistics().unlearned), (ADDRESSES_MAX, 10));
    for length in 1..14 {
        assert!(send(&mut a, Instant::ZERO, &[2; 13][..length.min(13)]));
    }
    a.flush(Instant::ZERO).unwrap();
    assert_eq!(switch.statistics().dropped_malformed_frames, 13);
    assert_eq!(fetch(&mut b, Instant::ZERO).len(), 0);
}

#[test]
fn two_senders_share_the_queue_of_a_switch_output_in_order_of_arrival() {
    let config = LinkConfig {
        rate_bits_per_second: 1_000_000_000,
        delay: Duration::from_micros(10),
        queue_bytes: 14 * 1500,
        ..LinkConfig::default()
    };
    let switch = Switch::new(5);
    let mut receiver = switch.connect(config.clone());
    let (mut a, mut b) = (switch.connect(config.clone()), switch.connect(config));
    let to = receiver.info().mac;
    let (mac_a, mac_b) = (a.info().mac, b.info().mac);
    assert!(send(&mut receiver, Instant::ZERO, &frame([0xff; 6], to, 0, 64)));
    receiver.flush(Instant::ZERO).unwrap();
    let start = Instant::from_millis(1);
    // Each sends at line rate; b is asked to send later, but at the same instants.
    for number in 0..13 {
        assert!(send(&mut a, start, &frame(to, mac_a, number, 1500)));
    }
    a.flush(start).unwrap();
    for number in 100..113 {
        assert!(send(&mut b, start, &frame(to, mac_b, number, 1500)));
    }
    b.flush(start).unwrap();
    let arrivals = drain(&mut receiver);
    let order: Vec<u32> = arrivals.iter().map(|(_, frame)| number_of(frame)).collect();
    assert_eq!(order[..6], [0, 100, 1, 101, 2, 102], "by arrival at the switch, not by call");
    let gaps: Vec<Duration> = arrivals.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(
        gaps.iter().all(|&gap| gap == Duration::from_micros(12)),
        "the output is never faster than its rate"
    );
    // Two frames arrive while one leaves: the last one finds 26 - 1 - 12 queued.
    assert_eq!(receiver.incoming().statistics().dropped_queue_frames, 0);
    let first = start + 2 * (serialisation_time(1500, 1_000_000_000) + Duration::from_micros(10));
    assert_eq!(arrivals[0].0, first, "two hops, each with rate and delay");
    assert_eq!(order.len(), 26);
    assert_eq!(receiver.incoming().statistics().queued_bytes_max, 14 * 1500);
}

#[test]
fn a_burst_for_several_outputs_is_sorted_out_and_each_keeps_its_order() {
    let switch = Switch::new(5);
    let mut hosts: Vec<MemoryPort> = (0..3).map(|_| switch.connect(LinkConfig::default())).collect();
    let macs: Vec<[u8; 6]> = hosts.iter().map(|host| host.info().mac).collect();
    for from in 0..3 {
        assert!(send(&mut hosts[from], Instant::ZERO, &frame([0xff; 6], macs[from], 0, 64)));
        hosts[from].flush(Instant::ZERO).unwrap();
    }
    hosts.iter_mut().for_each(|host| assert_eq!(numbers(host, Instant::ZERO), [0, 0]));
    // To 1, 1, 2, 1, everybody, 2, 2, 1.
    for (number, destination) in [1, 1, 2, 1, 9, 2, 2, 1].into_iter().enumerate() {
        let destination = macs.get(destination).copied().unwrap_or([0xff; 6]);
        assert!(send(&mut hosts[0], Instant::ZERO, &frame(destination, macs[0], number as u32, 64)));
    }
    hosts[0].flush(Instant::ZERO).unwrap();
    assert_eq!(numbers(&mut hosts[1], Instant::ZERO), [0, 1, 3, 4, 7]);
    assert_eq!(numbers(&mut hosts[2], Instant::ZERO), [2, 4, 5, 6]);
    assert_eq!(numbers(&mut hosts[0], Instant::ZERO), [0; 0]);
}

#[test]
fn hosts_of_different_mtu_share_a_switch_and_its_memory() {
    let switch = Switch::new(5);
    let mut small = switch.connect(LinkConfig::default());
    let mut jumbo = switch.connect(LinkConfig { mtu: 9000, ..LinkConfig::default() });
    let mut other = switch.connect(LinkConfig { mtu: 9000, ..LinkConfig::default() });
    let (mac_small, mac_jumbo) = (small.info().mac, jumbo.info().mac);
    // Buffers of the small host pile up at the others, which then send from them.
    for number in 0..1000 {
        assert!(send(&mut small, Instant::ZERO, &frame([0xff; 6], mac_small, number, 1514)));
        small.flush(Instant::ZERO).unwrap();
        assert_eq!((fetch(&mut jumbo, Instant::ZERO).len(), fetch(&mut other, Instant::ZERO).len()), (1, 1));
    }
    assert!(send(&mut jumbo, Instant::ZERO, &frame([0xff; 6], mac_jumbo, 7, 9014)));
    jumbo.flush(Instant::ZERO).unwrap();
    assert_eq!(fetch(&mut other, Instant::ZERO)[0].len(), 9014);
    assert_eq!(fetch(&mut small, Instant::ZERO).len(), 0, "too long for its link");
    assert_eq!(small.incoming().statistics().dropped_mtu_frames, 1);
}
