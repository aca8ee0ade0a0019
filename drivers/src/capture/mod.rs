//! [`Capture`]: a port that records what passes through another, as pcapng with nanosecond stamps.
//!
//! A received frame is stamped with the instant at which it is handed to the user, a transmitted one with the instant
//! at which it was written into the port. The stamps are those of [`Instant`]: since boot in real time, from zero in
//! virtual time; [`Capture::with_epoch_offset`] moves them to a calendar.
//!
//! A frame that leaves its checksum to a device is recorded with the checksum that the device would write. A
//! super-segment is recorded whole, as it crossed the port, not as the frames into which a device may cut it.

mod format;
pub mod read;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::fmt;
use std::io::{BufWriter, Write};
use std::os::fd::BorrowedFd;

use self::format::{enhanced_packet, interface_description, section_header};
use crate::offload::complete_checksum;
use crate::port::{Port, PortError, PortInfo, PortStatistics, RxFrame, TransmitRoom, TxOffload};
use crate::rss::Rss;
use crate::time::Instant;

/// Bytes kept before they are written out.
const WRITE_BUFFER_BYTES: usize = 256 * 1024;

/// Which way a frame went, seen from the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The port received it.
    Inbound,
    /// The port transmitted it.
    Outbound,
}

/// Counters of a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureStatistics {
    /// Frames recorded, whole or cut.
    pub recorded_frames: u64,
    /// Frames recorded that were longer than the snap length.
    pub cut_frames: u64,
    /// Frames that passed unrecorded because the capture had stopped.
    pub missed_frames: u64,
    /// Write errors; the first one stops the capture, and the port goes on.
    pub write_errors: u64,
}

/// Writes frames as pcapng blocks until a write fails.
struct Recorder {
    /// `None` once a write has failed.
    writer: Option<BufWriter<Box<dyn Write + Send>>>,
    snap_bytes: usize,
    epoch_offset: Duration,
    /// One block, made whole before it is written, so that a file never holds half of one in its middle.
    block: Vec<u8>,
    /// A received frame, while its checksum is completed.
    completed: Vec<u8>,
    statistics: CaptureStatistics,
}

impl Recorder {
    fn write_block(&mut self) -> bool {
        let Some(writer) = &mut self.writer else { return false };
        if let Err(error) = writer.write_all(&self.block) {
            self.stop(&error);
            return false;
        }
        true
    }

    fn record(&mut self, now: Instant, direction: Direction, frame: &[u8]) {
        if self.writer.is_none() {
            self.statistics.missed_frames += 1;
            return;
        }
        let kept = &frame[..frame.len().min(self.snap_bytes)];
        let stamp = now + self.epoch_offset;
        self.block.clear();
        enhanced_packet(&mut self.block, stamp.as_nanos(), direction, kept, frame.len());
        if self.write_block() {
            self.statistics.recorded_frames += 1;
            self.statistics.cut_frames += u64::from(kept.len() < frame.len());
        } else {
            self.statistics.missed_frames += 1;
        }
    }

    /// Records a frame as it would be with nothing left to a device.
    fn record_received(&mut self, now: Instant, frame: RxFrame<'_>) {
        if !frame.left.checksum || self.writer.is_none() {
            return self.record(now, Direction::Inbound, frame.bytes);
        }
        let mut completed = core::mem::take(&mut self.completed);
        completed.clear();
        completed.extend_from_slice(frame.bytes);
        complete_checksum(&mut completed);
        self.record(now, Direction::Inbound, &completed);
        self.completed = completed;
    }

    fn flush(&mut self) {
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.flush()
        {
            self.stop(&error);
        }
    }

    fn stop(&mut self, error: &std::io::Error) {
        self.statistics.write_errors += 1;
        if let Some(writer) = self.writer.take() {
            // Not dropped as it is: that would try to write again.
            drop(writer.into_parts());
        }
        tracing::warn!(%error, "capture stopped: its file cannot be written");
    }
}

/// A port that records all frames of the port within. Give it to a stack in that port's place.
pub struct Capture<P: Port> {
    port: P,
    recorder: Recorder,
    /// The frame being transmitted, until it is known that the port took it.
    transmitted: Vec<u8>,
}

impl<P: Port> Capture<P> {
    /// Records frames of `port` to `writer`, at most `snap_length` bytes of each (zero: all). Writes are gathered;
    /// all are out after [`Self::sync`] or when the capture is dropped.
    pub fn new(port: P, writer: impl Write + Send + 'static, snap_length: usize) -> Self {
        let snap_bytes = if snap_length == 0 { usize::MAX } else { snap_length };
        let mut recorder = Recorder {
            writer: Some(BufWriter::with_capacity(WRITE_BUFFER_BYTES, Box::new(writer))),
            snap_bytes,
            epoch_offset: Duration::ZERO,
            block: Vec::new(),
            completed: Vec::new(),
            statistics: CaptureStatistics::default(),
        };
        section_header(&mut recorder.block);
        interface_description(&mut recorder.block, &port.info().name, port.info().mac, snap_length);
        recorder.write_block();
        Capture { port, recorder, transmitted: Vec::new() }
    }

    /// Adds `offset` to every stamp: the time from the Unix epoch to the epoch of the port's [`Instant`]s, so that
    /// tools show dates.
    #[must_use]
    pub fn with_epoch_offset(mut self, offset: Duration) -> Self {
        self.recorder.epoch_offset = offset;
        self
    }

    /// Writes out everything recorded so far.
    pub fn sync(&mut self) {
        self.recorder.flush();
    }

    /// Counters of the capture.
    pub fn capture_statistics(&self) -> CaptureStatistics {
        self.recorder.statistics
    }

    /// The port within.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// The port within; frames that pass it directly are not recorded.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }
}

impl<P: Port> Drop for Capture<P> {
    fn drop(&mut self) {
        self.recorder.flush();
    }
}

impl<P: Port + fmt::Debug> fmt::Debug for Capture<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture")
            .field("port", &self.port)
            .field("statistics", &self.recorder.statistics)
            .finish_non_exhaustive()
    }
}

impl<P: Port> Port for Capture<P> {
    fn info(&self) -> &PortInfo {
        self.port.info()
    }

    fn receive(
        &mut self,
        now: Instant,
        budget: usize,
        accept: &mut dyn FnMut(RxFrame<'_>),
    ) -> Result<usize, PortError> {
        let recorder = &mut self.recorder;
        self.port.receive(now, budget, &mut |frame| {
            recorder.record_received(now, frame);
            accept(frame);
        })
    }

    fn transmit_room(&mut self, now: Instant) -> TransmitRoom {
        self.port.transmit_room(now)
    }

    fn transmit(
        &mut self,
        now: Instant,
        length_max: usize,
        offload: TxOffload,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<bool, PortError> {
        let transmitted = &mut self.transmitted;
        let taken = self.port.transmit(now, length_max, offload, &mut |buffer| {
            let length = fill(buffer);
            transmitted.clear();
            transmitted.extend_from_slice(buffer.get(..length).unwrap_or_default());
            length
        })?;
        if taken {
            if offload.checksum {
                complete_checksum(&mut self.transmitted);
            }
            self.recorder.record(now, Direction::Outbound, &self.transmitted);
        }
        Ok(taken)
    }

    fn flush(&mut self, now: Instant) -> Result<(), PortError> {
        self.port.flush(now)
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.port.readiness()
    }

    fn next_arrival(&self, now: Instant) -> Option<Instant> {
        self.port.next_arrival(now)
    }

    fn next_room(&self, now: Instant) -> Option<Instant> {
        self.port.next_room(now)
    }

    fn rss(&self) -> Option<Rss> {
        self.port.rss()
    }

    fn statistics(&self) -> PortStatistics {
        self.port.statistics()
    }
}
