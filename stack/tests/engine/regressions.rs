//! What once went wrong, one story each.

use std::time::Duration;

use outrider_stack::tcp::connection::{Config, Connection, State};
use outrider_stack::tcp::segment::{Header, Segment};

use outrider_stack::tcp::sequence::SeqNumber;
use outrider_stack::time::Instant;

use crate::pair::{App, Pair, Path};

const SECOND: Duration = Duration::from_secs(1);

/// Storm 5054: something urgent did not fit into the rest of the window, nothing was in flight, the update was lost,
/// and no timer was armed: the connection stood still for ever.
#[test]
fn something_urgent_larger_than_the_rest_of_the_window_does_not_stall_when_the_update_is_lost() {
    let mut pair = Pair::new(1, Config { receive_window_max: 6_000, ..Config::default() });
    pair.nodes[1].app.capacity = 6_000;
    pair.nodes[1].app.keeps = true;
    pair.nodes[0].app.total = 5_950;
    pair.establish();
    pair.run_until(SECOND, |pair| pair.nodes[1].app.received == 5_950);
    pair.run_for(SECOND);
    pair.nodes[0].app.urgent = true;
    pair.run_for(Duration::from_millis(100));
    // The reader reads on, and what says so is lost.
    pair.nodes[1].app.keeps = false;
    let now = pair.now;
    pair.paths[1].cut = true;
    pair.nodes[1].tcp.as_mut().expect("open").set_receive_room(now, 6_000);
    pair.run_for(Duration::from_micros(10));
    pair.paths[1].cut = false;
    pair.run_until(60 * SECOND, |pair| pair.nodes[1].app.received == 6_050);
    let probes = pair.tcp(0).statistics().window_probes;
    assert!((1..20).contains(&probes), "{probes} probes: asked for, with back-off");
}

/// An attacker who knows nothing of the receive sequence space could acknowledge data for the peer: any sequence
/// number of the past would do.
#[test]
fn an_acknowledgement_with_a_sequence_number_of_long_ago_is_not_believed() {
    let mut pair = Pair::new(2, Config { receive_window_max: 20_000, ..Config::default() });
    pair.nodes[0].app.total = 300_000;
    pair.establish();
    pair.run_until(SECOND, |pair| pair.nodes[1].app.received == 300_000);
    pair.run_for(SECOND);
    pair.paths[1] = Path { cut: true, ..Path::default() };
    pair.nodes[1].app.total = 1_000;
    pair.run_for(Duration::from_micros(100));
    let before = (pair.tcp(1).acked_offset(), pair.tcp(1).last_heard_at());
    let now = pair.now;
    let [peer, node] = &mut pair.nodes;
    let tcp = node.tcp.as_mut().expect("open");
    let sent = tcp.send_state(now).stream_offset;
    assert!(sent > before.0, "data is in flight");
    let mut header = Header { ack: Some(node.initial.at(sent)), window: 100, ..Header::default() };
    header.seq = peer.initial.at(1_000);
    let segment = Segment { header, payload: &[], congestion_experienced: false };
    tcp.on_segment(now, &segment, &mut node.app);
    assert_eq!((tcp.acked_offset(), tcp.last_heard_at()), before);
}

/// Fuzzed: before the SYN-ACK had left, a SYN that acknowledged our very initial sequence number opened the
/// connection, whose stream then began with the SYN's own place.
#[test]
fn a_syn_that_acknowledges_a_syn_not_yet_sent_opens_nothing() {
    let (config, initial) = (Config::default(), SeqNumber(1000));
    let mut header = Header { seq: SeqNumber(7), window: 1000, ..Header::default() };
    header.flags.syn = true;
    let syn = Segment { header, payload: &[], congestion_experienced: false };
    let now = Instant::from_millis(1);
    let mut tcp = Connection::accept(now, &config, initial, 0, &syn);
    header.ack = Some(initial);
    let mut app = App::default();
    tcp.on_segment(now, &Segment { header, ..syn }, &mut app);
    assert_eq!((tcp.state(), tcp.poll_event()), (State::SynReceived, None));
}
