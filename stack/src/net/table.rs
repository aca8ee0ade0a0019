//! The connection table: entries in places with generations, found by index or by 4-tuple.

use std::mem;
use std::net::SocketAddr;

use outrider_drivers::cache;

use super::flows::Flows;
use super::frame::{Mac, Sums, Template};
use super::key::FlowKey;
use super::listener::ListenerId;
use crate::endpoint::{ConnectionId, Endpoint, Established};
use crate::growth::lengthen;
use crate::tcp::connection::{CloseReason, Connection};
use crate::tcp::maybe::FlightBytes;
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

/// What matters while the handshake of a connection that a peer began is not complete.
pub(super) struct HalfOpen {
    /// Where the peer's SYN came from: frames go back there. The neighbour cache is not troubled for an address that
    /// may be invented.
    pub(super) came_from: Mac,
    /// The listener whose backlog this half-open connection counts against.
    pub(super) listener: Option<ListenerId>,
}

/// A connection and what the stack knows of it. Laid out by hand: what every segment needs first comes first, and the
/// whole begins with a line of the cache.
#[repr(C, align(64))]
pub(super) struct Entry {
    pub(super) key: FlowKey,
    pub(super) sums: Sums,
    pub(super) id: ConnectionId,
    pub(super) phase: Phase,
    pub(super) aborted: bool,
    /// Waiting for the neighbour cache: transmits nothing.
    pub(super) parked: bool,
    /// It received something in the present burst, and is listed to be settled.
    pub(super) touched: bool,
    /// The peer is not on the link: frames go to the gateway.
    pub(super) through_gateway: bool,
    /// Its user is an endpoint, which has a waker.
    pub(super) attached: bool,
    /// Segments sent in the present turn.
    pub(super) turn_segments: u32,
    /// The room last told to the connection.
    pub(super) room: FlightBytes,
    /// [`Nobody`] while half-open.
    pub(super) user: Box<dyn Endpoint>,
    pub(super) half_open: Option<Box<HalfOpen>>,
    /// What was last told to the user.
    pub(super) acked_offset: u64,
    pub(super) ready_since: Instant,
    pub(super) connection: Connection,
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
        self.half_open.as_ref().map(|half_open| half_open.came_from)
    }

    /// The listener whose backlog it counts against.
    pub(super) fn listener(&self) -> Option<ListenerId> {
        self.half_open.as_ref()?.listener
    }

    /// It counts against no backlog any longer.
    pub(super) fn take_listener(&mut self) -> Option<ListenerId> {
        self.half_open.as_mut()?.listener.take()
    }

    /// The headers of what it sends.
    pub(super) fn template(&self, source_mac: Mac) -> Template {
        Template::with(source_mac, &self.key, self.sums)
    }

    /// Tells the endpoint that the connection is open, unless it knows. Says whether this was the first time.
    pub(super) fn establish(&mut self, now: Instant) -> bool {
        if self.phase == Phase::Established {
            return false;
        }
        self.phase = Phase::Established;
        self.half_open = None;
        let established = Established {
            local: self.key.local(),
            remote: self.key.remote(),
            segment_size: self.connection.segment_size(),
        };
        self.user.on_established(now, &established);
        true
    }
}

/// Entries that are allocated together: a few, for a stack with a few connections. With that no entry needs a pointer of
/// its own, which would have to be fetched before it.
const CHUNK: usize = 16;
/// So much of an entry is needed when its connection receives.
const RECEIVER_BYTES: usize = mem::offset_of!(Entry, connection) + Connection::RECEIVER_BYTES;
/// So much of an endpoint is asked for before it is called.
const USER_BYTES: usize = 4 * cache::LINE_BYTES;

/// The table. The flow map names exactly the entries.
pub(super) struct Table {
    chunks: Vec<Box<[Option<Entry>]>>,
    /// How many connections each place has held, as far as places were used.
    generations: Vec<u32>,
    free: Vec<u32>,
    flows: Flows,
    /// The flow last found: the next frame is often of the same.
    latest: Option<(FlowKey, u32)>,
    /// Where the flows of the coming burst most likely are, in the order in which they come, and how many have come.
    expected: Vec<u32>,
    met: usize,
    entries_max: usize,
}

impl Table {
    pub(super) fn new(entries_max: usize, seed: u64) -> Self {
        Table {
            chunks: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            flows: Flows::new(seed),
            latest: None,
            expected: Vec::new(),
            met: 0,
            entries_max: entries_max.min(u32::MAX as usize - 1),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty() && self.generations.len() >= self.entries_max
    }

    pub(super) fn find(&self, key: &FlowKey) -> Option<u32> {
        self.flows.find(key, |index| self.get(index).is_some_and(|entry| entry.key == *key))
    }

    /// [`Self::find`] for what arrives, in bursts.
    pub(super) fn find_again(&mut self, key: &FlowKey) -> Option<u32> {
        if let Some((latest, index)) = &self.latest
            && latest == key
        {
            return Some(*index);
        }
        let index = self.meet(key).or_else(|| self.find(key))?;
        self.latest = Some((*key, index));
        Some(index)
    }

    /// [`Self::find`] for the next flow that was expected, or the one after it: one may have come unseen.
    fn meet(&mut self, key: &FlowKey) -> Option<u32> {
        let coming = self.expected.get(self.met..)?;
        let is_it = |index: &u32| self.get(*index).is_some_and(|entry| entry.key == *key);
        let ahead = coming.iter().take(2).position(is_it)?;
        let index = coming[ahead];
        self.met += ahead + 1;
        Some(index)
    }

    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    fn place(&mut self, index: u32) -> Option<&mut Option<Entry>> {
        self.chunks.get_mut(index as usize / CHUNK)?.get_mut(index as usize % CHUNK)
    }

    /// The place of `index`, looked up without a look into it.
    fn peek_place(&self, index: u32) -> Option<&Option<Entry>> {
        self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)
    }

    pub(super) fn get(&self, index: u32) -> Option<&Entry> {
        self.peek_place(index)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Entry> {
        self.place(index)?.as_mut()
    }

    /// The index of `id`, unless its connection is gone.
    pub(super) fn index_of(&self, id: ConnectionId) -> Option<u32> {
        self.get(id.index).filter(|entry| entry.id == id).map(|_| id.index)
    }

    /// Adds the entry that `make` gives for its new name; `None` when the table is full.
    pub(super) fn insert(&mut self, make: impl FnOnce(ConnectionId) -> Entry) -> Option<ConnectionId> {
        if self.is_full() {
            return None;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.generations.len();
            lengthen(&mut self.generations, index + 1, 0);
            index as u32
        });
        if self.chunks.len() * CHUNK <= index as usize {
            self.chunks.push((0..CHUNK).map(|_| None).collect());
        }
        let id = ConnectionId { index, generation: self.generations[index as usize] };
        let place = self.place(index).expect("there is a chunk for every index");
        let key = place.insert(make(id)).key;
        self.flows.insert(&key, index);
        Some(id)
    }

    /// Takes the entry out. Its place is used again under the next generation, or never when there is none left.
    pub(super) fn remove(&mut self, index: u32) -> Option<Entry> {
        let entry = self.place(index)?.take()?;
        self.flows.remove(&entry.key, index);
        self.latest = None;
        self.expected.clear();
        let generation = &mut self.generations[index as usize];
        if let Some(next) = generation.checked_add(1) {
            *generation = next;
            self.free.push(index);
        }
        Some(entry)
    }

    /// What stands for `key` in the map of flows.
    pub(super) fn tag(&self, key: &FlowKey) -> u64 {
        self.flows.tag(key)
    }

    /// The flows with these tags are those of the coming burst, in this order: asks for their places in the map.
    pub(super) fn expect(&self, tags: &[u64]) {
        tags.iter().for_each(|tag| self.flows.prefetch(*tag));
    }

    /// Looks for them, best some time after [`Self::expect`].
    pub(super) fn find_expected(&mut self, tags: &[u64]) {
        self.met = 0;
        self.expected.clear();
        self.expected.extend(tags.iter().filter_map(|tag| self.flows.guess(*tag)));
    }

    /// Those that were found, in the order in which they come.
    pub(super) fn expected(&self) -> &[u32] {
        &self.expected
    }

    /// Asks for a connection that is about to receive, or to send, and so need more of it: see [`cache`].
    pub(super) fn prefetch(&self, index: u32, sends: bool) {
        if let Some(place) = self.peek_place(index) {
            cache::prefetch_part(place, 0, if sends { size_of_val(place) } else { RECEIVER_BYTES });
        }
    }

    /// Asks for what such a connection points to, best some time after [`Self::prefetch`].
    pub(super) fn prefetch_parts(&self, index: u32, sends: bool) {
        let Some(entry) = self.get(index) else { return };
        cache::prefetch_part(&*entry.user, 0, USER_BYTES);
        // Who has something in flight receives an acknowledgement.
        if sends || !entry.connection.is_bare() {
            cache::prefetch_part(entry, RECEIVER_BYTES, size_of_val(entry));
            entry.connection.prefetch_parts();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().flatten())
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
