//! Congestion control behind one trait.
//!
//! [`Algorithm::build`] gives a controller: [`cubic::Cubic`] (loss-based, for paths shared with ordinary TCP) or
//! [`bbr::Bbr`] (delay-bounded, the default: a heartbeat waits in whatever queue the controller leaves standing).
//! Nothing here reads a clock or a random source: time and seed are arguments.

use core::fmt;
use core::time::Duration;

use crate::time::Instant;

mod algorithm;
pub mod bbr;
pub mod cubic;
pub mod dctcp;
pub mod hystart;
mod pacing;
mod random;
pub mod reno;
mod usage;

pub use algorithm::{Algorithm, ParseAlgorithmError};

/// How much may leave at once, at the pacing rate: what a super-segment holds at most, for it goes into the queue of the
/// bottleneck.
pub(crate) const SUPER_SEGMENT_TIME: Duration = Duration::from_micros(100);

/// What an acknowledgement told, as the engine hands it to the controller: once per incoming segment that moved
/// anything, after losses were marked.
#[derive(Clone, Copy, Debug)]
pub struct AckSample {
    /// When the segment arrived.
    pub now: Instant,
    /// Bytes newly delivered by it, cumulatively or by SACK.
    pub newly_delivered: u64,
    /// Bytes newly acknowledged cumulatively.
    pub newly_acked: u64,
    /// Bytes newly marked lost while processing it.
    pub newly_lost: u64,
    /// Round-trip time of the most recently sent segment that it acknowledged and that was never retransmitted.
    pub rtt: Option<Duration>,
    /// Smallest RTT the engine has seen on the connection.
    pub rtt_min: Option<Duration>,
    /// Smoothed RTT.
    pub smoothed_rtt: Option<Duration>,
    /// Bytes in the network by the pipe estimate (sent, minus delivered, minus lost, plus retransmitted) before and
    /// after this segment was processed.
    pub pipe_before: u64,
    /// See `pipe_before`.
    pub pipe: u64,
    /// Delivery rate sample, if this acknowledgement yields a valid one.
    pub rate: Option<RateSample>,
    /// Total bytes delivered so far on the connection, this acknowledgement included.
    pub delivered: u64,
    /// Whether SND.UNA has passed what was SND.NXT when the last round began: a round trip has ended.
    pub round_start: bool,
    /// Whether the sender has had too little to send to fill the window.
    pub app_limited: bool,
    /// Bytes acknowledged with an echoed congestion mark (ECE), zero without ECN.
    pub ce_marked: u64,
    /// Whether fast recovery was under way when the acknowledgement came; not so after a timeout.
    pub in_recovery: bool,
}

/// One delivery rate sample (draft-ietf-ccwg-bbr, section on delivery rate sampling).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateSample {
    /// Bytes delivered over the interval.
    pub delivered: u64,
    /// The interval: the longer of the send and the ACK interval. Never zero.
    pub interval: Duration,
    /// `delivered` of the connection when the sampled segment was sent.
    pub prior_delivered: u64,
    /// Bytes lost between the sampled segment's departure and now.
    pub lost: u64,
    /// Bytes in the pipe when the sampled segment was sent, the segment included.
    pub pipe_at_send: u64,
    /// Whether the sampled segment was sent while the sender had too little to send.
    pub app_limited: bool,
}

impl RateSample {
    /// Bytes per second.
    pub fn bytes_per_second(&self) -> u64 {
        rate_of(self.delivered, self.interval)
    }
}

/// Bytes per second, if so many pass in a time.
pub(crate) fn rate_of(bytes: u64, time: Duration) -> u64 {
    scaled(bytes, 1_000_000_000, nanos(time).max(1))
}

/// Nanoseconds of a time, saturating.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// `value` times `factor` over `divisor`, saturating. A division of 128 bits is a call, and there are nine of these for
/// an acknowledgement, of which nearly none needs them.
#[inline]
fn scaled(value: u64, factor: u64, divisor: u64) -> u64 {
    match value.checked_mul(factor) {
        Some(product) => product / divisor,
        None => {
            u64::try_from(u128::from(value) * u128::from(factor) / u128::from(divisor)).unwrap_or(u64::MAX)
        }
    }
}

/// Why the controller is told of congestion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CongestionEvent {
    /// Loss was detected for the first time in this round trip; recovery begins.
    Loss,
    /// An ECN echo for the first time in this round trip.
    EcnEcho,
    /// The retransmission timer expired.
    Timeout,
    /// The last `Loss` or `Timeout` proved spurious: give back what it took.
    Undo,
    /// Recovery has ended.
    RecoveryEnd,
    /// Sending resumes after an idle time longer than the RTO.
    IdleRestart,
}

/// A congestion controller. Deterministic: same calls, same answers.
///
/// Input: [`Self::on_sent`], [`Self::on_ack`], [`Self::on_event`]. Output, valid at any time: [`Self::window`],
/// [`Self::pacing_rate`].
pub trait CongestionControl: Send + fmt::Debug {
    /// Name as options and reports spell it.
    fn name(&self) -> &'static str;

    /// `bytes` left at `now`; `pipe` is the pipe before them.
    fn on_sent(&mut self, now: Instant, bytes: u64, pipe: u64);

    /// What leaves next may be a super-segment: the port takes several segments as one, and so may the peer's.
    fn on_super_segment(&mut self) {}

    /// An acknowledgement was processed.
    fn on_ack(&mut self, sample: &AckSample);

    /// Congestion, or its end. `pipe` is the pipe at that instant.
    fn on_event(&mut self, now: Instant, event: CongestionEvent, pipe: u64);

    /// Bytes that may be in the network.
    fn window(&self) -> u64;

    /// Slow-start threshold in bytes, `u64::MAX` if there is none yet; for statistics.
    fn slow_start_threshold(&self) -> u64;

    /// Bytes per second at which segments leave; `None` for no pacing.
    fn pacing_rate(&self) -> Option<u64>;

    /// Whether the engine bounds sending in recovery by PRR (RFC 6937). A controller that models the path itself
    /// does not want it.
    fn wants_rate_reduction(&self) -> bool {
        true
    }

    /// The maximum segment size changed (path MTU).
    fn set_segment_size(&mut self, bytes: u64);

    /// The phase the controller is in, as reports spell it.
    fn phase(&self) -> &'static str;

    /// Bytes per second that the controller believes the path delivers, if it has a model of the path.
    fn bandwidth(&self) -> Option<u64> {
        None
    }
}
