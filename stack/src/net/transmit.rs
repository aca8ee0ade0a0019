//! From the ready queue to the port.
//!
//! A segment exists only once it has been pulled from its connection, and it is pulled only when the port has room
//! for it. Should the port refuse it all the same, the segment counts as lost on the wire: TCP repairs that.

use core::time::Duration;

use outrider_drivers::port::{Port, PortError, TransmitRoom, TxOffload};

use super::Stack;
use super::frame::{self, Envelope, Mac};
use super::lifecycle::Cause;
use super::neighbours::Resolution;
use super::rate::{bytes_in, time_for};
use super::table::{Entry, Phase};
use super::train::{Mould, Piece};
use crate::tcp::connection::TransmitLimit;
use crate::tcp::segment::Outgoing;
use crate::tcp::source::{Blocked, Demand};
use crate::time::Instant;

/// A port may hold two segments whatever its rate, so that it is not idle while the next one is made.
const PORT_SEGMENTS_MIN: usize = 2;
/// TCP and IP headers with all options, for the bound on super-segments.
const HEADERS_MAX: usize = 40 + 60;

/// How a connection's turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing more may leave now.
    Idle,
    /// It used up its turn.
    More,
    /// The port holds as much as it should.
    PortFull,
    /// It waits for its neighbour.
    Parked,
}

impl Stack {
    /// Transmits control frames, then segments in turn, until the port or the burst is full or nothing is left.
    /// Returns the number of frames.
    pub(super) fn transmit(&mut self, now: Instant, port: &mut dyn Port) -> Result<usize, PortError> {
        self.transmit_retry = None;
        let mut sent = 0;
        if self.control.is_empty() && self.ready.is_empty() {
            return Ok(sent);
        }
        self.drain_rate.observe(now, port.transmit_room(now).bytes_outstanding);
        if !self.transmit_control(now, port, &mut sent)? {
            self.port_full(now, port, sent);
            return Ok(sent);
        }
        while sent < self.config.transmit_burst {
            let Some((index, lane)) = self.ready.pop() else { break };
            match self.turn(now, port, index, &mut sent)? {
                Turn::Idle | Turn::Parked => {}
                Turn::More => self.mark_ready(now, index),
                Turn::PortFull => {
                    self.ready.put_back(index, lane);
                    self.port_full(now, port, sent);
                    break;
                }
            }
        }
        if !self.neighbours.is_quiet() {
            // Requests made during the turns leave at once, not after the first retry.
            self.send_neighbour_requests();
            self.transmit_control(now, port, &mut sent)?;
        }
        Ok(sent)
    }

    fn port_full(&mut self, now: Instant, port: &mut dyn Port, sent: usize) {
        self.statistics.tx_blocked_port += 1;
        self.port_blocked_at = Some(now);
        let TransmitRoom { frames, bytes_outstanding } = port.transmit_room(now);
        let wait = match port.next_room(now) {
            Some(at) if frames == 0 => at.since(now),
            // Room for frames that only wait for the doorbell will be back as soon as it has been rung.
            None if frames == 0 && sent > 0 => {
                self.transmit_retry = Some(now);
                return;
            }
            _ => {
                let rate = self.drain_rate.bytes_per_second();
                let excess = bytes_outstanding.saturating_sub(self.port_limit(rate));
                if rate == 0 { self.config.port_retry } else { time_for(excess + 1, rate) }
            }
        };
        // At least a microsecond, so that a rounded-down wait does not become a busy loop in virtual time.
        let wait = wait.clamp(Duration::from_micros(1), self.config.port_queue_max);
        self.transmit_retry = Some(now + wait);
    }

    fn frame_bytes_max(&self) -> usize {
        self.mtu + frame::ETHERNET_BYTES
    }

    /// Bytes that the port may hold at `rate`.
    fn port_limit(&self, rate: u64) -> usize {
        let segments = PORT_SEGMENTS_MIN * self.frame_bytes_max();
        segments.max(bytes_in(self.config.port_queue_max, rate))
    }

    /// Sends waiting control frames; `false` if the port has no room for them.
    fn transmit_control(
        &mut self,
        now: Instant,
        port: &mut dyn Port,
        sent: &mut usize,
    ) -> Result<bool, PortError> {
        while let Some(bytes) = self.control.front() {
            let mut fill = |buffer: &mut [u8]| {
                buffer[..bytes.len()].copy_from_slice(bytes);
                bytes.len()
            };
            if port.transmit_room(now).frames == 0
                || !port.transmit(now, bytes.len(), TxOffload::default(), &mut fill)?
            {
                return Ok(false);
            }
            self.drain_rate.on_transmit(bytes.len());
            self.control.pop_front();
            self.statistics.tx_control_frames += 1;
            *sent += 1;
        }
        Ok(true)
    }

    /// One connection's turn.
    fn turn(
        &mut self,
        now: Instant,
        port: &mut dyn Port,
        index: u32,
        sent: &mut usize,
    ) -> Result<Turn, PortError> {
        let Some(mac) = self.way_to(now, index) else { return Ok(Turn::Parked) };
        let Some(entry) = self.table.get_mut(index) else { return Ok(Turn::Idle) };
        // SYN and SYN-ACK need it too, and for a SYN-ACK there is nobody yet who demands anything.
        let sends = entry.phase != Phase::Established || entry.user.demand(now) != Demand::Nothing;
        if sends && entry.connection.is_bare() {
            self.spares.take().into_iter().for_each(|spare| entry.connection.use_spare(spare));
        }
        if self.port_blocked_at.is_some_and(|at| at >= entry.ready_since && at < now) {
            note_blocked(now, entry);
        }
        let port_rate = self.drain_rate.bytes_per_second();
        let mut room = port.transmit_room(now);
        let connection_rate = self.connection_rate(now, index, room.bytes_outstanding, port_rate);
        let limit = self.port_limit(port_rate.max(connection_rate));
        let super_segment_bytes = self.super_segment_bytes(connection_rate);
        let frame_bytes_max = self.frame_bytes_max();
        let turn = loop {
            let Some(entry) = self.table.get_mut(index) else { return Ok(Turn::Idle) };
            if entry.turn_segments as usize >= self.config.segments_per_turn {
                if !self.ready.is_empty() || *sent >= self.config.transmit_burst {
                    break Turn::More;
                }
                // Nobody else waits, so the next turn would be its own.
                entry.turn_segments = 0;
            }
            if room.frames == 0 || room.bytes_outstanding > limit {
                // The port is asked only here: some of what was counted below may have left it already.
                room = port.transmit_room(now);
                if room.frames == 0 || room.bytes_outstanding > limit {
                    note_blocked(now, entry);
                    break Turn::PortFull;
                }
            }
            let turn_room = self.config.segments_per_turn - entry.turn_segments as usize;
            // As many as this loop would send one by one, without asking the port again.
            let frames = if super_segment_bytes > 0 { 1 } else { turn_room.min(room.frames) };
            let train_segments = at_most(frames, limit - room.bytes_outstanding, frame_bytes_max);
            let allowed = TransmitLimit { super_segment_bytes, train_segments };
            let Some(segment) = entry.connection.poll_transmit(now, &mut *entry.user, allowed) else {
                break Turn::Idle;
            };
            // Counted as they are on the wire: a super-segment is most of a turn, and of a burst.
            let segments = segment.segments();
            entry.turn_segments += segments as u32;
            let is_train = segments > 1 && super_segment_bytes == 0;
            room.bytes_outstanding += self.send(now, port, index, mac, &segment, is_train)?;
            room.frames -= if is_train { segments } else { 1 };
            *sent += segments;
        };
        if let Some(entry) = self.table.get_mut(index) {
            // A turn that the port cut short goes on when there is room again, and is then no longer than any other.
            if turn != Turn::PortFull {
                entry.turn_segments = 0;
            }
            // The connection did this itself when it had nothing more to transmit.
            if turn != Turn::Idle {
                entry.connection.settle(now);
            }
        }
        self.settle(now, index, Cause::TurnEnded);
        Ok(turn)
    }

    /// The Ethernet address to which `index` sends. `None`: it is not known yet, and the connection is parked.
    fn way_to(&mut self, now: Instant, index: u32) -> Option<Mac> {
        let entry = self.table.get_mut(index)?;
        let resolution = match entry.way_back() {
            Some(mac) => Resolution::Known(mac),
            None => {
                let next_hop = self.routes.next_hop(entry.key.remote().ip(), entry.through_gateway);
                self.neighbours.resolve(now, next_hop, index)
            }
        };
        match resolution {
            Resolution::Known(mac) => Some(mac),
            Resolution::Pending => {
                entry.parked = true;
                entry.connection.settle(now);
                self.settle(now, index, Cause::TurnEnded);
                None
            }
        }
    }

    /// The connection's own delivery rate, where it matters: when the port's measured rate would block it, and for the
    /// size of super-segments.
    fn connection_rate(&self, now: Instant, index: u32, outstanding: usize, port_rate: u64) -> u64 {
        let offloads = self.capabilities.tx_segment_bytes_max > 0;
        if !offloads && outstanding <= self.port_limit(port_rate) {
            return 0;
        }
        self.table.get(index).map_or(0, |entry| entry.connection.send_state(now).delivery_rate)
    }

    /// How much a super-segment may carry: what the device takes, and what is delivered in due time; zero for none.
    fn super_segment_bytes(&self, rate: u64) -> usize {
        let device = (self.capabilities.tx_segment_bytes_max as usize).min(usize::from(u16::MAX));
        device.saturating_sub(HEADERS_MAX).min(bytes_in(self.config.super_segment_max, rate))
    }

    /// Builds the frame of a pulled segment in the port's memory. Returns its length.
    fn send(
        &mut self,
        now: Instant,
        port: &mut dyn Port,
        index: u32,
        mac: Mac,
        segment: &Outgoing,
        is_train: bool,
    ) -> Result<usize, PortError> {
        if is_train {
            return self.send_train(now, port, index, mac, segment);
        }
        let entry = self.table.get(index).expect("the segment was just pulled from this connection");
        let segments = segment.segments();
        let is_super = segments > 1;
        let offload = TxOffload {
            checksum: is_super || self.capabilities.tx_checksum,
            segment_size: if is_super { u16::try_from(segment.segment_size).unwrap_or(u16::MAX) } else { 0 },
        };
        let envelope = Envelope {
            destination_mac: mac,
            ecn_capable: segment.ecn_capable,
            checksum_offload: offload.checksum,
        };
        let payload = entry.connection.payload(segment);
        let template = entry.template(self.mac);
        let length = template.length(&segment.header, segment.payload_length);
        let mut fill = |buffer: &mut [u8]| template.emit(buffer, &envelope, &segment.header, payload);
        if port.transmit(now, length, offload, &mut fill)? {
            self.drain_rate.on_transmit(length);
            self.statistics.tx_segments += segments as u64;
            self.statistics.tx_payload_bytes += segment.payload_length as u64;
        } else {
            self.statistics.tx_lost_at_port += 1;
        }
        Ok(length)
    }

    /// [`Self::send`] for a train: builds the frame of each of its segments. Returns their length.
    fn send_train(
        &mut self,
        now: Instant,
        port: &mut dyn Port,
        index: u32,
        mac: Mac,
        train: &Outgoing,
    ) -> Result<usize, PortError> {
        let entry = self.table.get(index).expect("the train was just pulled from this connection");
        let checksum = self.capabilities.tx_checksum;
        let envelope =
            Envelope { destination_mac: mac, ecn_capable: train.ecn_capable, checksum_offload: checksum };
        let offload = TxOffload { checksum, segment_size: 0 };
        let mut mould = Mould::new(&entry.template(self.mac), &envelope, &train.header);
        let mut rest = entry.connection.payload_at(train.payload_offset, train.payload_length);
        let (mut before, mut bytes, mut taken_bytes) = (0, 0, 0);
        let statistics = &mut self.statistics;
        while before < train.payload_length {
            let payload_bytes = train.segment_size.min(train.payload_length - before);
            let is_last = before + payload_bytes == train.payload_length;
            let piece = Piece {
                before,
                payload: rest.split_to(payload_bytes),
                push: is_last && train.header.flags.psh,
                finish: is_last && train.header.flags.fin,
            };
            let length = mould.length() + payload_bytes;
            if port.transmit(now, length, offload, &mut |buffer| mould.emit(buffer, &piece))? {
                taken_bytes += length;
                statistics.tx_segments += 1;
                statistics.tx_payload_bytes += payload_bytes as u64;
            } else {
                statistics.tx_lost_at_port += 1;
            }
            before += payload_bytes;
            bytes += length;
            mould.end_first();
        }
        self.drain_rate.on_transmit(taken_bytes);
        Ok(bytes)
    }
}

/// As many of `frames` as may follow each other while each begins within `bytes`. Divides only where it must.
fn at_most(frames: usize, bytes: usize, frame_bytes: usize) -> usize {
    if bytes >= frames * frame_bytes { frames } else { frames.min(1 + bytes / frame_bytes) }
}

/// Records that the port, not TCP, holds up the next segment, if there is one to hold up.
fn note_blocked(now: Instant, entry: &mut Entry) {
    if entry.user.demand(now) != Demand::Nothing {
        entry.connection.note_blocked(Blocked::Port);
    }
}
