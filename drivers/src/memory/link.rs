//! [`Link`]: the model of one direction of a link. It decides what becomes of a frame and when it arrives; it holds
//! no frames and reads no clock.

use core::time::Duration;

use super::config::{LinkConfig, LinkControl, LinkStatistics};
use super::ecn::mark_congestion_experienced;
use crate::port::{ReceiveChecksum, serialisation_time};
use crate::rng::Rng;
use crate::time::Instant;

/// Bytes of an Ethernet header, by which a frame is longer than the packet the MTU bounds.
pub(super) const ETHERNET_HEADER_BYTES: usize = 14;

/// Bits in a byte times nanoseconds in a second.
const BIT_NANOS_PER_BYTE: u64 = 8_000_000_000;

/// How a frame gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passage {
    /// When it is at the other end.
    pub at: Instant,
    /// It arrives twice.
    pub twice: bool,
    /// What its receiver may believe.
    pub checksum: ReceiveChecksum,
}

/// A generator for each fault, so that turning one on does not change where another strikes.
#[derive(Debug)]
struct Faults {
    loss: Rng,
    corrupt: Rng,
    duplicate: Rng,
    reorder: Rng,
}

#[derive(Debug)]
pub(super) struct Link {
    control: LinkControl,
    generation: u64,
    config: LinkConfig,
    /// The sender owns the queue, so that it may be its transmit ring.
    sender_side: bool,
    blackhole: bool,
    faults: Faults,
    /// The latest instant seen; callers in different threads may be a little out of step.
    clock: Instant,
    /// When the wire has sent all that is queued, rounded down to a nanosecond...
    busy_until: Instant,
    /// ...and what was rounded off, in nanoseconds / rate, so that rounding never adds up to a wrong rate.
    rounded_off: u64,
    /// When the last frame that was not reordered arrives; later ones arrive no earlier.
    last_arrival: Instant,
    statistics: LinkStatistics,
}

impl Link {
    pub(super) fn new(config: LinkConfig, rng: &mut Rng) -> Self {
        Link {
            control: LinkControl::new(config.clone()),
            generation: 0,
            config,
            sender_side: true,
            blackhole: false,
            faults: Faults {
                loss: rng.fork(),
                corrupt: rng.fork(),
                duplicate: rng.fork(),
                reorder: rng.fork(),
            },
            clock: Instant::ZERO,
            busy_until: Instant::ZERO,
            rounded_off: 0,
            last_arrival: Instant::ZERO,
            statistics: LinkStatistics::default(),
        }
    }

    /// A link whose queue is in a switch: [`LinkConfig::ring_bytes`] does not apply.
    pub(super) fn of_switch(config: LinkConfig, rng: &mut Rng) -> Self {
        let mut link = Link::new(config, rng);
        link.sender_side = false;
        link
    }

    /// Bytes of the sender's transmit ring, if the queue is one.
    fn ring_bytes(&self) -> Option<usize> {
        self.config.ring_bytes.filter(|_| self.sender_side)
    }

    pub(super) fn control(&self) -> &LinkControl {
        &self.control
    }

    pub(super) fn config(&self) -> &LinkConfig {
        &self.config
    }

    pub(super) fn statistics(&self) -> &LinkStatistics {
        &self.statistics
    }

    /// Lets the holders of a [`LinkControl`] see the counters.
    pub(super) fn publish(&self) {
        self.control.publish(&self.statistics);
    }

    /// Takes over what was changed through a [`LinkControl`]; returns whether anything was.
    pub(super) fn refresh(&mut self, now: Instant) -> bool {
        let generation = self.control.generation();
        if generation == self.generation {
            return false;
        }
        let now = now.max(self.clock);
        let backlog_bytes = self.backlog_bytes(now);
        self.generation = generation;
        (self.config, self.blackhole) = self.control.settings();
        // What is queued keeps its arrival times; the wire is busy with as many bytes as before, at the new rate.
        self.busy_until = now + serialisation_time(backlog_bytes, self.config.rate_bits_per_second);
        self.rounded_off = 0;
        true
    }

    /// Bytes queued or on the wire, rounded up.
    pub(super) fn backlog_bytes(&self, now: Instant) -> usize {
        let nanos = self.busy_until.since(now.max(self.clock)).as_nanos() as u64;
        let rate = self.config.rate_bits_per_second;
        if nanos == 0 || rate == 0 {
            return 0;
        }
        match nanos.checked_mul(rate) {
            Some(product) => product.div_ceil(BIT_NANOS_PER_BYTE) as usize,
            None => (u128::from(nanos) * u128::from(rate)).div_ceil(BIT_NANOS_PER_BYTE.into()) as usize,
        }
    }

    /// Whether a transmit ring has room for a frame of `bytes`; always, if the link has none.
    pub(super) fn ring_has_room(&self, now: Instant, bytes: usize) -> bool {
        let Some(ring_bytes) = self.ring_bytes() else { return true };
        let backlog_bytes = self.backlog_bytes(now);
        backlog_bytes == 0 || backlog_bytes + bytes <= ring_bytes
    }

    /// When the transmit ring will have room for a frame of `bytes`; `None` if it has now.
    pub(super) fn ring_room_at(&self, now: Instant, bytes: usize) -> Option<Instant> {
        if self.ring_has_room(now, bytes) {
            return None;
        }
        let spare_bytes = self.ring_bytes()?.saturating_sub(bytes);
        // Rounded down, towards the later instant, so that there is room when the caller comes back.
        let lead = whole_nanos(spare_bytes, self.config.rate_bits_per_second);
        Some(self.busy_until - lead)
    }

    /// The earliest a frame of `bytes` offered at `at` can arrive.
    pub(super) fn arrival_at_best(&self, at: Instant, bytes: usize) -> Instant {
        let wire = whole_nanos(bytes, self.config.rate_bits_per_second);
        (at.max(self.busy_until) + wire + self.config.delay).max(self.last_arrival)
    }

    /// Sends a frame on its way at `now`; faults change it in place. `None`: it is lost, and counted.
    pub(super) fn offer(&mut self, now: Instant, frame: &mut [u8]) -> Option<Passage> {
        let now = now.max(self.clock);
        self.clock = now;
        self.statistics.offered_frames += 1;
        self.statistics.offered_bytes += frame.len() as u64;
        if self.blackhole {
            self.statistics.dropped_blackhole_frames += 1;
            return None;
        }
        if frame.len() > self.config.mtu_clamped() + ETHERNET_HEADER_BYTES {
            self.statistics.dropped_mtu_frames += 1;
            return None;
        }
        let backlog_bytes = self.backlog_bytes(now);
        let queue_bytes = if self.ring_bytes().is_some() { usize::MAX } else { self.config.queue_bytes };
        if backlog_bytes > 0 && backlog_bytes + frame.len() > queue_bytes {
            self.statistics.dropped_queue_frames += 1;
            return None;
        }
        if self.config.ecn_mark_bytes.is_some_and(|threshold| backlog_bytes > threshold)
            && mark_congestion_experienced(frame)
        {
            self.statistics.ce_marked_frames += 1;
        }
        let departure = self.serialise(now, frame.len());
        if self.config.rate_bits_per_second > 0 {
            self.statistics.queued_bytes = backlog_bytes + frame.len();
            self.statistics.queued_bytes_max =
                self.statistics.queued_bytes_max.max(self.statistics.queued_bytes);
        }
        self.travel(departure, frame)
    }

    /// The wire after the queue: faults and the delay.
    fn travel(&mut self, departure: Instant, frame: &mut [u8]) -> Option<Passage> {
        let config = &self.config;
        if config.loss + config.corrupt + config.duplicate + config.reorder <= 0.0 {
            // Nothing can happen to it.
            self.last_arrival = (departure + config.delay).max(self.last_arrival);
            self.statistics.carried_frames += 1;
            self.statistics.carried_bytes += frame.len() as u64;
            return Some(Passage { at: self.last_arrival, twice: false, checksum: self.checksum() });
        }
        if self.config.loss > 0.0 && self.faults.loss.chance(self.config.loss) {
            self.statistics.dropped_loss_frames += 1;
            return None;
        }
        if self.config.corrupt > 0.0 && !frame.is_empty() && self.faults.corrupt.chance(self.config.corrupt) {
            let bit = self.faults.corrupt.below(frame.len() as u64 * 8) as usize;
            frame[bit / 8] ^= 1 << (bit % 8);
            self.statistics.corrupted_frames += 1;
        }
        let twice = self.config.duplicate > 0.0 && self.faults.duplicate.chance(self.config.duplicate);
        if twice {
            self.statistics.duplicated_frames += 1;
        }
        let mut at = (departure + self.config.delay).max(self.last_arrival);
        if self.config.reorder > 0.0 && self.faults.reorder.chance(self.config.reorder) {
            at += self.config.reorder_delay;
            self.statistics.reordered_frames += 1;
        } else {
            self.last_arrival = at;
        }
        let copies = 1 + u64::from(twice);
        self.statistics.carried_frames += copies;
        self.statistics.carried_bytes += copies * frame.len() as u64;
        Some(Passage { at, twice, checksum: self.checksum() })
    }

    /// What the receiver of a frame may believe.
    fn checksum(&self) -> ReceiveChecksum {
        let trusted = !self.config.verify_checksums && self.config.corrupt <= 0.0;
        if trusted { ReceiveChecksum::Valid } else { ReceiveChecksum::Unverified }
    }

    /// Puts `bytes` on the wire behind what is queued, and returns when the last of them leaves.
    fn serialise(&mut self, now: Instant, bytes: usize) -> Instant {
        let rate = self.config.rate_bits_per_second;
        if rate == 0 {
            self.busy_until = now;
            return now;
        }
        if self.busy_until < now {
            self.busy_until = now;
            self.rounded_off = 0;
        }
        // A frame has at most 65549 bytes, so the product stays below 2^50 and the sum with a remainder fits, unless
        // the rate is beyond 2^63 bit/s, where nothing is lost by saturating.
        let work = (bytes as u64 * BIT_NANOS_PER_BYTE).saturating_add(self.rounded_off);
        self.busy_until += Duration::from_nanos(work / rate);
        self.rounded_off = work % rate;
        self.busy_until
    }

    /// A frame that was to be carried found no room at the receiver.
    pub(super) fn count_overrun(&mut self, frames: u64, bytes: u64) {
        self.statistics.dropped_overrun_frames += frames;
        self.uncarry(frames, bytes);
    }

    /// A frame that was to be carried has no receiver.
    pub(super) fn count_unreachable(&mut self, frames: u64, bytes: u64) {
        self.statistics.dropped_unreachable_frames += frames;
        self.uncarry(frames, bytes);
    }

    fn uncarry(&mut self, frames: u64, bytes: u64) {
        self.statistics.carried_frames -= frames;
        self.statistics.carried_bytes -= bytes;
    }
}

/// Time `bytes` take on the wire, rounded down to a nanosecond; zero for an unlimited rate of zero.
fn whole_nanos(bytes: usize, rate_bits_per_second: u64) -> Duration {
    let work = bytes as u128 * u128::from(BIT_NANOS_PER_BYTE);
    let nanos = work.checked_div(rate_bits_per_second.into()).unwrap_or(0);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
