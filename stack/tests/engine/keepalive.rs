//! Probes of an idle connection.

use std::time::Duration;

use outrider_stack::tcp::connection::{CloseReason, Config, Event, Keepalive};

use crate::pair::Pair;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> Config {
    Config {
        keepalive: Some(Keepalive { idle: 10 * SECOND, interval: SECOND, probes_max: 3 }),
        ..Config::default()
    }
}

#[test]
fn an_idle_connection_whose_peer_answers_stays_open() {
    let mut pair = Pair::new(1, config());
    pair.config[1].keepalive = None;
    pair.establish();
    pair.run_for(105 * SECOND);
    assert!(!pair.closed(0) && !pair.closed(1));
    let probes = pair.tcp(0).statistics().keepalive_probes;
    assert!((9..=11).contains(&probes), "{probes} probes in 105 s");
    assert_eq!(pair.tcp(1).statistics().keepalive_probes, 0);
}

#[test]
fn a_peer_that_is_gone_is_found_out_while_idle() {
    let mut pair = Pair::new(2, config());
    pair.establish();
    pair.run_for(SECOND);
    let heard_at = pair.tcp(0).last_heard_at();
    pair.paths[0].cut = true;
    pair.paths[1].cut = true;
    pair.run_until(60 * SECOND, |pair| pair.closed(0));
    assert!(pair.nodes[0].events.contains(&Event::Closed(CloseReason::KeepaliveTimeout)));
    assert_eq!(pair.now - heard_at, 13 * SECOND);
}
