//! The two ends of the experiment: what each does with what arrives.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use outrider_drivers::time::Instant;
use outrider_messenger::{Connection, Dispatcher, Message, OobMessage};

use super::tally::{Stamp, Tally};
use crate::node::{SessionSignals, now};

/// Message type of the load.
pub(crate) const LOAD: u16 = 1;
/// Message type of a heartbeat that travels as an ordinary message.
pub(crate) const HEARTBEAT: u16 = 2;
/// Message type of the answer to [`HEARTBEAT`].
pub(crate) const HEARTBEAT_REPLY: u16 = 3;

/// Departures remembered until their echo comes; more than fit into any round trip worth measuring.
const DEPARTURES_MAX: usize = 1024;

/// When out-of-band heartbeats had been due, by sequence, so that their echoes can be counted from then on.
#[derive(Debug, Default)]
pub(crate) struct Departures(Mutex<VecDeque<(u64, Instant)>>);

impl Departures {
    /// The heartbeat `sequence`, due at `due`, leaves.
    pub(crate) fn note(&self, sequence: u64, due: Instant) {
        let mut departures = self.0.lock().expect("no thread panics while it counts");
        if departures.len() == DEPARTURES_MAX {
            departures.pop_front();
        }
        departures.push_back((sequence, due));
    }

    /// When the heartbeat `sequence` had been due; forgets all earlier ones.
    pub(crate) fn due_of(&self, sequence: u64) -> Option<Instant> {
        let mut departures = self.0.lock().expect("no thread panics while it counts");
        while departures.front().is_some_and(|(number, _)| *number < sequence) {
            departures.pop_front();
        }
        match departures.front() {
            Some((number, due)) if *number == sequence => Some(*due),
            _ => None,
        }
    }
}

/// The end that sends load and heartbeats.
pub(crate) struct Sender {
    pub(crate) tally: Arc<Tally>,
    pub(crate) departures: Arc<Departures>,
    pub(crate) session: Arc<SessionSignals>,
    /// Count occupancy at each echo; where the receiver is ours too, its reports are counted instead.
    pub(crate) samples_occupancy: bool,
}

impl Dispatcher for Sender {
    fn ms_dispatch(&self, _: &Connection, message: Message) -> Result<(), Message> {
        self.tally.payload_received(message.payload.len());
        Ok(())
    }

    fn ms_can_fast_dispatch(&self, kind: u16) -> bool {
        kind == HEARTBEAT_REPLY
    }

    fn ms_fast_dispatch(&self, _: &Connection, message: Message) {
        if let Some(stamp) = Stamp::decode(&message.payload) {
            self.tally.echoed(stamp.message_due, now() - stamp.due);
        }
    }

    fn ms_dispatch_oob(&self, connection: &Connection, message: OobMessage) {
        let Some(echo) = message.report.echo else { return };
        if let Some(due) = self.departures.due_of(echo.sequence) {
            let held_at_both_ends = message.arrived_at - due;
            self.tally.echoed(due, held_at_both_ends.saturating_sub(echo.held));
            if self.samples_occupancy {
                let send = connection.occupancy().send;
                self.tally.occupancy(due, send.unsent_bytes + send.bytes_in_flight);
            }
        }
    }

    fn ms_handle_connect(&self, _: &Connection) {
        self.session.connected.raise();
    }

    fn ms_handle_reset(&self, _: &Connection) {
        self.session.lost.raise();
    }

    fn ms_handle_refused(&self, _: &Connection) {
        self.session.refused.raise();
        self.session.lost.raise();
    }
}

/// The end that receives them.
pub(crate) struct Receiver {
    pub(crate) tally: Arc<Tally>,
}

impl Dispatcher for Receiver {
    fn ms_dispatch(&self, _: &Connection, message: Message) -> Result<(), Message> {
        self.tally.payload_received(message.payload.len());
        Ok(())
    }

    /// Heartbeats in order are taken on the shard as out-of-band ones are: the comparison is about the way to the
    /// peer, not about a dispatch thread.
    fn ms_can_fast_dispatch(&self, kind: u16) -> bool {
        kind == HEARTBEAT
    }

    fn ms_fast_dispatch(&self, connection: &Connection, message: Message) {
        let Some(stamp) = Stamp::decode(&message.payload) else { return };
        self.tally.heartbeat_received(now(), &[stamp]);
        // An answer that finds no room is an RTT sample less; nothing waits for it.
        let _ = connection.try_send_message(Message::new(HEARTBEAT_REPLY, message.payload));
    }

    fn ms_dispatch_oob(&self, _: &Connection, message: OobMessage) {
        let stamps: Vec<Stamp> = message.parts.iter().filter_map(|part| Stamp::decode(&part.bytes)).collect();
        self.tally.heartbeat_received(message.arrived_at, &stamps);
        if let Some(first) = stamps.first() {
            let send = &message.report.send;
            self.tally.occupancy(first.message_due, send.unsent_bytes + send.bytes_in_flight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    #[test]
    fn an_echo_finds_when_its_heartbeat_was_due() {
        let departures = Departures::default();
        for sequence in [1, 2, 4] {
            departures.note(sequence, at(sequence * 100));
        }
        assert_eq!(departures.due_of(2), Some(at(200)));
        assert_eq!(departures.due_of(1), None, "older than the last echo");
        assert_eq!(departures.due_of(3), None, "an echo without parts has no due time");
        assert_eq!(departures.due_of(4), Some(at(400)));
    }

    #[test]
    fn heartbeats_without_an_echo_do_not_pile_up() {
        let departures = Departures::default();
        for n in 0..2 * DEPARTURES_MAX as u64 {
            departures.note(n, at(n));
        }
        assert_eq!(departures.due_of(0), None);
        assert_eq!(departures.0.lock().unwrap().len(), DEPARTURES_MAX);
    }
}
