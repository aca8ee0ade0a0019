//! Super-segments as Linux forms them. The engine gives single segments; Linux hands several down at once and sets
//! PSH on the last of each such group, which shows on the wire. The runner's port does the same to groups that
//! Linux would have formed, and again when several segments of one are sent again.

use std::collections::VecDeque;

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

/// Groups whose ends are kept, at most: what is in flight has fewer.
const GROUPS_MAX: usize = 65_536;

/// Payload of a segment that leaves, in stream offsets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    pub(super) start: u64,
    pub(super) end: u64,
    /// For the first time.
    pub(super) fresh: bool,
    /// Fresh, and the last of its buffer: the next segment belongs to another.
    pub(super) ends_buffer: bool,
}

/// What was sent as one: a group that leaves again leaves as one again, as far as it was not cut in between.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    /// Where groups end, ascending.
    ends: VecDeque<u64>,
    /// Only the end of a write is pushed, as Linux did before 4.20.
    pub(super) unpushed: bool,
}

/// What the port remembers of a run of segments sent in one go.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    length: u64,
}

fn set_push(bytes: &mut [u8]) {
    if let Some(flags) = bytes.get_mut(FLAGS_AT) {
        *flags |= PSH;
    }
}

impl Groups {
    /// Everything before `offset` is acknowledged.
    pub(super) fn acknowledge_to(&mut self, offset: u64) {
        while self.ends.front().is_some_and(|end| *end <= offset) {
            self.ends.pop_front();
        }
    }

    fn add(&mut self, end: u64) {
        let at = self.ends.partition_point(|other| *other < end);
        if self.ends.get(at) != Some(&end) && self.ends.len() < GROUPS_MAX {
            self.ends.insert(at, end);
        }
    }

    /// `data` leaves, then `next`; sets PSH where a group ends. `limit`: segments of a new group.
    pub(super) fn send(
        &mut self,
        run: &mut Run,
        bytes: &mut [u8],
        data: Option<Data>,
        next: Option<Data>,
        limit: u64,
    ) {
        let Some(data) = data else {
            run.length = 0;
            return;
        };
        run.length += 1;
        let follows = next.is_some_and(|next| next.start == data.end && next.fresh == data.fresh);
        let ends = if data.fresh {
            data.ends_buffer || run.length >= limit
        } else {
            self.ends.binary_search(&data.end).is_ok()
        };
        if follows && !ends {
            return;
        }
        if run.length > 1 && !self.unpushed {
            set_push(bytes);
        }
        run.length = 0;
        self.add(data.end);
    }
}
