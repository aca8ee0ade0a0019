//! The next segment that may leave (RFC 9293 section 3.10.2, and the pull of `docs/architecture.md`).

use core::ops::Range;
use core::time::Duration;

use bytes::Bytes;

use super::{Connection, Recovery, Undo};
use crate::tcp::config::TransmitLimit;
use crate::tcp::congestion::CongestionEvent;
use crate::tcp::ecn::Ecn;
use crate::tcp::maybe::Maybe;
use crate::tcp::payload::PayloadStore;
use crate::tcp::receiver::AckDue;
use crate::tcp::recovery::TailProbe;
use crate::tcp::segment::{Flags, Header, Options, Outgoing, Timestamps};
use crate::tcp::source::{Blocked, Cut, Demand, SegmentSource, SendState};
use crate::tcp::state::{State, Transition};
use crate::tcp::timers::{Follower, Timer};
use crate::time::Instant;

/// The pacer lets segments go this much early, so that a run loop need not wake for every single one.
pub(super) const PACING_SLACK: Duration = Duration::from_micros(20);
/// A sender that slept past its turn may catch up by this much, and no more: it goes into the bottleneck's queue.
pub(super) const PACING_CATCH_UP: Duration = Duration::from_micros(100);

/// Rules that a transmission of new data may be exempt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exempt {
    None,
    /// A tail loss probe ignores congestion window and pacing (RFC 8985 section 7.3).
    Probe,
}

struct CutWriter<'a> {
    payload: &'a mut PayloadStore,
    room: usize,
    urgent_only: bool,
}

impl CutWriter<'_> {
    fn take_room(&mut self, bytes: usize) {
        assert!(bytes <= self.room, "a source must not append more than the room of its segment");
        self.room -= bytes;
    }
}

impl Cut for CutWriter<'_> {
    fn room(&self) -> usize {
        self.room
    }

    fn urgent_only(&self) -> bool {
        self.urgent_only
    }

    fn append(&mut self, bytes: &[u8]) {
        self.take_room(bytes.len());
        self.payload.append(bytes);
    }

    fn append_shared(&mut self, whole: &Bytes, range: Range<usize>) {
        self.take_room(range.len());
        self.payload.append_shared(whole, range);
    }
}

/// How long the pacer takes for `bytes` at `rate`, which is not zero.
pub(super) fn paced_time(bytes: u64, rate: u64) -> Duration {
    // A segment is far below the 18 GB at which this would saturate; 128 bits would cost a call per segment.
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate)
}

/// What `source` has to send after a cut, and whether the bytes just cut are to be pushed.
fn after_cut(now: Instant, source: &mut dyn SegmentSource) -> (Demand, bool) {
    let following = source.demand(now);
    (following, source.pushes().unwrap_or(following == Demand::Nothing))
}

impl Connection {
    /// Output. The next segment that may leave now, pulling payload from `source`. Call until `None`.
    ///
    /// What is returned counts as sent: a caller that cannot put it on the wire has lost it, as a network might.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        source: &mut dyn SegmentSource,
        limit: TransmitLimit,
    ) -> Option<Outgoing> {
        if self.has_reset_pending
            && let Some(mut header) = self.take_reset()
        {
            header.options.timestamps = self.timestamps_now(now);
            let outgoing = self.bare(header);
            self.count(now, &outgoing);
            return Some(outgoing);
        }
        let outgoing = match self.state {
            State::Closed => None,
            State::SynSent | State::SynReceived => self.transmit_syn(now),
            State::TimeWait => self.transmit_ack(now),
            _ => self.transmit_stream(now, source, limit),
        };
        match &outgoing {
            Some(outgoing) => self.count(now, outgoing),
            None => self.settle(now),
        }
        outgoing
    }

    fn count(&mut self, now: Instant, outgoing: &Outgoing) {
        self.segments_sent += outgoing.segments() as u64;
        self.last_sent_at = now;
        let again = core::mem::take(&mut self.sends_again);
        self.trace.sent(now, &outgoing.header, outgoing.payload_length, again);
    }

    fn bare(&self, header: Header) -> Outgoing {
        Outgoing {
            header,
            payload_offset: self.next,
            payload_length: 0,
            segment_size: self.segment_size(),
            ecn_capable: false,
        }
    }

    /// The packing order: OOB that the peer delivers ahead of gaps, retransmissions, new data (OOB at its head),
    /// tail probe, window probe, pure ACK.
    fn transmit_stream(
        &mut self,
        now: Instant,
        source: &mut dyn SegmentSource,
        limit: TransmitLimit,
    ) -> Option<Outgoing> {
        self.running.set(Follower::Pacing, false);
        if let Some(outgoing) = self.transmit_marked_ack(now) {
            return Some(outgoing);
        }
        let overtakes = self.flight.has_lost()
            && source.urgent_overtakes()
            && self.state.may_send()
            && source.demand(now) == Demand::Urgent;
        if overtakes && let Some(outgoing) = self.transmit_new(now, source, limit, Exempt::None) {
            return Some(outgoing);
        }
        if self.flight.has_lost()
            && let Some(outgoing) = self.retransmit_lost(now)
        {
            return Some(outgoing);
        }
        if core::mem::take(&mut self.tail_probe_due)
            && let Some(outgoing) = self.transmit_tail_probe(now, source, limit)
        {
            return Some(outgoing);
        }
        if let Some(outgoing) = self.transmit_new(now, source, limit, Exempt::None) {
            return Some(outgoing);
        }
        if core::mem::take(&mut self.window_probe_due) {
            return Some(self.transmit_probe(now));
        }
        self.transmit_ack(now)
    }

    fn transmit_ack(&mut self, now: Instant) -> Option<Outgoing> {
        let due = match self.receiver.due() {
            AckDue::No => false,
            AckDue::Now => true,
            AckDue::At(at) => at <= now,
        };
        due.then(|| {
            self.acks_sent += 1;
            let header = self.header_at(now, self.next, 4);
            self.bare(header)
        })
    }

    /// An acknowledgement of the bytes before a change of the mark (RFC 8257 section 3.2).
    fn transmit_marked_ack(&mut self, now: Instant) -> Option<Outgoing> {
        let marked = self.ecn.as_mut()?.take_pending()?;
        let due = self.receiver.due();
        let mut header = self.header_at(now, self.next, 0);
        // What it leaves unacknowledged is still due.
        if due != AckDue::No {
            self.receiver.acknowledge_now();
        }
        header.ack = Some(self.receiver.initial.at(marked.next));
        header.flags.ece = marked.echo;
        self.acks_sent += 1;
        Some(self.bare(header))
    }

    /// RFC 9293 section 3.8.6.1, with an old sequence number so that no new byte is spent: the answer tells the window.
    fn transmit_probe(&mut self, now: Instant) -> Outgoing {
        if self.keepalive_probes == 0 {
            self.rare_count().window_probes += 1;
        }
        let header = self.header_at(now, self.una - 1, 4);
        self.bare(header)
    }

    /// A header that acknowledges everything received, with up to `sack_blocks` SACK blocks.
    fn header_at(&mut self, now: Instant, offset: u64, sack_blocks: usize) -> Header {
        let window = self.receiver.advertise(&self.config, self.own_shift);
        // Option space is 40 bytes: timestamps leave room for three blocks.
        let sack_max = if self.timestamps.is_some() { 3 } else { 4 };
        let sack = match self.sack {
            true => self.receiver.take_sack_blocks(sack_blocks.min(sack_max)),
            false => Default::default(),
        };
        let header = Header {
            seq: self.initial.at(offset),
            ack: Some(self.receiver.initial.at(self.receiver.next)),
            flags: Flags { ece: self.ecn.as_deref().is_some_and(Ecn::echo), ..Flags::default() },
            window,
            options: Options { timestamps: self.timestamps_now(now), sack, ..Options::default() },
        };
        self.receiver.on_ack_sent();
        if self.sack && self.receiver.has_sack_news() {
            // A burst changed more than the blocks of one acknowledgement tell, or this segment has no room for any.
            self.receiver.acknowledge_now();
        }
        header
    }

    fn timestamps_now(&self, now: Instant) -> Option<Timestamps> {
        self.timestamps
            .map(|state| Timestamps { value: self.timestamp_at(now), echo: state.recent.unwrap_or(0) })
    }

    /// Whether congestion control and pacer let a segment of `bytes` go.
    fn gate(&mut self, now: Instant, bytes: u64) -> Result<(), Blocked> {
        let pipe = self.pipe_estimate();
        let reducing = self.recovery == Recovery::Fast && self.congestion.wants_rate_reduction();
        let open = if reducing {
            self.reduction_allowance() > 0
        } else {
            pipe == 0 || pipe + bytes <= self.congestion.window()
        };
        if !open {
            return Err(Blocked::CongestionWindow);
        }
        if self.pacing_rate().is_some() && self.paced_until > now + PACING_SLACK {
            self.running.set(Follower::Pacing, true);
            return Err(Blocked::Pacing);
        }
        Ok(())
    }

    /// Bytes thought to be in the network.
    pub(super) fn pipe_estimate(&self) -> u64 {
        self.flight.pipe().saturating_sub(self.departed_by_duplicates())
    }

    /// The controller's pacing rate, where segments are paced.
    pub(super) fn pacing_rate(&self) -> Option<u64> {
        self.congestion.pacing_rate().filter(|_| self.config.pacing)
    }

    /// Bytes known to have left the network by duplicate acknowledgements, where there is no SACK.
    pub(super) fn departed_by_duplicates(&self) -> u64 {
        if self.sack { 0 } else { u64::from(self.duplicate_acks) * self.segment_size() as u64 }
    }

    /// Charges `bytes` to pacer, rate reduction and controller. `pipe` is the pipe before them.
    fn charge(&mut self, now: Instant, bytes: u64, pipe: u64) {
        if let Some(rate) = self.pacing_rate().filter(|rate| *rate > 0) {
            let size = self.segment_size() as u64;
            let duration = if bytes <= size {
                paced_time(bytes, rate)
            } else {
                // Rounded as if they left one by one.
                let rest = bytes % size;
                let last = if rest == 0 { Duration::ZERO } else { paced_time(rest, rate) };
                paced_time(size, rate) * (bytes / size) as u32 + last
            };
            self.paced_until = self.paced_until.max(now - PACING_CATCH_UP) + duration;
        }
        if self.recovery == Recovery::Fast {
            self.rare_mut().reduction.on_sent(bytes);
        }
        self.congestion.on_sent(now, bytes, pipe);
    }

    /// Payload bytes of a segment that leaves now, with the SACK blocks it should carry.
    fn payload_room(&self) -> (usize, usize) {
        let size = self.segment_size();
        if self.sack && self.receiver.has_sack() {
            // Two blocks: 2 bytes of option, 8 a block, 2 of padding.
            (size.saturating_sub(20), 2)
        } else {
            (size, 0)
        }
    }

    fn retransmit_lost(&mut self, now: Instant) -> Option<Outgoing> {
        let segment = *self.flight.first_lost()?;
        let is_first = segment.offset == self.una;
        let fits_window = segment.end() <= self.window_edge;
        if !is_first && !fits_window {
            self.blocked = Blocked::PeerWindow;
            return None;
        }
        let size = self.segment_size() as u64;
        if let Err(blocked) = self.gate(now, u64::from(segment.length).min(size)) {
            self.blocked = blocked;
            return None;
        }
        Some(self.retransmit_at(now, segment.offset))
    }

    /// Sends the segment at `offset` again, cut to the present segment size.
    fn retransmit_at(&mut self, now: Instant, offset: u64) -> Outgoing {
        self.note_mtu_probe_resent(now, offset);
        let size = self.segment_size() as u64;
        if let Some(segment) = self.flight.at(offset) {
            let payload = u64::from(segment.length) - u64::from(segment.control);
            if payload > size {
                self.flight.split_at(offset + size);
            }
        }
        let segment = *self.flight.at(offset).expect("what is retransmitted is in flight");
        let pipe = self.flight.pipe();
        let stamp = self.rate.stamp(now, pipe, u64::from(segment.length));
        self.flight.on_retransmitted(offset, now, stamp);
        let payload_length = segment.length as usize - usize::from(segment.control);
        self.sends_again = true;
        let timestamp = self.timestamp_at(now);
        let rare = self.rare_mut();
        rare.statistics.retransmits += 1;
        rare.statistics.retransmitted_bytes += payload_length as u64;
        if rare.undo == Some(Undo::Waiting) {
            rare.undo = Some(Undo::Retransmitted { timestamp, end: segment.end() });
        }
        rare.undo_balance = rare.undo_balance.map(|balance| balance.saturating_add(1));
        if segment.offset == self.una {
            self.timeout_base = now;
        }
        self.charge(now, u64::from(segment.length), pipe);
        let fits_sack = payload_length + 20 <= self.segment_size();
        let mut header = self.header_at(now, segment.offset, if fits_sack { 2 } else { 0 });
        header.flags.psh = segment.push && payload_length > 0;
        header.flags.fin = segment.control;
        Outgoing {
            header,
            payload_offset: segment.offset,
            payload_length,
            segment_size: self.segment_size(),
            ecn_capable: false,
        }
    }

    fn transmit_tail_probe(
        &mut self,
        now: Instant,
        source: &mut dyn SegmentSource,
        limit: TransmitLimit,
    ) -> Option<Outgoing> {
        if let Some(outgoing) = self.transmit_new(now, source, limit, Exempt::Probe) {
            self.rare_count().tail_probes += 1;
            self.note_tail_probe(TailProbe { end: self.next, is_retransmission: false });
            return Some(outgoing);
        }
        let last = *self.flight.back()?;
        self.rare_count().tail_probes += 1;
        self.trace.tail_probe(now);
        self.note_tail_probe(TailProbe { end: self.next, is_retransmission: true });
        // Only the last segment's worth of a long one (RFC 8985 section 7.3).
        let size = self.segment_size() as u64;
        let from = last.offset.max(last.end().saturating_sub(size));
        self.flight.split_at(from);
        Some(self.retransmit_at(now, from))
    }

    /// Whether an out-of-band segment may exceed the congestion window now: one a round trip.
    fn may_exceed_window(&self, now: Instant) -> bool {
        let round = self.rtt.smoothed().unwrap_or(self.config.rto_initial);
        self.urgent_beyond_at().is_none_or(|at| now - at >= round)
    }

    /// New data and FIN.
    fn transmit_new(
        &mut self,
        now: Instant,
        source: &mut dyn SegmentSource,
        limit: TransmitLimit,
        exempt: Exempt,
    ) -> Option<Outgoing> {
        if !self.state.may_send() {
            return None;
        }
        let demand = source.demand(now);
        if demand == Demand::Nothing {
            self.note_idle();
            return if source.finished() { self.transmit_fin(now) } else { None };
        }
        let (size, sack_blocks) = self.payload_room();
        let mut urgent_only = false;
        if exempt == Exempt::None
            && let Err(blocked) = self.gate(now, size as u64)
        {
            if demand != Demand::Urgent || !self.may_exceed_window(now) {
                self.blocked = blocked;
                return None;
            }
            urgent_only = true;
        }
        let probe = self.mtu_probe_payload(now).filter(|_| !urgent_only && exempt == Exempt::None);
        // The SACK blocks of today are not for tomorrow's segments.
        let alone = urgent_only || demand == Demand::Urgent || exempt == Exempt::Probe || sack_blocks > 0;
        let several = if alone { size } else { self.room_at_once(size, limit.super_segment_bytes) };
        let room = self.window_room(now, probe.unwrap_or(several), size, demand, source)?;
        let room = if probe.is_none() { self.whole_segments(room, size) } else { room };
        let follow =
            if alone || room != size { 0 } else { self.train_behind(now, size, limit.train_segments) };
        self.restart_after_idle(now);
        let mut state = self.send_state(now);
        let mut length = self.cut(now, source, &state, room, urgent_only);
        if length == 0 {
            if room < size {
                self.await_window(now);
            }
            return None;
        }
        if urgent_only {
            self.rare_mut().urgent_beyond_at = Maybe::some(now);
            self.rare_count().urgent_beyond_window += 1;
        }
        let (mut following, mut push) = after_cut(now, source);
        for cut_before in 1..=follow {
            // A train ends where one of its segments is not full, is pushed, or is not followed by ordinary data.
            if length < cut_before * size || push || following != Demand::Data {
                break;
            }
            state.bytes_in_flight += size as u64;
            state.stream_offset += size as u64;
            state.blocked = Blocked::Nothing;
            length += self.cut(now, source, &state, size, false);
            (following, push) = after_cut(now, source);
        }
        let more = following != Demand::Nothing;
        let fin = !more && source.finished() && self.next + (length as u64) < self.window_edge;
        let sack_blocks = if probe.is_some() { 0 } else { sack_blocks };
        let is_probe = probe.is_some() && self.note_mtu_probe(self.next, length);
        let mut outgoing = self.push_new(now, length, fin, demand == Demand::Urgent, push, sack_blocks);
        if is_probe {
            // One segment, whatever the port would make of it.
            outgoing.segment_size = length;
        }
        Some(outgoing)
    }

    /// Has `source` cut its next bytes into `room`. Returns how many there are.
    fn cut(
        &mut self,
        now: Instant,
        source: &mut dyn SegmentSource,
        state: &SendState,
        room: usize,
        urgent_only: bool,
    ) -> usize {
        let mut cut = CutWriter { payload: self.flight.payload_mut(), room, urgent_only };
        source.cut(now, state, &mut cut);
        room - cut.room
    }

    /// Records `length` bytes just cut (and FIN) as sent, and makes their segment.
    fn push_new(
        &mut self,
        now: Instant,
        length: usize,
        fin: bool,
        urgent: bool,
        push: bool,
        sack_blocks: usize,
    ) -> Outgoing {
        let offset = self.next;
        let pipe = self.flight.pipe();
        if self.flight.is_empty() {
            self.progress_at = now;
        }
        if self.flight.segment_count() < 2 {
            // A peer may hold the acknowledgement of a lone segment until the second arrives: its round trip is what
            // the timeout is about, not the time the first has waited.
            self.timeout_base = now;
        }
        self.record_sent(now, length, fin, urgent, urgent || push);
        self.probe_base = now;
        self.blocked = Blocked::Nothing;
        self.silly_window_override = false;
        self.window_probe_backoff = 0;
        self.timers.disarm(Timer::Persist);
        self.charge(now, self.next - offset, pipe);
        if fin {
            self.fin_sent = true;
            self.transition(Transition::FinSent);
        }
        let mut header = self.header_at(now, offset, sack_blocks);
        header.flags.psh = urgent || push;
        header.flags.fin = fin;
        // Only new data is marked ECN-capable, and only new data says CWR (RFC 3168 sections 6.1.2 and 6.1.5).
        let ecn_capable = self.ecn.is_some() && length > 0;
        if let Some(ecn) = self.ecn.as_mut().filter(|_| ecn_capable) {
            header.flags.cwr = core::mem::take(&mut ecn.reduced);
        }
        Outgoing {
            header,
            payload_offset: offset,
            payload_length: length,
            segment_size: self.segment_size(),
            ecn_capable,
        }
    }

    /// FIN on its own.
    fn transmit_fin(&mut self, now: Instant) -> Option<Outgoing> {
        // FIN takes a byte of sequence space; into a closed window it goes only as a probe of its own.
        let fits = self.next < self.window_edge;
        if !fits && !self.flight.is_empty() {
            return None;
        }
        Some(self.push_new(now, 0, true, false, false, 0))
    }

    /// Bytes the peer's window allows for a segment, silly windows avoided (RFC 9293 section 3.8.6.2.1); arms the
    /// persist timer where nothing else would ever wake the sender.
    fn window_room(
        &mut self,
        now: Instant,
        wanted: usize,
        size: usize,
        demand: Demand,
        source: &dyn SegmentSource,
    ) -> Option<usize> {
        let usable = self.window_edge.saturating_sub(self.next);
        let silly = (size as u64).min(u64::from(self.peer_window_max / 2));
        let worthwhile = usable > 0
            && (usable >= silly
                || demand == Demand::Urgent
                || self.silly_window_override
                || source.queued_bytes().is_some_and(|queued| queued <= usable));
        if worthwhile {
            return Some(wanted.min(usize::try_from(usable).unwrap_or(usize::MAX)));
        }
        self.rate.mark_app_limited(self.flight.pipe());
        self.await_window(now);
        None
    }

    /// Nothing that the source has fits into the peer's window. An update may be lost: where nothing is in flight,
    /// only the persist timer will ask for it. It has fired for a window that is not shut if that is overridden.
    fn await_window(&mut self, now: Instant) {
        self.blocked = Blocked::PeerWindow;
        self.window_probe_due |= core::mem::take(&mut self.silly_window_override);
        if self.flight.is_empty() && !self.timers.is_armed(Timer::Persist) {
            self.timers.arm(Timer::Persist, now + self.window_probe_interval());
        }
    }

    /// There is nothing to send: if the window is open, rate samples from here on are the application's, not the path's.
    fn note_idle(&mut self) {
        self.blocked = Blocked::Nothing;
        self.timers.disarm(Timer::Persist);
        if self.idle_noted && self.una == self.next {
            // It would be noted as it is. An end that only receives comes here with every segment, and of many such ends
            // the sampler and the controller are cold.
            return;
        }
        self.idle_noted = self.una == self.next;
        let pipe = self.flight.pipe();
        if pipe < self.congestion.window() && !self.flight.has_lost() {
            self.rate.mark_app_limited(pipe);
        }
    }

    /// RFC 5681 section 4.1.
    fn restart_after_idle(&mut self, now: Instant) {
        let idle = self.flight.is_empty() && now - self.last_sent_at > self.retransmission_timeout();
        if idle && self.config.restart_after_idle {
            self.congestion.on_event(now, CongestionEvent::IdleRestart, 0);
        }
    }
}
