//! The worked examples of `docs/wire-format.md`, byte for byte.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use outrider_messenger::codec::{
    AUTH_METHOD_NONE, Auth, BANNER_BYTES, Banner, CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, CloseCode,
    Decoded, Decoder, DecoderLimits, FLAG_FIRST, FLAG_LAST, Hello, MESSAGE_HEADER_BYTES, MessageHeader,
    OOB_PART_HEADER_BYTES, OOB_PAYLOAD_BYTES_MAX, OOB_REPORT_BYTES, OobPayload, SESSION_TERMS_BYTES,
    SessionTerms, VERSION, crc32c, decode_ack, decode_u64, encode_ack, encode_close, encode_u64,
};
use outrider_messenger::{
    Echo, EntityName, Features, LaneReport, Message, OobOp, OobPart, PingReport, ReceiveReport, SendReport,
};
use outrider_stack::tcp::source::Blocked;
use outrider_stack::time::Instant;

const DOCUMENT: &str = include_str!("../../docs/wire-format.md");

/// The blocks that begin with `# example: NAME`, as bytes. What follows a `;` explains.
fn examples() -> BTreeMap<&'static str, Vec<u8>> {
    let mut examples = BTreeMap::new();
    for block in DOCUMENT.split("```").skip(1).step_by(2) {
        let mut lines = block.lines().skip(1);
        let Some(name) = lines.next().and_then(|line| line.strip_prefix("# example: ")) else { continue };
        let digits = lines.filter_map(|line| line.split(';').next()).flat_map(str::split_whitespace);
        let bytes = digits.map(|digits| u8::from_str_radix(digits, 16).expect("two hex digits")).collect();
        assert!(examples.insert(name, bytes).is_none(), "example `{name}` is there twice");
    }
    examples
}

fn chunk(kind: ChunkKind, id: u64, payload: &[u8]) -> Vec<u8> {
    [&ChunkHeader::whole(kind, id, payload).encode()[..], payload].concat()
}

fn hello() -> Hello {
    Hello {
        name: EntityName::osd(3),
        nonce: 0x1122_3344_5566_7788,
        addresses: vec!["10.0.0.3:6800".parse().unwrap(), "[fd00::3]:6800".parse().unwrap()],
        receive_credit_bytes: 16 << 20,
        message_bytes_max: 256 << 20,
    }
}

fn message() -> Message {
    Message::new(7, &b"hello, outrider"[..]).with_tid(42)
}

/// The message in two chunks, the first with four bytes of its payload.
fn divided_message() -> Vec<u8> {
    let header = MessageHeader { kind: 7, priority: 127, length: 15, tid: 42 }.encode();
    let content = [&header[..], b"hello, outrider"].concat();
    let (first, last) = content.split_at(MESSAGE_HEADER_BYTES + 4);
    let part = |payload: &[u8], flags| {
        let header = ChunkHeader { flags, lane: 1, ..ChunkHeader::whole(ChunkKind::Message, 0, payload) };
        [&header.encode()[..], payload].concat()
    };
    [part(first, FLAG_FIRST), part(last, FLAG_LAST)].concat()
}

fn oob() -> OobPayload {
    let lanes = [
        LaneReport::default(),
        LaneReport { bytes: 65_552, messages: 1 },
        Default::default(),
        Default::default(),
    ];
    let send = SendReport {
        unsent_bytes: 65_552,
        unsent_messages: 1,
        lanes,
        bytes_in_flight: 14_480,
        send_budget_bytes: 4 << 20,
        oldest_unacked_age: Duration::from_micros(180),
        retransmits: 2,
        congestion_window: 14_480,
        peer_window: 4 << 20,
        smoothed_rtt: Some(Duration::from_micros(200)),
        blocked: Blocked::CongestionWindow,
    };
    let receive = ReceiveReport { credit_left: 16 << 20, ..ReceiveReport::default() };
    let echo = Echo { sequence: 8, departed_at: Instant::from_millis(990), held: Duration::from_millis(9) };
    let report = PingReport {
        sequence: 9,
        departed_at: Instant::from_millis(1_000),
        waited: Duration::from_micros(12),
        echo: Some(echo),
        interval: Some(Duration::from_millis(10)),
        send,
        receive,
    };
    OobPayload { report, parts: vec![OobPart { op: OobOp::OSD_PING, bytes: Bytes::from_static(b"up") }] }
}

const OURS: u64 = 0x0101_0101_0101_0101;
const THEIRS: u64 = 0x0202_0202_0202_0202;

fn connect() -> SessionTerms {
    SessionTerms {
        cookie: OURS,
        peer_cookie: THEIRS,
        attempt: 17,
        credit_limit: 16 << 20,
        received: [0, 5, 0, 0],
        ..SessionTerms::default()
    }
}

fn answer() -> SessionTerms {
    SessionTerms {
        resumed: true,
        cookie: THEIRS,
        peer_cookie: OURS,
        attempt: 4,
        received: [0, 90, 0, 3],
        ..connect()
    }
}

const ACK: [u64; 4] = [0, 6, 0, 0];

/// What the document's examples must be.
fn expected() -> Vec<(&'static str, Vec<u8>)> {
    let banner = Banner { version: VERSION, supported: Features::KNOWN, required: Features::REQUIRED };
    let header = MessageHeader { kind: 7, priority: 127, length: 15, tid: 42 }.encode();
    let content = [&header[..], b"hello, outrider"].concat();
    let whole = ChunkHeader { lane: 1, ..ChunkHeader::whole(ChunkKind::Message, 0, &content) };
    vec![
        ("banner", banner.encode().to_vec()),
        ("hello", chunk(ChunkKind::Hello, 0, &hello().encode())),
        ("auth", chunk(ChunkKind::Auth, 0, &Auth { method: AUTH_METHOD_NONE }.encode())),
        ("connect", chunk(ChunkKind::Connect, 0, &connect().encode())),
        ("answer", chunk(ChunkKind::Ready, 0, &answer().encode())),
        ("ready", chunk(ChunkKind::Ready, 0, &[])),
        ("ack", chunk(ChunkKind::Ack, 0, &encode_ack(&ACK))),
        ("message", [&whole.encode()[..], &content].concat()),
        ("message in two chunks", divided_message()),
        ("oob", chunk(ChunkKind::Oob, 9, &oob().encode())),
        ("keepalive", chunk(ChunkKind::Keepalive, 0, &encode_u64(1_000_000_000))),
        ("credit", chunk(ChunkKind::Credit, 0, &encode_u64(20 << 20))),
        ("close", chunk(ChunkKind::Close, 0, &encode_close(CloseCode::Finished))),
        ("close as stale", chunk(ChunkKind::Close, 0, &encode_close(CloseCode::Stale(17)))),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(16).fold(String::new(), |mut text, line| {
        let line: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{}", line.join(" ")).expect("a string takes everything");
        text
    })
}

#[test]
fn the_document_shows_what_is_sent() {
    let examples = examples();
    let expected = expected();
    for (name, bytes) in &expected {
        let shown = examples.get(name).unwrap_or_else(|| panic!("no example `{name}`:\n{}", hex(bytes)));
        assert_eq!(shown, bytes, "example `{name}` must be\n{}", hex(bytes));
    }
    assert_eq!(examples.len(), expected.len(), "an example that nobody checks");
}

fn decode(decoder: &mut Decoder, mut bytes: &[u8]) -> Decoded {
    let unit = decoder.decode(&mut bytes).expect("a sound example").expect("a whole unit");
    assert!(bytes.is_empty(), "nothing is left over");
    unit
}

#[test]
fn the_document_is_understood() {
    let examples = examples();
    let decode_one = |name: &str| {
        let limits = DecoderLimits { message_bytes_max: 1000, credit_limit: 1000 };
        decode(&mut Decoder::new(limits), &examples[name])
    };
    let payload_of = |name: &str, expected: ChunkKind| match decode_one(name) {
        Decoded::Chunk { kind, id, payload } if kind == expected => (id, payload),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(Hello::decode(&payload_of("hello", ChunkKind::Hello).1), Ok(hello()));
    assert_eq!(Auth::decode(&payload_of("auth", ChunkKind::Auth).1), Ok(Auth { method: 0 }));
    assert!(payload_of("ready", ChunkKind::Ready).1.is_empty());
    let (id, payload) = payload_of("oob", ChunkKind::Oob);
    assert_eq!(OobPayload::decode(id, &payload), Ok(oob()));
    assert_eq!(
        decode_u64(ChunkKind::Keepalive, &payload_of("keepalive", ChunkKind::Keepalive).1),
        Ok(1_000_000_000)
    );
    assert_eq!(decode_u64(ChunkKind::Credit, &payload_of("credit", ChunkKind::Credit).1), Ok(20 << 20));
    assert_eq!(CloseCode::decode(&payload_of("close", ChunkKind::Close).1), Ok(CloseCode::Finished));
    let stale = payload_of("close as stale", ChunkKind::Close).1;
    assert_eq!(CloseCode::decode(&stale), Ok(CloseCode::Stale(17)));
    for (name, kind, terms) in
        [("connect", ChunkKind::Connect, connect()), ("answer", ChunkKind::Ready, answer())]
    {
        assert_eq!(SessionTerms::decode(kind, &payload_of(name, kind).1), Ok(terms));
    }
    assert_eq!(decode_ack(&payload_of("ack", ChunkKind::Ack).1), Ok(ACK));
    for name in ["message", "message in two chunks"] {
        assert_eq!(decode_one(name), Decoded::Message { message: message(), id: 0, credit_bytes: 31 });
    }
}

#[test]
fn the_document_states_the_constants() {
    assert_eq!(crc32c(b"123456789"), 0xE306_9283, "the check value of CRC32C in the document");
    for (phrase, value) in [
        ("The banner has 32 bytes", BANNER_BYTES == 32),
        ("chunk header has 24 bytes", CHUNK_HEADER_BYTES == 24),
        ("message header has 16 bytes", MESSAGE_HEADER_BYTES == 16),
        ("report has 220 bytes", OOB_REPORT_BYTES == 220),
        ("session terms have 72 bytes", SESSION_TERMS_BYTES == 72),
        ("part header has 4 bytes", OOB_PART_HEADER_BYTES == 4),
        ("at most 8192 bytes", OOB_PAYLOAD_BYTES_MAX == 8192),
        ("`0xE3069283`", true),
    ] {
        assert!(DOCUMENT.contains(phrase) && value, "{phrase}");
    }
}
