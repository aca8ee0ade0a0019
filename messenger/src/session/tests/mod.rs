//! Two sessions over a perfect pipe in virtual time, one segment at a time.

mod handshake;
mod oob;
mod sending;

use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;
use outrider_stack::endpoint::{Directive, Established};
use outrider_stack::tcp::source::{Blocked, Cut, Demand, SendState};
use outrider_stack::time::Instant;

use super::*;
use crate::codec::{
    Banner, CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, CodecError, Decoded, FLAG_FIRST, Hello, MAGIC,
    MESSAGE_HEADER_BYTES, OobPayload, VERSION, encode_u64,
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
    /// The side that dials.
    fn new(config: SessionConfig) -> Self {
        let role = Role::lossy_dialler(&config);
        Side::with_role(config, role)
    }

    fn accepting(config: SessionConfig) -> Self {
        Side::with_role(config, Role::Acceptor)
    }

    fn with_role(config: SessionConfig, role: Role) -> Self {
        Side {
            session: Session::new(config, role),
            offset: 1,
            events: Vec::new(),
            messages: Vec::new(),
            oobs: Vec::new(),
            consumes: true,
        }
    }

    fn establish(&mut self, now: Instant) {
        self.establish_with(now, SEGMENT);
    }

    fn establish_with(&mut self, now: Instant, segment_size: usize) {
        let address = "10.0.0.1:1".parse().unwrap();
        let established = Established { local: address, remote: address, segment_size };
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
        let (mut delivery, mut rest) = (Delivery::default(), bytes);
        while !rest.is_empty() {
            let result = self.session.deliver(now, rest);
            self.collect();
            let Delivery { oob, taken } = result?;
            (delivery.oob, delivery.taken) = (delivery.oob || oob, delivery.taken + taken);
            rest = &rest[taken..];
        }
        Ok(delivery)
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
                SessionEvent::Oob(message) => self.oobs.push(*message),
                SessionEvent::Connect { .. } => {
                    let now = self.session.last_heard().unwrap();
                    self.session.admit(now, Admission::lossy(7)).unwrap();
                }
                SessionEvent::Accepted { .. } => {
                    let now = self.session.last_heard().unwrap();
                    self.session.resume(now, None).unwrap();
                }
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
        left.session.on_acked(now, left.offset);
        right.session.on_acked(now, right.offset);
    }
    segments
}

fn config(id: u64) -> SessionConfig {
    SessionConfig { nonce: 1000 + id, seed: id, ..SessionConfig::new(EntityName::osd(id)) }
}

fn pair_with(left: SessionConfig, right: SessionConfig) -> (Side, Side) {
    let (mut left, mut right) = (Side::new(left), Side::accepting(right));
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
