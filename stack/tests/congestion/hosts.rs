//! Whole connections between hosts whose threads sleep, through a token bucket: what a bench on a small machine is
//! made of, in virtual time.
//!
//! A host that has nothing to do sleeps after a while, and is late when something arrives or a timer fires. The
//! bottleneck is a token bucket: after an idle time it lets a burst pass at once, and when tokens are missing its own
//! timer is late. Both make the round trip and the delivery rate look like anything but the path.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::tcp::connection::{Config, Connection, TransmitLimit};
use outrider_stack::tcp::segment::{Header, Segment};
use outrider_stack::tcp::sequence::SeqNumber;
use outrider_stack::tcp::source::{
    AckUrgency, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault,
};
use outrider_stack::time::Instant;

/// Ethernet, IP and TCP headers with timestamps, as the shaper counts them.
const HEADERS: u64 = 14 + 20 + 32;
/// A timer sooner than this is waited for by polling, and a sleep ends this much early, as the shard does it.
const SLEEP_SLACK: Duration = Duration::from_micros(60);

/// The bottleneck, from senders to receivers.
#[derive(Clone, Debug)]
pub struct Bottleneck {
    pub bits_per_second: u64,
    /// Tokens that an idle time leaves, bytes.
    pub bucket_bytes: u64,
    pub queue_bytes: u64,
    /// How late the shaper's timer is at most.
    pub timer_late_max: Duration,
    /// One way, each way.
    pub delay: Duration,
    /// Share of the frames lost, each way.
    pub loss: f64,
}

/// How a host's thread keeps time.
#[derive(Clone, Debug)]
pub struct Thread {
    /// How long it polls before it sleeps.
    pub spin: Duration,
    /// How late it is when woken, nanoseconds.
    pub late: Range<u64>,
    /// It is kept from its core about every so often...
    pub hiccup_every: Option<Duration>,
    /// ...for up to so long.
    pub hiccup_max: Duration,
    /// What a frame takes of its time, sent or received.
    pub work: Work,
    /// Payload of what its port cuts by itself, bytes; zero if it cuts nothing.
    pub super_segment_bytes: usize,
}

/// A host's time for a frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// For each, whatever its length.
    pub frame: Duration,
    /// For each 1000 bytes of payload.
    pub kilobyte: Duration,
    /// It takes up to this much longer at random, percent.
    pub longer_percent: u32,
    /// So many frames of a thousand are interrupted...
    pub interrupted_permille: u64,
    /// ...for up to so long.
    pub interruption_max: Duration,
}

impl Thread {
    /// One that answers at once, as a kernel's interrupt does.
    pub const PROMPT: Thread = Thread {
        spin: Duration::ZERO,
        late: 1_000..3_000,
        hiccup_every: None,
        hiccup_max: Duration::ZERO,
        work: Work {
            frame: Duration::ZERO,
            kilobyte: Duration::ZERO,
            longer_percent: 0,
            interrupted_permille: 0,
            interruption_max: Duration::ZERO,
        },
        super_segment_bytes: 0,
    };
}

#[derive(Debug, Default)]
struct App {
    endless: bool,
    received: u64,
}

impl SegmentSource for App {
    fn demand(&mut self, _now: Instant) -> Demand {
        if self.endless { Demand::Data } else { Demand::Nothing }
    }

    fn cut(&mut self, _now: Instant, _state: &SendState, cut: &mut dyn Cut) {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        let room = cut.room().min(ZEROS.len());
        if !cut.urgent_only() {
            cut.append(&ZEROS[..room]);
        }
    }

    fn next_demand(&self) -> Option<Instant> {
        None
    }
}

impl SegmentSink for App {
    fn deliver(&mut self, _now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        self.received += bytes.len() as u64;
        Ok(AckUrgency::Normal)
    }

    fn room(&self) -> usize {
        4 << 20
    }
}

struct Host {
    tcp: Option<Connection>,
    app: App,
    thread: Thread,
    inbox: VecDeque<(Header, usize)>,
    awake_until: Instant,
    /// Its thread is at work until then.
    busy_until: Instant,
    wake_at: Option<Instant>,
    hiccup_at: Instant,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Host, index of the segment.
    Arrive(usize, usize),
    Wake(usize),
}

/// Pairs of hosts: flow `i` goes from host `2 i` to host `2 i + 1`.
pub struct World {
    pub now: Instant,
    bottleneck: Bottleneck,
    hosts: Vec<Host>,
    carried: Vec<Option<(Header, usize)>>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    serial: u64,
    random: u64,
    /// When the tokens for all that was admitted will have been earned.
    earned_at: Instant,
    last_departure: Instant,
    /// Time in the bottleneck of every frame since the last look.
    pub waits: Vec<Duration>,
}

impl World {
    pub fn new(bottleneck: Bottleneck, seed: u64) -> Self {
        World {
            now: Instant::from_millis(1000),
            bottleneck,
            hosts: Vec::new(),
            carried: Vec::new(),
            events: BinaryHeap::new(),
            serial: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            earned_at: Instant::ZERO,
            last_departure: Instant::ZERO,
            waits: Vec::new(),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let mixed = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(mixed) * u128::from(bound)) >> 64) as u64
    }

    /// A saturating flow between two more hosts. Returns its index.
    pub fn add(&mut self, algorithm: Algorithm, sender: Thread, receiver: Thread) -> usize {
        let config = Config { algorithm, ..Config::default() };
        let flow = self.hosts.len() / 2;
        let seed = self.below(u64::from(u32::MAX)) as u32;
        let tcp = Connection::connect(self.now, &config, SeqNumber(seed), seed ^ 0x5555);
        for (tcp, endless, thread) in [(Some(tcp), true, sender), (None, false, receiver)] {
            let hiccup_at = match thread.hiccup_every {
                Some(every) => self.now + every,
                None => Instant::FAR_FUTURE,
            };
            self.hosts.push(Host {
                tcp,
                app: App { endless, received: 0 },
                thread,
                inbox: VecDeque::new(),
                awake_until: Instant::ZERO,
                busy_until: Instant::ZERO,
                wake_at: None,
                hiccup_at,
            });
        }
        self.wake(2 * flow, self.now);
        flow
    }

    /// Bytes that the receiver of `flow` was given in order.
    pub fn received(&self, flow: usize) -> u64 {
        self.hosts[2 * flow + 1].app.received
    }

    pub fn sender(&self, flow: usize) -> &Connection {
        self.hosts[2 * flow].tcp.as_ref().expect("the sender has a connection from the beginning")
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, _, _))) = self.events.peek()
            && *at <= end
        {
            let Some(Reverse((at, _, event))) = self.events.pop() else { break };
            self.now = at;
            match event {
                Event::Arrive(host, index) => {
                    let segment = self.carried[index].take().expect("each arrives once");
                    self.hosts[host].inbox.push_back(segment);
                    let late = self.lateness(host);
                    self.wake(host, self.now + late);
                }
                Event::Wake(host) if self.hosts[host].wake_at == Some(at) => self.run_host(host),
                Event::Wake(_) => {}
            }
        }
        self.now = end;
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((at, self.serial, event)));
    }

    /// Has `host` run at `at` unless it runs sooner.
    fn wake(&mut self, host: usize, at: Instant) {
        if self.hosts[host].wake_at.is_none_or(|planned| at < planned) {
            self.hosts[host].wake_at = Some(at);
            self.at(at, Event::Wake(host));
        }
    }

    fn lateness(&mut self, host: usize) -> Duration {
        let late = self.hosts[host].thread.late.clone();
        let random = Duration::from_nanos(late.start + self.below(late.end - late.start));
        if self.now < self.hosts[host].awake_until { Duration::ZERO } else { random }
    }

    /// The time that `index` takes for a frame with `length` bytes of payload.
    fn work(&mut self, index: usize, length: usize) -> Duration {
        let work = self.hosts[index].thread.work;
        let least = work.frame + work.kilobyte * length as u32 / 1000;
        let longer = least * self.below(u64::from(work.longer_percent) + 1) as u32 / 100;
        let interrupted = self.below(1000) < work.interrupted_permille;
        let longest = if interrupted { work.interruption_max.as_nanos() as u64 } else { 0 };
        least + longer + Duration::from_nanos(self.below(longest + 1))
    }

    fn run_host(&mut self, index: usize) {
        self.hosts[index].wake_at = None;
        if self.now >= self.hosts[index].hiccup_at {
            let Thread { hiccup_every, hiccup_max, .. } = self.hosts[index].thread;
            let every = hiccup_every.unwrap_or(Duration::MAX).as_nanos() as u64;
            let next = Duration::from_nanos(every / 2 + self.below(every));
            let late = Duration::from_nanos(self.below(hiccup_max.as_nanos() as u64));
            self.hosts[index].hiccup_at = self.now + late + next;
            return self.wake(index, self.now + late);
        }
        let now = self.now;
        if now < self.hosts[index].busy_until {
            let at = self.hosts[index].busy_until;
            return self.wake(index, at);
        }
        let mut done_at = now;
        while let Some((header, length)) = self.hosts[index].inbox.pop_front() {
            done_at += self.work(index, length);
            self.receive(index, &header, length);
        }
        let host = &mut self.hosts[index];
        let Some(tcp) = &mut host.tcp else { return };
        if tcp.next_timeout().is_some_and(|at| at <= now) {
            tcp.on_timeout(now);
        }
        let mut leaving = Vec::new();
        let limit = TransmitLimit {
            super_segment_bytes: host.thread.super_segment_bytes,
            ..TransmitLimit::default()
        };
        while let Some(outgoing) = tcp.poll_transmit(now, &mut host.app, limit) {
            leaving.push((outgoing.header, outgoing.payload_length));
        }
        while tcp.poll_event().is_some() {}
        let timeout = tcp.next_timeout();
        for (header, length) in leaving {
            done_at += self.work(index, length);
            self.launch(index, done_at, header, length);
        }
        let host = &mut self.hosts[index];
        host.busy_until = done_at;
        host.awake_until = done_at + host.thread.spin;
        if let Some(at) = timeout {
            let at = at.max(now);
            let polls = at.since(now) <= SLEEP_SLACK + self.hosts[index].thread.spin;
            let late = if polls { Duration::ZERO } else { self.lateness(index).saturating_sub(SLEEP_SLACK) };
            self.wake(index, at + late);
        }
    }

    fn receive(&mut self, index: usize, header: &Header, length: usize) {
        let payload = vec![0; length];
        let segment = Segment { header: *header, payload: &payload, congestion_experienced: false };
        let host = &mut self.hosts[index];
        match &mut host.tcp {
            Some(tcp) => {
                tcp.on_segment(self.now, &segment, &mut host.app);
            }
            None => {
                let config = Config::default();
                host.tcp = Some(Connection::accept(self.now, &config, SeqNumber(77), 1, &segment));
            }
        }
    }

    fn launch(&mut self, from: usize, at: Instant, header: Header, length: usize) {
        let lost = (self.below(1_000_000) as f64) < self.bottleneck.loss * 1e6;
        let departure = if from.is_multiple_of(2) { self.shape(at, length) } else { Some(at) };
        let Some(departure) = departure.filter(|_| !lost) else { return };
        let index = self.carried.len();
        self.carried.push(Some((header, length)));
        self.at(departure + self.bottleneck.delay, Event::Arrive(from ^ 1, index));
    }

    /// When a frame leaves the token bucket; `None` if its queue is full.
    fn shape(&mut self, now: Instant, length: usize) -> Option<Instant> {
        let Bottleneck { bits_per_second, bucket_bytes, queue_bytes, timer_late_max, .. } = self.bottleneck;
        let time = |bytes: u64| Duration::from_nanos(bytes * 8_000_000_000 / bits_per_second);
        let wait = self.earned_at.since(now);
        if wait > time(queue_bytes) {
            return None;
        }
        let floor = now - time(bucket_bytes);
        self.earned_at = self.earned_at.max(floor) + time(length as u64 + HEADERS);
        let late = Duration::from_nanos(self.below(timer_late_max.as_nanos() as u64 + 1));
        let earned = if self.earned_at > now { self.earned_at + late } else { now };
        // First in, first out: a late timer lets go of all that was earned meanwhile.
        self.last_departure = self.last_departure.max(earned);
        self.waits.push(self.last_departure.since(now));
        Some(self.last_departure)
    }
}
