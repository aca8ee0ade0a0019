//! Two nodes on a cable in this process: heartbeats of three ops ride ahead of messages both ways.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use outrider_drivers::memory::{LinkConfig, cable};
use outrider_messenger::transport::Userspace;
use outrider_messenger::{Connection, Dispatcher, EntityName, Message, Messenger, OobMessage, OobOp};
use outrider_stack::net::StackConfig;
use outrider_stack::shard::{Polling, ShardConfig, spawn};
use outrider_stack::time::MonotonicClock;

/// Prints what arrives, answers messages of kind 1, and tells when this node has seen enough.
struct Printer(&'static str, mpsc::SyncSender<()>);

impl Dispatcher for Printer {
    fn ms_dispatch(&self, connection: &Connection, message: Message) -> Result<(), Message> {
        println!(
            "{} got message {} from {:?}: {:?}",
            self.0,
            message.tid,
            connection.peer_name(),
            message.payload
        );
        if message.kind == 1 {
            return connection
                .send_message(Message { kind: 2, ..message })
                .map_err(|_| Message::new(0, Bytes::new()));
        }
        Ok(())
    }

    fn ms_dispatch_oob(&self, _connection: &Connection, message: OobMessage) {
        let ops: Vec<OobOp> = message.parts.iter().map(|part| part.op).collect();
        println!(
            "{} got heartbeat {} with {ops:?}, peer has {} bytes in flight",
            self.0, message.report.sequence, message.report.send.bytes_in_flight
        );
        if message.report.sequence >= 5 {
            let _ = self.1.try_send(());
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (left, right) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    let (seen, enough) = mpsc::sync_channel(1);
    let mut nodes = Vec::new();
    for (host, port) in [(1u8, left), (2, right)] {
        let ip = IpAddr::from([10, 0, 0, host]);
        let (name, polling) = (format!("shard{host}"), Polling::default());
        let stack = StackConfig::new([(ip, 24)]);
        let config = ShardConfig {
            name,
            stack,
            polling,
            core: None,
            seed: u64::from(host),
            clock: Arc::new(MonotonicClock),
        };
        let shard = spawn(Box::new(port), config)?;
        let printer = Printer(if host == 1 { "osd.1" } else { "osd.2" }, seen.clone());
        let messenger = Messenger::builder(EntityName::osd(host.into()))
            .transport(Arc::new(Userspace::new(vec![shard.handle()])))
            .bind(SocketAddr::new(ip, 6800))
            .dispatcher(Arc::new(printer))
            .start()?;
        nodes.push((messenger, shard));
    }
    let connection = nodes[0].0.connect_to("10.0.0.2:6800".parse()?)?;
    let ops = [OobOp::PING, OobOp::OSD_PING, OobOp::LINGER_PING];
    let beat = |op: OobOp| {
        connection.register_oob_message(
            op,
            |turn| Some(turn.sequence.to_string().into()),
            Duration::from_millis(10),
        )
    };
    let registrations = ops.map(beat).into_iter().collect::<Result<Vec<_>, _>>()?;
    for tid in 0..3 {
        connection.send_message(Message::new(1, format!("hello {tid}")).with_tid(tid))?;
    }
    enough.recv_timeout(Duration::from_secs(10))?;
    drop(registrations);
    for (messenger, _) in &nodes {
        messenger.shutdown();
    }
    for (messenger, shard) in nodes {
        messenger.wait();
        shard.stop();
    }
    Ok(())
}
