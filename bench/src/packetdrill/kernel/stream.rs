//! What a socket keeps beside the engine: bytes not yet sent, bytes not yet read, and the rules that are a socket's
//! and not TCP's own: send buffer, Nagle, cork, PUSH.
//!
//! Payload is zeros throughout, so only lengths are kept.

use std::collections::VecDeque;
use std::time::Duration;

use outrider_stack::tcp::connection::Inspection;
use outrider_stack::tcp::source::{
    AckUrgency, BeyondWindow, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault,
};
use outrider_stack::time::Instant;

use super::acks::AckPolicy;

/// What Linux charges a send buffer for each buffer beside its payload, bytes (approximate).
const BUFFER_OVERHEAD_BYTES: u64 = 1280;
/// What Linux charges for a segment when it tunes the buffer, bytes (approximate).
const SEGMENT_CHARGE_BYTES: u64 = 2304;
/// Most payload one buffer holds, bytes.
const BUFFER_BYTES_MAX: u64 = 65_000;

/// A buffer of unsent bytes: one or several writes. A segment never takes bytes from two.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    /// Stream offset of its first unsent byte.
    start: u64,
    /// Stream offset after its last byte.
    end: u64,
    /// The last byte is to be pushed.
    push: bool,
    /// Nothing more is put into it (`MSG_EOR`).
    sealed: bool,
}

/// The two directions of one connection, as its socket sees them.
#[derive(Debug)]
pub(crate) struct Stream {
    // Sending. Stream offsets: 0 is the SYN.
    unsent: VecDeque<Buffer>,
    /// Stream offset after the last byte written.
    pub(crate) written: u64,
    /// Stream offset after the last byte cut.
    cut: u64,
    acked: u64,
    /// The segment cut last was the last of its buffer.
    last_ended: bool,
    /// The segment cut last ends where a push was asked.
    last_push: bool,
    /// Offset after the last byte for which a push was asked.
    pushed: u64,
    /// Offset after the last segment that was smaller than a full one (Minshall's rule).
    small_end: u64,
    /// Room of the send buffer, bytes.
    pub(crate) send_buffer: u64,
    /// The send buffer grows up to here; zero if the application fixed it.
    pub(crate) send_buffer_max: u64,
    /// A writer found the buffer full.
    starved: bool,
    /// How often the buffer had room again after that.
    pub(crate) write_edges: u64,
    pub(crate) nodelay: bool,
    pub(crate) cork: bool,
    /// A write with `MSG_MORE` holds what is less than a segment until something else happens.
    hold: bool,
    /// Everything written before this offset leaves whatever Nagle and cork say.
    flush_to: u64,
    /// FIN follows the last byte.
    pub(crate) finish: bool,
    /// Since when something is held back with nothing in flight.
    pub(crate) held_since: Option<Instant>,

    // The state of the engine before each poll.
    segment_size: u64,
    window_half: u64,

    // Receiving.
    pub(crate) received: u64,
    pub(crate) unread: u64,
    /// Room of the receive buffer for payload, bytes.
    pub(crate) receive_space: u64,
    pub(crate) peer_finished: bool,
    /// Nobody will read: what still arrives is refused.
    pub(crate) read_shut: bool,
    /// The socket is closed: what arrives is thrown away. After `SHUT_RD` alone it may still be read, as on Linux.
    pub(crate) reader_gone: bool,
    /// The peer's FIN is acknowledged at once even if ours has not left.
    pub(crate) finish_acked_at_once: bool,
    pub(crate) acks: AckPolicy,
    pub(crate) last_data_received: Instant,
}

impl Stream {
    pub(crate) fn new(now: Instant, send_buffer: u64, receive_space: u64) -> Self {
        Stream {
            unsent: VecDeque::new(),
            written: 1,
            cut: 1,
            acked: 0,
            last_ended: false,
            last_push: false,
            pushed: 1,
            small_end: 0,
            send_buffer,
            send_buffer_max: 0,
            starved: false,
            write_edges: 0,
            nodelay: false,
            cork: false,
            hold: false,
            flush_to: 0,
            finish: false,
            held_since: None,
            segment_size: 536,
            window_half: u64::MAX,
            received: 0,
            unread: 0,
            receive_space,
            peer_finished: false,
            read_shut: false,
            reader_gone: false,
            finish_acked_at_once: false,
            acks: AckPolicy::new(now),
            last_data_received: now,
        }
    }

    /// Stream offset after the last byte cut.
    pub(crate) fn cut_offset(&self) -> u64 {
        self.cut
    }

    /// Whether anything was cut since the offset was `before`.
    pub(crate) fn has_cut_since(&self, before: u64) -> bool {
        self.cut > before
    }

    /// Whether the segment cut last was the last of its buffer.
    pub(crate) fn ended_buffer(&self) -> bool {
        self.last_ended
    }

    /// Bytes written and not sent.
    pub(crate) fn unsent_bytes(&self) -> u64 {
        self.written - self.cut
    }

    /// Bytes sent and not acknowledged.
    fn in_flight(&self) -> u64 {
        self.cut.saturating_sub(self.acked.max(1))
    }

    /// Bytes written and not acknowledged.
    pub(crate) fn outstanding_bytes(&self) -> u64 {
        self.unsent_bytes() + self.in_flight()
    }

    /// What the send buffer is charged with.
    fn charged(&self) -> u64 {
        let in_flight = self.in_flight();
        let buffers = self.unsent.len() as u64 + u64::from(in_flight > 0);
        self.unsent_bytes() + in_flight + buffers * BUFFER_OVERHEAD_BYTES
    }

    /// Whether a writer that waits is woken: a third of the buffer is free.
    pub(crate) fn is_writable(&self) -> bool {
        let charged = self.charged();
        self.send_buffer.saturating_sub(charged) >= charged / 2
    }

    /// The application fixes the size of the send buffer.
    pub(crate) fn set_send_buffer(&mut self, bytes: u64) {
        self.send_buffer = bytes;
        self.send_buffer_max = 0;
    }

    /// A writer got everything it wanted into the buffer, or not.
    pub(crate) fn note_writer(&mut self, satisfied: bool) {
        self.starved |= !satisfied || self.charged() >= self.send_buffer;
    }

    /// Tells the state of the engine before it is polled.
    pub(crate) fn prepare(&mut self, segment_size: usize, acked: u64, inspection: &Inspection) {
        let window_max = inspection.send_window_max;
        self.segment_size = (segment_size as u64).max(1);
        if acked > self.acked {
            // Any acknowledgement ends what MSG_MORE holds.
            self.hold = false;
        }
        self.acked = acked;
        if self.send_buffer_max > 0 && self.starved {
            // Linux lets the buffer grow to twice what the congestion window needs, when a writer has found it full.
            let segments = inspection.congestion_window.div_ceil(self.segment_size);
            let wanted = 2 * segments * SEGMENT_CHARGE_BYTES;
            self.send_buffer = self.send_buffer.max(wanted.min(self.send_buffer_max));
        }
        if self.starved && self.is_writable() {
            self.starved = false;
            self.write_edges += 1;
        }
        // Linux bounds a buffer to half the peer's largest window once that is larger than 536.
        self.window_half = if window_max > 536 { window_max / 2 } else { window_max };
    }

    /// Most bytes a buffer takes: whole segments.
    fn buffer_goal(&self) -> u64 {
        let bound = BUFFER_BYTES_MAX.min(self.window_half.max(68));
        (bound / self.segment_size * self.segment_size).max(self.segment_size)
    }

    /// Appends up to `wanted` bytes to one buffer; zero if that would need a new one and the send buffer is full, or
    /// holds `unsent_max` bytes that were not sent (`TCP_NOTSENT_LOWAT`). Call again, after letting the
    /// engine transmit, until all is taken.
    pub(crate) fn append(&mut self, wanted: u64, unsent_max: u64) -> u64 {
        let goal = self.buffer_goal();
        let full = self.charged() >= self.send_buffer || self.unsent_bytes() >= unsent_max;
        let tail = self.unsent.back_mut().filter(|tail| !tail.sealed && tail.end - tail.start < goal);
        let taken = match tail {
            Some(tail) => {
                let taken = wanted.min(goal - (tail.end - tail.start));
                tail.end += taken;
                tail.push = false;
                taken
            }
            None if full => return 0,
            None => {
                let taken = wanted.min(goal);
                self.unsent.push_back(Buffer {
                    start: self.written,
                    end: self.written + taken,
                    push: false,
                    sealed: false,
                });
                taken
            }
        };
        self.written += taken;
        let full = self.unsent.back().is_some_and(|tail| tail.end - tail.start >= goal);
        if full && self.written > self.pushed.saturating_add(self.window_half) {
            self.mark_push();
        }
        taken
    }

    /// Whether the receive buffer has no room: a peer that sends all the same is answered at once.
    fn is_full(&self) -> bool {
        self.unread >= self.receive_space
    }

    /// Whether a writer waits for room.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved
    }

    /// Whether everything appended may leave in full segments: then the engine may be polled between appends.
    pub(crate) fn ends_full(&self) -> bool {
        self.unsent_bytes().is_multiple_of(self.segment_size)
    }

    fn mark_push(&mut self) {
        if let Some(tail) = self.unsent.back_mut() {
            tail.push = true;
        }
        self.pushed = self.written;
    }

    /// A write has ended; `sealed`, with a record (`MSG_EOR`).
    pub(crate) fn end_write(&mut self, more: bool, sealed: bool) {
        self.hold = more;
        if let Some(tail) = self.unsent.back_mut() {
            tail.sealed |= sealed;
        }
        if !more {
            self.mark_push();
        }
    }

    /// Everything written leaves: `TCP_NODELAY` was set, the cork drawn.
    pub(crate) fn flush(&mut self) {
        self.flush_to = self.written;
        self.hold = false;
    }

    /// What was held back for too long leaves, pushed.
    pub(crate) fn release_held(&mut self) {
        self.flush();
        self.mark_push();
        self.held_since = None;
    }

    /// Something is held back and nothing in flight will release it.
    pub(crate) fn is_stuck(&self) -> bool {
        self.unsent_bytes() > 0 && self.in_flight() == 0 && self.releasable() == 0
    }

    /// Bytes of the first buffer that may leave as far as the socket is concerned.
    fn releasable(&self) -> u64 {
        let Some(first) = self.unsent.front() else { return 0 };
        let length = first.end - first.start;
        let held = length < self.segment_size && self.holds_partial(first.end);
        if held { 0 } else { length }
    }

    /// Whether less than a segment, ending at `end`, waits for more.
    fn holds_partial(&self, end: u64) -> bool {
        // Only the end of what was written can grow, and FIN lets it go.
        if end != self.written || self.finish || end <= self.flush_to {
            return false;
        }
        if self.hold || self.cork {
            return true;
        }
        // Nagle (RFC 9293 section 3.7.4) with Minshall's relaxation: wait only for a small segment in flight.
        !self.nodelay && self.in_flight() > 0 && self.small_end > self.acked
    }

    /// Takes up to `wanted` bytes for the application.
    pub(crate) fn read(&mut self, wanted: u64, peek: bool) -> u64 {
        let taken = wanted.min(self.unread);
        if !peek {
            self.unread -= taken;
        }
        taken
    }

    /// When what is held back with nothing in flight is released.
    pub(crate) fn held_deadline(&self, timeout: Duration) -> Option<Instant> {
        self.held_since.map(|since| since + timeout)
    }
}

impl SegmentSource for Stream {
    fn demand(&mut self, _now: Instant) -> Demand {
        if self.releasable() > 0 { Demand::Data } else { Demand::Nothing }
    }

    fn cut(&mut self, now: Instant, _state: &SendState, cut: &mut dyn Cut) {
        let available = self.releasable();
        let mut count = available.min(cut.room() as u64);
        // A buffer that is no whole number of segments gives its whole segments first.
        let whole = available / self.segment_size * self.segment_size;
        let partial = available - whole;
        if count > whole && whole > 0 {
            count = whole;
        }
        if whole > 0 && partial > 0 && count > self.segment_size {
            count = count / self.segment_size * self.segment_size;
        }
        let Some(first) = self.unsent.front_mut() else { return };
        cut.append(&vec![0; count as usize]);
        first.start += count;
        let ended = first.start == first.end;
        self.last_ended = ended;
        self.last_push = ended && first.push;
        if ended {
            self.unsent.pop_front();
        }
        self.cut += count;
        if count < self.segment_size {
            self.small_end = self.cut;
        }
        self.acks.on_data_sent(now);
    }

    fn next_demand(&self) -> Option<Instant> {
        None
    }

    fn finished(&self) -> bool {
        self.finish && self.unsent_bytes() == 0
    }

    fn queued_bytes(&self) -> Option<u64> {
        Some(self.unsent_bytes())
    }

    fn pushes(&self) -> Option<bool> {
        Some(self.last_push)
    }
}

impl SegmentSink for Stream {
    fn deliver(&mut self, now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        self.received += bytes.len() as u64;
        self.last_data_received = now;
        if !self.reader_gone {
            self.unread += bytes.len() as u64;
        }
        Ok(self.acks.on_data(now, bytes.len() as u64))
    }

    fn room(&self) -> usize {
        self.receive_space.saturating_sub(self.unread) as usize
    }

    fn beyond_window(&self) -> BeyondWindow {
        // Linux takes what is too long whole while its queue is empty, and not at all otherwise.
        if self.unread == 0 { BeyondWindow::Take } else { BeyondWindow::Refuse }
    }

    fn on_peer_finished(&mut self, _now: Instant) {
        self.peer_finished = true;
    }

    fn finish_urgency(&self) -> AckUrgency {
        // Linux lets the acknowledgement of a FIN wait for ours to ride on.
        if self.finish || self.finish_acked_at_once || self.is_full() {
            AckUrgency::Now
        } else {
            AckUrgency::Normal
        }
    }
}
