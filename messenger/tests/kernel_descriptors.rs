//! Many connections at once over kernel sockets, and no descriptor left behind. Alone in its process, for it counts them.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, unbounded};
use outrider_messenger::transport::{Kernel, KernelConfig};
use outrider_messenger::{Connection, Dispatcher, EntityName, Message, Messenger, OobMessage, OobOp};

const PATIENCE: Duration = Duration::from_secs(60);
const CONNECTIONS: u64 = 200;

#[derive(Debug)]
enum Seen {
    Message(Message),
    Ready,
    Reset,
    Oob,
}

struct Recorder(Sender<Seen>);

impl Dispatcher for Recorder {
    fn ms_dispatch(&self, _: &Connection, message: Message) -> Result<(), Message> {
        self.0.send(Seen::Message(message)).unwrap_or_default();
        Ok(())
    }

    fn ms_dispatch_oob(&self, _: &Connection, _: OobMessage) {
        self.0.send(Seen::Oob).unwrap_or_default();
    }

    fn ms_handle_connect(&self, _: &Connection) {
        self.0.send(Seen::Ready).unwrap_or_default();
    }

    fn ms_handle_reset(&self, _: &Connection) {
        self.0.send(Seen::Reset).unwrap_or_default();
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// What is left once it is no more than `before`, or after a minute. A thread that was joined stays in `/proc` until
/// the kernel has buried it: joining waits for the thread's last word, not for its last breath.
fn left_over(before: (usize, usize)) -> (usize, usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = (descriptors(), threads());
        if left == before || Instant::now() > deadline {
            return left;
        }
        std::thread::yield_now();
    }
}

#[test]
fn two_hundred_connections_at_once_and_nothing_is_left_of_them() {
    let before = (descriptors(), threads());
    let address = SocketAddr::from(([127, 77, 77, std::process::id() as u8], 6800));
    let node = |number, bind: bool, workers| {
        let (sender, seen) = unbounded();
        let kernel = Kernel::start(&KernelConfig { workers, ..KernelConfig::default() }).unwrap();
        let builder = Messenger::builder(EntityName::osd(number))
            .transport(Arc::new(kernel))
            .dispatcher(Arc::new(Recorder(sender)));
        let builder = if bind { builder.bind(address) } else { builder };
        (builder.start().unwrap(), seen)
    };
    let (server, at_server) = node(1, true, 2);
    let (client, at_client) = node(2, false, 1);
    let connections: Vec<Connection> =
        (0..CONNECTIONS).map(|_| client.connect_to(address).unwrap()).collect();
    let mut registrations = Vec::new();
    for (tid, connection) in connections.iter().enumerate() {
        connection.send_message(Message::new(1, vec![tid as u8; 10_000]).with_tid(tid as u64)).unwrap();
        let part = |_: &_| Some(vec![0; 32].into());
        registrations
            .push(connection.register_oob_message(OobOp::PING, part, Duration::from_millis(50)).unwrap());
    }
    // Besides, somebody who does not speak the language, and one who goes away in the middle of a word.
    let mut stranger = TcpStream::connect(address).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n").unwrap();
    // What comes before the end, or whether it comes as a reset, is the session's choice.
    let _ = stranger.read_to_end(&mut Vec::new());
    drop(TcpStream::connect(address).unwrap());
    let mut arrived = vec![false; CONNECTIONS as usize];
    let mut oobs = 0;
    while arrived.contains(&false) || oobs < 1_000 {
        match at_server.recv_timeout(PATIENCE).expect("everything arrives in time") {
            Seen::Message(message) => {
                assert!(message.payload.iter().all(|byte| *byte == message.tid as u8));
                assert!(!std::mem::replace(&mut arrived[message.tid as usize], true), "twice");
            }
            Seen::Oob => oobs += 1,
            Seen::Ready | Seen::Reset => {}
        }
    }
    assert!(descriptors() >= before.0 + 2 * CONNECTIONS as usize);
    let ready = at_client.try_iter().filter(|seen| matches!(seen, Seen::Ready)).count();
    assert_eq!(ready, CONNECTIONS as usize);
    drop((connections, registrations));
    client.shutdown();
    client.wait();
    server.shutdown();
    server.wait();
    drop((client, server, stranger));
    assert_eq!(left_over(before), before);
}
