//! Payload of an OOB chunk: the report at its fixed places, then the parts.

use core::time::Duration;

use bytes::Bytes;
use outrider_stack::tcp::source::Blocked;
use outrider_stack::time::Instant;

use super::reader::Reader;
use super::{CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, CodecError, crc32c};
use crate::message::LANES;
use crate::oob::{OobOp, OobPart};
use crate::report::{Echo, LaneReport, PingReport, ReceiveReport, SendReport};

/// Largest OOB payload: what fits a jumbo frame. A session further bounds its own to one segment.
pub const OOB_PAYLOAD_BYTES_MAX: usize = 8192;
/// Bytes of the report, its length field included.
pub const OOB_REPORT_BYTES: usize = 220;
/// Bytes before each part's own: op and length.
pub const OOB_PART_HEADER_BYTES: usize = 4;

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

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
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
        let mut out = Vec::with_capacity(OOB_REPORT_BYTES);
        encode_report(&self.report, &mut out);
        for part in &self.parts {
            out.extend_from_slice(&part.op.0.to_le_bytes());
            out.extend_from_slice(&(part.bytes.len() as u16).to_le_bytes());
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
        let mut reader = Reader::new(payload);
        let length = reader.u16().ok_or(malformed("too short"))?;
        if usize::from(length) < OOB_REPORT_BYTES {
            return Err(malformed("report too short"));
        }
        let report = reader.take(usize::from(length) - 2).ok_or(malformed("report beyond the payload"))?;
        let report = decode_report(sequence, report).ok_or(malformed("report says something impossible"))?;
        let mut parts = Vec::new();
        while !reader.is_empty() {
            let op = reader.u16().ok_or(malformed("part header cut short"))?;
            let length = reader.u16().ok_or(malformed("part header cut short"))?;
            let bytes = reader.take(usize::from(length)).ok_or(malformed("part cut short"))?;
            parts.push(OobPart { op: OobOp(op), bytes: payload.slice_ref(bytes) });
        }
        Ok(OobPayload { report, parts })
    }
}

fn encode_report(report: &PingReport, out: &mut Vec<u8>) {
    // Exhaustive, so that a new field cannot be forgotten here.
    let PingReport { sequence: _, departed_at, waited, echo, interval, send, receive } = *report;
    let SendReport {
        unsent_bytes,
        unsent_messages,
        lanes,
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
    out.extend_from_slice(&(OOB_REPORT_BYTES as u16).to_le_bytes());
    out.extend_from_slice(&[flags, blocked as u8]);
    let echo = echo.unwrap_or(Echo { sequence: 0, departed_at: Instant::ZERO, held: Duration::ZERO });
    let mut put = |value: u64| out.extend_from_slice(&value.to_le_bytes());
    put(departed_at.as_nanos());
    put(nanos(waited));
    put(echo.sequence);
    put(echo.departed_at.as_nanos());
    put(nanos(echo.held));
    put(unsent_bytes);
    put(unsent_messages);
    for lane in lanes {
        put(lane.bytes);
        put(lane.messages);
    }
    put(bytes_in_flight);
    put(send_budget_bytes);
    put(nanos(oldest_unacked_age));
    put(retransmits);
    put(congestion_window);
    put(peer_window);
    put(nanos(smoothed_rtt.unwrap_or_default()));
    put(undispatched_bytes);
    put(undispatched_messages);
    put(nanos(oldest_age));
    put(credit_left);
    put(nanos(interval.unwrap_or_default()));
}

fn decode_report(sequence: u64, bytes: &[u8]) -> Option<PingReport> {
    let mut reader = Reader::new(bytes);
    let flags = reader.u8()?;
    let blocked = blocked_from(reader.u8()?)?;
    let departed_at = Instant::from_nanos(reader.u64()?);
    let waited = Duration::from_nanos(reader.u64()?);
    let echo = Echo {
        sequence: reader.u64()?,
        departed_at: Instant::from_nanos(reader.u64()?),
        held: Duration::from_nanos(reader.u64()?),
    };
    let (unsent_bytes, unsent_messages) = (reader.u64()?, reader.u64()?);
    let mut lanes = [LaneReport::default(); LANES];
    for lane in &mut lanes {
        *lane = LaneReport { bytes: reader.u64()?, messages: reader.u64()? };
    }
    let bytes_in_flight = reader.u64()?;
    let send_budget_bytes = reader.u64()?;
    let oldest_unacked_age = Duration::from_nanos(reader.u64()?);
    let retransmits = reader.u64()?;
    let congestion_window = reader.u64()?;
    let peer_window = reader.u64()?;
    let smoothed_rtt = Duration::from_nanos(reader.u64()?);
    let send = SendReport {
        unsent_bytes,
        unsent_messages,
        lanes,
        bytes_in_flight,
        send_budget_bytes,
        oldest_unacked_age,
        retransmits,
        congestion_window,
        peer_window,
        smoothed_rtt: (flags & FLAG_SMOOTHED_RTT != 0).then_some(smoothed_rtt),
        blocked,
    };
    let receive = ReceiveReport {
        undispatched_bytes: reader.u64()?,
        undispatched_messages: reader.u64()?,
        oldest_age: Duration::from_nanos(reader.u64()?),
        credit_left: reader.u64()?,
    };
    let interval = Some(Duration::from_nanos(reader.u64()?)).filter(|interval| !interval.is_zero());
    Some(PingReport {
        sequence,
        departed_at,
        waited,
        echo: (flags & FLAG_ECHO != 0).then_some(echo),
        interval,
        send,
        receive,
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
