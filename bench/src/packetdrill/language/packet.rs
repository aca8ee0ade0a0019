//! Packets as scripts write them: `> [ect0] P. 1:1001(1000) ack 1 win 257 <nop,nop,TS val 10 ecr 20>`.

use core::fmt;

use super::cursor::{Cursor, Parsed};
use crate::packetdrill::segment::{Flags, TcpOption};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// `<`: injected, as if from the peer.
    Inbound,
    /// `>`: expected from the stack under test.
    Outbound,
}

/// The ECN field of the IP header, as a check or as a value to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ecn {
    /// Not ECN-capable.
    None,
    /// ECT(1).
    Capable1,
    /// ECT(0).
    Capable0,
    /// Congestion experienced.
    Experienced,
    /// Either ECT(0) or ECT(1); a check only.
    AnyCapable,
}

impl Ecn {
    /// From the two bits.
    pub(crate) fn from_bits(bits: u8) -> Self {
        [Ecn::None, Ecn::Capable1, Ecn::Capable0, Ecn::Experienced][usize::from(bits & 3)]
    }
}

impl fmt::Display for Ecn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ecn::None => "[noecn]",
            Ecn::Capable1 => "[ect1]",
            Ecn::Capable0 => "[ect0]",
            Ecn::Experienced => "[ce]",
            Ecn::AnyCapable => "[ect01]",
        })
    }
}

/// A packet statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PacketSpec {
    pub(crate) direction: Direction,
    /// `None`: unstated.
    pub(crate) ecn: Option<Ecn>,
    pub(crate) body: Body,
}

/// What follows the IP header.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    Tcp(TcpSpec),
    Icmp(IcmpSpec),
}

/// A TCP segment in script numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TcpSpec {
    pub(crate) flags: Flags,
    pub(crate) seq: u32,
    pub(crate) length: u32,
    pub(crate) ack: u32,
    /// `None`: not checked.
    pub(crate) window: Option<u16>,
    pub(crate) urgent: u16,
    /// `None`: `<...>`, not checked.
    pub(crate) options: Option<Vec<TcpOption>>,
}

/// An ICMP error about a segment of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IcmpSpec {
    pub(crate) kind: String,
    pub(crate) code: Option<String>,
    pub(crate) mtu: Option<u32>,
    /// Sequence number of the segment that the error quotes.
    pub(crate) quoted_seq: u32,
}

/// What became of a packet statement.
pub(crate) enum PacketParse {
    Packet(PacketSpec),
    /// Understood to be something this runner does not do.
    Unsupported(String),
}

/// Words that begin encapsulations and protocols that are not TCP over plain IP.
const FOREIGN: [&str; 8] = ["udp", "ipv4", "ipv6", "gre", "GREv0", "mpls", "psp", "raw"];

/// Reads a packet after its direction.
pub(crate) fn parse_packet(cursor: &mut Cursor<'_>, direction: Direction) -> Parsed<PacketParse> {
    cursor.skip_blanks()?;
    let mut ecn = None;
    if let Some(spec) = parse_icmp_after_quotation(cursor)? {
        return Ok(PacketParse::Packet(PacketSpec { direction, ecn, body: Body::Icmp(spec) }));
    }
    if matches!(cursor.peek(), Some('[' | '(')) {
        match parse_ip_information(cursor)? {
            Ok(found) => ecn = found,
            Err(what) => return Ok(PacketParse::Unsupported(what)),
        }
    }
    for word in FOREIGN {
        if cursor.take_word(word)? {
            return Ok(PacketParse::Unsupported(format!("{word} packet")));
        }
    }
    if cursor.take_word("icmp")? {
        let body = Body::Icmp(parse_icmp(cursor)?);
        return Ok(PacketParse::Packet(PacketSpec { direction, ecn, body }));
    }
    let mut ahead = *cursor;
    if ahead.integer("").is_ok() && ahead.take(">")? {
        return Ok(PacketParse::Unsupported("packet with port numbers".to_owned()));
    }
    let spec = match parse_tcp(cursor, direction)? {
        Ok(spec) => spec,
        Err(what) => return Ok(PacketParse::Unsupported(what)),
    };
    cursor_end_of_packet(cursor)?;
    if cursor.take("{")? {
        return Ok(PacketParse::Unsupported("fuzzing of a packet".to_owned()));
    }
    if direction == Direction::Inbound && ecn == Some(Ecn::AnyCapable) {
        return Err(cursor.error("`[ect01]` is a check, so it needs an expected packet"));
    }
    Ok(PacketParse::Packet(PacketSpec { direction, ecn, body: Body::Tcp(spec) }))
}

fn cursor_end_of_packet(cursor: &mut Cursor<'_>) -> Parsed<()> {
    // What follows a packet on its line is a comment or nothing.
    let line = cursor.rest().split('\n').next().unwrap_or("").trim_start();
    if line.is_empty() || line.starts_with("//") || line.starts_with("/*") || line.starts_with(['{', '#']) {
        return Ok(());
    }
    cursor.skip_blanks()?;
    Err(cursor.expected("the end of the packet"))
}

/// `[ect0]`, `(ce)`, `[tos 0x2]`, ...: the ECN check, or what is unsupported.
fn parse_ip_information(cursor: &mut Cursor<'_>) -> Parsed<Result<Option<Ecn>, String>> {
    let close = if cursor.take("[")? { "]" } else { cursor.require("(").map(|()| ")")? };
    let word = cursor.word("an ECN code")?;
    let ecn = match word {
        "noecn" => Ecn::None,
        "ect0" => Ecn::Capable0,
        "ect1" => Ecn::Capable1,
        "ect01" => Ecn::AnyCapable,
        "ce" => Ecn::Experienced,
        "tos" => {
            let tos: u8 = cursor.number("the TOS byte")?;
            if tos & !3 != 0 {
                return Ok(Err(format!("type of service {tos:#x}")));
            }
            Ecn::from_bits(tos)
        }
        "ttl" | "flowlabel" => return Ok(Err(format!("{word} of an IP header"))),
        other => return Err(cursor.error(format!("unknown ECN code `{other}`"))),
    };
    if cursor.take(",")? {
        return Ok(Err("flow label of an IP header".to_owned()));
    }
    cursor.require(close)?;
    Ok(Ok(Some(ecn)))
}

/// `[1:1461(1460)] icmp ...`: the older form, with the segment quoted first.
fn parse_icmp_after_quotation(cursor: &mut Cursor<'_>) -> Parsed<Option<IcmpSpec>> {
    let mut ahead = *cursor;
    if !ahead.take("[")? || ahead.integer("").is_err() {
        return Ok(None);
    }
    cursor.require("[")?;
    let (quoted_seq, _) = parse_sequence(cursor)?;
    cursor.require("]")?;
    if !cursor.take_word("icmp")? {
        return Err(cursor.expected("`icmp` after the segment that it quotes"));
    }
    Ok(Some(IcmpSpec { quoted_seq, ..parse_icmp(cursor)? }))
}

/// The name of an ICMP type that is given as a number (RFC 792); a host drops one that it does not know.
fn icmp_type(kind: &str) -> &str {
    let Some(number) = kind.strip_prefix("type_").and_then(|number| number.parse::<u8>().ok()) else {
        return kind;
    };
    match number {
        0 => "echo_reply",
        3 => "unreachable",
        4 => "source_quench",
        5 => "redirect",
        8 => "echo_request",
        11 => "time_exceeded",
        12 => "parameter_problem",
        _ => "unknown",
    }
}

/// The name of an ICMP code that is given as a number (RFC 792, RFC 1122).
fn unreachable_code(code: &str) -> &str {
    const NAMES: [&str; 16] = [
        "net_unreachable",
        "host_unreachable",
        "protocol_unreachable",
        "port_unreachable",
        "frag_needed",
        "source_route_failed",
        "net_unknown",
        "host_unknown",
        "source_host_isolated",
        "net_prohibited",
        "host_prohibited",
        "net_unreachable_for_tos",
        "host_unreachable_for_tos",
        "packet_filtered",
        "precedence_violation",
        "precedence_cutoff",
    ];
    let number = code.strip_prefix("code_").and_then(|number| number.parse::<usize>().ok());
    number.and_then(|number| NAMES.get(number)).copied().unwrap_or(code)
}

fn parse_icmp(cursor: &mut Cursor<'_>) -> Parsed<IcmpSpec> {
    let kind = icmp_type(cursor.word("an ICMP type")?).to_owned();
    let mut spec = IcmpSpec { kind, code: None, mtu: None, quoted_seq: 0 };
    let mut ahead = *cursor;
    ahead.skip_blanks()?;
    if ahead.peek().is_some_and(|c| c.is_ascii_alphabetic()) && !ahead.take_word("mtu")? {
        spec.code = Some(unreachable_code(cursor.word("an ICMP code")?).to_owned());
    }
    if cursor.take_word("mtu")? {
        spec.mtu = Some(cursor.number("the MTU")?);
    }
    if cursor.take("[")? {
        let (seq, _) = parse_sequence(cursor)?;
        spec.quoted_seq = seq;
        cursor.require("]")?;
    }
    Ok(spec)
}

/// `1:1001(1000)`.
fn parse_sequence(cursor: &mut Cursor<'_>) -> Parsed<(u32, u32)> {
    cursor.skip_blanks()?;
    let start = *cursor;
    let seq: u32 = cursor.number("a sequence number")?;
    cursor.require(":")?;
    let end: u32 = cursor.number("the sequence number after the last byte")?;
    cursor.require("(")?;
    let length: u16 = cursor.number("the payload length")?;
    cursor.require(")")?;
    if seq.wrapping_add(u32::from(length)) != end {
        return Err(start.error(format!("{seq} and {length} bytes do not make {end}")));
    }
    Ok((seq, u32::from(length)))
}

fn parse_tcp(cursor: &mut Cursor<'_>, direction: Direction) -> Parsed<Result<TcpSpec, String>> {
    cursor.skip_blanks()?;
    let word_end = cursor.rest().find(char::is_whitespace).unwrap_or(cursor.rest().len());
    let word = &cursor.rest()[..word_end];
    let flags = match Flags::parse(word) {
        Ok(flags) => flags,
        Err(wrong) => return Err(cursor.error(format!("`{wrong}` in `{word}` is no TCP flag"))),
    };
    cursor.advance(word_end);
    if flags.ae || flags.ace.is_some() {
        return Ok(Err(format!("flags {word} of accurate ECN")));
    }
    let (seq, length) = parse_sequence(cursor)?;
    let mut spec = TcpSpec { flags, seq, length, ack: 0, window: None, urgent: 0, options: Some(Vec::new()) };
    if cursor.take_word("ack")? {
        spec.ack = cursor.number("an acknowledgement number")?;
    }
    if cursor.take_word("win")? {
        spec.window = Some(cursor.number("a window")?);
    } else if direction == Direction::Inbound {
        return Err(cursor.error("an injected packet needs a window: `win N`"));
    }
    if cursor.take_word("urg")? {
        spec.urgent = cursor.number("an urgent pointer")?;
    }
    let mut ahead = *cursor;
    // `<` opens options only on the same line: on the next it would be an injected packet without a time.
    let same_line = ahead.take("<")? && !ahead.since(cursor.offset()).contains('\n');
    if same_line {
        *cursor = ahead;
        if cursor.take("...")? {
            spec.options = None;
            cursor.require(">")?;
            if direction == Direction::Inbound {
                return Err(cursor.error("`<...>` is a check, so it needs an expected packet"));
            }
        } else {
            match parse_options(cursor, direction)? {
                Ok(options) => spec.options = Some(options),
                Err(what) => return Ok(Err(what)),
            }
        }
    }
    Ok(Ok(spec))
}

/// A comma-separated list up to `>`.
fn parse_options(cursor: &mut Cursor<'_>, direction: Direction) -> Parsed<Result<Vec<TcpOption>, String>> {
    let mut options = Vec::new();
    cursor.skip_blanks()?;
    let start = *cursor;
    loop {
        let word = cursor.word("a TCP option")?;
        options.push(match word {
            "nop" => TcpOption::NoOperation,
            "eol" => TcpOption::End,
            "mss" => TcpOption::SegmentSize(cursor.number("an MSS")?),
            "wscale" => TcpOption::WindowScale(cursor.number("a window scale")?),
            "sackOK" => TcpOption::SackPermitted,
            "sack" => TcpOption::Sack(parse_sack(cursor)?),
            "TS" => {
                let val = if cursor.take_word("val")? { cursor.number("a timestamp")? } else { 0 };
                if !cursor.take_word("ecr")? {
                    return Err(cursor.expected("`ecr`"));
                }
                TcpOption::Timestamps { val, ecr: cursor.number("a timestamp echo")? }
            }
            "md5" => {
                if direction == Direction::Outbound {
                    return Ok(Err("TCP option md5 in an expected packet".to_owned()));
                }
                // Sixteen bytes; no host without a key looks at them.
                cursor.word("a signature")?;
                TcpOption::Other { kind: 19, length: 18 }
            }
            "FO" | "FOEXP" | "ACCECN" | "exp" | "AccECN" | "ECN" | "e1b" | "ceb" | "e0b" => {
                return Ok(Err(format!("TCP option {word}")));
            }
            other => return Ok(Err(format!("TCP option {other}"))),
        });
        if cursor.take(">")? {
            break;
        }
        cursor.require(",")?;
    }
    let length: usize = options.iter().map(TcpOption::length).sum();
    if !length.is_multiple_of(4) {
        let message = format!("these options take {length} bytes: pad them with nop to a multiple of 4");
        return Err(start.error(message));
    }
    if length > 40 {
        return Err(start.error(format!("these options take {length} bytes, a header has room for 40")));
    }
    Ok(Ok(options))
}

fn parse_sack(cursor: &mut Cursor<'_>) -> Parsed<Vec<(u32, u32)>> {
    let mut blocks = Vec::new();
    loop {
        let left = cursor.number("the left edge of a SACK block")?;
        cursor.require(":")?;
        blocks.push((left, cursor.number("the right edge of a SACK block")?));
        let mut ahead = *cursor;
        ahead.skip_blanks()?;
        if !ahead.peek().is_some_and(|c| c.is_ascii_digit()) {
            return Ok(blocks);
        }
    }
}
