//! Four shards that are one host, in real time.

// Helpers of tests may unwrap like tests.
#![allow(clippy::unwrap_used)]

#[path = "shard_group/afxdp.rs"]
mod afxdp;
#[path = "common/endpoints.rs"]
mod endpoints;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::ThreadId;
use std::time::Duration;

use endpoints::{Checked, CheckedAcceptor, Notes, Plan};
use outrider_drivers::memory::{LinkConfig, QueueSteering, Switch};
use outrider_drivers::port::Port;
use outrider_drivers::rss::Rss;
use outrider_stack::endpoint::{Acceptor, Endpoint, Established, Waker};
use outrider_stack::net::{ListenError, ListenOptions, StackConfig, Steering};
use outrider_stack::shard::segment::{Publication, Reader, WriterState};
use outrider_stack::shard::{
    GroupConfig, GroupError, GroupSnapshot, Polling, ShardConfig, ShardGroup, ShardReport, spawn_group,
};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::{
    AckUrgency, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault,
};
use outrider_stack::time::Instant;

const SHARDS: usize = 4;
const SERVER: &str = "10.0.0.1:4000";
/// Long enough for any machine; nothing waits this long unless it fails.
const FOREVER: Duration = Duration::from_secs(100);

fn config(host: u8, polling: Polling) -> GroupConfig {
    let address: IpAddr = format!("10.0.0.{host}").parse().unwrap();
    let stack = StackConfig::new([(address, 24)]);
    GroupConfig::new(ShardConfig { polling, ..ShardConfig::new(format!("host {host}"), stack) })
}

fn ports(switch: &Switch, steering: QueueSteering, queues: usize) -> Vec<Box<dyn Port>> {
    let ports = switch.connect_queues(&LinkConfig::default(), steering, queues);
    ports.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect()
}

/// How a connection ended, and which threads its endpoint has seen.
type End = (CloseReason, HashSet<ThreadId>);

/// Tells the test of the end.
struct Told {
    inner: Box<dyn Endpoint>,
    seen_by: HashSet<ThreadId>,
    ended: Sender<End>,
}

impl Told {
    fn new(inner: Box<dyn Endpoint>, ended: &Sender<End>) -> Box<Self> {
        Box::new(Told { inner, seen_by: HashSet::new(), ended: ended.clone() })
    }

    fn seen(&mut self) -> &mut dyn Endpoint {
        self.seen_by.insert(std::thread::current().id());
        &mut *self.inner
    }
}

/// Tells the test of what was accepted, too.
struct ToldAcceptor {
    inner: CheckedAcceptor,
    ended: Sender<End>,
}

impl Acceptor for ToldAcceptor {
    fn accept(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) -> Option<Box<dyn Endpoint>> {
        let inner = self.inner.accept(now, local, remote)?;
        Some(Told::new(inner, &self.ended))
    }
}

impl SegmentSource for Told {
    fn demand(&mut self, now: Instant) -> Demand {
        self.seen().demand(now)
    }

    fn cut(&mut self, now: Instant, state: &SendState, cut: &mut dyn Cut) {
        self.seen().cut(now, state, cut);
    }

    fn next_demand(&self) -> Option<Instant> {
        self.inner.next_demand()
    }

    fn finished(&self) -> bool {
        self.inner.finished()
    }
}

impl SegmentSink for Told {
    fn deliver(&mut self, now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        self.seen().deliver(now, bytes)
    }

    fn room(&self) -> usize {
        self.inner.room()
    }

    fn on_peer_finished(&mut self, now: Instant) {
        self.seen().on_peer_finished(now);
    }
}

impl Endpoint for Told {
    fn on_attached(&mut self, now: Instant, waker: Waker) {
        self.seen().on_attached(now, waker);
    }

    fn on_established(&mut self, now: Instant, established: &Established) {
        self.seen().on_established(now, established);
    }

    fn on_closed(&mut self, now: Instant, reason: CloseReason) {
        self.seen().on_closed(now, reason);
        // A test that has failed may be gone.
        let _ = self.ended.send((reason, core::mem::take(&mut self.seen_by)));
    }
}

/// Many connections, begun and ended by the client, all of whose bytes both ends check.
fn exchange(server: &ShardGroup, client: &ShardGroup, connections: usize) {
    let acceptor = CheckedAcceptor::new(Plan::server(20_000));
    let options = ListenOptions { backlog: 1_024 };
    let (accepted_ended, accepted_ends) = channel();
    let told = ToldAcceptor { inner: acceptor.clone(), ended: accepted_ended };
    let listener = server.handle().listen(SERVER.parse().unwrap(), options, Box::new(told)).unwrap();
    assert_eq!(listener.local().to_string(), SERVER);
    let (ended, ends) = channel();
    let notes: Vec<Notes> = (0..connections).map(|_| Notes::default()).collect();
    for one in &notes {
        let inner = Checked::new(Plan::client(10_000), one);
        client.handle().connect(listener.local(), Told::new(inner, &ended)).unwrap();
    }
    each_by_one_shard(&ends, connections, client);
    each_by_one_shard(&accepted_ends, connections, server);
    for one in &notes {
        let record = one.get();
        assert_eq!((record.sent, record.received), (10_000, 20_000));
    }
    let accepted = acceptor.notes();
    assert_eq!(accepted.len(), connections, "each once");
    assert!(accepted.iter().all(|one| one.get().received == 10_000));
}

/// Waits until so many connections of `group` have ended in order. Each was seen by one shard only, and all shards by some.
fn each_by_one_shard(ends: &Receiver<End>, connections: usize, group: &ShardGroup) {
    let mut threads = HashSet::new();
    for _ in 0..connections {
        let (reason, seen_by) = ends.recv_timeout(FOREVER).unwrap();
        assert_eq!(reason, CloseReason::Finished);
        assert_eq!(seen_by.len(), 1, "a connection is one shard's");
        threads.extend(seen_by);
    }
    assert_eq!(threads.len(), group.handle().shards().len(), "every shard has connections");
}

/// What a group has counted when all connections have ended.
fn check(snapshot: &GroupSnapshot, connections: u64, handed: bool) {
    let (stack, port) = (snapshot.stack(), snapshot.port());
    // That nothing is lost or strays is told in virtual time: here a thread that waits for a core makes timers fire.
    assert_eq!(stack.established, connections);
    assert_eq!(stack.rx_frames, port.rx_frames);
    assert_eq!(handed, stack.handed_over > connections, "{} handed over", stack.handed_over);
    for shard in &snapshot.shards {
        assert!(shard.stack.established > connections / 10, "every shard has its share");
    }
}

#[test]
fn four_threads_serve_many_connections_whatever_the_nic_does() {
    for (steering, handed) in [
        (QueueSteering::Rss(Rss::even(SHARDS as u32)), false),
        (QueueSteering::Hidden(1), true),
        (QueueSteering::Scattered(1), true),
    ] {
        // Asleep whenever there is nothing to do: whoever hands something over must wake its owner.
        let polling = Polling::Adaptive { spin: Duration::ZERO };
        let switch = Switch::new(1);
        let server = spawn_group(ports(&switch, steering.clone(), SHARDS), config(1, polling)).unwrap();
        let client = spawn_group(ports(&switch, steering, SHARDS), config(2, polling)).unwrap();
        exchange(&server, &client, 300);
        for group in [&client, &server] {
            check(&group.handle().statistics(), 300, handed);
        }
        for group in [client, server] {
            assert!(ShardReport::sum(group.stop()).error.is_none());
        }
    }
}

#[test]
fn a_group_publishes_what_its_shards_do() {
    let path = std::env::temp_dir().join(format!("outrider-group-test-{}", std::process::id()));
    let switch = Switch::new(1);
    let truth = QueueSteering::Rss(Rss::even(2));
    let publication = Some(Publication::new("server").at(&path));
    let mut server_config = GroupConfig { publication, ..config(1, Polling::default()) };
    let server = spawn_group(ports(&switch, truth.clone(), 2), server_config.clone()).unwrap();
    let client = spawn_group(ports(&switch, truth.clone(), 2), config(2, Polling::default())).unwrap();
    assert_eq!((server.published_in(), client.published_in()), (Some(path.as_path()), None));
    exchange(&server, &client, 20);
    let reader = Reader::open(&path).unwrap();
    assert_eq!((reader.header().name.as_str(), reader.header().shards), ("server", 2));
    // Soon, though the shards may sleep by now.
    let deadline = std::time::Instant::now() + FOREVER;
    let established = || (0..2).map(|shard| reader.shard(shard).unwrap().stack.established).sum::<u64>();
    while established() < 20 {
        assert!(std::time::Instant::now() < deadline, "{} published", established());
        std::thread::yield_now();
    }
    assert_eq!(server.handle().statistics().stack().established, 20);
    assert_eq!(reader.shard(1).unwrap().port_name, "switch:0.1");
    assert_eq!(reader.writer(), WriterState::Running);
    let again = spawn_group(ports(&switch, truth.clone(), 2), server_config.clone());
    assert!(matches!(again, Err(GroupError::Segment(_))));
    client.stop();
    server.stop();
    assert!(!path.exists());
    server_config.publication = None;
    drop(spawn_group(ports(&switch, truth, 2), server_config).unwrap());
}

#[test]
fn a_port_that_is_left_to_the_stack_is_the_same_on_every_shard() {
    let switch = Switch::new(1);
    let group =
        spawn_group(ports(&switch, QueueSteering::Hidden(1), 3), config(1, Polling::default())).unwrap();
    let handle = group.handle();
    let listen = |local: &str| {
        let acceptor = CheckedAcceptor::new(Plan::server(0));
        handle.listen(local.parse().unwrap(), ListenOptions::default(), Box::new(acceptor))
    };
    let listener = listen("10.0.0.1:0").unwrap();
    let local = listener.local();
    assert_ne!(local.port(), 0);
    assert_eq!(listen(&local.to_string()).unwrap_err(), ListenError::InUse { local });
    drop(listener);
    // The command to listen comes after those to end the listening, on every shard.
    assert_eq!(listen(&local.to_string()).unwrap().local(), local);
    let snapshot = handle.statistics();
    assert_eq!((snapshot.shards.len(), snapshot.port().rx_frames), (3, 0));
    assert!(!handle.is_gone());
    group.stop();
    assert!(handle.is_gone());
}

#[test]
fn what_is_no_group_is_refused() {
    let switch = Switch::new(1);
    let base = || config(1, Polling::default());
    let rss = || QueueSteering::Rss(Rss::even(2));
    assert!(matches!(spawn_group(Vec::new(), base()), Err(GroupError::NoPorts)));
    let mut strangers = ports(&switch, rss(), 1);
    strangers.extend(ports(&switch, rss(), 1));
    assert!(matches!(spawn_group(strangers, base()), Err(GroupError::NotOneDevice { .. })));
    let cores = GroupConfig { cores: vec![0], ..base() };
    let refused = spawn_group(ports(&switch, rss(), 2), cores);
    assert!(matches!(refused, Err(GroupError::Cores { cores: 1, ports: 2 })));
    let steering = GroupConfig { steering: Some(Steering::unknown(3)), ..base() };
    let refused = spawn_group(ports(&switch, rss(), 2), steering);
    assert!(matches!(refused, Err(GroupError::Steering { shards: 3, ports: 2 })));
    let far = GroupConfig { cores: vec![100_000; 2], ..base() };
    let refused = spawn_group(ports(&switch, rss(), 2), far);
    assert!(matches!(refused, Err(GroupError::Spawn { shard: 0, .. })));
}
