//! Path MTU discovery without the help of ICMP: black holes are noticed, and larger segments are tried out with data
//! (packetization layer path MTU discovery, RFC 4821; the search after RFC 8899 section 5.3).

use core::time::Duration;

use super::{Connection, Recovery};
use crate::tcp::config::MtuProbing;
use crate::time::Instant;

/// Payload and options of a segment that every path is taken to carry (RFC 4821 section 7.2: 1024 bytes).
const SEGMENT_SIZE_BASE: u16 = 1024;
/// Timeouts in a row of a segment larger than that before its size is suspected, and not the path as a whole
/// (RFC 4821 section 7.7).
const TIMEOUTS_SUSPICIOUS: u16 = 2;
/// The search ends when no more than this is to be gained, bytes (RFC 8899 section 5.3.2, "granularity").
const SEARCH_GRANULARITY: u16 = 32;
/// A probe costs a segment when it is lost: so many segments' worth of window must be there (RFC 4821 section 7.4).
const PROBE_WINDOW_SEGMENTS: u64 = 5;
/// A search that has ended is taken up again after this time (RFC 4821 section 7.3: five to ten minutes).
const RAISE_INTERVAL: Duration = Duration::from_secs(600);

/// A segment that is larger than what the path is known to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Probe {
    /// Stream offset of its first byte, and after its last.
    start: u64,
    end: u64,
    /// Payload and options.
    size: u16,
}

/// The search for the largest segment that the path carries.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MtuSearch {
    /// What the peer takes, payload and options; the search goes no further.
    largest: u16,
    /// Smallest size known not to get through, or beyond `largest`; zero while there is no search.
    ceiling: u16,
    probe: Option<Probe>,
    /// No probe before this instant.
    paused_until: Option<Instant>,
}

impl Connection {
    /// The handshake has told what the peer takes: start low if everything is to be found out.
    pub(super) fn start_mtu_search(&mut self) {
        if self.config.mtu_probing == MtuProbing::Always {
            self.suspect_segment_size();
        }
    }

    /// Falls back to the base size, and searches from there.
    fn suspect_segment_size(&mut self) {
        if self.peer_segment_size > SEGMENT_SIZE_BASE {
            let size = self.peer_segment_size;
            let search = &mut self.rare_mut().mtu_search;
            search.largest = search.largest.max(size);
            search.ceiling = search.largest.saturating_add(1);
            search.probe = None;
            search.paused_until = None;
            self.set_peer_segment_size(SEGMENT_SIZE_BASE);
        }
    }

    pub(super) fn set_peer_segment_size(&mut self, size: u16) {
        self.peer_segment_size = size;
        let payload = self.segment_size() as u64;
        self.congestion.set_segment_size(payload);
    }

    /// The retransmission timer has fired with the first segment `timeouts` times in a row.
    pub(super) fn check_black_hole(&mut self, timeouts: u16) {
        let long = self.flight.front().is_some_and(|segment| {
            u64::from(segment.length) + self.timestamp_bytes() as u64 > u64::from(SEGMENT_SIZE_BASE)
        });
        if self.config.mtu_probing != MtuProbing::Off && timeouts >= TIMEOUTS_SUSPICIOUS && long {
            self.rare_count().path_mtu_reductions += 1;
            self.suspect_segment_size();
        }
    }

    /// Payload of a probe, if one may leave now.
    pub(super) fn mtu_probe_payload(&self, now: Instant) -> Option<usize> {
        let search = self.mtu_search()?;
        let may = search.ceiling > 0
            && search.probe.is_none()
            && search.paused_until.is_none_or(|at| at <= now)
            && self.recovery == Recovery::Open
            && self.backoff == 0
            && self.congestion.window() >= PROBE_WINDOW_SEGMENTS * self.segment_size() as u64;
        if !may {
            return None;
        }
        let (known, ceiling) = (self.peer_segment_size, search.ceiling);
        // The likeliest first: what the peer takes; then halves.
        let largest = search.largest;
        let size = if ceiling > largest { largest } else { known + (ceiling - known) / 2 };
        (size > known).then(|| usize::from(size) - self.timestamp_bytes())
    }

    /// New data from `start` on left in one segment of `payload` bytes: a probe if that is more than the path is known
    /// to carry.
    pub(super) fn note_mtu_probe(&mut self, start: u64, payload: usize) -> bool {
        let size = payload + self.timestamp_bytes();
        if size <= usize::from(self.peer_segment_size) {
            return false;
        }
        let rare = self.rare_mut();
        rare.statistics.path_mtu_probes += 1;
        rare.mtu_search.probe =
            Some(Probe { start, end: start + payload as u64, size: size.min(usize::from(u16::MAX)) as u16 });
        true
    }

    /// The probe that is out.
    fn mtu_probe(&self) -> Option<Probe> {
        self.mtu_search()?.probe
    }

    /// The probe did not get through, or nobody will know.
    fn end_mtu_probe(&mut self, now: Instant, probe: &Probe) {
        let search = &mut self.rare_mut().mtu_search;
        search.probe = None;
        search.ceiling = search.ceiling.min(probe.size);
        self.end_mtu_search_if_done(now);
    }

    /// Whether the probe begins at `offset`.
    pub(super) fn probes_mtu_at(&self, offset: u64) -> bool {
        self.mtu_probe().is_some_and(|probe| probe.start == offset)
    }

    /// Everything before SND.UNA is delivered: a probe among it has shown what the path carries.
    pub(super) fn check_mtu_probe_delivered(&mut self, now: Instant) {
        let Some(probe) = self.mtu_probe().filter(|probe| self.una >= probe.end) else { return };
        self.rare_mut().mtu_search.probe = None;
        self.set_peer_segment_size(probe.size.max(self.peer_segment_size));
        self.end_mtu_search_if_done(now);
    }

    /// `lost` bytes were found lost in one go. If that is the probe and nothing else, it says nothing about congestion
    /// (RFC 4821 section 7.5).
    pub(super) fn is_mtu_probe_lost(&mut self, now: Instant, lost: u64) -> bool {
        let Some(probe) = self.mtu_probe() else { return false };
        if !self.flight.at(probe.start).is_some_and(|segment| segment.lost) {
            return false;
        }
        self.end_mtu_probe(now, &probe);
        lost == probe.end - probe.start
    }

    /// The segment at `offset` leaves again, in pieces of the known size: if it is the probe, its acknowledgement will
    /// no longer tell what the path carries, and it was probably too large.
    pub(super) fn note_mtu_probe_resent(&mut self, now: Instant, offset: u64) {
        if let Some(probe) = self.mtu_probe().filter(|probe| (probe.start..probe.end).contains(&offset)) {
            self.end_mtu_probe(now, &probe);
        }
    }

    /// A report that the path carries no more than this ends the search above it.
    pub(super) fn bound_mtu_search(&mut self, size: u16) {
        if self.mtu_search().is_some_and(|search| search.ceiling > 0) {
            let search = &mut self.rare_mut().mtu_search;
            search.ceiling = search.ceiling.min(size.saturating_add(1));
        }
    }

    /// The search is over for now when little is left to gain.
    fn end_mtu_search_if_done(&mut self, now: Instant) {
        let known = self.peer_segment_size;
        let search = &mut self.rare_mut().mtu_search;
        if known >= search.largest {
            search.ceiling = 0;
        } else if search.ceiling <= known + SEARCH_GRANULARITY {
            // The path may change: try all of it again later.
            search.ceiling = search.largest.saturating_add(1);
            search.paused_until = Some(now + RAISE_INTERVAL);
        }
    }
}
