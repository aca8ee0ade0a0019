//! The connection table: entries in slots with generations, found by index or by 4-tuple.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use foldhash::fast::FixedState;

use super::frame::{Mac, Template};
use super::key::FlowKey;
use super::listener::ListenerId;
use crate::endpoint::{ConnectionId, Endpoint, Established, Waker};
use crate::tcp::connection::{CloseReason, Connection};
use crate::tcp::source::{AckUrgency, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault};
use crate::time::Instant;

/// Where a connection is in its life, as far as the stack cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Begun by this end; the handshake is not complete.
    Connecting,
    /// Begun by the peer; the handshake is not complete, and there is no endpoint yet.
    HalfOpen,
    /// The handshake is complete.
    Established,
}

/// One connection as an observer sees it.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionSummary {
    /// Its name.
    pub id: ConnectionId,
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Where it is in its life.
    pub phase: Phase,
    /// State of the sender.
    pub send: SendState,
}

pub(super) struct Entry {
    pub(super) id: ConnectionId,
    pub(super) key: FlowKey,
    pub(super) next_hop: IpAddr,
    pub(super) template: Template,
    /// Where the peer's SYN came from, in a connection that a peer began. While it is half-open, its frames go back
    /// there: the neighbour cache is not troubled for an address that may be invented.
    pub(super) came_from: Option<Mac>,
    pub(super) connection: Connection,
    /// [`Nobody`] while half-open.
    pub(super) user: Box<dyn Endpoint>,
    pub(super) waker: Option<Waker>,
    pub(super) phase: Phase,
    /// The listener whose backlog this half-open connection counts against.
    pub(super) listener: Option<ListenerId>,
    /// The last values told to the user and to the connection.
    pub(super) acked_offset: u64,
    pub(super) room: usize,
    pub(super) aborted: bool,
    /// Waiting for the neighbour cache: transmits nothing.
    pub(super) parked: bool,
    pub(super) ready_since: Instant,
    /// Segments sent in the present turn.
    pub(super) turn_segments: usize,
    /// It received something in the present burst, and is listed to be settled.
    pub(super) touched: bool,
}

impl Entry {
    /// As an observer sees it.
    pub(super) fn summary(&self, now: Instant) -> ConnectionSummary {
        ConnectionSummary {
            id: self.id,
            local: self.key.local(),
            remote: self.key.remote(),
            phase: self.phase,
            send: self.connection.send_state(now),
        }
    }

    /// The way back to a peer whose handshake is not complete.
    pub(super) fn way_back(&self) -> Option<Mac> {
        self.came_from.filter(|_| self.phase == Phase::HalfOpen)
    }

    /// Reads a little of everything that the next segment needs; see [`Connection::touch`].
    pub(super) fn touch(&self, sends: bool) -> u64 {
        let own = self.acked_offset ^ self.ready_since.as_nanos() ^ u64::from(self.key.remote().port());
        own ^ self.template.touch() ^ self.user.room() as u64 ^ self.connection.touch(sends)
    }

    /// Tells the endpoint that the connection is open, unless it knows. Says whether this was the first time.
    pub(super) fn establish(&mut self, now: Instant) -> bool {
        if self.phase == Phase::Established {
            return false;
        }
        self.phase = Phase::Established;
        let established = Established {
            local: self.key.local(),
            remote: self.key.remote(),
            segment_size: self.connection.segment_size(),
        };
        self.user.on_established(now, &established);
        true
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    entry: Option<Box<Entry>>,
}

/// The table. The flow map names exactly the entries.
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    flows: HashMap<FlowKey, u32, FixedState>,
    /// The flow last found: the next frame is often of the same.
    latest: Option<(FlowKey, u32)>,
    entries_max: usize,
}

impl Table {
    pub(super) fn new(entries_max: usize, seed: u64) -> Self {
        Table {
            slots: Vec::new(),
            free: Vec::new(),
            flows: HashMap::with_hasher(FixedState::with_seed(seed)),
            latest: None,
            entries_max: entries_max.min(u32::MAX as usize - 1),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty() && self.slots.len() >= self.entries_max
    }

    pub(super) fn find(&self, key: &FlowKey) -> Option<u32> {
        self.flows.get(key).copied()
    }

    /// [`Self::find`] for what arrives, in bursts.
    pub(super) fn find_again(&mut self, key: &FlowKey) -> Option<u32> {
        if let Some((latest, index)) = &self.latest
            && latest == key
        {
            return Some(*index);
        }
        let index = self.find(key)?;
        self.latest = Some((*key, index));
        Some(index)
    }

    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(super) fn get(&self, index: u32) -> Option<&Entry> {
        self.slots.get(index as usize)?.entry.as_deref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Entry> {
        self.slots.get_mut(index as usize)?.entry.as_deref_mut()
    }

    /// The index of `id`, unless its connection is gone.
    pub(super) fn index_of(&self, id: ConnectionId) -> Option<u32> {
        self.get(id.index).filter(|entry| entry.id == id).map(|_| id.index)
    }

    /// Adds the entry that `make` gives for its new name; `None` when the table is full.
    pub(super) fn insert(&mut self, make: impl FnOnce(ConnectionId) -> Entry) -> Option<ConnectionId> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < self.entries_max => {
                self.slots.push(Slot::default());
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let slot = &mut self.slots[index as usize];
        let id = ConnectionId { index, generation: slot.generation };
        let entry = slot.entry.insert(Box::new(make(id)));
        self.flows.insert(entry.key, index);
        Some(id)
    }

    /// Takes the entry out. Its slot is used again under the next generation, or never when there is none left.
    pub(super) fn remove(&mut self, index: u32) -> Option<Box<Entry>> {
        let slot = self.slots.get_mut(index as usize)?;
        let entry = slot.entry.take()?;
        self.flows.remove(&entry.key);
        self.latest = None;
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(index);
        }
        Some(entry)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().filter_map(|slot| slot.entry.as_deref())
    }

    pub(super) fn indexes(&self) -> Vec<u32> {
        self.iter().map(|entry| entry.id.index).collect()
    }
}

/// The user of a connection that has none: sends nothing, and takes what must be taken.
pub(super) struct Nobody {
    /// Bounds the window of a SYN-ACK; the endpoint's own room applies once there is one.
    pub(super) room: usize,
}

impl SegmentSource for Nobody {
    fn demand(&mut self, _now: Instant) -> Demand {
        Demand::Nothing
    }

    fn cut(&mut self, _now: Instant, _state: &SendState, _cut: &mut dyn Cut) {}

    fn next_demand(&self) -> Option<Instant> {
        None
    }
}

impl SegmentSink for Nobody {
    fn deliver(&mut self, _now: Instant, _bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        // Data for a connection whose endpoint does not exist cannot be kept: reset rather than lose it.
        Err(SinkFault)
    }

    fn room(&self) -> usize {
        self.room
    }
}

impl Endpoint for Nobody {
    fn on_established(&mut self, _now: Instant, _established: &Established) {}

    fn on_closed(&mut self, _now: Instant, _reason: CloseReason) {}
}
