//! How a link behaves, what happened on it, and a handle to change both from another thread.

use core::time::Duration;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Smallest MTU a link has (RFC 791: every IPv4 host forwards 68 bytes).
const MTU_BYTES_MIN: usize = 68;
/// Largest MTU a link has: the largest IPv4 packet.
const MTU_BYTES_MAX: usize = 65_535;

/// One direction of a link: a bottleneck queue, a wire of a given rate and length, and its faults.
///
/// A frame waits in the queue, takes its serialisation time at the rate, travels for the delay, and may meet a fault
/// on the way, in the order loss, corruption, duplication, reordering. Rate and queue count whole Ethernet frames
/// without preamble, FCS and gap. Probabilities are per frame, 0.0 to 1.0.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkConfig {
    /// Bits per second; zero is unlimited.
    pub rate_bits_per_second: u64,
    /// Propagation delay.
    pub delay: Duration,
    /// Bytes that may wait for the wire, the frame on the wire included; a frame that finds no room is dropped (an
    /// idle link always takes one). On a link with neither rate nor delay the receiver is the bottleneck, and the
    /// bound is on what it has not fetched. A link with a delay but no rate queues nothing.
    pub queue_bytes: usize,
    /// Probability that a frame is lost on the wire.
    pub loss: f64,
    /// Probability that a frame is held back by `reorder_delay`, so that later ones overtake it.
    pub reorder: f64,
    /// How long a reordered frame is held back beyond the delay.
    pub reorder_delay: Duration,
    /// Probability that a frame arrives twice.
    pub duplicate: f64,
    /// Probability that one random bit of a frame is flipped.
    pub corrupt: f64,
    /// Marks ECN-capable packets Congestion Experienced (RFC 3168) when more than this many bytes are queued.
    pub ecn_mark_bytes: Option<usize>,
    /// Largest IP packet in bytes; longer ones vanish and are counted, as on a path with a black hole. The MTU that a
    /// port announces is fixed when the port is made.
    pub mtu: usize,
    /// Frames arrive as [`ReceiveChecksum::Unverified`](crate::port::ReceiveChecksum), so that receivers do the real
    /// work of verifying. If false, and `corrupt` is zero, they arrive as `Valid`.
    pub verify_checksums: bool,
    /// If set, the queue is the sender's own transmit ring of this many bytes instead of one in a middle box: the
    /// port reports what it holds as outstanding, and refuses instead of dropping when it is full.
    pub ring_bytes: Option<usize>,
    /// Largest TCP super-segment, in bytes of its IP packet, that the sending port takes and cuts; it then completes
    /// checksums too. Zero: none. What a port announces is fixed when it is made.
    pub segment_bytes_max: u32,
    /// Bytes the link holds in all (queued, travelling, not fetched by the receiver); the bound on its memory.
    pub held_bytes_max: usize,
}

impl Default for LinkConfig {
    /// Unlimited, without delay or faults: a 1 MiB queue, MTU 1500, at most 64 MiB held.
    fn default() -> Self {
        LinkConfig {
            rate_bits_per_second: 0,
            delay: Duration::ZERO,
            queue_bytes: 1 << 20,
            loss: 0.0,
            reorder: 0.0,
            reorder_delay: Duration::from_millis(1),
            duplicate: 0.0,
            corrupt: 0.0,
            ecn_mark_bytes: None,
            mtu: 1500,
            verify_checksums: true,
            ring_bytes: None,
            segment_bytes_max: 0,
            held_bytes_max: 64 << 20,
        }
    }
}

impl LinkConfig {
    /// The MTU within what IPv4 allows.
    pub(super) fn mtu_clamped(&self) -> usize {
        self.mtu.clamp(MTU_BYTES_MIN, MTU_BYTES_MAX)
    }

    /// Bytes that may sit between sender and receiver in all.
    pub(super) fn held_limit(&self) -> usize {
        if self.rate_bits_per_second == 0 && self.delay.is_zero() {
            self.queue_bytes.min(self.held_bytes_max)
        } else {
            self.held_bytes_max
        }
    }
}

/// What happened on one direction of a link. `offered_frames` + `duplicated_frames` = `carried_frames` + all drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStatistics {
    /// Frames that entered the link.
    pub offered_frames: u64,
    /// Bytes that entered the link.
    pub offered_bytes: u64,
    /// Frames that will arrive or have arrived, duplicates included.
    pub carried_frames: u64,
    /// Bytes that will arrive or have arrived, duplicates included.
    pub carried_bytes: u64,
    /// Frames dropped because the bottleneck queue was full.
    pub dropped_queue_frames: u64,
    /// Frames lost on the wire by [`LinkConfig::loss`].
    pub dropped_loss_frames: u64,
    /// Frames swallowed while the link was a black hole.
    pub dropped_blackhole_frames: u64,
    /// Frames longer than the link's MTU.
    pub dropped_mtu_frames: u64,
    /// Frames dropped because the receiver had not fetched what came before.
    pub dropped_overrun_frames: u64,
    /// Frames for which there was no receiver: the other end is gone, or a switch knew nowhere to send them.
    pub dropped_unreachable_frames: u64,
    /// Second copies made by [`LinkConfig::duplicate`].
    pub duplicated_frames: u64,
    /// Frames held back by [`LinkConfig::reorder`].
    pub reordered_frames: u64,
    /// Frames in which a bit was flipped.
    pub corrupted_frames: u64,
    /// Packets marked Congestion Experienced.
    pub ce_marked_frames: u64,
    /// Bytes queued after the last frame offered.
    pub queued_bytes: usize,
    /// Most bytes ever queued.
    pub queued_bytes_max: usize,
}

/// What both the link and the holders of its [`LinkControl`] see.
#[derive(Debug)]
pub(super) struct LinkShared {
    /// Grows with each change, so that the link looks into the mutex only then.
    generation: AtomicU64,
    settings: Mutex<(LinkConfig, bool)>,
    statistics: Mutex<LinkStatistics>,
}

/// A handle on one direction of a link, for use while the ports belong to other threads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LinkControl {
    shared: Arc<LinkShared>,
}

impl LinkControl {
    pub(super) fn new(config: LinkConfig) -> Self {
        LinkControl {
            shared: Arc::new(LinkShared {
                generation: AtomicU64::new(0),
                settings: Mutex::new((config, false)),
                statistics: Mutex::default(),
            }),
        }
    }

    /// Changes the link from the next frame on. Frames already on it keep their times, and order is kept.
    pub fn set_link(&self, config: LinkConfig) {
        self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner).0 = config;
        self.shared.generation.fetch_add(1, Ordering::Release);
    }

    /// Makes the link swallow every frame from the next on, or carry them again. Frames already on it arrive.
    pub fn set_blackhole(&self, swallow: bool) {
        self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner).1 = swallow;
        self.shared.generation.fetch_add(1, Ordering::Release);
    }

    /// The configuration in force.
    pub fn config(&self) -> LinkConfig {
        self.settings().0
    }

    /// Counters as of the last burst.
    pub fn statistics(&self) -> LinkStatistics {
        *self.shared.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    pub(super) fn settings(&self) -> (LinkConfig, bool) {
        self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn publish(&self, statistics: &LinkStatistics) {
        *self.shared.statistics.lock().unwrap_or_else(PoisonError::into_inner) = *statistics;
    }
}
