//! Which charts show which experiment.

use std::collections::BTreeMap;

use super::chart::{self, Bar, ChartError, Heading, Line, Range};
use super::results::{Loaded, Row};
use crate::table;

/// Members of a result that tell its point from others, in the order they are written.
const POINT_KEYS: [&str; 12] = [
    "link",
    "rate_bps",
    "delay_us",
    "queue_bytes",
    "loss",
    "interval_us",
    "congestion",
    "peer_congestion",
    "connections",
    "nodes",
    "size_bytes",
    "depth",
];

/// A chart, and what to look at in it.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    /// The drawing.
    pub(crate) svg: String,
    /// One sentence.
    pub(crate) caption: &'static str,
}

/// Charts of a run and the columns that its table begins with.
type Plots = (Vec<Plot>, &'static [&'static str]);

/// What a run is called.
pub(crate) fn title(run: &Loaded) -> String {
    let what = match run.experiment() {
        "demo" | "oob" => "Heartbeats under load",
        "truth" => "What each design says when something fails",
        "throughput" => "Throughput",
        "messages" => "Messages per second",
        "pingpong" => "Round trips",
        "pump" => "The raw port",
        "scale" => "Many connections",
        "cluster" => "A cluster's heartbeats",
        "detect" => "Detection",
        other => return format!("{other} ({})", run.link()),
    };
    if run.link().is_empty() { what.to_owned() } else { format!("{what} ({})", run.link()) }
}

/// The charts of a run.
pub(crate) fn of(run: &Loaded) -> Result<Plots, ChartError> {
    match run.experiment() {
        "demo" | "oob" => heartbeats(run),
        "truth" => truth(run),
        "throughput" => throughput(run),
        "pingpong" => round_trips(run),
        "scale" => scale(run),
        "cluster" => cluster(run),
        "detect" => detection(run),
        "pump" => pump(run),
        _ => Ok((Vec::new(), &[])),
    }
}

fn micros(value: f64) -> String {
    // Axis labels are powers of ten: no digits behind the point.
    let text = table::micros(value);
    text.replace(".00", "")
}

fn bits(value: f64) -> String {
    table::bits_per_second(value).replace(".00", "").replace(".0 ", " ")
}

fn count(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", v / 1e6),
        v if v >= 1e4 => format!("{} k", v / 1e3),
        v => format!("{v}"),
    }
}

fn percent(value: f64) -> String {
    format!("{} %", (value * 1e6).round() / 1e4)
}

/// Variant and the values of its point.
fn label(row: &Row<'_>, except: &[&str]) -> String {
    let mut text = row.variant().to_owned();
    for key in POINT_KEYS.iter().filter(|key| !except.contains(key)) {
        if let Some(value) = row.text(key).filter(|value| *value != text) {
            text += &format!(" {value}");
        } else if let Some(value) = row.number(key) {
            text += &match *key {
                "rate_bps" => format!(" {}", bits(value)),
                "delay_us" | "interval_us" => format!(" {}", micros(value)),
                "queue_bytes" | "size_bytes" => format!(" {}", table::bytes(value as u64)),
                "loss" => format!(" loss {}", percent(value)),
                "depth" => format!(" x{value}"),
                key => format!(" {value} {key}"),
            };
        }
    }
    if row.is_inconclusive() { text + " (inconclusive)" } else { text }
}

fn ranges(run: &Loaded, path: &str, heading: Heading<'_>) -> Result<Option<String>, ChartError> {
    let rows: Vec<Range> = run
        .results()
        .filter_map(|row| {
            let low = row.number(&format!("{path}.p50"))?;
            let high = row.number(&format!("{path}.p99"))?;
            Some(Range { label: label(&row, &[]), variant: row.variant().to_owned(), low, high })
        })
        .collect();
    if rows.is_empty() { Ok(None) } else { chart::ranges(heading, &rows).map(Some) }
}

fn heartbeats(run: &Loaded) -> Result<Plots, ChartError> {
    let title = "Heartbeat delay by design";
    let axis = "one way, from due to arrived; dot: median, bar: to p99";
    let one_way = ranges(run, "heartbeat.one_way_us", Heading { title, axis, unit: micros })?;
    let svg = match one_way {
        Some(svg) => Some(svg),
        None => {
            let axis = "round trip; dot: median, bar: to p99";
            ranges(run, "heartbeat.rtt_us", Heading { title, axis, unit: micros })?
        }
    };
    let mut plots: Vec<Plot> = svg
        .map(|svg| Plot { svg, caption: "Further left is sooner; each step of the grid is ten times." })
        .into_iter()
        .collect();
    let rows: Vec<Bar> = run
        .results()
        .filter_map(|row| {
            let value = row.number("goodput_bps")?;
            let used = row.number("link_utilisation").map(|share| format!(", link {:.0} %", share * 100.0));
            let note = table::bits_per_second(value) + &used.unwrap_or_default();
            Some(Bar { label: label(&row, &[]), variant: row.variant().to_owned(), value, note })
        })
        .collect();
    if !rows.is_empty() {
        let heading = Heading { title: "Goodput of the load beside it", axis: "message payload", unit: bits };
        plots.push(Plot { svg: chart::bars(heading, &rows)?, caption: "What the heartbeats cost the load." });
    }
    Ok((plots, &["variant", "goodput_bps", "heartbeat.one_way_us.p50", "heartbeat.one_way_us.p99"]))
}

fn truth(run: &Loaded) -> Result<Plots, ChartError> {
    let mut events: BTreeMap<&str, Vec<Bar>> = BTreeMap::new();
    let longest = run.results().filter_map(|row| row.number("verdict_after_us")).fold(0.0, f64::max);
    let rows: Vec<Row<'_>> = run.results().collect();
    for row in &rows {
        let Some(event) = row.text("event") else { continue };
        let verdict = row.text("verdict").unwrap_or("none");
        let after = row.number("verdict_after_us");
        let note = match after {
            Some(after) => format!("{verdict} after {}", table::micros(after)),
            None => "no verdict".to_owned(),
        };
        let variant = row.variant().to_owned();
        // Without a verdict the bar is longer than any with one.
        let value = after.unwrap_or(if longest > 0.0 { longest * 1.3 } else { 1.0 });
        events.entry(event).or_default().push(Bar { label: variant.clone(), variant, value, note });
    }
    let mut plots = Vec::new();
    for (event, bars) in events {
        let title = format!("{event}: time until it is told");
        let heading =
            Heading { title: &title, axis: "since the event; until then \"all is well\"", unit: micros };
        let caption = "The bar is the time in which the design still says that all is well.";
        plots.push(Plot { svg: chart::bars(heading, &bars)?, caption });
    }
    Ok((plots, &["variant", "event", "verdict", "verdict_after_us"]))
}

/// Lines of `y` over `x`, one for each label without `x`.
fn curves(run: &Loaded, x: &str, y: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for row in run.results() {
        let (Some(at), Some(value)) = (row.number(x), row.number(y)) else { continue };
        let name = label(&row, &[x]);
        match lines.iter_mut().find(|line| line.variant == name) {
            Some(line) => line.points.push((at, value)),
            None => lines.push(Line { variant: name, points: vec![(at, value)] }),
        }
    }
    lines.retain(|line| line.points.len() > 1);
    lines
}

fn throughput(run: &Loaded) -> Result<Plots, ChartError> {
    let mut plots = Vec::new();
    let by_loss = curves(run, "loss", "goodput_bps");
    if !by_loss.is_empty() {
        let heading = Heading { title: "Goodput by loss", axis: "goodput", unit: bits };
        let svg = chart::lines(heading, ("frames lost", percent), &by_loss)?;
        plots.push(Plot { svg, caption: "Higher is better; both axes go by tens." });
    }
    let by_connections = curves(run, "connections", "cpu_ns_per_segment");
    if !by_connections.is_empty() {
        plots.push(cost_plot(&by_connections)?);
    }
    if plots.is_empty() {
        plots.extend(goodput_bars(run)?);
    }
    Ok((plots, &["variant", "goodput_bps", "longest_stall_us", "cpu_ns_per_segment"]))
}

fn goodput_bars(run: &Loaded) -> Result<Option<Plot>, ChartError> {
    let messages = run.results().any(|row| row.number("messages_per_second").is_some());
    let path = if messages { "messages_per_second" } else { "goodput_bps" };
    let rows: Vec<Bar> = run
        .results()
        .filter_map(|row| {
            let value = row.number(path)?;
            let note = if messages { count(value.round()) } else { table::bits_per_second(value) };
            Some(Bar { label: label(&row, &[]), variant: row.variant().to_owned(), value, note })
        })
        .collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let (title, unit): (_, chart::Unit) =
        if messages { ("Messages per second", count) } else { ("Goodput", bits) };
    let svg = chart::bars(Heading { title, axis: "longer is better", unit }, &rows)?;
    Ok(Some(Plot { svg, caption: "By link, size and number in flight." }))
}

fn cost_plot(lines: &[Line]) -> Result<Plot, ChartError> {
    let heading = Heading { title: "Cost of a segment", axis: "CPU a segment", unit: nanos };
    let svg = chart::lines(heading, ("connections", count), lines)?;
    Ok(Plot { svg, caption: "Lower is better; a flat line scales." })
}

fn nanos(value: f64) -> String {
    if value < 1e3 { format!("{value:.0} ns") } else { micros(value / 1e3) }
}

fn round_trips(run: &Loaded) -> Result<Plots, ChartError> {
    let heading = Heading { title: "Round trip", axis: "dot: median, bar: to p99", unit: micros };
    let svg = ranges(run, "rtt_us", heading)?;
    let plots = svg.map(|svg| Plot { svg, caption: "Further left is sooner; the raw port is the floor." });
    Ok((plots.into_iter().collect(), &["variant", "rtt_us.p50", "rtt_us.p99"]))
}

fn scale(run: &Loaded) -> Result<Plots, ChartError> {
    let mut plots = Vec::new();
    let cost = curves(run, "connections", "cpu_ns_per_segment");
    if !cost.is_empty() {
        plots.push(cost_plot(&cost)?);
    }
    let memory = curves(run, "connections", "bytes_per_connection");
    if !memory.is_empty() {
        let bytes: chart::Unit = |value| table::bytes(value as u64);
        let heading = Heading { title: "Memory of a connection", axis: "bytes", unit: bytes };
        let svg = chart::lines(heading, ("connections", count), &memory)?;
        plots.push(Plot { svg, caption: "Lower is better." });
    }
    Ok((plots, &["variant", "connections", "cpu_ns_per_segment", "bytes_per_connection"]))
}

fn cluster(run: &Loaded) -> Result<Plots, ChartError> {
    let figures: [(&str, &str, &'static str); 3] = [
        ("connections", "Connections for heartbeats and data", "Connections that the nodes hold."),
        ("packets_per_second", "Packets per second for heartbeats", "Counted by the nodes' ports."),
        ("cpu_seconds", "Processor time for heartbeats, s", "Of all nodes together."),
    ];
    let mut plots = Vec::new();
    for (path, title, caption) in figures {
        let rows: Vec<Bar> = run
            .results()
            .filter_map(|row| {
                let value = row.number(path)?;
                let label = label(&row, &["connections"]);
                let note = if value < 100.0 { format!("{value:.3}") } else { format!("{value:.0}") };
                let note = note.trim_end_matches(".000").to_owned();
                Some(Bar { label, variant: row.variant().to_owned(), value, note })
            })
            .collect();
        if !rows.is_empty() {
            let svg = chart::bars(Heading { title, axis: "shorter is better", unit: count }, &rows)?;
            plots.push(Plot { svg, caption });
        }
    }
    Ok((plots, &["variant", "nodes", "connections", "packets_per_second", "bytes_per_second", "cpu_seconds"]))
}

fn detection(run: &Loaded) -> Result<Plots, ChartError> {
    let heading = Heading { title: "Time to detect", axis: "dot: median, bar: to p99", unit: micros };
    let svg = ranges(run, "detected_after_us", heading)?;
    let plots =
        svg.map(|svg| Plot { svg, caption: "Further left is sooner; false alarms are in the table." });
    Ok((plots.into_iter().collect(), &["variant", "detected_after_us.p50", "false_positives"]))
}

fn pump(run: &Loaded) -> Result<Plots, ChartError> {
    let rows: Vec<Bar> = run
        .results()
        .filter_map(|row| {
            let value = row.number("frames_per_second")?;
            let note = count(value.round());
            Some(Bar { label: label(&row, &[]), variant: row.variant().to_owned(), value, note })
        })
        .collect();
    if rows.is_empty() {
        return Ok((Vec::new(), &[]));
    }
    let heading = Heading { title: "Frames per second", axis: "longer is better", unit: count };
    let plot = Plot { svg: chart::bars(heading, &rows)?, caption: "What the port does without TCP." };
    Ok((vec![plot], &["variant", "frames_per_second"]))
}
