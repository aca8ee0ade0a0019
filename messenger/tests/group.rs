//! Messengers over groups of shards: one address, several queues, and a NIC that tells nobody how it spreads frames.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Sender, unbounded};
use outrider_drivers::memory::{LinkConfig, QueueSteering, Switch};
use outrider_drivers::port::Port;
use outrider_messenger::transport::Userspace;
use outrider_messenger::{Connection, Dispatcher, EntityName, Message, Messenger};
use outrider_stack::net::StackConfig;
use outrider_stack::shard::{GroupConfig, ShardConfig, spawn_group};

/// Nothing here takes this long; a test that hangs shall fail.
const PATIENCE: Duration = Duration::from_secs(60);
const QUEUES: usize = 4;
const CLIENTS: u64 = 8;
const MESSAGES: u64 = 50;

/// Answers questions (kind 1) and passes on answers.
struct Node(Sender<Message>);

impl Dispatcher for Node {
    fn ms_dispatch(&self, connection: &Connection, message: Message) -> Result<(), Message> {
        if message.kind == 1 {
            let answer = Message::new(2, message.payload.clone()).with_tid(message.tid);
            return connection.send_message(answer).map_err(|_| message);
        }
        // A test that has failed may be gone.
        let _ = self.0.send(message);
        Ok(())
    }
}

fn ports(switch: &Switch, seed: u64) -> Vec<Box<dyn Port>> {
    let ports = switch.connect_queues(&LinkConfig::default(), QueueSteering::Hidden(seed), QUEUES);
    ports.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect()
}

fn config(host: u8) -> GroupConfig {
    let stack = StackConfig::new([(IpAddr::from([10, 0, 0, host]), 24)]);
    GroupConfig::new(ShardConfig::new(format!("host {host}"), stack))
}

#[test]
fn sessions_are_spread_over_the_shards_and_lose_nothing() {
    let switch = Switch::new(1);
    let (answers_in, answers) = unbounded();
    let address = SocketAddr::from(([10, 0, 0, 1], 6800));
    let transport = Userspace::on_ports(ports(&switch, 1), config(1)).unwrap();
    let server = Messenger::builder(EntityName::osd(0))
        .transport(Arc::new(transport))
        .bind(address)
        .dispatcher(Arc::new(Node(answers_in.clone())))
        .start()
        .unwrap();
    let group = spawn_group(ports(&switch, 2), config(2)).unwrap();
    let clients: Vec<Messenger> = (0..CLIENTS)
        .map(|number| {
            Messenger::builder(EntityName::client(number))
                .nonce(number + 1)
                .transport(Arc::new(Userspace::over(&group.handle())))
                .dispatcher(Arc::new(Node(answers_in.clone())))
                .start()
                .unwrap()
        })
        .collect();
    let connections: Vec<Connection> =
        clients.iter().map(|client| client.connect_to(address).unwrap()).collect();
    for tid in 0..MESSAGES {
        for (number, connection) in (0u8..).zip(&connections) {
            connection.send_message(Message::new(1, vec![number; 3_000]).with_tid(tid)).unwrap();
        }
    }
    let mut next = [0; CLIENTS as usize];
    for _ in 0..CLIENTS * MESSAGES {
        let answer = answers.recv_timeout(PATIENCE).expect("every question is answered");
        let client = answer.payload[0];
        assert_eq!((answer.payload, answer.tid), (vec![client; 3_000].into(), next[usize::from(client)]));
        next[usize::from(client)] += 1;
    }
    let snapshot = group.handle().statistics();
    assert_eq!(snapshot.stack().resets_sent, 0);
    assert!(snapshot.stack().handed_in > 0, "what came elsewhere was handed over");
    // They dialled in turn, whatever queue the answers come to.
    assert!(snapshot.shards.iter().all(|shard| shard.stack.connects == CLIENTS / QUEUES as u64));
    for messenger in clients.iter().chain([&server]) {
        messenger.shutdown();
        messenger.wait();
    }
    group.stop();
}
