//! An endpoint that a test directs from outside.

use std::any::Any;
use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use outrider_stack::endpoint::{Acceptor, Directive, Endpoint, Established, Waker};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::{
    AckUrgency, Cut, Demand, Place, SegmentSink, SegmentSource, SendState, SinkFault,
};
use outrider_stack::time::Instant;

/// Nothing here takes this long; a test that hangs shall fail.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the endpoint was told.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    Established(Established),
    PeerFinished,
    Closed(CloseReason),
}

/// What both sides look at.
#[derive(Default)]
struct Desk {
    waker: Option<Waker>,
    to_send: VecDeque<u8>,
    urgent: VecDeque<u8>,
    finished: bool,
    abort: bool,
    /// When to abort by itself.
    abort_at: Option<Instant>,
    refuse: bool,
    room: usize,
    received: Vec<u8>,
    largest_delivery: usize,
    /// The stream is of chunks of so many bytes, and what follows the head of one has a place; none if zero.
    chunk_bytes: usize,
    acked: u64,
    cut: u64,
    urgent_cuts: u64,
    last_state: SendState,
    /// Asked for demand since the last cut.
    asked: u64,
    threads: HashSet<ThreadId>,
    dropped: bool,
    held: Option<Box<dyn Any + Send>>,
}

#[derive(Default)]
struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
}

impl Shared {
    /// For the endpoint: notes the thread, and wakes who waits for a change when the guard is gone.
    fn called(&self) -> MutexGuard<'_, Desk> {
        let mut desk = self.desk.lock().unwrap();
        desk.threads.insert(std::thread::current().id());
        self.changed.notify_all();
        desk
    }
}

/// The test's side.
pub(crate) struct Script {
    shared: Arc<Shared>,
    events: Receiver<Event>,
}

/// The transport's side.
struct Actor {
    shared: Arc<Shared>,
    events: Sender<Event>,
    /// Where chunks belong.
    place: Vec<u8>,
    /// Bytes of the current chunk that have come.
    of_chunk: usize,
}

/// Of each chunk so much has no place.
const HEAD_BYTES: usize = 100;

impl Script {
    /// The two sides.
    pub(crate) fn new() -> (Script, Box<dyn Endpoint>) {
        let shared = Arc::new(Shared::default());
        shared.desk.lock().unwrap().room = 1 << 20;
        let (sender, events) = unbounded();
        let actor = Actor { shared: Arc::clone(&shared), events: sender, place: Vec::new(), of_chunk: 0 };
        (Script { shared, events }, Box::new(actor))
    }

    pub(crate) fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("something happens in time")
    }

    pub(crate) fn nothing_happened(&self) -> bool {
        self.events.is_empty() && self.shared.desk.lock().unwrap().received.is_empty()
    }

    /// Whether the endpoint has been dropped, with nothing more to say.
    pub(crate) fn is_dropped(&self) -> bool {
        self.wait_until_dropped();
        // The channel is let go just after the flag is set: wait for its end, not for a moment without events.
        self.events.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Disconnected)
    }

    pub(crate) fn wait_until_dropped(&self) {
        drop(self.wait(|desk| desk.dropped));
    }

    fn change(&self, change: impl FnOnce(&mut Desk)) {
        change(&mut self.shared.desk.lock().unwrap());
        self.wake();
    }

    fn wait(&self, done: impl Fn(&Desk) -> bool) -> MutexGuard<'_, Desk> {
        let desk = self.shared.desk.lock().unwrap();
        let (desk, timeout) =
            self.shared.changed.wait_timeout_while(desk, PATIENCE, |desk| !done(desk)).unwrap();
        assert!(!timeout.timed_out(), "what is waited for does not happen");
        desk
    }

    /// Has the endpoint look again.
    pub(crate) fn wake(&self) {
        let waker = self.shared.desk.lock().unwrap().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        self.change(|desk| desk.to_send.extend(bytes));
    }

    pub(crate) fn send_urgent(&self, bytes: &[u8]) {
        self.change(|desk| desk.urgent.extend(bytes));
    }

    pub(crate) fn finish(&self) {
        self.change(|desk| desk.finished = true);
    }

    pub(crate) fn abort(&self) {
        self.change(|desk| desk.abort = true);
    }

    /// Aborts when the endpoint is asked at that time or later; it asks to be asked then.
    pub(crate) fn abort_at(&self, at: Instant) {
        self.change(|desk| desk.abort_at = Some(at));
    }

    pub(crate) fn refuse_bytes(&self) {
        self.change(|desk| desk.refuse = true);
    }

    /// Without a wake.
    pub(crate) fn set_room(&self, room: usize) {
        self.shared.desk.lock().unwrap().room = room;
    }

    /// Dropped by the endpoint when it is told that its connection has ended.
    pub(crate) fn drop_at_end(&self, held: impl Any + Send) {
        self.shared.desk.lock().unwrap().held = Some(Box::new(held));
    }

    /// The next `length` bytes.
    pub(crate) fn receive(&self, length: usize) -> Vec<u8> {
        let mut desk = self.wait(|desk| desk.received.len() >= length);
        desk.received.drain(..length).collect()
    }

    pub(crate) fn wait_until_acked(&self, bytes: u64) {
        // Offset 0 is the SYN.
        drop(self.wait(|desk| desk.acked == bytes + 1));
    }

    /// Waits until the endpoint has been asked and asked again without being let cut.
    pub(crate) fn wait_until_blocked(&self) {
        drop(self.wait(|desk| desk.cut > 0 && !desk.to_send.is_empty() && desk.asked > 8));
    }

    pub(crate) fn wait_until_urgent_cut(&self) {
        drop(self.wait(|desk| desk.urgent_cuts > 0));
    }

    pub(crate) fn last_cut(&self) -> SendState {
        self.shared.desk.lock().unwrap().last_state
    }

    pub(crate) fn cut_bytes(&self) -> u64 {
        self.shared.desk.lock().unwrap().cut
    }

    /// From the next byte on, which begins one; what was delivered before does not count any more.
    pub(crate) fn place_chunks_of(&self, bytes: usize) {
        let mut desk = self.shared.desk.lock().unwrap();
        (desk.chunk_bytes, desk.largest_delivery) = (bytes, 0);
    }

    pub(crate) fn largest_delivery(&self) -> usize {
        self.shared.desk.lock().unwrap().largest_delivery
    }

    pub(crate) fn threads(&self) -> HashSet<ThreadId> {
        self.shared.desk.lock().unwrap().threads.clone()
    }
}

impl SegmentSource for Actor {
    fn demand(&mut self, now: Instant) -> Demand {
        let mut desk = self.shared.called();
        desk.asked += 1;
        desk.abort |= desk.abort_at.is_some_and(|at| at <= now);
        if !desk.urgent.is_empty() {
            Demand::Urgent
        } else if !desk.to_send.is_empty() {
            Demand::Data
        } else {
            Demand::Nothing
        }
    }

    fn cut(&mut self, _now: Instant, state: &SendState, cut: &mut dyn Cut) {
        let mut desk = self.shared.called();
        desk.last_state = *state;
        desk.asked = 0;
        assert_eq!(state.stream_offset, desk.cut + 1, "offset 0 is the SYN");
        let urgent: Vec<u8> = desk.urgent.drain(..).collect();
        if !urgent.is_empty() {
            cut.append(&urgent);
            desk.urgent_cuts += 1;
        }
        let mut bytes = urgent.len();
        if !cut.urgent_only() {
            let length = cut.room().min(desk.to_send.len());
            let ordinary: Vec<u8> = desk.to_send.drain(..length).collect();
            cut.append(&ordinary);
            bytes += length;
        }
        desk.cut += bytes as u64;
    }

    fn next_demand(&self) -> Option<Instant> {
        self.shared.called().abort_at
    }

    fn on_acked(&mut self, _now: Instant, offset: u64) {
        let mut desk = self.shared.called();
        assert!(
            offset > desk.acked && offset <= desk.cut + 1,
            "{offset} after {} of {}",
            desk.acked,
            desk.cut
        );
        desk.acked = offset;
    }

    fn finished(&self) -> bool {
        let desk = self.shared.called();
        desk.finished && desk.to_send.is_empty() && desk.urgent.is_empty()
    }
}

impl SegmentSink for Actor {
    fn deliver(&mut self, _now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        let mut desk = self.shared.called();
        assert!(bytes.len() <= desk.room, "no more than there is room for");
        if desk.refuse {
            return Err(SinkFault);
        }
        desk.largest_delivery = desk.largest_delivery.max(bytes.len());
        desk.received.extend_from_slice(bytes);
        if desk.chunk_bytes > 0 {
            self.of_chunk = (self.of_chunk + bytes.len()) % desk.chunk_bytes;
        }
        Ok(AckUrgency::Normal)
    }

    fn place(&mut self) -> Option<Place<'_>> {
        let chunk_bytes = self.shared.called().chunk_bytes;
        if self.of_chunk < HEAD_BYTES || chunk_bytes == 0 {
            return None;
        }
        let bytes_max = chunk_bytes - self.of_chunk;
        self.place.reserve(bytes_max);
        Some(Place { buffer: &mut self.place, bytes_max })
    }

    fn placed(&mut self, _now: Instant, bytes: usize) -> Result<AckUrgency, SinkFault> {
        let mut desk = self.shared.called();
        assert_eq!(bytes, self.place.len());
        desk.received.append(&mut self.place);
        self.of_chunk = (self.of_chunk + bytes) % desk.chunk_bytes;
        Ok(AckUrgency::Normal)
    }

    fn room(&self) -> usize {
        self.shared.called().room
    }

    fn on_peer_finished(&mut self, _now: Instant) {
        drop(self.shared.called());
        self.events.send(Event::PeerFinished).unwrap_or_default();
    }
}

impl Endpoint for Actor {
    fn on_attached(&mut self, _now: Instant, waker: Waker) {
        self.shared.called().waker = Some(waker);
    }

    fn on_established(&mut self, _now: Instant, established: &Established) {
        drop(self.shared.called());
        self.events.send(Event::Established(*established)).unwrap_or_default();
    }

    fn directive(&mut self) -> Directive {
        if self.shared.called().abort { Directive::Abort } else { Directive::Continue }
    }

    fn on_closed(&mut self, _now: Instant, reason: CloseReason) {
        let held = self.shared.called().held.take();
        drop(held);
        self.events.send(Event::Closed(reason)).unwrap_or_default();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.shared.called().dropped = true;
        // The test finds the channel closed once it knows.
        let (nobody, _) = unbounded();
        self.events = nobody;
    }
}

/// Makes a script for everybody who comes, as long as the test takes them.
pub(crate) struct Opener(Sender<Script>);

impl Opener {
    pub(crate) fn new() -> (Opener, Receiver<Script>) {
        let (sender, scripts) = unbounded();
        (Opener(sender), scripts)
    }
}

impl Acceptor for Opener {
    fn accept(&mut self, _: Instant, _: SocketAddr, _: SocketAddr) -> Option<Box<dyn Endpoint>> {
        let (script, endpoint) = Script::new();
        self.0.send(script).is_ok().then_some(endpoint)
    }
}
