//! Statements, and the script they make.

use super::cursor::{Cursor, Parsed, SyntaxError};
use super::expression::ExpressionParser;
use super::packet::{Direction, PacketParse, parse_packet};
use super::{Action, Call, HeadOption, Script, Statement, Time};
use crate::packetdrill::kernel::calls;

/// Largest script read, bytes: larger ones are surely no scripts.
const SCRIPT_BYTES_MAX: usize = 4 << 20;

/// Reads a script.
pub(crate) fn parse(text: &str) -> Result<Script, SyntaxError> {
    let mut cursor = Cursor::new(text);
    if text.len() > SCRIPT_BYTES_MAX {
        return Err(cursor.error(format!("the script has {} bytes: too many to be one", text.len())));
    }
    let mut script = Script { options: Vec::new(), statements: Vec::new() };
    let mut defines = Vec::new();
    loop {
        cursor.skip_blanks()?;
        if cursor.is_at_end() {
            break;
        }
        if cursor.rest().starts_with("--") {
            let option = head_option(&mut cursor)?;
            if option.name == "define"
                && let Some((name, value)) = option.value.as_deref().and_then(|value| value.split_once('='))
            {
                defines.push((name.to_owned(), value.to_owned()));
            }
            script.options.push(option);
            continue;
        }
        let statement = statement(&mut cursor, &defines)?;
        check_order(&cursor, &script, &statement)?;
        script.statements.push(statement);
    }
    Ok(script)
}

/// Absolute times never go back, and the first statement is at zero.
fn check_order(cursor: &Cursor<'_>, script: &Script, statement: &Statement) -> Parsed<()> {
    let (Time::Absolute(at) | Time::AbsoluteRange(at, _)) = statement.time else { return Ok(()) };
    let before = script.statements.last().map(|last| last.time);
    if let Some(Time::Absolute(before)) = before
        && at < before
    {
        let mut error = cursor.error("time goes back: it is before the time of the statement above");
        (error.line, error.column) = (statement.line, 1);
        return Err(error);
    }
    Ok(())
}

/// `--name=value`; the value may be quoted.
fn head_option(cursor: &mut Cursor<'_>) -> Parsed<HeadOption> {
    let line = cursor.line();
    cursor.advance(2);
    let name = cursor.word("the name of an option")?.to_owned();
    let mut value = None;
    if cursor.rest().starts_with('=') {
        cursor.advance(1);
        let start = cursor.offset();
        let mut quote = None;
        let rest = cursor.rest();
        let end = rest.find(|c: char| {
            match quote {
                Some(open) if c == open => quote = None,
                None if c == '"' || c == '`' => quote = Some(c),
                _ => {}
            }
            quote.is_none() && c.is_whitespace()
        });
        cursor.advance(end.unwrap_or(rest.len()));
        value = Some(cursor.since(start).to_owned());
    }
    Ok(HeadOption { line, name, value })
}

fn statement(cursor: &mut Cursor<'_>, defines: &[(String, String)]) -> Parsed<Statement> {
    let start = *cursor;
    let line = cursor.line();
    let time = time(cursor)?;
    let action = action(cursor, defines)?;
    if matches!(action, Action::Unsupported(_)) {
        cursor.skip_statement();
    }
    check_time(&start, time, &action)?;
    let text = cursor.since(start.offset());
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(Statement { line, time, action, text })
}

fn time(cursor: &mut Cursor<'_>) -> Parsed<Time> {
    match cursor.peek() {
        Some('`' | '%') => Ok(Time::Unstated),
        Some('*') => {
            cursor.advance(1);
            Ok(Time::Any)
        }
        Some('+') => {
            cursor.advance(1);
            let from = cursor.seconds()?;
            if !cursor.take("~")? {
                return Ok(Time::Relative(from));
            }
            cursor.take("+")?;
            Ok(Time::RelativeRange(from, cursor.seconds()?))
        }
        _ => {
            let from = match cursor.seconds() {
                Ok(from) => from,
                Err(_) => return Err(cursor.expected("a statement: a time, or a shell line in backticks")),
            };
            if !cursor.take("~")? {
                return Ok(Time::Absolute(from));
            }
            Ok(Time::AbsoluteRange(from, cursor.seconds()?))
        }
    }
}

/// Ranges and `*` are for expected packets.
fn check_time(start: &Cursor<'_>, time: Time, action: &Action) -> Parsed<()> {
    if let Time::AbsoluteRange(from, to) | Time::RelativeRange(from, to) = time
        && to < from
    {
        return Err(start.error("the time range ends before it begins"));
    }
    let expects = match action {
        Action::Packet(packet) => packet.direction == Direction::Outbound,
        Action::Unsupported(_) => true,
        _ => false,
    };
    match time {
        Time::AbsoluteRange(..) | Time::RelativeRange(..) | Time::Any if !expects => {
            Err(start.error("a time range or `*` needs an expected packet (`>`)"))
        }
        _ => Ok(()),
    }
}

fn action(cursor: &mut Cursor<'_>, defines: &[(String, String)]) -> Parsed<Action> {
    cursor.skip_blanks()?;
    match cursor.peek() {
        Some('`') => Ok(Action::Command(cursor.delimited('`')?)),
        Some('%') => code(cursor),
        Some('<') => packet(cursor, Direction::Inbound),
        Some('>') => packet(cursor, Direction::Outbound),
        _ => call(cursor, defines),
    }
}

fn packet(cursor: &mut Cursor<'_>, direction: Direction) -> Parsed<Action> {
    cursor.advance(1);
    Ok(match parse_packet(cursor, direction)? {
        PacketParse::Packet(packet) => Action::Packet(packet),
        PacketParse::Unsupported(what) => Action::Unsupported(what),
    })
}

/// `%{ ... }%`.
fn code(cursor: &mut Cursor<'_>) -> Parsed<Action> {
    cursor.require("%{")?;
    let start = *cursor;
    let Some(end) = cursor.rest().find("}%") else {
        return Err(start.error("the code that begins here has no closing `}%`"));
    };
    cursor.advance(end + 2);
    Ok(Action::Code(start.rest()[..end].to_owned()))
}

/// `[...END] name(arguments) = result [ERRNO (text)]`.
fn call(cursor: &mut Cursor<'_>, defines: &[(String, String)]) -> Parsed<Action> {
    let end = if cursor.take("...")? { Some(cursor.seconds()?) } else { None };
    const WANTED: &str = "a packet, a system call, a shell line or code";
    cursor.skip_blanks()?;
    let start = *cursor;
    let name = cursor.word(WANTED)?.to_owned();
    let mut ahead = *cursor;
    if !ahead.take("(")? {
        return Err(start.expected(WANTED));
    }
    if !calls::is_known(&name) {
        return Ok(Action::Unsupported(format!("system call {name}")));
    }
    cursor.require("(")?;
    let mut expressions = ExpressionParser::new(defines);
    let arguments = expressions.list(cursor, ")")?;
    cursor.require("=")?;
    let result = expressions.expression(cursor)?;
    let mut errno = None;
    let mut ahead = *cursor;
    ahead.skip_blanks()?;
    if ahead.peek().is_some_and(|c| c.is_ascii_uppercase()) {
        errno = Some(cursor.word("an errno name")?.to_owned());
    }
    if cursor.take("(")? {
        let Some(close) = cursor.rest().find(')') else {
            return Err(cursor.error("the remark that begins here has no closing `)`"));
        };
        cursor.advance(close + 1);
    }
    Ok(Action::Call(Call { end, name, arguments, result, errno }))
}
