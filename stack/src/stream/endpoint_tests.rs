//! The two sides of a stream on one thread, call by call.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Accepted, StreamEndpoint, pair};
use crate::endpoint::{ConnectionId, Directive, Endpoint, Established, WakeTarget, Waker};
use crate::stream::{StreamConfig, TcpStream};
use crate::tcp::connection::CloseReason;
use crate::tcp::source::{Cut, Demand, SegmentSink, SegmentSource, SendState};
use crate::time::Instant;

const NOW: Instant = Instant::ZERO;

#[derive(Default)]
struct CountedWakes(AtomicUsize);

impl WakeTarget for CountedWakes {
    fn wake(&self, _id: ConnectionId) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Both {
    endpoint: StreamEndpoint,
    stream: TcpStream,
    wakes: Arc<CountedWakes>,
    waker: Waker,
}

impl Both {
    fn new() -> Self {
        let config = StreamConfig { receive_buffer_bytes: 100_000, ..StreamConfig::default() };
        let (mut endpoint, ends) = pair(&config);
        let wakes = Arc::new(CountedWakes::default());
        let id = ConnectionId { index: 0, generation: 0 };
        let waker = Waker::new(id, Arc::clone(&wakes) as Arc<dyn WakeTarget>);
        endpoint.on_attached(NOW, waker.clone());
        endpoint.on_established(NOW, &established());
        Both { endpoint, stream: TcpStream::new(ends, &config), wakes, waker }
    }

    /// Delivers the wakes so far; returns how many there were.
    fn wake(&mut self) -> usize {
        let wakes = self.wakes.0.swap(0, Ordering::Relaxed);
        self.waker.clear();
        self.endpoint.on_wake(NOW);
        wakes
    }

    /// Two hundred segments of one byte: more than the queue takes.
    fn deliver_crumbs(&mut self) {
        for byte in 0..200 {
            self.endpoint.deliver(NOW, &[byte]).unwrap();
        }
    }
}

fn established() -> Established {
    let local = "10.0.0.1:1".parse().unwrap();
    let remote = "10.0.0.2:2".parse().unwrap();
    Established { local, remote, segment_size: 1_460 }
}

struct Segment {
    bytes: Vec<u8>,
    room: usize,
}

impl Cut for Segment {
    fn room(&self) -> usize {
        self.room - self.bytes.len()
    }

    fn urgent_only(&self) -> bool {
        false
    }

    fn append(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room());
        self.bytes.extend_from_slice(bytes);
    }
}

fn cut(endpoint: &mut StreamEndpoint, room: usize) -> Vec<u8> {
    let mut segment = Segment { bytes: Vec::new(), room };
    endpoint.cut(NOW, &SendState::default(), &mut segment);
    segment.bytes
}

#[test]
fn small_writes_fill_a_segment_and_the_end_comes_after_the_last() {
    let Both { mut endpoint, mut stream, .. } = Both::new();
    assert_eq!(endpoint.demand(NOW), Demand::Nothing);
    for piece in [&b"one "[..], b"two ", b"three"] {
        assert_eq!(stream.write(piece).unwrap(), piece.len());
    }
    assert_eq!(endpoint.demand(NOW), Demand::Data);
    assert_eq!(cut(&mut endpoint, 10), b"one two th");
    stream.shutdown(std::net::Shutdown::Write);
    assert_eq!(endpoint.demand(NOW), Demand::Data);
    assert!(!endpoint.finished(), "not before everything was cut");
    assert_eq!(cut(&mut endpoint, 10), b"ree");
    assert_eq!(endpoint.demand(NOW), Demand::Nothing);
    assert!(endpoint.finished());
}

#[test]
fn what_the_full_queue_does_not_take_is_handed_over_when_the_reader_has_read() {
    let mut both = Both::new();
    both.deliver_crumbs();
    assert_eq!(both.endpoint.room(), 100_000 - 200);
    let mut bytes = [0; 200];
    both.stream.read_exact(&mut bytes[..1]).unwrap();
    assert_eq!(both.wake(), 1, "the reader tells that there is room in the queue");
    both.stream.read_exact(&mut bytes[1..]).unwrap();
    assert!(bytes.iter().enumerate().all(|(at, byte)| at == usize::from(*byte)));
    assert_eq!(both.endpoint.room(), 100_000);
}

#[test]
fn what_the_full_queue_does_not_take_is_not_lost_with_the_connection() {
    let mut both = Both::new();
    both.deliver_crumbs();
    both.endpoint.on_peer_finished(NOW);
    both.endpoint.on_closed(NOW, CloseReason::Finished);
    drop(both.endpoint);
    let mut bytes = Vec::new();
    both.stream.read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() == 200 && bytes.iter().enumerate().all(|(at, byte)| at == usize::from(*byte)));
}

#[test]
fn the_end_is_seen_only_after_what_was_held_back() {
    let mut both = Both::new();
    both.deliver_crumbs();
    both.endpoint.on_peer_finished(NOW);
    let mut byte = [0; 1];
    for _ in 0..64 {
        both.stream.read_exact(&mut byte).unwrap();
    }
    both.wake();
    let mut rest = Vec::new();
    both.stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), 200 - 64);
}

#[test]
fn a_reset_is_an_error_after_the_bytes_that_came_before_it() {
    let mut both = Both::new();
    both.endpoint.deliver(NOW, b"last words").unwrap();
    both.endpoint.on_closed(NOW, CloseReason::Reset);
    drop(both.endpoint);
    let mut bytes = [0; 10];
    both.stream.read_exact(&mut bytes).unwrap();
    assert_eq!(both.stream.read(&mut bytes).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(both.stream.write(b"x").unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn reading_a_quarter_of_the_buffer_opens_the_window() {
    let mut both = Both::new();
    both.endpoint.deliver(NOW, &[7; 50_000]).unwrap();
    let mut bytes = [0; 24_999];
    both.stream.read_exact(&mut bytes).unwrap();
    assert_eq!(both.wakes.0.load(Ordering::Relaxed), 0);
    both.stream.read_exact(&mut bytes[..1]).unwrap();
    assert_eq!(both.wake(), 1);
    assert_eq!(both.endpoint.room(), 75_000);
}

#[test]
fn when_nobody_reads_bytes_are_thrown_away_and_when_nobody_writes_either_the_connection_is_reset() {
    let mut both = Both::new();
    both.endpoint.deliver(NOW, &[7; 50_000]).unwrap();
    both.stream.shutdown(std::net::Shutdown::Read);
    both.wake();
    assert_eq!(both.endpoint.room(), 100_000, "the peer is not held up");
    both.endpoint.deliver(NOW, &[7; 50_000]).unwrap();
    assert_eq!(both.endpoint.directive(), Directive::Continue);
    drop(both.stream);
    both.endpoint.on_wake(NOW);
    both.endpoint.deliver(NOW, &[7]).unwrap();
    assert_eq!(both.endpoint.directive(), Directive::Abort);
}

#[test]
fn an_accepted_stream_for_which_there_is_no_place_is_reset() {
    let config = StreamConfig::default();
    let (queue, waiting) = crossbeam::channel::bounded(1);
    let accept = || {
        let (endpoint, ends) = pair(&config);
        let stream = TcpStream::new(ends, &config);
        let mut endpoint = endpoint.with_accepted(Accepted { queue: queue.clone(), stream });
        endpoint.on_established(NOW, &established());
        endpoint.directive()
    };
    assert_eq!((accept(), accept()), (Directive::Continue, Directive::Abort));
    assert_eq!(waiting.recv().unwrap().0.peer_address(), established().remote);
}
