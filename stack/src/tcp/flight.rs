//! What was sent and is not acknowledged: the bytes, and per segment its own marks. No second scoreboard.

use outrider_drivers::cache;

use super::few::Few;
use super::payload::{Payload, PayloadStore};
use super::rate::SendStamp;
use crate::time::Instant;

/// No SACK block makes a record for less than this, bytes.
const SACK_PIECE_BYTES_MIN: u64 = 1024;

/// One sent segment: as large as a line of the cache. SYN and FIN count one byte of sequence space and have no payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentSegment {
    /// Stream offset of its first byte.
    pub(crate) offset: u64,
    /// Sequence space it takes, bytes.
    pub(crate) length: u32,
    /// Carries SYN or FIN; then `length` includes one for it.
    pub(crate) control: bool,
    /// The peer has it (RFC 2018).
    pub(crate) sacked: bool,
    /// Considered lost and not retransmitted since.
    pub(crate) lost: bool,
    /// Carried something out of band.
    pub(crate) urgent: bool,
    /// Ends where the source wanted a push: PSH, again on every retransmission.
    pub(crate) push: bool,
    /// How often it has left, as far as that can be counted.
    pub(crate) transmissions: u8,
    /// When it last left.
    pub(crate) sent_at: Instant,
    /// When it first left.
    pub(crate) first_sent_at: Instant,
    /// For the delivery rate.
    pub(crate) stamp: SendStamp,
}

impl SentSegment {
    /// Offset after its last byte.
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }

    pub(crate) fn was_retransmitted(&self) -> bool {
        self.transmissions > 1
    }

    /// Counted in the pipe: neither delivered nor lost.
    fn in_pipe(&self) -> bool {
        !self.sacked && !self.lost
    }
}

/// What is in flight, and the memory for it. Laid out by hand: a lone segment needs nothing but what is here, in whole
/// lines of the cache that follow each other.
#[derive(Debug)]
#[repr(C, align(64))]
struct Held {
    segments: Few<SentSegment>,
    /// Bytes neither delivered nor lost: the estimate of what is in the network (RFC 6675 "pipe").
    pipe: u64,
    sacked_segments: u32,
    lost_segments: u32,
    payload: PayloadStore,
}

/// Memory for what is in flight, while nothing is.
///
/// Of many connections that send now and then few have anything in flight at an instant. Those that have nothing leave
/// their memory to the next: there is less of it, and what was used last is still in the cache.
#[derive(Debug)]
pub(crate) struct Spare(Box<Held>);

impl Spare {
    /// Asks for it: see [`cache`].
    pub(crate) fn prefetch(&self) {
        cache::prefetch(&*self.0);
    }
}

/// Records that are worth passing on.
const SPARE_SEGMENTS_MAX: usize = 64;

/// Segments between SND.UNA and SND.NXT in sequence order, and their bytes.
#[derive(Debug)]
pub(crate) struct Flight {
    /// What is in flight; the memory for it may stay for a while when nothing is.
    held: Option<Box<Held>>,
    /// Where the next payload begins, while no memory is held: after SYN the first byte is 1.
    next_payload: u64,
    /// Highest offset acknowledged or SACKed (RFC 8985 "RACK.fack").
    delivered_end: u64,
}

impl Flight {
    /// An empty flight; the first byte of payload will have offset 1 (after SYN).
    pub(crate) fn new() -> Self {
        Flight { held: None, next_payload: 1, delivered_end: 0 }
    }

    /// The memory of a flight in which there is nothing. `None`: there is something, or no memory, or too much of it.
    pub(crate) fn take_spare(&mut self) -> Option<Spare> {
        let held = self.held.as_ref()?;
        let modest = held.segments.capacity() <= SPARE_SEGMENTS_MAX && held.payload.is_modest();
        if !held.segments.is_empty() || !modest {
            return None;
        }
        self.next_payload = held.payload.end();
        self.held.take().map(Spare)
    }

    /// Whether there is no memory for payload.
    pub(crate) fn is_bare(&self) -> bool {
        self.held.is_none()
    }

    /// Lets go of everything: nothing of it will be sent again.
    pub(crate) fn clear(&mut self) {
        self.held = None;
    }

    /// Gives memory to a flight that is bare.
    pub(crate) fn use_spare(&mut self, Spare(mut held): Spare) {
        if self.held.is_none() {
            held.payload.begin_at(self.next_payload);
            self.held = Some(held);
        }
    }

    #[inline]
    fn held_mut(&mut self) -> &mut Held {
        let next_payload = self.next_payload;
        self.held.get_or_insert_with(|| Held::new(next_payload))
    }

    pub(crate) fn pipe(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.pipe)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.segment_count() == 0
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.segments.len())
    }

    pub(crate) fn sacked_segments(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.sacked_segments as usize)
    }

    pub(crate) fn has_lost(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.lost_segments > 0)
    }

    pub(crate) fn delivered_end(&self) -> u64 {
        self.delivered_end
    }

    /// Asks for what a lone segment in flight needs: see [`cache`].
    pub(crate) fn prefetch(&self) {
        if let Some(held) = &self.held {
            cache::prefetch(&**held);
        }
    }

    /// Bytes of memory held for payload and marks.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| {
            let segments = held.segments.capacity() * size_of::<SentSegment>();
            size_of::<Held>() + held.payload.memory_bytes() + segments
        })
    }

    /// The payload, for a cut to append to.
    pub(crate) fn payload_mut(&mut self) -> &mut PayloadStore {
        &mut self.held_mut().payload
    }

    /// `length` bytes of payload from `offset` on, all of them in flight.
    pub(crate) fn payload(&self, offset: u64, length: usize) -> Payload<'_> {
        let held = self.held.as_ref().expect("the range must be held: it is in flight");
        held.payload.bytes(offset, length)
    }

    pub(crate) fn front(&self) -> Option<&SentSegment> {
        self.held.as_ref()?.segments.front()
    }

    pub(crate) fn back(&self) -> Option<&SentSegment> {
        self.held.as_ref()?.segments.back()
    }

    /// Segments in sequence order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &SentSegment> {
        self.held.iter().flat_map(|held| held.segments.iter())
    }

    /// Records a segment that leaves for the first time.
    #[inline]
    pub(crate) fn push(&mut self, segment: SentSegment) {
        let held = self.held_mut();
        debug_assert!(held.segments.back().is_none_or(|last| last.end() == segment.offset));
        held.pipe += u64::from(segment.length);
        held.segments.push_back(segment);
    }

    /// The segment that holds `offset`.
    pub(crate) fn at(&self, offset: u64) -> Option<&SentSegment> {
        self.held.as_ref()?.at(offset)
    }

    /// Cuts the segment that holds `offset` in two there, unless it begins there. Marks are inherited.
    pub(crate) fn split_at(&mut self, offset: u64) {
        if let Some(held) = &mut self.held {
            held.split_at(offset);
        }
    }

    /// Everything before `offset` is acknowledged: `delivered` sees each segment that was not SACKed before.
    pub(crate) fn acknowledge_to(&mut self, offset: u64, delivered: impl FnMut(&SentSegment)) {
        self.delivered_end = self.delivered_end.max(offset);
        if let Some(held) = &mut self.held {
            held.acknowledge_to(offset, delivered);
        }
    }

    /// The peer holds `start..end`: `delivered` sees each segment newly covered.
    pub(crate) fn sack(&mut self, start: u64, end: u64, delivered: impl FnMut(&SentSegment)) {
        if let Some(held) = &mut self.held {
            self.delivered_end = held.sack(start, end, delivered).max(self.delivered_end);
        }
    }

    /// Marks lost each segment still in the pipe for which `is_lost` says so, in sequence order, and returns their
    /// bytes. `is_lost` returns `None` to stop the search.
    pub(crate) fn mark_lost(&mut self, is_lost: impl FnMut(&SentSegment) -> Option<bool>) -> u64 {
        self.held.as_mut().map_or(0, |held| held.mark_lost(is_lost))
    }

    /// Takes back every loss mark not yet acted on: the loss was spurious.
    pub(crate) fn unmark_lost(&mut self) {
        if let Some(held) = &mut self.held {
            held.unmark_lost();
        }
    }

    /// The peer may have dropped what it SACKed (RFC 2018 section 8): after a timeout, forget SACK marks.
    pub(crate) fn forget_sacks(&mut self) {
        if let Some(held) = &mut self.held {
            held.forget_sacks();
        }
    }

    /// The first lost segment.
    pub(crate) fn first_lost(&self) -> Option<&SentSegment> {
        if !self.has_lost() {
            return None;
        }
        self.iter().find(|segment| segment.lost)
    }

    /// Records that the segment at `offset` leaves once more.
    pub(crate) fn on_retransmitted(&mut self, offset: u64, now: Instant, stamp: SendStamp) {
        if let Some(held) = &mut self.held {
            held.on_retransmitted(offset, now, stamp);
        }
    }
}

/// What there is to do with something in flight; each is called by the method of that name of [`Flight`], which says
/// what it does.
impl Held {
    #[cold]
    fn new(next_payload: u64) -> Box<Held> {
        Box::new(Held {
            segments: Few::new(),
            pipe: 0,
            sacked_segments: 0,
            lost_segments: 0,
            payload: PayloadStore::new(next_payload),
        })
    }

    /// Index of the segment that holds `offset`, if in flight.
    fn index_of(&self, offset: u64) -> Option<usize> {
        let index = self.segments.partition_point(|segment| segment.end() <= offset);
        self.segments.get(index).filter(|segment| segment.offset <= offset).map(|_| index)
    }

    fn at(&self, offset: u64) -> Option<&SentSegment> {
        self.index_of(offset).and_then(|index| self.segments.get(index))
    }

    fn split_at(&mut self, offset: u64) {
        let Some(index) = self.index_of(offset) else { return };
        let Some(segment) = self.segments.get_mut(index).filter(|segment| segment.offset < offset) else {
            return;
        };
        let mut tail = *segment;
        segment.length = (offset - segment.offset) as u32;
        // SYN is alone in its segment and FIN is the last byte, so a control bit always goes with the tail.
        segment.control = false;
        segment.push = false;
        tail.length -= segment.length;
        tail.offset = offset;
        if tail.sacked {
            self.sacked_segments += 1;
        }
        if tail.lost {
            self.lost_segments += 1;
        }
        self.segments.insert_behind(index, tail);
    }

    fn acknowledge_to(&mut self, offset: u64, mut delivered: impl FnMut(&SentSegment)) {
        while let Some(front) = self.segments.front() {
            if front.end() > offset {
                if front.offset >= offset {
                    break;
                }
                // Only its begin is acknowledged.
                self.split_at(offset);
            }
            // Looked at where it is: it is larger than what is asked of it.
            let segment = self.segments.front().expect("it was there just now");
            if segment.in_pipe() {
                self.pipe -= u64::from(segment.length);
            }
            self.sacked_segments -= u32::from(segment.sacked);
            self.lost_segments -= u32::from(segment.lost);
            if !segment.sacked {
                delivered(segment);
            }
            self.segments.drop_front();
        }
        self.payload.release_to(self.payload.end().min(offset));
        if self.segments.is_empty() && self.segments.capacity() > 64 {
            self.segments.shrink_to(4);
        }
    }

    /// Cuts a long segment (a super-segment) where a SACK block falls into it, if both parts are worth a record. A
    /// shorter one counts as delivered only when all of it is (RFC 2018 section 5): a peer that SACKs single bytes must
    /// not multiply the records (CVE-2019-11478).
    fn split_long_at(&mut self, offset: u64) {
        let worth = self.at(offset).is_some_and(|segment| {
            offset - segment.offset >= SACK_PIECE_BYTES_MIN && segment.end() - offset >= SACK_PIECE_BYTES_MIN
        });
        if worth {
            self.split_at(offset);
        }
    }

    /// Returns the highest offset it found covered.
    fn sack(&mut self, start: u64, end: u64, mut delivered: impl FnMut(&SentSegment)) -> u64 {
        let (Some(first), Some(last)) = (self.segments.front(), self.segments.back()) else { return 0 };
        let (start, end) = (start.max(first.offset), end.min(last.end()));
        if start >= end {
            return 0;
        }
        self.split_long_at(start);
        self.split_long_at(end);
        let mut covered_end = 0;
        let mut index = self.segments.partition_point(|segment| segment.offset < start);
        while let Some(segment) = self.segments.get_mut(index).filter(|segment| segment.end() <= end) {
            if !segment.sacked {
                if segment.in_pipe() {
                    self.pipe -= u64::from(segment.length);
                }
                self.lost_segments -= u32::from(segment.lost);
                self.sacked_segments += 1;
                delivered(segment);
                segment.lost = false;
                segment.sacked = true;
            }
            covered_end = segment.end();
            index += 1;
        }
        covered_end
    }

    fn mark_lost(&mut self, mut is_lost: impl FnMut(&SentSegment) -> Option<bool>) -> u64 {
        let mut bytes = 0;
        for segment in self.segments.iter_mut() {
            if !segment.in_pipe() {
                continue;
            }
            match is_lost(segment) {
                None => break,
                Some(false) => {}
                Some(true) => {
                    segment.lost = true;
                    self.lost_segments += 1;
                    self.pipe -= u64::from(segment.length);
                    bytes += u64::from(segment.length);
                }
            }
        }
        bytes
    }

    fn unmark_lost(&mut self) {
        for segment in self.segments.iter_mut() {
            if segment.lost {
                segment.lost = false;
                self.pipe += u64::from(segment.length);
            }
        }
        self.lost_segments = 0;
    }

    fn forget_sacks(&mut self) {
        for segment in self.segments.iter_mut() {
            if segment.sacked {
                segment.sacked = false;
                self.pipe += u64::from(segment.length);
            }
        }
        self.sacked_segments = 0;
    }

    fn on_retransmitted(&mut self, offset: u64, now: Instant, stamp: SendStamp) {
        let Some(index) = self.index_of(offset) else { return };
        let Some(segment) = self.segments.get_mut(index) else { return };
        if segment.lost {
            segment.lost = false;
            self.lost_segments -= 1;
            self.pipe += u64::from(segment.length);
        }
        segment.transmissions = segment.transmissions.saturating_add(1);
        segment.sent_at = now;
        segment.stamp = stamp;
    }
}

#[cfg(test)]
#[path = "flight_tests.rs"]
pub(super) mod tests;
