//! The receiving half of a connection.

use std::io::{self, Read};

use outrider_drivers::kernel_socket::read_appending;
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::{Place, SinkFault};
use outrider_stack::time::Instant;

use super::connection::{Connection, Tools};
use super::failure::{is_temporary, of_connected};

/// Bytes taken from one socket in a turn at most, so that no connection keeps the others waiting.
const TURN_BYTES_MAX: usize = 512 << 10;
/// Where the endpoint has a place for what comes next, so much of what follows is read besides: the next header and the
/// first bytes after it, so that they have a place too.
const AFTER_PLACED_BYTES_MAX: usize = 4 << 10;
/// While so much of a chunk is still to come, it is not looked for at once: that would find a part.
const LONG_REST_BYTES_MIN: usize = 64 << 10;

/// What a read gave.
#[derive(Clone, Copy, Debug)]
struct Received {
    /// Bytes that the endpoint has at their place.
    placed: usize,
    /// Bytes after them, in the worker's buffer.
    buffered: usize,
    /// There may be more: as many came as there was room for.
    filled: bool,
}

impl Connection {
    /// Reads and delivers, as far as the endpoint has room. Returns whether there may be more.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn receive(&mut self, tools: &mut Tools<'_>) -> Result<bool, CloseReason> {
        let mut left = TURN_BYTES_MAX;
        let mut any_placed = false;
        while self.readable && !self.peer_finished {
            let room = self.endpoint.room();
            if room == 0 {
                // What is not read closes the peer's window; the endpoint wakes when it has room again.
                return Ok(false);
            }
            if left == 0 {
                return Ok(true);
            }
            match self.read(tools.buffer, room) {
                Ok(Received { placed: 0, buffered: 0, .. }) => {
                    self.peer_finished = true;
                    self.endpoint.on_peer_finished(tools.clock.now());
                }
                Ok(received) => {
                    let Received { placed, buffered, filled } = received;
                    any_placed |= placed > 0;
                    self.hand_over(tools.clock.now(), placed, &tools.buffer[..buffered])
                        .map_err(|SinkFault| CloseReason::Unusable)?;
                    // The socket was emptied; what comes later makes a new event (epoll(7), question 9).
                    self.readable = filled || self.hung_up;
                    left = left.saturating_sub(placed + buffered);
                    tools.moved += placed + buffered;
                    self.restart_finish_timeout(tools.clock);
                }
                Err(error) if is_temporary(&error) => {
                    self.readable = error.kind() == io::ErrorKind::Interrupted;
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection was lost while it was read");
                    return Err(of_connected(&error));
                }
            }
            self.obey()?;
        }
        tools.awaits_long |= any_placed && self.awaits_long();
        Ok(false)
    }

    fn awaits_long(&mut self) -> bool {
        self.endpoint.place().is_some_and(|place| place.bytes_max >= LONG_REST_BYTES_MIN)
    }

    /// Reads at most `room` bytes: to where they belong if the endpoint knows, and otherwise into `buffer`.
    fn read(&mut self, buffer: &mut [u8], room: usize) -> io::Result<Received> {
        let Some(Place { buffer: place, bytes_max }) = self.endpoint.place() else {
            // After a piece of a long chunk another one is likely: only as much as gives it a place.
            let most = if self.placing { AFTER_PLACED_BYTES_MAX } else { buffer.len() };
            let asked = room.min(most).min(buffer.len());
            let buffered = self.socket.read(&mut buffer[..asked])?;
            self.placing = false;
            return Ok(Received { placed: 0, buffered, filled: buffered == asked });
        };
        let bytes_max = bytes_max.min(room);
        let after = (room - bytes_max).min(AFTER_PLACED_BYTES_MAX).min(buffer.len());
        let before = place.len();
        let read = read_appending(&self.socket, place, bytes_max, &mut buffer[..after])?;
        let placed = place.len() - before;
        self.placing = true;
        Ok(Received { placed, buffered: read - placed, filled: read == bytes_max + after })
    }

    fn hand_over(&mut self, now: Instant, placed: usize, rest: &[u8]) -> Result<(), SinkFault> {
        if placed > 0 {
            self.endpoint.placed(now, placed)?;
        }
        if !rest.is_empty() {
            self.endpoint.deliver(now, rest)?;
        }
        Ok(())
    }
}
