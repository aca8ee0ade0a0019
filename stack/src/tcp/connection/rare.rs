//! What a connection keeps of what most connections never meet: losses, refusals, probes of the path. It is apart from
//! the rest, and made when it is first needed, so that it takes neither memory nor cache from the others.

use super::probing::MtuSearch;
use super::{Connection, Undo};
use crate::tcp::maybe::Maybe;
use crate::tcp::recovery::{RateReduction, TailProbe};
use crate::tcp::segment::Header;
use crate::tcp::statistics::ConnectionStatistics;
use crate::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// Of all counters those that the connection does not keep itself: see [`Connection::statistics`].
    pub(super) statistics: ConnectionStatistics,
    /// Present while [`Connection::has_reset_pending`] says so.
    pub(super) pending_reset: Option<Box<Header>>,
    pub(super) mtu_search: MtuSearch,
    pub(super) reduction: RateReduction,
    /// Set while the acknowledgement of the first retransmission may still tell that the loss was not real (RFC 3522).
    pub(super) undo: Option<Undo>,
    /// Retransmissions of the present or last recovery that no D-SACK has called needless yet (RFC 3708).
    pub(super) undo_balance: Option<u32>,
    /// The present recovery ends when this is acknowledged: everything sent before it began.
    pub(super) recovery_until: u64,
    /// Present while [`Connection::tail_probe_out`] says so.
    pub(super) tail_probe: Option<TailProbe>,
    /// When something out of band last left although the congestion window was full.
    pub(super) urgent_beyond_at: Maybe<Instant>,
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

    /// Segments sent again.
    pub(super) fn retransmits(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| rare.statistics.retransmits)
    }

    /// What must be acknowledged for the present recovery to end.
    pub(super) fn recovery_until(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| rare.recovery_until)
    }

    /// The tail loss probe that is out.
    pub(super) fn tail_probe(&self) -> Option<TailProbe> {
        self.rare.as_ref()?.tail_probe.filter(|_| self.tail_probe_out)
    }

    /// A tail loss probe leaves.
    pub(super) fn note_tail_probe(&mut self, probe: TailProbe) {
        self.tail_probe_out = true;
        self.rare_mut().tail_probe = Some(probe);
    }

    /// When something out of band last left although the congestion window was full.
    pub(super) fn urgent_beyond_at(&self) -> Option<Instant> {
        self.rare.as_ref()?.urgent_beyond_at.get()
    }

    /// The next transmission is this RST.
    pub(super) fn reset_with(&mut self, header: Option<Header>) {
        self.has_reset_pending = header.is_some();
        if self.has_reset_pending || self.rare.is_some() {
            self.rare_mut().pending_reset = header.map(Box::new);
        }
    }

    /// The RST that is due.
    pub(super) fn take_reset(&mut self) -> Option<Header> {
        self.has_reset_pending = false;
        self.rare.as_mut()?.pending_reset.take().map(|header| *header)
    }

    /// Counters.
    pub fn statistics(&self) -> ConnectionStatistics {
        ConnectionStatistics {
            segments_sent: self.segments_sent,
            segments_received: self.segments_received,
            acks_sent: self.acks_sent,
            // A stream offset is the number of bytes before it, of which SYN is one, and FIN one.
            payload_bytes_sent: self.next.saturating_sub(1 + u64::from(self.fin_sent)),
            payload_bytes_received: self.receiver.payload_bytes(),
            ..self.rare.as_ref().map(|rare| rare.statistics).unwrap_or_default()
        }
    }
}
