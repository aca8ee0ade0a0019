//! Sequence numbers of the wire, and their relation to stream offsets.

use core::fmt;

/// A 32-bit TCP sequence number (RFC 9293 section 3.4): wraps, so it has no order of its own.
///
/// Inside the engine every position is a 64-bit *stream offset* (0 is the SYN, 1 the first byte); only the edge to
/// the wire converts, which keeps wrapping arithmetic out of all other code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNumber(pub u32);

impl SeqNumber {
    /// The number `distance` bytes further on.
    pub const fn add(self, distance: u32) -> Self {
        SeqNumber(self.0.wrapping_add(distance))
    }

    /// Signed distance from `other` to `self`; correct while the two are less than 2 GiB apart.
    pub const fn distance(self, other: SeqNumber) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// Whether `self` comes before `other`.
    pub const fn before(self, other: SeqNumber) -> bool {
        self.distance(other) < 0
    }

    /// The wire number of the stream offset `offset`, for a stream whose SYN has this number.
    pub const fn at(self, offset: u64) -> SeqNumber {
        SeqNumber(self.0.wrapping_add(offset as u32))
    }

    /// The stream offset of `wire`, taken as the one nearest to `near`; `None` when it would lie before the SYN.
    pub const fn offset_near(self, wire: SeqNumber, near: u64) -> Option<u64> {
        let distance = wire.distance(self.at(near)) as i64;
        near.checked_add_signed(distance)
    }
}

impl fmt::Debug for SeqNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
