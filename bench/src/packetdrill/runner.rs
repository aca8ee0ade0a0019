//! Runs one script: waits, injects, expects, calls, asserts, in virtual time.

use std::time::Duration;

use outrider_stack::time::Instant;

use super::compare::{self, Actual};
use super::habits::Habits;
use super::head::Head;
use super::kernel::calls::{Progress, Stop};
use super::kernel::{Errno, InjectError, Kernel, Sent, information};
use super::language::packet::{Body, Ecn, PacketSpec, TcpSpec};
use super::language::{Action, Call, Direction, Script, Seconds, Statement, Time};
use super::python::{self, Failure, Value, Variables};
use super::segment::Segment;
use super::settings::Settings;
use super::{Outcome, shell};

/// Virtual time at the start of a script: well away from zero, and in the middle of a millisecond.
const START: Instant = Instant::from_micros(1_000_000_500);
/// How long an expected packet without a time may let itself be waited for.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Why a script ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Failed { line: usize, message: String },
    Skipped { line: usize, what: String },
}

/// A call that blocks.
struct Pending {
    line: usize,
    call: Call,
    progress: Progress,
    /// When it shall return.
    end: u64,
}

/// A script being run.
struct Run<'s> {
    head: &'s Head,
    kernel: Kernel,
    variables: Variables,
    /// Script time of the statement before, microseconds.
    last_time: u64,
    /// The statement before was an injected packet: times between those do not add up errors.
    last_was_inbound: bool,
    pending: Option<Pending>,
}

/// Runs a script whose every statement is supported as far as reading it can tell.
pub(crate) fn run(script: &Script, head: &Head) -> Outcome {
    if let Some((line, what)) = unsupported(script) {
        return Outcome::Skipped { line, what };
    }
    let mut settings = Settings::default();
    head.apply(&mut settings);
    settings.habits = Some(Habits::of(script));
    let mut run = Run {
        head,
        kernel: Kernel::new(START, settings),
        variables: Variables::new(),
        last_time: 0,
        last_was_inbound: false,
        pending: None,
    };
    let ended = script
        .statements
        .iter()
        .try_for_each(|statement| run.execute(statement))
        .and_then(|()| run.await_pending());
    match ended {
        Ok(()) => Outcome::Passed,
        Err(End::Failed { line, message }) => Outcome::Failed { line, message },
        Err(End::Skipped { line, what }) => Outcome::Skipped { line, what },
    }
}

/// The first statement that is not supported, found without running anything.
fn unsupported(script: &Script) -> Option<(usize, String)> {
    let mut settings = Settings::default();
    let mut set_at = 0;
    script.statements.iter().find_map(|statement| {
        let refused = settings.queue_refuses;
        // What matters only with SACK is judged when all parameters are set.
        if !matches!(statement.action, Action::Command(_))
            && settings.sack
            && let Some(what) = settings.refused_with_sack.take()
        {
            return Some((set_at, what));
        }
        let what = match &statement.action {
            Action::Unsupported(what) => Some(what.clone()),
            Action::Command(text) => {
                let pending = settings.refused_with_sack.is_some();
                let what = shell::run(text, &mut settings).err();
                if !pending && settings.refused_with_sack.is_some() {
                    set_at = statement.line;
                }
                what.or_else(|| {
                    (refused && !settings.queue_refuses)
                        .then(|| "a queue that takes packets again after it took none".to_owned())
                })
            }
            // Linux counts what the queue refuses as never sent; here it is sent and lost.
            Action::Code(_) if refused => Some("an assertion while the queue takes no packets".to_owned()),
            Action::Code(code) => python::parse(code).err(),
            Action::Packet(_) => None,
            Action::Call(call) => call
                .arguments
                .iter()
                .find_map(|argument| argument.unknown_name())
                .map(|name| format!("{name} in {}", call.name)),
        }?;
        Some((statement.line, what))
    })
}

impl Run<'_> {
    /// Script time now, microseconds.
    fn now(&self) -> u64 {
        (self.kernel.now - START).as_micros() as u64
    }

    fn at(time: u64) -> Instant {
        START + Duration::from_micros(time)
    }

    fn execute(&mut self, statement: &Statement) -> Result<(), End> {
        let inbound =
            matches!(&statement.action, Action::Packet(packet) if packet.direction == Direction::Inbound);
        // Injected packets in a row keep their distances exactly.
        let base = if inbound && self.last_was_inbound { self.last_time } else { self.now() };
        let (from, to) = match statement.time {
            Time::Absolute(at) => (at, at),
            Time::Relative(after) => (base + after, base + after),
            Time::AbsoluteRange(from, to) => (from, to),
            Time::RelativeRange(from, to) => (base + from, base + to),
            Time::Any | Time::Unstated => (base, base),
        };
        let line = statement.line;
        let expected = match &statement.action {
            Action::Packet(PacketSpec { direction: Direction::Outbound, ecn, body: Body::Tcp(spec) }) => {
                Some((spec, *ecn))
            }
            _ => None,
        };
        if let Some((spec, ecn)) = expected {
            self.expect(statement, spec, ecn, (from, to))?;
        } else {
            self.wait_until(line, from)?;
            match &statement.action {
                Action::Packet(packet) => self.inject(line, packet)?,
                Action::Call(call) => {
                    // The end of a blocking call counts from the same point as its beginning.
                    let end = call.end.map(|end| match statement.time {
                        Time::Relative(_) => base + end,
                        _ => end,
                    });
                    self.call(line, call, end)?;
                }
                Action::Command(text) => {
                    shell::run(text, &mut self.kernel.settings)
                        .map_err(|what| End::Skipped { line, what })?;
                }
                Action::Code(code) => self.assert(line, code)?,
                Action::Unsupported(what) => return Err(End::Skipped { line, what: what.clone() }),
            }
        }
        self.last_time = from;
        self.last_was_inbound = inbound;
        Ok(())
    }

    /// Tolerance of a time `to` that was reckoned from the statement before.
    fn tolerance(&self, time: u64) -> u64 {
        let share = time.saturating_sub(self.last_time) as f64 * self.head.tolerance_percent / 100.0;
        (share as u64).max(self.head.tolerance_us)
    }

    /// Lets time pass until the time of a statement.
    fn wait_until(&mut self, line: usize, time: u64) -> Result<(), End> {
        let late = self.now().saturating_sub(time);
        if late > self.tolerance(time) {
            let (due, now) = (Seconds(time), Seconds(self.now()));
            let message = format!("the statement is due at {due}, but what it waited for happened at {now}");
            return Err(End::Failed { line, message });
        }
        while let Some(at) = self.next_event().filter(|at| *at <= Self::at(time)) {
            self.kernel.step_to(at);
            self.retry_pending()?;
        }
        self.kernel.run_until(Self::at(time));
        self.retry_pending()
    }

    /// When something happens by itself, the blocking call's time limit included.
    fn next_event(&self) -> Option<Instant> {
        let retry =
            self.pending.as_ref().map(|pending| Self::at(pending.end)).filter(|at| *at > self.kernel.now);
        [self.kernel.next_timeout(), retry].into_iter().flatten().min()
    }

    fn inject(&mut self, line: usize, packet: &PacketSpec) -> Result<(), End> {
        let injected = match &packet.body {
            Body::Tcp(spec) => self.kernel.inject(spec, packet.ecn.unwrap_or(Ecn::None)),
            Body::Icmp(spec) => self.kernel.inject_icmp(spec),
        };
        injected.map_err(|error| match error {
            InjectError::Unsupported(what) => End::Skipped { line, what },
            InjectError::Wrong(message) => End::Failed { line, message },
        })?;
        self.retry_pending()
    }

    /// Waits for the next segment and compares it.
    fn expect(
        &mut self,
        statement: &Statement,
        spec: &TcpSpec,
        ecn: Option<Ecn>,
        (from, to): (u64, u64),
    ) -> Result<(), End> {
        let line = statement.line;
        let timed = statement.time != Time::Any;
        let limit = match timed {
            true => Self::at(to.saturating_add(self.tolerance(to))).max(self.kernel.now),
            false => self.kernel.now + PATIENCE,
        };
        let mut pieces: Vec<(Sent, Segment)> = Vec::new();
        let mut length = 0;
        loop {
            let Some(sent) = self.next_sent(limit)? else {
                let message = compare::missing(spec, ecn, from, &pieces, Seconds(self.now()));
                return Err(End::Failed { line, message });
            };
            let Some(segment) = Segment::parse(&sent.bytes) else {
                return Err(End::Failed { line, message: "a segment left that cannot be read".to_owned() });
            };
            length += segment.length;
            let whole = length >= spec.length || segment.length == 0 || self.head.strict_segments;
            pieces.push((sent, segment));
            if whole {
                break;
            }
        }
        let actual = Actual::join(&pieces);
        let at = (actual.at - START).as_micros() as u64;
        let Some((_, conn)) = self.kernel.connection_under_test() else {
            return Err(End::Failed { line, message: "there is no connection to compare with".to_owned() });
        };
        compare::check(spec, ecn, from, at, &actual, &mut conn.mapping, self.head)
            .map_err(|message| End::Failed { line, message })?;
        let tolerance = self.tolerance(to);
        if timed && (at.saturating_add(tolerance) < from || at > to.saturating_add(tolerance)) {
            let (due, at, tolerance) = (Seconds(from), Seconds(at), Seconds(tolerance));
            let message = format!("the packet left at {at}, expected at {due} (tolerance {tolerance})");
            return Err(End::Failed { line, message });
        }
        Ok(())
    }

    /// The next segment of the connection under test, waiting for it up to `limit`.
    fn next_sent(&mut self, limit: Instant) -> Result<Option<Sent>, End> {
        loop {
            let under_test = self.kernel.connection_under_test().map(|(id, _)| id);
            while let Some(sent) = self.kernel.sent.pop_front() {
                if Some(sent.connection) == under_test {
                    return Ok(Some(sent));
                }
            }
            match self.next_event().filter(|at| *at <= limit) {
                Some(at) => self.kernel.step_to(at),
                None => {
                    self.kernel.run_until(limit.min(self.kernel.now + PATIENCE));
                    return Ok(None);
                }
            }
            self.retry_pending()?;
        }
    }

    fn call(&mut self, line: usize, call: &Call, end: Option<u64>) -> Result<(), End> {
        self.await_pending()?;
        let mut progress = Progress::default();
        let attempt = self.kernel.attempt(call, &mut progress);
        if attempt == Err(Stop::Blocks) {
            let Some(end) = end else {
                let message =
                    format!("{} blocks, and the script gives no end: `+0...0.1 {0}(...)`", call.name);
                return Err(End::Failed { line, message });
            };
            self.pending = Some(Pending { line, call: call.clone(), progress, end });
            return Ok(());
        }
        self.check_result(line, call, attempt)
    }

    /// Attempts the blocking call again after something happened.
    fn retry_pending(&mut self) -> Result<(), End> {
        let Some(mut pending) = self.pending.take() else { return Ok(()) };
        let attempt = self.kernel.attempt(&pending.call, &mut pending.progress);
        if attempt == Err(Stop::Blocks) {
            self.pending = Some(pending);
            return Ok(());
        }
        self.check_result(pending.line, &pending.call, attempt)?;
        let (now, tolerance) = (self.now(), self.tolerance(pending.end).max(self.head.tolerance_us));
        if now.abs_diff(pending.end) > tolerance {
            let (name, now, end) = (&pending.call.name, Seconds(now), Seconds(pending.end));
            let message = format!("{name} returned at {now}, expected at {end}");
            return Err(End::Failed { line: pending.line, message });
        }
        Ok(())
    }

    /// Waits for the blocking call to return.
    fn await_pending(&mut self) -> Result<(), End> {
        let Some(pending) = &self.pending else { return Ok(()) };
        let (line, end, name) = (pending.line, pending.end, pending.call.name.clone());
        let limit = Self::at(end + self.tolerance(end));
        while self.pending.is_some() {
            match self.next_event().filter(|at| *at <= limit) {
                Some(at) => self.kernel.step_to(at),
                None => {
                    let message = format!("{name} has not returned at {}", Seconds(end));
                    return Err(End::Failed { line, message });
                }
            }
            self.retry_pending()?;
        }
        Ok(())
    }

    /// Compares what a call gave with what the script says.
    fn check_result(&mut self, line: usize, call: &Call, attempt: Result<i64, Stop>) -> Result<(), End> {
        let told: Result<i64, Errno> = match attempt {
            Ok(value) => Ok(value),
            Err(Stop::Errno(errno)) => Err(errno),
            Err(Stop::Unsupported(what)) => return Err(End::Skipped { line, what }),
            Err(Stop::Wrong(message)) => return Err(End::Failed { line, message }),
            Err(Stop::Blocks) => unreachable!("a call that blocks has no result"),
        };
        let wanted = call.result.value();
        let holds = match (told, wanted, call.errno.as_deref()) {
            (_, None, None) => true,
            (Ok(value), Some(wanted), None) => value == wanted,
            (Err(errno), Some(-1), Some(name)) => errno.is_called(name),
            (Err(_), Some(-1), None) => true,
            _ => false,
        };
        if holds {
            return Ok(());
        }
        let found = match told {
            Ok(value) => value.to_string(),
            Err(errno) => format!("-1 {errno}"),
        };
        let errno = call.errno.as_ref().map_or(String::new(), |name| format!(" {name}"));
        let message = format!("{} returned {found}, expected {}{errno}", call.name, call.result);
        Err(End::Failed { line, message })
    }

    fn assert(&mut self, line: usize, code: &str) -> Result<(), End> {
        let now = self.kernel.now;
        let conn = self.kernel.connection_under_test().map(|(_, conn)| &*conn);
        for (name, value) in information::names(conn, now) {
            self.variables.insert(name.to_owned(), Value::Int(value));
        }
        let statements = python::parse(code).map_err(|what| End::Skipped { line, what })?;
        match python::run(&statements, &mut self.variables) {
            Ok(()) => Ok(()),
            Err(Failure::Unknown(name)) => {
                Err(End::Skipped { line, what: format!("name {name} in an assertion") })
            }
            Err(Failure::Error(message)) => Err(End::Failed { line, message }),
            Err(Failure::Assertion { line: inner, message }) => {
                let text = code.lines().nth(inner).unwrap_or("").trim();
                Err(End::Failed { line: line + inner, message: format!("`{text}` does not hold: {message}") })
            }
        }
    }
}
