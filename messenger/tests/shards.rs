//! A lossless session that moves between shards, on real threads.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, unbounded};
use outrider_drivers::memory::{LinkConfig, Switch};
use outrider_messenger::transport::Userspace;
use outrider_messenger::{
    Backoff, Connection, Dispatcher, Drain, EntityName, InjectConfig, Message, Messenger, OobMessage, OobOp,
    Policy,
};
use outrider_stack::net::StackConfig;
use outrider_stack::shard::{Shard, ShardConfig, spawn};

const PATIENCE: Duration = Duration::from_secs(120);
const MESSAGES: u64 = 3_000;

struct Recorder {
    tids: Sender<u64>,
    oobs: Sender<OobMessage>,
}

impl Dispatcher for Recorder {
    fn ms_dispatch(&self, _: &Connection, message: Message) -> Result<(), Message> {
        let _ = self.tids.send(message.tid);
        Ok(())
    }

    fn ms_dispatch_oob(&self, _: &Connection, message: OobMessage) {
        let _ = self.oobs.send(message);
    }
}

struct Node {
    messenger: Messenger,
    shards: Vec<Shard>,
    tids: Receiver<u64>,
    oobs: Receiver<OobMessage>,
}

/// A messenger on two shards, each with a port and an address of its own; both listen.
fn node(switch: &Switch, id: u8) -> Node {
    let shards: Vec<Shard> = [id, id + 100]
        .map(|host| {
            let stack = StackConfig::new([(IpAddr::from([10, 0, 0, host]), 24)]);
            let port = Box::new(switch.connect(LinkConfig::default()));
            spawn(port, ShardConfig::new(format!("shard{host}"), stack)).expect("a shard starts")
        })
        .into();
    let ((tids_in, tids), (oobs_in, oobs)) = (unbounded(), unbounded());
    let inject = InjectConfig { seed: id.into(), socket_failures: 150, ..InjectConfig::default() };
    let messenger = Messenger::builder(EntityName::osd(id.into()))
        .transport(Arc::new(Userspace::new(shards.iter().map(Shard::handle).collect())))
        .bind(SocketAddr::from(([0, 0, 0, 0], 6800)))
        .default_policy(Policy::lossless_peer())
        .backoff(Backoff { min: Duration::from_millis(1), max: Duration::from_millis(10) })
        .inject(inject)
        .dispatcher(Arc::new(Recorder { tids: tids_in, oobs: oobs_in }))
        .start()
        .expect("a messenger starts");
    Node { messenger, shards, tids, oobs }
}

#[test]
fn a_session_that_moves_between_shards_loses_nothing_and_doubles_nothing() {
    let switch = Switch::new(1);
    let (left, right) = (node(&switch, 1), node(&switch, 2));
    let there = left.messenger.connect_to(SocketAddr::from(([10, 0, 0, 2], 6800))).unwrap();
    let part = |turn: &outrider_messenger::OobTurn| Some(Bytes::from(turn.sequence.to_string()));
    let _registration = there.register_oob_message(OobOp::PING, part, Duration::from_millis(2)).unwrap();
    let sender = std::thread::spawn(move || {
        for tid in 0..MESSAGES {
            there.send_message(Message::new(1, vec![0; 3_000]).with_tid(tid)).unwrap();
        }
    });
    for expected in 0..MESSAGES {
        assert_eq!(right.tids.recv_timeout(PATIENCE), Ok(expected));
        // Both ways, on whatever transport there is.
        if expected == MESSAGES / 2 {
            let back = right.messenger.connections().pop().expect("it was accepted");
            (0..100).for_each(|tid| back.send_message(Message::new(2, vec![0; 100]).with_tid(tid)).unwrap());
        }
    }
    sender.join().unwrap();
    for expected in 0..100 {
        assert_eq!(left.tids.recv_timeout(PATIENCE), Ok(expected));
    }
    let failures: u64 =
        [&left, &right].iter().map(|node| node.messenger.injector().unwrap().failures()).sum();
    assert!(failures > 10, "only {failures} resets");
    assert!(right.oobs.try_iter().count() > 0, "heartbeats go on");
    assert_eq!((left.messenger.connections().len(), right.messenger.connections().len()), (1, 1));
    left.messenger.shutdown_with(Drain::Within(Duration::from_secs(5)));
    right.messenger.shutdown();
    for Node { messenger, shards, tids, .. } in [left, right] {
        messenger.wait();
        assert!(tids.is_empty(), "nothing came twice");
        shards.into_iter().for_each(|shard| drop(shard.stop()));
    }
}
