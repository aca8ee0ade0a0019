use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::features::Features;
use crate::message::{LANES, Message, lane_of};
use crate::name::EntityName;
use crate::oob::{OobOp, OobPart};
use crate::report::{Echo, PingReport};
use core::time::Duration;
use outrider_stack::tcp::source::Blocked;
use outrider_stack::time::Instant;

const LIMITS: DecoderLimits = DecoderLimits { message_bytes_max: 1 << 20, credit_limit: 1 << 24 };

/// A message as chunks of at most `piece` bytes of payload.
fn message_chunks(message: &Message, id: u64, piece: usize) -> Vec<Vec<u8>> {
    let header = MessageHeader {
        kind: message.kind,
        priority: message.priority,
        length: message.payload.len() as u32,
        tid: message.tid,
    };
    let content = [&header.encode()[..], &message.payload].concat();
    let count = content.len().div_ceil(piece);
    let chunk = |(index, payload): (usize, &[u8])| {
        let header = ChunkHeader {
            flags: if index == 0 { FLAG_FIRST } else { 0 } | if index + 1 == count { FLAG_LAST } else { 0 },
            lane: lane_of(message.priority) as u8,
            ..ChunkHeader::whole(ChunkKind::Message, id, payload)
        };
        [&header.encode()[..], payload].concat()
    };
    content.chunks(piece).enumerate().map(chunk).collect()
}

fn whole(kind: ChunkKind, id: u64, payload: &[u8]) -> Vec<u8> {
    [&ChunkHeader::whole(kind, id, payload).encode()[..], payload].concat()
}

/// Feeds `stream` in pieces that end at `cuts`.
fn decode_all(limits: DecoderLimits, stream: &[u8], cuts: &[usize]) -> (Vec<Decoded>, Option<CodecError>) {
    let mut decoder = Decoder::new(limits);
    let mut units = Vec::new();
    let mut at = 0;
    for end in cuts.iter().copied().chain([stream.len()]) {
        let end = end.clamp(at, stream.len());
        let mut piece = &stream[at..end];
        at = end;
        loop {
            match decoder.decode(&mut piece) {
                Ok(Some(unit)) => units.push(unit),
                Ok(None) => break,
                Err(error) => return (units, Some(error)),
            }
        }
        assert!(piece.is_empty(), "the decoder takes everything");
    }
    (units, None)
}

fn first_error(stream: &[u8]) -> CodecError {
    decode_all(LIMITS, stream, &[]).1.expect("the stream is faulty")
}

fn sample_messages() -> Vec<Message> {
    vec![
        Message::new(7, vec![0xAB; 5000]).with_tid(99),
        Message::new(8, Bytes::new()).with_priority(255),
        Message::new(9, vec![1, 2, 3]).with_priority(10),
    ]
}

fn sample_stream() -> Vec<u8> {
    let mut stream = Vec::new();
    for message in sample_messages() {
        stream.extend(message_chunks(&message, 0, 1400).concat());
    }
    stream.extend(whole(ChunkKind::Keepalive, 0, &encode_u64(5)));
    stream
}

fn messages_of(units: &[Decoded]) -> Vec<Message> {
    let messages = units.iter().filter_map(|unit| match unit {
        Decoded::Message { message, .. } => Some(message.clone()),
        Decoded::Chunk { .. } => None,
    });
    messages.collect()
}

fn sample_report() -> PingReport {
    let mut report = PingReport {
        sequence: 12,
        departed_at: Instant::from_millis(77),
        waited: Duration::from_micros(3),
        echo: Some(Echo {
            sequence: 4,
            departed_at: Instant::from_millis(70),
            held: Duration::from_millis(2),
        }),
        ..PingReport::default()
    };
    report.send.unsent_bytes = 1;
    report.send.unsent_messages = 2;
    for (number, lane) in (0u64..).zip(&mut report.send.lanes) {
        (lane.bytes, lane.messages) = (100 + number, 200 + number);
    }
    report.send.bytes_in_flight = 3;
    report.send.send_budget_bytes = 4;
    report.send.oldest_unacked_age = Duration::from_nanos(5);
    report.send.retransmits = 6;
    report.send.congestion_window = 7;
    report.send.peer_window = 8;
    report.send.smoothed_rtt = Some(Duration::from_nanos(9));
    report.send.blocked = Blocked::Credit;
    report.receive.undispatched_bytes = 10;
    report.receive.undispatched_messages = 11;
    report.receive.oldest_age = Duration::from_nanos(12);
    report.receive.credit_left = 13;
    report
}

#[test]
fn a_message_comes_out_as_it_went_in_wherever_the_stream_is_divided() {
    let stream = sample_stream();
    for size in [1, 2, 23, 24, 25, 1447, stream.len()] {
        let cuts: Vec<usize> = (0..stream.len()).step_by(size).collect();
        let (units, error) = decode_all(LIMITS, &stream, &cuts);
        assert_eq!(error, None);
        assert_eq!(messages_of(&units), sample_messages(), "pieces of {size}");
    }
}

#[test]
fn messages_of_different_lanes_may_interleave() {
    let low = Message::new(1, vec![1; 3000]).with_priority(1);
    let high = Message::new(2, vec![2; 3000]).with_priority(200);
    let (low_chunks, high_chunks) = (message_chunks(&low, 0, 1000), message_chunks(&high, 0, 1000));
    let stream: Vec<u8> = low_chunks
        .iter()
        .zip(&high_chunks)
        .flat_map(|(low, high)| [low.clone(), high.clone()].concat())
        .collect();
    let (units, error) = decode_all(LIMITS, &stream, &[]);
    assert_eq!(error, None);
    assert_eq!(messages_of(&units), [low, high]);
}

#[test]
fn credit_is_spent_by_announcement_and_held_by_complete_messages() {
    let mut decoder = Decoder::new(DecoderLimits { message_bytes_max: 1000, credit_limit: 200 });
    let chunks = message_chunks(&Message::new(1, vec![0; 184]), 0, 100);
    decoder.decode(&mut &chunks[0][..]).unwrap();
    assert_eq!((decoder.spent(), decoder.completed()), (100, 0));
    decoder.decode(&mut &chunks[1][..]).unwrap();
    assert_eq!((decoder.spent(), decoder.completed()), (200, 200));
    let next = message_chunks(&Message::new(1, Bytes::new()), 1, 100).concat();
    assert_eq!(decoder.decode(&mut &next[..]), Err(CodecError::CreditExceeded { needed: 216, granted: 200 }));
}

#[test]
fn an_announced_giant_allocates_nothing_before_its_bytes_come() {
    let limits = DecoderLimits { message_bytes_max: u32::MAX, credit_limit: u64::MAX };
    let header = MessageHeader { kind: 1, priority: 127, length: u32::MAX - 16, tid: 0 };
    let chunk = ChunkHeader {
        kind: ChunkKind::Message,
        flags: FLAG_FIRST | FLAG_LAST,
        tag_length: 0,
        lane: 1,
        length: u32::MAX,
        id: 0,
        payload_crc: 0,
    };
    let mut decoder = Decoder::new(limits);
    let stream = [&chunk.encode()[..], &header.encode()].concat();
    assert_eq!(decoder.decode(&mut &stream[..]), Ok(None));
    assert!(decoder.buffered_capacity() <= 256 << 10);
}

#[test]
fn who_has_sent_much_is_given_room_for_as_much_at_once_within_its_credit() {
    let message = Message::new(1, vec![1; 1 << 20]);
    let mut decoder = Decoder::new(DecoderLimits { message_bytes_max: u32::MAX, credit_limit: 5 << 19 });
    let capacities: Vec<usize> = (0..3)
        .map(|id| {
            let chunks = message_chunks(&message, id, 4096);
            decoder.decode(&mut &chunks[0][..]).unwrap();
            let capacity = decoder.buffered_capacity();
            if id < 2 {
                decoder.decode(&mut &chunks[1..].concat()[..]).unwrap().expect("the message is whole");
            }
            capacity
        })
        .collect();
    // The credit left for the third is half a MiB, less what the headers of the first two took.
    assert_eq!(capacities, [256 << 10, 1 << 20, (1 << 19) - 2 * MESSAGE_HEADER_BYTES]);
}

/// Feeds `stream` in pieces of at most `most` bytes, each to its place where it has one; returns how many of the bytes
/// had.
fn decode_placing(stream: &[u8], most: usize) -> (Vec<Decoded>, usize, Option<CodecError>) {
    let mut decoder = Decoder::new(LIMITS);
    let (mut units, mut placed, mut rest) = (Vec::new(), 0, stream);
    while !rest.is_empty() {
        let (wanted, decoded) = match decoder.place() {
            Some((buffer, bytes_max)) => {
                let wanted = bytes_max.min(most).min(rest.len());
                assert!(buffer.capacity() - buffer.len() >= wanted);
                buffer.extend_from_slice(&rest[..wanted]);
                placed += wanted;
                (wanted, decoder.placed())
            }
            None => {
                let mut piece = &rest[..most.min(100).min(rest.len())];
                let before = piece.len();
                let decoded = decoder.decode(&mut piece);
                (before - piece.len(), decoded)
            }
        };
        rest = &rest[wanted..];
        match decoded {
            Ok(unit) => units.extend(unit),
            Err(error) => return (units, placed, Some(error)),
        }
    }
    (units, placed, None)
}

fn long_messages() -> Vec<Message> {
    let payload = |n: u32, length: u32| (0..length).map(|at| (at * n) as u8).collect::<Vec<u8>>();
    [400_000, 0, 3, 300_000]
        .into_iter()
        .zip(1..)
        .map(|(length, n)| Message::new(n as u16, payload(n, length)))
        .collect()
}

fn long_stream(chunk_bytes: usize) -> Vec<u8> {
    let messages = long_messages();
    let chunks = |(message, id)| message_chunks(message, id, chunk_bytes).concat();
    messages.iter().zip(0..).flat_map(chunks).collect()
}

#[test]
fn what_is_placed_comes_out_as_what_is_decoded() {
    for (chunk_bytes, most) in
        [(200_000, 1_000), (200_000, 199_900), (200_000, 200_100), (50_000, 4_096), (50_000, usize::MAX)]
    {
        let (units, placed, error) = decode_placing(&long_stream(chunk_bytes), most);
        let case = format!("chunks of {chunk_bytes} bytes, at most {most} at a time");
        assert_eq!(error, None, "{case}");
        assert!(messages_of(&units) == long_messages(), "{case}");
        // All of the two long ones, but for what comes with the header of a chunk.
        let heads = 100 * (700_000 / chunk_bytes + 2);
        assert!(placed > 700_000 - heads, "{placed} bytes were placed: {case}");
    }
}

#[test]
fn short_chunks_are_no_reason_to_read_little_at_a_time() {
    let (units, placed, error) = decode_placing(&long_stream(20_000), usize::MAX);
    assert_eq!((placed, error), (0, None));
    assert!(messages_of(&units) == long_messages());
}

#[test]
fn a_bit_that_flips_in_its_place_is_found() {
    let mut stream = long_stream(200_000);
    stream[50_000] ^= 4;
    let (units, _, error) = decode_placing(&stream, 5_000);
    assert!(units.is_empty());
    assert!(matches!(error, Some(CodecError::PayloadCorrupt { id: 0, .. })), "{error:?}");
}

#[test]
fn each_rule_broken_has_its_own_error() {
    let message = Message::new(1, vec![5; 300]);
    let chunks = message_chunks(&message, 0, 100);
    let header = |change: fn(&mut ChunkHeader)| {
        let payload = &chunks[0][CHUNK_HEADER_BYTES..];
        let mut header =
            ChunkHeader { flags: FLAG_FIRST, lane: 1, ..ChunkHeader::whole(ChunkKind::Message, 0, payload) };
        change(&mut header);
        [&header.encode()[..], payload].concat()
    };
    assert!(matches!(first_error(&header(|h| h.flags = 4)), CodecError::BadFlags { flags: 4, .. }));
    assert!(matches!(first_error(&header(|h| h.tag_length = 16)), CodecError::UnexpectedTag(16)));
    assert!(matches!(first_error(&header(|h| h.lane = 4)), CodecError::BadLane { lane: 4, .. }));
    assert!(matches!(first_error(&header(|h| h.lane = 2)), CodecError::BadLane { lane: 2, .. }));
    assert!(matches!(
        first_error(&header(|h| h.id = 1)),
        CodecError::OutOfSequence { expected: 0, id: 1, .. }
    ));
    assert!(matches!(first_error(&header(|h| h.flags = 0)), CodecError::BadStart { .. }));
    assert!(matches!(first_error(&header(|h| h.flags = 3)), CodecError::LengthMismatch { .. }));
    assert!(matches!(first_error(&header(|h| h.length = 15)), CodecError::Malformed { .. }));
    assert!(matches!(first_error(&header(|h| h.payload_crc ^= 1)), CodecError::PayloadCorrupt { .. }));
    assert!(matches!(first_error(&[&chunks[0][..], &chunks[0]].concat()), CodecError::BadStart { .. }));
    assert!(matches!(
        first_error(&[&chunks[0][..], &chunks[1], &chunks[2], &chunks[3], &chunks[3]].concat()),
        CodecError::OutOfSequence { .. }
    ));
    let long = MessageHeader { kind: 0, priority: 127, length: (1 << 20) + 1, tid: 0 }.encode();
    let long_chunk =
        ChunkHeader { flags: FLAG_FIRST, lane: 1, ..ChunkHeader::whole(ChunkKind::Message, 0, &long) };
    assert!(matches!(
        first_error(&[&long_chunk.encode()[..], &long].concat()),
        CodecError::MessageTooLong { .. }
    ));
    assert!(matches!(
        first_error(&whole(ChunkKind::Credit, 0, &[0; 257])),
        CodecError::PayloadTooLong { .. }
    ));
    let mut unknown = ChunkHeader::whole(ChunkKind::Ready, 0, &[]).encode();
    unknown[0] = 99;
    let crc = crc32c(&unknown[..20]);
    unknown[20..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(first_error(&unknown), CodecError::UnknownKind(99));
    unknown[21] ^= 1;
    assert!(matches!(first_error(&unknown), CodecError::HeaderCorrupt { .. }));
}

#[test]
fn handshake_payloads_come_out_as_they_went_in_and_longer_ones_are_read_as_far_as_known() {
    let hello = Hello {
        name: EntityName::osd(3),
        nonce: 77,
        addresses: vec!["10.0.0.1:6800".parse().unwrap(), "[fd00::1]:6801".parse().unwrap()],
        receive_credit_bytes: 1 << 24,
        message_bytes_max: 1 << 28,
    };
    let mut bytes = hello.encode();
    assert_eq!(Hello::decode(&bytes), Ok(hello.clone()));
    for length in 0..bytes.len() {
        assert!(Hello::decode(&bytes[..length]).is_err(), "{length} bytes are too few");
    }
    bytes.extend([1, 2, 3]);
    assert_eq!(Hello::decode(&bytes), Ok(hello));
    assert_eq!(Auth::decode(&[0, 0, 9]), Ok(Auth { method: 0 }));
    for code in [0, 1, 2, 3, 4, 5, 999] {
        let close = CloseCode::from_code(code);
        assert_eq!(CloseCode::decode(&encode_close(close)), Ok(close));
    }
}

#[test]
fn the_banner_is_refused_at_the_first_wrong_byte() {
    let banner = Banner { version: VERSION, supported: Features(0xF0F0), required: Features(1) };
    let bytes = banner.encode();
    assert_eq!(Banner::decode(&bytes), Ok(Some(banner)));
    assert_eq!(Banner::decode(&bytes[..31]), Ok(None));
    assert_eq!(Banner::decode(b"G"), Err(BannerError::NotOutrider));
    assert_eq!(Banner::decode(b"outridex"), Err(BannerError::NotOutrider));
    let mut other = bytes;
    other[8] = 3;
    assert_eq!(Banner::decode(&other[..10]), Err(BannerError::Version(3)));
    let mut corrupt = bytes;
    corrupt[13] ^= 0x10;
    assert_eq!(Banner::decode(&corrupt), Err(BannerError::Corrupt));
}

#[test]
fn every_figure_of_a_report_survives_the_wire() {
    let report = sample_report();
    let parts = vec![
        OobPart { op: OobOp::PING, bytes: Bytes::from_static(b"abc") },
        OobPart { op: OobOp(0x8001), bytes: Bytes::new() },
    ];
    let payload = OobPayload { report, parts };
    let bytes = Bytes::from(payload.encode());
    assert_eq!(bytes.len(), OOB_REPORT_BYTES + 2 * OOB_PART_HEADER_BYTES + 3);
    assert_eq!(OobPayload::decode(12, &bytes), Ok(payload));
    for length in (0..bytes.len()).filter(|length| ![OOB_REPORT_BYTES, OOB_REPORT_BYTES + 7].contains(length))
    {
        assert!(OobPayload::decode(12, &bytes.slice(..length)).is_err(), "{length} bytes are too few");
    }
}

#[test]
fn a_scan_ahead_takes_whole_intact_oob_chunks_at_the_start_and_nothing_else() {
    let oob =
        |id| whole(ChunkKind::Oob, id, &OobPayload { report: sample_report(), parts: Vec::new() }.encode());
    let message = message_chunks(&Message::new(1, vec![0; 10]), 0, 100).concat();
    let ids = |bytes: &[u8]| scan_ahead(bytes).map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(&[oob(4), oob(5), message.clone()].concat()), [4, 5]);
    assert_eq!(ids(&[message, oob(4)].concat()), []);
    assert_eq!(ids(&oob(4)[1..]), []);
    assert_eq!(ids(&oob(4)[..oob(4).len() - 1]), []);
    let mut corrupt = oob(4);
    corrupt[40] ^= 1;
    assert_eq!(ids(&corrupt), []);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(stream in prop::collection::vec(any::<u8>(), 0..600), cuts in prop::collection::vec(0usize..600, 0..5)) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        decode_all(LIMITS, &stream, &cuts);
        let _ = Banner::decode(&stream);
        let _ = Hello::decode(&stream);
        let _ = Auth::decode(&stream);
        let _ = CloseCode::decode(&stream);
        let _ = OobPayload::decode(1, &Bytes::from(stream.clone()));
        scan_ahead(&stream).count();
    }

    /// Behind valid headers too: the checksum is no protection against a peer that means it.
    #[test]
    fn arbitrary_chunks_with_valid_checksums_never_panic(
        chunks in prop::collection::vec(
            (prop::sample::select(vec![1u8, 2, 3, 4, 5, 6, 7, 8, 16, 16, 16]), 0u8..4, 0u8..5, 0u64..3, 0u32..80, prop::collection::vec(any::<u8>(), 0..64)),
            0..12,
        ),
    ) {
        let mut stream = Vec::new();
        for (kind, flags, lane, id, length, payload) in chunks {
            let header = ChunkHeader {
                kind: ChunkKind::from_code(kind).unwrap(),
                flags,
                tag_length: 0,
                lane,
                length: if length < 64 { payload.len() as u32 } else { length },
                id,
                payload_crc: crc32c(&payload),
            };
            stream.extend(header.encode());
            stream.extend(payload);
        }
        for unit in decode_all(LIMITS, &stream, &[]).0 {
            if let Decoded::Chunk { kind: ChunkKind::Oob, id, payload } = unit {
                let _ = OobPayload::decode(id, &payload);
            }
        }
    }

    #[test]
    fn a_flipped_bit_gives_an_error_or_the_same_content(bit in 0usize..8 * 5300, cut in 0usize..5300) {
        let mut stream = sample_stream();
        let bit = bit % (stream.len() * 8);
        stream[bit / 8] ^= 1 << (bit % 8);
        let (units, error) = decode_all(LIMITS, &stream, &[cut]);
        let (expected, _) = decode_all(LIMITS, &sample_stream(), &[]);
        // A length that grew may leave the decoder waiting for more: that is neither an error nor content.
        prop_assert!(error.is_some() || units.len() < expected.len());
        prop_assert_eq!(&units[..], &expected[..units.len()]);
    }

    #[test]
    fn messages_of_all_lanes_round_trip_in_any_chunking(
        messages in prop::collection::vec((any::<u16>(), any::<u8>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..500)), 1..12),
        piece in 16usize..200,
        cuts in prop::collection::vec(0usize..8000, 0..20),
    ) {
        let messages: Vec<Message> = messages
            .into_iter()
            .map(|(kind, priority, tid, payload)| Message::new(kind, payload).with_priority(priority).with_tid(tid))
            .collect();
        let mut ids = [0u64; LANES];
        let mut stream = Vec::new();
        for message in &messages {
            let id = &mut ids[lane_of(message.priority)];
            stream.extend(message_chunks(message, *id, piece).concat());
            *id += 1;
        }
        let mut cuts = cuts;
        cuts.sort_unstable();
        let (units, error) = decode_all(LIMITS, &stream, &cuts);
        prop_assert_eq!(error, None);
        prop_assert_eq!(messages_of(&units), messages);
    }
}

#[test]
fn nothing_is_held_between_chunks_however_they_came() {
    let stream = whole(ChunkKind::Keepalive, 0, &encode_u64(5));
    for at in 1..stream.len() {
        let mut decoder = Decoder::new(DecoderLimits { message_bytes_max: 1000, credit_limit: 1000 });
        let (mut first, mut rest) = stream.split_at(at);
        assert_eq!(decoder.decode(&mut first), Ok(None));
        assert!(!decoder.is_at_rest() && !decoder.is_between_chunks());
        assert!(matches!(decoder.decode(&mut rest), Ok(Some(Decoded::Chunk { .. }))), "divided at {at}");
        assert!(decoder.is_at_rest() && decoder.is_between_chunks(), "divided at {at}");
    }
}
