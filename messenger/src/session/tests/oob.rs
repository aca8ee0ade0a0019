use super::*;

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
    assert_eq!(left.oobs[0].round_trip(), Some(2 * MS));
    assert_eq!(right.oobs[0].round_trip(), None, "it had sent nothing that could be echoed");
    assert_eq!(left.session.heartbeat_rtt(), Some(2 * MS));
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
