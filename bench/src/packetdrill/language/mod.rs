//! The script language: text in, statements out. Nothing here knows of TCP engines.

pub(crate) mod cursor;
pub(crate) mod expression;
pub(crate) mod packet;
mod statement;
mod symbols;

#[cfg(test)]
mod tests;

use core::fmt;

pub(crate) use cursor::SyntaxError;
pub(crate) use expression::Expression;
pub(crate) use packet::{Direction, PacketSpec};
pub(crate) use statement::parse;
pub(crate) use symbols::constant;

/// A whole script.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Script {
    /// `--name=value` lines at the head, in order, without the dashes.
    pub(crate) options: Vec<HeadOption>,
    /// Everything else, in order.
    pub(crate) statements: Vec<Statement>,
}

/// One `--name=value` of the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeadOption {
    pub(crate) line: usize,
    pub(crate) name: String,
    pub(crate) value: Option<String>,
}

/// One statement: when, and what.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Statement {
    pub(crate) line: usize,
    pub(crate) time: Time,
    pub(crate) action: Action,
    /// As written, on one line.
    pub(crate) text: String,
}

/// When a statement happens; microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// Since the start of the script.
    Absolute(u64),
    /// Since the statement before.
    Relative(u64),
    /// Between two times since the start; for expected packets only.
    AbsoluteRange(u64, u64),
    /// Between two times since the statement before; for expected packets only.
    RelativeRange(u64, u64),
    /// `*`: at any time; for expected packets only.
    Any,
    /// None given: the shell lines before the first and after the last statement.
    Unstated,
}

/// What a statement does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// A packet to inject or to expect.
    Packet(PacketSpec),
    /// A system call.
    Call(Call),
    /// A shell line.
    Command(String),
    /// Python over `TCP_INFO`.
    Code(String),
    /// Something the language has and this runner does not do.
    Unsupported(String),
}

/// A system call and what it shall return.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    /// When a blocking call shall return, in the time base of the statement; microseconds.
    pub(crate) end: Option<u64>,
    pub(crate) name: String,
    pub(crate) arguments: Vec<Expression>,
    pub(crate) result: Expression,
    /// Name of the expected `errno`.
    pub(crate) errno: Option<String>,
}

/// A stretch of time in seconds, as scripts write it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seconds(pub(crate) u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
