//! Which ops are due when, and the collecting of their parts at the cut.

use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use outrider_stack::time::Instant;

use super::{OPS_MAX, OobCallback, OobOp, OobPart, OobRequest, OobTurn, RegisterError, RegistrationState};
use crate::codec::OOB_PART_HEADER_BYTES;
use crate::random::SplitMix;
use crate::sparse::{Few, Moment, SparseQueue, nanos_of};

/// Parts due within this time of the first are taken along, or within a tenth of the shortest interval if that is more.
const SLACK_NS_MIN: u64 = 1_000_000;

struct Entry {
    op: OobOp,
    /// From [`super::INTERVAL_MIN`] to [`super::INTERVAL_MAX`].
    interval_ns: u64,
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
    pub(crate) parts: Few<OobPart>,
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
    entries: Few<Entry>,
    earliest: Moment,
    carried: SparseQueue<Carried>,
    /// What all turns are counted from, nanoseconds, once it is drawn; until then the seed to draw it from.
    origin: u64,
    is_origin_drawn: bool,
    started: bool,
    /// Where every turn has left in its time there is nothing to count.
    turns: Option<Box<Turns>>,
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
            entries: Few::default(),
            earliest: Moment::NEVER,
            carried: SparseQueue::default(),
            origin: seed,
            is_origin_drawn: false,
            started: false,
            turns: None,
        }
    }

    pub(crate) fn turns(&self) -> Turns {
        self.turns.as_deref().copied().unwrap_or_default()
    }

    fn count_superseded(&mut self, turns: u64) {
        if turns > 0 {
            self.turns.get_or_insert_default().superseded += turns;
        }
    }

    /// Shortest interval of the ops that their owners still want.
    pub(crate) fn interval(&self) -> Option<Duration> {
        let alive = self.entries.iter().filter(|entry| entry.state.is_alive());
        alive.map(|entry| entry.interval_ns).min().map(Duration::from_nanos)
    }

    /// When the next part is due; never before the start or without ops.
    #[inline]
    pub(crate) fn earliest(&self) -> Moment {
        self.earliest
    }

    fn shortest_ns(&self) -> Option<u64> {
        self.entries.iter().map(|entry| entry.interval_ns).min()
    }

    /// How much before its turn a part is taken along.
    fn slack(&self) -> Duration {
        Duration::from_nanos((self.shortest_ns().unwrap_or_default() / 10).max(SLACK_NS_MIN))
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
        let interval_ns = nanos_of(interval);
        self.entries.push(Entry { op, interval_ns, callback, state, due: Instant::FAR_FUTURE });
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
        self.count_superseded(self.carried.len() as u64);
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
        self.entries.clear();
        self.carried.clear();
        self.refresh();
    }

    /// Gives every op without a turn its first one: the next multiple of its interval after the origin.
    fn schedule(&mut self, now: Instant) {
        let Some(shortest) = self.shortest_ns().map(Duration::from_nanos) else { return };
        if !self.is_origin_drawn {
            self.origin = (now + SplitMix::new(self.origin).below(shortest)).as_nanos();
            self.is_origin_drawn = true;
        }
        let origin = Instant::from_nanos(self.origin);
        for entry in self.entries.iter_mut().filter(|entry| entry.due == Instant::FAR_FUTURE) {
            let due = origin + entry.turns(intervals(now.since(origin), entry.interval_ns));
            entry.due = if due < now { due + entry.turns(1) } else { due };
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
        let mut left = self.due_by(horizon);
        // In the order in which they are due.
        while let Some(index) = self.soonest_of(left) {
            left &= !(1 << index);
            self.take_turn(index, now, sequence, part_bytes_max, &mut collected, &mut room);
        }
        self.refresh();
        collected
    }

    /// The ops whose turns come by `horizon`, a bit each: there are [`OPS_MAX`] of them at most, which is 64.
    fn due_by(&self, horizon: Instant) -> u64 {
        let bits = self.entries.iter().enumerate().filter(|(_, entry)| entry.due <= horizon);
        bits.fold(0, |bits, (index, _)| bits | 1 << index)
    }

    /// The one of these that is due first.
    fn soonest_of(&self, bits: u64) -> Option<usize> {
        if bits == 0 {
            return None;
        }
        (0..self.entries.len())
            .filter(|index| bits >> index & 1 == 1)
            .min_by_key(|&index| self.entries[index].due)
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
        let mut superseded = 0;
        if now >= due + entry.turns(1) {
            superseded = intervals(now.since(due), entry.interval_ns);
        }
        entry.due = due + entry.turns(superseded.saturating_add(1));
        if self.carried.iter().any(|part| part.op == entry.op) {
            self.count_superseded(superseded + 1);
            return;
        }
        match (entry.callback)(&OobTurn { now, due, sequence, bytes_max: part_bytes_max }) {
            None => self.turns.get_or_insert_default().skipped += 1,
            Some(bytes) if bytes.len() > part_bytes_max => {
                self.turns.get_or_insert_default().refused += 1;
                entry.state.count_refused();
            }
            Some(bytes) if OOB_PART_HEADER_BYTES + bytes.len() > *room => {
                self.carried.push_back(Carried { op: entry.op, due, bytes });
            }
            Some(bytes) => {
                *room -= OOB_PART_HEADER_BYTES + bytes.len();
                collected.add(entry.op, due, bytes);
            }
        }
        self.count_superseded(superseded);
    }
}

impl Entry {
    /// The time that so many turns take.
    fn turns(&self, count: u64) -> Duration {
        Duration::from_nanos(self.interval_ns.saturating_mul(count))
    }
}

impl Collected {
    fn add(&mut self, op: OobOp, due: Instant, bytes: Bytes) {
        self.earliest_due = Some(self.earliest_due.map_or(due, |earliest| earliest.min(due)));
        self.parts.push(OobPart { op, bytes });
    }
}

/// Whole intervals in a time.
fn intervals(time: Duration, interval_ns: u64) -> u64 {
    nanos_of(time) / interval_ns.max(1)
}
