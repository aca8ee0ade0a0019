//! The receiving half of a connection.

use std::io::Read;

use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::SinkFault;

use super::connection::{Connection, Tools};
use super::failure::{is_temporary, of_connected};

/// Bytes taken from one socket in a turn at most, so that no connection keeps the others waiting.
const TURN_BYTES_MAX: usize = 512 << 10;

impl Connection {
    /// Reads and delivers, as far as the endpoint has room. Returns whether there may be more.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn receive(&mut self, tools: &mut Tools<'_>) -> Result<bool, CloseReason> {
        let mut left = TURN_BYTES_MAX;
        while self.readable && !self.peer_finished {
            let room = self.endpoint.room().min(tools.buffer.len());
            if room == 0 {
                // What is not read closes the peer's window; the endpoint wakes when it has room again.
                return Ok(false);
            }
            if left == 0 {
                return Ok(true);
            }
            match self.socket.read(&mut tools.buffer[..room]) {
                Ok(0) => {
                    self.peer_finished = true;
                    self.endpoint.on_peer_finished(tools.clock.now());
                }
                Ok(bytes) => {
                    let delivered = self.endpoint.deliver(tools.clock.now(), &tools.buffer[..bytes]);
                    if let Err(SinkFault) = delivered {
                        return Err(CloseReason::Unusable);
                    }
                    // The socket was emptied; what comes later makes a new event (epoll(7), question 9).
                    self.readable = bytes == room || self.hung_up;
                    left = left.saturating_sub(bytes);
                    self.restart_finish_timeout(tools.clock);
                }
                Err(error) if is_temporary(&error) => {
                    self.readable = error.kind() == std::io::ErrorKind::Interrupted;
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection was lost while it was read");
                    return Err(of_connected(&error));
                }
            }
            self.obey()?;
        }
        Ok(false)
    }
}
