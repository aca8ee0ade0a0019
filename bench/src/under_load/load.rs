//! The load: a thread that keeps the send budget of a connection full.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use outrider_messenger::{Connection, Message};

use super::ends::LOAD;
use crate::error::BenchError;

/// Lets a heartbeat that waits for room in the send budget go before the next message of the load.
///
/// Whoever waits for the budget has no place in a line: without this, a heartbeat in order could lose its turn to the
/// load again and again, and the comparison would be about that and not about the queue.
#[derive(Debug, Default)]
pub(crate) struct RightOfWay {
    claimed: Mutex<bool>,
    changed: Condvar,
}

impl RightOfWay {
    /// Runs `send` while the load holds back.
    pub(crate) fn claim<T>(&self, send: impl FnOnce() -> T) -> T {
        self.set(true);
        let sent = send();
        self.set(false);
        sent
    }

    fn set(&self, claimed: bool) {
        *self.claimed.lock().expect("nobody panics while holding it") = claimed;
        self.changed.notify_all();
    }

    /// Waits while it is claimed.
    fn give_way(&self) {
        let claimed = self.claimed.lock().expect("nobody panics while holding it");
        drop(self.changed.wait_while(claimed, |claimed| *claimed).expect("nobody panics while holding it"));
    }
}

/// The thread. It ends when the connection is marked down.
#[derive(Debug)]
pub(crate) struct Load(JoinHandle<()>);

impl Load {
    /// Begins to send messages of `message_bytes` of payload.
    pub(crate) fn start(
        connection: &Connection,
        message_bytes: usize,
        right_of_way: &Arc<RightOfWay>,
    ) -> Result<Self, BenchError> {
        let (connection, right_of_way) = (connection.clone(), Arc::clone(right_of_way));
        let payload = Bytes::from((0..message_bytes).map(|n| n as u8).collect::<Vec<u8>>());
        let send = move || {
            while connection.send_message(Message::new(LOAD, payload.clone())).is_ok() {
                right_of_way.give_way();
            }
        };
        std::thread::Builder::new()
            .name("load".into())
            .spawn(send)
            .map(Load)
            .map_err(|error| BenchError::failed(format!("cannot start a load thread: {error}")))
    }

    /// Waits for its end.
    pub(crate) fn join(self) {
        // A panic there has printed itself, and the goodput shows it.
        let _ = self.0.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn the_load_holds_back_while_a_heartbeat_is_being_sent() {
        let right_of_way = Arc::new(RightOfWay::default());
        let (passed, passes) = mpsc::channel();
        let load = right_of_way.claim(|| {
            let right_of_way = Arc::clone(&right_of_way);
            let load = std::thread::spawn(move || {
                right_of_way.give_way();
                passed.send(()).unwrap();
            });
            assert!(passes.try_recv().is_err(), "the load did not hold back");
            load
        });
        passes.recv().unwrap();
        load.join().unwrap();
    }
}
