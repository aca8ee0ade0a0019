//! Super-segments as Linux forms them. The engine gives single segments; Linux hands several down at once and sets
//! PSH on the last of each such group, which shows on the wire. The runner's port does the same to groups that
//! Linux would have formed.

use outrider_stack::tcp::connection::Inspection;

/// Offset and bit of PSH in a TCP header.
const FLAGS_AT: usize = 13;
const PSH: u8 = 0x08;
/// Most bytes of a group.
const GROUP_BYTES_MAX: u64 = 65_000;
/// Part of a second that a group lasts at the pacing rate, as a shift (`sk_pacing_shift`).
const PACING_SHIFT: u32 = 10;
/// On short paths groups may be longer: a power of two less for each of these round-trip microseconds
/// (`tcp_tso_rtt_log`).
const RTT_SHIFT: u32 = 9;

/// How many segments Linux would send as one group; at least `least` as far as the window allows
/// (`tcp_min_tso_segs`).
pub(super) fn group_segments(seen: &Inspection, least: u64) -> u64 {
    let size = seen.segment_size.max(1);
    let rtt_us = seen.smoothed_rtt.map_or(0, |rtt| rtt.as_micros() as u64);
    let rate = match rtt_us {
        0 => u64::MAX,
        rtt_us => {
            let slow_start = seen.congestion_window < seen.slow_start_threshold / 2;
            let percent = if slow_start { 200 } else { 120 };
            seen.congestion_window.saturating_mul(percent * 10_000) / rtt_us
        }
    };
    let steps = seen.rtt_min.map_or(0, |rtt| rtt.as_micros() as u64 >> RTT_SHIFT);
    let extra = if steps < 32 { GROUP_BYTES_MAX >> steps } else { 0 };
    let bytes = (rate >> PACING_SHIFT).saturating_add(extra).min(GROUP_BYTES_MAX);
    let half_window = (seen.congestion_window / size / 2).max(1);
    (bytes / size).max(least.max(1)).min(half_window)
}

/// What the port remembers of a run of segments sent in one go.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Group {
    length: u64,
}

fn set_push(bytes: &mut [u8]) {
    if let Some(flags) = bytes.get_mut(FLAGS_AT) {
        *flags |= PSH;
    }
}

impl Group {
    /// A segment of new data follows, `last` of its buffer or of the run; sets PSH where a group ends.
    pub(super) fn add(&mut self, bytes: &mut [u8], last: bool, limit: u64) {
        self.length += 1;
        if self.length < limit && !last {
            return;
        }
        if self.length > 1 {
            set_push(bytes);
        }
        self.length = 0;
    }

    /// Something else than new data was sent.
    pub(super) fn break_off(&mut self) {
        self.length = 0;
    }
}
