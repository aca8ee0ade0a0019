//! Two engines over a seeded faulty link in virtual time, with checkers on everything that crosses it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use outrider_stack::tcp::connection::{Config, Connection, Event, RecoveryState, TransmitLimit, reset_for};
use outrider_stack::tcp::segment::{Header, Segment};
use outrider_stack::tcp::sequence::SeqNumber;
use outrider_stack::tcp::source::{
    AckUrgency, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault,
};
use outrider_stack::time::Instant;

pub(crate) use crate::frames::InFlight;
use crate::frames::cut;

/// The byte that belongs at a stream offset: content is checked against it everywhere.
pub(crate) fn pattern(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// A small generator (xorshift), so that a seed is all that a world depends on.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d | 1)
    }
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64 <= probability && probability > 0.0
    }
}

/// One direction of the link.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub bits_per_second: u64,
    pub delay: Duration,
    pub queue_bytes: u64,
    pub loss: f64,
    pub reorder: f64,
    pub duplicate: f64,
    /// Nothing gets through.
    pub cut: bool,
    /// ECN-capable segments are marked when the queue holds more than this, bytes.
    pub mark_above: Option<u64>,
    /// Segments with more payload than this are swallowed.
    pub payload_max: usize,
}

impl Default for Path {
    fn default() -> Self {
        Path {
            bits_per_second: 1_000_000_000,
            delay: Duration::from_micros(50),
            queue_bytes: 1_000_000,
            loss: 0.0,
            reorder: 0.0,
            duplicate: 0.0,
            cut: false,
            mark_above: None,
            payload_max: usize::MAX,
        }
    }
}

/// An application that sends `total` patterned bytes, reads at will, and checks what it reads.
#[derive(Debug, Default)]
pub(crate) struct App {
    pub total: u64,
    pub cut: u64,
    pub received: u64,
    /// Bytes the application's buffer holds; it is read at once unless `keeps`.
    pub capacity: usize,
    /// What is received stays in the buffer until `taken` says otherwise.
    pub keeps: bool,
    pub taken: u64,
    pub finish: bool,
    pub peer_finished: bool,
    /// Arrivals of this length are acknowledged at once, as out-of-band messages are.
    pub answers_at_once: Option<usize>,
    /// The source tells how much is queued.
    pub knows_queue: bool,
    pub urgent: bool,
    pub urgent_cuts: Vec<(Instant, bool)>,
    pub fault_at: Option<u64>,
    pub ahead: Vec<(u64, usize)>,
}

impl SegmentSource for App {
    fn demand(&mut self, _now: Instant) -> Demand {
        match (self.urgent, self.cut < self.total) {
            (true, _) => Demand::Urgent,
            (false, true) => Demand::Data,
            (false, false) => Demand::Nothing,
        }
    }

    fn cut(&mut self, now: Instant, state: &SendState, cut: &mut dyn Cut) {
        assert_eq!(state.stream_offset, 1 + self.cut, "the engine and the source agree on the offset");
        let count = if self.urgent && cut.room() < 100 {
            0
        } else if self.urgent {
            self.urgent = false;
            self.urgent_cuts.push((now, cut.urgent_only()));
            self.total += 100;
            100
        } else {
            (self.total - self.cut).min(cut.room() as u64)
        };
        let bytes: Vec<u8> = (0..count).map(|i| pattern(1 + self.cut + i)).collect();
        crate::lending::append(cut, self.cut, bytes);
        self.cut += count;
    }

    fn next_demand(&self) -> Option<Instant> {
        None
    }

    fn finished(&self) -> bool {
        self.finish
    }

    fn queued_bytes(&self) -> Option<u64> {
        self.knows_queue.then(|| self.total - self.cut)
    }
}

impl SegmentSink for App {
    fn deliver(&mut self, _now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        for (index, byte) in bytes.iter().enumerate() {
            let offset = 1 + self.received + index as u64;
            assert_eq!(*byte, pattern(offset), "content at stream offset {offset}");
        }
        self.received += bytes.len() as u64;
        assert!(
            !self.keeps || self.received - self.taken <= self.capacity as u64,
            "no more is delivered than there was room for"
        );
        match self.fault_at {
            Some(limit) if self.received >= limit => Err(SinkFault),
            _ if self.answers_at_once == Some(bytes.len()) => Ok(AckUrgency::Now),
            _ => Ok(AckUrgency::Normal),
        }
    }

    fn peek_ahead(&mut self, _now: Instant, offset: u64, bytes: &[u8]) -> AckUrgency {
        assert!(bytes.iter().enumerate().all(|(i, b)| *b == pattern(offset + i as u64)));
        self.ahead.push((offset, bytes.len()));
        AckUrgency::Normal
    }

    fn room(&self) -> usize {
        let held = if self.keeps { (self.received - self.taken) as usize } else { 0 };
        self.capacity.saturating_sub(held)
    }

    fn on_peer_finished(&mut self, _now: Instant) {
        assert!(!self.peer_finished, "FIN is told once");
        self.peer_finished = true;
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    pub tcp: Option<Connection>,
    pub app: App,
    pub events: Vec<Event>,
    pub initial: SeqNumber,
    /// Highest window edge the peer has granted, as a stream offset, from the headers that arrived here.
    granted: u64,
    peer_shift: u8,
}

#[derive(Debug)]
pub(crate) struct Pair {
    pub now: Instant,
    pub nodes: [Node; 2],
    pub paths: [Path; 2],
    pub config: [Config; 2],
    pub random: Random,
    pub sent: [Vec<(Instant, InFlight)>; 2],
    pub keep_log: bool,
    queue: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    carried: Vec<Option<InFlight>>,
    busy_until: [Instant; 2],
    held_until: [Instant; 2],
    serial: u64,
    pub drops: u64,
    /// "Too big" reports under way: when, to which node, about which segment, payload that would have fitted.
    reports: Vec<(Instant, usize, SeqNumber, usize)>,
    pub reports_believed: u64,
    /// Routers report segments that are too long for [`Path::payload_max`].
    pub reports_sizes: bool,
    /// A node is not run before this instant; what arrives meanwhile waits in its ring.
    pub frozen_until: [Instant; 2],
    /// The clock that a node reads goes back by this for one call.
    pub clock_back: [Duration; 2],
    /// So many segments that arrive at a node have their window field made smaller on the way.
    pub windows_to_shrink: [u32; 2],
    /// Payload that the port of a node takes in one super-segment, which it cuts; zero for one that does not segment.
    pub super_segment_bytes: usize,
    /// They are not cut, but arrive as they are, as between two hosts on one machine.
    pub uncut: bool,
    /// Segments that a node gives in one go, and how often it gave more than one.
    pub train_segments: usize,
    pub trains: u64,
    /// Super-segments that left.
    pub super_segments: u64,
    /// The next segment from node 0 that begins here is lost; once for each entry.
    pub lost_at: Vec<SeqNumber>,
    /// A node whose connection is over answers with RST, as the layer above the engine would.
    pub resets_strays: bool,
}

impl Pair {
    /// How long a byte that leaves `from` now waits in the queue.
    pub(crate) fn queueing(&self, from: usize) -> Duration {
        self.busy_until[from] - self.now
    }

    /// Node 0 connects to node 1.
    pub(crate) fn new(seed: u64, config: Config) -> Self {
        let mut random = Random::new(seed);
        // Near the wrap, so that every run crosses it.
        let initial = [SeqNumber(u32::MAX - random.below(5000) as u32), SeqNumber(random.next() as u32)];
        let now = Instant::from_millis(1000);
        let node = |initial| Node {
            tcp: None,
            app: App { capacity: 4 << 20, ..App::default() },
            events: Vec::new(),
            initial,
            granted: 0,
            peer_shift: 0,
        };
        let mut nodes = initial.map(node);
        nodes[0].tcp = Some(Connection::connect(now, &config, initial[0], random.next() as u32));
        Pair {
            now,
            nodes,
            paths: [Path::default(), Path::default()],
            config: [config.clone(), config],
            random,
            sent: [Vec::new(), Vec::new()],
            keep_log: false,
            queue: BinaryHeap::new(),
            carried: Vec::new(),
            busy_until: [now; 2],
            held_until: [now; 2],
            serial: 0,
            drops: 0,
            reports: Vec::new(),
            reports_believed: 0,
            reports_sizes: false,
            frozen_until: [now; 2],
            clock_back: [Duration::ZERO; 2],
            windows_to_shrink: [0; 2],
            super_segment_bytes: 0,
            train_segments: 0,
            trains: 0,
            uncut: false,
            super_segments: 0,
            lost_at: Vec::new(),
            resets_strays: false,
        }
    }

    pub(crate) fn both_paths(mut self, path: Path) -> Self {
        self.paths = [path.clone(), path];
        self
    }

    pub(crate) fn tcp(&self, node: usize) -> &Connection {
        self.nodes[node].tcp.as_ref().expect("the node has a connection")
    }

    pub(crate) fn is_frozen(&self, node: usize) -> bool {
        self.frozen_until[node] > self.now
    }

    /// What the clock of `node` says for the next call.
    fn clock(&mut self, node: usize) -> Instant {
        self.now - std::mem::take(&mut self.clock_back[node])
    }

    /// Segments and reports under way.
    pub(crate) fn under_way(&self) -> usize {
        self.queue.len() + self.reports.len()
    }

    /// Everything that may leave now, leaves.
    pub(crate) fn transmit_all(&mut self, from: usize) {
        if self.is_frozen(from) {
            return;
        }
        loop {
            let now = self.clock(from);
            let node = &mut self.nodes[from];
            let Some(tcp) = &mut node.tcp else { return };
            let (super_segment_bytes, train_segments) = (self.super_segment_bytes, self.train_segments);
            let limit = TransmitLimit { super_segment_bytes, train_segments };
            let before = (self.super_segment_bytes > 0).then(|| (tcp.send_state(now), tcp.inspect(now)));
            let Some(outgoing) = tcp.poll_transmit(now, &mut node.app, limit) else { break };
            let payload = tcp.payload(&outgoing).to_vec();
            if let (2.., Some((state, inspection))) = (outgoing.segments(), before) {
                assert!(payload.len() <= self.super_segment_bytes, "no more than the port takes");
                // With nothing lost and nothing overtaken, what is in flight is what is in the network.
                let calm = inspection.segments_lost + inspection.segments_sacked == 0 && inspection.sack;
                if calm && inspection.recovery == RecoveryState::Open {
                    let after = state.bytes_in_flight + payload.len() as u64;
                    assert!(after <= state.congestion_window, "the congestion window is never exceeded");
                }
                self.super_segments += 1;
            } else if outgoing.segments() > 1 {
                assert!(outgoing.segments() <= self.train_segments, "no longer a train than is allowed");
                self.trains += 1;
            }
            let segment_size = if self.uncut { usize::MAX } else { outgoing.segment_size };
            for segment in cut(&outgoing, &payload, segment_size) {
                let offset = outgoing.payload_offset
                    + u64::from(segment.header.seq.0.wrapping_sub(outgoing.header.seq.0));
                self.check_outgoing(from, offset, &segment);
                if self.keep_log {
                    self.sent[from].push((now, segment.clone()));
                }
                self.launch(from, &segment);
            }
        }
        let node = &mut self.nodes[from];
        if let Some(tcp) = &mut node.tcp {
            while let Some(event) = tcp.poll_event() {
                node.events.push(event);
            }
        }
    }

    fn check_outgoing(&self, from: usize, offset: u64, segment: &InFlight) {
        let node = &self.nodes[from];
        let payload = &segment.payload;
        for (index, byte) in payload.iter().enumerate() {
            assert_eq!(*byte, pattern(offset + index as u64), "a sent byte is immutable");
        }
        if !payload.is_empty() {
            assert_eq!(segment.header.seq, node.initial.at(offset));
            let end = offset + payload.len() as u64;
            assert!(
                end <= node.granted,
                "the peer's window is never exceeded: {end} beyond {}",
                node.granted
            );
        }
        let most = usize::from(self.config[1 - from].segment_size_max);
        assert!(payload.len() <= if self.uncut { most.max(self.super_segment_bytes) } else { most });
    }

    fn launch(&mut self, from: usize, segment: &InFlight) {
        let path = self.paths[from].clone();
        let bytes = segment.payload.len() as u64 + 78;
        let free_at = self.busy_until[from].max(self.now);
        let backlog = (free_at - self.now).as_nanos() as u64 * path.bits_per_second / 8 / 1_000_000_000;
        let too_long = segment.payload.len() > path.payload_max;
        if too_long && !path.cut && self.reports_sizes && !self.random.chance(path.loss) {
            let at = self.now + path.delay;
            self.reports.push((at, from, segment.header.seq, path.payload_max));
        }
        let is_chosen = |seq: &SeqNumber| from == 0 && *seq == segment.header.seq && bytes > 78;
        let chosen = self.lost_at.iter().position(is_chosen).map(|index| self.lost_at.swap_remove(index));
        if chosen.is_some()
            || path.cut
            || too_long
            || backlog + bytes > path.queue_bytes
            || self.random.chance(path.loss)
        {
            self.drops += 1;
            return;
        }
        let on_wire = Duration::from_nanos(bytes * 8 * 1_000_000_000 / path.bits_per_second);
        self.busy_until[from] = free_at + on_wire;
        let copies = 1 + u32::from(self.random.chance(path.duplicate));
        for _ in 0..copies {
            let mut at = self.busy_until[from] + path.delay;
            if self.random.chance(path.reorder) {
                at += Duration::from_nanos(self.random.below(4 * path.delay.as_nanos() as u64 + 1));
            }
            let mut segment = segment.clone();
            segment.marked = segment.ecn_capable && path.mark_above.is_some_and(|limit| backlog > limit);
            self.schedule(at, 1 - from, segment);
        }
    }

    /// `to` hears from its peer, out of the blue, that the window is `bytes`.
    pub(crate) fn offer_window(&mut self, to: usize, bytes: u64) {
        let peer = &self.nodes[1 - to];
        let header = Header {
            seq: peer.initial.at(1 + peer.app.cut),
            ack: Some(self.nodes[to].initial.at(self.tcp(to).acked_offset())),
            window: bytes.div_ceil(1 << self.nodes[to].peer_shift) as u16,
            ..Header::default()
        };
        self.arrive(to, &InFlight { header, payload: vec![], ecn_capable: false, marked: false });
    }

    /// Puts any segment on the way to `to`.
    pub(crate) fn schedule(&mut self, at: Instant, to: usize, segment: InFlight) {
        let at = at.max(self.held_until[to]);
        let index = self.carried.len();
        self.carried.push(Some(segment));
        self.serial += 1;
        self.queue.push(Reverse((at, self.serial << 1 | to as u64, index)));
    }

    /// Node `to` does not run for `time`: what is on its way to it, or sets out soon, arrives only then.
    pub(crate) fn hold_back(&mut self, to: usize, time: Duration) {
        let until = self.now + time;
        let entries: Vec<_> = self.queue.drain().collect();
        for Reverse((at, key, index)) in entries {
            let at = if (key & 1) as usize == to { at.max(until) } else { at };
            self.queue.push(Reverse((at, key, index)));
        }
        self.held_until[to] = until;
    }

    fn arrive(&mut self, to: usize, segment: &InFlight) {
        if self.is_frozen(to) {
            return self.schedule(self.frozen_until[to], to, segment.clone());
        }
        let now = self.clock(to);
        let mut incoming = Segment {
            header: segment.header,
            payload: &segment.payload,
            congestion_experienced: segment.marked,
        };
        if self.windows_to_shrink[to] > 0 {
            self.windows_to_shrink[to] -= 1;
            incoming.header.window = self.random.below(u64::from(incoming.header.window) + 1) as u16;
        }
        if self.resets_strays && self.closed(to) {
            if let Some(header) = reset_for(&incoming) {
                self.launch(to, &InFlight { header, payload: vec![], ecn_capable: false, marked: false });
            }
            return;
        }
        let header = &incoming.header;
        let config = self.config[to].clone();
        let node = &mut self.nodes[to];
        if node.tcp.is_none() && header.flags.syn && header.ack.is_none() {
            node.tcp = Some(Connection::accept(now, &config, node.initial, 77, &incoming));
            node.peer_shift = header.options.window_scale.unwrap_or(0);
            node.granted = 1 + u64::from(header.window);
            return;
        }
        if let Some(ack) = header.ack {
            if header.flags.syn {
                node.peer_shift = header.options.window_scale.unwrap_or(0);
            }
            let shift = if header.flags.syn { 0 } else { node.peer_shift };
            if let Some(ack) = node.initial.offset_near(ack, node.granted) {
                node.granted = node.granted.max(ack + (u64::from(header.window) << shift));
            }
        } else if header.flags.syn {
            node.peer_shift = header.options.window_scale.unwrap_or(0);
            node.granted = 1 + u64::from(header.window);
        }
        if let Some(tcp) = &mut node.tcp {
            tcp.on_segment(now, &incoming, &mut node.app);
        }
    }

    /// Advances to the next event; false when nothing will ever happen again.
    pub(crate) fn step(&mut self) -> bool {
        self.step_within(Instant::FAR_FUTURE)
    }

    /// Tells the senders of segments that were too long.
    fn deliver_reports(&mut self) {
        let now = self.now;
        let (due, later) = self.reports.drain(..).partition(|(at, ..)| *at <= now);
        self.reports = later;
        let due: Vec<(Instant, usize, SeqNumber, usize)> = due;
        for (_, to, sequence, payload_max) in due {
            if let Some(tcp) = &mut self.nodes[to].tcp {
                let options = if self.config[0].timestamps { 12 } else { 0 };
                let believed = tcp.on_path_mtu(now, sequence, (payload_max + options) as u16);
                self.reports_believed += u64::from(believed);
            }
        }
    }

    /// Advances to the next event if it comes before `end`.
    pub(crate) fn step_within(&mut self, end: Instant) -> bool {
        self.transmit_all(0);
        self.transmit_all(1);
        let timer = |(node, frozen): (&Node, &Instant)| {
            node.tcp.as_ref().and_then(Connection::next_timeout).map(|at| at.max(*frozen))
        };
        let timers = self.nodes.iter().zip(&self.frozen_until).filter_map(timer).min();
        let arrival = self.queue.peek().map(|Reverse((at, _, _))| *at);
        let report = self.reports.iter().map(|(at, ..)| *at).min();
        let Some(next) = timers.into_iter().chain(arrival).chain(report).min() else { return false };
        assert!(next != Instant::FAR_FUTURE, "no stuck timer");
        if next > end {
            return false;
        }
        self.now = self.now.max(next);
        while let Some(Reverse((at, key, index))) = self.queue.peek().copied() {
            if at > self.now {
                break;
            }
            self.queue.pop();
            let segment = self.carried[index].take().expect("each is carried once");
            self.arrive((key & 1) as usize, &segment);
        }
        self.deliver_reports();
        for index in 0..2 {
            let due = |tcp: &Connection| tcp.next_timeout().is_some_and(|at| at <= self.now);
            if !self.is_frozen(index) && self.nodes[index].tcp.as_ref().is_some_and(due) {
                let now = self.clock(index);
                if let Some(tcp) = &mut self.nodes[index].tcp {
                    tcp.on_timeout(now);
                }
            }
        }
        true
    }

    /// Steps until `done`; fails when `limit` of virtual time has passed or nothing can happen any more.
    pub(crate) fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Pair) -> bool) {
        let end = self.now + limit;
        let mut steps = 0u64;
        while !done(self) {
            if !self.step() {
                assert!(done(self), "the world stands still before the goal: {:?}", self.summary());
                return;
            }
            steps += 1;
            assert!(self.now <= end, "not done within {limit:?}: {:?}", self.summary());
            assert!(steps < 20_000_000, "too many steps: a busy loop? {:?}", self.summary());
        }
    }

    /// Steps for `time` of virtual time.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.step_within(end) {}
        self.now = self.now.max(end);
    }

    pub(crate) fn establish(&mut self) {
        self.run_until(Duration::from_secs(60), |pair| {
            pair.nodes.iter().all(|node| node.events.contains(&Event::Established))
        });
    }

    pub(crate) fn closed(&self, node: usize) -> bool {
        self.nodes[node].events.iter().any(|event| matches!(event, Event::Closed(_)))
    }

    pub(crate) fn summary(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| {
                let tcp = node.tcp.as_ref();
                format!(
                    "{:?} cut {} received {} of {:?} {:?}",
                    tcp.map(Connection::state),
                    node.app.cut,
                    node.app.received,
                    tcp.map(|tcp| tcp.send_state(self.now)),
                    tcp.map(|tcp| tcp.statistics()),
                )
            })
            .collect()
    }
}
