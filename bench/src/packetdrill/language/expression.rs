//! Arguments and results of system calls.

use core::fmt;

use super::cursor::{Cursor, Parsed};
use super::symbols::constant;

/// An expression as scripts write them; structures are kept as they stand, and read by the call they belong to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expression {
    /// `...`: whatever is sensible.
    Ellipsis,
    /// `?`: any result.
    Any,
    /// A number.
    Integer(i64),
    /// A name.
    Word(String),
    /// One or several strings in quotes, joined.
    Text(String),
    /// `a|b`.
    Or(Box<Expression>, Box<Expression>),
    /// `name=value`, also `name(...)=value`.
    Field(String, Box<Expression>),
    /// `name(arguments)`.
    Function(String, Vec<Expression>),
    /// `[...]`.
    List(Vec<Expression>),
    /// `{...}`.
    Structure(Vec<Expression>),
}

impl Expression {
    /// The number it stands for, if it is one.
    pub(crate) fn value(&self) -> Option<i64> {
        match self {
            Expression::Integer(value) => Some(*value),
            Expression::Word(word) => constant(word),
            Expression::Or(a, b) => Some(a.value()? | b.value()?),
            Expression::List(items) => match items.as_slice() {
                [one] => one.value(),
                _ => None,
            },
            Expression::Function(name, arguments) => match (name.as_str(), arguments.as_slice()) {
                ("htons" | "htonl" | "ntohs", [one]) => one.value(),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value of field `name` of a structure.
    pub(crate) fn field(&self, name: &str) -> Option<&Expression> {
        let Expression::Structure(items) = self else { return None };
        items.iter().find_map(|item| match item {
            Expression::Field(field, value) if field == name => Some(&**value),
            _ => None,
        })
    }

    /// The first name in it that stands for nothing known.
    pub(crate) fn unknown_name(&self) -> Option<&str> {
        match self {
            Expression::Word(word) => constant(word).is_none().then_some(word),
            Expression::Or(a, b) => a.unknown_name().or_else(|| b.unknown_name()),
            Expression::Field(_, value) => value.unknown_name(),
            Expression::List(items) | Expression::Structure(items) => {
                items.iter().find_map(Expression::unknown_name)
            }
            Expression::Function(name, arguments) => match name.as_str() {
                "htons" | "htonl" | "ntohs" | "inet_addr" | "inet6_addr" => {
                    arguments.iter().find_map(Expression::unknown_name)
                }
                _ => Some(name),
            },
            Expression::Ellipsis | Expression::Any | Expression::Integer(_) | Expression::Text(_) => None,
        }
    }
}

fn join(f: &mut fmt::Formatter<'_>, items: &[Expression]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        write!(f, "{comma}{item}")?;
    }
    Ok(())
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expression::Ellipsis => f.write_str("..."),
            Expression::Any => f.write_str("?"),
            Expression::Integer(value) => write!(f, "{value}"),
            Expression::Word(word) => f.write_str(word),
            Expression::Text(text) => write!(f, "{text:?}"),
            Expression::Or(a, b) => write!(f, "{a}|{b}"),
            Expression::Field(name, value) => write!(f, "{name}={value}"),
            Expression::Function(name, arguments) => {
                write!(f, "{name}(")?;
                join(f, arguments)?;
                f.write_str(")")
            }
            Expression::List(items) => {
                f.write_str("[")?;
                join(f, items)?;
                f.write_str("]")
            }
            Expression::Structure(items) => {
                f.write_str("{")?;
                join(f, items)?;
                f.write_str("}")
            }
        }
    }
}

/// How deep expressions may be nested.
const DEPTH_MAX: usize = 32;

/// Reads expressions; knows the `--define`d names.
pub(crate) struct ExpressionParser<'d> {
    defines: &'d [(String, String)],
    depth: usize,
}

impl<'d> ExpressionParser<'d> {
    pub(crate) fn new(defines: &'d [(String, String)]) -> Self {
        ExpressionParser { defines, depth: 0 }
    }

    /// Expressions up to `end`, separated by commas.
    pub(crate) fn list(&mut self, cursor: &mut Cursor<'_>, end: &str) -> Parsed<Vec<Expression>> {
        let mut items = Vec::new();
        if cursor.take(end)? {
            return Ok(items);
        }
        loop {
            items.push(self.expression(cursor)?);
            if cursor.take(end)? {
                return Ok(items);
            }
            cursor.require(",")?;
        }
    }

    /// One expression.
    pub(crate) fn expression(&mut self, cursor: &mut Cursor<'_>) -> Parsed<Expression> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(cursor.error("the expression is nested too deeply"));
        }
        let mut left = self.primary(cursor)?;
        if let Expression::Word(name) | Expression::Function(name, _) = &left {
            let mut ahead = *cursor;
            if ahead.take("=")? {
                *cursor = ahead;
                left = Expression::Field(name.clone(), Box::new(self.expression(cursor)?));
            }
        }
        while cursor.take("|")? {
            left = Expression::Or(Box::new(left), Box::new(self.primary(cursor)?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn primary(&mut self, cursor: &mut Cursor<'_>) -> Parsed<Expression> {
        cursor.skip_blanks()?;
        if cursor.take("...")? {
            return Ok(Expression::Ellipsis);
        }
        match cursor.peek() {
            Some('?') => {
                cursor.advance(1);
                Ok(Expression::Any)
            }
            Some('"') => self.text(cursor),
            Some('[') => {
                cursor.advance(1);
                Ok(Expression::List(self.list(cursor, "]")?))
            }
            Some('{') => {
                cursor.advance(1);
                Ok(Expression::Structure(self.list(cursor, "}")?))
            }
            Some(c) if c.is_ascii_digit() || c == '-' => Ok(Expression::Integer(cursor.integer("a number")?)),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => self.word(cursor),
            _ => Err(cursor.expected("a value")),
        }
    }

    fn text(&mut self, cursor: &mut Cursor<'_>) -> Parsed<Expression> {
        let mut text = String::new();
        loop {
            text.push_str(&cursor.string()?);
            let mut ahead = *cursor;
            ahead.skip_blanks()?;
            if ahead.peek() != Some('"') {
                break;
            }
        }
        // `"abc"...`: only the beginning matters.
        cursor.take("...")?;
        Ok(Expression::Text(text))
    }

    fn word(&mut self, cursor: &mut Cursor<'_>) -> Parsed<Expression> {
        let word = cursor.word("a name")?;
        if let Some((_, value)) = self.defines.iter().find(|(name, _)| name == word) {
            let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            return Ok(match (quoted, value.parse()) {
                (Some(text), _) => Expression::Text(text.to_owned()),
                (None, Ok(number)) => Expression::Integer(number),
                (None, Err(_)) => Expression::Word(value.clone()),
            });
        }
        if cursor.rest().starts_with('(') {
            cursor.advance(1);
            return Ok(Expression::Function(word.to_owned(), self.list(cursor, ")")?));
        }
        Ok(Expression::Word(word.to_owned()))
    }
}
