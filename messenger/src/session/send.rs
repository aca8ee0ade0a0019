//! The sending half: demand, and the cut.

use outrider_stack::tcp::source::{Cut, Demand, SendState};
use outrider_stack::time::Instant;

use super::lanes::{CutTerms, Step, Writer};
use super::{Acks, Session, SessionError, SessionEvent, Unacked};
use crate::codec::{ChunkKind, CloseCode, encode_ack, encode_close, encode_u64};
use crate::sparse::Moment;

/// What a cut put into its segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutSummary {
    /// An OOB message.
    pub oob: bool,
    /// Bytes in all.
    pub bytes: usize,
}

impl Session {
    /// Output. What there is to send.
    pub fn demand(&mut self, now: Instant) -> Demand {
        self.check_deadlines(now);
        if self.abort || !self.is_established {
            Demand::Nothing
        } else if self.is_opening() {
            Demand::Data
        } else if self.is_oob_due(now) {
            Demand::Urgent
        } else if self.has_control(now) || (self.can_send && self.life.queue.is_sendable()) {
            Demand::Data
        } else {
            Demand::Nothing
        }
    }

    /// Output. When [`Self::demand`] may rise, or a time limit run out, by the passing of time alone.
    pub fn next_demand(&self) -> Option<Instant> {
        let mut next = self.deadline;
        if self.may_send_oob() {
            next = next.or_sooner(self.life.oob.next_due());
        }
        if self.can_send {
            next = next.or_sooner(self.acks.due);
        }
        if let Some(opening) = &self.opening {
            next = next.or_sooner(opening.deadline);
        }
        next.get()
    }

    /// Output. Whether OOB messages may leave before retransmissions: the peer looks for them ahead of gaps.
    pub fn urgent_overtakes(&self) -> bool {
        self.urgent_overtakes
    }

    /// Output. Whether the last byte has been cut and the end of the stream shall follow.
    pub fn finished(&self) -> bool {
        self.closing && !self.is_opening() && self.control().close.is_none()
    }

    #[inline]
    fn check_deadlines(&mut self, now: Instant) {
        if let Some(opening) = self.opening.as_mut().filter(|opening| opening.deadline.is_due(now)) {
            opening.deadline = Moment::NEVER;
            let error = SessionError::HandshakeTimeout;
            self.events.push_back(SessionEvent::Fault(error));
            if let Some(code) = error.close_code() {
                self.close(now, code);
            }
        }
        if self.deadline.is_due(now) {
            self.on_deadline(now);
        }
    }

    fn on_deadline(&mut self, now: Instant) {
        self.deadline = Moment::NEVER;
        if self.closing {
            self.abort = true;
            return;
        }
        // Idleness is looked at when the limit may have been reached, which is not moved with every segment.
        let Some(idle) = self.config.idle_timeout else { return };
        let last = self.life.last_heard.get().max(self.last_cut.get()).unwrap_or(now);
        if last + idle > now {
            self.deadline = (last + idle).into();
        } else if !self.life.queue.is_empty() {
            self.deadline = (now + idle).into();
        } else {
            self.events.push_back(SessionEvent::Fault(SessionError::Idle));
            self.close(now, CloseCode::Idle);
        }
    }

    #[inline]
    fn has_control(&self, now: Instant) -> bool {
        let control = self.control.as_deref();
        control.is_some_and(|control| control.close.is_some())
            || (self.can_send
                && (control.is_some_and(|control| control.keepalive || control.keepalive_ack.is_some())
                    || self.acks.due.is_due(now)
                    || self.grant_due().is_some()))
    }

    #[inline]
    fn grant_due(&self) -> Option<u64> {
        if self.credit_held {
            return None;
        }
        let decoder = &self.decoder;
        self.life.credit.grant(decoder.credit_limit(), decoder.spent(), decoder.completed())
    }

    /// Output. Cuts the next segment: handshake, OOB, control, messages by priority.
    pub fn cut(&mut self, now: Instant, state: &SendState, cut: &mut dyn Cut) -> CutSummary {
        let mut writer = Writer::new(cut, self.segment_size());
        let mut oob = false;
        if !writer.urgent_only() {
            self.cut_handshake(&mut writer);
        }
        if !self.is_opening() {
            oob = self.cut_oob(now, state, &mut writer);
            if !writer.urgent_only() {
                self.cut_control(now, &mut writer);
                self.cut_messages(state.stream_offset, &mut writer);
            }
        }
        let bytes = writer.written();
        if bytes > 0 {
            self.last_cut = now.into();
            if state.bytes_in_flight == 0 {
                self.acked = state.stream_offset;
            }
            self.sent_end = state.stream_offset + bytes as u64;
            self.life.statistics.segments_cut += 1;
            self.life.statistics.stream_bytes_sent += bytes as u64;
        }
        CutSummary { oob, bytes }
    }

    fn cut_handshake(&mut self, writer: &mut Writer<'_>) {
        let Some(opening) = &mut self.opening else { return };
        let count = opening.unsent.len().min(writer.room());
        let bytes: Vec<u8> = opening.unsent.drain(..count).collect();
        if !bytes.is_empty() {
            writer.append(&bytes);
        }
        self.settle_opening();
    }

    fn cut_control(&mut self, now: Instant, writer: &mut Writer<'_>) {
        if self.can_send {
            if let Some(limit) = self.grant_due()
                && writer.append_chunk(ChunkKind::Credit, 0, &encode_u64(limit))
            {
                self.decoder.set_credit_limit(limit);
                self.life.statistics.credits_sent += 1;
            }
            if self.acks.due.is_due(now)
                && writer.append_chunk(ChunkKind::Ack, 0, &encode_ack(&self.life.received))
            {
                self.acks = Acks::default();
                self.life.statistics.acks_sent += 1;
            }
        }
        if self.control.is_some() {
            self.cut_due(now, writer);
        }
    }

    /// The control chunks that somebody asked for.
    fn cut_due(&mut self, now: Instant, writer: &mut Writer<'_>) {
        let mut control = self.control();
        if self.can_send {
            if let Some(stamp) = control.keepalive_ack
                && writer.append_chunk(ChunkKind::KeepaliveAck, 0, &encode_u64(stamp))
            {
                control.keepalive_ack = None;
            }
            if control.keepalive && writer.append_chunk(ChunkKind::Keepalive, 0, &encode_u64(now.as_nanos()))
            {
                control.keepalive = false;
            }
        }
        if let Some(code) = control.close
            && writer.append_chunk(ChunkKind::Close, 0, &encode_close(code))
        {
            control.close = None;
        }
        self.set_control(control);
    }

    fn cut_messages(&mut self, stream_offset: u64, writer: &mut Writer<'_>) {
        let terms = CutTerms { keeps: self.lossless, message_bytes_max: self.message_bytes_max };
        while self.can_send {
            match self.life.queue.append_chunk(terms, writer) {
                Step::Chunk => {}
                Step::Completed { payload_bytes } => {
                    let payload_bytes = payload_bytes as u64;
                    self.life.statistics.messages_sent += 1;
                    self.life.statistics.bytes_sent += payload_bytes;
                    let end = stream_offset + writer.written() as u64;
                    if !self.lossless {
                        self.unacked.push_back(Unacked { end, payload_bytes });
                    }
                }
                Step::Refused { payload_bytes } => {
                    self.life.statistics.messages_refused += 1;
                    self.life.released.add(payload_bytes);
                    tracing::warn!(payload_bytes, "message discarded: the peer takes none of this length");
                }
                Step::Stop => break,
            }
        }
    }

    /// Input. The peer's transport has everything before stream offset `offset`.
    pub fn on_acked(&mut self, now: Instant, offset: u64) {
        if offset > self.acked && self.is_lingering() {
            // What was cut before the close is still getting through.
            self.deadline = (now + self.config.close_linger).into();
        }
        self.acked = self.acked.max(offset);
        while let Some(message) = self.unacked.front().copied().filter(|message| message.end <= offset) {
            self.unacked.pop_front();
            self.life.released.add(message.payload_bytes as usize);
        }
        self.check_ended();
    }
}
