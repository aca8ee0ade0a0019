//! Plain TCP services on the engine: echo (RFC 862) and discard (RFC 863), for any client.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;
use outrider_drivers::time::Instant;
use outrider_stack::endpoint::{Acceptor, Endpoint, Established};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::{
    AckUrgency, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault,
};

/// Bytes a connection holds at most before its window closes.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// What is done with received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// Sent back.
    Echo,
    /// Thrown away.
    Discard,
}

/// What the service did so far, shared with whoever prints it.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Connections accepted.
    pub(crate) accepted: AtomicU64,
    /// Connections that ended in order.
    pub(crate) finished: AtomicU64,
    /// Connections that ended otherwise.
    pub(crate) broken: AtomicU64,
    /// Payload bytes received.
    pub(crate) received_bytes: AtomicU64,
    /// Payload bytes sent.
    pub(crate) sent_bytes: AtomicU64,
}

/// Makes one [`ByteConnection`] for each peer.
#[derive(Debug)]
pub(crate) struct ByteAcceptor {
    pub(crate) service: Service,
    pub(crate) counters: Arc<Counters>,
}

impl Acceptor for ByteAcceptor {
    fn accept(&mut self, _: Instant, _: SocketAddr, _: SocketAddr) -> Option<Box<dyn Endpoint>> {
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        Some(Box::new(ByteConnection::new(self.service, self.counters.clone())))
    }
}

/// One connection.
#[derive(Debug)]
struct ByteConnection {
    service: Service,
    counters: Arc<Counters>,
    /// Received and not yet cut into a segment back.
    waiting: VecDeque<u8>,
    peer_finished: bool,
}

impl ByteConnection {
    fn new(service: Service, counters: Arc<Counters>) -> Self {
        ByteConnection { service, counters, waiting: VecDeque::new(), peer_finished: false }
    }
}

impl SegmentSource for ByteConnection {
    fn demand(&mut self, _: Instant) -> Demand {
        if self.waiting.is_empty() { Demand::Nothing } else { Demand::Data }
    }

    fn cut(&mut self, _: Instant, _: &SendState, cut: &mut dyn Cut) {
        if cut.urgent_only() {
            return;
        }
        let length = cut.room().min(self.waiting.len());
        let (front, back) = self.waiting.as_slices();
        let from_front = length.min(front.len());
        cut.append(&front[..from_front]);
        cut.append(&back[..length - from_front]);
        self.waiting.drain(..length);
        self.counters.sent_bytes.fetch_add(length as u64, Ordering::Relaxed);
    }

    fn next_demand(&self) -> Option<Instant> {
        None
    }

    fn finished(&self) -> bool {
        self.peer_finished
    }
}

impl SegmentSink for ByteConnection {
    fn deliver(&mut self, _: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        self.counters.received_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if self.service == Service::Echo {
            self.waiting.extend(bytes);
        }
        Ok(AckUrgency::Normal)
    }

    fn room(&self) -> usize {
        BUFFER_BYTES_MAX.saturating_sub(self.waiting.len())
    }

    fn on_peer_finished(&mut self, _: Instant) {
        self.peer_finished = true;
    }
}

impl Endpoint for ByteConnection {
    fn on_established(&mut self, _: Instant, _: &Established) {}

    fn on_closed(&mut self, _: Instant, reason: CloseReason) {
        let counter = match reason {
            CloseReason::Finished => &self.counters.finished,
            _ => &self.counters.broken,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment under construction.
    struct Segment(Vec<u8>, usize);

    impl Cut for Segment {
        fn room(&self) -> usize {
            self.1 - self.0.len()
        }
        fn urgent_only(&self) -> bool {
            false
        }
        fn append(&mut self, bytes: &[u8]) {
            assert!(bytes.len() <= self.room());
            self.0.extend_from_slice(bytes);
        }
    }

    fn cut(connection: &mut ByteConnection, room: usize) -> Vec<u8> {
        let mut segment = Segment(Vec::new(), room);
        connection.cut(Instant::ZERO, &SendState::default(), &mut segment);
        segment.0
    }

    #[test]
    fn bytes_come_back_in_order_whatever_the_segments_are() {
        let mut echo = ByteConnection::new(Service::Echo, Arc::default());
        let mut back = Vec::new();
        let sent: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        // Pieces in and out of unlike sizes make the ring wrap.
        for piece in sent.chunks(700) {
            echo.deliver(Instant::ZERO, piece).unwrap();
            back.extend(cut(&mut echo, 333));
        }
        while echo.demand(Instant::ZERO) != Demand::Nothing {
            back.extend(cut(&mut echo, 1460));
        }
        assert_eq!(back, sent);
    }

    #[test]
    fn a_client_that_does_not_read_meets_a_closed_window() {
        let mut echo = ByteConnection::new(Service::Echo, Arc::default());
        let full = vec![0; BUFFER_BYTES_MAX];
        echo.deliver(Instant::ZERO, &full).unwrap();
        assert_eq!(echo.room(), 0);
        cut(&mut echo, 1460);
        assert_eq!(echo.room(), 1460);
    }

    #[test]
    fn discarded_bytes_leave_nothing_and_the_end_is_answered_with_an_end() {
        let mut discard = ByteConnection::new(Service::Discard, Arc::default());
        discard.deliver(Instant::ZERO, b"gone").unwrap();
        assert_eq!(discard.demand(Instant::ZERO), Demand::Nothing);
        assert_eq!(discard.room(), BUFFER_BYTES_MAX);
        assert!(!discard.finished());
        discard.on_peer_finished(Instant::ZERO);
        assert!(discard.finished());
        assert_eq!(discard.counters.received_bytes.load(Ordering::Relaxed), 4);
    }
}
