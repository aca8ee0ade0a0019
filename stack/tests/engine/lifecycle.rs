//! Opening, closing, resetting.

use std::time::Duration;

use bytes::Bytes;
use outrider_stack::tcp::connection::{
    CloseReason, Config, Connection, Event, State, TransmitLimit, reset_for,
};
use outrider_stack::tcp::segment::{Header, Segment};
use outrider_stack::tcp::sequence::SeqNumber;
use outrider_stack::tcp::source::{Cut, Demand, SegmentSource, SendState};
use outrider_stack::time::Instant;

use crate::pair::{InFlight, Pair, Path};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_connection_opens_carries_data_both_ways_and_closes_in_order() {
    let mut pair = Pair::new(1, Config::default());
    pair.nodes[0].app.total = 300_000;
    pair.nodes[1].app.total = 200_000;
    pair.nodes[0].app.finish = true;
    pair.establish();
    pair.run_until(SECOND, |pair| pair.nodes[1].app.peer_finished);
    assert_eq!(pair.nodes[1].app.received, 300_000);
    pair.nodes[1].app.finish = true;
    pair.run_until(10 * SECOND, |pair| pair.closed(0) && pair.closed(1));
    assert_eq!(pair.nodes[0].app.received, 200_000);
    for node in 0..2 {
        assert_eq!(pair.nodes[node].events, [Event::Established, Event::Closed(CloseReason::Finished)]);
    }
    assert!(!pair.step(), "nothing is left to happen");
}

#[test]
fn half_closed_the_other_direction_goes_on() {
    let mut pair = Pair::new(2, Config::default());
    pair.nodes[0].app.finish = true;
    pair.establish();
    pair.run_until(SECOND, |pair| pair.tcp(0).state() == State::FinWait2);
    pair.nodes[1].app.total = 1_000_000;
    pair.run_until(SECOND, |pair| pair.nodes[0].app.received == 1_000_000);
    assert_eq!(pair.tcp(1).state(), State::CloseWait);
}

/// Node 0 has closed first, and waits since just now. The second value is a header that the peer might go on sending.
fn in_time_wait(seed: u64) -> (Pair, Header) {
    let mut pair = Pair::new(seed, Config::default());
    pair.nodes[0].app.finish = true;
    pair.establish();
    pair.run_until(SECOND, |pair| pair.tcp(0).state() == State::FinWait2);
    pair.nodes[1].app.finish = true;
    pair.run_until(SECOND, |pair| pair.tcp(0).state() == State::TimeWait);
    // Behind SYN and FIN of either end.
    let seq = pair.nodes[1].initial.at(2);
    let ack = Some(pair.nodes[0].initial.at(2));
    (pair, Header { seq, ack, window: 1000, ..Header::default() })
}

/// How long node 0 waits yet if `header` comes every tenth of a second.
fn wait_disturbed_by(mut pair: Pair, header: Header) -> Duration {
    let began = pair.now;
    while !pair.closed(0) && pair.now - began < 5 * SECOND {
        let (now, node) = (pair.now, &mut pair.nodes[0]);
        let segment = Segment { header, payload: &[], congestion_experienced: false };
        node.tcp.as_mut().expect("open").on_segment(now, &segment, &mut node.app);
        pair.transmit_all(0);
        pair.run_for(SECOND / 10);
    }
    pair.now - began
}

#[test]
fn an_acknowledgement_does_not_make_time_wait_longer() {
    let (pair, header) = in_time_wait(21);
    let waited = wait_disturbed_by(pair, header);
    assert!((SECOND..SECOND * 3 / 2).contains(&waited), "{waited:?}");
}

#[test]
fn a_retransmitted_fin_begins_time_wait_anew() {
    let (pair, mut header) = in_time_wait(22);
    header.seq = header.seq.add(u32::MAX);
    header.flags.fin = true;
    assert_eq!(wait_disturbed_by(pair, header), 5 * SECOND, "as long as it comes");
}

/// Has one message to send, which it lends.
struct Lender {
    whole: Bytes,
    sent: bool,
}

impl SegmentSource for Lender {
    fn demand(&mut self, _now: Instant) -> Demand {
        if self.sent { Demand::Nothing } else { Demand::Data }
    }

    fn cut(&mut self, _now: Instant, _state: &SendState, cut: &mut dyn Cut) {
        cut.append_shared(&self.whole, 0..self.whole.len());
        self.sent = true;
    }

    fn next_demand(&self) -> Option<Instant> {
        None
    }
}

#[test]
fn a_closed_connection_that_is_kept_gives_back_what_was_lent() {
    let mut pair = Pair::new(23, Config::default());
    pair.establish();
    let (now, tcp) = (pair.now, pair.nodes[0].tcp.as_mut().expect("open"));
    let mut lender = Lender { whole: Bytes::from(vec![7; 1000]), sent: false };
    let sent = tcp.poll_transmit(now, &mut lender, TransmitLimit::default());
    assert_eq!(sent.map(|segment| segment.payload_length), Some(1000));
    assert!(!lender.whole.is_unique(), "it is in flight");
    tcp.abort(now);
    assert!(lender.whole.is_unique());
    let reset = tcp.poll_transmit(now, &mut lender, TransmitLimit::default()).expect("the peer is told");
    assert!(reset.header.flags.rst);
    assert_eq!(tcp.poll_event(), Some(Event::Closed(CloseReason::Aborted)));
    assert_eq!(tcp.send_state(now).oldest_unacked_age, Duration::ZERO);
}

#[test]
fn both_close_at_once() {
    let mut pair = Pair::new(3, Config::default());
    pair.establish();
    pair.run_for(Duration::from_millis(5));
    pair.nodes[0].app.finish = true;
    pair.nodes[1].app.finish = true;
    pair.run_until(10 * SECOND, |pair| pair.closed(0) && pair.closed(1));
    assert!(
        pair.nodes.iter().all(|node| node.events.contains(&Event::Closed(CloseReason::Finished))),
        "both in order"
    );
}

#[test]
fn both_open_at_once() {
    let mut pair = Pair::new(4, Config::default());
    let initial = pair.nodes[1].initial;
    pair.nodes[1].tcp = Some(Connection::connect(pair.now, &Config::default(), initial, 5));
    pair.nodes[0].app.total = 10_000;
    pair.nodes[1].app.total = 10_000;
    pair.establish();
    pair.run_until(SECOND, |pair| pair.nodes.iter().all(|node| node.app.received == 10_000));
}

#[test]
fn a_syn_that_nobody_answers_is_retried_with_back_off_and_given_up() {
    let config = Config { syn_retries: 3, ..Config::default() };
    let mut pair = Pair::new(5, config).both_paths(Path { cut: true, ..Path::default() });
    let start = pair.now;
    pair.run_until(60 * SECOND, |pair| pair.closed(0));
    assert_eq!(pair.nodes[0].events, [Event::Closed(CloseReason::ConnectTimeout)]);
    assert_eq!(pair.now - start, SECOND * (1 + 2 + 4 + 8));
    assert_eq!(pair.tcp(0).statistics().segments_sent, 4);
}

#[test]
fn a_refused_connection_says_so() {
    let mut pair = Pair::new(6, Config::default());
    pair.transmit_all(0);
    let syn = Segment {
        header: Header {
            seq: pair.nodes[0].initial,
            flags: outrider_stack::tcp::segment::Flags { syn: true, ..Default::default() },
            ..Header::default()
        },
        payload: &[],
        congestion_experienced: false,
    };
    let reset = reset_for(&syn).expect("a SYN is answered");
    pair.paths[0].cut = true;
    pair.nodes[1].tcp = None;
    pair.schedule(
        pair.now,
        0,
        InFlight { header: reset, payload: vec![], ecn_capable: false, marked: false },
    );
    let now = pair.now;
    let Some(tcp) = &mut pair.nodes[0].tcp else { panic!("node 0 connects") };
    tcp.on_segment(
        now,
        &Segment { header: reset, payload: &[], congestion_experienced: false },
        &mut pair.nodes[0].app,
    );
    pair.transmit_all(0);
    assert_eq!(pair.nodes[0].events, [Event::Closed(CloseReason::Refused)]);
}

#[test]
fn an_abort_resets_the_peer_and_reports_after_the_reset_has_left() {
    let mut pair = Pair::new(7, Config::default());
    pair.nodes[0].app.total = 50_000_000;
    pair.establish();
    pair.run_for(Duration::from_millis(3));
    let now = pair.now;
    let tcp = pair.nodes[0].tcp.as_mut().expect("open");
    tcp.abort(now);
    assert_eq!(tcp.poll_event(), None, "the RST has not left yet");
    pair.run_until(SECOND, |pair| pair.closed(1));
    assert!(pair.nodes[0].events.contains(&Event::Closed(CloseReason::Aborted)));
    assert!(pair.nodes[1].events.contains(&Event::Closed(CloseReason::Reset)));
}

#[test]
fn a_sink_that_finds_the_stream_unusable_ends_the_connection() {
    let mut pair = Pair::new(8, Config::default());
    pair.nodes[0].app.total = 5_000_000;
    pair.nodes[1].app.fault_at = Some(100_000);
    pair.establish();
    pair.run_until(SECOND, |pair| pair.closed(0) && pair.closed(1));
    assert!(pair.nodes[1].events.contains(&Event::Closed(CloseReason::Unusable)));
    assert!(pair.nodes[0].events.contains(&Event::Closed(CloseReason::Reset)));
}

#[test]
fn data_that_is_never_acknowledged_ends_in_the_user_timeout() {
    let config = Config { user_timeout: 5 * SECOND, ..Config::default() };
    let mut pair = Pair::new(9, config);
    pair.establish();
    pair.nodes[0].app.total = 10_000;
    pair.run_for(Duration::from_millis(10));
    pair.paths[0].cut = true;
    pair.nodes[0].app.total += 10_000;
    let cut_at = pair.now;
    pair.run_until(60 * SECOND, |pair| pair.closed(0));
    assert!(pair.nodes[0].events.contains(&Event::Closed(CloseReason::UserTimeout)));
    let took = pair.now - cut_at;
    assert!(took >= 5 * SECOND && took < 11 * SECOND, "{took:?}");
}

fn established(seed: u64) -> Pair {
    let mut pair = Pair::new(seed, Config::default());
    pair.nodes[0].app.total = 1000;
    pair.nodes[1].app.total = 1000;
    pair.establish();
    pair.run_until(SECOND, |pair| pair.nodes.iter().all(|node| node.app.received == 1000));
    pair.run_for(Duration::from_millis(200));
    pair
}

/// Sends node 1 a forged segment with this sequence distance from what it expects.
fn forge(pair: &mut Pair, distance: u32, change: impl FnOnce(&mut Header)) {
    let mut header = Header {
        seq: pair.nodes[0].initial.at(1001).add(distance),
        ack: Some(pair.nodes[1].initial.at(1001)),
        window: 1000,
        ..Header::default()
    };
    change(&mut header);
    let now: Instant = pair.now;
    let tcp = pair.nodes[1].tcp.as_mut().expect("open");
    let segment = Segment { header, payload: &[], congestion_experienced: false };
    tcp.on_segment(now, &segment, &mut pair.nodes[1].app);
    pair.keep_log = true;
    pair.transmit_all(1);
}

#[test]
fn only_a_reset_at_exactly_the_next_byte_is_believed() {
    let mut pair = established(10);
    forge(&mut pair, 1, |header| header.flags.rst = true);
    assert!(!pair.closed(1));
    assert_eq!(pair.sent[1].len(), 1, "challenge acknowledgement (RFC 5961 section 3.2)");
    forge(&mut pair, u32::MAX, |header| header.flags.rst = true);
    assert!(!pair.closed(1));
    assert_eq!(pair.sent[1].len(), 1, "outside the window: silence");
    forge(&mut pair, 0, |header| header.flags.rst = true);
    assert!(pair.closed(1));
}

#[test]
fn a_syn_on_an_open_connection_is_challenged_within_a_limit() {
    let mut pair = established(11);
    for _ in 0..100 {
        forge(&mut pair, 5, |header| {
            header.flags.syn = true;
            header.ack = None;
        });
    }
    assert!(!pair.closed(1));
    assert_eq!(pair.tcp(1).statistics().challenge_acks, 10, "per second (RFC 5961 section 7)");
}

#[test]
fn an_acknowledgement_of_bytes_never_sent_changes_nothing() {
    let mut pair = established(12);
    forge(&mut pair, 0, |header| header.ack = header.ack.map(|ack: SeqNumber| ack.add(1)));
    assert_eq!(pair.tcp(1).acked_offset(), 1001);
    assert_eq!(pair.tcp(1).statistics().bad_acks, 1);
}

#[test]
fn an_old_timestamp_is_rejected() {
    let mut pair = established(13);
    forge(&mut pair, 0, |header| {
        header.options.timestamps = Some(outrider_stack::tcp::segment::Timestamps { value: 1, echo: 1 });
    });
    // The peer's clock is random; one of two opposite values is old.
    forge(&mut pair, 0, |header| {
        header.options.timestamps =
            Some(outrider_stack::tcp::segment::Timestamps { value: 1 << 31, echo: 1 });
    });
    assert!(pair.tcp(1).statistics().paws_rejected >= 1);
}
