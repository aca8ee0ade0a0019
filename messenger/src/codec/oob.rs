//! Payload of an OOB chunk: the report at its fixed places, then the parts.

use core::time::Duration;

use bytes::Bytes;
use outrider_stack::tcp::source::Blocked;
use outrider_stack::time::Instant;

use super::reader::Reader;
use super::{CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, CodecError, Crc32c, FLAG_FIRST, FLAG_LAST, crc32c};
use crate::oob::{OobOp, OobPart};
use crate::report::{Echo, LaneReport, PingReport, ReceiveReport, SendReport};
use crate::sparse::nanos_of;

/// Largest OOB payload: what fits a jumbo frame. A session further bounds its own to one segment.
pub const OOB_PAYLOAD_BYTES_MAX: usize = 8192;
/// Bytes of the report, its length field included.
pub const OOB_REPORT_BYTES: usize = 220;
/// Bytes before each part's own: op and length.
pub const OOB_PART_HEADER_BYTES: usize = 4;

/// Where the numbers of the report begin, after its length, flags and what blocks.
const REPORT_WORDS_AT: usize = 4;
type ReportWords = [u64; (OOB_REPORT_BYTES - REPORT_WORDS_AT) / 8];

const FLAG_ECHO: u8 = 1;
const FLAG_SMOOTHED_RTT: u8 = 2;

/// An OOB chunk's payload. The report's sequence is the chunk's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OobPayload {
    /// The report.
    pub report: PingReport,
    /// The parts; none in a mere echo.
    pub parts: Vec<OobPart>,
}

fn blocked_from(code: u8) -> Option<Blocked> {
    [
        Blocked::Nothing,
        Blocked::CongestionWindow,
        Blocked::PeerWindow,
        Blocked::Credit,
        Blocked::Pacing,
        Blocked::Port,
    ]
    .into_iter()
    .find(|blocked| *blocked as u8 == code)
}

impl OobPayload {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = encode_report(&self.report).to_vec();
        for part in &self.parts {
            out.extend_from_slice(&part_header(part));
            out.extend_from_slice(&part.bytes);
        }
        out
    }

    /// Reads the payload of the chunk with id `sequence`.
    ///
    /// # Errors
    /// [`CodecError::Malformed`].
    pub fn decode(sequence: u64, payload: &Bytes) -> Result<OobPayload, CodecError> {
        let malformed = |what| CodecError::Malformed { kind: ChunkKind::Oob, what };
        let length = usize::from(Reader::new(payload).u16().ok_or(malformed("too short"))?);
        if length < OOB_REPORT_BYTES {
            return Err(malformed("report too short"));
        }
        // A later version may append fields to the report.
        let report = payload.first_chunk().filter(|_| length <= payload.len());
        let report = report.ok_or(malformed("report beyond the payload"))?;
        let report = decode_report(sequence, report).ok_or(malformed("report says something impossible"))?;
        let mut parts = Vec::new();
        let mut reader = Reader::new(&payload[length..]);
        while !reader.is_empty() {
            let op = reader.u16().ok_or(malformed("part header cut short"))?;
            let length = reader.u16().ok_or(malformed("part header cut short"))?;
            let bytes = reader.take(usize::from(length)).ok_or(malformed("part cut short"))?;
            parts.push(OobPart { op: OobOp(op), bytes: payload.slice_ref(bytes) });
        }
        Ok(OobPayload { report, parts })
    }
}

/// The chunk of an OOB message up to its parts, which follow with a [`part_header`] before each.
pub(crate) fn encode_oob_head(
    report: &PingReport,
    parts: &[OobPart],
) -> [u8; CHUNK_HEADER_BYTES + OOB_REPORT_BYTES] {
    let payload = encode_report(report);
    let mut crc = Crc32c::default();
    crc.update(&payload);
    let mut length = OOB_REPORT_BYTES;
    for part in parts {
        crc.update(&part_header(part));
        crc.update(&part.bytes);
        length += OOB_PART_HEADER_BYTES + part.bytes.len();
    }
    let header = ChunkHeader {
        kind: ChunkKind::Oob,
        flags: FLAG_FIRST | FLAG_LAST,
        tag_length: 0,
        lane: 0,
        length: length as u32,
        id: report.sequence,
        payload_crc: crc.value(),
    };
    let mut head = [0; CHUNK_HEADER_BYTES + OOB_REPORT_BYTES];
    head[..CHUNK_HEADER_BYTES].copy_from_slice(&header.encode());
    head[CHUNK_HEADER_BYTES..].copy_from_slice(&payload);
    head
}

/// What goes before the bytes of a part.
pub(crate) fn part_header(part: &OobPart) -> [u8; OOB_PART_HEADER_BYTES] {
    let ([op, op_high], [length, length_high]) =
        (part.op.0.to_le_bytes(), (part.bytes.len() as u16).to_le_bytes());
    [op, op_high, length, length_high]
}

fn encode_report(report: &PingReport) -> [u8; OOB_REPORT_BYTES] {
    // Exhaustive, so that a new field cannot be forgotten here.
    let PingReport { sequence: _, departed_at, waited, echo, interval, send, receive } = report;
    let SendReport {
        unsent_bytes,
        unsent_messages,
        lanes: [lane_0, lane_1, lane_2, lane_3],
        bytes_in_flight,
        send_budget_bytes,
        oldest_unacked_age,
        retransmits,
        congestion_window,
        peer_window,
        smoothed_rtt,
        blocked,
    } = send;
    let ReceiveReport { undispatched_bytes, undispatched_messages, oldest_age, credit_left } = receive;
    let flags = if echo.is_some() { FLAG_ECHO } else { 0 }
        | if smoothed_rtt.is_some() { FLAG_SMOOTHED_RTT } else { 0 };
    let echo = echo.unwrap_or(Echo { sequence: 0, departed_at: Instant::ZERO, held: Duration::ZERO });
    let words: ReportWords = [
        departed_at.as_nanos(),
        nanos_of(*waited),
        echo.sequence,
        echo.departed_at.as_nanos(),
        nanos_of(echo.held),
        *unsent_bytes,
        *unsent_messages,
        lane_0.bytes,
        lane_0.messages,
        lane_1.bytes,
        lane_1.messages,
        lane_2.bytes,
        lane_2.messages,
        lane_3.bytes,
        lane_3.messages,
        *bytes_in_flight,
        *send_budget_bytes,
        nanos_of(*oldest_unacked_age),
        *retransmits,
        *congestion_window,
        *peer_window,
        nanos_of(smoothed_rtt.unwrap_or_default()),
        *undispatched_bytes,
        *undispatched_messages,
        nanos_of(*oldest_age),
        *credit_left,
        nanos_of(interval.unwrap_or_default()),
    ];
    let mut out = [0; OOB_REPORT_BYTES];
    out[..2].copy_from_slice(&(OOB_REPORT_BYTES as u16).to_le_bytes());
    out[2] = flags;
    out[3] = *blocked as u8;
    for (bytes, word) in out[REPORT_WORDS_AT..].as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    out
}

fn decode_report(sequence: u64, report: &[u8; OOB_REPORT_BYTES]) -> Option<PingReport> {
    let (flags, blocked) = (report[2], blocked_from(report[3])?);
    let mut words: ReportWords = Default::default();
    for (word, bytes) in words.iter_mut().zip(report[REPORT_WORDS_AT..].as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let [departed_at, waited, echo_sequence, echo_departed_at, echo_held, rest @ ..] = words;
    let [unsent_bytes, unsent_messages, rest @ ..] = rest;
    let [bytes_0, messages_0, bytes_1, messages_1, bytes_2, messages_2, bytes_3, messages_3, rest @ ..] =
        rest;
    let [bytes_in_flight, send_budget_bytes, oldest_unacked_age, retransmits, rest @ ..] = rest;
    let [congestion_window, peer_window, smoothed_rtt, rest @ ..] = rest;
    let [undispatched_bytes, undispatched_messages, oldest_age, credit_left, interval] = rest;
    let lane = |bytes, messages| LaneReport { bytes, messages };
    let echo = Echo {
        sequence: echo_sequence,
        departed_at: Instant::from_nanos(echo_departed_at),
        held: Duration::from_nanos(echo_held),
    };
    Some(PingReport {
        sequence,
        departed_at: Instant::from_nanos(departed_at),
        waited: Duration::from_nanos(waited),
        echo: (flags & FLAG_ECHO != 0).then_some(echo),
        interval: (interval != 0).then(|| Duration::from_nanos(interval)),
        send: SendReport {
            unsent_bytes,
            unsent_messages,
            lanes: [
                lane(bytes_0, messages_0),
                lane(bytes_1, messages_1),
                lane(bytes_2, messages_2),
                lane(bytes_3, messages_3),
            ],
            bytes_in_flight,
            send_budget_bytes,
            oldest_unacked_age: Duration::from_nanos(oldest_unacked_age),
            retransmits,
            congestion_window,
            peer_window,
            smoothed_rtt: (flags & FLAG_SMOOTHED_RTT != 0).then(|| Duration::from_nanos(smoothed_rtt)),
            blocked,
        },
        receive: ReceiveReport {
            undispatched_bytes,
            undispatched_messages,
            oldest_age: Duration::from_nanos(oldest_age),
            credit_left,
        },
    })
}

/// The whole and intact OOB chunks at the start of bytes that arrived ahead of a gap: sequence and payload of each.
///
/// Anything else ends the scan without an error: what is wrong here is judged when its turn comes.
pub fn scan_ahead(mut bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    core::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<CHUNK_HEADER_BYTES>()?;
        let header = ChunkHeader::decode(head).ok()?;
        if header.kind != ChunkKind::Oob {
            return None;
        }
        let (payload, rest) = rest.split_at_checked(header.length as usize)?;
        if crc32c(payload) != header.payload_crc {
            return None;
        }
        bytes = rest;
        Some((header.id, payload))
    })
}
