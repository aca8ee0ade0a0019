//! What an application sends.

use bytes::Bytes;

/// Priorities as Ceph has them. Strict between the four lanes that they divide into, first in first out within one.
pub mod priority {
    /// Background work, such as recovery.
    pub const LOW: u8 = 64;
    /// Ordinary traffic.
    pub const DEFAULT: u8 = 127;
    /// Replies that others wait for.
    pub const HIGH: u8 = 196;
    /// Cluster control.
    pub const HIGHEST: u8 = 255;
}

/// Number of lanes.
pub const LANES: usize = 4;

/// The lane of a priority: 0 up to [`priority::LOW`], 1 up to [`priority::DEFAULT`], 2 up to [`priority::HIGH`],
/// 3 above. A higher lane goes first, also in the middle of a large message of a lower one.
pub const fn lane_of(priority: u8) -> usize {
    if priority <= priority::LOW {
        0
    } else if priority <= priority::DEFAULT {
        1
    } else if priority <= priority::HIGH {
        2
    } else {
        3
    }
}

/// A message: a type, a priority, a transaction id and a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The application's message type.
    pub kind: u16,
    /// Priority; see [`priority`].
    pub priority: u8,
    /// Transaction id; the messenger only carries it.
    pub tid: u64,
    /// Payload.
    pub payload: Bytes,
}

impl Message {
    /// A message of [`priority::DEFAULT`] and tid 0.
    pub fn new(kind: u16, payload: impl Into<Bytes>) -> Self {
        Message { kind, priority: priority::DEFAULT, tid: 0, payload: payload.into() }
    }

    /// The same with another priority.
    #[must_use]
    pub fn with_priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// The same with another transaction id.
    #[must_use]
    pub fn with_tid(mut self, tid: u64) -> Self {
        self.tid = tid;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_divide_into_four_lanes_at_cephs_values() {
        for (priority, lane) in [(0, 0), (64, 0), (65, 1), (127, 1), (128, 2), (196, 2), (197, 3), (255, 3)] {
            assert_eq!(lane_of(priority), lane, "priority {priority}");
        }
    }
}
