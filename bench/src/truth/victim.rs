//! The end that things are done to: the receiver of the experiment, whose threads can be held.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use outrider_drivers::time::Instant;
use outrider_messenger::{Connection, Dispatcher, Message, OobMessage};

use crate::node::now;
use crate::under_load::Receiver;

#[derive(Debug, Default)]
struct Position {
    closed: bool,
    /// When the first thread was caught since it was closed.
    caught_at: Option<Instant>,
}

/// Holds the threads that come to it while it is closed.
#[derive(Debug, Default)]
pub(super) struct Gate {
    position: Mutex<Position>,
    changed: Condvar,
}

impl Gate {
    fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().expect("nobody panics while holding it")
    }

    fn pass(&self) {
        let mut position = self.position();
        if position.closed && position.caught_at.is_none() {
            position.caught_at = Some(now());
            self.changed.notify_all();
        }
        drop(self.changed.wait_while(position, |position| position.closed).expect("nobody panics in it"));
    }

    pub(super) fn close(&self) {
        *self.position() = Position { closed: true, caught_at: None };
    }

    /// Waits until a thread has been caught; when that was.
    pub(super) fn caught(&self, patience: Duration) -> Option<Instant> {
        let position = self.position();
        let free = |position: &mut Position| position.caught_at.is_none();
        let (position, _) =
            self.changed.wait_timeout_while(position, patience, free).expect("nobody panics in it");
        position.caught_at
    }

    pub(super) fn open(&self) {
        self.position().closed = false;
        self.changed.notify_all();
    }
}

/// The gates that the victim's threads pass.
#[derive(Debug, Default)]
pub(super) struct Gates {
    /// Before messages of the load are consumed: holds the dispatch thread.
    pub(super) consumer: Gate,
    /// Before heartbeats are looked at: holds the thread that runs the connections, and with it everything that this
    /// thread does for them.
    pub(super) connections: Gate,
}

impl Gates {
    pub(super) fn open(&self) {
        self.consumer.open();
        self.connections.open();
    }
}

/// The receiver behind its gates.
pub(super) struct Victim {
    pub(super) receiver: Receiver,
    pub(super) gates: Arc<Gates>,
}

impl Dispatcher for Victim {
    fn ms_dispatch(&self, connection: &Connection, message: Message) -> Result<(), Message> {
        self.gates.consumer.pass();
        self.receiver.ms_dispatch(connection, message)
    }

    fn ms_can_fast_dispatch(&self, kind: u16) -> bool {
        self.receiver.ms_can_fast_dispatch(kind)
    }

    /// Blocks where a dispatcher must not: that is what stops the thread.
    fn ms_fast_dispatch(&self, connection: &Connection, message: Message) {
        self.gates.connections.pass();
        self.receiver.ms_fast_dispatch(connection, message);
    }

    /// Blocks where a dispatcher must not: that is what stops the thread.
    fn ms_dispatch_oob(&self, connection: &Connection, message: OobMessage) {
        self.gates.connections.pass();
        self.receiver.ms_dispatch_oob(connection, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_gate_holds_who_comes_and_tells_when_the_first_came() {
        let gate = Arc::new(Gate::default());
        gate.pass();
        gate.close();
        assert_eq!(gate.caught(Duration::ZERO), None, "nobody came since it was closed");
        let closed_at = now();
        let held = std::thread::spawn({
            let gate = Arc::clone(&gate);
            move || gate.pass()
        });
        let caught_at = gate.caught(Duration::from_secs(60)).expect("the thread comes");
        assert!(caught_at >= closed_at && !held.is_finished());
        gate.open();
        held.join().expect("it goes on");
    }
}
