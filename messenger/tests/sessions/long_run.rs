//! A day of virtual time: memory, timers, counters; and what a high priority waits for.

use std::time::Duration;

use super::cluster::{Cluster, address, calm};
use bytes::Bytes;
use outrider_drivers::memory::LinkConfig;
use outrider_messenger::{Message, OobOp, Policy, priority};

const HOUR: Duration = Duration::from_secs(3_600);
const INTERVAL: Duration = Duration::from_secs(1);

/// Memory of this process that is in use, bytes.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn a_day_leaves_memory_timers_and_counters_as_they_should_be() {
    let mut cluster =
        Cluster::new(2, &calm(), 1, |_, builder| builder.default_policy(Policy::lossless_peer()));
    let there = cluster.host(1).messenger.connect_to(address(2)).unwrap();
    let part = |turn: &outrider_messenger::OobTurn| Some(Bytes::from(turn.sequence.to_string()));
    let _registration = there.register_oob_message(OobOp::OSD_PING, part, INTERVAL).unwrap();
    let (mut sent, mut early) = (0, 0);
    for hour in 0..24u64 {
        for quarter in 0..240u64 {
            there.send_message(Message::new(1, vec![0; 10_000]).with_tid(sent)).unwrap();
            sent += 1;
            cluster.run_for(Duration::from_secs(15));
            // What a test takes down is no leak.
            let told = std::mem::take(&mut *cluster.host(2).recorder.told.lock().unwrap());
            let tids = told.iter().filter_map(|told| match told {
                super::cluster::Told::Message(_, message) => Some(message.tid),
                _ => None,
            });
            assert_eq!(tids.collect::<Vec<_>>(), [sent - 1], "hour {hour}, quarter {quarter}");
        }
        cluster.host(1 + (hour % 2) as u8).reset_connections(cluster.now);
        if hour == 2 {
            early = resident_bytes();
        }
    }
    let grown = resident_bytes().saturating_sub(early);
    assert!(grown < 8 << 20, "{grown} bytes more than after three hours");
    let turns = (24 * HOUR).as_secs();
    let beats = there.oob_statistics();
    let missed = turns - beats.sent;
    assert!(missed <= 48, "{missed} of {turns} turns are missing: 24 resets cost a turn or two each");
    let heard = cluster.host(2).recorder.heartbeats();
    assert!(beats.sent - heard <= 24, "{heard} of {} arrived", beats.sent);
    assert_eq!((beats.superseded, beats.skipped, beats.refused), (0, 0, 0));
    let (ours, back) = (there.statistics(), cluster.host(2).messenger.connections()[0].statistics());
    // Each other hour one is cut into a transport that the peer has just reset, and again into the next.
    assert!((sent..=sent + 12).contains(&ours.messages_sent), "{} of {sent}", ours.messages_sent);
    assert_eq!((back.messages_received, back.bytes_received), (sent, sent * 10_000));
    assert!(ours.acks_received <= back.acks_sent && back.acks_sent <= sent);
    assert!(there.occupancy().send.unsent_bytes == 0 && there.occupancy().send.bytes_in_flight == 0);
}

#[test]
fn a_large_message_of_low_priority_delays_a_small_one_of_high_priority_by_two_milliseconds_at_most() {
    let link = LinkConfig { rate_bits_per_second: 1_000_000_000, delay: Duration::from_micros(25), ..calm() };
    let mut cluster = Cluster::new(2, &link, 1, |_, builder| {
        builder.default_policy(Policy::lossless_peer()).send_budget_bytes(80 << 20)
    });
    let there = cluster.host(1).messenger.connect_to(address(2)).unwrap();
    cluster.run_for(Duration::from_millis(100));
    there.send_message(Message::new(1, vec![0; 64 << 20]).with_priority(priority::LOW)).unwrap();
    cluster.run_for(Duration::from_millis(100));
    let mut worst = Duration::ZERO;
    for tid in 0..50 {
        let before = cluster.host(2).recorder.messages().len();
        let given = cluster.now;
        there
            .send_message(Message::new(2, vec![0; 4 << 10]).with_priority(priority::HIGH).with_tid(tid))
            .unwrap();
        cluster.kick();
        let limit = given + Duration::from_secs(1);
        let came = cluster.run_until(limit, |cluster| cluster.host(2).recorder.messages().len() > before);
        assert!(came, "message {tid} does not come");
        worst = worst.max(cluster.now.since(given));
        cluster.run_for(Duration::from_micros(3_700));
    }
    let large = cluster.host(2).recorder.messages().iter().filter(|message| message.kind == 1).count();
    assert_eq!(large, 0, "the large one was in progress all the time");
    println!("worst {worst:?}");
    assert!(worst <= Duration::from_millis(2), "{worst:?}");
    let limit = cluster.now + Duration::from_secs(5);
    assert!(cluster.run_until(limit, |cluster| cluster.host(2).recorder.messages().len() == 51));
}
