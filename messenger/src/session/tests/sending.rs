use super::*;

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
    left.session.on_acked(Instant::ZERO, before);
    left.session.on_acked(Instant::ZERO, *ends.last().unwrap() - 1);
    assert_eq!(left.session.take_released(), Released { messages: 1, payload_bytes: 3000 });
    left.session.on_acked(Instant::ZERO, *ends.last().unwrap());
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

#[test]
fn an_idle_session_closes_and_has_the_time_of_a_close_from_then_on() {
    let idle_timeout = Some(Duration::from_secs(1));
    let (mut left, _) = pair_with(SessionConfig { idle_timeout, ..config(1) }, config(2));
    let now = left.session.next_demand().expect("idleness is looked at");
    assert_eq!(kinds(&left.segment(now)), [ChunkKind::Close]);
    left.collect();
    assert_eq!(left.events.last(), Some(&SessionEvent::Fault(SessionError::Idle)));
    assert_eq!(left.session.next_demand(), Some(now + Duration::from_secs(1)), "the linger of a close");
    assert_eq!(left.session.directive(), Directive::Continue);
    left.segment(now + Duration::from_secs(1));
    assert_eq!(left.session.directive(), Directive::Abort);
}

#[test]
fn a_connection_that_its_session_has_left_is_not_looked_at_for_idleness() {
    let idle_timeout = Some(Duration::from_secs(1));
    let (mut left, _) = pair_with(SessionConfig { idle_timeout, ..config(1) }, config(2));
    let looked_at = left.session.next_demand().expect("idleness is looked at");
    left.session.release();
    assert_eq!(left.session.next_demand(), None);
    assert!(left.segment(looked_at).is_empty());
    assert_eq!(left.session.directive(), Directive::Continue);
}

#[test]
fn what_a_kernel_takes_at_a_time_is_one_chunk() {
    const AT_A_TIME: usize = 192_000;
    let (mut left, mut right) = (Side::new(config(1)), Side::accepting(config(2)));
    left.establish_with(Instant::ZERO, AT_A_TIME);
    right.establish_with(Instant::ZERO, AT_A_TIME);
    settle(Instant::ZERO, &mut left, &mut right, 10);
    left.session.send(big(127, 1 << 20)).unwrap();
    let written = left.segment_with(Instant::ZERO, AT_A_TIME, false);
    assert_eq!(
        chunks(&written).iter().map(|(_, payload)| payload.len()).max(),
        Some(AT_A_TIME - CHUNK_HEADER_BYTES)
    );
}
