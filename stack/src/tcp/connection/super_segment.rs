//! Several segments in one go: as a super-segment, where the port cuts it (TCP segmentation offload), or as a train of
//! segments of which the caller makes a frame each.
//!
//! A super-segment is one pull from the source and one frame, and nothing else: it obeys every window that its segments
//! would obey one by one, each of them has a record of its own in flight, and what is lost of it is repaired segment by
//! segment. Nothing out of band is in one, so that it has a segment, a record and a push of its own, and waits for one
//! super-segment at most.
//!
//! A train is nothing but a saving: the segments that would leave at the same instant one by one, each cut by the source
//! for itself, with the same bytes, records and charges. What is saved is to ask for each of them what cannot change
//! between them.

use core::time::Duration;

use super::output::{PACING_CATCH_UP, PACING_SLACK, paced_time};
use super::{Connection, Recovery};
use crate::tcp::config::MtuProbing;
use crate::tcp::flight::SentSegment;
use crate::time::Instant;

/// How much may leave at once, at the pacing rate: it goes into the queue of the bottleneck.
const PACED_AT_ONCE_MAX: Duration = Duration::from_micros(100);

impl Connection {
    /// Payload bytes of the next segments, of `size` bytes each, where `limit` bytes may leave together: as many whole
    /// segments as the congestion window, the rate reduction and the pacer let go, and one in any case.
    pub(super) fn room_at_once(&self, size: usize, limit: usize) -> usize {
        if limit < 2 * size {
            return size;
        }
        let window = match self.recovery {
            Recovery::Fast if self.congestion.wants_rate_reduction() => self.reduction_allowance(),
            _ => self.congestion.window().saturating_sub(self.pipe_estimate()),
        };
        let paced = match self.pacing_rate() {
            Some(rate) => rate.saturating_mul(PACED_AT_ONCE_MAX.as_micros() as u64) / 1_000_000,
            None => u64::MAX,
        };
        let bytes = usize::try_from(window.min(paced)).unwrap_or(usize::MAX).min(limit);
        (bytes / size).max(1) * size
    }

    /// How many segments of `size` bytes may follow a first one, which leaves now, in a train of `most`.
    pub(super) fn train_behind(&self, now: Instant, size: usize, most: usize) -> usize {
        let pipe = self.pipe_estimate();
        // What the first one changes may let others go or hold them back: after idleness, in recovery, and when it is
        // time to try a larger one.
        let settled = pipe > 0
            && self.recovery == Recovery::Open
            && !self.flight.has_lost()
            && self.config.mtu_probing == MtuProbing::Off;
        if most < 2 || !settled {
            return 0;
        }
        let window = self.congestion.window().saturating_sub(pipe);
        let usable = self.window_edge.saturating_sub(self.next);
        let (size, most) = (size as u64, most as u64);
        let bytes = window.min(usable);
        // Mostly there is room for all of them, and a division takes as long as much else that is done here.
        let fitting = if bytes >= most * size { most } else { bytes / size };
        let paced = match self.pacing_rate().filter(|rate| *rate > 0) {
            Some(rate) => {
                let from = self.paced_until.max(now - PACING_CATCH_UP);
                let duration = paced_time(size, rate).as_nanos().max(1) as u64;
                let time = (now + PACING_SLACK).since(from).as_nanos() as u64;
                if time >= most.saturating_mul(duration) { most } else { 1 + time / duration }
            }
            None => u64::MAX,
        };
        (fitting.min(paced).min(most) as usize).saturating_sub(1)
    }

    /// Records `length` bytes just cut, and FIN after them, as sent: each segment by itself.
    pub(super) fn record_sent(&mut self, now: Instant, length: usize, fin: bool, urgent: bool, push: bool) {
        // A probe of the path is one segment, however long.
        let size = if self.probes_mtu_at(self.next) { length } else { self.segment_size() };
        let mut left = length;
        self.idle_noted = false;
        loop {
            let payload = left.min(size);
            left -= payload;
            let is_last = left == 0;
            let control = fin && is_last;
            let space = payload as u32 + u32::from(control);
            let stamp = self.rate.stamp(now, self.flight.pipe(), u64::from(space));
            self.flight.push(SentSegment {
                offset: self.next,
                length: space,
                control,
                sacked: false,
                lost: false,
                urgent,
                push: push && is_last,
                transmissions: 1,
                sent_at: now,
                first_sent_at: now,
                stamp,
            });
            self.next += u64::from(space);
            if is_last {
                return;
            }
        }
    }
}
