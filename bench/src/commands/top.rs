//! `top`: what a running node does, from the statistics it publishes.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use outrider_stack::shard::segment::{Reader, WriterState};

use crate::error::BenchError;
use crate::node::now;
use crate::report::print_stdout;
use crate::stop::Stop;
use crate::top::{Sample, View};
use crate::units::Span;

/// Clears a terminal and puts the cursor in its first corner.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Options of `top`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// The file in which the node publishes (its --statistics) [default: the latest where nodes put them]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Look twice, one interval apart, print the table and end; also what happens when the output is no terminal
    #[arg(long)]
    once: bool,
    /// Between two looks; rates are taken over it
    #[arg(long, value_name = "TIME", default_value = "1s")]
    interval: Span,
    /// Connections shown at most, those with the most traffic first
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: usize,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let stop = Stop::on_signals()?;
    let (path, others) = arguments.choose()?;
    let reader = Reader::open(&path).map_err(|error| BenchError::failed(error.to_string()))?;
    let live = !arguments.once && std::io::stdout().is_terminal();
    let mut before = Sample::take(&reader, now());
    loop {
        let gone = reader.writer() == WriterState::Gone;
        if !gone {
            stop.wait(Some(arguments.interval.0), &mut |_| Ok(()))?;
        }
        let sample = Sample::take(&reader, now());
        let view = View { header: reader.header(), path: &path, others, rows: arguments.rows };
        let text = view.render(&before, &sample);
        print_stdout(&if live { format!("{CLEAR}{text}") } else { text })?;
        if reader.writer() == WriterState::Gone {
            return arguments.end(&reader, &path);
        }
        if !live || stop.is_raised() {
            return Ok(());
        }
        before = sample;
    }
}

impl Arguments {
    /// The file to read, and how many other nodes publish.
    fn choose(&self) -> Result<(PathBuf, usize), BenchError> {
        if let Some(path) = &self.file {
            return Ok((path.clone(), 0));
        }
        let running =
            |path: &PathBuf| Reader::open(path).is_ok_and(|reader| reader.writer() == WriterState::Running);
        let mut found = Reader::list().into_iter().filter(running);
        let latest = found.next().ok_or_else(|| {
            BenchError::failed(
                "no node publishes statistics here; start 'bench serve', or give the FILE of one",
            )
        })?;
        Ok((latest, found.count()))
    }

    /// The node has ended: in order, and then its file went with it, or killed.
    fn end(&self, reader: &Reader, path: &std::path::Path) -> Result<(), BenchError> {
        let pid = reader.header().pid;
        if path.exists() {
            let path = path.display();
            return Err(BenchError::failed(format!(
                "process {pid} was killed, and these are its last statistics; remove {path} when you have read them"
            )));
        }
        print_stdout(&format!("process {pid} has ended\n"))
    }
}
