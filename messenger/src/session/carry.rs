//! What outlives the connection of a session.

use super::credit::ReceiveCredit;
use super::lanes::SendQueue;
use super::oob::OobState;
use super::{ConnectionStatistics, RECEIVE_CREDIT_BYTES_MIN, Released};
use crate::codec::SessionTerms;
use crate::message::LANES;
use crate::sparse::Moment;

/// The part of a session that is not about one connection: messages unsent and unacknowledged, what was received,
/// registered ops, counts.
///
/// A [`super::Session`] holds it while it is open ([`super::Session::admit`], [`super::Session::resume`]) and gives it
/// back at the end ([`super::Session::release`]). In between whoever owns the logical connection keeps it.
///
/// Laid out as it stands: what a heartbeat looks at is together, in the middle, and what only messages move is at the ends.
#[repr(C)]
pub struct Carry {
    /// Messages received in each lane since the session began.
    pub(super) received: [u64; LANES],
    pub(super) statistics: ConnectionStatistics,
    pub(super) last_heard: Moment,
    pub(super) oob: OobState,
    pub(super) credit: ReceiveCredit,
    pub(super) released: Released,
    pub(super) queue: SendQueue,
}

impl Carry {
    /// A session that has not begun. `receive_credit_bytes` is raised to [`RECEIVE_CREDIT_BYTES_MIN`].
    pub fn new(receive_credit_bytes: u64, seed: u64) -> Self {
        Carry {
            received: [0; LANES],
            statistics: ConnectionStatistics::default(),
            last_heard: Moment::NEVER,
            oob: OobState::new(seed),
            credit: ReceiveCredit::new(receive_credit_bytes.max(RECEIVE_CREDIT_BYTES_MIN)),
            released: Released::default(),
            queue: SendQueue::default(),
        }
    }

    /// Puts what this end has received, and what it grants, into `terms`.
    pub fn state_in(&mut self, terms: &mut SessionTerms) {
        terms.received = self.received;
        terms.credit_limit = self.credit.begin();
    }

    /// What has left the send budget and nobody was told yet.
    pub fn take_released(&mut self) -> Released {
        core::mem::take(&mut self.released)
    }

    /// Whether the peer is still to get messages.
    pub fn has_messages(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether there is a reason to have a connection: messages that the peer does not have, or ops registered.
    pub fn wants_connection(&self) -> bool {
        !self.queue.is_empty() || self.oob.registry.has_live()
    }

    #[cfg(test)]
    pub(crate) fn queue_for_test(&mut self, message: crate::Message) {
        self.queue.push(message);
    }

    /// The peer has lost its side, and what it had not acknowledged is sent to its next life.
    pub fn renew(&mut self) {
        self.received = [0; LANES];
        self.queue.restart();
    }

    /// The peer has lost its side, and what was meant for it is dropped.
    pub fn discard(&mut self) {
        let released = self.queue.clear();
        self.released.merge(released);
        self.renew();
    }
}

impl core::fmt::Debug for Carry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Carry")
            .field("received", &self.received)
            .field("unsent", &self.queue.report())
            .finish_non_exhaustive()
    }
}
