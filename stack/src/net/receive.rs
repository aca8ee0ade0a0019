//! From a frame to a connection, the slow path, or a counter.

use std::net::SocketAddr;

use outrider_drivers::port::{ReceiveChecksum, RxFrame};

use super::Stack;
use super::control::{self, Heard};
use super::frame::{self, Discard, ETHERNET_BYTES, Mac, Packet, Received};
use super::icmp::{self, Icmp, Report, Trouble};
use super::key::FlowKey;
use super::lifecycle::Cause;
use super::neighbours::Outcome;
use super::open::{CookieFate, SynFate};
use super::routes::is_host;
use super::table::Phase;
use crate::tcp::connection::{CloseReason, reset_for};
use crate::tcp::segment::{Header, Segment};
use crate::tcp::wire::{self, BASE_HEADER_BYTES, SegmentError};
use crate::time::Instant;

impl Stack {
    /// One frame from the port.
    pub(super) fn on_frame(&mut self, now: Instant, frame: RxFrame<'_>) {
        self.statistics.rx_frames += 1;
        self.sort(now, &frame);
    }

    /// One frame, from the port or from another shard.
    pub(super) fn sort(&mut self, now: Instant, frame: &RxFrame<'_>) {
        match frame::classify(frame.bytes, self.mac, &self.routes) {
            Ok(Received::Tcp(packet)) => self.on_tcp(now, &packet, frame),
            Ok(Received::Arp(bytes)) => {
                if self.hand_to_first(frame) {
                    return;
                }
                if let Some(heard) = control::read_arp(bytes) {
                    self.hear(now, heard);
                }
                self.hand_to_slow_path(frame.bytes);
            }
            Ok(Received::Icmpv4(packet)) => self.on_icmp(now, icmp::read_v4(packet.payload), frame, None),
            Ok(Received::Icmpv6(packet)) => {
                let heard = control::read_ndp(&packet);
                self.on_icmp(now, icmp::read_v6(&packet), frame, heard);
            }
            Err(discard) => *self.discarded(discard) += 1,
        }
    }

    fn discarded(&mut self, discard: Discard) -> &mut u64 {
        let statistics = &mut self.statistics;
        match discard {
            Discard::Truncated => &mut statistics.rx_dropped_truncated,
            Discard::NotOurs => &mut statistics.rx_dropped_not_ours,
            Discard::Ethertype => &mut statistics.rx_dropped_ethertype,
            Discard::IpHeader => &mut statistics.rx_dropped_ip_header,
            Discard::IpChecksum => &mut statistics.rx_dropped_ip_checksum,
            Discard::Fragment => &mut statistics.rx_dropped_fragment,
            Discard::Martian => &mut statistics.rx_dropped_martian,
            Discard::Protocol => &mut statistics.rx_dropped_protocol,
        }
    }

    fn on_tcp(&mut self, now: Instant, packet: &Packet<'_>, frame: &RxFrame<'_>) {
        let envelope = wire::Envelope {
            source: packet.source,
            destination: packet.destination,
            checksum: frame.checksum,
            congestion_experienced: packet.congestion_experienced,
        };
        let (ports, segment) = match wire::parse(packet.payload, &envelope) {
            Ok(parsed) => parsed,
            Err(error) => {
                match error {
                    SegmentError::Checksum => self.statistics.rx_dropped_checksum += 1,
                    SegmentError::Option => self.statistics.rx_dropped_option += 1,
                    SegmentError::Truncated | SegmentError::PortZero | SegmentError::Family => {
                        self.statistics.rx_dropped_segment += 1;
                    }
                }
                return;
            }
        };
        let local = SocketAddr::new(packet.destination, ports.destination);
        let remote = SocketAddr::new(packet.source, ports.source);
        let key = FlowKey::new(local, remote);
        match self.table.find(&key) {
            Some(index) if self.makes_way(index, &segment) => {
                self.reopen(now, index, key, &segment, packet.source_mac);
            }
            Some(index) => {
                self.note_way_back(index, &segment, packet.source_mac);
                self.on_segment(now, index, &segment);
            }
            // Whoever it belongs to need not verify it again.
            None if self.hand_to_owner(&key, &RxFrame { checksum: ReceiveChecksum::Valid, ..*frame }) => {}
            None => self.on_stray_segment(now, key, &segment, packet.source_mac),
        }
    }

    /// The answer to a repeated SYN goes back the way the latest one came: the first may have come a way, or with an
    /// address, that does not lead back.
    fn note_way_back(&mut self, index: u32, segment: &Segment<'_>, source_mac: Mac) {
        if segment.header.flags.syn
            && let Some(entry) = self.table.get_mut(index)
            && let Some(came_from) = &mut entry.came_from
        {
            *came_from = source_mac;
        }
    }

    fn on_segment(&mut self, now: Instant, index: u32, segment: &Segment<'_>) {
        let Some(entry) = self.table.get(index) else { return };
        if entry.phase == Phase::HalfOpen
            && entry.waker.is_none()
            && entry.connection.completes_handshake(segment)
            && !self.promote(now, index)
        {
            return;
        }
        let Some(entry) = self.table.get_mut(index) else { return };
        self.statistics.rx_segments += 1;
        // The endpoint must hear of the connection before its data. Data on a SYN-ACK would come first: it is not
        // acknowledged, so the peer sends it again.
        let bare = Segment { payload: &[], ..*segment };
        let segment = if entry.phase == Phase::Connecting { &bare } else { segment };
        entry.connection.on_segment(now, segment, &mut *entry.user);
        self.settle(now, index, Cause::Input);
    }

    /// Whether the connection `index` is in TIME-WAIT and gives way to the SYN `segment`. With a full backlog it does
    /// not: a cookie cannot keep clear of its sequence numbers.
    fn makes_way(&mut self, index: u32, segment: &Segment<'_>) -> bool {
        let replaceable = self.table.get(index).filter(|entry| entry.connection.may_be_replaced_by(segment));
        let Some(local) = replaceable.map(|entry| entry.key.local()) else { return false };
        self.has_backlog(local)
    }

    /// Ends the connection `index`, which is in TIME-WAIT, and has the SYN open the next of its 4-tuple.
    fn reopen(&mut self, now: Instant, index: u32, key: FlowKey, syn: &Segment<'_>, source_mac: Mac) {
        let Some(entry) = self.table.get(index) else { return };
        let beyond = entry.connection.next_sequence();
        self.statistics.time_wait_reused += 1;
        self.close(now, index, CloseReason::Finished);
        if self.on_syn(now, key, syn, source_mac, Some(beyond)) == SynFate::Opened {
            self.statistics.rx_segments += 1;
        }
    }

    /// A segment for no connection: opens one, or is answered with a RST (RFC 9293 section 3.10.7.1).
    fn on_stray_segment(&mut self, now: Instant, key: FlowKey, segment: &Segment<'_>, source_mac: Mac) {
        let flags = segment.header.flags;
        if flags.syn && segment.header.ack.is_none() && !flags.rst {
            match self.on_syn(now, key, segment, source_mac, None) {
                SynFate::Opened => {
                    self.statistics.rx_segments += 1;
                    return;
                }
                SynFate::Ignored => return,
                SynFate::Unwanted => {}
            }
        }
        match self.open_from_cookie(now, key, segment, source_mac) {
            CookieFate::Opened(index) => return self.on_segment(now, index, segment),
            CookieFate::Ignored => return,
            CookieFate::None => {}
        }
        self.statistics.rx_dropped_no_connection += 1;
        let Some(header) = reset_for(segment) else { return };
        if !self.resets.take(now) {
            self.statistics.resets_suppressed += 1;
            return;
        }
        if self.send_stateless(&key, &header, source_mac) {
            self.statistics.resets_sent += 1;
        }
    }

    /// Queues a segment that belongs to no connection, back the way its cause came: it keeps no state, not even in the
    /// neighbour cache. Returns whether there was room.
    pub(super) fn send_stateless(&mut self, key: &FlowKey, header: &Header, destination_mac: Mac) -> bool {
        let envelope = frame::Envelope {
            source_mac: self.mac,
            destination_mac,
            local: key.local(),
            remote: key.remote(),
            ecn_capable: false,
            checksum_offload: false,
        };
        let mut bytes = vec![0; frame::length(key.remote().ip(), header, 0)];
        frame::emit(&mut bytes, &envelope, header, [&[], &[]]);
        self.push_control(bytes)
    }

    fn on_icmp(&mut self, now: Instant, icmp: Icmp, frame: &RxFrame<'_>, heard: Option<Heard>) {
        match icmp {
            Icmp::Error(report) if self.table.find(&report.key).is_none() => {
                if !self.hand_to_owner(&report.key, frame) {
                    self.statistics.icmp_errors_unmatched += 1;
                }
            }
            Icmp::Error(report) => self.on_icmp_error(now, &report),
            Icmp::Foreign => self.statistics.icmp_errors_unmatched += 1,
            Icmp::Query if self.hand_to_first(frame) => {}
            Icmp::Query => {
                if let Some(heard) = heard {
                    self.hear(now, heard);
                }
                self.hand_to_slow_path(frame.bytes);
            }
        }
    }

    /// Tells the connection, which believes only what is about a segment in flight (RFC 5927 section 4.1).
    fn on_icmp_error(&mut self, now: Instant, report: &Report) {
        let index = self.table.find(&report.key);
        let Some((index, entry)) = index.and_then(|index| Some((index, self.table.get_mut(index)?))) else {
            self.statistics.icmp_errors_unmatched += 1;
            return;
        };
        self.statistics.icmp_errors_matched += 1;
        let believed = match report.trouble {
            Trouble::PathMtu(mtu) => {
                let headers = frame::overhead(report.key.remote().ip()) - ETHERNET_BYTES + BASE_HEADER_BYTES;
                let size = (mtu as usize).saturating_sub(headers);
                let size = u16::try_from(size).unwrap_or(u16::MAX);
                entry.connection.on_path_mtu(now, report.sequence, size)
            }
            Trouble::Unreachable => entry.connection.on_unreachable(now, report.sequence),
            Trouble::Other => false,
        };
        if believed {
            self.statistics.icmp_errors_believed += 1;
            self.settle(now, index, Cause::Input);
        }
    }

    fn hear(&mut self, now: Instant, heard: Heard) {
        let (address, mac, solicited) = match heard {
            Heard::Request { address, mac, target } if self.routes.is_ours(target) => (address, mac, false),
            Heard::Request { .. } => return,
            Heard::Answer { address, mac } => (address, mac, true),
        };
        if !is_host(address) || self.routes.is_ours(address) || self.routes.on_link(address).is_none() {
            return;
        }
        self.tell_heard(address, mac, solicited);
        if let Some(outcome) = self.neighbours.learn(now, address, mac, solicited) {
            self.on_neighbour(now, outcome);
        }
    }

    fn hand_to_slow_path(&mut self, frame: &[u8]) {
        if self.slow_path.offer(frame) {
            self.statistics.rx_slow_path += 1;
        } else {
            self.statistics.rx_dropped_slow_path_full += 1;
        }
    }

    pub(super) fn run_slow_path(&mut self, now: Instant) {
        self.slow_path.poll(now);
        while let Some(frame) = self.slow_path.take() {
            self.push_control(frame);
        }
    }

    /// Queues a whole frame for the port; `false` if the queue is full.
    pub(super) fn push_control(&mut self, frame: Vec<u8>) -> bool {
        let fits = self.control.len() < self.config.control_frames_max;
        if fits {
            self.control.push_back(frame);
        } else {
            self.statistics.tx_dropped_control_full += 1;
        }
        fits
    }

    /// Repeats neighbour requests that are due and sends the new ones.
    pub(super) fn fire_neighbours(&mut self, now: Instant) {
        if self.neighbours.next_timeout().is_some_and(|due| due <= now) {
            let mut outcomes = Vec::new();
            self.neighbours.expire(now, &mut outcomes);
            for outcome in outcomes {
                self.statistics.neighbour_failures += 1;
                self.on_neighbour(now, outcome);
            }
        }
        self.send_neighbour_requests();
    }

    pub(super) fn send_neighbour_requests(&mut self) {
        while let Some(target) = self.neighbours.take_request() {
            let source = self.routes.on_link(target);
            if let Some(frame) = source.and_then(|source| control::request(self.mac, source, target)) {
                self.statistics.neighbour_requests += 1;
                self.push_control(frame);
            }
        }
        self.statistics.neighbours_evicted += self.neighbours.take_evicted();
    }

    /// Lets parked connections go on: they transmit, they wait for another round of requests, or, while their
    /// handshake has not begun to succeed, they fail.
    pub(super) fn on_neighbour(&mut self, now: Instant, outcome: Outcome) {
        let (waiting, failed) = match outcome {
            Outcome::Resolved(waiting) => (waiting, false),
            Outcome::Failed(waiting) => (waiting, true),
        };
        for index in waiting {
            let Some(entry) = self.table.get_mut(index).filter(|entry| entry.parked) else { continue };
            if failed && matches!(entry.phase, Phase::Connecting | Phase::HalfOpen) {
                self.statistics.failed_unreachable += 1;
                self.close(now, index, CloseReason::Unreachable);
                continue;
            }
            entry.parked = false;
            self.mark_ready(now, index);
        }
    }
}
