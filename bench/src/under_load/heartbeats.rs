//! How heartbeats are sent: out of band, or in order with everything else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use outrider_drivers::time::Instant;
use outrider_messenger::{Connection, Message, OobOp, OobRegistration, OobTurn};

use super::Variant;
use super::ends::{Departures, HEARTBEAT};
use super::load::RightOfWay;
use super::tally::{PART_BYTES, Stamp, Tally};
use crate::error::BenchError;
use crate::node::now;

/// The ops registered on the connection; they are due together and ride in one message.
pub(crate) const OPS: [OobOp; 3] = [OobOp::OSD_PING, OobOp::LINGER_PING, OobOp::WATCH_PING];

/// The message that is being cut.
#[derive(Debug)]
struct Cutting {
    sequence: u64,
    due: Instant,
}

/// Registers the three ops. Heartbeats end when the registrations are dropped.
pub(crate) fn register(
    connection: &Connection,
    interval: Duration,
    tally: &Arc<Tally>,
    departures: &Arc<Departures>,
) -> Result<Vec<OobRegistration>, BenchError> {
    let cutting = Arc::new(Mutex::new(None::<Cutting>));
    OPS.iter()
        .map(|op| {
            let (tally, departures, cutting) = (tally.clone(), departures.clone(), cutting.clone());
            let part = move |turn: &OobTurn| {
                let mut cutting = cutting.lock().expect("a callback does not panic");
                let message_due = match &*cutting {
                    Some(message) if message.sequence == turn.sequence => message.due,
                    before => {
                        if let Some(before) = before {
                            superseded_between(before.due, turn.due, interval, &tally);
                        }
                        tally.heartbeat_sent(turn.due);
                        departures.note(turn.sequence, turn.due);
                        *cutting = Some(Cutting { sequence: turn.sequence, due: turn.due });
                        turn.due
                    }
                };
                Some(Stamp { due: turn.due, message_due, sequence: turn.sequence }.encode(PART_BYTES))
            };
            connection
                .register_oob_message(*op, part, interval)
                .map_err(|error| BenchError::failed(format!("cannot register a heartbeat: {error}")))
        })
        .collect()
}

/// Heartbeats of either kind while they run.
#[derive(Debug)]
pub(crate) enum Heartbeats {
    /// Registered ops.
    OutOfBand(Vec<OobRegistration>),
    /// A thread that sends messages.
    InOrder(InOrder),
}

impl Heartbeats {
    /// Begins to send them on `connection` as `variant` does.
    pub(crate) fn start(
        variant: Variant,
        connection: &Connection,
        interval: Duration,
        (tally, departures, right_of_way): (&Arc<Tally>, &Arc<Departures>, &Arc<RightOfWay>),
    ) -> Result<Self, BenchError> {
        if matches!(variant, Variant::Oob | Variant::Lowat) {
            return register(connection, interval, tally, departures).map(Heartbeats::OutOfBand);
        }
        InOrder::start(connection, interval, tally, right_of_way).map(Heartbeats::InOrder)
    }

    /// Ends them. Their connection must be marked down first, or a send that waits for room waits on.
    pub(crate) fn stop(self) {
        match self {
            Heartbeats::OutOfBand(registrations) => drop(registrations),
            Heartbeats::InOrder(thread) => thread.stop(),
        }
    }
}

/// Counts the turns that passed between two heartbeats that were sent.
fn superseded_between(before: Instant, due: Instant, interval: Duration, tally: &Tally) {
    let mut turn = before + interval;
    // The three ops need not be due at the same instant: half an interval tells a missed turn from a near one.
    while turn + interval / 2 < due {
        tally.heartbeat_superseded(turn);
        turn += interval;
    }
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
        right_of_way: &Arc<RightOfWay>,
    ) -> Result<Self, BenchError> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("heartbeats".into()).spawn({
            let (connection, tally, stop) = (connection.clone(), tally.clone(), stop.clone());
            let right_of_way = right_of_way.clone();
            move || send_in_order(&connection, interval, &tally, &right_of_way, &stop)
        });
        let thread = thread
            .map_err(|error| BenchError::failed(format!("cannot start a heartbeat thread: {error}")))?;
        Ok(InOrder { stop, thread })
    }

    /// Ends it. The connection must be marked down first, or a send that waits for room waits on.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic there has printed itself; its run will lack heartbeats, which is reported.
        let _ = self.thread.join();
    }
}

fn send_in_order(
    connection: &Connection,
    interval: Duration,
    tally: &Tally,
    right_of_way: &RightOfWay,
    stop: &AtomicBool,
) {
    let mut due = now() + interval;
    let mut sequence = 0;
    let mut before = due;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(due - now());
        superseded_between(before, due, interval, tally);
        let stamp = Stamp { due, message_due: due, sequence };
        tally.heartbeat_sent(due);
        let held = connection.occupancy();
        tally.occupancy(due, held.send.unsent_bytes + held.send.bytes_in_flight);
        // As many bytes as the out-of-band heartbeat of all ops carries.
        let message = Message::new(HEARTBEAT, stamp.encode(PART_BYTES * OPS.len()));
        if right_of_way.claim(|| connection.send_message(message)).is_err() {
            return;
        }
        before = due;
        due = next_turn(due, interval, now());
        sequence += 1;
    }
}

/// The turn after the one that was due at `due` and left at `now`, by the rule that out-of-band heartbeats follow too:
/// one is pending at a time, and the turns that passed meanwhile are superseded by it.
fn next_turn(due: Instant, interval: Duration, now: Instant) -> Instant {
    let mut next = due + interval;
    while next <= now {
        next += interval;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(10);

    #[test]
    fn a_sender_in_time_takes_every_turn() {
        let at = Instant::from_millis;
        assert_eq!(next_turn(at(100), INTERVAL, at(100)), at(110));
        assert_eq!(next_turn(at(100), INTERVAL, at(109)), at(110));
    }

    #[test]
    fn a_sender_that_was_held_up_skips_the_turns_it_missed() {
        let at = Instant::from_millis;
        let tally = Tally::default();
        tally.window.open(at(0));
        let next = next_turn(at(100), INTERVAL, at(135));
        assert_eq!(next, at(140));
        superseded_between(at(100), next, INTERVAL, &tally);
        assert_eq!(tally.counts().superseded, 3);
    }
}
