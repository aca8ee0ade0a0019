//! From a frame to a connection, the slow path, or a counter.

use std::mem;
use std::net::SocketAddr;

use outrider_drivers::port::{ReceiveChecksum, RxFrame};
use smoltcp::wire::IpProtocol;

use super::Stack;
use super::control::{self, Heard};
use super::frame::{self, Discard, ETHERNET_BYTES, Mac, Opened, Packet, Received};
use super::icmp::{self, Icmp, Report, Trouble};
use super::key::FlowKey;
use super::lifecycle::Cause;
use super::neighbours::Outcome;
use super::open::{CookieFate, SynFate};
use super::routes::is_host;
use super::table::Phase;
use crate::endpoint::Directive;
use crate::tcp::connection::{CloseReason, Payload, State, reset_for};
use crate::tcp::segment::{Header, Segment};
use crate::tcp::wire::{self, BASE_HEADER_BYTES, SegmentError};
use crate::time::Instant;

impl Stack {
    /// One frame from the port.
    pub(super) fn on_frame(&mut self, now: Instant, frame: RxFrame<'_>) {
        self.statistics.rx_frames += 1;
        if let Some(found) = self.prediction.read(&frame) {
            self.statistics.rx_predicted += 1;
            let (index, segment) = self.prediction.segment(&found);
            return self.on_segment(now, index, &segment);
        }
        self.sort(now, &frame);
    }

    /// One frame, from the port or from another shard.
    pub(super) fn sort(&mut self, now: Instant, frame: &RxFrame<'_>) {
        let (protocol, packet) = match frame::open(frame.bytes, self.mac) {
            Ok(Opened::Ip(protocol, packet)) => (protocol, packet),
            Ok(Opened::Arp(_)) if self.hand_to_first(frame) => return,
            Ok(Opened::Arp(bytes)) => {
                if let Some(heard) = control::read_arp(bytes) {
                    self.hear(now, heard);
                }
                return self.hand_to_slow_path(frame.bytes);
            }
            Err(discard) => return *self.discarded(discard) += 1,
        };
        // The addresses of a connection were looked at when it began.
        if protocol == IpProtocol::Tcp
            && packet.to_us
            && let Some((key, index)) = self.find_flow(&packet)
        {
            return self.on_tcp_of(now, index, key, &packet, frame);
        }
        match frame::admit(protocol, packet, &self.routes) {
            Ok(Received::Tcp(packet)) => self.on_stray_tcp(now, &packet, frame),
            Ok(Received::Icmpv4(packet)) => self.on_icmp(now, icmp::read_v4(packet.payload), frame, None),
            Ok(Received::Icmpv6(packet)) => {
                let heard = control::read_ndp(&packet);
                self.on_icmp(now, icmp::read_v6(&packet), frame, heard);
            }
            Err(discard) => *self.discarded(discard) += 1,
        }
    }

    /// The connection that a TCP packet is for.
    fn find_flow(&mut self, packet: &Packet<'_>) -> Option<(FlowKey, u32)> {
        let ports = wire::peek_ports(packet.payload)?;
        let key = flow_key(packet, ports);
        self.table.find_again(&key).map(|index| (key, index))
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

    /// Reads the segment of a TCP packet, or counts why it cannot be read.
    fn parse<'a>(
        &mut self,
        packet: &Packet<'a>,
        checksum: ReceiveChecksum,
    ) -> Option<(wire::Ports, Segment<'a>)> {
        let envelope = wire::Envelope {
            source: packet.source,
            destination: packet.destination,
            checksum,
            congestion_experienced: packet.congestion_experienced,
        };
        let error = match wire::parse(packet.payload, &envelope) {
            Ok(parsed) => return Some(parsed),
            Err(error) => error,
        };
        match error {
            SegmentError::Checksum => self.statistics.rx_dropped_checksum += 1,
            SegmentError::Option => self.statistics.rx_dropped_option += 1,
            SegmentError::Truncated | SegmentError::PortZero | SegmentError::Family => {
                self.statistics.rx_dropped_segment += 1;
            }
        }
        None
    }

    /// A packet for the connection `index`, whose 4-tuple is `key`.
    fn on_tcp_of(
        &mut self,
        now: Instant,
        index: u32,
        key: FlowKey,
        packet: &Packet<'_>,
        frame: &RxFrame<'_>,
    ) {
        let Some((_, segment)) = self.parse(packet, frame.checksum) else { return };
        if segment.header.flags.syn {
            if self.makes_way(index, &segment) {
                return self.reopen(now, index, key, &segment, packet.source_mac);
            }
            self.note_way_back(index, packet.source_mac);
        }
        if self.config.tcp.header_prediction {
            self.prediction.learn(index, frame.bytes, packet, &segment);
        }
        self.on_segment(now, index, &segment);
    }

    /// A packet for no connection.
    fn on_stray_tcp(&mut self, now: Instant, packet: &Packet<'_>, frame: &RxFrame<'_>) {
        let Some((ports, segment)) = self.parse(packet, frame.checksum) else { return };
        let key = flow_key(packet, ports);
        // Whoever it belongs to need not verify it again.
        if !self.hand_to_owner(&key, &RxFrame { checksum: ReceiveChecksum::Valid, ..*frame }) {
            self.on_stray_segment(now, key, &segment, packet.source_mac);
        }
    }

    /// The answer to a repeated SYN goes back the way the latest one came: the first may have come a way, or with an
    /// address, that does not lead back.
    fn note_way_back(&mut self, index: u32, source_mac: Mac) {
        if let Some(entry) = self.table.get_mut(index)
            && let Some(half_open) = &mut entry.half_open
        {
            half_open.came_from = source_mac;
        }
    }

    fn on_segment(&mut self, now: Instant, index: u32, segment: &Segment<'_>) {
        let Some(entry) = self.table.get_mut(index) else { return };
        if entry.phase != Phase::Established {
            return self.on_handshake_segment(now, index, segment);
        }
        self.statistics.rx_segments += 1;
        entry.connection.on_segment(now, segment, &mut *entry.user);
        if !entry.aborted && entry.user.directive() == Directive::Abort {
            entry.aborted = true;
            entry.connection.abort(now);
        }
        if entry.connection.state() == State::Closed {
            // What follows in the burst is for no connection.
            self.settle(now, index, Cause::Input);
        } else if !entry.touched {
            // The rest of what follows an input is done once for all segments of a burst.
            entry.touched = true;
            self.touched.push(index);
        }
    }

    /// Brings every connection up to date that received something in this burst.
    pub(super) fn settle_touched(&mut self, now: Instant) {
        let mut touched = mem::take(&mut self.touched);
        for index in touched.drain(..) {
            // It may have ended since, and another may have its index: that does no harm.
            if let Some(entry) = self.table.get_mut(index) {
                entry.touched = false;
                self.settle(now, index, Cause::Input);
            }
        }
        self.touched = touched;
    }

    fn on_handshake_segment(&mut self, now: Instant, index: u32, segment: &Segment<'_>) {
        let Some(entry) = self.table.get(index) else { return };
        if entry.phase == Phase::HalfOpen
            && !entry.attached
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
        let envelope = frame::Envelope { destination_mac, ecn_capable: false, checksum_offload: false };
        let template = frame::Template::new(self.mac, key);
        let mut bytes = vec![0; template.length(header, 0)];
        template.emit(&mut bytes, &envelope, header, Payload::default());
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

/// The 4-tuple of a packet that came in.
fn flow_key(packet: &Packet<'_>, ports: wire::Ports) -> FlowKey {
    let local = SocketAddr::new(packet.destination, ports.destination);
    FlowKey::new(local, SocketAddr::new(packet.source, ports.source))
}
