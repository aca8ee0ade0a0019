//! What a connection keeps of what most connections never meet: losses, refusals, probes of the path. It is apart from
//! the rest, and made when it is first needed, so that it takes neither memory nor cache from the others.

use super::probing::MtuSearch;
use super::{Connection, Undo};
use crate::tcp::recovery::RateReduction;
use crate::tcp::segment::Header;
use crate::tcp::statistics::ConnectionStatistics;
use crate::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// Of all counters those that the connection does not keep itself: see [`Connection::statistics`].
    pub(super) statistics: ConnectionStatistics,
    /// Present while [`Connection::has_reset_pending`] says so.
    pub(super) pending_reset: Option<Header>,
    pub(super) mtu_search: MtuSearch,
    pub(super) reduction: RateReduction,
    /// Set while the acknowledgement of the first retransmission may still tell that the loss was not real (RFC 3522).
    pub(super) undo: Option<Undo>,
    /// Retransmissions of the present or last recovery that no D-SACK has called needless yet (RFC 3708).
    pub(super) undo_balance: Option<u32>,
    /// Challenge acknowledgements since this instant.
    pub(super) challenges: (Instant, u32),
}

impl Connection {
    /// What is rare, to be changed.
    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// The counters of what is rare, to be counted up.
    pub(super) fn rare_count(&mut self) -> &mut ConnectionStatistics {
        &mut self.rare_mut().statistics
    }

    pub(super) fn mtu_search(&self) -> Option<&MtuSearch> {
        self.rare.as_ref().map(|rare| &rare.mtu_search)
    }

    /// Bytes that the rate reduction lets go.
    pub(super) fn reduction_allowance(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| rare.reduction.allowance())
    }

    /// The next transmission is this RST.
    pub(super) fn reset_with(&mut self, header: Option<Header>) {
        self.has_reset_pending = header.is_some();
        if self.has_reset_pending || self.rare.is_some() {
            self.rare_mut().pending_reset = header;
        }
    }

    /// The RST that is due.
    pub(super) fn take_reset(&mut self) -> Option<Header> {
        self.has_reset_pending = false;
        self.rare.as_mut()?.pending_reset.take()
    }

    /// Counters.
    pub fn statistics(&self) -> ConnectionStatistics {
        let fin_sent = self.fin_at.get().is_some();
        ConnectionStatistics {
            segments_sent: self.segments_sent,
            segments_received: self.segments_received,
            acks_sent: self.acks_sent,
            retransmits: self.retransmits,
            // A stream offset is the number of bytes before it, of which SYN is one, and FIN one.
            payload_bytes_sent: self.next.saturating_sub(1 + u64::from(fin_sent)),
            payload_bytes_received: self.receiver.payload_bytes(),
            ..self.rare.as_ref().map(|rare| rare.statistics).unwrap_or_default()
        }
    }
}
