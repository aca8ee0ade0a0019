//! What a connection holds while it is idle, and that segments come and go without new memory.
//!
//! Memory is counted for the whole process, so this is one test, with a binary to itself.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Pair, address, gigabit, host_config};
use outrider_drivers::allocation::CountingAllocator;
use outrider_drivers::memory::LinkConfig;
use outrider_stack::endpoint::{Acceptor, Endpoint, Established};
use outrider_stack::net::{ListenOptions, StackConfig};

use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::tcp::connection::{CloseReason, Config as TcpConfig};
use outrider_stack::tcp::source::{
    AckUrgency, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault,
};
use outrider_stack::time::Instant;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// Bytes that the stack holds for one end of an idle connection at most, its endpoint not counted.
const IDLE_BYTES_MAX: i64 = 1_180;

static CONTENT: [u8; 2048] = [7; 2048];

/// Sends `left` bytes and takes what comes; no more than a few words of memory.
struct Talker {
    left: u64,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct Tally {
    established: AtomicU64,
    received: AtomicU64,
    closed: AtomicU64,
}

impl SegmentSource for Talker {
    fn demand(&mut self, _now: Instant) -> Demand {
        if self.left > 0 { Demand::Data } else { Demand::Nothing }
    }

    fn cut(&mut self, _now: Instant, _state: &SendState, cut: &mut dyn Cut) {
        if !cut.urgent_only() {
            let bytes = self.left.min(cut.room() as u64).min(CONTENT.len() as u64);
            cut.append(&CONTENT[..bytes as usize]);
            self.left -= bytes;
        }
    }

    fn next_demand(&self) -> Option<Instant> {
        None
    }
}

impl SegmentSink for Talker {
    fn deliver(&mut self, _now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        self.tally.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(AckUrgency::Normal)
    }

    fn room(&self) -> usize {
        1 << 20
    }
}

impl Endpoint for Talker {
    fn on_established(&mut self, _now: Instant, _established: &Established) {
        self.tally.established.fetch_add(1, Ordering::Relaxed);
    }

    fn on_closed(&mut self, _now: Instant, _reason: CloseReason) {
        self.tally.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whoever connects is sent so many bytes.
struct Server {
    bytes: u64,
    tally: Arc<Tally>,
}

impl Acceptor for Server {
    fn accept(&mut self, _: Instant, _: SocketAddr, _: SocketAddr) -> Option<Box<dyn Endpoint>> {
        Some(Box::new(Talker { left: self.bytes, tally: Arc::clone(&self.tally) }))
    }
}

/// Two hosts with `count` connections on which either end has `bytes` to send.
fn connected(count: u64, bytes: u64, link: LinkConfig, tcp: &TcpConfig) -> (Pair, Arc<Tally>) {
    const AT_ONCE: u64 = 100;
    let tally = Arc::new(Tally::default());
    let config = |host| StackConfig { connections_max: 1 << 20, tcp: tcp.clone(), ..host_config(host) };
    let mut pair = Pair::with(1, link.clone(), link, config(1), config(2));
    let server = Server { bytes, tally: Arc::clone(&tally) };
    let options = ListenOptions { backlog: 1 << 16 };
    pair.b.stack.listen(address("10.0.0.2:7"), options, Box::new(server)).expect("nobody listens there yet");
    for begun in (0..count).step_by(AT_ONCE as usize) {
        for _ in begun..(begun + AT_ONCE).min(count) {
            let talker = Talker { left: bytes, tally: Arc::clone(&tally) };
            pair.a.stack.connect(pair.now, address("10.0.0.2:7"), Box::new(talker));
        }
        pair.run_for(Duration::from_millis(2));
    }
    (pair, tally)
}

#[test]
fn an_idle_connection_holds_little_and_a_segment_needs_no_new_memory() {
    ALLOCATOR.start();
    idle_connections_hold_little();
    segments_need_no_new_memory();
}

fn idle_connections_hold_little() {
    /// The tables that grow by doubling are three quarters full, as they are on average.
    const COUNT: u64 = 12_000;
    const BYTES: u64 = 300;
    // What a host holds without any connection is not any connection's.
    let before = ALLOCATOR.held();
    let (mut pair, tally) = connected(COUNT, BYTES, gigabit(), &TcpConfig::default());
    // What was in flight at once while they opened is given back little by little.
    pair.run_for(Duration::from_secs(120));
    assert_eq!(tally.established.load(Ordering::Relaxed), 2 * COUNT);
    assert_eq!(tally.received.load(Ordering::Relaxed), 2 * COUNT * BYTES);
    let held = ALLOCATOR.held().since(before);
    let each = held.bytes / (2 * COUNT as i64) - size_of::<Talker>() as i64;
    let blocks = held.blocks as f64 / (2 * COUNT) as f64;
    println!("an idle connection holds {each} bytes in {blocks:.2} blocks, its endpoint not counted");
    assert!(each <= IDLE_BYTES_MAX, "an end of an idle connection holds {each} bytes");
    pair.a.stack.abort_all(pair.now);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(tally.closed.load(Ordering::Relaxed), 2 * COUNT);
}

fn segments_need_no_new_memory() {
    /// More than is sent before the story ends.
    const ENDLESS: u64 = 1 << 40;
    // The steady path: nothing is dropped, for what repairs a loss may ask for memory, and as much is in flight all
    // the time as the peer's window takes, for buffers follow what is in flight.
    let deep = LinkConfig { queue_bytes: 4 << 20, ..gigabit() };
    let tcp = TcpConfig { algorithm: Algorithm::Cubic, receive_window_max: 65_535, ..TcpConfig::default() };
    let (mut pair, tally) = connected(20, ENDLESS, deep, &tcp);
    // Windows, queues and the cable's own memory grow to what they will be.
    pair.run_for(Duration::from_secs(4));
    let sent = |pair: &Pair| [&pair.a, &pair.b].map(|host| host.stack.statistics().tx_segments);
    let (segments, requests) = (sent(&pair), ALLOCATOR.requests());
    let received = tally.received.load(Ordering::Relaxed);
    pair.run_for(Duration::from_millis(200));
    let made = ALLOCATOR.requests() - requests;
    for (before, after) in segments.into_iter().zip(sent(&pair)) {
        assert!(after - before > 10_000, "either end has sent: {}", after - before);
    }
    assert!(tally.received.load(Ordering::Relaxed) - received > 20_000_000, "in both directions");
    assert_eq!(made, 0, "blocks of memory were asked for on the way");
}
