//! Two shards on a cable, in real time: commands, wakes, idle sleep, stopping, a port that goes away.

// Helpers of tests may unwrap like tests.
#![allow(clippy::unwrap_used)]

#[path = "common/endpoints.rs"]
mod endpoints;

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use endpoints::{Checked, CheckedAcceptor, Notes, Plan};
use outrider_drivers::memory::{LinkConfig, MemoryPort, cable};
use outrider_drivers::port::{Port, PortError};
use outrider_stack::endpoint::{Endpoint, Established, Waker};
use outrider_stack::net::{ListenError, ListenOptions, StackConfig, StackError};
use outrider_stack::shard::{ConnectError, Polling, Shard, ShardConfig, SpawnError, spawn};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::{
    AckUrgency, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault,
};
use outrider_stack::time::{Instant, MonotonicClock};

/// Long enough for any machine; nothing waits this long unless it fails.
const FOREVER: Duration = Duration::from_secs(60);
const SERVER: &str = "10.0.0.2:4000";

fn config(host: u8, polling: Polling) -> ShardConfig {
    let address: IpAddr = format!("10.0.0.{host}").parse().unwrap();
    ShardConfig {
        name: format!("shard {host}"),
        stack: StackConfig::new([(address, 24)]),
        polling,
        core: None,
        seed: host.into(),
        clock: Arc::new(MonotonicClock),
    }
}

fn shards(polling: Polling) -> (Shard, Shard) {
    let (a, b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    (spawn(Box::new(a), config(1, polling)).unwrap(), spawn(Box::new(b), config(2, polling)).unwrap())
}

fn server() -> SocketAddr {
    SERVER.parse().unwrap()
}

/// Reports what happens to it, and answers every wake.
struct Reporter {
    events: Sender<Event>,
    room: usize,
}

#[derive(Debug)]
enum Event {
    Attached(Waker),
    Established,
    Woken,
    Closed(CloseReason),
}

impl Reporter {
    fn new() -> (Box<Reporter>, Receiver<Event>) {
        let (events, receiver) = channel();
        (Box::new(Reporter { events, room: 1 << 20 }), receiver)
    }

    fn report(&self, event: Event) {
        // A test that has seen enough may be gone.
        let _ = self.events.send(event);
    }
}

impl SegmentSource for Reporter {
    fn demand(&mut self, _now: Instant) -> Demand {
        Demand::Nothing
    }

    fn cut(&mut self, _now: Instant, _state: &SendState, _cut: &mut dyn Cut) {}

    fn next_demand(&self) -> Option<Instant> {
        None
    }
}

impl SegmentSink for Reporter {
    fn deliver(&mut self, _now: Instant, _bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        Ok(AckUrgency::Normal)
    }

    fn room(&self) -> usize {
        self.room
    }
}

impl Endpoint for Reporter {
    fn on_attached(&mut self, _now: Instant, waker: Waker) {
        self.report(Event::Attached(waker));
    }

    fn on_established(&mut self, _now: Instant, _established: &Established) {
        self.report(Event::Established);
    }

    fn on_wake(&mut self, _now: Instant) {
        self.report(Event::Woken);
    }

    fn on_closed(&mut self, _now: Instant, reason: CloseReason) {
        self.report(Event::Closed(reason));
    }
}

#[track_caller]
fn established(events: &Receiver<Event>) -> Waker {
    let Ok(Event::Attached(waker)) = events.recv_timeout(FOREVER) else { panic!("attached first") };
    let event = events.recv_timeout(FOREVER);
    assert!(matches!(event, Ok(Event::Established)), "{event:?}");
    waker
}

#[track_caller]
fn closed(events: &Receiver<Event>) -> CloseReason {
    loop {
        match events.recv_timeout(FOREVER).expect("the endpoint is told of the end") {
            Event::Closed(reason) => return reason,
            Event::Attached(_) | Event::Established | Event::Woken => {}
        }
    }
}

#[test]
fn every_wake_is_delivered_even_to_a_sleeping_shard() {
    let (a, b) = shards(Polling::Adaptive { spin: Duration::ZERO });
    let acceptor = CheckedAcceptor::new(Plan { finish: false, ..Plan::server(0) });
    let guard = b.handle().listen(server(), ListenOptions::default(), Box::new(acceptor)).unwrap();
    assert_eq!(guard.local(), server());
    let (endpoint, events) = Reporter::new();
    a.handle().connect(server(), endpoint).unwrap();
    let waker = established(&events);
    for _ in 0..1_000 {
        waker.wake();
        let event = events.recv_timeout(FOREVER);
        assert!(matches!(event, Ok(Event::Woken)), "{event:?}");
    }
    let snapshot = a.handle().statistics();
    assert!(snapshot.stack.wakes >= 1_000);
    assert!(snapshot.sleeps > 0, "it slept between wakes");
    assert_eq!(snapshot.connections.len(), 1);
}

#[test]
fn wakes_from_many_threads_are_merged_and_the_last_one_counts() {
    let (a, b) = shards(Polling::default());
    let acceptor = CheckedAcceptor::new(Plan { finish: false, ..Plan::server(0) });
    let _guard = b.handle().listen(server(), ListenOptions::default(), Box::new(acceptor)).unwrap();
    let notes = Notes::default();
    let plan = Plan { finish: false, ..Plan::client(0) };
    a.handle().connect(server(), Checked::new(plan, &notes)).unwrap();
    let waker = loop {
        // The endpoint tells nobody; asking the shard makes sure it has taken the command.
        a.handle().statistics();
        if let Some(waker) = notes.get().waker.clone() {
            break waker;
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10_000).for_each(|_| waker.wake()));
        }
    });
    notes.get().abort = true;
    waker.wake();
    while notes.get().closed.is_none() {
        a.handle().statistics();
    }
    let record = notes.get();
    assert_eq!(record.closed, Some(CloseReason::Aborted));
    assert!((1..=40_001).contains(&record.wakes));
}

#[test]
fn stopping_resets_the_peer_and_reports() {
    for polling in [Polling::Busy, Polling::default()] {
        let (a, b) = shards(polling);
        let (endpoint, events) = Reporter::new();
        let mut endpoint = Some(endpoint as Box<dyn Endpoint>);
        let acceptor = FnAcceptor(move || endpoint.take());
        let _guard = b.handle().listen(server(), ListenOptions::default(), Box::new(acceptor)).unwrap();
        let (client, client_events) = Reporter::new();
        a.handle().connect(server(), client).unwrap();
        established(&client_events);
        established(&events);

        let handle = a.handle();
        let report = a.stop();
        assert_eq!(closed(&client_events), CloseReason::Aborted);
        assert_eq!(closed(&events), CloseReason::Reset);
        assert!(report.error.is_none());
        assert_eq!((report.statistics.connects, report.statistics.established), (1, 1));
        assert!(report.cpu_time > Duration::ZERO);
        assert!(report.port.tx_frames >= 3);

        assert!(handle.is_gone());
        assert_eq!(handle.statistics().stack, report.statistics, "what it was when it ended");
        let (late, late_events) = Reporter::new();
        let error = handle.connect(server(), late).unwrap_err();
        assert!(matches!(error, ConnectError::PortGone(_)));
        drop(error);
        assert!(late_events.recv().is_err(), "the endpoint came back without having been called");
    }
}

struct FnAcceptor<F>(F);

impl<F: FnMut() -> Option<Box<dyn Endpoint>> + Send> outrider_stack::endpoint::Acceptor for FnAcceptor<F> {
    fn accept(&mut self, _: Instant, _: SocketAddr, _: SocketAddr) -> Option<Box<dyn Endpoint>> {
        (self.0)()
    }
}

#[test]
fn when_the_cable_is_pulled_everybody_is_told() {
    let (a, b) = shards(Polling::default());
    let (endpoint, events) = Reporter::new();
    let mut endpoint = Some(endpoint as Box<dyn Endpoint>);
    let acceptor = FnAcceptor(move || endpoint.take());
    let _guard = b.handle().listen(server(), ListenOptions::default(), Box::new(acceptor)).unwrap();
    // This one stays half-way: nobody has the address.
    let (waiting, waiting_events) = Reporter::new();
    b.handle().connect("10.0.0.77:1".parse().unwrap(), waiting).unwrap();
    let (client, client_events) = Reporter::new();
    a.handle().connect(server(), client).unwrap();
    established(&client_events);
    established(&events);

    a.stop();
    // Which of the two comes first, the RST or the loss of the port, is up to the scheduler.
    assert!(matches!(closed(&events), CloseReason::Reset | CloseReason::PortGone));
    assert_eq!(closed(&waiting_events), CloseReason::PortGone);
    let handle = b.handle();
    let report = b.stop();
    assert!(matches!(report.error, Some(PortError::Gone { .. })), "{:?}", report.error);
    let error = handle.listen(server(), ListenOptions::default(), Box::new(FnAcceptor(|| None))).unwrap_err();
    assert_eq!(error, ListenError::PortGone);
}

#[test]
fn a_listener_ends_with_its_guard() {
    let (a, b) = shards(Polling::default());
    let listen = |at: &str| {
        let acceptor = Box::new(CheckedAcceptor::new(Plan { finish: false, ..Plan::server(0) }));
        b.handle().listen(at.parse().unwrap(), ListenOptions::default(), acceptor)
    };
    let guard = listen(SERVER).unwrap();
    assert_eq!(listen(SERVER).unwrap_err(), ListenError::InUse { local: server() });
    drop(guard);
    // The drop is in the queue before the next command is.
    let (client, events) = Reporter::new();
    b.handle().statistics();
    a.handle().connect(server(), client).unwrap();
    assert_eq!(closed(&events), CloseReason::Refused);
    assert!(listen("0.0.0.0:0").unwrap().local().port() >= 49_152);
}

#[test]
fn parameters_are_checked_before_the_thread_starts() {
    let (a, b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    let none = ShardConfig { stack: StackConfig::default(), ..config(1, Polling::default()) };
    assert!(matches!(spawn(Box::new(a), none), Err(SpawnError::Stack(StackError::NoAddress))));
    let far = ShardConfig { core: Some(100_000), ..config(2, Polling::default()) };
    let error = spawn(Box::new(b), far).unwrap_err();
    assert!(matches!(error, SpawnError::NoSuchCore { core: 100_000, .. }), "{error}");
}

#[test]
fn a_shard_runs_on_the_core_it_was_given() {
    let (a, _b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    // Cores this process may use are those a thread of it reports.
    let core = allowed_cores().pop().expect("there is a core to run on");
    let shard =
        spawn(Box::new(a), ShardConfig { core: Some(core), ..config(1, Polling::default()) }).unwrap();
    assert_eq!(shard.stop().statistics.connects, 0);
}

fn allowed_cores() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let ranges = list.split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse().unwrap()..=last.parse::<usize>().unwrap()
    });
    ranges.flatten().collect()
}

/// A cable whose shard finds something at the worst moment: `on_idle` runs when the shard has found nothing to do
/// and is about to sleep, and the first flush may fail.
struct Treacherous {
    port: MemoryPort,
    on_idle: Box<dyn Fn() + Send + Sync>,
    fails: bool,
}

impl Port for Treacherous {
    fn info(&self) -> &outrider_drivers::port::PortInfo {
        self.port.info()
    }

    fn receive(
        &mut self,
        now: Instant,
        budget: usize,
        accept: &mut dyn FnMut(outrider_drivers::port::RxFrame<'_>),
    ) -> Result<usize, PortError> {
        self.port.receive(now, budget, accept)
    }

    fn transmit_room(&mut self, now: Instant) -> outrider_drivers::port::TransmitRoom {
        self.port.transmit_room(now)
    }

    fn transmit(
        &mut self,
        now: Instant,
        length_max: usize,
        offload: outrider_drivers::port::TxOffload,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<bool, PortError> {
        self.port.transmit(now, length_max, offload, fill)
    }

    fn flush(&mut self, now: Instant) -> Result<(), PortError> {
        if self.fails {
            return Err(PortError::Gone { port: "treacherous".to_owned() });
        }
        self.port.flush(now)
    }

    fn readiness(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.port.readiness()
    }

    fn next_arrival(&self, now: Instant) -> Option<Instant> {
        (self.on_idle)();
        self.port.next_arrival(now)
    }

    fn statistics(&self) -> outrider_drivers::port::PortStatistics {
        self.port.statistics()
    }
}

#[test]
fn commands_that_wait_when_the_port_fails_are_answered_too() {
    let (a, _b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    let port = Treacherous { port: a, on_idle: Box::new(|| {}), fails: true };
    let shard = spawn(Box::new(port), config(1, Polling::default())).unwrap();
    let handle = shard.handle();
    let mut told = Vec::new();
    // The first makes the shard send an ARP request, and fail; the others come before, while and after it does.
    for _ in 0..200 {
        let (endpoint, events) = Reporter::new();
        match handle.connect(server(), endpoint) {
            Ok(()) => told.push(events),
            Err(error) => assert!(matches!(error, ConnectError::PortGone(_))),
        }
    }
    for events in told {
        assert_eq!(closed(&events), CloseReason::PortGone);
    }
    assert!(matches!(shard.stop().error, Some(PortError::Gone { .. })));
}

#[test]
fn a_wake_in_the_moment_before_sleep_is_not_lost() {
    let (a, b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    let wakers: Arc<Mutex<Vec<Waker>>> = Arc::default();
    let at_idle = Arc::clone(&wakers);
    let on_idle = Box::new(move || {
        // Once: a wake at every idle moment would keep the shard awake.
        if let Some(waker) = at_idle.lock().unwrap().pop() {
            waker.wake();
        }
    });
    let polling = Polling::Adaptive { spin: Duration::ZERO };
    let a = spawn(Box::new(Treacherous { port: a, on_idle, fails: false }), config(1, polling)).unwrap();
    let b = spawn(Box::new(b), config(2, polling)).unwrap();
    let acceptor = CheckedAcceptor::new(Plan { finish: false, ..Plan::server(0) });
    let _guard = b.handle().listen(server(), ListenOptions::default(), Box::new(acceptor)).unwrap();
    let (endpoint, events) = Reporter::new();
    a.handle().connect(server(), endpoint).unwrap();
    let waker = established(&events);
    for _ in 0..20 {
        wakers.lock().unwrap().push(waker.clone());
        // Something to do, so that it becomes idle once more.
        a.handle().statistics();
        let event = events.recv_timeout(FOREVER);
        assert!(matches!(event, Ok(Event::Woken)), "{event:?}");
    }
}
