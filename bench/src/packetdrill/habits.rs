//! Habits of the host that a script was written on, as far as the script shows them.
//!
//! The hosts of public scripts differ by their age, their memory and their system in things that no RFC decides. Where
//! a script shows which of two such habits its host had, the runner's host takes it over; what the script then says of
//! the wire is compared as ever.

use std::collections::BTreeSet;

use super::language::packet::{Body, PacketSpec, TcpSpec};
use super::language::{Action, Call, Direction, Script, Statement, Time};
use super::segment::TcpOption;

/// First windows of Linux before it offered all it has, in segments.
const FIRST_WINDOW_SEGMENTS: [u32; 3] = [4, 10, 20];
/// What a host offers at first that has more than the field can say.
const FIRST_WINDOW_LARGEST: u16 = u16::MAX;
/// What timestamps take of every segment, bytes.
const TIMESTAMP_BYTES: u16 = 12;

/// What a script shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Habits {
    /// Window scale of the first SYN that the script expects with one.
    pub(crate) window_shift: Option<u8>,
    /// Window of the first SYN that it expects with one that some hosts begin with.
    pub(crate) first_window: Option<u16>,
    /// The acknowledgement of a FIN does not wait.
    pub(crate) finish_acked_at_once: bool,
    /// Segments handed down as one have PSH on the last of them (Linux since 4.20), not only where a write ends.
    pub(crate) pushes_groups: bool,
}

impl Habits {
    /// Reads them off a script.
    pub(crate) fn of(script: &Script) -> Habits {
        let syns = || packets(script, Direction::Outbound).filter(|spec| spec.flags.syn);
        Habits {
            window_shift: syns().find_map(window_shift),
            first_window: syns().find_map(first_window),
            finish_acked_at_once: finish_acked_at_once(script),
            pushes_groups: pushes_groups(script),
        }
    }
}

fn packet(statement: &Statement, direction: Direction) -> Option<&TcpSpec> {
    match &statement.action {
        Action::Packet(PacketSpec { direction: found, body: Body::Tcp(spec), .. }) if *found == direction => {
            Some(spec)
        }
        _ => None,
    }
}

fn packets(script: &Script, direction: Direction) -> impl Iterator<Item = &TcpSpec> {
    script.statements.iter().filter_map(move |statement| packet(statement, direction))
}

fn option<T>(spec: &TcpSpec, pick: impl Fn(&TcpOption) -> Option<T>) -> Option<T> {
    spec.options.as_ref()?.iter().find_map(pick)
}

fn segment_size(spec: &TcpSpec) -> Option<u16> {
    option(spec, |option| match option {
        TcpOption::SegmentSize(size) => Some(*size),
        _ => None,
    })
}

fn window_shift(syn: &TcpSpec) -> Option<u8> {
    option(syn, |option| match option {
        TcpOption::WindowScale(shift) => Some(*shift),
        _ => None,
    })
}

fn first_window(syn: &TcpSpec) -> Option<u16> {
    let window = syn.window?;
    let of_segments = segment_size(syn).is_some_and(|size| {
        [size, size.saturating_sub(TIMESTAMP_BYTES)].iter().any(|size| {
            FIRST_WINDOW_SEGMENTS.iter().any(|count| u32::from(*size) * count == u32::from(window))
        })
    });
    (of_segments || window == FIRST_WINDOW_LARGEST).then_some(window)
}

/// Whether `statement` happens at the very time of the one before it.
fn is_at_once(before: &Statement, statement: &Statement) -> bool {
    match (before.time, statement.time) {
        (_, Time::Relative(0)) => true,
        (Time::Absolute(before), Time::Absolute(at)) => before == at,
        _ => false,
    }
}

/// The first injected FIN without data after which the script waits for nothing but its acknowledgement tells.
fn finish_acked_at_once(script: &Script) -> bool {
    let closes = |statement: &&Statement| match &statement.action {
        // Who has closed first acknowledges the peer's FIN at once everywhere.
        Action::Call(Call { name, .. }) => name == "close" || name == "shutdown",
        _ => false,
    };
    let open = script.statements.iter().take_while(|statement| !closes(statement)).count();
    script.statements[..open].windows(2).find_map(|pair| {
        let finish = packet(&pair[0], Direction::Inbound)?;
        let answer = packet(&pair[1], Direction::Outbound)?;
        let tells = finish.flags.fin && finish.length == 0 && answer.length == 0 && !answer.flags.fin;
        tells.then(|| is_at_once(&pair[0], &pair[1]))
    }) == Some(true)
}

/// Bytes that a call writes, as far as its result says.
fn written(call: &Call) -> u64 {
    match call.name.as_str() {
        "write" | "writev" | "send" | "sendto" | "sendmsg" | "sendfile" => {
            call.result.value().and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
        }
        _ => 0,
    }
}

/// Whether the script expects PSH where no write ends. Where it does not, its host sets it only there, or it makes no
/// difference.
fn pushes_groups(script: &Script) -> bool {
    let mut write_ends = BTreeSet::new();
    let mut end = 1u64;
    script.statements.iter().any(|statement| {
        match &statement.action {
            Action::Call(call) if matches!(call.name.as_str(), "socket" | "accept" | "accept4") => {
                end = 1;
                write_ends.clear();
            }
            Action::Call(call) => {
                end = end.saturating_add(written(call));
                write_ends.insert(end as u32);
            }
            _ => {}
        }
        packet(statement, Direction::Outbound).is_some_and(|spec| {
            let pushed = spec.length > 0 && spec.flags.psh && !spec.flags.fin;
            pushed && !write_ends.contains(&spec.seq.wrapping_add(spec.length))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packetdrill::language::parse;

    const SERVER: &str = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 listen(3, 1) = 0\n\
        +0 < S 0:0(0) win 9999 <mss 1000>\n";

    fn habits(rest: &str) -> Habits {
        Habits::of(&parse(&format!("{SERVER}{rest}")).expect("a script"))
    }

    #[test]
    fn the_first_window_is_taken_over_where_some_host_begins_so() {
        for (answer, window) in [
            ("win 65535 <mss 1460>", Some(65_535)),
            ("win 29200 <mss 1460,nop,wscale 7>", Some(29_200)),
            ("win 14480 <mss 1460,sackOK,TS val 1 ecr 2,nop,wscale 7>", Some(14_480)),
            ("win 12345 <mss 1460>", None),
            ("<mss 1460>", None),
            ("win 65535 <...>", Some(65_535)),
            ("win 29200 <...>", None),
        ] {
            assert_eq!(habits(&format!("+0 > S. 0:0(0) ack 1 {answer}\n")).first_window, window, "{answer}");
        }
    }

    #[test]
    fn an_answer_to_a_fin_tells_unless_this_end_has_closed_before() {
        let fin = "+1 < F. 1:1(0) ack 1 win 9\n";
        assert!(habits(&format!("{fin}+0 > . 1:1(0) ack 2\n")).finish_acked_at_once);
        assert!(!habits(&format!("{fin}+.04 > . 1:1(0) ack 2\n")).finish_acked_at_once);
        assert!(!habits(&format!("+0 close(4) = 0\n{fin}+0 > . 1:1(0) ack 2\n")).finish_acked_at_once);
        assert!(!habits(&format!("{fin}+0 close(4) = 0\n+0 > F. 1:1(0) ack 2\n")).finish_acked_at_once);
        let absolute = "0.5 < F. 1:1(0) ack 1 win 9\n0.5 > . 1:1(0) ack 2\n";
        assert!(habits(absolute).finish_acked_at_once);
    }

    #[test]
    fn a_push_where_no_write_ends_is_one_of_a_group() {
        let write = "+0 write(4, ..., 5000) = 5000\n";
        for (packets, pushes) in [
            ("+0 > P. 1:5001(5000) ack 1\n", false),
            ("+0 > . 1:3001(3000) ack 1\n+0 > P. 3001:5001(2000) ack 1\n", false),
            ("+0 > P. 1:3001(3000) ack 1\n", true),
            ("+0 > P. 1:5001(5000) ack 1\n+1 > P. 1:2001(2000) ack 1\n", true),
        ] {
            assert_eq!(habits(&format!("{write}{packets}")).pushes_groups, pushes, "{packets}");
        }
        let second = format!("{write}+0 accept(3, ..., ...) = 5\n+0 > P. 1:5001(5000) ack 1\n");
        assert!(habits(&second).pushes_groups, "the writes of another connection do not count");
    }
}
