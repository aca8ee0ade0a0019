//! A transport that is watched: which endpoints live, what they were given, and the power to reset them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use outrider_messenger::transport::{ConnectRefused, Listening, Transport, TransportError};
use outrider_stack::endpoint::{Acceptor, Directive, Endpoint, Established, Waker};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::{
    AckUrgency, BeyondWindow, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault,
};
use outrider_stack::time::{Clock, Instant, MonotonicClock};

use super::events::Events;

#[derive(Default)]
struct Record {
    aborts: AtomicBool,
    waker: OnceLock<Waker>,
}

#[derive(Default)]
struct Census {
    made: u64,
    living: BTreeMap<u64, Arc<Record>>,
}

/// All endpoints of one life of a host.
pub(super) struct Lives {
    census: Mutex<Census>,
    /// Bytes that the endpoint which got most was given.
    delivered_most: AtomicUsize,
    events: Events,
}

impl Lives {
    /// Endpoints made so far: those made later have this number or a higher one.
    pub(super) fn made(&self) -> u64 {
        self.census.lock().unwrap().made
    }

    pub(super) fn count(&self) -> usize {
        self.census.lock().unwrap().living.len()
    }

    /// Whether none lives that has a number below `before`.
    pub(super) fn are_gone(&self, before: u64) -> bool {
        self.census.lock().unwrap().living.range(..before).next().is_none()
    }

    pub(super) fn delivered_most(&self) -> usize {
        self.delivered_most.load(Ordering::SeqCst)
    }

    /// Has every transport reset.
    pub(super) fn abort_all(&self) {
        for record in self.census.lock().unwrap().living.values() {
            record.aborts.store(true, Ordering::SeqCst);
            if let Some(waker) = record.waker.get() {
                waker.wake();
            }
        }
    }

    fn watch(self: &Arc<Self>, inner: Box<dyn Endpoint>) -> Box<dyn Endpoint> {
        let record = Arc::new(Record::default());
        let mut census = self.census.lock().unwrap();
        let number = census.made;
        census.made += 1;
        census.living.insert(number, Arc::clone(&record));
        drop(census);
        Box::new(Watching { inner, record, number, lives: Arc::clone(self), delivered: 0 })
    }
}

/// The transport of one life of a host.
pub(super) struct Watched {
    inner: RwLock<Option<Arc<dyn Transport>>>,
    ahead: bool,
    pub(super) lives: Arc<Lives>,
}

impl Watched {
    pub(super) fn new(inner: Arc<dyn Transport>, events: &Events) -> Watched {
        let lives =
            Lives { census: Mutex::default(), delivered_most: AtomicUsize::new(0), events: events.clone() };
        let ahead = inner.delivers_ahead();
        Watched { inner: RwLock::new(Some(inner)), ahead, lives: Arc::new(lives) }
    }

    /// The transport, which nobody uses any more.
    pub(super) fn take(&self) -> Option<Arc<dyn Transport>> {
        self.inner.write().unwrap().take()
    }
}

impl Transport for Watched {
    fn connect(&self, remote: SocketAddr, endpoint: Box<dyn Endpoint>) -> Result<(), ConnectRefused> {
        match &*self.inner.read().unwrap() {
            Some(inner) => inner.connect(remote, self.lives.watch(endpoint)),
            None => Err(ConnectRefused { endpoint, error: TransportError::Gone }),
        }
    }

    fn listen_at(&self, local: SocketAddr, acceptor: Box<dyn Acceptor>) -> Result<Listening, TransportError> {
        let watching = Door { acceptor, lives: Arc::clone(&self.lives) };
        match &*self.inner.read().unwrap() {
            Some(inner) => inner.listen_at(local, Box::new(watching)),
            None => Err(TransportError::Gone),
        }
    }

    fn delivers_ahead(&self) -> bool {
        self.ahead
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(MonotonicClock)
    }
}

struct Door {
    acceptor: Box<dyn Acceptor>,
    lives: Arc<Lives>,
}

impl Acceptor for Door {
    fn accept(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) -> Option<Box<dyn Endpoint>> {
        self.acceptor.accept(now, local, remote).map(|endpoint| self.lives.watch(endpoint))
    }
}

struct Watching {
    inner: Box<dyn Endpoint>,
    record: Arc<Record>,
    number: u64,
    lives: Arc<Lives>,
    delivered: usize,
}

impl SegmentSource for Watching {
    fn demand(&mut self, now: Instant) -> Demand {
        self.inner.demand(now)
    }

    fn cut(&mut self, now: Instant, state: &SendState, cut: &mut dyn Cut) {
        self.inner.cut(now, state, cut);
    }

    fn next_demand(&self) -> Option<Instant> {
        self.inner.next_demand()
    }

    fn queued_bytes(&self) -> Option<u64> {
        self.inner.queued_bytes()
    }

    fn on_acked(&mut self, now: Instant, offset: u64) {
        self.inner.on_acked(now, offset);
    }

    fn urgent_overtakes(&self) -> bool {
        self.inner.urgent_overtakes()
    }

    fn pushes(&self) -> Option<bool> {
        self.inner.pushes()
    }

    fn is_out_of_credit(&self) -> bool {
        self.inner.is_out_of_credit()
    }

    fn finished(&self) -> bool {
        self.inner.finished()
    }
}

impl SegmentSink for Watching {
    fn deliver(&mut self, now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        let result = self.inner.deliver(now, bytes);
        self.delivered += bytes.len();
        self.lives.delivered_most.fetch_max(self.delivered, Ordering::SeqCst);
        self.lives.events.ring();
        result
    }

    fn peek_ahead(&mut self, now: Instant, offset: u64, bytes: &[u8]) -> AckUrgency {
        self.inner.peek_ahead(now, offset, bytes)
    }

    fn room(&self) -> usize {
        self.inner.room()
    }

    fn beyond_window(&self) -> BeyondWindow {
        self.inner.beyond_window()
    }

    fn on_peer_finished(&mut self, now: Instant) {
        self.inner.on_peer_finished(now);
    }

    fn finish_urgency(&self) -> AckUrgency {
        self.inner.finish_urgency()
    }
}

impl Endpoint for Watching {
    fn on_attached(&mut self, now: Instant, waker: Waker) {
        let _ = self.record.waker.set(waker.clone());
        self.inner.on_attached(now, waker);
    }

    fn on_established(&mut self, now: Instant, established: &Established) {
        self.inner.on_established(now, established);
    }

    fn on_wake(&mut self, now: Instant) {
        self.inner.on_wake(now);
    }

    fn directive(&mut self) -> Directive {
        if self.record.aborts.load(Ordering::SeqCst) { Directive::Abort } else { self.inner.directive() }
    }

    fn on_closed(&mut self, now: Instant, reason: CloseReason) {
        self.inner.on_closed(now, reason);
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.lives.census.lock().unwrap().living.remove(&self.number);
        self.lives.events.ring();
    }
}
