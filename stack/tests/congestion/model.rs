//! A deterministic world for congestion controllers: senders that do as the trait says, one bottleneck, receivers.
//!
//! The link is first in, first out, so an acknowledgement of one transmission proves every earlier one that it does
//! not name lost: perfect SACK knowledge without reordering. Time is virtual, randomness is seeded.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use outrider_stack::tcp::congestion::{AckSample, Algorithm, CongestionControl, CongestionEvent, RateSample};
use outrider_stack::time::Instant;

/// Payload of a segment, bytes, and what it takes on the wire (Ethernet, IP, TCP with timestamps, preamble and gap).
pub const SEGMENT: u64 = 1448;
const WIRE: u64 = SEGMENT + 14 + 20 + 32 + 24;

/// The path.
#[derive(Clone, Debug)]
pub struct Path {
    pub bits_per_second: u64,
    /// One way, without serialisation.
    pub delay: Duration,
    pub queue_bytes: u64,
    /// Segments lost at random, in parts per million.
    pub loss_ppm: u64,
}

impl Path {
    pub fn new(bits_per_second: u64, delay: Duration) -> Self {
        Path { bits_per_second, delay, queue_bytes: 1_000_000, loss_ppm: 0 }
    }
}

/// How a receiver acknowledges.
#[derive(Clone, Copy, Debug)]
pub enum AckPolicy {
    /// Every segment at once.
    Each,
    /// Every segment, late by up to this much, in order.
    Jitter(Duration),
    /// This many at once, or what there is this long after the first.
    Aggregate(usize, Duration),
    /// The receiving thread looks at random intervals of up to this much and acknowledges all it finds.
    Sleeping(Duration),
}

/// When a sender has data.
#[derive(Clone, Debug)]
pub enum Load {
    Saturating {
        from: Duration,
    },
    /// This many bytes every interval, and more than the path takes within the given spans.
    Trickle {
        bytes: u64,
        every: Duration,
        saturating: Vec<(Duration, Duration)>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Demand(usize),
    Pace(usize),
    Departed,
    Arrived(usize, u64),
    Acknowledge(usize),
    Ack(usize, Vec<u64>),
    Timer(usize),
    SetRate(u64),
    SetDelay(Duration),
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    id: u64,
    at: Instant,
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    lost: u64,
    pipe: u64,
    app_limited: bool,
}

/// An event told to a controller, and what it made of its window.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub at: Duration,
    pub event: CongestionEvent,
    pub before: u64,
    pub after: u64,
}

/// What a flow was like, about once a millisecond.
#[derive(Clone, Debug)]
pub struct Tick {
    pub at: Duration,
    pub delivered: u64,
    pub window: u64,
    pub bandwidth: Option<u64>,
}

pub struct Flow {
    pub controller: Box<dyn CongestionControl>,
    policy: AckPolicy,
    load: Load,
    // Sender.
    flight: VecDeque<Sent>,
    next_id: u64,
    unsent: u64,
    lost_unsent: u64,
    pub delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    lost: u64,
    app_limited_until: u64,
    app_limited: bool,
    next_send: Instant,
    /// Segments that leave back to back (segmentation offload), and how many of the present burst are left.
    pub burst: u64,
    burst_left: u64,
    pace_armed: bool,
    round_end: u64,
    recovery_end: Option<u64>,
    smoothed_rtt: Option<Duration>,
    rtt_min: Option<Duration>,
    timer: Option<Instant>,
    // Receiver.
    held: Vec<u64>,
    ack_armed: bool,
    ack_floor: Instant,
    /// Events told to the controller.
    pub events: Vec<Told>,
    /// Each change of phase.
    pub phases: Vec<(Duration, &'static str)>,
    pub ticks: Vec<Tick>,
    pub drops: u64,
}

impl Flow {
    fn new(controller: Box<dyn CongestionControl>, policy: AckPolicy, load: Load) -> Self {
        Flow {
            controller,
            policy,
            load,
            flight: VecDeque::new(),
            next_id: 0,
            unsent: 0,
            lost_unsent: 0,
            delivered: 0,
            delivered_at: Instant::ZERO,
            first_sent_at: Instant::ZERO,
            lost: 0,
            app_limited_until: 0,
            app_limited: false,
            next_send: Instant::ZERO,
            burst: 1,
            burst_left: 0,
            pace_armed: false,
            round_end: 0,
            recovery_end: None,
            smoothed_rtt: None,
            rtt_min: None,
            timer: None,
            held: Vec::new(),
            ack_armed: false,
            ack_floor: Instant::ZERO,
            events: Vec::new(),
            phases: Vec::new(),
            ticks: Vec::new(),
            drops: 0,
        }
    }

    pub fn pipe(&self) -> u64 {
        self.flight.len() as u64 * SEGMENT
    }

    fn tell(&mut self, now: Instant, event: CongestionEvent) {
        let before = self.controller.window();
        let pipe = self.pipe();
        self.controller.on_event(now, event, pipe);
        let after = self.controller.window();
        self.events.push(Told { at: now - Instant::ZERO, event, before, after });
    }

    /// First time at or after `from` at which the flow entered `phase`.
    pub fn entered(&self, phase: &str, from: Duration) -> Option<Duration> {
        self.phases.iter().find(|(at, name)| *at >= from && *name == phase).map(|(at, _)| *at)
    }

    /// The last state of the flow noted at or before `at`.
    pub fn tick(&self, at: Duration) -> &Tick {
        self.ticks.iter().rev().find(|tick| tick.at <= at).expect("the flow has begun by then")
    }

    /// Bytes delivered by `at`, to the resolution of the ticks.
    pub fn delivered_by(&self, at: Duration) -> u64 {
        self.ticks.iter().take_while(|tick| tick.at <= at).last().map_or(0, |tick| tick.delivered)
    }
}

/// Queueing delays of all segments that entered the queue between two instants.
#[derive(Clone, Debug, Default)]
pub struct Delays(Vec<u64>);

impl Delays {
    pub fn percentile(&self, percent: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let index = ((sorted.len() as f64 * percent / 100.0) as usize).min(sorted.len().saturating_sub(1));
        Duration::from_nanos(sorted.get(index).copied().unwrap_or(0))
    }
}

pub struct World {
    path: Path,
    now: Instant,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    order: u64,
    random: u64,
    queue: VecDeque<(usize, u64)>,
    busy: bool,
    service_end: Instant,
    pub flows: Vec<Flow>,
    /// (arrival, queueing delay) of every segment that was queued.
    delays: Vec<(Instant, u64)>,
    /// (end, length) of every transmission of the link.
    busy_time: Vec<(Instant, u64)>,
}

impl World {
    pub fn new(path: Path, seed: u64) -> Self {
        World {
            path,
            now: Instant::ZERO,
            events: BinaryHeap::new(),
            order: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            queue: VecDeque::new(),
            busy: false,
            service_end: Instant::ZERO,
            flows: Vec::new(),
            delays: Vec::new(),
            busy_time: Vec::new(),
        }
    }

    pub fn add(&mut self, algorithm: Algorithm, policy: AckPolicy, load: Load) -> usize {
        let flow = self.flows.len();
        self.add_controller(algorithm.build(SEGMENT, 10, 7 + flow as u64), policy, load)
    }

    pub fn add_controller(
        &mut self,
        controller: Box<dyn CongestionControl>,
        policy: AckPolicy,
        load: Load,
    ) -> usize {
        let flow = self.flows.len();
        let start = match &load {
            Load::Saturating { from } => *from,
            Load::Trickle { .. } => Duration::ZERO,
        };
        self.flows.push(Flow::new(controller, policy, load));
        self.at(Instant::ZERO + start, Event::Demand(flow));
        flow
    }

    pub fn set_rate_at(&mut self, at: Duration, bits_per_second: u64) {
        self.at(Instant::ZERO + at, Event::SetRate(bits_per_second));
    }

    /// The way becomes longer. (A shorter one would reorder, which this world does not know.)
    pub fn set_delay_at(&mut self, at: Duration, delay: Duration) {
        assert!(delay >= self.path.delay, "a shorter way would reorder");
        self.at(Instant::ZERO + at, Event::SetDelay(delay));
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    fn random(&mut self, bound: u64) -> u64 {
        // xorshift64*.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let mixed = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(mixed) * u128::from(bound)) >> 64) as u64
    }

    fn wire_time(&self) -> Duration {
        Duration::from_nanos(WIRE * 8 * 1_000_000_000 / self.path.bits_per_second)
    }

    /// Lets the world go on for `time`.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, _, _))) = self.events.peek() {
            if *at > end {
                break;
            }
            let Some(Reverse((at, _, event))) = self.events.pop() else { break };
            self.now = at;
            self.handle(event);
        }
        self.now = end;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Demand(flow) => self.on_demand(flow),
            Event::Pace(flow) => {
                self.flows[flow].pace_armed = false;
                self.send(flow);
            }
            Event::Departed => self.on_departed(),
            Event::Arrived(flow, id) => self.on_arrived(flow, id),
            Event::Acknowledge(flow) => self.acknowledge(flow),
            Event::Ack(flow, ids) => self.on_ack(flow, &ids),
            Event::Timer(flow) => self.on_timer(flow),
            Event::SetRate(rate) => self.path.bits_per_second = rate,
            Event::SetDelay(delay) => self.path.delay = delay,
        }
    }

    fn on_demand(&mut self, flow: usize) {
        let at = self.now - Instant::ZERO;
        match &self.flows[flow].load {
            Load::Saturating { .. } => self.flows[flow].unsent = u64::MAX / 2,
            Load::Trickle { bytes, every, saturating } => {
                let (bytes, every) = (*bytes, *every);
                let saturating = saturating.iter().any(|(from, to)| at >= *from && at < *to);
                let state = &mut self.flows[flow];
                state.unsent = if saturating { u64::MAX / 2 } else { bytes };
                self.at(self.now + every, Event::Demand(flow));
            }
        }
        self.send(flow);
    }

    /// Sends what window and pacing allow.
    fn send(&mut self, index: usize) {
        loop {
            let now = self.now;
            let flow = &mut self.flows[index];
            if flow.unsent == 0 && flow.lost_unsent == 0 {
                if flow.pipe() < flow.controller.window() {
                    flow.app_limited = true;
                    flow.app_limited_until = (flow.delivered + flow.pipe()).max(1);
                }
                return;
            }
            flow.app_limited = false;
            if flow.pipe() + SEGMENT > flow.controller.window() {
                return;
            }
            if flow.burst_left == 0 && now < flow.next_send {
                if !flow.pace_armed {
                    flow.pace_armed = true;
                    let at = flow.next_send;
                    self.at(at, Event::Pace(index));
                }
                return;
            }
            self.transmit(index);
        }
    }

    fn transmit(&mut self, index: usize) {
        let now = self.now;
        let flow = &mut self.flows[index];
        if flow.lost_unsent > 0 {
            flow.lost_unsent -= SEGMENT;
        } else {
            flow.unsent = flow.unsent.saturating_sub(SEGMENT);
        }
        if flow.flight.is_empty() {
            flow.first_sent_at = now;
            flow.delivered_at = now;
        }
        let pipe = flow.pipe();
        flow.controller.on_sent(now, SEGMENT, pipe);
        let id = flow.next_id;
        flow.next_id += 1;
        flow.flight.push_back(Sent {
            id,
            at: now,
            delivered: flow.delivered,
            delivered_at: flow.delivered_at,
            first_sent_at: flow.first_sent_at,
            lost: flow.lost,
            pipe: pipe + SEGMENT,
            app_limited: flow.app_limited_until > flow.delivered,
        });
        if let Some(rate) = flow.controller.pacing_rate() {
            if flow.burst_left == 0 {
                flow.burst_left = flow.burst;
                let gap = Duration::from_nanos(flow.burst * SEGMENT * 1_000_000_000 / rate.max(1));
                flow.next_send = now + gap;
            }
            flow.burst_left -= 1;
        }
        self.arm_timer(index);
        self.enqueue(index, id);
    }

    fn enqueue(&mut self, index: usize, id: u64) {
        let waiting = self.queue.len() as u64 * WIRE;
        // The head of the queue is the one in service.
        let behind = (self.queue.len() as u64).saturating_sub(1);
        let residue = if self.busy { self.service_end.since(self.now) } else { Duration::ZERO };
        if waiting + WIRE > self.path.queue_bytes {
            self.flows[index].drops += 1;
            return;
        }
        let wait = residue.as_nanos() as u64 + behind * self.wire_time().as_nanos() as u64;
        self.delays.push((self.now, wait));
        self.queue.push_back((index, id));
        if !self.busy {
            self.serve();
        }
    }

    fn serve(&mut self) {
        let time = self.wire_time();
        self.busy = true;
        self.service_end = self.now + time;
        self.busy_time.push((self.service_end, time.as_nanos() as u64));
        self.at(self.service_end, Event::Departed);
    }

    fn on_departed(&mut self) {
        self.busy = false;
        let lost = self.path.loss_ppm != 0 && self.random(1_000_000) < self.path.loss_ppm;
        if let (Some((flow, id)), false) = (self.queue.pop_front(), lost) {
            self.at(self.now + self.path.delay, Event::Arrived(flow, id));
        }
        if !self.queue.is_empty() {
            self.serve();
        }
    }

    fn on_arrived(&mut self, index: usize, id: u64) {
        self.flows[index].held.push(id);
        let armed = self.flows[index].ack_armed;
        match self.flows[index].policy {
            AckPolicy::Each => self.acknowledge(index),
            AckPolicy::Jitter(most) => {
                let late = Duration::from_nanos(self.random(most.as_nanos() as u64 + 1));
                let at = (self.now + late).max(self.flows[index].ack_floor);
                self.flows[index].ack_floor = at;
                let ids = std::mem::take(&mut self.flows[index].held);
                self.at(at + self.path.delay, Event::Ack(index, ids));
            }
            AckPolicy::Aggregate(count, wait) => {
                if self.flows[index].held.len() >= count {
                    self.acknowledge(index);
                } else if !armed {
                    self.flows[index].ack_armed = true;
                    self.at(self.now + wait, Event::Acknowledge(index));
                }
            }
            AckPolicy::Sleeping(most) => {
                if !armed {
                    self.flows[index].ack_armed = true;
                    let late = Duration::from_nanos(self.random(most.as_nanos() as u64 + 1));
                    self.at(self.now + late, Event::Acknowledge(index));
                }
            }
        }
    }

    fn acknowledge(&mut self, index: usize) {
        self.flows[index].ack_armed = false;
        let ids = std::mem::take(&mut self.flows[index].held);
        if !ids.is_empty() {
            self.at(self.now + self.path.delay, Event::Ack(index, ids));
        }
    }

    fn on_ack(&mut self, index: usize, ids: &[u64]) {
        let now = self.now;
        let flow = &mut self.flows[index];
        let Some(&highest) = ids.last() else { return };
        let pipe_before = flow.pipe();
        let mut named = ids.iter().copied().peekable();
        let (mut newly_delivered, mut newly_lost) = (0, 0);
        let mut latest: Option<Sent> = None;
        while let Some(sent) = flow.flight.front().copied().filter(|sent| sent.id <= highest) {
            flow.flight.pop_front();
            while named.peek().is_some_and(|id| *id < sent.id) {
                named.next();
            }
            if named.peek() == Some(&sent.id) {
                newly_delivered += SEGMENT;
                latest = Some(sent);
            } else {
                newly_lost += SEGMENT;
            }
        }
        flow.delivered += newly_delivered;
        flow.lost += newly_lost;
        flow.lost_unsent += newly_lost;
        let rate = latest.and_then(|sent| flow.sample(now, &sent));
        let rtt = latest.map(|sent| now - sent.at);
        if flow.app_limited_until != 0 && flow.delivered > flow.app_limited_until {
            flow.app_limited_until = 0;
        }
        if let Some(rtt) = rtt {
            flow.rtt_min = Some(flow.rtt_min.map_or(rtt, |least| least.min(rtt)));
            flow.smoothed_rtt = Some(flow.smoothed_rtt.map_or(rtt, |srtt| srtt / 8 * 7 + rtt / 8));
        }
        let round_start = highest >= flow.round_end;
        if round_start {
            flow.round_end = flow.next_id;
        }
        if flow.recovery_end.is_some_and(|end| highest >= end) {
            flow.recovery_end = None;
            flow.tell(now, CongestionEvent::RecoveryEnd);
        }
        if newly_lost > 0 && flow.recovery_end.is_none() {
            flow.recovery_end = Some(flow.next_id);
            flow.tell(now, CongestionEvent::Loss);
        }
        let sample = AckSample {
            now,
            newly_delivered,
            newly_acked: newly_delivered,
            newly_lost,
            rtt,
            rtt_min: flow.rtt_min,
            smoothed_rtt: flow.smoothed_rtt,
            pipe_before,
            pipe: flow.pipe(),
            rate,
            delivered: flow.delivered,
            round_start,
            app_limited: flow.app_limited,
            ce_marked: 0,
            in_recovery: flow.recovery_end.is_some(),
        };
        flow.controller.on_ack(&sample);
        flow.note(now);
        self.arm_timer(index);
        self.send(index);
    }

    fn arm_timer(&mut self, index: usize) {
        let now = self.now;
        let flow = &mut self.flows[index];
        let timeout = flow
            .smoothed_rtt
            .map_or(Duration::from_secs(1), |srtt| (srtt * 4).max(Duration::from_millis(20)));
        let armed = flow.timer.is_some();
        flow.timer = (!flow.flight.is_empty()).then_some(now + timeout);
        if let (false, Some(at)) = (armed, flow.timer) {
            self.at(at, Event::Timer(index));
        }
    }

    /// The timer is lazy: it looks whether it was put off meanwhile.
    fn on_timer(&mut self, index: usize) {
        let now = self.now;
        let flow = &mut self.flows[index];
        match flow.timer.take() {
            Some(at) if at > now => {
                flow.timer = Some(at);
                self.at(at, Event::Timer(index));
            }
            Some(_) => {
                let lost = flow.pipe();
                flow.lost += lost;
                flow.lost_unsent += lost;
                flow.flight.clear();
                flow.recovery_end = Some(flow.next_id);
                flow.tell(now, CongestionEvent::Timeout);
                self.send(index);
            }
            None => {}
        }
    }

    /// Share of the link's time between two instants in which it was transmitting.
    pub fn utilisation(&self, from: Duration, to: Duration) -> f64 {
        let (from, to) = (Instant::ZERO + from, Instant::ZERO + to);
        let busy: u64 =
            self.busy_time.iter().filter(|(end, _)| *end > from && *end <= to).map(|(_, time)| time).sum();
        busy as f64 / (to - from).as_nanos() as f64
    }

    pub fn delays(&self, from: Duration, to: Duration) -> Delays {
        let (from, to) = (Instant::ZERO + from, Instant::ZERO + to);
        Delays(self.delays.iter().filter(|(at, _)| *at >= from && *at < to).map(|(_, wait)| *wait).collect())
    }
}

impl Flow {
    fn sample(&mut self, now: Instant, sent: &Sent) -> Option<RateSample> {
        self.first_sent_at = sent.at;
        self.delivered_at = now;
        let interval = (sent.at - sent.first_sent_at).max(now - sent.delivered_at);
        if interval.is_zero() || self.rtt_min.is_some_and(|least| interval < least) {
            return None;
        }
        Some(RateSample {
            delivered: self.delivered - sent.delivered,
            interval,
            prior_delivered: sent.delivered,
            lost: self.lost - sent.lost,
            pipe_at_send: sent.pipe,
            app_limited: sent.app_limited,
        })
    }

    fn note(&mut self, now: Instant) {
        let at = now - Instant::ZERO;
        let phase = self.controller.phase();
        if self.phases.last().is_none_or(|(_, last)| *last != phase) {
            self.phases.push((at, phase));
        }
        if self.ticks.last().is_none_or(|tick| at >= tick.at + Duration::from_millis(1)) {
            self.ticks.push(Tick {
                at,
                delivered: self.delivered,
                window: self.controller.window(),
                bandwidth: self.controller.bandwidth(),
            });
        }
    }
}
