//! One connection: the engine, its socket's buffers, and the bytes between it and the wire.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use outrider_drivers::port::ReceiveChecksum;
use outrider_stack::tcp::connection::{
    CloseReason, Config, Connection, Event, Inspection, State, TransmitLimit, reset_for,
};
use outrider_stack::tcp::segment::{Header, Segment};
use outrider_stack::tcp::sequence::SeqNumber;
use outrider_stack::tcp::source::Blocked;
use outrider_stack::tcp::wire::{self, Emission, Envelope, Ports};
use outrider_stack::time::Instant;

use super::completions::Completions;
use super::defer::Deferral;
use super::errno::Errno;
use super::limits::{Limit, Limits};
use super::mapping::Mapping;
use super::offload::{Data, Groups};
use super::stream::Stream;
use super::{InjectError, SocketId};
use crate::packetdrill::language::packet::{Ecn, IcmpSpec};
use crate::packetdrill::segment::{Segment as WireSegment, TcpOption};
use crate::packetdrill::settings::{Settings, SocketOptions};

/// The addresses that the public tool uses. Nothing depends on them.
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 1));
const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const LOCAL_PORT: u16 = 8080;
const REMOTE_PORT_FIRST: u16 = 40_000;
/// Our initial sequence number: near the wrap, so that scripts of any length cross it.
const INITIAL_SEQUENCE: u32 = u32::MAX - 4000;
/// The timestamp clock starts anywhere.
const TIMESTAMP_OFFSET: u32 = 0x7fff_f000;
/// Least path MTU that Linux believes (`route/min_pmtu`), bytes.
const PATH_MTU_MIN: u32 = 552;
/// The TCP option with an MD5 signature (RFC 2385).
const KIND_SIGNATURE: u8 = 19;
/// ICMP messages that mean nothing to a TCP connection (RFC 6633 for the first).
const HARMLESS_ICMP: [&str; 13] = [
    "unknown",
    "source_quench",
    "echo_reply",
    "echo_request",
    "redirect",
    "router_advertise",
    "router_solicit",
    "timestamp_request",
    "timestamp_reply",
    "information_request",
    "information_reply",
    "address_mask_request",
    "address_mask_reply",
];

/// What became of segments since the connection began, beside what the engine counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) segments_out: u64,
    pub(crate) segments_in: u64,
    pub(crate) data_segments_out: u64,
    pub(crate) data_segments_in: u64,
    pub(crate) marked_acks: u64,
}

/// A segment on its way out.
#[derive(Debug)]
pub(super) struct Transmission {
    pub(super) bytes: Vec<u8>,
    pub(super) ecn: Ecn,
    pub(super) data: Option<Data>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    engine: Option<Connection>,
    pub(crate) stream: Stream,
    pub(crate) mapping: Mapping,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    initial: SeqNumber,
    /// The listener whose child this is.
    pub(crate) listener: Option<SocketId>,
    /// The socket that owns it; none before `accept` and after `close`.
    pub(crate) socket: Option<SocketId>,
    /// An error that no call has reported yet.
    error: Option<Errno>,
    /// The error that an ICMP message asks for, should it come to one.
    soft_error: Option<Errno>,
    /// The handshake is over and nobody was told.
    established_pending: bool,
    pub(crate) established: bool,
    /// How it ended.
    pub(crate) ended: Option<CloseReason>,
    /// Its socket was closed.
    pub(crate) orphan: bool,
    /// `connect` has said that it succeeded.
    pub(crate) connect_reported: bool,
    /// `close` waits until here for everything to be acknowledged.
    pub(crate) linger_end: Option<Instant>,
    /// Waiting in FIN-WAIT-2 ends here when nobody owns the connection.
    fin_wait_end: Option<Instant>,
    pub(crate) fin_timeout: Duration,
    /// The end of the handshake is put off.
    deferral: Option<Deferral>,
    pub(super) groups: Groups,
    pub(crate) completions: Completions,
    /// An acknowledgement that waits, and until when: see [`Stream::acks`].
    withheld: Option<(Instant, Transmission)>,
    pub(crate) config: Config,
    pub(crate) counts: Counts,
    pub(crate) limits: Limits,
    pub(crate) last_ack_received: Instant,
    pub(crate) last_data_sent: Instant,
}

impl Conn {
    pub(crate) fn new(now: Instant, id: usize) -> Self {
        Conn {
            engine: None,
            stream: Stream::new(now, 0, 0),
            mapping: Mapping::default(),
            local_port: LOCAL_PORT,
            remote_port: REMOTE_PORT_FIRST.wrapping_add(id as u16).max(1),
            initial: SeqNumber(INITIAL_SEQUENCE.wrapping_add((id as u32).wrapping_mul(0x0101_0101))),
            listener: None,
            socket: None,
            error: None,
            soft_error: None,
            established_pending: false,
            established: false,
            ended: None,
            orphan: false,
            connect_reported: false,
            linger_end: None,
            fin_wait_end: None,
            fin_timeout: Duration::from_secs(60),
            deferral: None,
            groups: Groups::default(),
            completions: Completions::default(),
            withheld: None,
            config: Config::default(),
            counts: Counts::default(),
            limits: Limits::new(now),
            last_ack_received: now,
            last_data_sent: now,
        }
    }

    /// Takes over what the socket says.
    fn adopt(&mut self, now: Instant, settings: &Settings, options: &SocketOptions, config: &Config) {
        self.stream = Stream::new(now, settings.send_space(options), settings.receive_space(options));
        if options.send_buffer.is_none() {
            self.stream.send_buffer_max = settings.send_buffer.max;
        }
        self.stream.nodelay = options.nodelay;
        self.stream.cork = options.cork;
        self.stream.acks.injected_size = settings.injected_segment_size.map_or(u64::MAX, u64::from);
        let window = u64::from(config.receive_window_initial);
        self.stream.acks.offered(window, u64::from(config.segment_size_max));
        self.fin_timeout = settings.fin_timeout(options);
        if let Some(habits) = settings.habits {
            self.groups.unpushed = !habits.pushes_groups;
            self.stream.finish_acked_at_once = habits.finish_acked_at_once;
        }
        self.config = config.clone();
        self.mapping.set_local(self.initial.0);
    }

    /// Opens actively.
    pub(crate) fn open(&mut self, now: Instant, settings: &Settings, options: &SocketOptions) {
        let config = settings.config(options, false);
        self.adopt(now, settings, options, &config);
        self.engine = Some(Connection::connect(now, &config, self.initial, TIMESTAMP_OFFSET));
    }

    pub(crate) fn state(&self) -> Option<State> {
        self.engine.as_ref().map(Connection::state)
    }

    pub(crate) fn engine(&self) -> Option<&Connection> {
        self.engine.as_ref()
    }

    pub(crate) fn engine_mut(&mut self) -> Option<&mut Connection> {
        self.engine.as_mut()
    }

    pub(crate) fn inspect(&self, now: Instant) -> Option<Inspection> {
        self.engine.as_ref().map(|engine| engine.inspect(now))
    }

    /// Reports the pending error, once.
    pub(crate) fn take_error(&mut self) -> Option<Errno> {
        self.error.take()
    }

    pub(crate) fn has_error(&self) -> bool {
        self.error.is_some()
    }

    /// Whether the handshake has ended since the last call.
    pub(crate) fn take_established(&mut self, _now: Instant) -> bool {
        core::mem::take(&mut self.established_pending)
    }

    /// When something happens by itself.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let held = self.held_deadline();
        let engine = self.engine.as_ref().and_then(Connection::next_timeout);
        let withheld = self.withheld.as_ref().map(|(at, _)| *at);
        [held, engine, withheld, self.fin_wait_end, self.linger_end].into_iter().flatten().min()
    }

    /// Linux lets what a cork holds back go when a retransmission timeout has passed.
    fn held_deadline(&self) -> Option<Instant> {
        let now = self.stream.held_since?;
        let timeout = self.engine.as_ref()?.inspect(now).retransmission_timeout;
        self.stream.held_deadline(timeout)
    }

    pub(crate) fn on_timeout(&mut self, now: Instant) {
        if self.held_deadline().is_some_and(|at| at <= now) {
            self.stream.release_held();
        }
        self.linger_end = self.linger_end.filter(|end| *end > now);
        if self.fin_wait_end.is_some_and(|at| at <= now) {
            self.fin_wait_end = None;
            self.engine = None;
        }
        if let Some(engine) = &mut self.engine
            && engine.next_timeout().is_some_and(|at| at <= now)
        {
            engine.on_timeout(now);
            self.deferral.iter_mut().for_each(Deferral::on_timeout);
        }
    }

    /// The next segment that leaves now, as bytes.
    pub(super) fn transmit(&mut self, now: Instant) -> Option<Transmission> {
        if let Some((_, sent)) = self.withheld.take_if(|(at, _)| *at <= now) {
            return Some(sent);
        }
        let mut sent = self.poll_engine(now)?;
        while is_answer_to_syn(&sent.bytes) && self.deferral.as_mut().is_some_and(Deferral::withholds_answer)
        {
            sent = self.poll_engine(now)?;
        }
        if let Some(until) = self.stream.acks.withhold(now).filter(|_| is_plain_ack(&sent.bytes)) {
            self.withheld = Some((until, sent));
            return self.poll_engine(now);
        }
        // What leaves now says all that the acknowledgement withheld would have said.
        self.withheld = None;
        Some(sent)
    }

    /// The next segment that the engine would send now.
    fn poll_engine(&mut self, now: Instant) -> Option<Transmission> {
        let engine = self.engine.as_mut()?;
        let inspection = engine.inspect(now);
        self.stream.acks.timeout = inspection.retransmission_timeout;
        self.stream.prepare(engine.segment_size(), engine.acked_offset(), &inspection);
        self.groups.acknowledge_to(engine.acked_offset());
        self.completions.acknowledge_to(engine.acked_offset());
        let cut_before = self.stream.cut_offset();
        let outgoing = engine.poll_transmit(now, &mut self.stream, TransmitLimit::default());
        let sent = outgoing.map(|outgoing| {
            let payload = engine.payload(&outgoing).to_vec();
            let bytes = emit(&outgoing.header, [&payload, &[]], self.local_port, self.remote_port);
            if outgoing.header.ack.is_some() {
                self.stream.acks.on_ack_sent();
            }
            self.counts.segments_out += 1;
            if outgoing.payload_length > 0 {
                self.counts.data_segments_out += 1;
                self.last_data_sent = now;
            }
            let data = (outgoing.payload_length > 0).then(|| {
                let fresh = self.stream.has_cut_since(cut_before);
                Data {
                    start: outgoing.payload_offset,
                    end: outgoing.payload_offset + outgoing.payload_length as u64,
                    fresh,
                    ends_buffer: fresh && self.stream.ended_buffer(),
                }
            });
            Transmission { bytes, ecn: if outgoing.ecn_capable { Ecn::Capable0 } else { Ecn::None }, data }
        });
        self.take_events(now);
        if sent.is_none() {
            self.note_still(now);
        }
        sent
    }

    /// Nothing more leaves now: what waits for time alone?
    fn note_still(&mut self, now: Instant) {
        self.note_limits(now);
        self.stream.held_since = match (self.stream.is_stuck(), self.stream.held_since) {
            (true, since) => since.or(Some(now)),
            (false, _) => None,
        };
        let waiting = self.orphan && self.state() == Some(State::FinWait2);
        self.fin_wait_end = match (waiting, self.fin_wait_end) {
            (true, end) => end.or(Some(now + self.fin_timeout)),
            (false, _) => None,
        };
    }

    /// What keeps the sender waiting, for `TCP_INFO`.
    fn note_limits(&mut self, now: Instant) {
        let Some(engine) = self.engine.as_ref() else { return };
        let state = engine.send_state(now);
        let unsent = self.stream.unsent_bytes() > 0;
        let limit = if !unsent && self.stream.outstanding_bytes() == 0 {
            Limit::Idle
        } else if unsent && state.blocked == Blocked::PeerWindow {
            Limit::PeerWindow
        } else if !unsent && self.stream.is_starved() && state.bytes_in_flight < state.congestion_window {
            Limit::SendBuffer
        } else {
            Limit::Other
        };
        self.limits.note(now, limit);
    }

    fn take_events(&mut self, now: Instant) {
        let Some(engine) = self.engine.as_mut() else { return };
        while let Some(event) = engine.poll_event() {
            match event {
                Event::Established => {
                    self.established = true;
                    self.stream.last_data_received = now;
                    self.established_pending = true;
                }
                Event::Closed(reason) => {
                    self.withheld = None;
                    self.ended = Some(reason);
                    // What was in the send buffer is freed.
                    self.completions.acknowledge_to(u64::MAX);
                    self.error = self.error.or(match reason {
                        CloseReason::Finished | CloseReason::Aborted | CloseReason::Unusable => None,
                        CloseReason::Refused => Some(Errno::ECONNREFUSED),
                        CloseReason::Reset => Some(Errno::ECONNRESET),
                        CloseReason::ConnectTimeout
                        | CloseReason::UserTimeout
                        | CloseReason::KeepaliveTimeout => Some(self.soft_error.unwrap_or(Errno::ETIMEDOUT)),
                        CloseReason::Unreachable | CloseReason::PortGone | CloseReason::NoResources => {
                            Some(self.soft_error.unwrap_or(Errno::EHOSTUNREACH))
                        }
                    });
                }
            }
        }
    }

    /// A segment arrives. `listener`: the configuration of a listener that would take a SYN. Gives the answer of a
    /// host that has no such connection.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        bytes: &[u8],
        ecn: Ecn,
        listener: Option<&(Config, SocketOptions)>,
        settings: &Settings,
    ) -> Result<Option<Vec<u8>>, String> {
        let envelope = Envelope {
            source: REMOTE,
            destination: LOCAL,
            checksum: ReceiveChecksum::Valid,
            congestion_experienced: ecn == Ecn::Experienced,
        };
        // What cannot be read is dropped without an answer, as any host would.
        let Ok((_, segment)) = wire::parse(bytes, &envelope) else { return Ok(None) };
        self.counts.segments_in += 1;
        self.counts.data_segments_in += u64::from(!segment.payload.is_empty());
        let header = &segment.header;
        if header.ack.is_some() {
            self.last_ack_received = now;
            self.counts.marked_acks += u64::from(header.flags.ece && !header.flags.syn);
        }
        if self.has_signature(bytes) {
            // A signature where no key is set (RFC 2385 section 2.0): dropped without a word.
            return Ok(None);
        }
        if self.is_refused_data(&segment) {
            // Data for a reader that has gone (RFC 1122 section 4.2.2.13).
            self.engine = None;
            return Ok(self.refusal(&segment));
        }
        if self.defers(&segment) {
            return Ok(None);
        }
        self.stream.acks.note_push(header.flags.psh, segment.payload.len() as u64);
        self.stream.acks.note_length(segment.payload.len() as u64);
        match &mut self.engine {
            Some(engine) if engine.state() != State::Closed => {
                let before = engine.state();
                engine.on_segment(now, &segment, &mut self.stream);
                if before == State::CloseWait && engine.state() == State::Closed && header.flags.rst {
                    self.error = self.error.or(Some(Errno::EPIPE));
                }
                Ok(None)
            }
            _ => {
                let opens = header.flags.syn && header.ack.is_none() && !header.flags.rst;
                let Some((config, options)) = listener.filter(|_| opens) else {
                    return Ok(self.refusal(&segment));
                };
                // Linux drops a SYN with FIN.
                if !header.flags.fin {
                    self.adopt(now, settings, options, config);
                    self.deferral = (options.defer_accept > 0).then(|| Deferral::new(options.defer_accept));
                    let engine = Connection::accept(now, config, self.initial, TIMESTAMP_OFFSET, &segment);
                    self.engine = Some(engine);
                }
                Ok(None)
            }
        }
    }

    /// Whether a segment would only end a handshake that is put off.
    fn defers(&mut self, segment: &Segment<'_>) -> bool {
        let flags = segment.header.flags;
        let bare = segment.payload.is_empty() && !(flags.syn || flags.fin || flags.rst);
        let half_open = self.state() == Some(State::SynReceived);
        bare && half_open && self.deferral.as_mut().is_some_and(Deferral::ignores_acknowledgement)
    }

    /// The listener is closed: a handshake that is not over is forgotten without a word.
    pub(crate) fn forget_half_open(&mut self) {
        if self.state() == Some(State::SynReceived) {
            self.engine = None;
        }
    }

    fn has_signature(&self, bytes: &[u8]) -> bool {
        let options = WireSegment::parse(bytes).map(|segment| segment.options).unwrap_or_default();
        options.iter().any(|option| matches!(option, TcpOption::Other { kind: KIND_SIGNATURE, .. }))
    }

    /// New payload for a connection that nobody will read from any more.
    fn is_refused_data(&self, segment: &Segment<'_>) -> bool {
        let waiting = matches!(self.state(), Some(State::FinWait1 | State::FinWait2));
        let end = segment.header.seq.add(segment.payload.len() as u32);
        let next = SeqNumber(self.remote_next());
        let new = !segment.payload.is_empty() && next.before(end);
        waiting && new && (self.orphan || self.stream.read_shut)
    }

    /// The peer's next sequence number as far as the socket can tell.
    fn remote_next(&self) -> u32 {
        self.mapping.remote_sequence(1).wrapping_add(self.stream.received as u32)
    }

    fn refusal(&self, segment: &Segment<'_>) -> Option<Vec<u8>> {
        let header = reset_for(segment)?;
        Some(emit(&header, [&[], &[]], self.local_port, self.remote_port))
    }

    /// An ICMP error arrives. Gives the segment size of the path, if that was believed.
    pub(crate) fn receive_icmp(
        &mut self,
        now: Instant,
        spec: &IcmpSpec,
        header_bytes: u32,
    ) -> Result<Option<u16>, InjectError> {
        let sequence = SeqNumber(self.mapping.local_sequence(spec.quoted_seq));
        let code = spec.code.as_deref();
        let too_big = spec.kind == "packet_too_big" || code == Some("frag_needed");
        let Some(engine) = self.engine.as_mut() else { return Ok(None) };
        if too_big {
            let mtu = spec.mtu.unwrap_or(0).max(PATH_MTU_MIN);
            let size = u16::try_from(mtu.saturating_sub(header_bytes)).unwrap_or(u16::MAX);
            return Ok(engine.on_path_mtu(now, sequence, size).then_some(size));
        }
        let error = match (spec.kind.as_str(), code) {
            ("unreachable", Some("port_unreachable")) => Errno::ECONNREFUSED,
            ("unreachable", Some("net_unreachable" | "net_unknown" | "no_route")) => Errno("ENETUNREACH"),
            ("unreachable", _) | ("time_exceeded", _) => Errno::EHOSTUNREACH,
            ("parameter_problem", _) => Errno("EPROTO"),
            (kind, _) if HARMLESS_ICMP.contains(&kind) => return Ok(None),
            (kind, code) => {
                let code = code.unwrap_or("");
                return Err(InjectError::Unsupported(format!("icmp {kind} {code}").trim_end().to_owned()));
            }
        };
        self.soft_error = Some(error);
        if spec.kind == "unreachable" {
            engine.on_unreachable(now, sequence);
            self.take_events(now);
        }
        Ok(None)
    }

    /// Everything that was written, FIN included, is acknowledged.
    pub(crate) fn is_finished_sending(&self) -> bool {
        !matches!(
            self.state(),
            Some(State::Established | State::CloseWait | State::FinWait1 | State::Closing | State::LastAck)
        )
    }

    /// The socket is closed. Unread bytes, or a linger time of zero, make it a reset.
    pub(crate) fn close(&mut self, now: Instant, abort: bool) {
        self.orphan = true;
        self.socket = None;
        let unread = self.stream.unread > 0;
        self.stream.read_shut = true;
        self.stream.reader_gone = true;
        self.stream.unread = 0;
        match (&mut self.engine, self.established) {
            (Some(_), true) if !abort && !unread => self.stream.finish = true,
            (Some(engine), _) => engine.abort(now),
            (None, _) => {}
        }
        self.take_events(now);
    }

    /// The application has read: the window may have opened.
    pub(crate) fn after_read(&mut self, now: Instant) {
        let room = outrider_stack::tcp::source::SegmentSink::room(&self.stream);
        let drained = self.stream.unread == 0;
        let Some(engine) = self.engine.as_mut() else { return };
        engine.set_receive_room(now, room);
        if drained && self.stream.acks.on_drained() {
            engine.acknowledge_now(now);
        }
    }
}

fn is_answer_to_syn(bytes: &[u8]) -> bool {
    WireSegment::parse(bytes).is_some_and(|segment| segment.flags.syn && segment.flags.ack)
}

/// An acknowledgement and nothing else, not even SACK blocks.
fn is_plain_ack(bytes: &[u8]) -> bool {
    WireSegment::parse(bytes).is_some_and(|segment| {
        let flags = segment.flags;
        let reports = segment.options.iter().any(|option| matches!(option, TcpOption::Sack(_)));
        segment.length == 0 && flags.ack && !(flags.syn || flags.fin || flags.rst) && !reports
    })
}

fn emit(header: &Header, payload: [&[u8]; 2], local_port: u16, remote_port: u16) -> Vec<u8> {
    let mut bytes = vec![0; wire::header_length(header) + payload[0].len() + payload[1].len()];
    let emission = Emission {
        ports: Ports { source: local_port, destination: remote_port },
        source: LOCAL,
        destination: REMOTE,
        checksum_offload: false,
    };
    wire::emit(&mut bytes, &emission, header, payload);
    bytes
}
