//! An endpoint that sends back what it receives (RFC 862).

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::endpoint::{Acceptor, Endpoint, Established};
use crate::tcp::connection::CloseReason;
use crate::tcp::source::{AckUrgency, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault};
use crate::time::Instant;

/// What a handshake promises to take; a smaller ring could be overrun.
const RING_BYTES_MIN: usize = 64 << 10;

/// Sends back what it receives, through a ring that bounds what is under way: when it is full, the receive window
/// closes. Ends when the peer has finished and everything has been sent back.
#[derive(Debug)]
pub struct EchoEndpoint {
    ring: VecDeque<u8>,
    ring_bytes: usize,
    peer_finished: bool,
}

impl EchoEndpoint {
    /// An echo with a ring of `ring_bytes` (at least 64 KiB).
    pub fn new(ring_bytes: usize) -> Self {
        EchoEndpoint {
            ring: VecDeque::new(),
            ring_bytes: ring_bytes.max(RING_BYTES_MIN),
            peer_finished: false,
        }
    }
}

impl SegmentSource for EchoEndpoint {
    fn demand(&mut self, _now: Instant) -> Demand {
        if self.ring.is_empty() { Demand::Nothing } else { Demand::Data }
    }

    fn cut(&mut self, _now: Instant, _state: &SendState, cut: &mut dyn Cut) {
        if cut.urgent_only() {
            return;
        }
        let length = self.ring.len().min(cut.room());
        let (first, second) = self.ring.as_slices();
        let split = first.len().min(length);
        cut.append(&first[..split]);
        cut.append(&second[..length - split]);
        self.ring.drain(..length);
    }

    fn next_demand(&self) -> Option<Instant> {
        None
    }

    fn finished(&self) -> bool {
        self.peer_finished && self.ring.is_empty()
    }
}

impl SegmentSink for EchoEndpoint {
    fn deliver(&mut self, _now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        self.ring.extend(bytes);
        Ok(AckUrgency::Normal)
    }

    fn room(&self) -> usize {
        self.ring_bytes.saturating_sub(self.ring.len())
    }

    fn on_peer_finished(&mut self, _now: Instant) {
        self.peer_finished = true;
    }
}

impl Endpoint for EchoEndpoint {
    fn on_established(&mut self, _now: Instant, _established: &Established) {}

    fn on_closed(&mut self, _now: Instant, _reason: CloseReason) {}
}

/// Accepts everybody with an [`EchoEndpoint`].
#[derive(Clone, Copy, Debug)]
pub struct EchoAcceptor {
    /// See [`EchoEndpoint::new`].
    pub ring_bytes: usize,
}

impl Acceptor for EchoAcceptor {
    fn accept(
        &mut self,
        _now: Instant,
        _local: SocketAddr,
        _remote: SocketAddr,
    ) -> Option<Box<dyn Endpoint>> {
        Some(Box::new(EchoEndpoint::new(self.ring_bytes)))
    }
}
