//! The receiving half: RCV.NXT, the advertised window, when to acknowledge, what to SACK.

use core::time::Duration;

use super::ack_delay::AckDelay;
use super::reassembly::{Insert, Reassembly};
use super::segment::{SackBlock, SackBlocks};
use super::sequence::SeqNumber;
use super::source::{AckUrgency, BeyondWindow, SegmentSink, SinkFault};
use crate::time::Instant;

/// When the next acknowledgement is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckDue {
    /// Nothing to acknowledge.
    No,
    /// At this instant at the latest.
    At(Instant),
    /// With the next opportunity.
    Now,
}

/// What a segment's payload and FIN did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Received {
    /// Bytes passed to the sink in order.
    pub(crate) delivered_bytes: u64,
    /// The peer's FIN was reached in order by this segment.
    pub(crate) finished: bool,
    /// It (or part of it) was held already.
    pub(crate) duplicate: bool,
    /// It came ahead of a gap.
    pub(crate) out_of_order: bool,
    /// A bound on out-of-order data made it unwelcome.
    pub(crate) refused: bool,
}

/// Receive sequence space (RFC 9293 section 3.3.1), in stream offsets of the peer's stream (0 is its SYN).
#[derive(Debug)]
pub(crate) struct Receiver {
    /// The peer's initial sequence number (IRS).
    pub(crate) initial: SeqNumber,
    /// RCV.NXT.
    pub(crate) next: u64,
    /// Right edge of the window as advertised; never moves left.
    pub(crate) window_end: u64,
    /// RCV.NXT as last told to the peer (RFC 7323 "Last.ACK.sent").
    pub(crate) acked: u64,
    /// Largest window offered now; grows up to `window_max`.
    window: u64,
    window_max: u64,
    /// A window's worth began to be received at this instant, and ends at this offset.
    tuning: (Instant, u64),
    segment_size: u64,
    /// Largest payload seen: what a full segment of this peer is (RFC 1122 section 4.2.3.2), bytes.
    full_segment: u64,
    /// What the sink will take beyond `next`.
    room: u64,
    reassembly: Reassembly,
    /// Offset of the peer's FIN once seen.
    fin_at: Option<u64>,
    /// Duplicate range to report once (RFC 2883).
    duplicate: Option<(u64, u64)>,
    due: AckDue,
    /// In-order bytes since the last acknowledgement.
    unacked_bytes: u64,
    ack_delay: AckDelay,
}

/// Bounds and sizes of a [`Receiver`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceiverLimits {
    pub(crate) window_bytes: u64,
    pub(crate) window_max_bytes: u64,
    pub(crate) segment_size: u64,
    pub(crate) out_of_order_bytes_max: usize,
    pub(crate) holes_max: usize,
    /// Least and greatest delay of an acknowledgement.
    pub(crate) ack_delay: (Duration, Duration),
}

impl Receiver {
    /// A receiver that has not seen the peer's SYN.
    pub(crate) fn new(limits: ReceiverLimits) -> Self {
        Receiver {
            initial: SeqNumber(0),
            next: 0,
            window_end: 0,
            acked: 0,
            window: limits.window_bytes.min(limits.window_max_bytes),
            window_max: limits.window_max_bytes,
            tuning: (Instant::ZERO, 0),
            segment_size: limits.segment_size,
            full_segment: 1,
            room: limits.window_max_bytes,
            reassembly: Reassembly::new(limits.out_of_order_bytes_max, limits.holes_max),
            fin_at: None,
            duplicate: None,
            due: AckDue::No,
            unacked_bytes: 0,
            ack_delay: AckDelay::new(limits.ack_delay),
        }
    }

    /// The peer's SYN with this sequence number was accepted.
    pub(crate) fn on_syn(&mut self, initial: SeqNumber) {
        self.initial = initial;
        self.next = 1;
        // No more than a SYN can have promised: what is promised once cannot be taken back.
        self.window_end = 1 + u64::from(self.syn_window());
        self.due = AckDue::Now;
    }

    /// The window field of a SYN: never scaled (RFC 7323 section 2.2).
    pub(crate) fn syn_window(&self) -> u16 {
        self.room.min(self.window).min(u64::from(u16::MAX)) as u16
    }

    pub(crate) fn due(&self) -> AckDue {
        self.due
    }

    /// Whether in-order bytes wait for their acknowledgement.
    pub(crate) fn has_unacked(&self) -> bool {
        self.unacked_bytes > 0
    }

    pub(crate) fn acknowledge_now(&mut self) {
        self.due = AckDue::Now;
    }

    /// The delayed-ACK timer fired.
    pub(crate) fn on_ack_timer(&mut self) {
        if self.due != AckDue::No {
            self.due = AckDue::Now;
        }
    }

    pub(crate) fn out_of_order_bytes(&self) -> usize {
        self.reassembly.bytes()
    }

    /// Whether a segment at `offset` of `length` sequence numbers is acceptable (RFC 9293 section 3.10.7.4, table 6).
    pub(crate) fn is_acceptable(&self, offset: Option<u64>, length: u64) -> bool {
        let Some(offset) = offset else { return false };
        let window = self.window_end - self.next;
        match (length, window) {
            // With a zero window payload is refused, but the ACK of a probe at the very edge is still taken:
            // `on_payload` trims the payload away.
            (_, 0) => offset == self.next,
            (0, _) => (self.next..self.window_end).contains(&offset),
            (_, _) => offset < self.window_end && offset + length > self.next,
        }
    }

    /// Whether `offset` is left of the window by no more than a window: there begin retransmissions and probes of a
    /// peer whose acknowledgements were lost, and nothing else does.
    pub(crate) fn is_recent(&self, offset: u64) -> bool {
        offset <= self.next && self.next - offset <= self.window_max + 1
    }

    /// A segment of `bytes` of payload arrived from a peer that sends `bytes_max` in one at most. What is longer was put
    /// together on the way, or never cut, and counts as the segments that it is.
    pub(crate) fn note_segment(&mut self, bytes: usize, bytes_max: usize) {
        self.full_segment = self.full_segment.max(bytes.min(bytes_max) as u64);
    }

    /// Whether `bytes` at RCV.NXT are simply what comes next: within the window, with no gap behind them, and no FIN seen.
    pub(crate) fn is_plain(&self, bytes: usize) -> bool {
        bytes > 0
            && self.next + bytes as u64 <= self.window_end
            && self.reassembly.is_empty()
            && self.fin_at.is_none()
    }

    /// [`Self::on_payload`] for what [`Self::is_plain`].
    pub(crate) fn on_next(
        &mut self,
        now: Instant,
        payload: &[u8],
        sink: &mut dyn SegmentSink,
    ) -> Result<(), SinkFault> {
        let mut received = Received::default();
        self.ack_delay.on_arrival(now);
        self.deliver(now, payload, sink, &mut received)?;
        self.schedule(now, &received);
        Ok(())
    }

    /// Takes the payload at `offset` (already found acceptable) and FIN after it.
    pub(crate) fn on_payload(
        &mut self,
        now: Instant,
        offset: u64,
        payload: &[u8],
        fin: bool,
        sink: &mut dyn SegmentSink,
    ) -> Result<Received, SinkFault> {
        let mut received = Received::default();
        self.ack_delay.on_arrival(now);
        let end = offset + payload.len() as u64;
        if fin && end <= self.window_end {
            // A second FIN elsewhere would be a broken peer; the first stands.
            self.fin_at.get_or_insert(end);
        }
        // Trim to the window and to what is new.
        if end > self.window_end && !self.accept_overshoot(offset, end, fin, sink.beyond_window()) {
            self.due = AckDue::Now;
            received.refused = true;
            return Ok(received);
        }
        let limit = self.window_end.min(self.fin_at.unwrap_or(u64::MAX));
        let fitting = (limit.saturating_sub(offset) as usize).min(payload.len());
        if fitting < payload.len() {
            self.due = AckDue::Now;
        }
        let payload = &payload[..fitting];
        let old = (self.next.saturating_sub(offset) as usize).min(payload.len());
        if old > 0 {
            received.duplicate = true;
            self.duplicate = Some((offset, offset + old as u64));
            self.due = AckDue::Now;
        }
        let (offset, payload) = (offset + old as u64, &payload[old..]);
        if !payload.is_empty() {
            if offset == self.next {
                self.deliver(now, payload, sink, &mut received)?;
                self.drain(now, sink, &mut received)?;
            } else {
                self.hold(now, offset, payload, sink, &mut received);
            }
        }
        if self.fin_at == Some(self.next) {
            self.next += 1;
            self.window_end = self.window_end.max(self.next);
            // The peer has nothing left to repair: a D-SACK would come too late to be of use.
            self.duplicate = None;
            received.finished = true;
            sink.on_peer_finished(now);
            if sink.finish_urgency() == AckUrgency::Now {
                self.due = AckDue::Now;
            } else if self.due == AckDue::No {
                self.due = AckDue::At(now + self.ack_delay.get());
            }
        } else if fin {
            self.due = AckDue::Now;
        }
        self.schedule(now, &received);
        Ok(received)
    }

    /// A segment ends beyond the window: whether anything of it is taken. Moves the edge if all of it is.
    fn accept_overshoot(&mut self, offset: u64, end: u64, fin: bool, choice: BeyondWindow) -> bool {
        match choice {
            BeyondWindow::Trim => true,
            BeyondWindow::Refuse => false,
            BeyondWindow::Take => {
                if offset <= self.next && self.fin_at.is_none() {
                    self.window_end = end;
                    self.fin_at = fin.then_some(end);
                }
                true
            }
        }
    }

    fn deliver(
        &mut self,
        now: Instant,
        bytes: &[u8],
        sink: &mut dyn SegmentSink,
        received: &mut Received,
    ) -> Result<(), SinkFault> {
        self.next += bytes.len() as u64;
        self.room = self.room.saturating_sub(bytes.len() as u64);
        received.delivered_bytes += bytes.len() as u64;
        self.unacked_bytes += bytes.len() as u64;
        if sink.deliver(now, bytes)? == AckUrgency::Now {
            self.due = AckDue::Now;
        }
        Ok(())
    }

    /// Delivers what the gap just closed had held back.
    fn drain(
        &mut self,
        now: Instant,
        sink: &mut dyn SegmentSink,
        received: &mut Received,
    ) -> Result<(), SinkFault> {
        if let Some(covered) = self.reassembly.covered_before(self.next) {
            // RFC 2883 section 4: report what came again, the first of several ranges.
            received.duplicate = true;
            self.duplicate = Some(covered);
            self.due = AckDue::Now;
        }
        while let Some((old, piece)) = self.reassembly.take_at(self.next) {
            // RFC 5681 section 4.2: acknowledge at once what fills a gap.
            self.due = AckDue::Now;
            self.deliver(now, &piece[old..], sink, received)?;
        }
        Ok(())
    }

    fn hold(
        &mut self,
        now: Instant,
        offset: u64,
        payload: &[u8],
        sink: &mut dyn SegmentSink,
        received: &mut Received,
    ) {
        received.out_of_order = true;
        // RFC 5681 section 4.2: acknowledge out-of-order data at once.
        self.due = AckDue::Now;
        match self.reassembly.insert(offset, payload) {
            Insert::Stored => {
                sink.peek_ahead(now, offset, payload);
            }
            Insert::Duplicate => {
                received.duplicate = true;
                self.duplicate = Some((offset, offset + payload.len() as u64));
            }
            Insert::Refused => received.refused = true,
        }
    }

    /// RFC 1122 section 4.2.3.2: at least every second full segment, and within the delay.
    fn schedule(&mut self, now: Instant, received: &Received) {
        if received.delivered_bytes == 0 || self.due == AckDue::Now {
            return;
        }
        if self.unacked_bytes >= 2 * self.full_segment {
            self.due = AckDue::Now;
        } else if self.due == AckDue::No {
            self.due = AckDue::At(now + self.ack_delay.get());
        }
    }

    /// A whole window received within four round trips means that the window may be what limits the peer: offer
    /// twice as much (after "dynamic right-sizing", Fisk and Feng 2001).
    pub(crate) fn tune(&mut self, now: Instant, round_trip: Option<Duration>) {
        let (since, target) = self.tuning;
        if self.next < target || self.window >= self.window_max {
            return;
        }
        if target > 0 && round_trip.is_some_and(|rtt| now - since <= rtt * 4) {
            self.window = (self.window * 2).min(self.window_max);
        }
        self.tuning = (now, self.next + self.window);
    }

    /// The whole segment lies before the window: report it as a duplicate (RFC 2883 section 4).
    pub(crate) fn note_duplicate(&mut self, offset: u64, length: u64) {
        self.duplicate = Some((offset, offset + length));
    }

    /// The sink will take `room` bytes beyond RCV.NXT. Says whether the peer should be told now.
    pub(crate) fn set_room(&mut self, room: u64) -> bool {
        self.room = room;
        let told = self.window_end.saturating_sub(self.next);
        let could = self.window_target().saturating_sub(self.next);
        let gain = could.saturating_sub(told);
        // Receiver's silly window avoidance (RFC 9293 section 3.8.6.2.2), and no flood of updates while the peer
        // still has plenty.
        let worthwhile = gain >= (self.window / 2).min(2 * self.segment_size);
        let wanted = told < 2 * self.segment_size || gain >= self.window / 2;
        // Before the first byte the window of the SYN is enough: every acknowledgement says more.
        if self.next > 1 && worthwhile && wanted {
            self.due = AckDue::Now;
            return true;
        }
        false
    }

    /// Where the right edge may go.
    fn window_target(&self) -> u64 {
        self.window_end.max(self.next + self.room.min(self.window))
    }

    /// The window field for a segment that leaves now; moves the right edge. `shift` is our window scale.
    pub(crate) fn advertise(&mut self, shift: u8) -> u16 {
        let target = self.window_target();
        let gain = target - self.window_end;
        if gain >= self.segment_size.min(self.window / 2) || self.window_end < self.next {
            self.window_end = target;
        }
        // The field rounds down by the scale; the edge itself stays, so that it never moves left.
        ((self.window_end - self.next) >> shift).min(u64::from(u16::MAX)) as u16
    }

    /// An acknowledgement of everything received leaves now.
    pub(crate) fn on_ack_sent(&mut self) {
        self.acked = self.next;
        self.due = AckDue::No;
        self.unacked_bytes = 0;
    }

    /// SACK blocks for a segment that leaves now, D-SACK first; at most `limit`.
    pub(crate) fn take_sack_blocks(&mut self, limit: usize) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        let mut left = limit;
        if limit == 0 {
            return blocks;
        }
        let block = |start, end| SackBlock { start: self.initial.at(start), end: self.initial.at(end) };
        if let Some((start, end)) = self.duplicate.take() {
            blocks.push(block(start, end));
            left -= 1;
        }
        self.reassembly.sack_ranges(left, |start, end| blocks.push(block(start, end)));
        blocks
    }

    /// Whether a segment that leaves now has something to SACK.
    pub(crate) fn has_sack(&self) -> bool {
        self.duplicate.is_some() || !self.reassembly.is_empty()
    }

    /// See [`super::connection::Connection::touch`].
    pub(crate) fn touch(&self) -> u64 {
        self.next ^ self.window_max ^ self.full_segment ^ self.unacked_bytes ^ u64::from(self.has_sack())
    }

    /// The connection is over: free what is held.
    pub(crate) fn clear(&mut self) {
        self.reassembly.clear();
    }
}
