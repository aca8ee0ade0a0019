//! Out-of-band messages: heartbeats that ride at the head of the next segment, whatever is queued behind it.

mod registry;
#[cfg(test)]
mod tests;

use core::fmt;
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use outrider_stack::time::Instant;

use crate::report::PingReport;

pub(crate) use registry::Registry;

/// Who handles a part on the peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OobOp(pub u16);

impl OobOp {
    /// The messenger's own liveness.
    pub const PING: OobOp = OobOp(1);
    /// Between storage daemons.
    pub const OSD_PING: OobOp = OobOp(2);
    /// A client's lingering operations.
    pub const LINGER_PING: OobOp = OobOp(3);
    /// A client's watches.
    pub const WATCH_PING: OobOp = OobOp(4);
    /// First of the range for applications.
    const APPLICATION_BASE: u16 = 0x8000;

    /// The `n`th op of the application range, `None` from 32768 on.
    pub const fn application(n: u16) -> Option<OobOp> {
        if n < Self::APPLICATION_BASE { Some(OobOp(Self::APPLICATION_BASE + n)) } else { None }
    }
}

impl fmt::Debug for OobOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            OobOp::PING => f.write_str("PING"),
            OobOp::OSD_PING => f.write_str("OSD_PING"),
            OobOp::LINGER_PING => f.write_str("LINGER_PING"),
            OobOp::WATCH_PING => f.write_str("WATCH_PING"),
            OobOp(other) => write!(f, "op {other:#06x}"),
        }
    }
}

/// What a callback is told when its part is about to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OobTurn {
    /// The instant of departure.
    pub now: Instant,
    /// When the part was due.
    pub due: Instant,
    /// Sequence of the OOB message that is being made.
    pub sequence: u64,
    /// Bytes that the part may have at most; more is refused.
    pub bytes_max: usize,
}

/// One registered op's bytes inside an OOB message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OobPart {
    /// Who handles it.
    pub op: OobOp,
    /// What the callback made.
    pub bytes: Bytes,
}

/// An OOB message as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OobMessage {
    /// The parts; none in a mere echo.
    pub parts: Vec<OobPart>,
    /// What the peer said about the connection.
    pub report: PingReport,
    /// Arrival on this side's clock.
    pub arrived_at: Instant,
    /// Whether it overtook bytes that were lost on the way.
    pub ahead_of_gap: bool,
}

impl OobMessage {
    /// The round-trip time of this side's message that is echoed in it, without the time that the peer held it.
    pub fn round_trip(&self) -> Option<Duration> {
        let echo = self.report.echo?;
        Some(self.arrived_at.since(echo.departed_at).saturating_sub(echo.held))
    }
}

/// Counts of a connection's OOB messages since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OobStatistics {
    /// OOB messages sent, mere echoes included.
    pub sent: u64,
    /// OOB messages delivered to the dispatcher, each once.
    pub received: u64,
    /// Turns that came while the one before had not left yet.
    pub superseded: u64,
    /// Turns that the callback passed.
    pub skipped: u64,
    /// Parts too large to be sent.
    pub refused: u64,
    /// Parts sent.
    pub parts_sent: u64,
    /// Parts delivered.
    pub parts_received: u64,
    /// OOB messages delivered ahead of a gap.
    pub ahead_of_gap: u64,
    /// OOB messages that came again after they had been delivered ahead of a gap.
    pub duplicates: u64,
}

/// Makes a part's bytes at the instant of departure. Runs on the thread of the connection: it must not block.
pub type OobCallback = Box<dyn FnMut(&OobTurn) -> Option<Bytes> + Send>;

/// State shared by a registration's owner and the connection, in one word.
#[derive(Debug)]
pub(crate) struct RegistrationState {
    /// Twice the parts refused, and one if the owner has dropped the registration.
    word: AtomicU64,
}

impl RegistrationState {
    const DROPPED: u64 = 1;
    const ONE_REFUSED: u64 = 2;

    pub(crate) fn new() -> Arc<Self> {
        Arc::new(RegistrationState { word: AtomicU64::new(0) })
    }

    /// Whether the owner still wants the op.
    pub(crate) fn is_alive(&self) -> bool {
        self.word.load(Ordering::Acquire) & Self::DROPPED == 0
    }

    /// The owner wants the op no more.
    pub(crate) fn drop_registration(&self) {
        self.word.fetch_or(Self::DROPPED, Ordering::Release);
    }

    /// Parts too large to be sent.
    pub(crate) fn refused(&self) -> u64 {
        self.word.load(Ordering::Relaxed) / Self::ONE_REFUSED
    }

    pub(crate) fn count_refused(&self) {
        self.word.fetch_add(Self::ONE_REFUSED, Ordering::Relaxed);
    }
}

/// An op to be registered, on its way to the connection's thread.
pub struct OobRequest {
    pub(crate) op: OobOp,
    pub(crate) interval: Duration,
    pub(crate) callback: OobCallback,
    pub(crate) state: Arc<RegistrationState>,
}

impl OobRequest {
    /// Has `callback` asked for a part every `interval` once a session is given this.
    ///
    /// # Errors
    /// An interval outside [`INTERVAL_MIN`] to [`INTERVAL_MAX`].
    pub fn new(
        op: OobOp,
        callback: impl FnMut(&OobTurn) -> Option<Bytes> + Send + 'static,
        interval: Duration,
    ) -> Result<OobRequest, RegisterError> {
        if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
            return Err(RegisterError::IntervalOutOfRange { op, interval });
        }
        Ok(OobRequest { op, interval, callback: Box::new(callback), state: RegistrationState::new() })
    }
}

impl fmt::Debug for OobRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OobRequest")
            .field("op", &self.op)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// Shortest interval of a registration.
pub const INTERVAL_MIN: Duration = Duration::from_micros(100);
/// Longest interval of a registration.
pub const INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Ops that one connection takes at most.
pub const OPS_MAX: usize = 64;

/// Why an op was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The op has a registration on this connection; drop that first.
    #[error("{op:?} is registered on this connection already; drop the other registration first")]
    AlreadyRegistered {
        /// The op.
        op: OobOp,
    },
    /// Outside [`INTERVAL_MIN`] to [`INTERVAL_MAX`].
    #[error("interval of {op:?} is {interval:?}; it must be from {INTERVAL_MIN:?} to {INTERVAL_MAX:?}")]
    IntervalOutOfRange {
        /// The op.
        op: OobOp,
        /// The interval.
        interval: Duration,
    },
    /// The connection has [`OPS_MAX`] ops, or as many requests that its thread has not got to yet.
    #[error("the connection takes no more than {OPS_MAX} registered ops")]
    TooMany,
    /// The connection is closed.
    #[error("the connection is closed")]
    Closed,
    /// The connection leads to this messenger itself: there is nobody to be told that it lives.
    #[error("a loopback connection has no out-of-band messages")]
    Loopback,
}
