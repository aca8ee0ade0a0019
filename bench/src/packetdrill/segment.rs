//! TCP segments bit by bit: every flag, every option in the order of the wire. The engine's own types are not used
//! here on purpose: what is compared is what would have been on the wire.

use core::fmt;

/// Control bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) fin: bool,
    pub(crate) syn: bool,
    pub(crate) rst: bool,
    pub(crate) psh: bool,
    pub(crate) ack: bool,
    pub(crate) urg: bool,
    pub(crate) ece: bool,
    pub(crate) cwr: bool,
    /// Accurate ECN's third bit.
    pub(crate) ae: bool,
    /// Accurate ECN's counter, written as a digit.
    pub(crate) ace: Option<u8>,
}

impl Flags {
    /// Reads `S.`, `FP.`, `SEW`, `-`; the character that is no flag otherwise.
    pub(crate) fn parse(text: &str) -> Result<Flags, char> {
        let mut flags = Flags::default();
        if text == "-" {
            return Ok(flags);
        }
        for c in text.chars() {
            match c {
                'F' => flags.fin = true,
                'S' => flags.syn = true,
                'R' => flags.rst = true,
                'P' => flags.psh = true,
                '.' => flags.ack = true,
                'U' => flags.urg = true,
                'E' => flags.ece = true,
                'W' | 'C' => flags.cwr = true,
                'A' => flags.ae = true,
                '0'..='7' => flags.ace = Some(c as u8 - b'0'),
                other => return Err(other),
            }
        }
        Ok(flags)
    }

    fn from_byte(byte: u8) -> Flags {
        let bit = |index: u8| byte & (1 << index) != 0;
        Flags {
            fin: bit(0),
            syn: bit(1),
            rst: bit(2),
            psh: bit(3),
            ack: bit(4),
            urg: bit(5),
            ece: bit(6),
            cwr: bit(7),
            ae: false,
            ace: None,
        }
    }

    fn to_byte(self) -> u8 {
        let bits = [self.fin, self.syn, self.rst, self.psh, self.ack, self.urg, self.ece, self.cwr];
        bits.iter().enumerate().map(|(index, bit)| u8::from(*bit) << index).sum()
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [
            (self.fin, 'F'),
            (self.syn, 'S'),
            (self.rst, 'R'),
            (self.psh, 'P'),
            (self.urg, 'U'),
            (self.ece, 'E'),
            (self.cwr, 'W'),
            (self.ack, '.'),
        ];
        let text: String = letters.iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect();
        f.pad(if text.is_empty() { "-" } else { &text })
    }
}

const KIND_END: u8 = 0;
const KIND_NO_OPERATION: u8 = 1;
const KIND_SEGMENT_SIZE: u8 = 2;
const KIND_WINDOW_SCALE: u8 = 3;
const KIND_SACK_PERMITTED: u8 = 4;
const KIND_SACK: u8 = 5;
const KIND_TIMESTAMPS: u8 = 8;

/// One TCP option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TcpOption {
    End,
    NoOperation,
    SegmentSize(u16),
    WindowScale(u8),
    SackPermitted,
    Sack(Vec<(u32, u32)>),
    Timestamps {
        val: u32,
        ecr: u32,
    },
    /// Anything else: its kind and length.
    Other {
        kind: u8,
        length: usize,
    },
}

impl TcpOption {
    /// Bytes on the wire.
    pub(crate) fn length(&self) -> usize {
        match self {
            TcpOption::End | TcpOption::NoOperation => 1,
            TcpOption::SegmentSize(_) => 4,
            TcpOption::WindowScale(_) => 3,
            TcpOption::SackPermitted => 2,
            TcpOption::Sack(blocks) => 2 + 8 * blocks.len(),
            TcpOption::Timestamps { .. } => 10,
            TcpOption::Other { length, .. } => *length,
        }
    }

    fn emit(&self, bytes: &mut Vec<u8>) {
        let length = self.length() as u8;
        match self {
            TcpOption::End => bytes.push(KIND_END),
            TcpOption::NoOperation => bytes.push(KIND_NO_OPERATION),
            TcpOption::SegmentSize(size) => {
                bytes.extend([KIND_SEGMENT_SIZE, length]);
                bytes.extend(size.to_be_bytes());
            }
            TcpOption::WindowScale(shift) => bytes.extend([KIND_WINDOW_SCALE, length, *shift]),
            TcpOption::SackPermitted => bytes.extend([KIND_SACK_PERMITTED, length]),
            TcpOption::Sack(blocks) => {
                bytes.extend([KIND_SACK, length]);
                for (left, right) in blocks {
                    bytes.extend(left.to_be_bytes());
                    bytes.extend(right.to_be_bytes());
                }
            }
            TcpOption::Timestamps { val, ecr } => {
                bytes.extend([KIND_TIMESTAMPS, length]);
                bytes.extend(val.to_be_bytes());
                bytes.extend(ecr.to_be_bytes());
            }
            TcpOption::Other { kind, .. } => {
                bytes.extend([*kind, length]);
                bytes.resize(bytes.len() + self.length().saturating_sub(2), 0);
            }
        }
    }

    /// Reads the options of a header, in order. What is malformed ends the list as an unknown option.
    fn parse_all(mut bytes: &[u8]) -> Vec<TcpOption> {
        let mut options = Vec::new();
        while let Some((&kind, rest)) = bytes.split_first() {
            if kind <= KIND_NO_OPERATION {
                options.push(if kind == KIND_END { TcpOption::End } else { TcpOption::NoOperation });
                bytes = rest;
                continue;
            }
            let length = rest.first().map_or(0, |length| usize::from(*length));
            if length < 2 || length > bytes.len() {
                options.push(TcpOption::Other { kind, length: bytes.len() });
                break;
            }
            let (option, rest) = bytes.split_at(length);
            options.push(TcpOption::parse_one(kind, &option[2..]));
            bytes = rest;
        }
        options
    }

    fn parse_one(kind: u8, value: &[u8]) -> TcpOption {
        let word = |at: usize| u32::from_be_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]]);
        match (kind, value.len()) {
            (KIND_SEGMENT_SIZE, 2) => TcpOption::SegmentSize(u16::from_be_bytes([value[0], value[1]])),
            (KIND_WINDOW_SCALE, 1) => TcpOption::WindowScale(value[0]),
            (KIND_SACK_PERMITTED, 0) => TcpOption::SackPermitted,
            (KIND_SACK, length) if length > 0 && length % 8 == 0 => {
                TcpOption::Sack((0..length / 8).map(|block| (word(8 * block), word(8 * block + 4))).collect())
            }
            (KIND_TIMESTAMPS, 8) => TcpOption::Timestamps { val: word(0), ecr: word(4) },
            (kind, length) => TcpOption::Other { kind, length: length + 2 },
        }
    }
}

impl fmt::Display for TcpOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TcpOption::End => f.write_str("eol"),
            TcpOption::NoOperation => f.write_str("nop"),
            TcpOption::SegmentSize(size) => write!(f, "mss {size}"),
            TcpOption::WindowScale(shift) => write!(f, "wscale {shift}"),
            TcpOption::SackPermitted => f.write_str("sackOK"),
            TcpOption::Sack(blocks) => {
                f.write_str("sack")?;
                blocks.iter().try_for_each(|(left, right)| write!(f, " {left}:{right}"))
            }
            TcpOption::Timestamps { val, ecr } => write!(f, "TS val {val} ecr {ecr}"),
            TcpOption::Other { kind, length } => write!(f, "option {kind} of {length} bytes"),
        }
    }
}

/// A segment without addresses; `length` is that of its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) flags: Flags,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    pub(crate) options: Vec<TcpOption>,
    pub(crate) length: u32,
}

/// TCP header without options, bytes.
const BASE_HEADER_BYTES: usize = 20;

impl Segment {
    /// As bytes, with a payload of zeros. The checksum is left out: the reader is told that a device vouches for it.
    pub(crate) fn emit(&self, source_port: u16, destination_port: u16) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BASE_HEADER_BYTES + 40 + self.length as usize);
        bytes.extend(source_port.to_be_bytes());
        bytes.extend(destination_port.to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        let options: usize = self.options.iter().map(TcpOption::length).sum();
        bytes.push((((BASE_HEADER_BYTES + options) / 4) as u8) << 4);
        bytes.push(self.flags.to_byte());
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.urgent.to_be_bytes());
        self.options.iter().for_each(|option| option.emit(&mut bytes));
        bytes.resize(bytes.len() + self.length as usize, 0);
        bytes
    }

    /// From bytes; `None` if they are too short for what their header says.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Segment> {
        let header = bytes.get(..BASE_HEADER_BYTES)?;
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let header_length = usize::from(header[12] >> 4) * 4;
        let options = bytes.get(BASE_HEADER_BYTES..header_length)?;
        Some(Segment {
            flags: Flags::from_byte(header[13]),
            seq: word(4),
            ack: word(8),
            window: half(14),
            urgent: half(18),
            options: TcpOption::parse_all(options),
            length: (bytes.len() - header_length) as u32,
        })
    }
}

/// The options list in script notation, with a blank before it, or nothing.
pub(crate) struct OptionList<'a>(pub(crate) Option<&'a [TcpOption]>);

impl fmt::Display for OptionList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str(" <...>"),
            Some([]) => Ok(()),
            Some(options) => {
                let items: Vec<String> = options.iter().map(TcpOption::to_string).collect();
                write!(f, " <{}>", items.join(","))
            }
        }
    }
}
