//! What follows every input of a connection: events, callbacks, timers, the end.

use core::mem;

use super::Stack;
use super::ready::Lane;
use crate::endpoint::{ConnectionId, Directive};
use crate::tcp::connection::{CloseReason, Event, State, TransmitLimit};
use crate::tcp::maybe::FlightBytes;
use crate::tcp::source::Demand;
use crate::time::Instant;

/// Why a connection is brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A segment, a timer or a callback: it may have something new to transmit.
    Input,
    /// It just had its turn and has nothing that may leave now.
    TurnEnded,
}

impl Stack {
    /// Calls `on_wake` of `id`, or of the connection that has its place now: that may have been woken since, and its
    /// wake was then merged with this one.
    pub fn wake(&mut self, now: Instant, id: ConnectionId) {
        self.wakers.clear(id.index);
        if let Some(entry) = self.table.get_mut(id.index).filter(|entry| entry.attached) {
            entry.user.on_wake(now);
            self.statistics.wakes += 1;
            self.settle(now, id.index, Cause::Input);
        }
    }

    /// Resets `id`; its endpoint is told [`CloseReason::Aborted`]. Nothing happens if the connection is gone.
    pub fn abort(&mut self, now: Instant, id: ConnectionId) {
        if let Some(index) = self.table.index_of(id) {
            self.abort_index(now, index);
        }
    }

    /// Resets every connection and drops every listener. The RSTs leave with the next polls.
    pub fn abort_all(&mut self, now: Instant) {
        self.listeners.clear();
        for index in self.table.indexes() {
            self.abort_index(now, index);
        }
    }

    pub(super) fn abort_index(&mut self, now: Instant, index: u32) {
        let Some(entry) = self.table.get_mut(index) else { return };
        if !mem::replace(&mut entry.aborted, true) {
            entry.connection.abort(now);
        }
        self.settle(now, index, Cause::Input);
    }

    /// The timer of `index` fired: the connection's own, or the source's next demand.
    pub(super) fn on_timer(&mut self, now: Instant, index: u32) {
        let Some(entry) = self.table.get_mut(index) else { return };
        self.statistics.timeouts += 1;
        if entry.connection.next_timeout().is_some_and(|due| due <= now) {
            entry.connection.on_timeout(now);
        }
        self.settle(now, index, Cause::Input);
    }

    /// Brings everything about `index` up to date after it was called: see the module.
    pub(super) fn settle(&mut self, now: Instant, index: u32, mut cause: Cause) {
        let Some(entry) = self.table.get_mut(index) else { return };
        loop {
            if entry.parked && entry.connection.state() == State::Closed {
                // Without a neighbour there is nobody to tell: a RST that is due is dropped.
                let limit = TransmitLimit::default();
                while entry.connection.poll_transmit(now, &mut *entry.user, limit).is_some() {}
            }
            while let Some(event) = entry.connection.poll_event() {
                match event {
                    Event::Established => self.statistics.established += u64::from(entry.establish(now)),
                    Event::Closed(reason) => return self.close(now, index, reason),
                }
            }
            let acked = entry.connection.acked_offset();
            if mem::replace(&mut entry.acked_offset, acked) != acked {
                entry.user.on_acked(now, acked);
                self.spares.give(entry.connection.take_spare());
            }
            let room = entry.user.room();
            let told = FlightBytes::from(room as u64);
            if mem::replace(&mut entry.room, told) != told {
                entry.connection.set_receive_room(now, room);
            }
            if entry.aborted || entry.user.directive() == Directive::Continue {
                break;
            }
            entry.aborted = true;
            entry.connection.abort(now);
            // The RST is something new to transmit, whatever brought the connection here.
            cause = Cause::Input;
        }
        if cause == Cause::Input {
            if !entry.parked {
                // Its turn comes, and sets the timer.
                return self.mark_ready(now, index);
            }
            entry.connection.settle(now);
        }
        let demand_at = entry.user.next_demand();
        let timeout = entry.connection.next_timeout();
        // A demand that is due already is no timer: it waits for its turn, or for what blocks the connection.
        let deadline = match demand_at.filter(|due| *due > now) {
            Some(due) => Some(timeout.map_or(due, |timeout| timeout.min(due))),
            None => timeout,
        };
        match deadline {
            Some(deadline) => self.wheel.arm(index, deadline),
            None => self.wheel.disarm(index),
        }
    }

    /// Queues `index` for transmission, unless it waits for its neighbour.
    pub(super) fn mark_ready(&mut self, now: Instant, index: u32) {
        let Some(entry) = self.table.get_mut(index) else { return };
        if entry.parked {
            return;
        }
        let urgent = entry.user.demand(now) == Demand::Urgent;
        if self.ready.lane(index).is_none() {
            entry.ready_since = now;
        }
        self.ready.push(index, if urgent { Lane::Urgent } else { Lane::Ordinary });
    }

    /// The connection is over: forgets it, then tells its endpoint.
    pub(super) fn close(&mut self, now: Instant, index: u32, reason: CloseReason) {
        let Some(mut entry) = self.table.remove(index) else { return };
        self.ready.remove(index);
        self.prediction.forget(index);
        self.wheel.disarm(index);
        if let Some(listener) = entry.take_listener().and_then(|id| self.listeners.get_mut(id)) {
            listener.half_open -= 1;
        }
        match reason {
            CloseReason::Finished => self.statistics.closed_in_order += 1,
            _ => self.statistics.closed_otherwise += 1,
        }
        if entry.attached {
            entry.user.on_closed(now, reason);
        }
    }
}
