//! What a script may look like.

use super::packet::{Body, Ecn, TcpSpec};
use super::{Action, Expression, PacketSpec, Statement, Time, parse};
use crate::packetdrill::segment::TcpOption;

fn statements(text: &str) -> Vec<Statement> {
    parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).statements
}

fn packet(text: &str) -> (PacketSpec, TcpSpec) {
    match statements(text).remove(0).action {
        Action::Packet(packet @ PacketSpec { body: Body::Tcp(_), .. }) => {
            let Body::Tcp(spec) = packet.body.clone() else { unreachable!("just matched") };
            (packet, spec)
        }
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn times_come_in_every_form() {
    for (text, time) in [
        ("0 close(3) = 0", Time::Absolute(0)),
        ("0.100 close(3) = 0", Time::Absolute(100_000)),
        (".5 close(3) = 0", Time::Absolute(500_000)),
        ("+.002 close(3) = 0", Time::Relative(2_000)),
        ("+0.25 close(3) = 0", Time::Relative(250_000)),
        ("+1 close(3) = 0", Time::Relative(1_000_000)),
        ("* > . 1:1(0) ack 1", Time::Any),
        ("0.1~0.2 > . 1:1(0) ack 1", Time::AbsoluteRange(100_000, 200_000)),
        ("+.21~+.215 > . 1:1(0) ack 1", Time::RelativeRange(210_000, 215_000)),
    ] {
        assert_eq!(statements(text)[0].time, time, "{text}");
    }
}

#[test]
fn blocking_calls_have_an_end() {
    for (text, end) in [
        ("+0...0.200 read(3, ..., 10) = 10", 200_000),
        ("+.002 ... 0.004 connect(3, ..., ...) = 0", 4_000),
        ("0.1...0.3 accept(3, ..., ...) = 4", 300_000),
        ("+0...0 connect(4, ..., ...) = 0", 0),
    ] {
        let Action::Call(call) = statements(text).remove(0).action else { panic!("{text}") };
        assert_eq!(call.end, Some(end), "{text}");
    }
}

#[test]
fn comments_head_lines_and_blank_space_do_not_matter() {
    let text = "#!/usr/bin/env packetdrill\n// one\n/* two\n lines */\n--tolerance_usecs=10000\n--define=PORT=\"x y\"\n\n\
        `./defaults.sh\nsysctl -q net.ipv4.tcp_sack=0`\n 0   socket(..., SOCK_STREAM, IPPROTO_TCP) = 3 // made\n\
        \t+0\tbind(3,\n\t\t..., ...) = 0\n`cleanup.sh`\n";
    let script = parse(text).expect("a script");
    assert_eq!(script.options.len(), 2);
    assert_eq!(script.options[0].value.as_deref(), Some("10000"));
    let lines: Vec<usize> = script.statements.iter().map(|statement| statement.line).collect();
    assert_eq!(lines, [8, 10, 11, 13]);
    assert_eq!(script.statements[0].time, Time::Unstated);
}

#[test]
fn packets_have_flags_numbers_and_options() {
    let (_, spec) = packet("+0 < SEW 7:7(0) win 65535 <mss 1460,sackOK,TS val 10 ecr 0,nop,wscale 7>");
    assert!(spec.flags.syn && spec.flags.ece && spec.flags.cwr && !spec.flags.ack);
    assert_eq!((spec.seq, spec.window), (7, Some(65_535)));
    assert_eq!(spec.options.as_ref().map(Vec::len), Some(5));
    let (packet_spec, spec) = packet("+0 > [ect0] FP. 1:1001(1000) ack 5 <...>");
    assert!(spec.flags.fin && spec.flags.psh && spec.flags.ack && spec.options.is_none());
    assert_eq!((spec.length, spec.ack, packet_spec.ecn), (1000, 5, Some(Ecn::Capable0)));
    let (_, spec) = packet("+0 < . 1:1(0) ack 1 win 9 <nop, nop, sack 1:2 3:4>");
    assert_eq!(spec.options.expect("listed")[2], TcpOption::Sack(vec![(1, 2), (3, 4)]));
    let (_, spec) = packet("+0 < - 1:11(10) win 9");
    assert!(!spec.flags.ack && !spec.flags.syn);
    // Options are on the packet's own line; `<` on the next begins a packet of its own.
    assert_eq!(statements("+0 > . 1:1(0) ack 1\n+0 < . 1:1(0) ack 1 win 5").len(), 2);
}

#[test]
fn icmp_errors_quote_a_segment() {
    let Action::Packet(packet) =
        statements("+0 < [noecn] icmp unreachable frag_needed mtu 1200 [1:1461(1460)]").remove(0).action
    else {
        panic!("a packet")
    };
    let Body::Icmp(spec) = packet.body else { panic!("an ICMP packet") };
    assert_eq!((spec.kind.as_str(), spec.code.as_deref()), ("unreachable", Some("frag_needed")));
    assert_eq!((spec.mtu, spec.quoted_seq), (Some(1200), 1));
}

#[test]
fn arguments_nest() {
    let text = "+0 sendmsg(4, {msg_name(...)=..., msg_iov(2)=[{..., 100}, {..., 200}], msg_flags=0}, MSG_MORE|0x40) = 300";
    let Action::Call(call) = statements(text).remove(0).action else { panic!("a call") };
    assert!(call.arguments[1].field("msg_iov").is_some());
    assert_eq!(call.arguments[2].value(), Some(0x8040));
    let text = "+0 connect(3, {sa_family = AF_INET, sin_port = htons(8080), sin_addr = inet_addr(\"192.0.2.1\")}, 16) = -1 EINPROGRESS (Operation now in progress)";
    let Action::Call(call) = statements(text).remove(0).action else { panic!("a call") };
    assert_eq!(call.errno.as_deref(), Some("EINPROGRESS"));
    assert_eq!(call.arguments[1].field("sin_port").and_then(Expression::value), Some(8080));
    let nested = format!("+0 bind(3, {}1{}) = 0", "[".repeat(200), "]".repeat(200));
    assert!(parse(&nested).is_err(), "nesting is bounded");
}

#[test]
fn what_is_foreign_is_named_and_the_rest_still_read() {
    let text = "+0 < udp (100)\n+0 > mpls (label 1, tc 0, ttl 5):\n   . 1:1(0) ack 1\n+0 splice(3,\n  4) = 1\n+0 close(3) = 0\n";
    let all = statements(text);
    assert_eq!(all.len(), 4);
    for (statement, name) in all.iter().zip(["udp packet", "mpls packet", "system call splice"]) {
        assert_eq!(statement.action, Action::Unsupported(name.to_owned()));
    }
    assert!(matches!(all[3].action, Action::Call(_)));
}

/// A small generator (xorshift).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn no_text_makes_the_parser_panic() {
    let pieces = [
        "0",
        "+0",
        "*",
        "~",
        ".1",
        "...",
        "<",
        ">",
        "S.",
        "1:1(0)",
        "ack 1",
        "win 9",
        "<mss 10,",
        "nop>",
        "`",
        "%{",
        "}%",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "=",
        "-1",
        "\"",
        "//",
        "/*",
        "*/",
        "\n",
        " ",
        "socket",
        "|",
        "icmp",
        "unreachable",
        "--x=y",
        "\\",
        "é",
        "0x",
        "99999999999999999999",
        "TS val 1 ecr",
        "sack 1:2",
    ];
    for seed in 1..4000u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let count = next(&mut state) % 40;
        let text: String = (0..count)
            .map(|_| pieces[(next(&mut state) % pieces.len() as u64) as usize])
            .collect::<Vec<_>>()
            .join(" ");
        let _ = parse(&text);
    }
}
