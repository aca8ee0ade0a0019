//! Faults made on purpose, for tests: what Ceph's `ms_inject_*` options do. Seeded.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use outrider_stack::endpoint::{self, Directive, Established, Waker};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::{
    AckUrgency, Cut, Demand, Place, SegmentSink, SegmentSource, SendState, SinkFault,
};
use outrider_stack::time::Instant;

use crate::random::SplitMix;

/// Which faults, and how often. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct InjectConfig {
    /// Seed of all chances.
    pub seed: u64,
    /// A connection of the transport is reset at one in so many segments cut or deliveries taken; 0: never.
    pub socket_failures: u32,
    /// Probability that what follows a segment is held back.
    pub delay_probability: f64,
    /// For how long at most.
    pub delay_max: Duration,
    /// Probability that an out-of-band message that arrived is not given to the dispatchers.
    pub dropped_pings: f64,
    /// Probability that a message or notice waits before it is dispatched.
    pub internal_delay_probability: f64,
    /// For how long at most.
    pub internal_delay_max: Duration,
}

/// The faults of one messenger.
#[derive(Debug)]
pub struct Injector {
    config: InjectConfig,
    draws: AtomicU64,
    blackhole: AtomicBool,
    failures: AtomicU64,
    pings_dropped: AtomicU64,
}

impl Injector {
    pub(crate) fn new(config: InjectConfig) -> Arc<Self> {
        Arc::new(Injector {
            config,
            draws: AtomicU64::new(0),
            blackhole: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            pings_dropped: AtomicU64::new(0),
        })
    }

    /// While set, no connection of the messenger sends anything, and what arrives is swallowed. A connection that has
    /// swallowed something is reset when the next bytes come after the end of this.
    pub fn set_blackhole(&self, on: bool) {
        self.blackhole.store(on, Ordering::SeqCst);
    }

    /// Connections reset on purpose.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Out-of-band messages dropped on purpose.
    pub fn pings_dropped(&self) -> u64 {
        self.pings_dropped.load(Ordering::Relaxed)
    }

    fn draw(&self) -> SplitMix {
        SplitMix::new(
            self.config.seed ^ self.draws.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x2545_F491_4F6C_DD1D),
        )
    }

    pub(crate) fn drops_ping(&self) -> bool {
        let drops = self.draw().chance(self.config.dropped_pings);
        self.pings_dropped.fetch_add(u64::from(drops), Ordering::Relaxed);
        drops
    }

    /// How long the next dispatch waits.
    pub(crate) fn internal_delay(&self) -> Duration {
        let mut draw = self.draw();
        if draw.chance(self.config.internal_delay_probability) {
            draw.below(self.config.internal_delay_max)
        } else {
            Duration::ZERO
        }
    }
}

/// An endpoint between the transport and the session that suffers the faults.
pub(crate) struct Injected<E> {
    inner: E,
    injector: Arc<Injector>,
    random: SplitMix,
    waker: Option<Waker>,
    held_until: Option<Instant>,
    swallowed: bool,
    failed: bool,
}

impl<E: endpoint::Endpoint> Injected<E> {
    pub(crate) fn new(inner: E, injector: Arc<Injector>, seed: u64) -> Self {
        let random = SplitMix::new(seed ^ injector.config.seed);
        Injected { inner, injector, random, waker: None, held_until: None, swallowed: false, failed: false }
    }

    fn is_mute(&self, now: Instant) -> bool {
        self.injector.blackhole.load(Ordering::SeqCst) || self.held_until.is_some_and(|until| until > now)
    }

    /// Throws the dice for a reset.
    fn fails(&mut self) -> bool {
        let one_in = u64::from(self.injector.config.socket_failures);
        if one_in != 0 && self.random.next_u64().is_multiple_of(one_in) {
            self.failed = true;
            self.injector.failures.fetch_add(1, Ordering::Relaxed);
        }
        self.failed
    }

    /// Whether what arrives is swallowed; an error once nothing after it can be understood.
    fn swallows(&mut self) -> Result<bool, SinkFault> {
        if self.injector.blackhole.load(Ordering::SeqCst) {
            self.swallowed = true;
            return Ok(true);
        }
        if self.swallowed { Err(SinkFault) } else { Ok(false) }
    }
}

impl<E: endpoint::Endpoint> SegmentSource for Injected<E> {
    fn demand(&mut self, now: Instant) -> Demand {
        let demand = self.inner.demand(now);
        self.held_until = self.held_until.filter(|until| *until > now);
        if self.is_mute(now) { Demand::Nothing } else { demand }
    }

    fn cut(&mut self, now: Instant, state: &SendState, cut: &mut dyn Cut) {
        if self.is_mute(now) {
            return;
        }
        self.inner.cut(now, state, cut);
        let config = self.injector.config;
        if self.random.chance(config.delay_probability) {
            self.held_until = Some(now + self.random.below(config.delay_max));
        }
        if self.fails()
            && let Some(waker) = &self.waker
        {
            // The directive is asked for after calls to the endpoint, not here.
            waker.wake();
        }
    }

    fn next_demand(&self) -> Option<Instant> {
        let own = self.inner.next_demand();
        match self.held_until {
            Some(held) => Some(own.map_or(held, |own| own.max(held))),
            None => own,
        }
    }

    fn on_acked(&mut self, now: Instant, offset: u64) {
        self.inner.on_acked(now, offset);
    }

    fn urgent_overtakes(&self) -> bool {
        self.inner.urgent_overtakes()
    }

    fn queued_bytes(&self) -> Option<u64> {
        self.inner.queued_bytes()
    }

    fn is_out_of_credit(&self) -> bool {
        self.inner.is_out_of_credit()
    }

    fn heartbeat_rtt(&self) -> Option<Duration> {
        self.inner.heartbeat_rtt()
    }

    fn pushes(&self) -> Option<bool> {
        self.inner.pushes()
    }

    fn finished(&self) -> bool {
        // What is held back comes before the end of the stream.
        let held = self.held_until.is_some() || self.injector.blackhole.load(Ordering::SeqCst);
        !held && self.inner.finished()
    }
}

impl<E: endpoint::Endpoint> SegmentSink for Injected<E> {
    fn deliver(&mut self, now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        if self.swallows()? {
            return Ok(AckUrgency::Normal);
        }
        if self.fails() {
            return Err(SinkFault);
        }
        self.inner.deliver(now, bytes)
    }

    fn place(&mut self) -> Option<Place<'_>> {
        let swallows = self.swallowed || self.injector.blackhole.load(Ordering::SeqCst);
        if swallows { None } else { self.inner.place() }
    }

    fn placed(&mut self, now: Instant, bytes: usize) -> Result<AckUrgency, SinkFault> {
        if self.fails() {
            return Err(SinkFault);
        }
        self.inner.placed(now, bytes)
    }

    fn peek_ahead(&mut self, now: Instant, offset: u64, bytes: &[u8]) -> AckUrgency {
        match self.swallows() {
            Ok(false) => self.inner.peek_ahead(now, offset, bytes),
            Ok(true) | Err(SinkFault) => AckUrgency::Normal,
        }
    }

    fn room(&self) -> usize {
        self.inner.room()
    }

    fn on_peer_finished(&mut self, now: Instant) {
        if self.swallows() == Ok(false) {
            self.inner.on_peer_finished(now);
        }
    }

    fn finish_urgency(&self) -> AckUrgency {
        self.inner.finish_urgency()
    }
}

impl<E: endpoint::Endpoint> endpoint::Endpoint for Injected<E> {
    fn on_attached(&mut self, now: Instant, waker: Waker) {
        self.waker = Some(waker.clone());
        self.inner.on_attached(now, waker);
    }

    fn on_established(&mut self, now: Instant, established: &Established) {
        self.inner.on_established(now, established);
    }

    fn on_wake(&mut self, now: Instant) {
        self.inner.on_wake(now);
    }

    fn directive(&mut self) -> Directive {
        if self.failed { Directive::Abort } else { self.inner.directive() }
    }

    fn on_closed(&mut self, now: Instant, reason: CloseReason) {
        self.inner.on_closed(now, reason);
    }
}
