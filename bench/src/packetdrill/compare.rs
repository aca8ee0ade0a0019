//! What left against what the script expects, field by field, and both in the notation of scripts.

use core::fmt::{self, Write as _};

use outrider_stack::time::Instant;

use super::head::Head;
use super::kernel::{Mapping, Sent};
use super::language::Seconds;
use super::language::packet::{Ecn, TcpSpec};
use super::segment::{OptionList, Segment, TcpOption};

/// One segment that left, or several that the script writes as one.
pub(crate) struct Actual {
    /// As on the wire; the first segment's header with the last one's FIN and PSH.
    pub(crate) segment: Segment,
    pub(crate) ecn: Ecn,
    pub(crate) at: Instant,
    /// What is wrong with the pieces, if they do not make one.
    broken: Option<String>,
}

impl Actual {
    /// Joins consecutive segments; there is at least one.
    pub(crate) fn join(pieces: &[(Sent, Segment)]) -> Actual {
        let mut pieces_left = pieces.iter();
        let Some((sent, first)) = pieces_left.next() else {
            unreachable!("a packet is compared only after one has left")
        };
        let mut actual = Actual { segment: first.clone(), ecn: sent.ecn, at: sent.at, broken: None };
        for (sent, piece) in pieces_left {
            let segment = &mut actual.segment;
            let follows = piece.seq == segment.seq.wrapping_add(segment.length);
            let same =
                piece.ack == segment.ack && piece.flags.ack == segment.flags.ack && sent.ecn == actual.ecn;
            if !follows || !same || segment.flags.fin || piece.flags.syn || piece.flags.rst {
                actual.broken.get_or_insert("the segments that left do not make one packet".to_owned());
            }
            segment.length += piece.length;
            segment.flags.fin = piece.flags.fin;
            segment.flags.psh = piece.flags.psh;
            actual.at = sent.at;
        }
        actual
    }
}

/// A packet in the notation of scripts.
struct Written<'a> {
    at: u64,
    ecn: Option<Ecn>,
    segment: &'a Segment,
    /// `None`: not stated.
    window: Option<u16>,
    options: Option<&'a [TcpOption]>,
}

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segment = self.segment;
        write!(f, "{} >", Seconds(self.at))?;
        if let Some(ecn) = self.ecn {
            write!(f, " {ecn}")?;
        }
        let end = segment.seq.wrapping_add(segment.length);
        write!(f, " {} {}:{end}({})", segment.flags, segment.seq, segment.length)?;
        if segment.flags.ack || segment.ack != 0 {
            write!(f, " ack {}", segment.ack)?;
        }
        if let Some(window) = self.window {
            write!(f, " win {window}")?;
        }
        if segment.urgent != 0 {
            write!(f, " urg {}", segment.urgent)?;
        }
        write!(f, "{}", OptionList(self.options))
    }
}

fn expected_segment(spec: &TcpSpec) -> Segment {
    Segment {
        flags: spec.flags,
        seq: spec.seq,
        ack: spec.ack,
        window: spec.window.unwrap_or(0),
        urgent: spec.urgent,
        options: spec.options.clone().unwrap_or_default(),
        length: spec.length,
    }
}

fn written_expectation(spec: &TcpSpec, ecn: Option<Ecn>, at: u64) -> String {
    let segment = expected_segment(spec);
    let options = spec.options.as_deref();
    Written { at, ecn, segment: &segment, window: spec.window, options }.to_string()
}

/// Compares; the complaint has both packets. Teaches the mapping what it can learn from a SYN and from timestamps.
pub(crate) fn check(
    spec: &TcpSpec,
    ecn: Option<Ecn>,
    due: u64,
    at: u64,
    actual: &Actual,
    mapping: &mut Mapping,
    head: &Head,
) -> Result<(), String> {
    let live = &actual.segment;
    if spec.flags.syn && live.flags.syn {
        mapping.set_local_script(spec.seq);
    }
    if let (Some(script), Some(sent)) = (timestamp(spec.options.as_deref()), timestamp(Some(&live.options))) {
        mapping.learn_timestamp(script, sent);
    }
    let found = mapping.outbound(live);
    let wrong = match &actual.broken {
        Some(broken) => Some(broken.clone()),
        None => difference(spec, ecn, &found, actual.ecn, head),
    };
    let Some(wrong) = wrong else { return Ok(()) };
    let mut message = wrong;
    let shown = Written {
        at,
        ecn: ecn.is_some().then_some(actual.ecn),
        segment: &found,
        window: Some(found.window),
        options: Some(&found.options),
    };
    let _ = write!(message, "\n  expected: {}", written_expectation(spec, ecn, due));
    let _ = write!(message, "\n  actual:   {shown}");
    Err(message)
}

/// The complaint that nothing, or not enough, left in time.
pub(crate) fn missing(
    spec: &TcpSpec,
    ecn: Option<Ecn>,
    due: u64,
    pieces: &[(Sent, Segment)],
    now: Seconds,
) -> String {
    let expected = written_expectation(spec, ecn, due);
    let length: u32 = pieces.iter().map(|(_, segment)| segment.length).sum();
    let actual = match length {
        0 => format!("nothing left until {now}"),
        length => format!("only {length} bytes left until {now}"),
    };
    format!("the packet did not leave\n  expected: {expected}\n  actual:   {actual}")
}

fn timestamp(options: Option<&[TcpOption]>) -> Option<u32> {
    options?.iter().find_map(|option| match option {
        TcpOption::Timestamps { val, .. } => Some(*val),
        _ => None,
    })
}

/// The first field that differs.
fn difference(
    spec: &TcpSpec,
    ecn: Option<Ecn>,
    found: &Segment,
    found_ecn: Ecn,
    head: &Head,
) -> Option<String> {
    let differs = |name: &str, wanted: &dyn fmt::Display, got: &dyn fmt::Display| {
        Some(format!("{name} is {got}, expected {wanted}"))
    };
    let ecn_holds = match ecn {
        None => true,
        Some(Ecn::AnyCapable) => matches!(found_ecn, Ecn::Capable0 | Ecn::Capable1),
        Some(wanted) => wanted == found_ecn,
    };
    if let Some(wanted) = ecn.filter(|_| !ecn_holds) {
        return differs("the ECN field", &wanted, &found_ecn);
    }
    if spec.flags != found.flags {
        return differs("the flags field", &spec.flags, &found.flags);
    }
    if spec.seq != found.seq {
        return differs("the sequence number", &spec.seq, &found.seq);
    }
    if spec.length != found.length {
        return differs("the payload length", &spec.length, &found.length);
    }
    if spec.ack != found.ack {
        return differs("the acknowledgement number", &spec.ack, &found.ack);
    }
    if let Some(window) = spec.window.filter(|window| *window != found.window) {
        return differs("the window", &window, &found.window);
    }
    if spec.urgent != found.urgent {
        return differs("the urgent pointer", &spec.urgent, &found.urgent);
    }
    let wanted = spec.options.as_deref()?;
    let same = wanted.len() == found.options.len()
        && wanted.iter().zip(&found.options).all(|(wanted, found)| same_option(wanted, found, head));
    if same {
        return None;
    }
    let show = |options: &[TcpOption]| match OptionList(Some(options)).to_string().trim() {
        "" => "no options".to_owned(),
        text => text.to_owned(),
    };
    Some(format!("the options are {}, expected {}", show(&found.options), show(wanted)))
}

/// Options are compared bit by bit, except timestamps: those only where the script has asked for it.
fn same_option(wanted: &TcpOption, found: &TcpOption, head: &Head) -> bool {
    match (wanted, found) {
        (TcpOption::Timestamps { val: wanted, .. }, TcpOption::Timestamps { val: found, .. }) => {
            let ticks = u64::from((found.wrapping_sub(*wanted) as i32).unsigned_abs());
            ticks.saturating_mul(head.timestamp_tick_us) <= head.tolerance_us
        }
        _ => wanted == found,
    }
}
