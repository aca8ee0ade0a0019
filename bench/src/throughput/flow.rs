//! The traffic: who makes bytes, who counts them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use outrider_drivers::time::Instant;
use outrider_stack::endpoint::{Acceptor, Endpoint, Established, Waker};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::{
    AckUrgency, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault,
};

/// Bytes to send are taken from here: copied by smoltcp, whose sockets take no other, and lent to our stack, as a messenger
/// lends the body of a message.
pub(super) static CONTENT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0x5a; 128 << 10]));

/// What arrived, and the longest time in which nothing did. Written by one thread at a time.
#[derive(Debug, Default)]
pub(super) struct Meter {
    bytes: AtomicU64,
    last_nanos: AtomicU64,
    longest_stall_nanos: AtomicU64,
    established: AtomicUsize,
    closed: OnceLock<CloseReason>,
}

impl Meter {
    /// Begins to look for stalls at `now`.
    pub(super) fn begin(&self, now: Instant) {
        self.last_nanos.store(now.as_nanos(), Ordering::Relaxed);
        self.longest_stall_nanos.store(0, Ordering::Relaxed);
    }

    /// `bytes` arrived in order.
    pub(super) fn delivered(&self, now: Instant, bytes: usize) {
        // Loads and stores instead of read-modify-writes: there is one writer, and they cost a segment less.
        self.bytes.store(self.bytes() + bytes as u64, Ordering::Relaxed);
        self.note_gap(now);
        self.last_nanos.store(now.as_nanos(), Ordering::Relaxed);
    }

    fn note_gap(&self, now: Instant) {
        let gap = now.as_nanos().saturating_sub(self.last_nanos.load(Ordering::Relaxed));
        if gap > self.longest_stall_nanos.load(Ordering::Relaxed) {
            self.longest_stall_nanos.store(gap, Ordering::Relaxed);
        }
    }

    /// Bytes since the beginning of the connections.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Longest time without a delivered byte from [`Self::begin`] to `now`, the one that lasts included.
    pub(super) fn longest_stall(&self, now: Instant) -> Duration {
        let lasting = now.as_nanos().saturating_sub(self.last_nanos.load(Ordering::Relaxed));
        Duration::from_nanos(self.longest_stall_nanos.load(Ordering::Relaxed).max(lasting))
    }

    /// Connections that this end began and that are open.
    pub(super) fn established(&self) -> usize {
        self.established.load(Ordering::Relaxed)
    }

    /// Why the first connection that ended did.
    pub(super) fn closed(&self) -> Option<CloseReason> {
        self.closed.get().copied()
    }
}

/// What another part of the program has given a connection to send. Both are on one thread.
#[derive(Debug, Default)]
pub(super) struct Feed {
    bytes: AtomicU64,
    waker: OnceLock<Waker>,
}

impl Feed {
    /// Gives `bytes` more.
    pub(super) fn add(&self, bytes: u64) {
        self.set(self.waiting() + bytes);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// Bytes given and not yet taken.
    fn waiting(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A store and not a read-modify-write, as with the [`Meter`]: that would wait for memory, of many feeds for each.
    fn set(&self, waiting: u64) {
        self.bytes.store(waiting, Ordering::Relaxed);
    }
}

/// Where the bytes of a connection come from.
#[derive(Clone, Debug)]
pub(super) enum Supply {
    /// There are none: this end receives.
    None,
    /// There are always more.
    Endless,
    /// There are as many as it is fed.
    Fed(Arc<Feed>),
}

/// An end of a connection of our stack.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) supply: Supply,
    /// Counts what this end receives.
    pub(super) meter: Arc<Meter>,
    /// Bytes this end is always ready to take.
    pub(super) room_bytes: usize,
}

impl SegmentSource for Flow {
    fn demand(&mut self, _now: Instant) -> Demand {
        let waiting = match &self.supply {
            Supply::None => false,
            Supply::Endless => true,
            Supply::Fed(feed) => feed.waiting() > 0,
        };
        if waiting { Demand::Data } else { Demand::Nothing }
    }

    fn cut(&mut self, _now: Instant, _state: &SendState, cut: &mut dyn Cut) {
        if cut.urgent_only() {
            return;
        }
        let room = cut.room().min(CONTENT.len());
        match &self.supply {
            Supply::None => {}
            Supply::Endless => cut.append_shared(&CONTENT, 0..room),
            Supply::Fed(feed) => {
                let waiting = feed.waiting();
                let taken = waiting.min(room as u64);
                feed.set(waiting - taken);
                cut.append_shared(&CONTENT, 0..taken as usize);
            }
        }
    }

    fn next_demand(&self) -> Option<Instant> {
        None
    }
}

impl SegmentSink for Flow {
    fn deliver(&mut self, now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        self.meter.delivered(now, bytes.len());
        Ok(AckUrgency::Normal)
    }

    fn room(&self) -> usize {
        self.room_bytes
    }
}

impl Endpoint for Flow {
    fn on_attached(&mut self, _now: Instant, waker: Waker) {
        if let Supply::Fed(feed) = &self.supply {
            feed.waker.get_or_init(|| waker);
        }
    }

    fn on_established(&mut self, _now: Instant, _established: &Established) {
        self.meter.established.fetch_add(1, Ordering::Relaxed);
    }

    fn on_closed(&mut self, _now: Instant, reason: CloseReason) {
        self.meter.closed.get_or_init(|| reason);
    }
}

impl Acceptor for Flow {
    fn accept(
        &mut self,
        _now: Instant,
        _local: SocketAddr,
        _remote: SocketAddr,
    ) -> Option<Box<dyn Endpoint>> {
        Some(Box::new(self.clone()))
    }
}
