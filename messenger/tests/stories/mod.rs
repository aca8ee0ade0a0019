//! Two messengers in real time, whatever carries them: the crate that includes this has the module `world`, which makes
//! the hosts that they run on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use outrider_messenger::transport::Userspace;
use outrider_messenger::{
    ConnectError, Connection, Dispatcher, EntityName, Message, Messenger, MessengerBuilder, OobMessage,
    OobOp, RegisterError, SendError, StartError, TrySendError,
};
use outrider_stack::tcp::source::Blocked;

use crate::world::{Host, pair};

/// Nothing here takes this long; a test that hangs shall fail.
const PATIENCE: Duration = Duration::from_secs(60);
const FAST_KIND: u16 = 99;

#[derive(Debug, PartialEq)]
enum Seen {
    Message(Message),
    Fast(Message),
    Connect(Connection),
    Accept(Connection),
    Reset(Connection),
    Refused(Connection),
}

/// Passes on what it is told; holds each message until the gate lets it through.
struct Recorder {
    seen: Sender<Seen>,
    oobs: Sender<OobMessage>,
    gate: Receiver<()>,
}

impl Dispatcher for Recorder {
    fn ms_dispatch(&self, _: &Connection, message: Message) -> Result<(), Message> {
        // A closed gate lets everything through.
        let _ = self.gate.recv();
        let _ = self.seen.send(Seen::Message(message));
        Ok(())
    }

    fn ms_can_fast_dispatch(&self, kind: u16) -> bool {
        kind == FAST_KIND
    }

    fn ms_fast_dispatch(&self, _: &Connection, message: Message) {
        let _ = self.seen.send(Seen::Fast(message));
    }

    fn ms_dispatch_oob(&self, _: &Connection, message: OobMessage) {
        let _ = self.oobs.send(message);
    }

    fn ms_handle_connect(&self, connection: &Connection) {
        let _ = self.seen.send(Seen::Connect(connection.clone()));
    }

    fn ms_handle_accept(&self, connection: &Connection) {
        let _ = self.seen.send(Seen::Accept(connection.clone()));
    }

    fn ms_handle_reset(&self, connection: &Connection) {
        let _ = self.seen.send(Seen::Reset(connection.clone()));
    }

    fn ms_handle_refused(&self, connection: &Connection) {
        let _ = self.seen.send(Seen::Refused(connection.clone()));
    }
}

struct Node {
    messenger: Messenger,
    host: Host,
    seen: Receiver<Seen>,
    oobs: Receiver<OobMessage>,
    /// Each message sent through lets one be dispatched; dropping it opens the gate for good.
    gate: Option<Sender<()>>,
}

impl Node {
    fn next(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("something happens in time")
    }

    fn next_oob(&self) -> OobMessage {
        self.oobs.recv_timeout(PATIENCE).expect("a heartbeat comes in time")
    }

    fn end(self) {
        drop(self.gate);
        self.messenger.shutdown();
        self.messenger.wait();
        self.host.end();
    }
}

/// An address for messengers that get no further than that.
fn nowhere() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 6800))
}

/// Two nodes; `tune` sets limits of both.
fn nodes(tune: impl Fn(MessengerBuilder) -> MessengerBuilder) -> [Node; 2] {
    let mut number = 0;
    pair().map(|host| {
        number += 1;
        let ((seen_in, seen), (oobs_in, oobs), (gate, gate_out)) = (unbounded(), unbounded(), bounded(0));
        let recorder = Recorder { seen: seen_in, oobs: oobs_in, gate: gate_out };
        let builder = Messenger::builder(EntityName::osd(number))
            .nonce(number * 100)
            .transport(host.transport())
            .bind(host.address())
            .dispatcher(Arc::new(recorder));
        let messenger = tune(builder).start().expect("a messenger starts");
        Node { messenger, host, seen, oobs, gate: Some(gate) }
    })
}

/// A connection from the left node, both of its ends ready.
fn connected(left: &Node, right: &Node) -> (Connection, Connection) {
    let connection = left.messenger.connect_to(right.host.address()).unwrap();
    assert_eq!(left.next(), Seen::Connect(connection.clone()));
    let Seen::Accept(accepted) = right.next() else { panic!("accepted first") };
    (connection, accepted)
}

#[test]
fn messages_go_both_ways_and_both_ends_know_each_other() {
    let [mut left, mut right] = nodes(|builder| builder);
    (left.gate, right.gate) = (None, None);
    let (there, back) = connected(&left, &right);
    assert!(there.is_connected() && back.is_connected());
    assert_eq!((there.peer_name(), back.peer_name()), (Some(EntityName::osd(2)), Some(EntityName::osd(1))));
    assert_eq!(
        (there.peer_address(), there.peer_addresses()),
        (right.host.address(), vec![right.host.address()])
    );
    for tid in 0..100 {
        there.send_message(Message::new(1, vec![tid as u8; 5000]).with_tid(tid)).unwrap();
        back.send_message(Message::new(2, vec![tid as u8; 3]).with_tid(tid)).unwrap();
    }
    for tid in 0..100 {
        assert_eq!(right.next(), Seen::Message(Message::new(1, vec![tid as u8; 5000]).with_tid(tid)));
        assert_eq!(left.next(), Seen::Message(Message::new(2, vec![tid as u8; 3]).with_tid(tid)));
    }
    left.end();
    right.end();
}

#[test]
fn messages_of_every_size_arrive_whole_and_in_order_beside_heartbeats() {
    let [mut left, mut right] = nodes(|builder| builder);
    (left.gate, right.gate) = (None, None);
    let (there, back) = connected(&left, &right);
    let ping = |connection: &Connection| {
        connection.register_oob_message(OobOp::PING, |_| Some(vec![1; 64].into()), Duration::from_millis(1))
    };
    let _registrations = [ping(&there).unwrap(), ping(&back).unwrap()];
    const SIZES: [usize; 12] =
        [0, 1, 24, 1_000, 1_448, 15_928, 16_384, 63_976, 64_000, 65_536, 1 << 20, (4 << 20) - 1];
    let message = |number: usize| {
        let size = SIZES[number % SIZES.len()];
        let payload: Vec<u8> = (0..size).map(|n| (n * 31 + number + n / 256) as u8).collect();
        Message::new(1, payload).with_tid(number as u64)
    };
    let senders = [there, back].map(|connection| {
        std::thread::spawn(move || (0..3 * SIZES.len()).try_for_each(|n| connection.send_message(message(n))))
    });
    for number in 0..3 * SIZES.len() {
        for node in [&left, &right] {
            let seen = node.next();
            // Without the payload in the text: it has megabytes.
            assert!(seen == Seen::Message(message(number)), "message {number} is not what was sent");
        }
    }
    for sender in senders {
        sender.join().unwrap().unwrap();
    }
    assert!(left.next_oob().report.sequence > 0 && right.next_oob().report.sequence > 0);
    left.end();
    right.end();
}

#[test]
fn a_message_given_before_the_connection_is_ready_arrives() {
    let [left, mut right] = nodes(|builder| builder);
    right.gate = None;
    let connection = left.messenger.connect_to(right.host.address()).unwrap();
    connection.send_message(Message::new(1, &b"early"[..])).unwrap();
    assert!(matches!(right.next(), Seen::Accept(_)));
    assert_eq!(right.next(), Seen::Message(Message::new(1, &b"early"[..])));
    left.end();
    right.end();
}

#[test]
fn nobody_at_the_address_is_a_refusal() {
    let [left, right] = nodes(|builder| builder);
    let nobody = SocketAddr::new(right.host.address().ip(), 1);
    let connection = left.messenger.connect_to(nobody).unwrap();
    assert_eq!(left.next(), Seen::Refused(connection.clone()));
    assert!(matches!(connection.send_message(Message::new(1, &b""[..])), Err(SendError::Closed(_))));
    left.end();
    right.end();
}

#[test]
fn a_connection_marked_down_is_reset_at_the_other_end_only() {
    let [left, right] = nodes(|builder| builder);
    let (there, back) = connected(&left, &right);
    there.mark_down();
    assert_eq!(right.next(), Seen::Reset(back.clone()));
    assert!(!there.is_connected() && !back.is_connected());
    assert!(matches!(there.try_send_message(Message::new(1, &b""[..])), Err(TrySendError::Closed(_))));
    let register = there.register_oob_message(OobOp::PING, |_| None, Duration::from_secs(1));
    assert!(matches!(register, Err(RegisterError::Closed)));
    assert!(left.seen.is_empty(), "who closes is not told");
    left.end();
    right.end();
}

#[test]
fn a_consumer_that_stops_fills_the_senders_budget_while_heartbeats_go_on_and_tell_why() {
    let [left, mut right] =
        nodes(|builder| builder.send_budget_bytes(64 << 10).receive_credit_bytes(64 << 10));
    let (there, _back) = connected(&left, &right);
    let message = || Message::new(1, vec![1; 4 << 10]);
    let mut sent = 0;
    let interval = Duration::from_millis(2);
    let _registration = there.register_oob_message(OobOp::PING, |_| Some(vec![7].into()), interval).unwrap();
    loop {
        match there.try_send_message(message()) {
            Ok(()) => sent += 1,
            // Full for good only when the peer's credit is spent; until then the budget comes back.
            Err(TrySendError::Full(_)) if right.next_oob().report.send.blocked == Blocked::Credit => break,
            Err(TrySendError::Full(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    // The first echoes are from before the stall; later ones show all of it.
    while left.next_oob().report.receive.undispatched_bytes < 48 << 10 {}
    assert_eq!(right.next_oob().parts[0].bytes[..], [7]);
    // A blocking sender goes on when the consumer does.
    let sender = std::thread::spawn(move || there.send_message(Message::new(2, &b"last"[..])));
    right.gate = None;
    for _ in 0..sent {
        assert_eq!(right.next(), Seen::Message(message()));
    }
    assert_eq!(right.next(), Seen::Message(Message::new(2, &b"last"[..])));
    sender.join().unwrap().unwrap();
    left.end();
    right.end();
}

#[test]
fn a_blocked_sender_returns_when_its_connection_is_marked_down() {
    let [left, right] = nodes(|builder| builder.send_budget_bytes(1).receive_credit_bytes(4096));
    let (there, _back) = connected(&left, &right);
    let sender = std::thread::spawn({
        let there = there.clone();
        move || loop {
            if let Err(error) = there.send_message(Message::new(1, vec![0; 4096])) {
                break error;
            }
        }
    });
    there.mark_down();
    assert!(matches!(sender.join().unwrap(), SendError::Closed(_)));
    left.end();
    right.end();
}

#[test]
fn fast_dispatch_passes_what_waits_for_a_dispatch_thread() {
    let [left, mut right] = nodes(|builder| builder);
    let (there, _back) = connected(&left, &right);
    there.send_message(Message::new(1, &b"slow"[..])).unwrap();
    there.send_message(Message::new(FAST_KIND, &b"fast"[..])).unwrap();
    assert_eq!(right.next(), Seen::Fast(Message::new(FAST_KIND, &b"fast"[..])));
    right.gate = None;
    assert_eq!(right.next(), Seen::Message(Message::new(1, &b"slow"[..])));
    left.end();
    right.end();
}

#[test]
fn registrations_may_come_before_the_connection_is_ready_and_end_when_dropped() {
    let [left, right] = nodes(|builder| builder);
    let there = left.messenger.connect_to(right.host.address()).unwrap();
    let ping = |there: &Connection| {
        there.register_oob_message(
            OobOp::PING,
            |turn| Some(turn.sequence.to_string().into()),
            Duration::from_millis(1),
        )
    };
    let registration = ping(&there).unwrap();
    assert!(matches!(ping(&there), Err(RegisterError::AlreadyRegistered { op: OobOp::PING })));
    let oob = right.next_oob();
    assert_eq!((oob.report.sequence, &oob.parts[0].bytes[..]), (1, &b"1"[..]));
    let echo = left.next_oob();
    // One echo may answer several: it names the last that came.
    let echoed = echo.report.echo.unwrap().sequence;
    drop(registration);
    let _again = ping(&there).expect("its place is free");
    assert!((1..=there.oob_statistics().sent).contains(&echoed), "{echoed}");
    assert!(there.peer_report().is_some() && there.last_heard().is_some());
    left.end();
    right.end();
}

#[test]
fn an_oversized_part_is_refused_and_its_owner_is_told() {
    let [left, right] = nodes(|builder| builder);
    let (there, _back) = connected(&left, &right);
    let (asked, times) = unbounded();
    let oversized = move |turn: &outrider_messenger::OobTurn| {
        let _ = asked.send(());
        Some(vec![0; turn.bytes_max + 1].into())
    };
    let registration = there.register_oob_message(OobOp::PING, oversized, Duration::from_millis(1)).unwrap();
    // The second asking comes after the first refusal.
    times.recv_timeout(PATIENCE).unwrap();
    times.recv_timeout(PATIENCE).unwrap();
    assert!(registration.refused() >= 1);
    assert!(right.oobs.is_empty());
    left.end();
    right.end();
}

#[test]
fn a_shutdown_lets_the_dispatchers_finish_what_is_queued() {
    let [left, mut right] = nodes(|builder| builder);
    let (there, _back) = connected(&left, &right);
    for tid in 0..10 {
        there.send_message(Message::new(1, &b"queued"[..]).with_tid(tid)).unwrap();
    }
    // Fast-dispatched behind the others: when it is here, they are queued.
    there.send_message(Message::new(FAST_KIND, &b""[..])).unwrap();
    assert!(matches!(right.next(), Seen::Fast(_)));
    right.messenger.shutdown();
    right.gate = None;
    right.messenger.wait();
    let dispatched = right.seen.try_iter().filter(|seen| matches!(seen, Seen::Message(_))).count();
    assert_eq!(dispatched, 10);
    assert!(matches!(right.messenger.connect_to(left.host.address()), Err(ConnectError::ShutDown)));
    left.end();
    right.end();
}

#[test]
fn a_wait_ends_even_if_the_peer_is_cut_off() {
    let [left, right] = nodes(|builder| builder);
    let (_there, _back) = connected(&left, &right);
    if !right.host.set_cut_off(true) {
        println!("skipped: this world cannot cut a host off");
    }
    left.messenger.shutdown();
    left.messenger.wait();
    right.host.set_cut_off(false);
    left.end();
    right.end();
}

#[test]
fn a_messenger_without_what_it_needs_does_not_start() {
    let start = |builder: MessengerBuilder| builder.start().map(|_| ()).unwrap_err();
    assert!(matches!(start(Messenger::builder(EntityName::mon(0))), StartError::NoTransport));
    let transport = || Messenger::builder(EntityName::mon(0)).transport(Arc::new(Userspace::new(Vec::new())));
    assert!(matches!(start(transport()), StartError::NoDispatcher));
    struct Deaf;
    impl Dispatcher for Deaf {
        fn ms_dispatch(&self, _: &Connection, message: Message) -> Result<(), Message> {
            Err(message)
        }
    }
    let builder = || transport().dispatcher(Arc::new(Deaf));
    assert!(matches!(start(builder().dispatch_threads(0)), StartError::NoDispatchThreads));
    assert!(matches!(start(builder().receive_credit_bytes(100)), StartError::CreditTooSmall(100)));
    assert!(matches!(start(builder().message_bytes_max(1 << 40)), StartError::MessageLimitTooLarge(_)));
    assert!(matches!(start(builder().bind(nowhere())), StartError::Listen { .. }));
    let messenger = builder().start().expect("it can start without shards, and not do much");
    assert!(matches!(messenger.connect_to(nowhere()), Err(ConnectError::Transport(_))));
    messenger.shutdown();
    messenger.wait();
}
