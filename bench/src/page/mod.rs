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

/// Experiments in the order in which the page has them; others come last.
const ORDER: [&str; 9] =
    ["all", "demo", "oob", "truth", "detect", "throughput", "scale", "cluster", "pingpong"];

/// Makes the page of these runs.
///
/// # Errors
/// A chart could not be drawn.
pub(crate) fn page(runs: &[Loaded]) -> Result<String, ChartError> {
    let mut sections = Vec::new();
    let rank = |run: &Loaded| ORDER.iter().position(|name| *name == run.experiment()).unwrap_or(ORDER.len());
    let mut ordered: Vec<&Loaded> = runs.iter().collect();
    // Stable: runs of one experiment stay in the order of their files.
    ordered.sort_by_key(|run| rank(run));
    for run in ordered {
        let (plots, fields) = plots::of(run)?;
        sections.push(Section {
            id: run.name.clone(),
            title: plots::title(run),
            plots,
            results: Table::of_results(run, fields),
            whole: Table::of_all(run),
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
