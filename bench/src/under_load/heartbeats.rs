//! How heartbeats are sent: out of band, or in order with everything else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use outrider_drivers::time::Instant;
use outrider_messenger::{Connection, Message, OobOp, OobRegistration, OobTurn};

use super::ends::{Departures, HEARTBEAT};
use super::tally::{PART_BYTES, Stamp, Tally};
use crate::error::BenchError;
use crate::node::now;

/// The ops registered on the connection; they are due together and ride in one message.
pub(crate) const OPS: [OobOp; 3] = [OobOp::OSD_PING, OobOp::LINGER_PING, OobOp::WATCH_PING];

/// The message that is being cut: all its callbacks run at the same instant.
#[derive(Debug, Default)]
struct Cutting {
    at: Instant,
    due: Instant,
}

/// Registers the three ops. Heartbeats end when the registrations are dropped.
pub(crate) fn register(
    connection: &Connection,
    interval: Duration,
    tally: &Arc<Tally>,
    departures: &Arc<Departures>,
) -> Result<Vec<OobRegistration>, BenchError> {
    let cutting = Arc::new(Mutex::new(Cutting::default()));
    OPS.iter()
        .map(|op| {
            let (tally, departures, cutting) = (tally.clone(), departures.clone(), cutting.clone());
            let part = move |turn: &OobTurn| {
                let mut cutting = cutting.lock().expect("a callback does not panic");
                if cutting.at != turn.now {
                    *cutting = Cutting { at: turn.now, due: turn.due };
                    tally.heartbeat_sent(turn.due);
                    departures.note(turn.now, turn.due);
                }
                let stamp = Stamp { due: turn.due, message_due: cutting.due, sequence: turn.sequence };
                Some(stamp.encode(PART_BYTES))
            };
            connection
                .register_oob_message(*op, part, interval)
                .map_err(|error| BenchError::failed(format!("cannot register a heartbeat: {error}")))
        })
        .collect()
}

/// A thread that sends heartbeats as messages of default priority, behind whatever is queued.
#[derive(Debug)]
pub(crate) struct InOrder {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl InOrder {
    /// Begins; the first heartbeat is due one interval from now.
    pub(crate) fn start(
        connection: &Connection,
        interval: Duration,
        tally: &Arc<Tally>,
    ) -> Result<Self, BenchError> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("heartbeats".into()).spawn({
            let (connection, tally, stop) = (connection.clone(), tally.clone(), stop.clone());
            move || send_in_order(&connection, interval, &tally, &stop)
        });
        let thread =
            thread.map_err(|error| BenchError::failed(format!("cannot start a heartbeat thread: {error}")))?;
        Ok(InOrder { stop, thread })
    }

    /// Ends it. The connection must be marked down first, or a send that waits for room waits on.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic there has printed itself; its slice will lack heartbeats, which is reported.
        let _ = self.thread.join();
    }
}

fn send_in_order(connection: &Connection, interval: Duration, tally: &Tally, stop: &AtomicBool) {
    let mut due = now() + interval;
    let mut sequence = 0;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(due - now());
        due = skip_missed(due, interval, now(), |missed| tally.heartbeat_superseded(missed));
        let stamp = Stamp { due, message_due: due, sequence };
        tally.heartbeat_sent(due);
        let held = connection.occupancy();
        tally.occupancy(due, held.send.unsent_bytes + held.send.bytes_in_flight);
        // As many bytes as the out-of-band heartbeat of all ops carries.
        let message = Message::new(HEARTBEAT, stamp.encode(PART_BYTES * OPS.len()));
        if connection.send_message(message).is_err() {
            return;
        }
        due += interval;
        sequence += 1;
    }
}

/// What a sender that was held up does, so that both variants play by the same rule: heartbeats do not pile up. Of the
/// turns that have passed, the last is sent and the others are superseded; `missed` is told of each of those.
fn skip_missed(mut due: Instant, interval: Duration, now: Instant, mut missed: impl FnMut(Instant)) -> Instant {
    while due + interval <= now {
        missed(due);
        due += interval;
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_that_was_held_up_skips_the_turns_it_missed() {
        let at = Instant::from_millis;
        let interval = Duration::from_millis(10);
        let mut missed = Vec::new();
        let due = skip_missed(at(100), interval, at(125), |due| missed.push(due));
        assert_eq!(due, at(120));
        assert_eq!(missed, [at(100), at(110)]);
        assert_eq!(skip_missed(at(120), interval, at(125), |_| panic!("nothing was missed")), at(120));
    }
}
