//! A segment arrives (RFC 9293 section 3.10.7.4).

use super::{Connection, Recovery};
use crate::tcp::config::CloseReason;
use crate::tcp::segment::{Header, Segment};
use crate::tcp::source::SegmentSink;
use crate::tcp::state::{State, Transition};
use crate::tcp::timers::Timer;
use crate::time::Instant;

impl Connection {
    /// Input. A segment arrived for this connection.
    pub fn on_segment(&mut self, now: Instant, segment: &Segment<'_>, sink: &mut dyn SegmentSink) {
        self.segments_received += 1;
        self.trace.received(now, &segment.header, segment.payload.len());
        match self.state {
            State::Closed => return,
            State::Established if self.is_next_expected(segment) => self.on_next_expected(now, segment, sink),
            State::SynSent => self.on_segment_in_syn_sent(now, segment, sink),
            _ => self.on_segment_synchronised(now, segment, sink),
        }
        if self.state.may_receive() {
            self.receiver.set_room(&self.config, sink.room() as u64);
        }
        // The other timers look at the connection again when they fire; they are set once nothing more may leave.
        self.arm_keepalive();
    }

    /// Header prediction (Jacobson and Braden, RFC 1185 and its successors): the segment is the next in order of a peer
    /// that sends, while nothing of ours is out and no gap is open. Then there is nothing to decide.
    fn is_next_expected(&self, segment: &Segment<'_>) -> bool {
        let header = &segment.header;
        let flags = header.flags;
        let receiver = &self.receiver;
        self.config.header_prediction
            && !(flags.syn || flags.fin || flags.rst)
            && header.seq == receiver.initial.at(receiver.next)
            && header.ack == Some(self.initial.at(self.una))
            && header.options.sack.as_slice().is_empty()
            && self.flight.is_empty()
            && !self.tail_probe_out
            && receiver.is_plain(segment.payload.len())
            && !self.is_old_by_timestamp(header)
    }

    /// What is left to do with such a segment of all that [`Self::on_segment_synchronised`] does.
    fn on_next_expected(&mut self, now: Instant, segment: &Segment<'_>, sink: &mut dyn SegmentSink) {
        let offset = self.receiver.next;
        self.note_heard(now);
        self.note_timestamp(&segment.header, offset);
        self.update_window(&segment.header, offset, self.una);
        self.note_mark(segment);
        self.note_segment_size(segment.payload.len());
        if self.receiver.on_next(now, &self.config, segment.payload, sink).is_err() {
            return self.close_with_reset(CloseReason::Unusable);
        }
        self.receiver.tune(now, &self.config, &self.rtt);
    }

    fn note_segment_size(&mut self, bytes: usize) {
        let bytes_max = usize::from(self.config.segment_size_max).saturating_sub(self.timestamp_bytes());
        self.receiver.note_segment(bytes, bytes_max);
    }

    /// Apart from the way of what was expected, which needs none of the registers that this does.
    #[inline(never)]
    fn on_segment_synchronised(&mut self, now: Instant, segment: &Segment<'_>, sink: &mut dyn SegmentSink) {
        let header = &segment.header;
        let offset = self.receiver.initial.offset_near(header.seq, self.receiver.next);
        let length = segment.payload.len() as u64 + u64::from(header.flags.syn) + u64::from(header.flags.fin);
        if !header.flags.rst && self.is_old_by_timestamp(header) {
            self.rare_count().paws_rejected += 1;
            self.receiver.acknowledge_now();
            return;
        }
        let Some(offset) = offset.filter(|_| self.receiver.is_acceptable(offset, length)) else {
            return self.on_unacceptable(now, segment, offset, length);
        };
        if header.flags.rst {
            return self.on_reset(now, offset);
        }
        if header.flags.syn {
            // RFC 5961 section 4.2.
            return self.challenge(now);
        }
        let Some(ack) = header.ack else { return };
        let Some(ack) = self.initial.offset_near(ack, self.una) else {
            self.rare_count().bad_acks += 1;
            return self.challenge(now);
        };
        if self.state == State::SynReceived && !self.complete_handshake(segment, ack) {
            return;
        }
        if !self.is_plausible_ack(ack) {
            self.rare_count().bad_acks += 1;
            return self.challenge(now);
        }
        self.note_heard(now);
        self.note_timestamp(header, offset);
        self.note_duplicate_ack(segment, ack);
        self.update_window(header, offset, ack);
        self.process_ack(now, ack, header);
        self.on_fin_acknowledged(now);
        if self.state != State::Closed {
            self.on_stream_bytes(now, offset, segment, sink);
        }
    }

    /// Neither of bytes never sent nor of bytes long gone (RFC 5961 section 5.2).
    fn is_plausible_ack(&self, ack: u64) -> bool {
        ack <= self.next && ack + u64::from(self.peer_window_max.max(1)) >= self.una
    }

    /// PAWS (RFC 7323 section 5.3, R1).
    fn is_old_by_timestamp(&self, header: &Header) -> bool {
        let recent = self.timestamps.and_then(|state| state.recent);
        match (recent, header.options.timestamps) {
            (Some(recent), Some(timestamps)) => (timestamps.value.wrapping_sub(recent) as i32) < 0,
            _ => false,
        }
    }

    /// RFC 7323 section 4.3, rule (2).
    fn note_timestamp(&mut self, header: &Header, offset: u64) {
        let acked = self.receiver.acked;
        if let (Some(state), Some(timestamps)) = (&mut self.timestamps, header.options.timestamps)
            && offset <= acked
        {
            state.recent = Some(timestamps.value);
        }
    }

    fn on_unacceptable(&mut self, now: Instant, segment: &Segment<'_>, offset: Option<u64>, length: u64) {
        self.rare_count().unacceptable_segments += 1;
        let header = &segment.header;
        if header.flags.rst {
            return;
        }
        match self.state {
            State::SynReceived if header.flags.syn && offset == Some(0) => {
                return self.on_syn_again(now, header);
            }
            // RFC 9293 section 3.10.7.4, eighth step: a retransmitted FIN restarts the wait.
            State::TimeWait if header.flags.fin => {
                self.timers.arm(Timer::TimeWait, now + self.config.time_wait);
            }
            _ => {}
        }
        if let Some(offset) =
            offset.filter(|offset| *offset < self.receiver.next && !segment.payload.is_empty())
        {
            self.rare_count().duplicate_segments += 1;
            self.receiver.note_duplicate(&self.config, offset, segment.payload.len() as u64);
        }
        if length > 0 {
            self.receiver.acknowledge_now();
        } else {
            // A keepalive or window probe wants an answer; two peers out of step must not volley without end.
            self.challenge(now);
        }
        // A segment just left of the window may still carry the latest acknowledgement and window.
        if let (Some(offset), Some(ack)) = (offset, header.ack)
            && self.receiver.is_recent(&self.config, offset)
            && self.state.is_synchronised()
            && !header.flags.syn
            && let Some(ack) =
                self.initial.offset_near(ack, self.una).filter(|ack| self.is_plausible_ack(*ack))
        {
            self.note_heard(now);
            self.update_window(header, offset, ack);
            self.process_ack(now, ack, header);
            self.on_fin_acknowledged(now);
        }
    }

    /// The peer's SYN once more while our SYN-ACK is out.
    fn on_syn_again(&mut self, now: Instant, header: &Header) {
        match header.ack.and_then(|ack| self.initial.offset_near(ack, self.una)) {
            // Simultaneous open: the peer's SYN-ACK acknowledges our SYN (RFC 9293 section 3.5, figure 8).
            Some(ack) if ack == self.next && self.next > 0 => {
                self.note_heard(now);
                self.process_ack(now, ack, header);
                self.establish();
                self.receiver.acknowledge_now();
            }
            Some(_) => {}
            // The peer did not get our SYN-ACK.
            None => {
                self.flight.mark_lost(|_| Some(true));
            }
        }
    }

    /// RFC 5961 section 3.2.
    fn on_reset(&mut self, now: Instant, offset: u64) {
        if offset != self.receiver.next {
            return self.challenge(now);
        }
        self.close(match self.state {
            // Everything was said in both directions; the peer only cleans up.
            State::TimeWait | State::Closing | State::LastAck => CloseReason::Finished,
            _ => CloseReason::Reset,
        });
    }

    /// The ACK of our SYN-ACK: whether it is one.
    fn complete_handshake(&mut self, segment: &Segment<'_>, ack: u64) -> bool {
        if ack == self.next && self.next > 0 {
            self.establish();
            return true;
        }
        self.rare_count().bad_acks += 1;
        self.reset_with(super::reset_for(segment));
        false
    }

    /// SND.WND, SND.WL1, SND.WL2 (RFC 9293 section 3.10.7.4, fifth step).
    fn update_window(&mut self, header: &Header, offset: u64, ack: u64) {
        let newer = offset > self.window_update_seq
            || (offset == self.window_update_seq
                && ack + u64::from(self.window_update_span) >= self.window_edge);
        if ack < self.una || !newer {
            return;
        }
        let window = u32::from(header.window) << self.peer_shift;
        self.window_edge = ack + u64::from(window);
        self.peer_window_max = self.peer_window_max.max(window);
        self.window_update_seq = offset;
        self.window_update_span = window;
    }

    /// Counts duplicate acknowledgements for peers without SACK (RFC 5681 section 2).
    fn note_duplicate_ack(&mut self, segment: &Segment<'_>, ack: u64) {
        let window = u64::from(segment.header.window) << self.peer_shift;
        let duplicate = ack == self.una
            && self.next > self.una
            && segment.payload.is_empty()
            && !segment.header.flags.fin
            && ack + window == self.window_edge;
        if !duplicate {
            return;
        }
        // No more can have left than was out, whatever the peer repeats (RFC 5681 section 3.2, step 4).
        let all_left = self.recovery == Recovery::Fast
            && self.departed_by_duplicates() >= self.rare_mut().reduction.flight_at_start();
        if !all_left {
            self.duplicate_acks += 1;
            self.replace_departed();
        }
    }

    /// ECN marks of a segment with payload.
    #[inline]
    fn note_mark(&mut self, segment: &Segment<'_>) {
        let Some(ecn) = self.ecn.as_mut().filter(|_| !segment.payload.is_empty()) else { return };
        let (marked, cwr) = (segment.congestion_experienced, segment.header.flags.cwr);
        if ecn.on_payload(marked, cwr, self.receiver.next, self.receiver.has_unacked()) {
            self.receiver.acknowledge_now();
        }
        if marked {
            self.rare_count().marked_segments += 1;
        }
    }

    /// The peer is alive.
    pub(super) fn note_heard(&mut self, now: Instant) {
        self.last_heard_at = now;
        self.keepalive_probes = 0;
    }

    fn on_fin_acknowledged(&mut self, now: Instant) {
        if !self.fin_sent || self.una < self.next {
            return;
        }
        let before = self.state;
        self.transition(Transition::FinAcked);
        match self.state {
            // Once: of what comes later only a FIN restarts the wait (RFC 9293 section 3.10.7.4, eighth step), or a peer
            // that goes on acknowledging would keep the connection for ever.
            State::TimeWait if before != State::TimeWait => self.enter_time_wait(now),
            // The last acknowledgement was ours to get: nothing is left to say.
            State::Closed => self.finish_closing(CloseReason::Finished),
            _ => {}
        }
    }

    fn enter_time_wait(&mut self, now: Instant) {
        self.disarm_all();
        self.timers.arm(Timer::TimeWait, now + self.config.time_wait);
    }

    /// Payload and FIN.
    pub(super) fn on_stream_bytes(
        &mut self,
        now: Instant,
        offset: u64,
        segment: &Segment<'_>,
        sink: &mut dyn SegmentSink,
    ) {
        let fin = segment.header.flags.fin;
        if !self.state.may_receive() || (segment.payload.is_empty() && !fin) {
            return;
        }
        self.note_mark(segment);
        self.note_segment_size(segment.payload.len());
        let received = match self.receiver.on_payload(now, &self.config, offset, segment.payload, fin, sink) {
            Ok(received) => received,
            Err(_) => return self.close_with_reset(CloseReason::Unusable),
        };
        self.receiver.tune(now, &self.config, &self.rtt);
        if received.duplicate || received.out_of_order || received.refused {
            let counts = self.rare_count();
            counts.duplicate_segments += u64::from(received.duplicate);
            counts.out_of_order_segments += u64::from(received.out_of_order);
            counts.out_of_order_refused += u64::from(received.refused);
        }
        if received.finished {
            self.transition(Transition::FinReceived);
            if self.state == State::TimeWait {
                self.enter_time_wait(now);
            }
        }
    }
}
