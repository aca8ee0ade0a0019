//! Feature bits of the banner.

use core::fmt;

/// A set of feature bits. A peer's unknown bits are kept and mean nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(pub u64);

impl Features {
    /// No feature.
    pub const NONE: Features = Features(0);
    /// Takes and sends OOB messages.
    pub const OOB: Features = Features(1 << 0);
    /// Grants and respects receive credit.
    pub const CREDIT: Features = Features(1 << 1);
    /// Delivers OOB messages ahead of a gap, so they need not wait for retransmissions.
    pub const OOB_AHEAD: Features = Features(1 << 2);
    /// All that this version knows.
    pub const KNOWN: Features = Features(Self::OOB.0 | Self::CREDIT.0 | Self::OOB_AHEAD.0);
    /// What this version cannot do without: unbounded memory is not an option.
    pub const REQUIRED: Features = Self::CREDIT;

    /// Whether all bits of `other` are in `self`.
    pub const fn contains(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }

    /// Bits of both.
    #[must_use]
    pub const fn and(self, other: Features) -> Features {
        Features(self.0 & other.0)
    }

    /// Bits of `self` that `other` lacks.
    #[must_use]
    pub const fn without(self, other: Features) -> Features {
        Features(self.0 & !other.0)
    }

    /// Whether there is no bit.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features({:#x})", self.0)
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
