//! What strikes a running pair, and when: a schedule that follows from a seed.

use std::time::Duration;

use outrider_stack::tcp::segment::{Flags, Header, Segment, Timestamps};
use outrider_stack::tcp::sequence::SeqNumber;
use outrider_stack::tcp::source::{SegmentSink, SendState};
use outrider_stack::time::Instant;

use crate::pair::{Pair, Random};

/// One blow. Paths and nodes are numbered 0 and 1; a path has the number of the node that sends on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trouble {
    /// The path swallows everything, or no longer.
    Cut(usize, bool),
    /// The largest payload that the path carries; what is longer is swallowed and reported.
    PayloadMax(usize, usize),
    /// The application of the node stops reading.
    StopReading(usize),
    /// It reads so many bytes.
    Read(usize, u64),
    /// It reads at once again.
    ReadOn(usize),
    /// So many segments to the node have their windows made smaller.
    ShrinkWindows(usize, u32),
    /// The node is not run for so long: its clock jumps.
    Freeze(usize, Duration),
    /// The node's clock goes back for one call.
    ClockBack(usize, Duration),
    /// The application of the node gives up.
    Abort(usize),
    /// Somebody off the path guesses a segment to the node.
    Forge(usize),
    /// Everything ECN-capable is marked, or no longer.
    Mark(usize, bool),
    /// Bits per second.
    Rate(usize, u64),
    Delay(usize, Duration),
    /// Shares of segments reordered, and lost.
    Disorder(usize, f64, f64),
    /// The application of the node has so many more bytes to send.
    Write(usize, u64),
    /// It has something urgent to send.
    Urgent(usize),
    /// ICMP "unreachable" about a random segment.
    Unreachable(usize),
}

/// How many kinds there are, to count them by [`Trouble::kind`].
pub(crate) const KINDS: usize = 17;

impl Trouble {
    pub(crate) fn kind(self) -> usize {
        match self {
            Trouble::Cut(..) => 0,
            Trouble::PayloadMax(..) => 1,
            Trouble::StopReading(_) => 2,
            Trouble::Read(..) => 3,
            Trouble::ReadOn(_) => 4,
            Trouble::ShrinkWindows(..) => 5,
            Trouble::Freeze(..) => 6,
            Trouble::ClockBack(..) => 7,
            Trouble::Abort(_) => 8,
            Trouble::Forge(_) => 9,
            Trouble::Mark(..) => 10,
            Trouble::Rate(..) => 11,
            Trouble::Delay(..) => 12,
            Trouble::Disorder(..) => 13,
            Trouble::Write(..) => 14,
            Trouble::Urgent(_) => 15,
            Trouble::Unreachable(_) => 16,
        }
    }
}

/// A length of time between `shortest` and `longest`, every order of magnitude alike.
fn duration(random: &mut Random, shortest: Duration, longest: Duration) -> Duration {
    let (low, high) = (shortest.as_secs_f64().ln(), longest.as_secs_f64().ln());
    let share = random.below(1000) as f64 / 1000.0;
    Duration::from_secs_f64((low + (high - low) * share).exp())
}

const MILLISECOND: Duration = Duration::from_millis(1);

/// Everything that will strike, in order of time.
pub(crate) fn schedule(random: &mut Random, start: Instant) -> Vec<(Instant, Trouble)> {
    let length = duration(random, 20 * MILLISECOND, Duration::from_secs(20));
    let mut all = Vec::new();
    for node in 0..2 {
        for _ in 0..random.below(6) {
            all.push((moment(random, start, length), Trouble::Write(node, random.below(60_000))));
        }
    }
    for _ in 0..2 + random.below(14) {
        let at = moment(random, start, length);
        strike_once(random, at, &mut all);
    }
    if random.chance(0.1) {
        all.push((moment(random, start, length), Trouble::Abort(random.below(2) as usize)));
    }
    all.sort_by_key(|(at, _)| *at);
    all
}

fn moment(random: &mut Random, start: Instant, length: Duration) -> Instant {
    start + length * random.below(1000) as u32 / 1000
}

/// One trouble, and its end where it has one.
fn strike_once(random: &mut Random, at: Instant, all: &mut Vec<(Instant, Trouble)>) {
    let side = random.below(2) as usize;
    let mut lasting = |random: &mut Random, longest: u64, begin: Trouble, end: Trouble| {
        let until = at + duration(random, 10 * MILLISECOND, Duration::from_millis(longest));
        all.extend([(at, begin), (until, end)]);
    };
    match random.below(14) {
        0 | 1 => {
            lasting(random, 20_000, Trouble::Cut(side, true), Trouble::Cut(side, false));
            if random.chance(0.5) {
                lasting(random, 20_000, Trouble::Cut(1 - side, true), Trouble::Cut(1 - side, false));
            }
        }
        2 => {
            let payload_max = 200 + random.below(1200) as usize;
            let end = Trouble::PayloadMax(side, usize::MAX);
            lasting(random, 20_000, Trouble::PayloadMax(side, payload_max), end);
        }
        3 => {
            let until = at + duration(random, 10 * MILLISECOND, 20_000 * MILLISECOND);
            all.push((at, Trouble::StopReading(side)));
            for _ in 0..random.below(10) {
                all.push((moment(random, at, until - at), Trouble::Read(side, random.below(5000))));
            }
            all.push((until, Trouble::ReadOn(side)));
        }
        4 => all.push((at, Trouble::ShrinkWindows(side, 1 + random.below(20) as u32))),
        5 => {
            let time = duration(random, MILLISECOND, 10_000 * MILLISECOND);
            all.push((at, Trouble::Freeze(side, time)));
        }
        6 => all.push((at, Trouble::ClockBack(side, Duration::from_micros(random.below(5000))))),
        7 | 8 => {
            for _ in 0..random.below(8) {
                all.push((at + Duration::from_micros(random.below(50_000)), Trouble::Forge(side)));
            }
        }
        9 => lasting(random, 5_000, Trouble::Mark(side, true), Trouble::Mark(side, false)),
        10 => {
            all.push((
                at,
                Trouble::Rate(side, [300_000, 5_000_000, 1_000_000_000][random.below(3) as usize]),
            ));
        }
        11 => {
            let delay = duration(random, Duration::from_micros(10), 50 * MILLISECOND);
            all.push((at, Trouble::Delay(side, delay)));
        }
        12 => {
            let (reorder, loss) = (random.below(500) as f64 / 1000.0, random.below(200) as f64 / 1000.0);
            let end = Trouble::Disorder(side, 0.0, 0.0);
            lasting(random, 5_000, Trouble::Disorder(side, reorder, loss), end);
        }
        _ => all.extend([(at, Trouble::Urgent(side)), (at, Trouble::Unreachable(side))]),
    }
}

/// Lets `trouble` strike now.
pub(crate) fn strike(pair: &mut Pair, random: &mut Random, trouble: Trouble) {
    let now = pair.now;
    match trouble {
        Trouble::Cut(path, cut) => pair.paths[path].cut = cut,
        Trouble::PayloadMax(path, payload_max) => pair.paths[path].payload_max = payload_max,
        Trouble::StopReading(node) => {
            let app = &mut pair.nodes[node].app;
            if !app.keeps {
                (app.keeps, app.taken) = (true, app.received);
            }
        }
        Trouble::Read(node, bytes) => {
            let app = &mut pair.nodes[node].app;
            app.taken = (app.taken + bytes).min(app.received);
            tell_room(pair, node);
        }
        Trouble::ReadOn(node) => {
            pair.nodes[node].app.keeps = false;
            tell_room(pair, node);
        }
        Trouble::ShrinkWindows(node, count) => pair.windows_to_shrink[node] = count,
        Trouble::Freeze(node, time) => pair.frozen_until[node] = pair.frozen_until[node].max(now + time),
        Trouble::ClockBack(node, time) => pair.clock_back[node] = time,
        Trouble::Abort(node) => {
            if let Some(tcp) = &mut pair.nodes[node].tcp {
                tcp.abort(now);
            }
        }
        Trouble::Forge(node) => forge(pair, random, node),
        Trouble::Mark(path, all) => pair.paths[path].mark_above = all.then_some(0),
        Trouble::Rate(path, rate) => pair.paths[path].bits_per_second = rate,
        Trouble::Delay(path, delay) => pair.paths[path].delay = delay,
        Trouble::Disorder(path, reorder, loss) => {
            (pair.paths[path].reorder, pair.paths[path].loss) = (reorder, loss);
        }
        Trouble::Write(node, bytes) => pair.nodes[node].app.total += bytes,
        Trouble::Urgent(node) => {
            let app = &mut pair.nodes[node].app;
            app.urgent = !app.finish;
        }
        Trouble::Unreachable(node) => {
            if let Some(tcp) = &mut pair.nodes[node].tcp
                && tcp.state().is_synchronised()
            {
                tcp.on_unreachable(now, SeqNumber(random.next() as u32));
            }
        }
    }
}

fn tell_room(pair: &mut Pair, node: usize) {
    let now = pair.now;
    let node = &mut pair.nodes[node];
    if let Some(tcp) = &mut node.tcp {
        tcp.set_receive_room(now, node.app.room());
    }
}

/// What a forged segment must not change.
fn fingerprint(pair: &Pair, node: usize) -> (SendState, u64, u64, bool, bool, bool) {
    let (tcp, app) = (pair.tcp(node), &pair.nodes[node].app);
    let state = SendState { blocked: Default::default(), ..tcp.send_state(pair.now) };
    let closed = tcp.state() == outrider_stack::tcp::connection::State::Closed;
    (state, tcp.acked_offset(), app.received, app.peer_finished, closed, tcp.out_of_order_bytes() > 0)
}

/// A blind attacker's segment: numbers in and out of the window, any flags. Left out is the one guess against which
/// TCP has no defence: sequence number in the window together with an acknowledgement number that is right.
fn forge(pair: &mut Pair, random: &mut Random, node: usize) {
    let Some(tcp) = &pair.nodes[node].tcp else { return };
    if !tcp.state().is_synchronised() || pair.is_frozen(node) {
        return;
    }
    let app = &pair.nodes[node].app;
    let (una, sent) = (tcp.acked_offset(), tcp.send_state(pair.now).stream_offset);
    let expected = pair.nodes[1 - node].initial.at(1 + app.received + u64::from(app.peer_finished));
    let (seq, in_window) = match random.below(4) {
        0 => (expected.add(random.below(2000) as u32), true),
        // Left of the window by more than it can be wide, where nothing that is still under way begins.
        1 => {
            let window = pair.config[node].receive_window_max;
            (expected.add((window + 2 + random.below(50_000) as u32).wrapping_neg()), false)
        }
        2 => (expected.add(random.below(1 << 30) as u32 + (8 << 20)), false),
        _ => (expected.add(1 + random.below(20_000) as u32), true),
    };
    let initial = pair.nodes[node].initial;
    let wrong = match random.below(3) {
        // Data never sent; data acknowledged long ago.
        0 => initial.at(sent + 1 + random.below(1 << 30)),
        1 => initial.at(una).add((random.below(1 << 30) as u32 + (8 << 20)).wrapping_neg()),
        _ => initial.at(sent).add(0x8000_0000 - random.below(1000) as u32),
    };
    let right = initial.at(una + random.below(sent - una + 1));
    let ack = if in_window || random.chance(0.5) { wrong } else { right };
    let mut flags = Flags {
        syn: random.chance(0.2),
        fin: random.chance(0.2),
        rst: random.chance(0.3),
        psh: random.chance(0.5),
        ece: random.chance(0.2),
        cwr: random.chance(0.2),
    };
    // The one reset that must be believed has a story of its own.
    flags.rst &= seq != expected;
    let mut header =
        Header { seq, ack: random.chance(0.9).then_some(ack), flags, window: 0, ..Header::default() };
    header.window = random.next() as u16;
    if random.chance(0.5) {
        header.options.timestamps =
            Some(Timestamps { value: random.next() as u32, echo: random.next() as u32 });
    }
    let payload = vec![0xee; [0, 0, 1, 100][random.below(4) as usize]];
    let before = fingerprint(pair, node);
    let now = pair.now;
    let target = &mut pair.nodes[node];
    let segment = Segment { header, payload: &payload, congestion_experienced: random.chance(0.2) };
    if let Some(tcp) = &mut target.tcp {
        tcp.on_segment(now, &segment, &mut target.app);
    }
    assert_eq!(fingerprint(pair, node), before, "a forged segment changes nothing: {header:?}");
}
