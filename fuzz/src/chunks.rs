//! The messenger's decoder over any stream at any division, and the payloads of single chunks.
#![allow(missing_docs, unreachable_pub)]

use bytes::Bytes;
use outrider_messenger::codec::{
    ACK_BYTES, Auth, CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, CloseCode, CodecError, Decoded, Decoder,
    DecoderLimits, FLAG_FIRST, FLAG_LAST, Hello, MessageHeader, OobPayload, SessionTerms, crc32c, decode_ack,
    decode_u64, encode_ack, scan_ahead,
};
use outrider_messenger::lane_of;

use crate::input::Input;

const LIMITS: DecoderLimits = DecoderLimits { message_bytes_max: 1 << 20, credit_limit: 100_000 };

/// A stream out of the input: chunks whose checksums are right and whose fields are anything, and raw bytes.
fn stream(input: &mut Input<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut ids = [0u64; 4];
    while !input.is_empty() {
        let how = input.u8();
        if how.is_multiple_of(16) {
            let count = usize::from(input.u8());
            stream.extend_from_slice(input.take(count));
            continue;
        }
        let kind = ChunkKind::from_code(input.u8() % 20).unwrap_or(ChunkKind::Message);
        let mut payload = Vec::new();
        let mut header = ChunkHeader::whole(kind, 0, &[]);
        if kind == ChunkKind::Message {
            let (flags, priority) = (input.u8(), input.u8());
            header.lane = lane_of(priority) as u8;
            header.flags = flags % 4;
            header.id = ids[usize::from(header.lane) % 4];
            if flags & FLAG_FIRST != 0 {
                let more = u32::from(input.u8()) * u32::from(flags & 4 == 0);
                let count = usize::from(input.u8());
                let bytes = input.take(count);
                let length = bytes.len() as u32 + if flags & FLAG_LAST == 0 { 1 + more } else { 0 };
                let message = MessageHeader { kind: 7, priority, length, tid: input.u64() };
                payload.extend_from_slice(&message.encode());
                payload.extend_from_slice(bytes);
            } else {
                let count = usize::from(input.u8());
                payload.extend_from_slice(input.take(count));
            }
            ids[usize::from(header.lane) % 4] += u64::from(flags & FLAG_LAST != 0);
        } else {
            let count = usize::from(input.u8()) * 2;
            payload.extend_from_slice(input.take(count));
            header.id = input.u64();
        }
        header.length = payload.len() as u32;
        header.payload_crc = crc32c(&payload);
        if how % 16 == 1 {
            // One field is wrong, under a checksum that is right.
            match input.u8() % 6 {
                0 => header.flags = input.u8(),
                1 => header.tag_length = input.u8(),
                2 => header.lane = input.u8(),
                3 => header.length = input.u32(),
                4 => header.id = input.u64(),
                _ => header.payload_crc = input.u32(),
            }
        }
        stream.extend_from_slice(&header.encode());
        stream.extend_from_slice(&payload);
    }
    stream
}

type Outcome = (Vec<Decoded>, Result<(), CodecError>);

/// Decodes `stream` in pieces of the lengths that `lengths` gives.
fn decode(stream: &[u8], mut lengths: impl FnMut() -> usize) -> Outcome {
    let mut decoder = Decoder::new(LIMITS);
    let (mut units, mut rest) = (Vec::new(), stream);
    while !rest.is_empty() {
        let (mut piece, after) = rest.split_at(lengths().clamp(1, rest.len()));
        rest = after;
        loop {
            let before = piece.len();
            match decoder.decode(&mut piece) {
                Ok(Some(unit)) => units.push(unit),
                Ok(None) => break,
                Err(error) => return (units, Err(error)),
            }
            assert!(piece.len() < before || before == 0, "a unit takes bytes");
        }
        assert!(piece.is_empty(), "all of a piece is taken");
        assert!(decoder.completed() <= decoder.spent() && decoder.spent() <= LIMITS.credit_limit);
    }
    (units, Ok(()))
}

/// What can be read of a payload is the same after it was written again.
fn payload(bytes: &Bytes) {
    if let Ok(hello) = Hello::decode(bytes) {
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }
    if let Ok(oob) = OobPayload::decode(9, bytes) {
        let again = OobPayload::decode(9, &Bytes::from(oob.encode()));
        assert_eq!(again, Ok(oob));
    }
    for kind in [ChunkKind::Connect, ChunkKind::Ready] {
        if let Ok(terms) = SessionTerms::decode(kind, bytes) {
            assert_eq!(SessionTerms::decode(kind, &terms.encode()), Ok(terms));
        }
    }
    if let Ok(received) = decode_ack(bytes) {
        assert_eq!(
            bytes.get(..ACK_BYTES),
            Some(&encode_ack(&received)[..]),
            "what is read is what was there"
        );
    }
    let _ = Auth::decode(bytes);
    let _ = CloseCode::decode(bytes);
    let _ = decode_u64(ChunkKind::Credit, bytes);
}

/// The first bytes are the division, the rest makes the stream.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let lengths: [u8; 4] = [input.u8(), input.u8(), input.u8(), input.u8()];
    if lengths[0] % 4 == 3 {
        return payload(&Bytes::copy_from_slice(input.rest()));
    }
    let stream = stream(&mut input);
    let whole = decode(&stream, || usize::MAX);
    let mut at = 0;
    let pieces = decode(&stream, || {
        at += 1;
        usize::from(lengths[at % 4])
    });
    assert_eq!(pieces, whole, "the division of a stream makes no difference");
    assert_eq!(decode(&stream, || 1), whole);
    for unit in &whole.0 {
        if let Decoded::Chunk { payload: bytes, .. } = unit {
            payload(bytes);
        }
    }
    for start in [0, CHUNK_HEADER_BYTES, stream.len() / 2] {
        for (_, bytes) in scan_ahead(stream.get(start..).unwrap_or(&[])) {
            payload(&Bytes::copy_from_slice(bytes));
        }
    }
}

/// What a session says of itself as it connects, answers and acknowledges.
fn examples_of_sessions() -> Vec<Vec<u8>> {
    let terms = SessionTerms {
        lossy: false,
        resumed: true,
        cookie: 0x0101_0101_0101_0101,
        peer_cookie: 0x0202_0202_0202_0202,
        attempt: 17,
        credit_limit: 16 << 20,
        received: [0, 5, 1 << 40, u64::MAX],
    };
    let alone = |payload: &[u8]| [&[3u8, 0, 0, 0][..], payload].concat();
    let chunk = |kind: u8, payload: &[u8]| {
        // Kind, half the length, payload, id.
        [&[1u8, 2, 30, 9, 2, kind, (payload.len() / 2) as u8][..], payload, &[0; 8]].concat()
    };
    let (connect, ack) = (terms.encode(), encode_ack(&terms.received));
    vec![alone(&connect), alone(&ack), chunk(9, &connect), chunk(3, &connect), chunk(10, &ack)]
}

/// Handshake, a divided message with something between, an OOB message; and the payloads alone.
pub fn examples() -> Vec<Vec<u8>> {
    let hello = Hello {
        name: outrider_messenger::EntityName::osd(3),
        nonce: 5,
        addresses: vec![
            "10.0.0.3:6800".parse().expect("an address"),
            "[fd00::3]:6800".parse().expect("an address"),
        ],
        receive_credit_bytes: 1 << 20,
        message_bytes_max: 1 << 20,
    };
    let part = |op| outrider_messenger::OobPart {
        op: outrider_messenger::OobOp(op),
        bytes: Bytes::from_static(b"part"),
    };
    let oob = OobPayload { report: Default::default(), parts: vec![part(1), part(900)] };
    let message = |flags: u8, bytes: &[u8]| {
        let mut chunk = vec![2, 16, flags, 127];
        if flags & FLAG_FIRST != 0 {
            chunk.push(2);
        }
        chunk.push(bytes.len() as u8);
        chunk.extend_from_slice(bytes);
        if flags & FLAG_FIRST != 0 {
            chunk.extend_from_slice(&[0; 8]);
        }
        chunk
    };
    let keepalive = [2u8, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut examples = vec![
        [&[3u8, 0, 0, 0][..], &hello.encode()].concat(),
        [&[3u8, 0, 0, 0][..], &oob.encode()].concat(),
        [&[1u8, 2, 30, 9][..], &message(FLAG_FIRST, b"hello"), &keepalive, &message(FLAG_LAST, b"abc")]
            .concat(),
        [&[0u8, 2, 30, 9][..], &message(FLAG_FIRST | FLAG_LAST, b"hello"), &keepalive, &keepalive].concat(),
        [&[0u8, 2, 30, 9, 16, 24][..], &ChunkHeader::whole(ChunkKind::Ready, 0, &[]).encode()].concat(),
    ];
    examples.extend(examples_of_sessions());
    examples
}
