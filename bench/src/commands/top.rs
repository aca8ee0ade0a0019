//! `top`: what a running node does, from the statistics it publishes.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use outrider_stack::shard::segment::{Reader, WriterState};

use crate::error::BenchError;
use crate::node::now;
use crate::report::print_stdout;
use crate::stop::Stop;
use crate::top::{Board, Filter, Sample, Screen, Sort, View};
use crate::units::Span;

/// Between looks at the keyboard.
const LOOK: Duration = Duration::from_millis(100);

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
    /// Connections shown at most; on a terminal as many as there is room for
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: usize,
    /// Which connections come first; the key s changes it
    #[arg(long, value_enum, default_value = "traffic")]
    sort: Sort,
    /// Show only connections that fit all these words: shard=N, port=N, blocked, the state in the last column, or a part
    /// of the peer's address; the key / changes it
    #[arg(long, value_name = "WORDS", default_value = "")]
    filter: Filter,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let stop = Stop::on_signals()?;
    let (path, others) = arguments.choose()?;
    let reader = Reader::open(&path).map_err(|error| BenchError::failed(error.to_string()))?;
    let board = Board::new(arguments.sort, arguments.filter.clone());
    if !arguments.once && std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        return arguments.live(&reader, (&path, others), board, &stop);
    }
    let before = Sample::take(&reader, now());
    if reader.writer() != WriterState::Gone {
        stop.wait(Some(arguments.interval.0), &mut |_| Ok(()))?;
    }
    let sample = Sample::take(&reader, now());
    let rows = arguments.rows;
    let view = View { header: reader.header(), path: &path, others, rows, board: &board };
    print_stdout(&view.render(&before, &sample))?;
    if reader.writer() == WriterState::Gone { arguments.end(&reader, &path) } else { Ok(()) }
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

    /// Until a key or a signal ends it, or the node.
    fn live(
        &self,
        reader: &Reader,
        (path, others): (&Path, usize),
        mut board: Board,
        stop: &Stop,
    ) -> Result<(), BenchError> {
        let screen = Screen::take()?;
        let mut before = Sample::take(reader, now());
        let mut sample = Sample::take(reader, now());
        let mut next = now() + self.interval.0;
        while reader.writer() != WriterState::Gone {
            let rows = screen.size().1;
            let view = View { header: reader.header(), path, others, rows, board: &board };
            screen.draw(&view.render(&before, &sample), &board.line())?;
            if stop.is_raised() {
                return Ok(());
            }
            let patience = (next - now()).min(LOOK);
            if let Some(key) = screen.key(patience)?
                && !board.press(key, sample.connections.len())
            {
                return Ok(());
            }
            if now() >= next {
                next = now() + self.interval.0;
                if !board.paused {
                    before = std::mem::replace(&mut sample, Sample::take(reader, now()));
                }
            }
        }
        drop(screen);
        self.end(reader, path)
    }

    /// The node has ended: in order, and then its file went with it, or killed.
    fn end(&self, reader: &Reader, path: &Path) -> Result<(), BenchError> {
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
