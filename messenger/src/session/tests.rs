//! Two sessions over a perfect pipe in virtual time, one segment at a time.

use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;
use outrider_stack::endpoint::{Directive, Established};
use outrider_stack::tcp::source::{Blocked, Cut, Demand, SendState};
use outrider_stack::time::Instant;

use super::*;
use crate::codec::{
    CHUNK_HEADER_BYTES, CodecError, Decoded, FLAG_FIRST, MAGIC, MESSAGE_HEADER_BYTES, OobPayload, encode_u64,
};
use crate::message::priority;
use crate::oob::{OobOp, OobRequest};

const SEGMENT: usize = 1448;
const MS: Duration = Duration::from_millis(1);

struct TestCut {
    room: usize,
    urgent_only: bool,
    bytes: Vec<u8>,
}

impl Cut for TestCut {
    fn room(&self) -> usize {
        self.room - self.bytes.len()
    }

    fn urgent_only(&self) -> bool {
        self.urgent_only
    }

    fn append(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "the source keeps to the room");
        self.bytes.extend_from_slice(bytes);
    }
}

/// A session and what it said.
struct Side {
    session: Session,
    offset: u64,
    events: Vec<SessionEvent>,
    messages: Vec<Message>,
    oobs: Vec<OobMessage>,
    /// Whether messages are dispatched as they come.
    consumes: bool,
}

impl Side {
    fn new(config: SessionConfig) -> Self {
        Side {
            session: Session::new(config),
            offset: 1,
            events: Vec::new(),
            messages: Vec::new(),
            oobs: Vec::new(),
            consumes: true,
        }
    }

    fn establish(&mut self, now: Instant) {
        let address = "10.0.0.1:1".parse().unwrap();
        let established = Established { local: address, remote: address, segment_size: SEGMENT };
        self.session.on_established(now, &established);
    }

    fn segment_with(&mut self, now: Instant, room: usize, urgent_only: bool) -> Vec<u8> {
        let mut cut = TestCut { room, urgent_only, bytes: Vec::new() };
        let state = SendState { bytes_in_flight: 777, stream_offset: self.offset, ..SendState::default() };
        self.session.cut(now, &state, &mut cut);
        self.offset += cut.bytes.len() as u64;
        cut.bytes
    }

    fn segment(&mut self, now: Instant) -> Vec<u8> {
        if self.session.demand(now) == Demand::Nothing {
            Vec::new()
        } else {
            self.segment_with(now, SEGMENT, false)
        }
    }

    fn deliver(&mut self, now: Instant, bytes: &[u8]) -> Result<Delivery, SessionError> {
        let result = self.session.deliver(now, bytes);
        self.collect();
        result
    }

    fn collect(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                SessionEvent::Message { message, arrived_at, credit_bytes } => {
                    self.messages.push(message);
                    if self.consumes {
                        self.session.dispatched_at_once(credit_bytes);
                    } else {
                        self.session.queued_for_dispatch(arrived_at, credit_bytes);
                    }
                }
                SessionEvent::Oob(message) => self.oobs.push(message),
                other => self.events.push(other),
            }
        }
    }

    fn ping(&mut self, now: Instant, op: u16, interval: Duration) {
        let callback = move |_: &crate::oob::OobTurn| Some(Bytes::from_static(b"ping"));
        self.session.register_oob(now, OobRequest::new(OobOp(op), callback, interval).unwrap()).unwrap();
    }
}

/// Passes segments both ways until neither side has any; at most `limit` of them.
fn settle(now: Instant, left: &mut Side, right: &mut Side, limit: usize) -> usize {
    let mut segments = 0;
    while segments < limit {
        let (there, back) = (left.segment(now), right.segment(now));
        if there.is_empty() && back.is_empty() {
            break;
        }
        segments += 1;
        right.deliver(now, &there).expect("the stream is sound");
        left.deliver(now, &back).expect("the stream is sound");
        left.session.on_acked(left.offset);
        right.session.on_acked(right.offset);
    }
    segments
}

fn config(id: u64) -> SessionConfig {
    SessionConfig { nonce: 1000 + id, seed: id, ..SessionConfig::new(EntityName::osd(id)) }
}

fn pair_with(left: SessionConfig, right: SessionConfig) -> (Side, Side) {
    let (mut left, mut right) = (Side::new(left), Side::new(right));
    left.establish(Instant::ZERO);
    right.establish(Instant::ZERO);
    settle(Instant::ZERO, &mut left, &mut right, 10);
    assert!(matches!(left.events[..], [SessionEvent::Ready(_)]));
    assert!(matches!(right.events[..], [SessionEvent::Ready(_)]));
    (left, right)
}

fn pair() -> (Side, Side) {
    pair_with(config(1), config(2))
}

/// The chunks of a segment: header and payload. A segment holds whole chunks only.
fn chunks(mut segment: &[u8]) -> Vec<(ChunkHeader, Vec<u8>)> {
    let mut chunks = Vec::new();
    while !segment.is_empty() {
        let (head, rest) = segment.split_first_chunk::<CHUNK_HEADER_BYTES>().expect("a whole header");
        let header = ChunkHeader::decode(head).unwrap();
        let (payload, rest) = rest.split_at_checked(header.length as usize).expect("a whole chunk");
        chunks.push((header, payload.to_vec()));
        segment = rest;
    }
    chunks
}

fn kinds(segment: &[u8]) -> Vec<ChunkKind> {
    chunks(segment).iter().map(|(header, _)| header.kind).collect()
}

fn big(priority: u8, length: usize) -> Message {
    Message::new(1, vec![priority; length]).with_priority(priority)
}

#[test]
fn both_sides_are_ready_after_two_segments_each() {
    let (mut left, mut right) = (Side::new(config(1)), Side::new(config(2)));
    left.establish(Instant::ZERO);
    right.establish(Instant::ZERO);
    assert_eq!(settle(Instant::ZERO, &mut left, &mut right, 10), 2, "hello and ready cross");
    let SessionEvent::Ready(peer) = &left.events[0] else { panic!("not ready") };
    assert_eq!((peer.name, peer.nonce), (EntityName::osd(2), 1002));
    assert_eq!(left.session.peer().map(|peer| peer.name), Some(EntityName::osd(2)));
    assert_eq!(left.session.next_demand(), None, "the time limit is off");
}

#[test]
fn bytes_that_come_with_the_end_of_the_transports_handshake_do_not_put_ready_before_the_banner() {
    let (mut left, mut right) = (Side::new(config(1)), Side::new(config(2)));
    left.establish(Instant::ZERO);
    let hello = left.segment(Instant::ZERO);
    right.deliver(Instant::ZERO, &hello).unwrap();
    right.establish(Instant::ZERO);
    settle(Instant::ZERO, &mut left, &mut right, 10);
    assert!(matches!(left.events[..], [SessionEvent::Ready(_)]));
    assert!(matches!(right.events[..], [SessionEvent::Ready(_)]));
}

#[test]
fn a_message_given_before_the_handshake_leaves_with_the_ready() {
    let (mut left, mut right) = (Side::new(config(1)), Side::new(config(2)));
    left.session.send(Message::new(5, &b"early"[..])).unwrap();
    left.establish(Instant::ZERO);
    right.establish(Instant::ZERO);
    settle(Instant::ZERO, &mut left, &mut right, 10);
    assert_eq!(right.messages, [Message::new(5, &b"early"[..])]);
}

#[test]
fn a_segment_holds_whole_chunks_and_small_messages_share_it() {
    let (mut left, _) = pair();
    for tid in 0..100 {
        left.session.send(Message::new(1, vec![0; 50]).with_tid(tid)).unwrap();
    }
    let segment = left.segment(Instant::ZERO);
    assert_eq!(chunks(&segment).len(), SEGMENT / (CHUNK_HEADER_BYTES + MESSAGE_HEADER_BYTES + 50));
    let mut sizes = Vec::new();
    loop {
        let segment = left.segment(Instant::ZERO);
        if segment.is_empty() {
            break;
        }
        chunks(&segment);
        sizes.push(segment.len());
    }
    assert!(sizes.len() < 10);
}

#[test]
fn a_tail_too_small_for_a_piece_stays_empty() {
    let (mut left, _) = pair();
    left.session.send(big(127, 1300)).unwrap();
    left.session.send(big(127, 1300)).unwrap();
    let first = left.segment(Instant::ZERO);
    assert_eq!(chunks(&first).len(), 2, "1340 bytes, and 108 left");
    let (mut left, _) = pair();
    left.session.send(big(127, 1350)).unwrap();
    left.session.send(big(127, 1300)).unwrap();
    let first = left.segment(Instant::ZERO);
    assert_eq!(chunks(&first).len(), 1, "1390 bytes, and 58 left");
}

#[test]
fn a_higher_lane_goes_first_in_the_middle_of_a_large_message() {
    let (mut left, mut right) = pair();
    left.session.send(big(priority::LOW, 100_000)).unwrap();
    for _ in 0..5 {
        let segment = left.segment(Instant::ZERO);
        right.deliver(Instant::ZERO, &segment).unwrap();
    }
    left.session.send(big(priority::DEFAULT, 3000)).unwrap();
    left.session.send(big(priority::HIGHEST, 10)).unwrap();
    left.session.send(big(priority::HIGH, 2000)).unwrap();
    settle(Instant::ZERO, &mut left, &mut right, 1000);
    let order: Vec<u8> = right.messages.iter().map(|message| message.priority).collect();
    assert_eq!(order, [255, 196, 127, 64]);
    assert!(
        right.messages.iter().all(|message| message.payload.iter().all(|byte| *byte == message.priority))
    );
}

#[test]
fn an_oob_message_leads_the_next_segment_whatever_is_queued() {
    let (mut left, mut right) = pair();
    for _ in 0..64 {
        left.session.send(big(255, 1 << 20)).unwrap();
    }
    left.ping(Instant::ZERO, 1, 10 * MS);
    left.segment(Instant::ZERO);
    let due = left.session.next_demand().unwrap();
    assert_eq!(left.session.demand(due), Demand::Urgent);
    let segment = left.segment(due);
    assert_eq!(kinds(&segment), [ChunkKind::Oob, ChunkKind::Message]);
    assert_eq!(segment.len(), SEGMENT, "the rest of the segment is put to use");
    let (header, payload) = &chunks(&segment)[0];
    let report = OobPayload::decode(header.id, &Bytes::from(payload.clone())).unwrap().report;
    assert_eq!(report.departed_at, due);
    assert_eq!(report.waited, Duration::ZERO);
    assert_eq!(report.send.bytes_in_flight, 777, "as the transport said at this cut");
    let lane = report.send.lanes[3];
    assert_eq!(lane.messages, 64);
    assert_eq!(lane.bytes, 64 * ((1 << 20) + 16) - (SEGMENT - CHUNK_HEADER_BYTES) as u64);
    assert_eq!(left.session.next_demand(), Some(due + 10 * MS));
    let _ = &mut right;
}

#[test]
fn a_segment_beyond_the_congestion_window_carries_nothing_but_the_oob_message() {
    let (mut left, _) = pair();
    left.session.send(big(255, 10_000)).unwrap();
    left.session.send_keepalive();
    left.ping(Instant::ZERO, 1, 10 * MS);
    let due = left.session.next_demand().unwrap();
    assert_eq!(kinds(&left.segment_with(due, SEGMENT, true)), [ChunkKind::Oob]);
    assert_eq!(left.segment_with(due, SEGMENT, true), []);
    assert_eq!(left.session.demand(due), Demand::Data);
}

#[test]
fn control_goes_after_oob_and_before_messages() {
    let (mut left, mut right) = pair();
    left.session.send(big(255, 10_000)).unwrap();
    left.session.send_keepalive();
    left.ping(Instant::ZERO, 1, 10 * MS);
    let due = left.session.next_demand().unwrap();
    let segment = left.segment(due);
    assert_eq!(kinds(&segment), [ChunkKind::Oob, ChunkKind::Keepalive, ChunkKind::Message]);
    right.deliver(due, &segment).unwrap();
    left.deliver(due + 3 * MS, &right.segment(due)).unwrap();
    assert!(left.events.contains(&SessionEvent::KeepaliveAck(3 * MS)));
}

#[test]
fn a_stopped_consumer_stops_messages_but_not_heartbeats_and_every_ping_shows_it() {
    let window = 64 << 10;
    let right_config = SessionConfig { receive_credit_bytes: window, ..config(2) };
    let (mut left, mut right) = pair_with(config(1), right_config);
    right.consumes = false;
    for _ in 0..100 {
        left.session.send(big(127, 4080)).unwrap();
    }
    left.ping(Instant::ZERO, 1, 10 * MS);
    right.ping(Instant::ZERO, 1, 10 * MS);
    let start = Instant::from_millis(1);
    settle(start, &mut left, &mut right, 1000);
    assert_eq!(right.messages.len(), 16, "the window's worth");
    assert_eq!(left.session.demand(start), Demand::Nothing);
    assert_eq!(left.session.send_report(&SendState::default()).blocked, Blocked::Credit);
    for turn in 1..=5u32 {
        settle(start + turn * 10 * MS, &mut left, &mut right, 1000);
    }
    let (from_left, from_right) = (&right.oobs.last().unwrap().report, &left.oobs.last().unwrap().report);
    assert!(right.oobs.len() >= 5 && left.oobs.len() >= 5);
    assert_eq!(from_left.send.blocked, Blocked::Credit);
    assert_eq!(from_left.send.unsent_messages, 84);
    assert_eq!(from_right.receive.undispatched_messages, 16);
    assert_eq!(from_right.receive.undispatched_bytes, window);
    assert_eq!(from_right.receive.credit_left, 0);
    assert_eq!(from_right.receive.oldest_age, from_right.departed_at.since(start));
    // The consumer is back: a quarter freed is granted again.
    right.consumes = true;
    let later = start + Duration::from_secs(1);
    right.session.dispatched(3);
    assert_eq!(right.session.demand(later), Demand::Urgent, "pings only");
    settle(later, &mut left, &mut right, 1000);
    assert_eq!(right.messages.len(), 16);
    right.session.dispatched(1);
    settle(later, &mut left, &mut right, 1000);
    assert_eq!(right.messages.len(), 100);
}

#[test]
fn a_message_larger_than_the_receive_credit_gets_through() {
    let right_config = SessionConfig { receive_credit_bytes: 16 << 10, ..config(2) };
    let (mut left, mut right) = pair_with(config(1), right_config);
    right.consumes = false;
    left.session.send(big(127, 1 << 20)).unwrap();
    for _ in 0..100 {
        left.session.send(big(127, 1008)).unwrap();
    }
    settle(Instant::ZERO, &mut left, &mut right, 10_000);
    let taken = right.messages.len();
    assert!((1..=17).contains(&taken), "the message, and at most a window's worth besides");
    right.session.dispatched(1);
    settle(Instant::ZERO, &mut left, &mut right, 10_000);
    let taken = right.messages.len();
    assert!(
        (13..=18).contains(&taken),
        "{taken} messages: a window's worth, give or take a quarter and the one in progress"
    );
    right.session.dispatched(taken as u64 - 1);
    right.consumes = true;
    settle(Instant::ZERO, &mut left, &mut right, 10_000);
    assert_eq!(right.messages.len(), 101);
}

#[test]
fn a_side_with_nothing_registered_echoes_once_and_is_not_echoed_in_turn() {
    let (mut left, mut right) = pair();
    left.ping(Instant::ZERO, 1, 10 * MS);
    let due = left.session.next_demand().unwrap();
    let ping = left.segment(due);
    right.deliver(due + MS, &ping).unwrap();
    assert_eq!(right.session.demand(due + 3 * MS), Demand::Urgent);
    let echo = right.segment(due + 3 * MS);
    assert_eq!(kinds(&echo), [ChunkKind::Oob]);
    assert_eq!(right.segment(due + 3 * MS), []);
    left.deliver(due + 4 * MS, &echo).unwrap();
    assert_eq!(left.segment(due + 4 * MS), [], "an echo is not echoed");
    let echo = left.oobs[0].report.echo.unwrap();
    assert_eq!((echo.sequence, echo.departed_at, echo.held), (1, due, 2 * MS));
    assert!(left.oobs[0].parts.is_empty());
    let round_trip = left.oobs[0].arrived_at.since(echo.departed_at).saturating_sub(echo.held);
    assert_eq!(round_trip, 2 * MS);
}

#[test]
fn where_both_sides_ping_the_echoes_ride_in_the_pings() {
    let (mut left, mut right) = pair();
    left.ping(Instant::ZERO, 1, 10 * MS);
    right.ping(Instant::ZERO, 1, 10 * MS);
    for tenth in 0..1000 {
        settle(Instant::from_micros(100 * tenth), &mut left, &mut right, 100);
    }
    let (sent, parts) = (left.session.oob_statistics().sent, left.session.oob_statistics().parts_sent);
    assert!((9..=10).contains(&parts), "{parts} turns in 100 ms");
    assert!(sent <= parts + 1, "{sent} messages for {parts} parts; only the first echo is on its own");
    assert!(left.oobs.iter().skip(1).all(|oob| oob.report.echo.is_some()));
}

/// A segment with a ping at its head, and what came before it.
fn ping_behind_data(left: &mut Side) -> (Vec<u8>, Vec<u8>, Instant) {
    left.session.send(big(127, 2000)).unwrap();
    left.ping(Instant::ZERO, 1, 10 * MS);
    let data = left.segment(Instant::ZERO);
    let due = left.session.next_demand().unwrap();
    let ping = left.segment(due);
    assert_eq!(kinds(&ping), [ChunkKind::Oob, ChunkKind::Message]);
    (data, ping, due)
}

#[test]
fn a_ping_behind_a_lost_segment_is_delivered_at_once_and_only_once() {
    let (mut left, mut right) = pair();
    let (data, ping, due) = ping_behind_data(&mut left);
    for _ in 0..2 {
        assert!(right.session.peek_ahead(due, &ping));
        right.collect();
    }
    assert_eq!(right.oobs.len(), 1, "ahead of the gap, and not again when the segment is duplicated");
    assert!(right.oobs[0].ahead_of_gap);
    assert!(right.messages.is_empty());
    right.deliver(due + MS, &[data, ping].concat()).unwrap();
    assert_eq!((right.oobs.len(), right.messages.len()), (1, 1));
    let statistics = right.session.oob_statistics();
    assert_eq!((statistics.ahead_of_gap, statistics.duplicates, statistics.received), (1, 2, 1));
}

#[test]
fn a_damaged_ping_ahead_of_a_gap_is_left_for_its_turn() {
    let (mut left, mut right) = pair();
    let (_, mut ping, due) = ping_behind_data(&mut left);
    ping[60] ^= 1;
    assert!(!right.session.peek_ahead(due, &ping));
    right.collect();
    assert!(right.oobs.is_empty() && right.events.len() == 1, "no event but Ready");
}

#[test]
fn a_stranger_is_told_from_its_first_bytes() {
    let mut side = Side::new(config(1));
    side.establish(Instant::ZERO);
    let error = side.deliver(Instant::ZERO, b"GET / HTTP/1.1\r\n\r\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"the peer does not speak Outrider: its stream begins with "GET / HTTP/1.1\r\n""#
    );
    assert_eq!(side.events, [SessionEvent::Fault(error)]);
    assert_eq!(side.session.directive(), Directive::Abort);
    let mut patient = Side::new(config(1));
    patient.establish(Instant::ZERO);
    patient.deliver(Instant::ZERO, &MAGIC[..3]).unwrap();
    assert!(patient.deliver(Instant::ZERO, b"x").is_err());
}

#[test]
fn a_lacking_feature_is_refused_and_the_peer_is_told_why() {
    let lacking = SessionConfig { supported: Features::OOB, required: Features::NONE, ..config(1) };
    let (mut left, mut right) = (Side::new(lacking), Side::new(config(2)));
    left.establish(Instant::ZERO);
    right.establish(Instant::ZERO);
    settle(Instant::ZERO, &mut left, &mut right, 10);
    assert_eq!(right.events, [SessionEvent::Fault(SessionError::PeerLacksFeatures(Features::CREDIT))]);
    assert_eq!(left.events, [SessionEvent::Fault(SessionError::PeerRequiresFeatures(Features::CREDIT))]);
    assert!(left.session.finished() && right.session.finished(), "both end in order");
}

#[test]
fn unknown_features_are_tolerated_as_long_as_they_are_not_required() {
    let future = Features(1 << 40);
    let newer = SessionConfig { supported: Features(Features::KNOWN.0 | future.0), ..config(1) };
    let (_, right) = pair_with(newer.clone(), config(2));
    assert!(right.session.peer().unwrap().features.contains(future));
    let (mut left, mut right) =
        (Side::new(SessionConfig { required: future, ..newer }), Side::new(config(2)));
    left.establish(Instant::ZERO);
    right.establish(Instant::ZERO);
    settle(Instant::ZERO, &mut left, &mut right, 10);
    assert_eq!(right.events, [SessionEvent::Fault(SessionError::PeerRequiresFeatures(future))]);
}

#[test]
fn a_peer_without_oob_is_served_without_it() {
    let without = SessionConfig { supported: Features::CREDIT, ..config(2) };
    let (mut left, mut right) = pair_with(config(1), without);
    left.ping(Instant::ZERO, 1, 10 * MS);
    assert_eq!(left.session.next_demand(), None);
    left.session.send(Message::new(1, &b"hello"[..])).unwrap();
    settle(Instant::from_millis(100), &mut left, &mut right, 10);
    assert_eq!((right.messages.len(), right.oobs.len()), (1, 0));
}

/// A side that has the peer's banner and Hello, as raw bytes of the handshake that follow.
fn handshake_error(bytes: &[u8]) -> SessionError {
    let mut side = Side::new(config(1));
    side.establish(Instant::ZERO);
    let banner = Banner { version: VERSION, supported: Features::KNOWN, required: Features::NONE };
    let stream = [&banner.encode()[..], bytes].concat();
    let _ = side.deliver(Instant::ZERO, &stream);
    match side.events[..] {
        [SessionEvent::Fault(error)] => error,
        ref other => panic!("expected a fault, got {other:?}"),
    }
}

fn chunk(kind: ChunkKind, payload: &[u8]) -> Vec<u8> {
    [&ChunkHeader::whole(kind, 0, payload).encode()[..], payload].concat()
}

fn hello(receive_credit_bytes: u64) -> Vec<u8> {
    let hello = Hello {
        name: EntityName::client(1),
        nonce: 1,
        addresses: Vec::new(),
        receive_credit_bytes,
        message_bytes_max: 1000,
    };
    chunk(ChunkKind::Hello, &hello.encode())
}

#[test]
fn handshakes_out_of_order_or_unacceptable_have_errors_of_their_own() {
    let message = chunk(ChunkKind::Keepalive, &encode_u64(0));
    assert!(matches!(
        handshake_error(&message),
        SessionError::UnexpectedChunk { kind: ChunkKind::Keepalive, phase: "awaiting Hello" }
    ));
    assert!(matches!(
        handshake_error(&[hello(1 << 20), hello(1 << 20)].concat()),
        SessionError::UnexpectedChunk { kind: ChunkKind::Hello, phase: "awaiting Auth" }
    ));
    assert_eq!(handshake_error(&hello(100)), SessionError::UnusableLimits { credit_bytes: 100 });
    let method = chunk(ChunkKind::Auth, &[7, 0]);
    assert_eq!(handshake_error(&[hello(1 << 20), method].concat()), SessionError::AuthMethod(7));
    assert!(matches!(
        handshake_error(&chunk(ChunkKind::Hello, &[4])),
        SessionError::Codec(CodecError::Malformed { .. })
    ));
    let early = Message::new(1, Bytes::new());
    let header =
        crate::codec::MessageHeader { kind: 1, priority: early.priority, length: 0, tid: 0 }.encode();
    let chunk = ChunkHeader { lane: 1, ..ChunkHeader::whole(ChunkKind::Message, 0, &header) };
    assert!(matches!(
        handshake_error(&[&chunk.encode()[..], &header].concat()),
        SessionError::UnexpectedChunk { kind: ChunkKind::Message, .. }
    ));
}

#[test]
fn a_peer_that_never_answers_is_given_up_in_time() {
    let mut side = Side::new(config(1));
    side.establish(Instant::ZERO);
    side.segment(Instant::ZERO);
    let limit = side.session.next_demand().unwrap();
    assert_eq!(limit, Instant::ZERO + side.session.config.handshake_timeout);
    assert_eq!(side.session.demand(limit), Demand::Data, "Close is to be sent");
    assert_eq!(kinds(&side.segment(limit)), [ChunkKind::Close]);
    side.collect();
    assert_eq!(side.events, [SessionEvent::Fault(SessionError::HandshakeTimeout)]);
    assert!(side.session.finished());
    let linger = side.session.next_demand().unwrap();
    side.session.demand(linger);
    assert_eq!(side.session.directive(), Directive::Abort);
}

#[test]
fn an_orderly_close_drops_what_was_not_cut_and_ends_both_streams() {
    let (mut left, mut right) = pair();
    for _ in 0..10 {
        left.session.send(big(127, 1000)).unwrap();
    }
    let first = left.segment(Instant::ZERO);
    left.session.close(Instant::ZERO, CloseCode::Finished);
    assert!(left.session.send(big(127, 1)).is_err());
    assert_eq!(left.session.take_released().messages, 9);
    assert!(!left.session.finished());
    let last = left.segment(Instant::ZERO);
    assert_eq!(kinds(&last), [ChunkKind::Close]);
    assert!(left.session.finished());
    right.deliver(Instant::ZERO, &[first, last].concat()).unwrap();
    assert_eq!(right.messages.len(), 1);
    assert_eq!(right.events.last(), Some(&SessionEvent::PeerClosed(Some(CloseCode::Finished))));
    assert!(right.session.finished());
    left.session.on_peer_finished(Instant::ZERO);
    left.collect();
    assert_ne!(left.events.last(), Some(&SessionEvent::Ended), "the peer has not acknowledged everything");
    left.session.on_acked(left.offset);
    left.collect();
    assert_eq!(left.events.last(), Some(&SessionEvent::Ended));
    assert_eq!(left.session.next_demand(), None, "no reset follows");
    assert_eq!(right.session.demand(Instant::ZERO), Demand::Nothing);
}

#[test]
fn the_send_budget_is_released_by_acknowledgement_of_the_last_byte() {
    let (mut left, _) = pair();
    left.session.take_released();
    left.session.send(big(127, 3000)).unwrap();
    left.session.send(big(127, 10)).unwrap();
    let before = left.offset;
    let mut ends = Vec::new();
    while left.session.demand(Instant::ZERO) != Demand::Nothing {
        left.segment(Instant::ZERO);
        ends.push(left.offset);
    }
    left.session.on_acked(before);
    left.session.on_acked(*ends.last().unwrap() - 1);
    assert_eq!(left.session.take_released(), Released { messages: 1, payload_bytes: 3000 });
    left.session.on_acked(*ends.last().unwrap());
    assert_eq!(left.session.take_released(), Released { messages: 1, payload_bytes: 10 });
    assert_eq!(left.session.bytes_in_flight(), 0);
}

#[test]
fn a_message_that_the_peer_does_not_take_is_left_out_and_counted() {
    let small = SessionConfig { message_bytes_max: 100, ..config(2) };
    let (mut left, mut right) = pair_with(config(1), small);
    left.session.send(big(127, 101)).unwrap();
    left.session.send(big(127, 100)).unwrap();
    settle(Instant::ZERO, &mut left, &mut right, 10);
    assert_eq!(right.messages.len(), 1);
    assert_eq!(left.session.statistics().messages_refused, 1);
}

#[test]
fn a_corrupt_stream_ends_the_session_with_a_typed_error() {
    let (mut left, mut right) = pair();
    left.session.send(big(127, 1000)).unwrap();
    let mut segment = left.segment(Instant::ZERO);
    segment[200] ^= 1;
    let error = right.deliver(Instant::ZERO, &segment).unwrap_err();
    assert!(matches!(error, SessionError::Codec(CodecError::PayloadCorrupt { .. })));
    assert!(right.messages.is_empty());
    assert_eq!(right.session.directive(), Directive::Abort);
}

#[test]
fn rules_of_an_open_session_are_enforced() {
    let refused = |bytes: &[u8]| pair().1.deliver(Instant::ZERO, bytes).unwrap_err();
    assert!(matches!(refused(&chunk(ChunkKind::Credit, &encode_u64(1))), SessionError::CreditShrunk { .. }));
    assert!(matches!(refused(&chunk(ChunkKind::Ready, &[])), SessionError::UnexpectedChunk { .. }));
    let oob = chunk(ChunkKind::Oob, &OobPayload { report: Default::default(), parts: Vec::new() }.encode());
    assert_eq!(refused(&oob), SessionError::OobSequence { sequence: 0, last: 0 });
}

#[test]
fn each_piece_of_a_super_segment_begins_with_a_chunk() {
    let (mut left, mut right) = pair();
    for length in [200_000, 3, 700, 100_000] {
        left.session.send(big(127, length)).unwrap();
    }
    let mut stream = VecDeque::new();
    let mut boundaries = 0;
    while left.session.demand(Instant::ZERO) != Demand::Nothing {
        let super_segment = left.segment_with(Instant::ZERO, 20 * SEGMENT, false);
        for piece in super_segment.chunks(SEGMENT) {
            let head = piece.first_chunk::<CHUNK_HEADER_BYTES>().map(ChunkHeader::decode);
            boundaries += usize::from(!matches!(head, Some(Ok(_))));
        }
        stream.extend(super_segment);
    }
    assert!(boundaries <= 4, "{boundaries} pieces begin inside a chunk; only a short tail may cause that");
    right.deliver(Instant::ZERO, stream.make_contiguous()).unwrap();
    assert_eq!(right.messages.len(), 4);
}

#[test]
fn a_decoder_sees_what_a_session_sent() {
    let (mut left, _) = pair();
    left.session.send(big(200, 5000).with_tid(7)).unwrap();
    let mut decoder = Decoder::new(DecoderLimits { message_bytes_max: 5000, credit_limit: 1 << 20 });
    let mut found = None;
    while left.session.demand(Instant::ZERO) != Demand::Nothing {
        let segment = left.segment(Instant::ZERO);
        let (header, _) = &chunks(&segment)[0];
        assert_eq!(header.flags & FLAG_FIRST != 0, found.is_none() && decoder.spent() == 0);
        let mut bytes = &segment[..];
        found = decoder.decode(&mut bytes).unwrap();
    }
    let Some(Decoded::Message { message, id: 0, credit_bytes: 5016 }) = found else { panic!("{found:?}") };
    assert_eq!(message, big(200, 5000).with_tid(7));
}
