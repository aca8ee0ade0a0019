//! `packetdrill`: scripts of the public packetdrill language against the engine.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use crate::error::BenchError;
use crate::packetdrill;

/// Options of `packetdrill`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Scripts, or folders: every *.pkt below them is run
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How far packets and calls may be off their times, microseconds, in scripts that do not say it themselves
    #[arg(long, alias = "tolerance_usecs", value_name = "N", default_value_t = packetdrill::TOLERANCE_US_DEFAULT)]
    tolerance_usecs: u64,
}

/// Runs the scripts; one report each, and the totals at the end.
///
/// # Errors
/// [`BenchError::Failed`] when a script failed or could not be read.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let tally = packetdrill::run(&arguments.files, arguments.tolerance_usecs, &mut out)
        .and_then(|tally| out.flush().map(|()| tally));
    match tally {
        Ok(tally) if tally.failed == 0 => Ok(()),
        Ok(tally) => {
            let scripts = if tally.failed == 1 { "script" } else { "scripts" };
            Err(BenchError::failed(format!("{} {scripts} failed; the reports say where", tally.failed)))
        }
        Err(error) => Err(BenchError::failed(format!("the reports cannot be written: {error}"))),
    }
}
