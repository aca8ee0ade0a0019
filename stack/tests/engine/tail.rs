//! An out-of-band message that is lost at the tail, with nothing behind it to tell of the loss: the probe repairs it
//! within about two round trips.

use std::time::Duration;

use outrider_stack::tcp::connection::Config;

use crate::pair::{Pair, Path};

const SECOND: Duration = Duration::from_secs(1);
/// Length of an urgent cut of the test application.
const URGENT_BYTES: u64 = 100;
const ROUND_TRIPS: [Duration; 3] =
    [Duration::from_micros(100), Duration::from_millis(2), Duration::from_millis(50)];

/// What happened on the connection before the message was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Heartbeats only.
    Heartbeats,
    /// A burst of data leaves right before the message, and arrives.
    Burst,
    /// Single small messages, each acknowledged only after the peer's delay: the smoothed round trip is mostly delay.
    Trickle,
}

/// Loses one message and says how long it took until it was there all the same.
fn repair_time(seed: u64, round_trip: Duration, before: Before) -> Duration {
    let path = Path { delay: round_trip / 2, ..Path::default() };
    let mut pair = Pair::new(seed, Config::default()).both_paths(path);
    pair.nodes[1].app.answers_at_once = Some(URGENT_BYTES as usize);
    pair.establish();
    for _ in 0..1 + pair.random.below(20) {
        match before {
            Before::Trickle => pair.nodes[0].app.total += 200,
            Before::Heartbeats | Before::Burst => pair.nodes[0].app.urgent = true,
        }
        let pause = round_trip * 2 + Duration::from_millis(50 + pair.random.below(50));
        pair.run_for(pause);
    }
    if before == Before::Burst {
        pair.nodes[0].app.total += 1448 * (1 + pair.random.below(8));
        pair.transmit_all(0);
    }
    pair.paths[0].cut = true;
    pair.nodes[0].app.urgent = true;
    let lost_at = pair.now;
    // It leaves at once, or when the data before it lets it.
    let wanted = pair.nodes[0].app.urgent_cuts.len() + 1;
    pair.run_until(SECOND, |pair| pair.nodes[0].app.urgent_cuts.len() == wanted);
    pair.paths[0].cut = false;
    let total = pair.nodes[0].app.total;
    pair.run_until(10 * SECOND, |pair| pair.nodes[1].app.received == total);
    pair.now - lost_at
}

#[test]
fn a_lost_message_at_the_tail_is_repaired_within_about_two_round_trips() {
    for before in [Before::Heartbeats, Before::Burst, Before::Trickle] {
        for round_trip in ROUND_TRIPS {
            for seed in 0..100 {
                let took = repair_time(seed, round_trip, before);
                // Two round trips until the probe, half a one for it, and what a burst takes on the wire; after a
                // trickle the peer's delay is part of every round trip that was measured.
                let delay = match before {
                    Before::Trickle => Config::default().peer_ack_delay_max,
                    Before::Heartbeats | Before::Burst => Duration::ZERO,
                };
                let limit = round_trip * 3 + Duration::from_micros(500) + delay;
                assert!(took <= limit, "seed {seed}, {before:?}, {round_trip:?}: {took:?} > {limit:?}");
            }
        }
    }
}
