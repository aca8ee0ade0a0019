use super::*;

#[test]
fn both_sides_are_ready_after_hello_answer_and_ready() {
    let (mut left, mut right) = (Side::new(config(1)), Side::accepting(config(2)));
    left.establish(Instant::ZERO);
    right.establish(Instant::ZERO);
    assert_eq!(settle(Instant::ZERO, &mut left, &mut right, 10), 3, "hellos cross, the answer, ready");
    let SessionEvent::Ready(peer) = &left.events[0] else { panic!("not ready") };
    assert_eq!((peer.name, peer.nonce), (EntityName::osd(2), 1002));
    assert_eq!(left.session.peer().map(|peer| peer.name), Some(EntityName::osd(2)));
    assert_eq!(left.session.next_demand(), None, "the time limit is off");
}

#[test]
fn bytes_that_come_with_the_end_of_the_transports_handshake_do_not_put_ready_before_the_banner() {
    let (mut left, mut right) = (Side::new(config(1)), Side::accepting(config(2)));
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
    let (mut left, mut right) = (Side::new(config(1)), Side::accepting(config(2)));
    left.session.send(Message::new(5, &b"early"[..])).unwrap();
    left.establish(Instant::ZERO);
    right.establish(Instant::ZERO);
    settle(Instant::ZERO, &mut left, &mut right, 10);
    assert_eq!(right.messages, [Message::new(5, &b"early"[..])]);
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
    let (mut left, mut right) = (Side::new(lacking), Side::accepting(config(2)));
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
        (Side::new(SessionConfig { required: future, ..newer }), Side::accepting(config(2)));
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
    left.session.on_acked(Instant::ZERO, left.offset);
    left.collect();
    assert_eq!(left.events.last(), Some(&SessionEvent::Ended));
    assert_eq!(left.session.next_demand(), None, "no reset follows");
    assert_eq!(right.session.demand(Instant::ZERO), Demand::Nothing);
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
fn a_close_waits_for_what_is_in_flight_as_long_as_the_peer_acknowledges() {
    let (mut left, _) = pair();
    left.session.send(big(127, 3000)).unwrap();
    let start = left.offset;
    for _ in 0..3 {
        left.segment(Instant::ZERO);
    }
    left.session.close(Instant::ZERO, CloseCode::Finished);
    left.segment(Instant::ZERO);
    let linger = left.session.config.close_linger;
    for step in 1..4u32 {
        let now = Instant::ZERO + step * (linger - MS);
        left.session.on_acked(now, start + u64::from(step));
        left.session.demand(now + (linger - MS));
        assert_eq!(left.session.directive(), Directive::Continue);
    }
    left.session.demand(left.session.next_demand().unwrap());
    assert_eq!(left.session.directive(), Directive::Abort, "an end to patience");
}
