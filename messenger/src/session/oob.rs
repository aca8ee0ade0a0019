//! A session's OOB state: what it sends when, and what it has received.

use core::num::NonZeroU64;
use core::time::Duration;
use std::collections::BTreeSet;

use bytes::Bytes;
use outrider_stack::tcp::source::SendState;
use outrider_stack::time::Instant;

use super::lanes::Writer;
use super::{Phase, Session, SessionError, SessionEvent};
use crate::codec::{
    CHUNK_HEADER_BYTES, OOB_PART_HEADER_BYTES, OOB_PAYLOAD_BYTES_MAX, OOB_REPORT_BYTES, OobPayload,
};
use crate::oob::{OobMessage, OobStatistics, Registry};
use crate::report::{Echo, PingReport};
use crate::sparse::{Moment, Span};

/// Sequences remembered as delivered ahead of a gap. More arrive in order instead.
const AHEAD_MAX: usize = 1024;
/// Room kept free in a segment for TCP options that come and go: the space of a TCP header's options.
const TCP_OPTIONS_BYTES_MAX: usize = 40;

/// The peer's last OOB message, for the echo.
#[derive(Clone, Copy)]
struct Heard {
    sequence: NonZeroU64,
    departed_at: Instant,
    arrived_at: Instant,
}

pub(super) struct OobState {
    pub(super) registry: Registry,
    /// Sequence of our last, and so how many there were.
    last_sent: u64,
    heard: Option<Heard>,
    /// Arrival of the peer's last OOB message with parts.
    last_parts_at: Moment,
    /// When the peer shall have its echo at the latest.
    echo_due: Moment,
    /// Of our last message that the peer answered.
    round_trip: Span,
    last_in_order: u64,
    /// Where a connection has never had a gap that an OOB message overtook there is nothing to keep.
    ahead: Option<Box<Ahead>>,
    counts: Counts,
}

/// What was delivered ahead of a gap.
#[derive(Default)]
struct Ahead {
    /// Sequences that have yet to come in order.
    sequences: BTreeSet<u64>,
    delivered: u64,
    duplicates: u64,
}

/// What is counted here and for every connection; see [`OobStatistics`].
#[derive(Default)]
struct Counts {
    received: u64,
    parts_sent: u64,
    parts_received: u64,
}

impl OobState {
    pub(super) fn new(seed: u64) -> Self {
        OobState {
            registry: Registry::new(seed),
            last_sent: 0,
            heard: None,
            last_parts_at: Moment::NEVER,
            echo_due: Moment::NEVER,
            round_trip: Span::NONE,
            last_in_order: 0,
            ahead: None,
            counts: Counts::default(),
        }
    }

    /// When an OOB message is due next.
    #[inline]
    pub(super) fn next_due(&self) -> Moment {
        self.registry.earliest().or_sooner(self.echo_due)
    }

    pub(super) fn statistics(&self) -> OobStatistics {
        let turns = self.registry.turns();
        let Counts { received, parts_sent, parts_received } = self.counts;
        OobStatistics {
            sent: self.last_sent,
            received,
            superseded: turns.superseded,
            skipped: turns.skipped,
            refused: turns.refused,
            parts_sent,
            parts_received,
            ahead_of_gap: self.ahead.as_ref().map_or(0, |ahead| ahead.delivered),
            duplicates: self.ahead.as_ref().map_or(0, |ahead| ahead.duplicates),
        }
    }

    /// The connection is gone. Ops wait for the next one, on which the peer's sequences need not go on.
    pub(super) fn detach(&mut self) {
        self.registry.pause();
        self.heard = None;
        self.last_parts_at = Moment::NEVER;
        self.echo_due = Moment::NEVER;
        self.round_trip = Span::NONE;
        self.last_in_order = 0;
        if let Some(ahead) = &mut self.ahead {
            ahead.sequences.clear();
        }
    }

    /// Takes note of an OOB message that is to be delivered now.
    fn hear(&mut self, now: Instant, payload: &OobPayload) {
        let report = &payload.report;
        let newest = self.heard.is_none_or(|heard| heard.sequence.get() < report.sequence);
        if let Some(sequence) = NonZeroU64::new(report.sequence).filter(|_| newest) {
            self.heard = Some(Heard { sequence, departed_at: report.departed_at, arrived_at: now });
        }
        self.counts.received += 1;
        self.counts.parts_received += payload.parts.len() as u64;
        // A mere echo is not echoed: two sides would never stop.
        if payload.parts.is_empty() {
            return;
        }
        // If a message of our own leaves before the peer's next one comes, the echo rides in it.
        let last = core::mem::replace(&mut self.last_parts_at, now.into());
        let interval = last.get().map(|last| now.since(last)).unwrap_or_default();
        let due = self.registry.earliest().get().filter(|due| *due <= now + interval).unwrap_or(now);
        self.echo_due = self.echo_due.or_sooner(due);
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.get()
    }

    fn echo(&self, now: Instant) -> Option<Echo> {
        let Heard { sequence, departed_at, arrived_at } = self.heard?;
        Some(Echo { sequence: sequence.get(), departed_at, held: now.since(arrived_at) })
    }

    /// Whether a sequence was delivered ahead of a gap and has yet to come in order.
    fn is_ahead(&self, sequence: u64) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| ahead.sequences.contains(&sequence))
    }

    /// An OOB message has come again.
    fn count_duplicate(&mut self) {
        self.ahead.get_or_insert_default().duplicates += 1;
    }
}

impl Session {
    /// Whether OOB messages may be sent at all.
    #[inline]
    pub(super) fn may_send_oob(&self) -> bool {
        self.can_send && self.speaks_oob
    }

    #[inline]
    pub(super) fn is_oob_due(&self, now: Instant) -> bool {
        self.may_send_oob() && self.life.oob.next_due().is_due(now)
    }

    /// Bytes that one part may have at most: what is left of a segment when nothing else is in it.
    fn part_bytes_max(&self) -> usize {
        let segment = self.segment_size().min(CHUNK_HEADER_BYTES + OOB_PAYLOAD_BYTES_MAX);
        let taken = TCP_OPTIONS_BYTES_MAX + CHUNK_HEADER_BYTES + OOB_REPORT_BYTES + OOB_PART_HEADER_BYTES;
        segment.saturating_sub(taken)
    }

    /// Appends the OOB message that is due, if one is. Returns whether it did.
    pub(super) fn cut_oob(&mut self, now: Instant, state: &SendState, writer: &mut Writer<'_>) -> bool {
        if !self.is_oob_due(now) {
            return false;
        }
        let room = writer.room().min(self.segment_size()).min(CHUNK_HEADER_BYTES + OOB_PAYLOAD_BYTES_MAX);
        let Some(room) = room.checked_sub(CHUNK_HEADER_BYTES + OOB_REPORT_BYTES) else { return false };
        let sequence = self.life.oob.last_sent + 1;
        let part_bytes_max = self.part_bytes_max();
        let collected = self.life.oob.registry.collect(now, sequence, room, part_bytes_max);
        let echo_due = self.life.oob.echo_due.get().filter(|due| *due <= now);
        let farewell = collected.emptied.then_some(now);
        let Some(due) = collected.earliest_due.into_iter().chain(echo_due).chain(farewell).min() else {
            return false;
        };
        let report = PingReport {
            sequence,
            departed_at: now,
            waited: now.since(due),
            echo: self.life.oob.echo(now),
            interval: self.life.oob.registry.interval(),
            send: self.send_report(state),
            receive: self.receive_report(now),
        };
        if !writer.append_oob(&report, &collected.parts) {
            debug_assert!(false, "the room was checked above");
            return false;
        }
        self.life.oob.last_sent = sequence;
        self.life.oob.echo_due = Moment::NEVER;
        self.life.oob.counts.parts_sent += collected.parts.len() as u64;
        true
    }

    /// An OOB chunk in its turn.
    pub(super) fn on_oob(
        &mut self,
        now: Instant,
        sequence: u64,
        payload: &Bytes,
    ) -> Result<(), SessionError> {
        let last = self.life.oob.last_in_order;
        if sequence <= last {
            return Err(SessionError::OobSequence { sequence, last });
        }
        self.life.oob.last_in_order = sequence;
        let mut seen = false;
        if let Some(ahead) = &mut self.life.oob.ahead {
            seen = ahead.sequences.remove(&sequence);
            // What was seen ahead and lies before this one will never come in order.
            ahead.sequences = ahead.sequences.split_off(&sequence);
        }
        let payload = OobPayload::decode(sequence, payload)?;
        if seen {
            self.life.oob.count_duplicate();
            return Ok(());
        }
        self.hear_oob(now, payload, false);
        Ok(())
    }

    /// Bytes that arrived ahead of a gap: delivers the OOB messages at their start, each once.
    /// Returns whether there were any.
    pub fn peek_ahead(&mut self, now: Instant, bytes: &[u8]) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        let mut any = false;
        for (sequence, payload) in crate::codec::scan_ahead(bytes) {
            any = true;
            let oob = &mut self.life.oob;
            if sequence <= oob.last_in_order || oob.is_ahead(sequence) {
                oob.count_duplicate();
                continue;
            }
            if oob.ahead.as_ref().is_some_and(|ahead| ahead.sequences.len() >= AHEAD_MAX) {
                break;
            }
            // A malformed one is judged when its turn comes.
            let Ok(payload) = OobPayload::decode(sequence, &Bytes::copy_from_slice(payload)) else { break };
            let ahead = self.life.oob.ahead.get_or_insert_default();
            ahead.sequences.insert(sequence);
            ahead.delivered += 1;
            self.hear_oob(now, payload, true);
        }
        if any {
            self.life.last_heard = now.into();
        }
        any
    }

    fn hear_oob(&mut self, now: Instant, payload: OobPayload, ahead_of_gap: bool) {
        self.life.oob.hear(now, &payload);
        let OobPayload { report, parts } = payload;
        let message = OobMessage { parts, report, arrived_at: now, ahead_of_gap };
        if let Some(round_trip) = message.round_trip() {
            self.life.oob.round_trip = round_trip.into();
        }
        self.events.push_back(SessionEvent::Oob(Box::new(message)));
    }
}
