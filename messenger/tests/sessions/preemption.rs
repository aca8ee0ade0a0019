//! What a high priority waits for.

use std::time::Duration;

use super::cluster::{Cluster, address, calm};
use outrider_drivers::memory::LinkConfig;
use outrider_messenger::{Message, Policy, priority};

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
