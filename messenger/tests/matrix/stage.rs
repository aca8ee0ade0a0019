//! How far a connection has come, by the bytes that pass: the wire format of `docs/wire-format.md`.

use outrider_messenger::codec::{BANNER_BYTES, CHUNK_HEADER_BYTES, ChunkKind, FLAG_LAST};

use super::frame::Segment;
use super::wire::Side;

/// Whole messages each way until a connection counts as open.
const MESSAGES_OPEN: u32 = 3;

/// What a stage is named for has come by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    /// From whom.
    pub(super) from: Side,
    /// Bytes of that side's stream up to its end; 0 before there is one.
    pub(super) stream_bytes: usize,
}

/// One direction.
#[derive(Default)]
struct Stream {
    first: Option<u32>,
    bytes: Vec<u8>,
    /// Where the next chunk begins.
    at: usize,
    connects: u32,
    readies: u32,
    messages: u32,
}

impl Stream {
    /// Takes what is new of a segment. The network neither loses nor reorders, so nothing is missing before it.
    fn take(&mut self, segment: &Segment<'_>) {
        if segment.syn {
            self.first = Some(segment.sequence.wrapping_add(1));
            return;
        }
        let Some(first) = self.first else { return };
        let offset = segment.sequence.wrapping_sub(first) as usize;
        let known = self.bytes.len().saturating_sub(offset);
        if offset <= self.bytes.len() && known < segment.payload.len() {
            self.bytes.extend_from_slice(&segment.payload[known..]);
        }
        self.at = self.at.max(BANNER_BYTES);
        while let Some(header) = self.bytes.get(self.at..self.at + CHUNK_HEADER_BYTES) {
            let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
            let end = self.at + CHUNK_HEADER_BYTES + length;
            if end > self.bytes.len() {
                return;
            }
            match ChunkKind::from_code(header[0]) {
                Some(ChunkKind::Connect) => self.connects += 1,
                Some(ChunkKind::Ready) => self.readies += 1,
                Some(ChunkKind::Message) => self.messages += u32::from(header[1] & FLAG_LAST != 0),
                _ => {}
            }
            self.at = end;
        }
    }
}

/// Waits for a stage of the first connection.
pub(super) struct Tracker {
    stage: usize,
    streams: [Stream; 2],
}

impl Tracker {
    /// For a stage of [`super::outcomes::STAGES`].
    pub(super) fn new(stage: usize) -> Tracker {
        Tracker { stage, streams: Default::default() }
    }

    /// A segment passes; the stage may be reached with it.
    pub(super) fn follow(&mut self, from: Side, segment: &Segment<'_>) -> Option<Hit> {
        self.streams[from].take(segment);
        let [dialler, listener] = &self.streams;
        let reached = match self.stage {
            0 => segment.syn && from == 0,
            1 => segment.syn && from == 1,
            2 => dialler.connects > 0,
            3 => listener.readies > 0,
            4 => dialler.readies > 0,
            _ => dialler.messages.min(listener.messages) >= MESSAGES_OPEN,
        };
        reached.then(|| Hit { from, stream_bytes: self.streams[from].bytes.len() })
    }
}
