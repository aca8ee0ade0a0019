//! Runs scripts of the public packetdrill language against the engine: in virtual time, without a network, without
//! root, the same every time. What the language has and this runner has not is refused by name, never passed.
//!
//! `language` reads a script, `runner` goes through it, `kernel` is the host it talks to: sockets on
//! [`outrider_stack::tcp::connection::Connection`]. `python` and `shell` read assertions and shell lines.

mod compare;
mod habits;
mod head;
mod kernel;
mod language;
mod python;
mod runner;
mod segment;
mod settings;
mod shell;

#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use head::Head;
pub(crate) use head::TOLERANCE_US_DEFAULT;

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything was as the script says.
    Passed,
    /// Something was not: the line of the statement, and what was expected and what was.
    Failed { line: usize, message: String },
    /// A statement that this runner does not do.
    Skipped { line: usize, what: String },
    /// It is no script, or could not be read.
    Unreadable { message: String },
}

/// How many scripts ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

/// Runs the text of one script. `tolerance_us`: how far times may be off if the script does not say it.
pub(crate) fn run_text(text: &str, tolerance_us: u64) -> Outcome {
    let script = match language::parse(text) {
        Ok(script) => script,
        Err(error) => return Outcome::Unreadable { message: error.to_string() },
    };
    match Head::read(&script.options, tolerance_us) {
        Err(error) => Outcome::Unreadable { message: error.to_string() },
        Ok(Err((line, what))) => Outcome::Skipped { line, what },
        Ok(Ok(head)) => runner::run(&script, &head),
    }
}

fn run_file(path: &Path, tolerance_us: u64) -> Outcome {
    match fs::read(path) {
        Err(error) => Outcome::Unreadable { message: format!("cannot be read: {error}") },
        Ok(bytes) => match String::from_utf8(bytes) {
            Err(error) => {
                let message = format!("not text: byte {} is no UTF-8", error.utf8_error().valid_up_to());
                Outcome::Unreadable { message }
            }
            Ok(text) => run_text(&text, tolerance_us),
        },
    }
}

/// The scripts that `paths` name: files as they are, folders with every `*.pkt` below them, in order of name.
fn scripts(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for path in paths {
        if path.is_dir() { collect(path, &mut all) } else { all.push(path.clone()) }
    }
    all
}

fn collect(folder: &Path, all: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        all.push(folder.to_owned());
        return;
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    for path in paths {
        // A link to a folder could lead round in a circle.
        if path.is_dir() && !path.is_symlink() {
            collect(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "pkt") {
            all.push(path);
        }
    }
}

/// Runs every script that `paths` name and writes one report per script to `out`, then the totals. `tolerance_us`: how
/// far times may be off in scripts that do not say it.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn run(paths: &[PathBuf], tolerance_us: u64, out: &mut dyn Write) -> io::Result<Tally> {
    let mut tally = Tally::default();
    for path in scripts(paths) {
        let name = path.display();
        match run_file(&path, tolerance_us) {
            Outcome::Passed => {
                tally.passed += 1;
                writeln!(out, "ok {name}")?;
            }
            Outcome::Skipped { line, what } => {
                tally.skipped += 1;
                writeln!(out, "skipped {name}: line {line}: unsupported statement: {what}")?;
            }
            Outcome::Failed { line, message } => {
                tally.failed += 1;
                writeln!(out, "not ok {name}\n  line {line}: {message}")?;
            }
            Outcome::Unreadable { message } => {
                tally.failed += 1;
                writeln!(out, "not ok {name}\n  {message}")?;
            }
        }
    }
    let Tally { passed, failed, skipped } = tally;
    writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped")?;
    Ok(tally)
}
