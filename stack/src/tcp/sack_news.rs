//! What the next acknowledgements tell of bytes ahead of a gap, and of those that came twice (RFC 2018, RFC 2883).
//!
//! An acknowledgement has room for three or four blocks, and one may answer a whole burst. So what has changed is kept
//! by range and not by segment, and what no acknowledgement has told yet goes before what one has. If it takes several,
//! they tell it in the order in which it arrived: a peer takes what is not told for lost as soon as it hears of what it
//! sent later (RFC 8985).

use std::collections::VecDeque;

use super::reassembly::Reassembly;

/// Ranges kept track of: what a burst changes, and enough to tell the latest of them again (RFC 2018 section 4 wants each
/// block told three times, for an acknowledgement may be lost).
const CHANGED_MAX: usize = 8;
/// Duplicates that wait for their acknowledgement, each of which has room for one.
const DUPLICATES_MAX: usize = 4;
/// Blocks in an acknowledgement at most.
const BLOCKS_MAX: usize = 4;

/// A range in which something arrived. All of what is held around it is told with it.
#[derive(Clone, Copy, Debug)]
struct Changed {
    start: u64,
    end: u64,
    told: bool,
}

/// What is to be told, in stream offsets.
#[derive(Debug, Default)]
pub(crate) struct SackNews {
    /// Newest first. No two touch.
    changed: Vec<Changed>,
    /// Oldest first.
    duplicates: VecDeque<(u64, u64)>,
}

impl SackNews {
    /// Something arrived ahead of a gap.
    pub(crate) fn note(&mut self, start: u64, end: u64) {
        let mut whole = Changed { start, end, told: false };
        self.changed.retain(|old| {
            let touches = old.start <= whole.end && whole.start <= old.end;
            if touches {
                whole.start = whole.start.min(old.start);
                whole.end = whole.end.max(old.end);
            }
            !touches
        });
        if self.changed.len() == CHANGED_MAX {
            let told = self.changed.iter().rposition(|old| old.told);
            self.changed.remove(told.unwrap_or(CHANGED_MAX - 1));
        }
        self.changed.insert(0, whole);
    }

    /// Something arrived that had arrived before. Contiguous duplicates are told as one (RFC 2883 section 4, rule 2).
    pub(crate) fn note_duplicate(&mut self, start: u64, end: u64) {
        match self.duplicates.back_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => {
                if self.duplicates.len() == DUPLICATES_MAX {
                    self.duplicates.pop_front();
                }
                self.duplicates.push_back((start, end));
            }
        }
    }

    /// Duplicates need not be told any more.
    pub(crate) fn forget_duplicates(&mut self) {
        self.duplicates.clear();
    }

    /// Bytes of memory held besides the value itself.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.changed.capacity() * size_of::<Changed>() + self.duplicates.capacity() * size_of::<(u64, u64)>()
    }

    /// Whether there is anything that no acknowledgement has told. `next` is RCV.NXT.
    pub(crate) fn has_untold(&self, next: u64) -> bool {
        !self.duplicates.is_empty()
            || self.changed.iter().any(|changed| !changed.told && changed.start > next)
    }

    /// Tells at most `limit` ranges of what is `held` beyond `next`, each of them whole: a duplicate first, which must be
    /// followed by what it is a duplicate of (RFC 2883 section 4, rule 3), then what is news, then the rest; the newest
    /// first of either.
    pub(crate) fn tell(
        &mut self,
        next: u64,
        held: &Reassembly,
        limit: usize,
        mut report: impl FnMut(u64, u64),
    ) {
        let mut room = limit.min(BLOCKS_MAX);
        if room == 0 {
            return;
        }
        let mut told = Told::default();
        if let Some((start, end)) = self.duplicates.pop_front() {
            report(start, end);
            room -= 1;
            if let Some(around) = held.range_around(start).filter(|_| room > 0 && start >= next) {
                report(around.0, around.1);
                told.add(around, room);
            }
        }
        let around = told.count;
        // What comes before RCV.NXT is acknowledged, and need not be told.
        self.changed.retain(|changed| changed.start > next);
        for changed in self.changed.iter_mut().rev().filter(|changed| !changed.told) {
            changed.told = held.range_around(changed.start).is_none_or(|range| told.add(range, room));
        }
        told.ranges[around..told.count].reverse();
        for changed in self.changed.iter().filter(|changed| changed.told) {
            if told.count < room
                && let Some(range) = held.range_around(changed.start)
            {
                told.add(range, room);
            }
        }
        told.ranges[around..told.count].iter().for_each(|range| report(range.0, range.1));
    }
}

/// Ranges that an acknowledgement tells.
#[derive(Default)]
struct Told {
    ranges: [(u64, u64); BLOCKS_MAX],
    count: usize,
}

impl Told {
    /// Adds `range` if there are fewer than `room`. Says whether it is told now.
    fn add(&mut self, range: (u64, u64), room: usize) -> bool {
        if self.ranges[..self.count].contains(&range) {
            return true;
        }
        if self.count == room {
            return false;
        }
        self.ranges[self.count] = range;
        self.count += 1;
        true
    }
}
