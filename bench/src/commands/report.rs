//! `report`: one page from the JSON of other commands.

use std::path::PathBuf;

use clap::Args;

use crate::error::BenchError;
use crate::page;
use crate::report::print_stdout;

/// Options of `report`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Folder with JSON files, such as `bench all` writes
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Where to write the page [default: report.html in DIR]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes the page.
///
/// # Errors
/// [`BenchError::Failed`] when there is nothing to show or the page cannot be written.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let (runs, strangers) = page::load(&arguments.folder)?;
    for file in &strangers {
        eprintln!("warning: {file} is no result of this tool, and is not on the page");
    }
    let html = page::page(&runs).map_err(|error| BenchError::failed(error.to_string()))?;
    let output = arguments.output.clone().unwrap_or_else(|| arguments.folder.join("report.html"));
    std::fs::write(&output, html).map_err(|error| {
        BenchError::failed(format!(
            "cannot write {}: {error}; give --output a file in a folder that exists and is writable",
            output.display()
        ))
    })?;
    print_stdout(&format!("{}: {} experiments\n", output.display(), runs.len()))
}
