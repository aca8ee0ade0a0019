//! A connection under any sequence of events: segments near the window and far from it, timers, clocks, windows.
#![allow(missing_docs, unreachable_pub)]

use std::time::Duration;

use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::tcp::connection::{Config, Connection, Event, State, TransmitLimit};
use outrider_stack::tcp::segment::{Flags, Header, Options, SackBlock, Segment, Timestamps};
use outrider_stack::tcp::sequence::SeqNumber;
use outrider_stack::tcp::source::{
    AckUrgency, Blocked, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault,
};
use outrider_stack::time::Instant;

use crate::input::Input;

/// Events of one run at most, so that every input ends soon.
const EVENTS_MAX: usize = 400;
/// Segments in a row at one instant: more than any window of the run holds.
const SEGMENTS_IN_A_ROW_MAX: usize = 200_000;

/// Timers that fire while a connection is left alone.
const STEPS_MAX: usize = 200_000;

const INITIAL: SeqNumber = SeqNumber(u32::MAX - 3000);
const PEER: SeqNumber = SeqNumber(0x7fff_f000);

fn pattern(offset: u64) -> u8 {
    (offset ^ (offset >> 8)) as u8
}

/// Sends what the run asks it to, and takes anything.
#[derive(Debug, Default)]
struct App {
    unsent: u64,
    cut: u64,
    urgent: bool,
    finish: bool,
    received: u64,
    peer_finished: bool,
    room: usize,
    faulty: bool,
}

impl SegmentSource for App {
    fn demand(&mut self, _now: Instant) -> Demand {
        match (self.urgent, self.unsent) {
            (true, _) => Demand::Urgent,
            (false, 0) => Demand::Nothing,
            (false, _) => Demand::Data,
        }
    }

    fn cut(&mut self, _now: Instant, state: &SendState, cut: &mut dyn Cut) {
        assert_eq!(state.stream_offset, 1 + self.cut, "engine and source agree on the offset");
        let wanted = if core::mem::take(&mut self.urgent) { 64 } else { self.unsent };
        let count = wanted.min(cut.room() as u64);
        let bytes: Vec<u8> = (0..count).map(|i| pattern(1 + self.cut + i)).collect();
        cut.append(&bytes);
        self.cut += count;
        self.unsent = self.unsent.saturating_sub(count);
    }

    fn next_demand(&self) -> Option<Instant> {
        None
    }

    fn urgent_overtakes(&self) -> bool {
        true
    }

    fn finished(&self) -> bool {
        self.finish
    }
}

impl SegmentSink for App {
    fn deliver(&mut self, _now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        assert!(!self.peer_finished, "nothing comes after the end");
        self.received += bytes.len() as u64;
        assert!(bytes.len() <= self.room, "no more comes than there is room for");
        self.room -= bytes.len();
        if self.faulty { Err(SinkFault) } else { Ok(AckUrgency::Normal) }
    }

    fn room(&self) -> usize {
        self.room
    }

    fn on_peer_finished(&mut self, _now: Instant) {
        assert!(!core::mem::replace(&mut self.peer_finished, true), "the end comes once");
    }
}

struct Run {
    now: Instant,
    tcp: Connection,
    app: App,
    config: Config,
    /// What the engine has last said of itself.
    acked: u64,
    next: u64,
    closed: bool,
}

fn config(input: &mut Input<'_>) -> Config {
    let switches = input.u8();
    Config {
        algorithm: Algorithm::ALL[usize::from(input.u8()) % Algorithm::ALL.len()],
        timestamps: switches & 1 == 0,
        sack: switches & 2 == 0,
        window_scaling: switches & 4 == 0,
        ecn: switches & 8 != 0,
        segment_size_max: input.pick(&[1460, 536, 88, 8960]),
        receive_window_initial: input.pick(&[65_536, 1_000, 300_000]),
        receive_window_max: input.pick(&[300_000, 2_000, 65_536, 4 << 20]),
        out_of_order_bytes_max: input.pick(&[65_536, 100, 1 << 20]),
        holes_max: input.pick(&[64, 1, 1024]),
        ..Config::default()
    }
}

fn options(input: &mut Input<'_>, run: &Run) -> Options {
    let what = input.u8();
    let mut options = Options::default();
    if what & 1 != 0 {
        options.timestamps = Some(Timestamps { value: input.distance(), echo: input.distance() });
    }
    if what & 2 != 0 {
        for _ in 0..input.u8() % 5 {
            let start = INITIAL.at(run.acked).add(input.distance());
            options.sack.push(SackBlock { start, end: start.add(input.distance()) });
        }
    }
    if what & 4 != 0 {
        options.segment_size_max = Some(input.u16());
        options.window_scale = Some(input.u8() % 15);
        options.sack_permitted = input.flag();
    }
    options
}

impl Run {
    fn segment(&mut self, input: &mut Input<'_>) {
        let bits = input.u8();
        let expected = PEER.at(1 + self.app.received + u64::from(self.app.peer_finished));
        let flags = Flags {
            syn: bits & 1 != 0 && bits & 0x40 != 0,
            fin: bits & 2 != 0 && bits & 0x80 != 0,
            rst: bits & 4 != 0 && bits & 0x20 != 0,
            psh: bits & 8 != 0,
            ece: bits & 16 != 0,
            cwr: bits & 32 != 0,
        };
        // The first SYN fixes the numbers that the rest of the run is about.
        let first = self.tcp.state() == State::SynSent;
        let seq = if flags.syn && (first || bits & 8 != 0) { PEER } else { expected.add(input.distance()) };
        let ack = match input.u8() % 8 {
            0 => None,
            1..4 => Some(INITIAL.at(self.acked).add(input.distance())),
            4..7 => Some(INITIAL.at(self.next)),
            _ => Some(INITIAL.at(self.next).add(input.distance())),
        };
        let header = Header { seq, ack, flags, window: input.u16(), options: options(input, self) };
        let length = if input.flag() { usize::from(input.u16()) % 9000 } else { 0 };
        let payload = vec![0x5a; length];
        let segment = Segment { header, payload: &payload, congestion_experienced: input.flag() };
        self.tcp.completes_handshake(&segment);
        self.tcp.on_segment(self.now, &segment, &mut self.app);
    }

    fn event(&mut self, input: &mut Input<'_>) {
        match input.u8() % 16 {
            0..6 => self.segment(input),
            6 => {
                self.now = self.tcp.next_timeout().unwrap_or(self.now).max(self.now);
                self.tcp.on_timeout(self.now);
            }
            7 => {
                self.now += Duration::from_micros(u64::from(input.u32() >> (input.u8() % 32)));
                self.tcp.on_timeout(self.now);
            }
            8 => {
                // The clock goes back for one call.
                let before = self.now - Duration::from_micros(u64::from(input.u16()));
                self.tcp.on_timeout(before);
                self.transmit(before);
            }
            9 | 10 => self.app.unsent += u64::from(input.u16()),
            11 => {
                self.app.room += usize::from(input.u16());
                self.tcp.set_receive_room(self.now, self.app.room);
            }
            12 => self.app.urgent = true,
            13 => {
                let sequence = INITIAL.at(self.acked).add(input.distance());
                if input.flag() {
                    self.tcp.on_path_mtu(self.now, sequence, input.u16());
                } else {
                    self.tcp.on_unreachable(self.now, sequence);
                }
            }
            14 => self.tcp.note_blocked(Blocked::Port),
            _ => match input.u8() {
                0..4 => self.tcp.abort(self.now),
                4..100 => self.app.finish = true,
                100..110 => self.app.faulty = true,
                _ => {}
            },
        }
    }

    /// Takes everything that may leave, and checks it.
    fn transmit(&mut self, now: Instant) {
        for count in 0.. {
            assert!(count < SEGMENTS_IN_A_ROW_MAX, "it must come to an end");
            let limit = TransmitLimit {
                super_segment_bytes: if count % 3 == 0 { 0 } else { 5000 },
                train_segments: count % 5,
            };
            let Some(outgoing) = self.tcp.poll_transmit(now, &mut self.app, limit) else { break };
            let header = outgoing.header;
            let payload = self.tcp.payload(&outgoing).to_vec();
            assert!(payload.len() == outgoing.payload_length);
            assert!(outgoing.payload_length == 0 || header.seq == INITIAL.at(outgoing.payload_offset));
            for (offset, byte) in (outgoing.payload_offset..).zip(&payload) {
                assert_eq!(*byte, pattern(offset), "what was sent once is the same for ever");
            }
            if !header.flags.syn && header.ack.is_some() && !header.flags.rst {
                // An acknowledgement may be of less than has come (RFC 8257), never of more.
                let next = 1 + self.app.received + u64::from(self.app.peer_finished);
                let ack = header.ack.and_then(|ack| PEER.offset_near(ack, next)).expect("near");
                assert!(ack <= next, "only what was received is acknowledged: {ack} of {next}");
            }
        }
        let mut events = 0;
        while let Some(event) = self.tcp.poll_event() {
            assert!(!self.closed, "the end is the last event");
            self.closed = matches!(event, Event::Closed(_));
            events += 1;
        }
        assert!(events <= 2);
    }

    fn check(&mut self) {
        let (tcp, app) = (&self.tcp, &self.app);
        let state = tcp.send_state(self.now);
        assert!(tcp.acked_offset() >= self.acked, "what is acknowledged stays so");
        assert!(state.stream_offset >= self.next, "SND.NXT never goes back");
        (self.acked, self.next) = (tcp.acked_offset(), state.stream_offset);
        assert_eq!(state.bytes_in_flight, self.next - self.acked);
        assert!(self.next <= 2 + app.cut, "SYN, bytes, FIN");
        assert!(tcp.out_of_order_bytes() <= self.config.out_of_order_bytes_max);
        // Each acknowledgement and SACK cuts a segment in a few pieces at most.
        let pieces = 16 * EVENTS_MAX + 2 * (self.next - self.acked) as usize / 76;
        let flight = 2 * ((self.next - self.acked) as usize + app.cut as usize + 256).next_power_of_two();
        let bound = size_of::<Connection>() + flight + 512 * pieces + self.config.out_of_order_bytes_max;
        assert!(tcp.memory_bytes() <= bound, "memory is bounded: {} of {bound}", tcp.memory_bytes());
        match tcp.state() {
            State::Closed => assert_eq!(tcp.next_timeout(), None, "a closed connection has no timer"),
            _ => assert!(self.acked == self.next || tcp.next_timeout().is_some(), "no stuck timer"),
        }
        assert!(tcp.next_timeout() != Some(Instant::FAR_FUTURE));
        assert!(!tcp.trace().to_string().is_empty() || tcp.trace().is_empty());
    }
}

/// The first bytes choose a configuration and how the connection opens; the rest is its life.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let config = config(&mut input);
    let now = Instant::from_millis(5000);
    let active = input.flag();
    let tcp = if active {
        Connection::connect(now, &config, INITIAL, 77)
    } else {
        let mut header = Header { seq: PEER, window: input.u16(), ..Header::default() };
        header.flags = Flags { syn: true, ece: input.flag(), cwr: input.flag(), ..Flags::default() };
        let bits = input.u8();
        header.options.timestamps = (bits & 1 == 0).then_some(Timestamps { value: 5, echo: 0 });
        header.options.sack_permitted = bits & 2 == 0;
        header.options.window_scale = (bits & 4 == 0).then_some(bits >> 4);
        header.options.segment_size_max = (bits & 8 == 0).then_some(input.u16());
        let syn = Segment { header, payload: &[], congestion_experienced: false };
        Connection::accept(now, &config, INITIAL, 77, &syn)
    };
    // More than a SYN can promise before anybody says what room there is.
    let app = App { room: 100_000, ..App::default() };
    let mut run = Run { now, tcp, app, config, acked: 0, next: 0, closed: false };
    run.tcp.set_receive_room(now, run.app.room);
    if input.flag() {
        run.transmit(now);
        run.check();
    }
    if input.u8() > 20 {
        run.shake_hands(active);
    }
    for _ in 0..EVENTS_MAX {
        if input.is_empty() {
            break;
        }
        run.event(&mut input);
        if !input.u8().is_multiple_of(8) {
            run.transmit(run.now);
        }
        run.check();
    }
    run.wind_up();
}

impl Run {
    /// The usual way to an open connection, so that most runs get beyond it.
    fn shake_hands(&mut self, active: bool) {
        self.transmit(self.now);
        self.next = self.tcp.send_state(self.now).stream_offset;
        let mut header = Header { seq: PEER, ack: Some(INITIAL.at(1)), window: 60_000, ..Header::default() };
        if active {
            header.flags.syn = true;
            header.options = Options {
                segment_size_max: Some(1460),
                window_scale: Some(4),
                sack_permitted: true,
                timestamps: Some(Timestamps { value: 5, echo: 0 }),
                ..Options::default()
            };
        } else {
            header.seq = PEER.at(1);
        }
        self.now += Duration::from_micros(100);
        let segment = Segment { header, payload: &[], congestion_experienced: false };
        self.tcp.on_segment(self.now, &segment, &mut self.app);
        self.transmit(self.now);
        self.check();
    }

    /// Left alone, a connection that has something in flight comes to an end by its timers.
    fn wind_up(&mut self) {
        self.transmit(self.now);
        self.check();
        // A timer for each paced segment of each retransmission: many, but not without end.
        let mut steps = 0;
        while let Some(next) = self.tcp.next_timeout() {
            self.now = self.now.max(next);
            self.tcp.on_timeout(self.now);
            self.transmit(self.now);
            self.check();
            steps += 1;
            assert!(steps < STEPS_MAX, "timers without end: {:?}", self.tcp.send_state(self.now));
        }
    }
}

/// An opening, data both ways, loss, and an end.
pub fn examples() -> Vec<Vec<u8>> {
    let plain = |active: u8| vec![0, 0, 0, 0, 0, 0, 0, active, 1, 100];
    let data = [9u8, 0x00, 0x40, 1];
    let ack = [0u8, 0, 0, 4, 0xff, 0xff, 0, 0, 0, 1];
    let payload = [0u8, 8, 0, 4, 0xff, 0xff, 0, 1, 100, 0, 0, 1];
    let ahead = [0u8, 8, 3, 200, 4, 0xff, 0xff, 0, 1, 100, 0, 0, 1];
    let sack = [0u8, 0, 0, 1, 0, 0xff, 0xff, 2, 1, 5, 0, 8, 5, 0, 4, 0, 0, 1];
    let timeout = [6u8, 1];
    let finish = [15u8, 50, 1];
    let fin = [0u8, 0x82, 0, 4, 0xff, 0xff, 0, 0, 0, 1];
    vec![
        [&plain(1)[..], &data, &ack, &payload, &ahead, &finish, &fin, &ack, &timeout].concat(),
        [&plain(1)[..], &data, &sack, &sack, &timeout, &ack, &data, &timeout, &timeout].concat(),
        [&plain(0)[..], &data, &payload, &payload, &finish, &timeout, &ack, &fin, &timeout].concat(),
    ]
}
