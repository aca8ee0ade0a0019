//! A day of virtual time: memory, timers, counters. In a process of its own, because it looks at the process's memory.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

// Half of what the cluster offers is for other tests.
#[allow(dead_code)]
#[path = "sessions/cluster.rs"]
mod cluster;

use std::time::Duration;

use bytes::Bytes;
use cluster::{Cluster, Told, address, calm};
use outrider_messenger::{Message, OobOp, Policy};

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
                Told::Message(_, message) => Some(message.tid),
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
