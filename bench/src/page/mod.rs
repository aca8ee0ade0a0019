//! The page of `report`: one HTML file that needs nothing else, made of the JSON of the other commands.

mod chart;
mod html;
mod plots;
mod results;

#[cfg(test)]
mod tests;

pub(crate) use chart::ChartError;
pub(crate) use results::{Loaded, load};

use html::{Section, Table};

/// Makes the page of these runs, in the order given.
///
/// # Errors
/// A chart could not be drawn.
pub(crate) fn page(runs: &[Loaded]) -> Result<String, ChartError> {
    let mut sections = Vec::new();
    for run in runs {
        let (plots, fields) = plots::of(run)?;
        sections.push(Section {
            id: run.name.clone(),
            title: plots::title(run),
            plots,
            results: Table::of_results(run, fields),
            ratios: Table::of_ratios(run.list("ratios")),
            parameters: run.parameters(),
            host: run.host(),
            noise: run.noise(),
            interrupted: run.is_interrupted(),
            source: run.file.clone(),
        });
    }
    Ok(html::document(&sections))
}
