//! Opening: SYN, SYN-ACK and what they negotiate.

use super::{Connection, Recovery, SEGMENT_SIZE_DEFAULT, SEGMENT_SIZE_MIN, TimestampState};
use crate::tcp::config::{CloseReason, Config};
use crate::tcp::flight::SentSegment;
use crate::tcp::segment::{Header, Options, Outgoing, Segment, Timestamps};
use crate::tcp::sequence::SeqNumber;
use crate::tcp::source::SegmentSink;
use crate::tcp::state::{State, Transition};
use crate::time::Instant;

impl Connection {
    /// Opens actively: the first [`Self::poll_transmit`] gives the SYN.
    ///
    /// `initial_sequence` by RFC 6528, `timestamp_offset` likewise unpredictable.
    pub fn connect(
        now: Instant,
        config: &Config,
        initial_sequence: SeqNumber,
        timestamp_offset: u32,
    ) -> Self {
        Connection::new(now, config, initial_sequence, timestamp_offset, State::SynSent)
    }

    /// Opens passively in answer to `syn` (SYN set, ACK and RST clear): the first transmission is the SYN-ACK.
    pub fn accept(
        now: Instant,
        config: &Config,
        initial_sequence: SeqNumber,
        timestamp_offset: u32,
        syn: &Segment<'_>,
    ) -> Self {
        let mut connection =
            Connection::new(now, config, initial_sequence, timestamp_offset, State::SynReceived);
        connection.take_syn(&syn.header);
        connection
    }

    /// Whether `segment` would complete this half-open connection's handshake: the owner then needs a real sink.
    pub fn completes_handshake(&self, segment: &Segment<'_>) -> bool {
        let header = &segment.header;
        let acknowledges =
            header.ack.and_then(|ack| self.initial.offset_near(ack, self.una)) == Some(self.next);
        match self.state {
            State::SynReceived => {
                let offset = self.receiver.initial.offset_near(header.seq, self.receiver.next);
                let length = segment.payload.len() as u64 + u64::from(header.flags.fin);
                acknowledges
                    && !header.flags.rst
                    && !header.flags.syn
                    && self.next > 0
                    && self.receiver.is_acceptable(offset, length)
            }
            State::SynSent => acknowledges && header.flags.syn && !header.flags.rst,
            _ => false,
        }
    }

    /// Takes sequence number, window and options of the peer's SYN or SYN-ACK; what it does not offer is off.
    fn take_syn(&mut self, header: &Header) {
        let options = &header.options;
        self.receiver.on_syn(header.seq);
        self.peer_segment_size = options
            .segment_size_max
            .unwrap_or(SEGMENT_SIZE_DEFAULT)
            .max(SEGMENT_SIZE_MIN)
            .min(self.config.segment_size_max);
        match options.window_scale {
            // RFC 7323 section 2.3: a shift above 14 is taken as 14.
            Some(shift) if self.window_scaling => self.peer_shift = shift.min(14),
            _ => {
                self.own_shift = 0;
                self.window_scaling = false;
            }
        }
        self.sack &= options.sack_permitted;
        match (options.timestamps, &mut self.timestamps) {
            (Some(timestamps), Some(state)) => state.recent = Some(timestamps.value),
            _ => self.timestamps = None,
        }
        // RFC 3168 section 6.1.1: a SYN offers with ECE and CWR, a SYN-ACK agrees with ECE alone.
        let agreed = header.flags.ece && header.flags.cwr == header.ack.is_none();
        if !agreed {
            self.ecn = None;
        }
        // Nothing but SYN was sent yet: the initial window is of segments of the size just agreed (RFC 6928).
        self.congestion = Self::build_congestion(
            &self.config,
            self.segment_size() as u64,
            self.initial,
            self.timestamp_offset,
        );
        self.window_edge = 1 + u64::from(header.window);
        self.peer_window_max = u64::from(header.window);
        self.window_update_seq = 0;
        self.window_update_ack = 0;
    }

    /// RFC 9293 section 3.10.7.3.
    pub(super) fn on_segment_in_syn_sent(
        &mut self,
        now: Instant,
        segment: &Segment<'_>,
        sink: &mut dyn SegmentSink,
    ) {
        let header = &segment.header;
        let ack = header.ack.map(|ack| self.initial.offset_near(ack, self.una));
        let acceptable = ack == Some(Some(self.next)) && self.next > 0;
        if ack.is_some() && !acceptable {
            self.statistics.bad_acks += 1;
            if !header.flags.rst {
                self.pending_reset = super::reset_for(segment);
            }
            return;
        }
        if header.flags.rst {
            // RFC 5961 section 3.2: only a RST that acknowledges our SYN counts.
            if acceptable {
                self.close(CloseReason::Refused);
            }
            return;
        }
        if !header.flags.syn {
            return;
        }
        self.note_heard(now);
        self.take_syn(header);
        if acceptable {
            self.process_ack(now, self.next, header);
            self.establish();
            self.on_stream_bytes(now, 1, segment, sink);
        } else {
            // Simultaneous open: answer with SYN-ACK, which is our SYN once more with ACK.
            self.transition(Transition::SynCrossed);
            self.flight.mark_lost(|_| Some(true));
        }
    }

    pub(super) fn establish(&mut self) {
        self.transition(Transition::HandshakeDone);
        self.established_pending = true;
        self.recovery = Recovery::Open;
    }

    /// SYN or SYN-ACK, first or again.
    pub(super) fn transmit_syn(&mut self, now: Instant) -> Option<Outgoing> {
        if self.next == 0 {
            let stamp = self.rate.stamp(now, 0, 1);
            self.flight.push(SentSegment {
                offset: 0,
                length: 1,
                control: true,
                sacked: false,
                lost: false,
                urgent: false,
                push: false,
                transmissions: 1,
                sent_at: now,
                first_sent_at: now,
                stamp,
            });
            self.next = 1;
            self.timeout_base = now;
        } else if self.flight.first_lost().is_some() {
            let stamp = self.rate.stamp(now, self.flight.pipe(), 1);
            self.flight.on_retransmitted(0, now, stamp);
            if self.state == State::SynSent {
                // Some network may have dropped it for its ECN bits (RFC 3168 section 6.1.1.1).
                self.ecn = None;
            }
            self.statistics.retransmits += 1;
        } else {
            return None;
        }
        let answering = self.state == State::SynReceived;
        let mut header = Header { seq: self.initial.at(0), ..Header::default() };
        header.flags.syn = true;
        if self.ecn.is_some() {
            header.flags.ece = true;
            header.flags.cwr = !answering;
        }
        // The window of a SYN is never scaled (RFC 7323 section 2.2).
        header.window = if answering { self.receiver.advertise(0) } else { self.receiver.syn_window() };
        if answering {
            header.ack = Some(self.receiver.initial.at(self.receiver.next));
            self.receiver.on_ack_sent();
        }
        header.options = self.syn_options(now);
        self.last_sent_at = now;
        Some(Outgoing {
            header,
            payload_offset: 0,
            payload_length: 0,
            segment_size: self.segment_size(),
            ecn_capable: false,
        })
    }

    /// A SYN offers what is configured; a SYN-ACK confirms what both have.
    fn syn_options(&self, now: Instant) -> Options {
        Options {
            segment_size_max: Some(self.config.segment_size_max),
            window_scale: self.window_scaling.then_some(self.own_shift),
            sack_permitted: self.sack,
            timestamps: self.timestamps.map(|TimestampState { recent }| Timestamps {
                value: self.timestamp_at(now),
                echo: recent.unwrap_or(0),
            }),
            sack: Default::default(),
        }
    }
}
