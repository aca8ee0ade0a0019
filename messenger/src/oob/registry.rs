//! Which ops are due when, and the collecting of their parts at the cut.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use outrider_stack::time::Instant;

use super::{OPS_MAX, OobCallback, OobOp, OobPart, OobRequest, OobTurn, RegisterError, RegistrationState};
use crate::codec::OOB_PART_HEADER_BYTES;
use crate::random::SplitMix;
use crate::sparse::{Moment, SparseQueue};

/// Parts due within this time of the first are taken along, or within a tenth of the shortest interval if that is more.
const SLACK_MIN: Duration = Duration::from_millis(1);

struct Entry {
    op: OobOp,
    interval: Duration,
    callback: OobCallback,
    state: Arc<RegistrationState>,
    due: Instant,
}

/// A part that was made and then found no room in its segment: first in the next one.
struct Carried {
    op: OobOp,
    due: Instant,
    bytes: Bytes,
}

/// The parts of one OOB message.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) parts: Vec<OobPart>,
    /// When the first of them was due.
    pub(crate) earliest_due: Option<Instant>,
    /// The owner of the last op has dropped its registration: the peer shall know that no more will come.
    pub(crate) emptied: bool,
}

/// Counts kept here; see [`super::OobStatistics`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turns {
    pub(crate) superseded: u64,
    pub(crate) skipped: u64,
    pub(crate) refused: u64,
}

/// The registered ops of one connection.
///
/// All turns are multiples of their interval after one origin, which a seed spreads among connections: ops of
/// the same interval, or of multiples, come due together and share a message.
pub(crate) struct Registry {
    entries: Vec<Entry>,
    carried: SparseQueue<Carried>,
    random: SplitMix,
    started: bool,
    origin: Moment,
    earliest: Moment,
    turns: Turns,
}

impl core::fmt::Debug for Registry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let ops: Vec<OobOp> = self.entries.iter().map(|entry| entry.op).collect();
        f.debug_struct("Registry")
            .field("ops", &ops)
            .field("earliest", &self.earliest)
            .finish_non_exhaustive()
    }
}

impl Registry {
    pub(crate) fn new(seed: u64) -> Self {
        Registry {
            entries: Vec::new(),
            carried: SparseQueue::default(),
            random: SplitMix::new(seed),
            started: false,
            origin: Moment::NEVER,
            earliest: Moment::NEVER,
            turns: Turns::default(),
        }
    }

    pub(crate) fn turns(&self) -> Turns {
        self.turns
    }

    /// Shortest interval of the ops that their owners still want.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.entries.iter().filter(|entry| entry.state.is_alive()).map(|entry| entry.interval).min()
    }

    /// When the next part is due; `None` before the start or without ops.
    pub(crate) fn earliest(&self) -> Option<Instant> {
        self.earliest.get()
    }

    /// How much before its turn a part is taken along.
    fn slack(&self) -> Duration {
        let shortest = self.entries.iter().map(|entry| entry.interval).min();
        shortest.map_or(SLACK_MIN, |shortest| (shortest / 10).max(SLACK_MIN))
    }

    pub(crate) fn insert(&mut self, now: Instant, request: OobRequest) -> Result<(), RegisterError> {
        let OobRequest { op, interval, callback, state } = request;
        self.entries.retain(|entry| entry.state.is_alive());
        if self.entries.iter().any(|entry| entry.op == op) {
            return Err(RegisterError::AlreadyRegistered { op });
        }
        if self.entries.len() >= OPS_MAX {
            return Err(RegisterError::TooMany);
        }
        // Most connections have one op and keep it: room for that one.
        self.entries.reserve_exact(1);
        self.entries.push(Entry { op, interval, callback, state, due: Instant::FAR_FUTURE });
        if self.started {
            self.schedule(now);
        }
        self.refresh();
        Ok(())
    }

    /// The session is ready: turns come due from here on.
    pub(crate) fn start(&mut self, now: Instant) {
        self.started = true;
        self.schedule(now);
        self.refresh();
    }

    /// The connection is gone: nothing is due until [`Self::start`]. Turns missed meanwhile never came due; parts
    /// that were made and had not left are superseded.
    pub(crate) fn pause(&mut self) {
        self.started = false;
        self.turns.superseded += self.carried.len() as u64;
        self.carried.clear();
        self.entries.iter_mut().for_each(|entry| entry.due = Instant::FAR_FUTURE);
        self.refresh();
    }

    /// Whether an op is registered whose owner still wants it.
    pub(crate) fn has_live(&self) -> bool {
        self.entries.iter().any(|entry| entry.state.is_alive())
    }

    /// The session is over: nothing is due any more.
    pub(crate) fn stop(&mut self) {
        self.started = false;
        self.entries = Vec::new();
        self.carried.clear();
        self.refresh();
    }

    /// Gives every op without a turn its first one: the next multiple of its interval after the origin.
    fn schedule(&mut self, now: Instant) {
        let Some(shortest) = self.entries.iter().map(|entry| entry.interval).min() else { return };
        let origin = self.origin.get().unwrap_or_else(|| now + self.random.below(shortest));
        self.origin = origin.into();
        for entry in self.entries.iter_mut().filter(|entry| entry.due == Instant::FAR_FUTURE) {
            let turns = intervals(now.since(origin), entry.interval);
            let due = origin + multiply(entry.interval, turns);
            entry.due = if due < now { due + entry.interval } else { due };
        }
    }

    fn refresh(&mut self) {
        let entries = self.entries.iter().map(|entry| entry.due);
        let carried = self.carried.iter().map(|part| part.due);
        let earliest = entries.chain(carried).min().filter(|_| self.started);
        self.earliest = earliest.into();
    }

    /// The parts that leave in the OOB message `sequence` at `now`: all that are due or will be within the slack,
    /// as far as `room_bytes` goes. A part above `part_bytes_max` is refused.
    pub(crate) fn collect(
        &mut self,
        now: Instant,
        sequence: u64,
        room_bytes: usize,
        part_bytes_max: usize,
    ) -> Collected {
        let mut collected = Collected::default();
        let mut room = room_bytes;
        let horizon = now + self.slack();
        let ops = self.entries.len();
        self.entries.retain(|entry| entry.state.is_alive());
        collected.emptied = ops > 0 && self.entries.is_empty();
        self.take_carried(&mut collected, &mut room);
        let mut turns: Vec<usize> =
            (0..self.entries.len()).filter(|&index| self.entries[index].due <= horizon).collect();
        turns.sort_by_key(|&index| self.entries[index].due);
        for index in turns {
            self.take_turn(index, now, sequence, part_bytes_max, &mut collected, &mut room);
        }
        self.refresh();
        collected
    }

    fn take_carried(&mut self, collected: &mut Collected, room: &mut usize) {
        while let Some(part) = self.carried.front() {
            let needed = OOB_PART_HEADER_BYTES + part.bytes.len();
            if needed > *room {
                break;
            }
            if let Some(Carried { op, due, bytes }) = self.carried.pop_front() {
                *room -= needed;
                collected.add(op, due, bytes);
            }
        }
    }

    fn take_turn(
        &mut self,
        index: usize,
        now: Instant,
        sequence: u64,
        part_bytes_max: usize,
        collected: &mut Collected,
        room: &mut usize,
    ) {
        let entry = &mut self.entries[index];
        let due = entry.due;
        let missed = intervals(now.since(due), entry.interval);
        self.turns.superseded += missed;
        entry.due = due + multiply(entry.interval, missed.saturating_add(1));
        if self.carried.iter().any(|part| part.op == entry.op) {
            self.turns.superseded += 1;
            return;
        }
        match (entry.callback)(&OobTurn { now, due, sequence, bytes_max: part_bytes_max }) {
            None => self.turns.skipped += 1,
            Some(bytes) if bytes.len() > part_bytes_max => {
                self.turns.refused += 1;
                entry.state.refused.fetch_add(1, Ordering::Relaxed);
            }
            Some(bytes) if OOB_PART_HEADER_BYTES + bytes.len() > *room => {
                self.carried.push_back(Carried { op: entry.op, due, bytes });
            }
            Some(bytes) => {
                *room -= OOB_PART_HEADER_BYTES + bytes.len();
                collected.add(entry.op, due, bytes);
            }
        }
    }
}

impl Collected {
    fn add(&mut self, op: OobOp, due: Instant, bytes: Bytes) {
        self.earliest_due = Some(self.earliest_due.map_or(due, |earliest| earliest.min(due)));
        self.parts.push(OobPart { op, bytes });
    }
}

/// Whole intervals in a time.
fn intervals(time: Duration, interval: Duration) -> u64 {
    u64::try_from(time.as_nanos() / interval.as_nanos().max(1)).unwrap_or(u64::MAX)
}

fn multiply(interval: Duration, count: u64) -> Duration {
    let nanos = interval.as_nanos().saturating_mul(u128::from(count));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
