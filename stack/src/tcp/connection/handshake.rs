//! Opening: SYN, SYN-ACK and what they negotiate.

use super::{Connection, Recovery, SEGMENT_SIZE_DEFAULT, SEGMENT_SIZE_MIN, TimestampState, window_shift};
use crate::tcp::config::{CloseReason, Config};
use crate::tcp::flight::SentSegment;
use crate::tcp::segment::{Flags, Header, Options, Outgoing, Segment, Timestamps};
use crate::tcp::sequence::SeqNumber;
use crate::tcp::source::SegmentSink;
use crate::tcp::state::{State, Transition};
use crate::time::Instant;

/// What both ends agree on in a handshake of which this end keeps nothing (RFC 4987 section 3.6): the peer's SYN, as
/// far as this end goes along with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynParameters {
    /// The peer's initial sequence number.
    pub sequence: SeqNumber,
    /// The peer's MSS, or less.
    pub segment_size_max: u16,
    /// The peer's window scale, if both scale.
    pub window_scale: Option<u8>,
    /// Whether both use SACK.
    pub sack_permitted: bool,
    /// Whether both use ECN.
    pub ecn: bool,
    /// The peer's last TSval, if both use timestamps.
    pub timestamp: Option<u32>,
}

impl SynParameters {
    /// What a connection with `config` and the sender of `syn` agree on.
    pub fn agreed(config: &Config, syn: &Header) -> Self {
        let Options { segment_size_max, window_scale, sack_permitted, timestamps, .. } = syn.options;
        SynParameters {
            sequence: syn.seq,
            segment_size_max: segment_size_max.unwrap_or(SEGMENT_SIZE_DEFAULT),
            window_scale: window_scale.filter(|_| config.window_scaling),
            sack_permitted: sack_permitted && config.sack,
            ecn: syn.flags.ece && syn.flags.cwr && config.offers_ecn(),
            timestamp: timestamps.filter(|_| config.timestamps).map(|timestamps| timestamps.value),
        }
    }

    /// The SYN-ACK that confirms this, for a connection of which nothing is kept: [`Connection::from_cookie`] makes
    /// it out of the answer. `timestamp` is our TSval; it is left out if the peer uses none.
    pub fn syn_ack(&self, config: &Config, initial_sequence: SeqNumber, timestamp: u32) -> Header {
        let window = config.receive_window_initial.min(config.receive_window_max);
        Header {
            seq: initial_sequence,
            ack: Some(self.sequence.add(1)),
            flags: Flags { syn: true, ece: self.ecn, ..Flags::default() },
            // What the receiver of a connection made with this configuration takes its SYN-ACK to have promised.
            window: u16::try_from(window).unwrap_or(u16::MAX),
            options: Options {
                segment_size_max: Some(config.segment_size_max),
                window_scale: self.window_scale.map(|_| window_shift(config.receive_window_max)),
                sack_permitted: self.sack_permitted,
                timestamps: self.timestamp.map(|echo| Timestamps { value: timestamp, echo }),
                sack: Default::default(),
            },
        }
    }

    /// The SYN as it would have been, had it said no more than was agreed.
    fn to_syn(self) -> Header {
        Header {
            seq: self.sequence,
            flags: Flags { syn: true, ece: self.ecn, cwr: self.ecn, ..Flags::default() },
            options: Options {
                segment_size_max: Some(self.segment_size_max),
                window_scale: self.window_scale,
                sack_permitted: self.sack_permitted,
                timestamps: self.timestamp.map(|value| Timestamps { value, echo: 0 }),
                sack: Default::default(),
            },
            ..Header::default()
        }
    }
}

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

    /// Opens passively from the acknowledgement of a SYN-ACK of which nothing was kept ([`SynParameters::syn_ack`], with
    /// the same configuration and `initial_sequence`). It is in SYN-RECEIVED, and [`Self::completes_handshake`] says
    /// whether that acknowledgement completes it.
    ///
    /// `timestamp_offset` must put our timestamps at or after the one of the SYN-ACK.
    pub fn from_cookie(
        now: Instant,
        config: &Config,
        initial_sequence: SeqNumber,
        timestamp_offset: u32,
        agreed: &SynParameters,
    ) -> Self {
        let mut connection =
            Connection::new(now, config, initial_sequence, timestamp_offset, State::SynReceived);
        connection.take_syn(&agreed.to_syn());
        // Our SYN is not in flight: only its acknowledgement tells that it was ever sent. No round-trip time follows.
        connection.una = 1;
        connection.next = 1;
        connection.receiver.on_ack_sent();
        connection
    }

    /// Whether this connection is in TIME-WAIT and `segment` is a SYN that cannot be an old duplicate, so that it may
    /// open a new one in its place (RFC 9293 section 3.10.7.4, RFC 6191): its timestamp is newer than the last one
    /// seen, or its sequence number lies beyond RCV.NXT and its timestamp is not older.
    ///
    /// The new connection's initial sequence number must lie beyond [`Self::next_sequence`].
    pub fn may_be_replaced_by(&self, segment: &Segment<'_>) -> bool {
        let header = &segment.header;
        let opens = header.flags.syn && !header.flags.rst && header.ack.is_none();
        if self.state != State::TimeWait || !opens {
            return false;
        }
        let beyond = self.receiver.initial.at(self.receiver.next).before(header.seq);
        let recent = self.timestamps.and_then(|state| state.recent);
        match (recent, header.options.timestamps) {
            (Some(recent), Some(timestamps)) => match timestamps.value.wrapping_sub(recent) as i32 {
                0 => beyond,
                newer => newer > 0,
            },
            _ => beyond,
        }
    }

    /// SND.NXT: the sequence number after the last one used.
    pub fn next_sequence(&self) -> SeqNumber {
        self.initial.at(self.next)
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
            .min(self.config.path_segment_size_max)
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
        self.peer_window_max = u32::from(header.window);
        self.window_update_seq = 0;
        // As if by an acknowledgement of nothing.
        self.window_update_span = 1 + u32::from(header.window);
        self.start_mtu_search();
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
            self.rare_count().bad_acks += 1;
            if !header.flags.rst {
                self.reset_with(super::reset_for(segment));
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
            self.rare_count().retransmits += 1;
            self.sends_again = true;
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
        header.window =
            if answering { self.receiver.advertise(&self.config, 0) } else { self.receiver.syn_window() };
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
