//! What an observer is told of one connection, by its place in the table.

use core::time::Duration;

use super::Stack;
use super::table::ConnectionSummary;
use crate::tcp::source::Blocked;
use crate::tcp::statistics::ConnectionStatistics;
use crate::time::Instant;

/// One connection with all it has counted.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionReport {
    /// Who it is and the state of its sender.
    pub summary: ConnectionSummary,
    /// Bytes that wait for their turn at the source; zero from one that does not tell.
    pub unsent_bytes: u64,
    /// Round trip of the last heartbeat that was answered, where the source sends any.
    pub heartbeat_rtt: Option<Duration>,
    /// Its counters.
    pub statistics: ConnectionStatistics,
}

impl Stack {
    /// How many connections there are, half-open and TIME-WAIT included.
    pub fn connection_count(&self) -> usize {
        self.table.len()
    }

    /// The connection at the place `index` of the table, if one is there. Places are taken from the lowest on, and
    /// used again.
    pub fn connection_report(&self, now: Instant, index: u32) -> Option<ConnectionReport> {
        let entry = self.table.get(index)?;
        let mut summary = entry.summary(now);
        if entry.user.is_out_of_credit() {
            summary.send.blocked = Blocked::Credit;
        }
        Some(ConnectionReport {
            summary,
            unsent_bytes: entry.user.queued_bytes().unwrap_or(0),
            heartbeat_rtt: entry.user.heartbeat_rtt(),
            statistics: entry.connection.statistics(),
        })
    }
}
