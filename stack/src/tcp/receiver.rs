//! The receiving half: RCV.NXT, the advertised window, when to acknowledge, what to SACK.

use core::time::Duration;

use super::ack_delay::AckDelay;
use super::config::Config;
use super::maybe::{FlightBytes, Maybe};
use super::reassembly::{Insert, Reassembly};
use super::rtt::RttEstimator;
use super::sack_news::SackNews;
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

/// [`Receiver::due_at`] when nothing is due, and when it is now.
const NOT_DUE: Instant = Instant::FAR_FUTURE;
const DUE_NOW: Instant = Instant::ZERO;

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

/// What is kept only while something is amiss: bytes ahead of a gap, or received twice.
#[derive(Debug)]
struct Amiss {
    reassembly: Reassembly,
    /// What SACK blocks have yet to tell.
    news: SackNews,
}

/// Receive sequence space (RFC 9293 section 3.3.1), in stream offsets of the peer's stream (0 is its SYN).
///
/// Its sizes and bounds are those of the connection's [`Config`], which the caller passes.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Receiver {
    /// RCV.NXT.
    pub(crate) next: u64,
    /// Right edge of the window as advertised; never moves left.
    pub(crate) window_end: u64,
    /// RCV.NXT as last told to the peer (RFC 7323 "Last.ACK.sent").
    pub(crate) acked: u64,
    /// [`AckDue`] in eight bytes: the far future for none, the epoch for now.
    due_at: Instant,
    last_arrival: Maybe<Instant>,
    /// A window's worth began to be received at this instant, and ends at this offset.
    tuning: (Instant, u64),
    /// Offset of the peer's FIN once seen.
    fin_at: Maybe<u64>,
    amiss: Option<Box<Amiss>>,
    /// Largest window offered now; grows up to the configured one.
    window: u32,
    /// What the sink will take beyond `next`.
    room: FlightBytes,
    ack_delay: AckDelay,
    /// In-order bytes since the last acknowledgement.
    unacked_bytes: u32,
    /// Largest payload seen: what a full segment of this peer is (RFC 1122 section 4.2.3.2), bytes.
    full_segment: u16,
    /// The peer's initial sequence number (IRS).
    pub(crate) initial: SeqNumber,
}

impl Receiver {
    /// A receiver that has not seen the peer's SYN.
    pub(crate) fn new(config: &Config) -> Self {
        Receiver {
            next: 0,
            window_end: 0,
            acked: 0,
            due_at: NOT_DUE,
            last_arrival: Maybe::NONE,
            tuning: (Instant::ZERO, 0),
            fin_at: Maybe::NONE,
            amiss: None,
            window: config.receive_window_initial.min(config.window_max()),
            room: u64::from(config.window_max()).into(),
            ack_delay: AckDelay::default(),
            unacked_bytes: 0,
            full_segment: 1,
            initial: SeqNumber(0),
        }
    }

    /// The peer's SYN with this sequence number was accepted.
    pub(crate) fn on_syn(&mut self, initial: SeqNumber) {
        self.initial = initial;
        self.next = 1;
        // No more than a SYN can have promised: what is promised once cannot be taken back.
        self.window_end = 1 + u64::from(self.syn_window());
        self.due_at = DUE_NOW;
    }

    /// Largest window offered now, bytes.
    fn window(&self) -> u64 {
        u64::from(self.window)
    }

    /// The window field of a SYN: never scaled (RFC 7323 section 2.2).
    pub(crate) fn syn_window(&self) -> u16 {
        self.room.at_most(self.window).min(u32::from(u16::MAX)) as u16
    }

    pub(crate) fn due(&self) -> AckDue {
        match self.due_at {
            NOT_DUE => AckDue::No,
            DUE_NOW => AckDue::Now,
            at => AckDue::At(at),
        }
    }

    /// The delayed acknowledgement of what has just arrived, unless one is due already.
    fn acknowledge_later(&mut self, now: Instant, config: &Config) {
        if self.due_at == NOT_DUE {
            self.due_at = now + self.ack_delay.get(config.ack_delay());
        }
    }

    /// Payload passed to the sink: all before RCV.NXT but SYN and FIN.
    pub(crate) fn payload_bytes(&self) -> u64 {
        let finished = self.fin_at.get().is_some_and(|fin| fin < self.next);
        self.next.saturating_sub(1 + u64::from(finished))
    }

    /// Whether in-order bytes wait for their acknowledgement.
    pub(crate) fn has_unacked(&self) -> bool {
        self.unacked_bytes > 0
    }

    pub(crate) fn acknowledge_now(&mut self) {
        self.due_at = DUE_NOW;
    }

    /// The delayed-ACK timer fired.
    pub(crate) fn on_ack_timer(&mut self) {
        if self.due_at != NOT_DUE {
            self.due_at = DUE_NOW;
        }
    }

    pub(crate) fn out_of_order_bytes(&self) -> usize {
        self.amiss.as_ref().map_or(0, |amiss| amiss.reassembly.bytes())
    }

    /// Bytes of memory held besides the receiver itself, those ahead of a gap included.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.out_of_order_bytes()
            + self.amiss.as_ref().map_or(0, |amiss| size_of::<Amiss>() + amiss.news.memory_bytes())
    }

    /// What is amiss, or is going to be.
    fn amiss_mut(&mut self, config: &Config) -> &mut Amiss {
        self.amiss.get_or_insert_with(|| {
            let reassembly = Reassembly::new(config.out_of_order_bytes_max, config.holes_max);
            Box::new(Amiss { reassembly, news: SackNews::default() })
        })
    }

    fn has_gap(&self) -> bool {
        self.amiss.as_ref().is_some_and(|amiss| !amiss.reassembly.is_empty())
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
    pub(crate) fn is_recent(&self, config: &Config, offset: u64) -> bool {
        offset <= self.next && self.next - offset <= u64::from(config.window_max()) + 1
    }

    /// A segment of `bytes` of payload arrived from a peer that sends `bytes_max` in one at most. What is longer was put
    /// together on the way, or never cut, and counts as the segments that it is.
    pub(crate) fn note_segment(&mut self, bytes: usize, bytes_max: usize) {
        let bytes = u16::try_from(bytes.min(bytes_max)).unwrap_or(u16::MAX);
        self.full_segment = self.full_segment.max(bytes);
    }

    fn note_arrival(&mut self, now: Instant, config: &Config) {
        let last = self.last_arrival.replace(now);
        self.ack_delay.on_arrival(last, now, config.ack_delay_max);
    }

    /// Whether `bytes` at RCV.NXT are simply what comes next: within the window, with no gap behind them, and no FIN seen.
    pub(crate) fn is_plain(&self, bytes: usize) -> bool {
        bytes > 0 && self.next + bytes as u64 <= self.window_end && !self.has_gap() && self.fin_at.is_none()
    }

    /// [`Self::on_payload`] for what [`Self::is_plain`].
    pub(crate) fn on_next(
        &mut self,
        now: Instant,
        config: &Config,
        payload: &[u8],
        sink: &mut dyn SegmentSink,
    ) -> Result<(), SinkFault> {
        let mut received = Received::default();
        self.note_arrival(now, config);
        self.deliver(now, payload, sink, &mut received)?;
        self.schedule(now, config, &received);
        Ok(())
    }

    /// Takes the payload at `offset` (already found acceptable) and FIN after it.
    pub(crate) fn on_payload(
        &mut self,
        now: Instant,
        config: &Config,
        offset: u64,
        payload: &[u8],
        fin: bool,
        sink: &mut dyn SegmentSink,
    ) -> Result<Received, SinkFault> {
        let mut received = Received::default();
        self.note_arrival(now, config);
        let end = offset + payload.len() as u64;
        if fin && end <= self.window_end {
            // A second FIN elsewhere would be a broken peer; the first stands.
            self.fin_at = Maybe::some(self.fin_at.get().unwrap_or(end));
        }
        // Trim to the window and to what is new.
        if end > self.window_end && !self.accept_overshoot(offset, end, fin, sink.beyond_window()) {
            self.due_at = DUE_NOW;
            received.refused = true;
            return Ok(received);
        }
        let limit = self.window_end.min(self.fin_at.get().unwrap_or(u64::MAX));
        let fitting = (limit.saturating_sub(offset) as usize).min(payload.len());
        if fitting < payload.len() {
            self.due_at = DUE_NOW;
        }
        let payload = &payload[..fitting];
        let old = (self.next.saturating_sub(offset) as usize).min(payload.len());
        if old > 0 {
            received.duplicate = true;
            self.amiss_mut(config).news.note_duplicate(offset, offset + old as u64);
            self.due_at = DUE_NOW;
        }
        let (offset, payload) = (offset + old as u64, &payload[old..]);
        if !payload.is_empty() {
            if offset == self.next {
                self.deliver(now, payload, sink, &mut received)?;
                self.drain(now, config, sink, &mut received)?;
            } else {
                self.hold((now, config), offset, payload, sink, &mut received);
            }
        }
        if self.fin_at.get() == Some(self.next) {
            self.next += 1;
            self.window_end = self.window_end.max(self.next);
            // The peer has nothing left to repair: a D-SACK would come too late to be of use.
            self.amiss.iter_mut().for_each(|amiss| amiss.news.forget_duplicates());
            received.finished = true;
            sink.on_peer_finished(now);
            if sink.finish_urgency() == AckUrgency::Now {
                self.due_at = DUE_NOW;
            } else {
                self.acknowledge_later(now, config);
            }
        } else if fin {
            self.due_at = DUE_NOW;
        }
        self.schedule(now, config, &received);
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
                    self.fin_at = fin.then_some(end).into();
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
        self.room = self.room.without(bytes.len());
        received.delivered_bytes += bytes.len() as u64;
        self.unacked_bytes = self.unacked_bytes.saturating_add(bytes.len() as u32);
        if sink.deliver(now, bytes)? == AckUrgency::Now {
            self.due_at = DUE_NOW;
        }
        Ok(())
    }

    /// The piece held that comes next, and how many of its first bytes are old.
    fn take_held(&mut self) -> Option<(usize, Vec<u8>)> {
        self.amiss.as_mut()?.reassembly.take_at(self.next)
    }

    /// Delivers what the gap just closed had held back.
    fn drain(
        &mut self,
        now: Instant,
        config: &Config,
        sink: &mut dyn SegmentSink,
        received: &mut Received,
    ) -> Result<(), SinkFault> {
        if !self.has_gap() {
            return Ok(());
        }
        let next = self.next;
        let amiss = self.amiss_mut(config);
        if let Some(covered) = amiss.reassembly.covered_before(next) {
            // RFC 2883 section 4: report what came again, the first of several ranges.
            received.duplicate = true;
            amiss.news.note_duplicate(covered.0, covered.1);
            self.due_at = DUE_NOW;
        }
        while let Some((old, piece)) = self.take_held() {
            // RFC 5681 section 4.2: acknowledge at once what fills a gap.
            self.due_at = DUE_NOW;
            self.deliver(now, &piece[old..], sink, received)?;
        }
        Ok(())
    }

    fn hold(
        &mut self,
        (now, config): (Instant, &Config),
        offset: u64,
        payload: &[u8],
        sink: &mut dyn SegmentSink,
        received: &mut Received,
    ) {
        received.out_of_order = true;
        // RFC 5681 section 4.2: acknowledge out-of-order data at once.
        self.due_at = DUE_NOW;
        let end = offset + payload.len() as u64;
        let amiss = self.amiss_mut(config);
        match amiss.reassembly.insert(offset, payload) {
            Insert::Stored => {
                amiss.news.note(offset, end);
                self.make_room_ahead(config, end);
                sink.peek_ahead(now, offset, payload);
            }
            Insert::Duplicate => {
                received.duplicate = true;
                amiss.news.note_duplicate(offset, end);
            }
            Insert::Refused => received.refused = true,
        }
    }

    /// What came ahead of a gap, up to `end`, may fill half of the window; more of it is offered then. To repair the gap
    /// takes a round trip and what is in flight meanwhile, and as much again for each repair that is lost: of that a
    /// sender learns only by what it sends afterwards, and must wait for its timeout if it may send no more.
    fn make_room_ahead(&mut self, config: &Config, end: u64) {
        if end - self.next > self.window() / 2 {
            self.grow_window(config);
        }
    }

    fn grow_window(&mut self, config: &Config) {
        self.window = self.window.saturating_mul(2).min(config.window_max());
    }

    /// RFC 1122 section 4.2.3.2: at least every second full segment, and within the delay.
    #[inline]
    fn schedule(&mut self, now: Instant, config: &Config, received: &Received) {
        if received.delivered_bytes == 0 {
            return;
        }
        if self.unacked_bytes >= 2 * u32::from(self.full_segment) {
            self.due_at = DUE_NOW;
        } else {
            self.acknowledge_later(now, config);
        }
    }

    /// A whole window received within four round trips means that the window may be what limits the peer: offer
    /// twice as much (after "dynamic right-sizing", Fisk and Feng 2001).
    #[inline]
    pub(crate) fn tune(&mut self, now: Instant, config: &Config, rtt: &RttEstimator) {
        if self.next >= self.tuning.1 && self.window < config.window_max() {
            self.tune_again(now, config, rtt.smoothed());
        }
    }

    fn tune_again(&mut self, now: Instant, config: &Config, round_trip: Option<Duration>) {
        let (since, target) = self.tuning;
        if target > 0 && round_trip.is_some_and(|rtt| now - since <= rtt * 4) {
            self.grow_window(config);
        }
        self.tuning = (now, self.next + self.window());
    }

    /// The whole segment lies before the window: report it as a duplicate (RFC 2883 section 4).
    pub(crate) fn note_duplicate(&mut self, config: &Config, offset: u64, length: u64) {
        self.amiss_mut(config).news.note_duplicate(offset, offset + length);
    }

    /// The sink will take `room` bytes beyond RCV.NXT. Says whether the peer should be told now.
    pub(crate) fn set_room(&mut self, config: &Config, room: u64) -> bool {
        self.room = room.into();
        let segment_size = u64::from(config.segment_size_max);
        let told = self.window_end.saturating_sub(self.next);
        let could = self.window_target().saturating_sub(self.next);
        let gain = could.saturating_sub(told);
        // Receiver's silly window avoidance (RFC 9293 section 3.8.6.2.2), and no flood of updates while the peer
        // still has plenty.
        let worthwhile = gain >= (self.window() / 2).min(2 * segment_size);
        let wanted = told < 2 * segment_size || gain >= self.window() / 2;
        // Before the first byte the window of the SYN is enough: every acknowledgement says more.
        if self.next > 1 && worthwhile && wanted {
            self.due_at = DUE_NOW;
            return true;
        }
        false
    }

    /// Where the right edge may go.
    fn window_target(&self) -> u64 {
        self.window_end.max(self.next + u64::from(self.room.at_most(self.window)))
    }

    /// The window field for a segment that leaves now; moves the right edge. `shift` is our window scale.
    pub(crate) fn advertise(&mut self, config: &Config, shift: u8) -> u16 {
        let target = self.window_target();
        let gain = target - self.window_end;
        if gain >= u64::from(config.segment_size_max).min(self.window() / 2) || self.window_end < self.next {
            self.window_end = target;
        }
        // The field rounds down by the scale; the edge itself stays, so that it never moves left.
        ((self.window_end - self.next) >> shift).min(u64::from(u16::MAX)) as u16
    }

    /// An acknowledgement of everything received leaves now.
    pub(crate) fn on_ack_sent(&mut self) {
        self.acked = self.next;
        self.due_at = NOT_DUE;
        self.unacked_bytes = 0;
    }

    /// SACK blocks for a segment that leaves now, D-SACK first; at most `limit`.
    pub(crate) fn take_sack_blocks(&mut self, limit: usize) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        let (initial, next) = (self.initial, self.next);
        let Some(Amiss { reassembly, news }) = self.amiss.as_deref_mut().filter(|_| limit > 0) else {
            return blocks;
        };
        news.tell(next, reassembly, limit, |start, end| {
            blocks.push(SackBlock { start: initial.at(start), end: initial.at(end) });
        });
        if reassembly.is_empty() && !news.has_untold(next) {
            // All is well again.
            self.amiss = None;
        }
        blocks
    }

    /// Whether a segment that leaves now has something to SACK.
    pub(crate) fn has_sack(&self) -> bool {
        self.amiss.as_ref().is_some_and(|amiss| !amiss.reassembly.is_empty()) || self.has_sack_news()
    }

    /// Whether there is something to SACK that no segment has told of.
    pub(crate) fn has_sack_news(&self) -> bool {
        self.amiss.as_ref().is_some_and(|amiss| amiss.news.has_untold(self.next))
    }

    /// The connection is over: free what is held.
    pub(crate) fn clear(&mut self) {
        self.amiss = None;
    }
}
