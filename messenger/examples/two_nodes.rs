//! Two nodes on a cable in this process: heartbeats of three ops ride ahead of messages both ways.

use std::{error::Error, net::IpAddr, sync::Arc, sync::mpsc, time::Duration};

use outrider_drivers::memory::{LinkConfig, MemoryPort, cable};
use outrider_messenger::transport::Userspace;
use outrider_messenger::{Connection, Dispatcher, EntityName, Message, Messenger, OobMessage, OobOp};
use outrider_stack::net::StackConfig;

/// Answers questions (kind 1), and passes on what it hears.
struct Node(&'static str, mpsc::SyncSender<String>);

impl Dispatcher for Node {
    fn ms_dispatch(&self, connection: &Connection, message: Message) -> Result<(), Message> {
        let _ = self.1.send(format!("{} got message {:?}", self.0, message.payload));
        let answered = message.kind != 1 || connection.send_message(Message::new(2, "and to you")).is_ok();
        if answered { Ok(()) } else { Err(message) }
    }

    fn ms_dispatch_oob(&self, _: &Connection, beat: OobMessage) {
        let (parts, bytes) = (beat.parts.len(), beat.report.send.bytes_in_flight);
        let _ =
            self.1.try_send(format!("{} got a heartbeat of {parts} ops, {bytes} bytes in flight", self.0));
    }
}

fn node(host: u8, port: MemoryPort, dispatcher: Node) -> Result<Messenger, Box<dyn Error>> {
    let ip = IpAddr::from([10, 0, 0, host]);
    let transport = Userspace::on_port(port, StackConfig::new([(ip, 24)]))?;
    let builder = Messenger::builder(EntityName::osd(host.into())).transport(Arc::new(transport));
    Ok(builder.bind((ip, 6800).into()).dispatcher(Arc::new(dispatcher)).start()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let (left, right) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    let (heard, news) = mpsc::sync_channel(64);
    let one = node(1, left, Node("osd.1", heard.clone()))?;
    let two = node(2, right, Node("osd.2", heard))?;

    let connection = one.connect_to(two.addresses()[0])?;
    let mut registrations = Vec::new();
    for op in [OobOp::OSD_PING, OobOp::LINGER_PING, OobOp::WATCH_PING] {
        let part = |turn: &outrider_messenger::OobTurn| Some(turn.sequence.to_string().into());
        registrations.push(connection.register_oob_message(op, part, Duration::from_millis(10))?);
    }
    connection.send_message(Message::new(1, "good morning"))?;
    for _ in 0..8 {
        println!("{}", news.recv_timeout(Duration::from_secs(10))?);
    }
    Ok(())
}
