//! The send queue: four lanes, strict between them, first in first out within one, cut into chunks on demand.

use core::ops::Range;
use std::collections::VecDeque;

use bytes::Bytes;
use outrider_stack::tcp::source::Cut;

use crate::codec::{
    CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, Crc32c, FLAG_FIRST, FLAG_LAST, MESSAGE_HEADER_BYTES,
    MessageHeader, OOB_PART_HEADER_BYTES, encode_oob_head, part_header,
};
use crate::message::{LANES, Message, lane_of};
use crate::oob::OobPart;
use crate::report::{LaneReport, PingReport};

use super::Released;

/// A piece of a message shorter than this is not worth a header: the end of a segment is left empty instead.
const TAIL_BYTES_MIN: usize = 64;

/// The segment being cut, with a count of what was put in.
pub(super) struct Writer<'a> {
    cut: &'a mut dyn Cut,
    written: usize,
    segment_size: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(cut: &'a mut dyn Cut, segment_size: usize) -> Self {
        Writer { cut, written: 0, segment_size: segment_size.max(1) }
    }

    pub(super) fn room(&self) -> usize {
        self.cut.room()
    }

    pub(super) fn urgent_only(&self) -> bool {
        self.cut.urgent_only()
    }

    pub(super) fn written(&self) -> usize {
        self.written
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.written += bytes.len();
        self.cut.append(bytes);
    }

    fn append_shared(&mut self, whole: &Bytes, range: Range<usize>) {
        self.written += range.len();
        self.cut.append_shared(whole, range);
    }

    /// Appends a chunk that is whole in itself, if there is room for it.
    pub(super) fn append_chunk(&mut self, kind: ChunkKind, id: u64, payload: &[u8]) -> bool {
        if self.room() < CHUNK_HEADER_BYTES + payload.len() {
            return false;
        }
        self.append(&ChunkHeader::whole(kind, id, payload).encode());
        self.append(payload);
        true
    }

    /// Appends an OOB message, if there is room for it.
    pub(super) fn append_oob(&mut self, report: &PingReport, parts: &[OobPart]) -> bool {
        let head = encode_oob_head(report, parts);
        let bytes = |part: &OobPart| OOB_PART_HEADER_BYTES + part.bytes.len();
        if self.room() < head.len() + parts.iter().map(bytes).sum::<usize>() {
            return false;
        }
        self.append(&head);
        for part in parts {
            self.append(&part_header(part));
            self.append(&part.bytes);
        }
        true
    }

    /// Room up to the next boundary between the segments that a super-segment will be cut into, so that each of
    /// these begins with a chunk header; a tail too short for a chunk of `needed` bytes is joined to the next.
    fn room_in_segment(&self, needed: usize) -> usize {
        let tail = self.segment_size - self.written % self.segment_size;
        let room = if tail < needed { tail + self.segment_size } else { tail };
        room.min(self.room())
    }
}

struct Outgoing {
    message: Message,
    /// Bytes of message header and payload already cut.
    cut: usize,
}

impl Outgoing {
    fn total(&self) -> usize {
        MESSAGE_HEADER_BYTES + self.message.payload.len()
    }
}

#[derive(Default)]
struct Lane {
    queue: VecDeque<Outgoing>,
    bytes: u64,
    /// Wholly cut and not acknowledged by the peer's session, in order; the last has the number before the front's.
    /// Only where they are to be sent again on another connection.
    unacked: VecDeque<Message>,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.unacked.is_empty()
    }

    /// Puts what is not acknowledged back, to be cut again from its first byte. `front_id` is the number of the message
    /// at the front, before and after.
    fn requeue(&mut self, front_id: &mut u64) {
        *front_id -= self.unacked.len() as u64;
        if let Some(front) = self.queue.front_mut() {
            self.bytes += front.cut as u64;
            front.cut = 0;
        }
        while let Some(message) = self.unacked.pop_back() {
            let outgoing = Outgoing { message, cut: 0 };
            self.bytes += outgoing.total() as u64;
            self.queue.push_front(outgoing);
        }
    }
}

/// What became of the message at the front when a chunk was asked for.
pub(super) enum Step {
    /// A chunk was appended; the message has more.
    Chunk,
    /// The last chunk of a message was appended; its payload length.
    Completed { payload_bytes: usize },
    /// The peer takes no message of this length; it was taken off the queue.
    Refused { payload_bytes: usize },
    /// No room in the segment, no credit, or nothing to send.
    Stop,
}

/// What becomes of messages when they are cut.
#[derive(Clone, Copy)]
pub(super) struct CutTerms {
    /// They are kept until the peer's session acknowledges them.
    pub(super) keeps: bool,
    /// The peer takes no longer ones.
    pub(super) message_bytes_max: u32,
}

/// Messages that wait to be cut, and the peer's credit for them. Laid out as it stands, what a heartbeat looks at first.
#[derive(Default)]
#[repr(C)]
pub(super) struct SendQueue {
    /// There while one of them has something: taken with the first message, and given back with the last.
    lanes: Option<Box<[Lane; LANES]>>,
    credit_limit: u64,
    credit_spent: u64,
    /// Number of the message at the front of each lane, or of its next.
    front_ids: [u64; LANES],
}

impl SendQueue {
    pub(super) fn push(&mut self, message: Message) {
        let outgoing = Outgoing { message, cut: 0 };
        let lane = &mut self.lanes.get_or_insert_default()[lane_of(outgoing.message.priority)];
        lane.bytes += outgoing.total() as u64;
        lane.queue.push_back(outgoing);
    }

    pub(super) fn credit_limit(&self) -> u64 {
        self.credit_limit
    }

    pub(super) fn set_credit_limit(&mut self, limit: u64) {
        self.credit_limit = limit;
    }

    fn credit_left(&self) -> usize {
        usize::try_from(self.credit_limit.saturating_sub(self.credit_spent)).unwrap_or(usize::MAX)
    }

    /// The lane whose turn it is, and its number.
    #[inline]
    fn next_lane(&self) -> Option<(usize, &Lane)> {
        self.lanes.as_ref()?.iter().enumerate().rev().find(|(_, lane)| !lane.queue.is_empty())
    }

    /// Gives the memory of the lanes back if none of them has anything.
    fn settle(&mut self) {
        if self.lanes.as_ref().is_some_and(|lanes| lanes.iter().all(Lane::is_empty)) {
            self.lanes = None;
        }
    }

    /// Whether there is something to send and credit to send it.
    #[inline]
    pub(super) fn is_sendable(&self) -> bool {
        self.next_needs().is_some_and(|needed| needed <= self.credit_left())
    }

    /// Whether there is something to send and no credit to send it.
    pub(super) fn is_out_of_credit(&self) -> bool {
        self.next_needs().is_some_and(|needed| needed > self.credit_left())
    }

    /// Payload that the next chunk must have at least: a message header is not divided.
    #[inline]
    fn next_needs(&self) -> Option<usize> {
        let front = self.next_lane()?.1.queue.front()?;
        Some(if front.cut == 0 { MESSAGE_HEADER_BYTES } else { 1 })
    }

    pub(super) fn report(&self) -> [LaneReport; LANES] {
        let Some(lanes) = &self.lanes else { return Default::default() };
        core::array::from_fn(|lane| LaneReport {
            bytes: lanes[lane].bytes,
            messages: lanes[lane].queue.len() as u64,
        })
    }

    /// Whether nothing waits to be cut or, where that counts, to be acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_none()
    }

    /// The peer's session has all messages before these numbers. `None`, and nothing done, if it cannot have: one
    /// was not sent, or was said to be there before.
    pub(super) fn acknowledge(&mut self, received: &[u64; LANES]) -> Option<Released> {
        let front_ids = &self.front_ids;
        let Some(lanes) = &mut self.lanes else {
            return (front_ids == received).then(Released::default);
        };
        let sound = |((lane, front_id), upto): ((&Lane, &u64), &u64)| {
            (front_id - lane.unacked.len() as u64..=*front_id).contains(upto)
        };
        if !lanes.iter().zip(front_ids).zip(received).all(sound) {
            return None;
        }
        let mut released = Released::default();
        for ((lane, front_id), upto) in lanes.iter_mut().zip(front_ids).zip(received) {
            let left = front_id - upto;
            while lane.unacked.len() as u64 > left {
                let payload_bytes = lane.unacked.pop_front().map_or(0, |message| message.payload.len());
                released.add(payload_bytes);
            }
        }
        self.settle();
        Some(released)
    }

    /// On a new connection: what the peer's session has is done with, all else is sent again. `None` as above.
    pub(super) fn resume(&mut self, received: &[u64; LANES]) -> Option<Released> {
        let released = self.acknowledge(received)?;
        self.requeue();
        self.credit_spent = 0;
        Some(released)
    }

    /// For a session that begins anew: everything is sent again, numbered from zero.
    pub(super) fn restart(&mut self) {
        self.requeue();
        self.front_ids = [0; LANES];
        self.credit_spent = 0;
    }

    /// What is not acknowledged is to be cut again.
    fn requeue(&mut self) {
        let lanes = self.lanes.iter_mut().flat_map(|lanes| lanes.iter_mut());
        lanes.zip(&mut self.front_ids).for_each(|(lane, front_id)| lane.requeue(front_id));
    }

    /// Forgets everything and tells what that was.
    pub(super) fn clear(&mut self) -> Released {
        self.requeue();
        let mut released = Released::default();
        let lanes = self.lanes.take();
        let outgoing = lanes.iter().flat_map(|lanes| lanes.iter()).flat_map(|lane| &lane.queue);
        outgoing.for_each(|outgoing| released.add(outgoing.message.payload.len()));
        released
    }

    /// Appends the next chunk, if it may be sent and has room.
    pub(super) fn append_chunk(&mut self, terms: CutTerms, writer: &mut Writer<'_>) -> Step {
        let credit_left = self.credit_left();
        let Some(index) = self.next_lane().map(|(index, _)| index) else { return Step::Stop };
        let Some(lane) = self.lanes.as_mut().map(|lanes| &mut lanes[index]) else { return Step::Stop };
        let Some(front) = lane.queue.front_mut() else { return Step::Stop };
        let (total, first) = (front.total(), front.cut == 0);
        if first && front.message.payload.len() > terms.message_bytes_max as usize {
            lane.bytes -= total as u64;
            let payload_bytes = front.message.payload.len();
            lane.queue.pop_front();
            self.settle();
            return Step::Refused { payload_bytes };
        }
        let left = total - front.cut;
        let needed = CHUNK_HEADER_BYTES + left.min(TAIL_BYTES_MIN);
        let room = writer.room_in_segment(needed);
        if room < needed || credit_left < if first { MESSAGE_HEADER_BYTES } else { 1 } {
            return Step::Stop;
        }
        let length = left.min(room - CHUNK_HEADER_BYTES).min(credit_left);
        let last = length == left;
        let chunk = ChunkToCut { lane: index, id: self.front_ids[index], length, last };
        append_message_chunk(writer, front, &chunk);
        front.cut += length;
        lane.bytes -= length as u64;
        self.credit_spent += length as u64;
        if !last {
            return Step::Chunk;
        }
        let payload_bytes = front.message.payload.len();
        self.front_ids[index] += 1;
        if let Some(sent) = lane.queue.pop_front().filter(|_| terms.keeps) {
            lane.unacked.push_back(sent.message);
        }
        self.settle();
        Step::Completed { payload_bytes }
    }
}

struct ChunkToCut {
    lane: usize,
    id: u64,
    length: usize,
    last: bool,
}

fn append_message_chunk(writer: &mut Writer<'_>, outgoing: &Outgoing, chunk: &ChunkToCut) {
    let message = &outgoing.message;
    let first = outgoing.cut == 0;
    let header = MessageHeader {
        kind: message.kind,
        priority: message.priority,
        length: message.payload.len() as u32,
        tid: message.tid,
    };
    let header = header.encode();
    let head: &[u8] = if first { &header } else { &[] };
    let from = outgoing.cut.saturating_sub(MESSAGE_HEADER_BYTES);
    let body = from..from + chunk.length - head.len();
    let mut crc = Crc32c::default();
    crc.update(head);
    crc.update(&message.payload[body.clone()]);
    let header = ChunkHeader {
        kind: ChunkKind::Message,
        flags: if first { FLAG_FIRST } else { 0 } | if chunk.last { FLAG_LAST } else { 0 },
        tag_length: 0,
        lane: chunk.lane as u8,
        length: chunk.length as u32,
        id: chunk.id,
        payload_crc: crc.value(),
    };
    writer.append(&header.encode());
    writer.append(head);
    writer.append_shared(&message.payload, body);
}
