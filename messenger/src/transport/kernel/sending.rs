//! The sending half of a connection: when to cut, how much, and what the kernel says about it.

use core::time::Duration;
use std::net::Shutdown;

use outrider_drivers::kernel_socket::{is_writable, tcp_information, unacknowledged_bytes, unsent_bytes};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::{Blocked, Demand, SendState};
use outrider_stack::time::{Clock, Instant};

use super::CHUNK_BYTES_MIN;
use super::connection::{Connection, Tools};
use super::failure::{is_temporary, of_connected};

/// Bytes given to one socket in a turn at most, so that no connection keeps the others waiting.
const TURN_BYTES_MAX: usize = 512 << 10;
/// What the kernel knows of the path is read this often while bytes are cut, and for every heartbeat.
const INFORMATION_INTERVAL: Duration = Duration::from_millis(10);
/// Offset of the stream's first byte: the SYN has the one before it.
const FIRST_OFFSET: u64 = 1;

impl Connection {
    /// Cuts and writes while there is something to send and the socket takes it. Returns whether there may be more.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn send(&mut self, tools: &mut Tools<'_>) -> Result<bool, CloseReason> {
        let mut left = TURN_BYTES_MAX;
        let mut written = self.write(tools)?;
        loop {
            // Asked even if nothing can be cut: the endpoint looks at its time limits when it is asked.
            let demand = self.ask(tools.clock)?;
            if !written || self.finish_deadline.is_some() || demand == Demand::Nothing {
                return Ok(false);
            }
            let Some((room, urgent_only)) = self.room(demand)? else { return Ok(false) };
            if left == 0 {
                return Ok(true);
            }
            let bytes = self.cut(tools, demand, room, urgent_only)?;
            if bytes == 0 {
                // The demand is withdrawn.
                return Ok(false);
            }
            left = left.saturating_sub(bytes);
            tools.moved += bytes;
            tools.sent = true;
            written = self.write(tools)?;
        }
    }

    fn ask(&mut self, clock: &dyn Clock) -> Result<Demand, CloseReason> {
        self.asked_at = clock.now();
        let demand = self.endpoint.demand(self.asked_at);
        self.obey()?;
        Ok(demand)
    }

    /// How many bytes may be cut now, and whether only what is urgent; `None` if nothing may. Then epoll tells when
    /// that changes.
    fn room(&mut self, demand: Demand) -> Result<Option<(usize, bool)>, CloseReason> {
        if is_writable(&self.socket).map_err(|error| of_connected(&error))? {
            return Ok(Some((self.chunk_bytes(), false)));
        }
        // What is urgent waits behind what the kernel has not sent, here or there; there it needs no wake-up first. But
        // one at a time: if that does not leave, the next shall be cut when it can, and be up to date.
        let overtakes = demand == Demand::Urgent
            && unsent_bytes(&self.socket)
                .is_ok_and(|unsent| self.flight.cut() - unsent >= self.overtaken_end);
        Ok(overtakes.then_some((self.config.chunk_bytes_min, true)))
    }

    /// As much as leaves within the time that the configuration gives a chunk, in whole segments: the kernel sends
    /// the rest of a write as a segment of its own. The kernel's delivery rate alone would promise too much: it is of the
    /// last round trip, which a shaper may have let through in a burst.
    fn chunk_bytes(&self) -> usize {
        let rate = self.information.delivery_rate.min(self.flight.rate());
        let bytes = rate as f64 * self.config.chunk_time.as_secs_f64();
        let bytes = (bytes as usize).clamp(self.config.chunk_bytes_min, self.config.chunk_bytes_max);
        match bytes % (self.information.segment_bytes as usize).max(1) {
            rest if bytes - rest >= CHUNK_BYTES_MIN => bytes - rest,
            _ => bytes,
        }
    }

    fn cut(
        &mut self,
        tools: &mut Tools<'_>,
        demand: Demand,
        room: usize,
        urgent_only: bool,
    ) -> Result<usize, CloseReason> {
        let now = tools.clock.now();
        if demand == Demand::Urgent || self.informed_at.is_none_or(|at| now.since(at) >= INFORMATION_INTERVAL)
        {
            self.look_for_acks(now)?;
            self.inform(now);
        }
        let state = self.state(now);
        self.endpoint.cut(now, &state, &mut self.outgoing.begin(tools.scratch, room, urgent_only));
        let bytes = self.outgoing.left();
        if bytes > 0 {
            self.flight.on_cut(now, bytes);
            if urgent_only {
                self.overtaken_end = self.flight.cut();
            }
        }
        self.obey()?;
        Ok(bytes)
    }

    /// Writes what is left of the last cut. Returns whether nothing is left.
    fn write(&mut self, tools: &mut Tools<'_>) -> Result<bool, CloseReason> {
        while self.outgoing.left() > 0 {
            match self.outgoing.write(&self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if is_temporary(&error) => return Ok(false),
                Err(error) => {
                    tracing::debug!(%error, "a connection was lost while it was written");
                    // The peer's last words may say more than that it is gone.
                    self.readable = true;
                    self.receive(tools)?;
                    return Err(of_connected(&error));
                }
            }
        }
        self.outgoing.give_back(tools.scratch);
        Ok(true)
    }

    /// Tells the endpoint what the peer has acknowledged.
    ///
    /// # Errors
    /// The endpoint wants the connection reset.
    pub(super) fn look_for_acks(&mut self, now: Instant) -> Result<(), CloseReason> {
        if self.flight.outstanding() == 0 {
            return Ok(());
        }
        let Ok(queued) = unacknowledged_bytes(&self.socket) else { return Ok(()) };
        // A FIN counts as one byte until it is acknowledged.
        let queued = queued.saturating_sub(self.finish_deadline.is_some().into());
        let news = self.flight.on_outstanding(queued + self.outgoing.left() as u64);
        self.pace_ack_looks(news);
        if !news {
            return Ok(());
        }
        if self.finish_deadline.is_some() {
            self.finish_deadline = Some(now + self.config.finish_timeout);
        }
        self.endpoint.on_acked(now, FIRST_OFFSET + self.flight.acknowledged());
        self.obey()
    }

    /// Reads what the kernel knows of the path.
    fn inform(&mut self, now: Instant) {
        self.informed_at = Some(now);
        self.flight.measure_rate(now);
        let Ok(information) = tcp_information(&self.socket) else { return };
        self.information = information;
        let unsent = unsent_bytes(&self.socket).unwrap_or(0);
        self.blocked = if unsent == 0 { Blocked::Nothing } else { self.blocked_by(unsent) };
    }

    /// What keeps bytes unsent in the kernel.
    fn blocked_by(&self, unsent: u64) -> Blocked {
        let information = &self.information;
        let sent = self.flight.outstanding().saturating_sub(unsent);
        let segment = u64::from(information.segment_bytes);
        if information.peer_window.is_some_and(|window| sent + segment.min(unsent) > window) {
            Blocked::PeerWindow
        } else if information.unacknowledged_segments >= information.congestion_window_segments {
            Blocked::CongestionWindow
        } else {
            // Its pacer, or the queue of its device.
            Blocked::Port
        }
    }

    /// What a heartbeat says about this end.
    fn state(&self, now: Instant) -> SendState {
        let information = &self.information;
        let outstanding = self.flight.outstanding();
        let segment = u64::from(information.segment_bytes);
        SendState {
            bytes_in_flight: outstanding,
            congestion_window: u64::from(information.congestion_window_segments) * segment,
            // Where the kernel does not tell it is as much as was used at least.
            peer_window: information.peer_window.unwrap_or(outstanding),
            smoothed_rtt: information.smoothed_rtt,
            rtt_min: information.rtt_min,
            delivery_rate: information.delivery_rate,
            oldest_unacked_age: self.flight.oldest_age(now),
            retransmits: information.retransmits.into(),
            blocked: self.blocked,
            stream_offset: FIRST_OFFSET + self.flight.cut(),
        }
    }

    /// Ends this side when the endpoint has, and the connection when both have.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn finish(&mut self, now: Instant) -> Result<(), CloseReason> {
        match self.finish_deadline {
            None if self.outgoing.left() == 0
                && self.endpoint.finished()
                && self.endpoint.demand(now) == Demand::Nothing =>
            {
                // An error here is that of a connection that is gone; reading tells the same.
                let _ = self.socket.shutdown(Shutdown::Write);
                self.finish_deadline = Some(now + self.config.finish_timeout);
            }
            None => return Ok(()),
            Some(deadline) if deadline <= now => return Err(CloseReason::UserTimeout),
            Some(_) => {}
        }
        // What follows (TIME-WAIT, a FIN sent again) is the kernel's own affair.
        if self.peer_finished && self.flight.outstanding() == 0 { Err(CloseReason::Finished) } else { Ok(()) }
    }

    /// The peer still sends: it may take its time to finish.
    pub(super) fn restart_finish_timeout(&mut self, clock: &dyn Clock) {
        if self.finish_deadline.is_some() {
            self.finish_deadline = Some(clock.now() + self.config.finish_timeout);
        }
    }
}
