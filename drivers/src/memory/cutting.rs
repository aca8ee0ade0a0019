//! What a port whose link offers offloads does before a frame is on the link, as a network card does.

use super::link::ETHERNET_HEADER_BYTES;
use super::{MemoryPort, STAGED_FRAMES_MAX};
use crate::offload::{SuperSegment, complete_checksum};
use crate::port::{Capabilities, TxOffload};
use crate::time::Instant;

/// Largest IP packet, also as a super-segment.
const PACKET_BYTES_MAX: u32 = 65_535;

/// What a port offers whose link takes super-segments of `segment_bytes_max`.
pub(super) fn capabilities(segment_bytes_max: u32) -> Capabilities {
    Capabilities {
        tx_checksum: segment_bytes_max > 0,
        tx_segment_bytes_max: segment_bytes_max.min(PACKET_BYTES_MAX),
    }
}

impl MemoryPort {
    /// Takes one frame of which something is left to do, and stages what comes of it. See [`crate::port::Port::transmit`].
    pub(super) fn transmit_uncut(
        &mut self,
        now: Instant,
        length_max: usize,
        offload: TxOffload,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> bool {
        let Capabilities { tx_checksum, tx_segment_bytes_max } = self.info.capabilities;
        let packet_bytes_max =
            if offload.segment_size > 0 { tx_segment_bytes_max as usize } else { self.info.mtu };
        let room = packet_bytes_max + ETHERNET_HEADER_BYTES;
        assert!(tx_checksum && length_max <= room, "{} does not do this: {offload:?}", self.info.name);
        // A ring that takes one frame more takes all that this one makes.
        if self.staged.len() >= STAGED_FRAMES_MAX || !self.link.ring_has_room(now, self.frame_bytes_max()) {
            return false;
        }
        let mut uncut = core::mem::take(&mut self.uncut);
        if uncut.len() < length_max {
            uncut = vec![0; room].into_boxed_slice();
        }
        let length = fill(&mut uncut[..length_max]);
        assert!(length <= length_max, "{length} bytes were written into a buffer of {length_max}");
        if length > 0 {
            self.statistics.tx_frames += 1;
            self.statistics.tx_bytes += length as u64;
            if !self.finish(now, &mut uncut[..length], offload.segment_size) {
                self.statistics.tx_dropped += 1;
            }
        }
        self.uncut = uncut;
        length > 0
    }

    /// Does what is left to do to `frame`; `false` if it cannot be done to it.
    fn finish(&mut self, now: Instant, frame: &mut [u8], segment_size: u16) -> bool {
        if segment_size == 0 {
            let mut buffer = self.pool.take(self.frame_bytes_max().max(frame.len()));
            buffer[..frame.len()].copy_from_slice(frame);
            let complete = complete_checksum(&mut buffer[..frame.len()]);
            if complete {
                self.stage(now, buffer, frame.len());
            } else {
                self.pool.give(buffer);
            }
            return complete;
        }
        let Some(whole) = SuperSegment::new(frame, segment_size) else { return false };
        for index in 0..whole.frames() {
            let mut buffer = self.pool.take(self.frame_bytes_max().max(whole.frame_bytes_max()));
            let length = whole.write(index, &mut buffer);
            self.stage(now, buffer, length);
        }
        true
    }
}
