//! What ICMP says about the path (RFC 5927: only about segments in flight).

use super::{Connection, SEGMENT_SIZE_MIN};
use crate::tcp::config::CloseReason;
use crate::tcp::sequence::SeqNumber;
use crate::tcp::state::State;
use crate::time::Instant;

impl Connection {
    /// Whether an ICMP error that quotes `sequence` can be about a segment of ours: one that is in flight
    /// (RFC 5927 section 4.1). A blind attacker would have to guess it.
    fn is_in_flight(&self, sequence: SeqNumber) -> bool {
        self.initial
            .offset_near(sequence, self.una)
            .is_some_and(|offset| (self.una..self.next).contains(&offset))
    }

    /// Input. "Fragmentation needed" or "packet too big" about the segment that began at `sequence`: the path
    /// carries TCP payload and options of at most `segment_size_max` bytes a segment.
    ///
    /// Segments in flight that are longer are sent again in pieces, without a word to congestion control: they were
    /// not lost to congestion. Returns whether the report was believed.
    pub fn on_path_mtu(&mut self, now: Instant, sequence: SeqNumber, segment_size_max: u16) -> bool {
        if self.state == State::Closed
            || !self.is_in_flight(sequence)
            || segment_size_max >= self.peer_segment_size
        {
            self.rare_count().icmp_ignored += 1;
            return false;
        }
        self.rare_count().path_mtu_reductions += 1;
        self.set_peer_segment_size(segment_size_max.max(SEGMENT_SIZE_MIN));
        self.bound_mtu_search(self.peer_segment_size);
        let size = self.segment_size() as u64;
        self.flight.mark_lost(|segment| Some(u64::from(segment.length) > size));
        self.settle(now);
        true
    }

    /// Input. "Destination unreachable" about the segment that began at `sequence`.
    ///
    /// Ends an attempt to connect; on an open connection it is a soft error that only counts (RFC 9293 section
    /// 3.9.2.2, RFC 5461). Returns whether the report was believed.
    pub fn on_unreachable(&mut self, _now: Instant, sequence: SeqNumber) -> bool {
        if self.state == State::Closed || !self.is_in_flight(sequence) {
            self.rare_count().icmp_ignored += 1;
            return false;
        }
        self.rare_count().icmp_unreachable += 1;
        if self.state == State::SynSent {
            self.close(CloseReason::Unreachable);
        }
        true
    }
}
