//! What both ends of an experiment count, and the stamps that heartbeats carry.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use outrider_drivers::time::Instant;

use crate::measure::{ByteCounts, Latencies, Window};

/// Length of one heartbeat part in bytes, about that of a Ceph ping's own fields.
pub(crate) const PART_BYTES: usize = 64;

/// What a heartbeat carries besides padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// When this part was due.
    pub(crate) due: Instant,
    /// When the message was due that this part rides in: decides whether it counts, the same way at both ends.
    pub(crate) message_due: Instant,
    /// Counts the parts of this op.
    pub(crate) sequence: u64,
}

impl Stamp {
    /// Encodes into `length` bytes (at least 24), zero-padded.
    pub(crate) fn encode(&self, length: usize) -> Bytes {
        let fields = [self.due.as_nanos(), self.message_due.as_nanos(), self.sequence];
        let mut bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        bytes.resize(length.max(bytes.len()), 0);
        bytes.into()
    }

    /// Reads what [`Self::encode`] wrote; `None` if it is too short.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (fields, _) = bytes.split_at_checked(24)?;
        let mut words =
            fields.chunks_exact(8).map(|chunk| chunk.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)));
        Some(Stamp {
            due: Instant::from_nanos(words.next()?),
            message_due: Instant::from_nanos(words.next()?),
            sequence: words.next()?,
        })
    }
}

/// Counters of one run, shared by the threads of both nodes.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// When things count.
    pub(crate) window: Window,
    sent: AtomicU64,
    received: AtomicU64,
    superseded: AtomicU64,
    parts_received: AtomicU64,
    payload_bytes: AtomicU64,
    /// When the newest heartbeat that was answered had been due, in nanoseconds.
    answered_until: AtomicU64,
    samples: Mutex<Samples>,
}

/// Distributions of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    /// Due to arrival.
    pub(crate) one_way: Latencies,
    /// Due to echo.
    pub(crate) rtt: Latencies,
    /// Unsent bytes and bytes in flight.
    pub(crate) occupancy: ByteCounts,
    /// Delays since the last live line.
    recent: Recent,
}

/// What the last second was like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    /// One-way heartbeat delays.
    pub(crate) one_way: Latencies,
    /// Heartbeat echoes.
    pub(crate) rtt: Latencies,
    /// Largest occupancy, bytes.
    pub(crate) occupancy_max: u64,
}

impl Tally {
    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().expect("no thread panics while it counts")
    }

    /// A heartbeat that was due at `due` leaves.
    pub(crate) fn heartbeat_sent(&self, due: Instant) {
        if self.window.contains(due) {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A turn that was due at `due` passed without a heartbeat, because the one before had not left.
    pub(crate) fn heartbeat_superseded(&self, due: Instant) {
        if self.window.contains(due) {
            self.superseded.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A heartbeat arrived: `stamps` of its parts, the first decides whether it counts, the earliest due part how late
    /// it is.
    pub(crate) fn heartbeat_received(&self, arrived: Instant, stamps: &[Stamp]) {
        let Some(first) = stamps.first() else { return };
        let earliest = stamps.iter().map(|stamp| stamp.due).min().unwrap_or(first.due);
        let delay = arrived - earliest;
        let mut samples = self.samples();
        samples.recent.one_way.record(delay);
        if self.window.contains(first.message_due) {
            samples.one_way.record(delay);
            self.received.fetch_add(1, Ordering::Relaxed);
            self.parts_received.fetch_add(stamps.len() as u64, Ordering::Relaxed);
        }
    }

    /// The echo of a heartbeat that was due at `due` came back after `rtt`.
    pub(crate) fn echoed(&self, due: Instant, rtt: Duration) {
        self.answered_until.fetch_max(due.as_nanos(), Ordering::Relaxed);
        if self.window.contains(due) {
            let mut samples = self.samples();
            samples.rtt.record(rtt);
            samples.recent.rtt.record(rtt);
        }
    }

    /// The loaded connection held `bytes` when a heartbeat left at `at`.
    pub(crate) fn occupancy(&self, at: Instant, bytes: u64) {
        if self.window.contains(at) {
            let mut samples = self.samples();
            samples.occupancy.record(bytes);
            samples.recent.occupancy_max = samples.recent.occupancy_max.max(bytes);
        }
    }

    /// A message of the load arrived.
    pub(crate) fn payload_received(&self, bytes: usize) {
        self.payload_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Payload bytes received since the run began, whether they count or not.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload_bytes.load(Ordering::Relaxed)
    }

    /// Heartbeats sent, received, superseded within the window, and parts received.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            superseded: self.superseded.load(Ordering::Relaxed),
            parts_received: self.parts_received.load(Ordering::Relaxed),
        }
    }

    /// Distributions so far.
    pub(crate) fn distributions(&self) -> Samples {
        self.samples().clone()
    }

    /// When the newest heartbeat that was answered had been due, in the window or not; the clock's zero before the
    /// first answer.
    pub(crate) fn answered_until(&self) -> Instant {
        Instant::from_nanos(self.answered_until.load(Ordering::Relaxed))
    }

    /// Distributions and counts so far; they begin again from nothing. For a second window, once all that was due in
    /// the first has been counted.
    pub(crate) fn take(&self) -> (Samples, Counts) {
        let samples = std::mem::take(&mut *self.samples());
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        let counts = Counts {
            sent: take(&self.sent),
            received: take(&self.received),
            superseded: take(&self.superseded),
            parts_received: take(&self.parts_received),
        };
        (samples, counts)
    }

    /// What happened since the last call.
    pub(crate) fn take_recent(&self) -> Recent {
        std::mem::take(&mut self.samples().recent)
    }
}

/// Heartbeats that were due within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Left the sender.
    pub(crate) sent: u64,
    /// Reached the peer.
    pub(crate) received: u64,
    /// Turns that passed without one.
    pub(crate) superseded: u64,
    /// Parts in the received ones.
    pub(crate) parts_received: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn stamp(due: Instant, message_due: Instant) -> Stamp {
        Stamp { due, message_due, sequence: 7 }
    }

    #[test]
    fn a_stamp_survives_the_wire_and_its_padding() {
        let stamp = Stamp { due: at(1), message_due: at(2), sequence: u64::MAX - 1 };
        let bytes = stamp.encode(PART_BYTES);
        assert_eq!(bytes.len(), PART_BYTES);
        assert_eq!(Stamp::decode(&bytes), Some(stamp));
        assert_eq!(Stamp::decode(&bytes[..23]), None);
    }

    #[test]
    fn a_heartbeat_is_as_late_as_its_earliest_part() {
        let tally = Tally::default();
        tally.window.open(at(0));
        // The second part rides along before it is due: it must not make the heartbeat look quick.
        tally.heartbeat_received(at(300), &[stamp(at(100), at(100)), stamp(at(500), at(100))]);
        let max = tally.distributions().one_way.percentiles().unwrap().max;
        assert!((max - 200.0).abs() < 1.0, "{max}");
        assert_eq!(tally.counts().parts_received, 2);
    }

    #[test]
    fn both_ends_count_the_same_heartbeats() {
        let tally = Tally::default();
        tally.window.open(at(100));
        tally.window.close(at(200));
        for due in [99, 100, 199, 200] {
            tally.heartbeat_sent(at(due));
            tally.heartbeat_received(at(1000), &[stamp(at(due), at(due))]);
            tally.heartbeat_superseded(at(due));
        }
        let expected = Counts { sent: 2, received: 2, superseded: 2, parts_received: 2 };
        assert_eq!(tally.counts(), expected);
    }
}
