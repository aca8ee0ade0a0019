//! What a heartbeat says, against what a capture at the sender's port saw.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod support;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use outrider_drivers::capture::read::{Record, records};
use outrider_drivers::capture::{Capture, Direction};
use outrider_drivers::memory::LinkConfig;
use outrider_messenger::codec::{
    BANNER_BYTES, CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, MAGIC, OobPayload,
};
use outrider_messenger::{Message, OobOp, PingReport};
use outrider_stack::tcp::sequence::SeqNumber;
use outrider_stack::time::Instant;

use support::{Script, World};

/// A file in memory.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Vec<u8>>>);

impl Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A TCP segment as the wire shows it.
struct Captured<'a> {
    at: Instant,
    outbound: bool,
    syn: bool,
    seq: SeqNumber,
    ack: Option<SeqNumber>,
    payload: &'a [u8],
}

/// Reads a captured frame; `None` if it is not TCP over IPv4.
fn tcp<'a>(record: &Record<'a>) -> Option<Captured<'a>> {
    let (ethernet, ip) = record.bytes.split_at_checked(14)?;
    if ethernet[12..] != [0x08, 0x00] || ip[9] != 6 {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let tcp = &ip[usize::from(ip[0] & 15) * 4..total];
    let u32_at = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    Some(Captured {
        at: record.at,
        outbound: record.direction == Direction::Outbound,
        syn: tcp[13] & 0x02 != 0,
        seq: SeqNumber(u32_at(4)),
        ack: (tcp[13] & 0x10 != 0).then(|| SeqNumber(u32_at(8))),
        payload: &tcp[usize::from(tcp[12] >> 4) * 4..],
    })
}

/// The chunks of a segment, which holds whole ones only.
fn chunks(mut payload: &[u8]) -> Vec<(ChunkHeader, &[u8])> {
    if payload.starts_with(&MAGIC) {
        payload = &payload[BANNER_BYTES..];
    }
    let mut chunks = Vec::new();
    while let Some((head, rest)) = payload.split_first_chunk::<CHUNK_HEADER_BYTES>() {
        let header = ChunkHeader::decode(head).expect("a segment begins with a chunk and holds whole ones");
        let (body, rest) = rest.split_at(header.length as usize);
        chunks.push((header, body));
        payload = rest;
    }
    assert!(payload.is_empty(), "a segment holds whole chunks");
    chunks
}

/// A heartbeat found in the capture.
struct Ping {
    report: PingReport,
    left_at: Instant,
    /// `SND.NXT - SND.UNA` by the capture, before its segment.
    in_flight: u64,
}

/// What the capture says about the left node's stream.
#[derive(Default)]
struct Wire {
    pings: Vec<Ping>,
    /// When each segment with message bytes left for the first time, and how many heartbeats had left before it.
    data: Vec<(Instant, usize)>,
    retransmitted: u64,
}

fn read(tape: &[u8]) -> Wire {
    let mut wire = Wire::default();
    let (mut next, mut unacked) = (SeqNumber(0), SeqNumber(0));
    for segment in
        records(tape).expect("a capture").filter_map(|record| tcp(&record.expect("a whole record")))
    {
        if !segment.outbound {
            if let Some(ack) = segment.ack.filter(|ack| unacked.before(*ack)) {
                unacked = ack;
            }
            continue;
        }
        if segment.syn {
            (unacked, next) = (segment.seq, segment.seq.add(1));
            continue;
        }
        if segment.payload.is_empty() {
            continue;
        }
        if segment.seq.before(next) {
            wire.retransmitted += 1;
            continue;
        }
        assert_eq!(segment.seq, next, "no gap in what is sent");
        let in_flight = next.distance(unacked) as u64;
        next = next.add(segment.payload.len() as u32);
        let chunks = chunks(segment.payload);
        if chunks.iter().any(|(header, _)| header.kind == ChunkKind::Message) {
            wire.data.push((segment.at, wire.pings.len()));
        }
        for (header, body) in chunks.iter().filter(|(header, _)| header.kind == ChunkKind::Oob) {
            let payload =
                OobPayload::decode(header.id, &Bytes::copy_from_slice(body)).expect("a sound report");
            wire.pings.push(Ping { report: payload.report, left_at: segment.at, in_flight });
        }
    }
    wire
}

/// Runs a saturated pair for two seconds of virtual time and returns what the sender's port saw.
fn saturated(there: &LinkConfig) -> Wire {
    let tape = Tape::default();
    let mut scripts = [Script::new(1), Script::new(2)];
    let payload = Bytes::from(vec![0x5A; 64 << 10]);
    // More than the link carries in that time.
    scripts[0].messages = (0..500).map(|tid| Message::new(1, payload.clone()).with_tid(tid)).collect();
    scripts[0].ops = vec![
        (OobOp::PING, Duration::from_millis(10)),
        (OobOp::OSD_PING, Duration::from_millis(25)),
        (OobOp::WATCH_PING, Duration::from_millis(7)),
    ];
    let links = [there.clone(), LinkConfig { loss: 0.0, ..there.clone() }];
    let wrap = |port| Box::new(Capture::new(port, tape.clone(), 0)) as Box<dyn outrider_drivers::port::Port>;
    let mut world = World::new(scripts, links, |_| {}, 1, wrap);
    world.run_until(Instant::from_millis(2_000), |_| false);
    let received = world.right.lock().unwrap().messages.len();
    assert!((200..490).contains(&received), "{received} messages: the link was saturated all the time");
    drop(world);
    let tape = tape.0.lock().unwrap();
    read(&tape)
}

fn fast_link() -> LinkConfig {
    LinkConfig {
        rate_bits_per_second: 100_000_000,
        delay: Duration::from_micros(200),
        queue_bytes: 256 << 10,
        ..LinkConfig::default()
    }
}

/// Each ping tells the truth about the bytes in flight, and its departure.
fn check_truth(wire: &Wire) {
    assert!(wire.pings.len() > 300, "{} pings", wire.pings.len());
    for Ping { report, left_at, in_flight } in &wire.pings {
        assert_eq!(report.departed_at, *left_at, "ping {}: departure", report.sequence);
        assert_eq!(report.send.bytes_in_flight, *in_flight, "ping {}: bytes in flight", report.sequence);
    }
    let busy =
        wire.pings.iter().filter(|ping| ping.in_flight > 0 && ping.report.send.unsent_bytes > 0).count();
    assert!(busy * 10 > wire.pings.len() * 9, "only {busy} pings under load");
}

/// Between the instant a ping is due and its departure at most one segment with message bytes leaves.
fn check_order(wire: &Wire) {
    for (index, ping) in wire.pings.iter().enumerate() {
        let due = ping.report.departed_at - ping.report.waited;
        let before = wire.data.iter().filter(|(at, pings)| *pings == index && *at > due).count();
        assert!(before <= 1, "ping {}: {before} data segments left before it", ping.report.sequence);
    }
}

#[test]
fn every_ping_states_the_bytes_in_flight_that_the_wire_shows() {
    check_truth(&saturated(&fast_link()));
}

#[test]
fn no_ping_waits_for_more_than_one_data_segment() {
    check_order(&saturated(&fast_link()));
}

#[test]
fn both_hold_while_lost_segments_are_repaired() {
    let wire = saturated(&LinkConfig { loss: 0.002, ..fast_link() });
    assert!(wire.retransmitted > 10, "{} retransmissions", wire.retransmitted);
    check_truth(&wire);
    check_order(&wire);
}

#[test]
fn both_hold_where_the_queue_is_the_senders_own_ring() {
    let wire = saturated(&LinkConfig { ring_bytes: Some(64 << 10), ..fast_link() });
    check_truth(&wire);
    check_order(&wire);
}
