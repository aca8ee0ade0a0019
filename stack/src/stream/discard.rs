//! An endpoint that throws away what it receives, and counts it (RFC 863).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::endpoint::{Acceptor, Endpoint, Established};
use crate::tcp::connection::CloseReason;
use crate::tcp::source::{AckUrgency, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault};
use crate::time::Instant;

/// What all endpoints of a [`DiscardAcceptor`] have received.
#[derive(Debug, Default)]
pub struct DiscardCounters {
    /// Bytes received.
    pub bytes: AtomicU64,
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections whose peer finished in order.
    pub finished: AtomicU64,
}

/// Throws away what it receives. Ends when the peer has finished.
#[derive(Debug)]
pub struct DiscardEndpoint {
    counters: Arc<DiscardCounters>,
    room_bytes: usize,
    peer_finished: bool,
}

impl DiscardEndpoint {
    /// An endpoint that always has room for `room_bytes` more.
    pub fn new(counters: Arc<DiscardCounters>, room_bytes: usize) -> Self {
        DiscardEndpoint { counters, room_bytes, peer_finished: false }
    }
}

impl SegmentSource for DiscardEndpoint {
    fn demand(&mut self, _now: Instant) -> Demand {
        Demand::Nothing
    }

    fn cut(&mut self, _now: Instant, _state: &SendState, _cut: &mut dyn Cut) {}

    fn next_demand(&self) -> Option<Instant> {
        None
    }

    fn finished(&self) -> bool {
        self.peer_finished
    }
}

impl SegmentSink for DiscardEndpoint {
    fn deliver(&mut self, _now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        self.counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(AckUrgency::Normal)
    }

    fn room(&self) -> usize {
        self.room_bytes
    }

    fn on_peer_finished(&mut self, _now: Instant) {
        self.peer_finished = true;
        self.counters.finished.fetch_add(1, Ordering::Relaxed);
    }
}

impl Endpoint for DiscardEndpoint {
    fn on_established(&mut self, _now: Instant, _established: &Established) {}

    fn on_closed(&mut self, _now: Instant, _reason: CloseReason) {}
}

/// Accepts everybody with a [`DiscardEndpoint`].
#[derive(Clone, Debug)]
pub struct DiscardAcceptor {
    /// What is counted.
    pub counters: Arc<DiscardCounters>,
    /// See [`DiscardEndpoint::new`].
    pub room_bytes: usize,
}

impl Acceptor for DiscardAcceptor {
    fn accept(
        &mut self,
        _now: Instant,
        _local: SocketAddr,
        _remote: SocketAddr,
    ) -> Option<Box<dyn Endpoint>> {
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        Some(Box::new(DiscardEndpoint::new(Arc::clone(&self.counters), self.room_bytes)))
    }
}
