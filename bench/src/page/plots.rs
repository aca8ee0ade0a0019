//! Which charts show which experiment.

use super::chart::{self, Bar, ChartError, Heading, Line, Range, Told};
use super::results::{Loaded, Row};
use crate::table;

/// Members of a result that tell its point from others, in the order they are written.
pub(super) const POINT_KEYS: [&str; 20] = [
    "link",
    "rate_bps",
    "delay_us",
    "queue_bytes",
    "loss",
    "interval_us",
    "congestion",
    "peer_congestion",
    "connections",
    "pattern",
    "turn_bytes",
    "nodes",
    "size_bytes",
    "message_bytes",
    "depth",
    "direction",
    "offload",
    "event",
    "poll",
    "frame_bytes",
];

/// Those of them that a title names, and how.
const VARIED: [(&str, &str); 7] = [
    ("rate_bps", "rate"),
    ("loss", "loss"),
    ("congestion", "congestion control"),
    ("message_bytes", "size of message"),
    ("frame_bytes", "size of frame"),
    ("direction", "direction"),
    ("offload", "offload"),
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
        "all" => "What was run",
        other => return format!("{other} ({})", run.link()),
    };
    let link = if run.link().is_empty() { String::new() } else { format!(" ({})", run.link()) };
    let by = varied(run);
    let by = if by.is_empty() { String::new() } else { format!(", by {}", by.join(" and ")) };
    format!("{what}{link}{by}")
}

/// What differs between the points of a run, so that one experiment is told from another of its kind.
fn varied(run: &Loaded) -> Vec<&'static str> {
    let differs = |key: &str| {
        let mut values = run.results().filter_map(|row| row.0.get(key));
        values.next().is_some_and(|first| values.any(|other| other != first))
    };
    VARIED.iter().filter(|(key, _)| differs(key)).map(|(_, name)| *name).collect()
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
        "all" => Ok((Vec::new(), &["variant", "status", "reason", "seconds", "command"])),
        _ => Ok((Vec::new(), &[])),
    }
}

fn micros(value: f64) -> String {
    // Axis labels are powers of ten: no digits behind the point.
    table::micros(value).replace(".00 ", " ").replace(".0 ", " ")
}

fn bits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    table::bits_per_second(value).replace(".00", "").replace(".0 ", " ")
}

/// About three digits.
fn count(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 1e6 => (v / 1e6, " M"),
        v if v >= 1e4 => (v / 1e3, " k"),
        v => (v, ""),
    };
    let digits = match value {
        v if v >= 100.0 || v.fract() == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}{unit}")
}

fn percent(value: f64) -> String {
    format!("{} %", (value * 1e6).round() / 1e4)
}

/// Variant and the values of its point.
fn label(row: &Row<'_>, except: &[&str]) -> String {
    let mut text = row.variant().to_owned();
    for key in POINT_KEYS.iter().filter(|key| !except.contains(key)) {
        if let Some(value) = row.text(key).filter(|value| *value != text) {
            // "on" alone says nothing.
            let named = if *key == "offload" { "offload " } else { "" };
            text += &format!(" {named}{value}");
        } else if let Some(value) = row.number(key) {
            text += &match *key {
                "rate_bps" => format!(" {}", bits(value)),
                "delay_us" | "interval_us" => format!(" {}", micros(value)),
                "frame_bytes" => format!(" {value} B"),
                "queue_bytes" | "size_bytes" | "message_bytes" | "turn_bytes" => {
                    format!(" {}", table::bytes(value as u64).replace(".0 ", " "))
                }
                "loss" => format!(" loss {}", percent(value)),
                "depth" => format!(" x{value}"),
                key => format!(" {value} {key}"),
            };
        }
    }
    text
}

/// A bar for a figure of a result.
fn bar(row: &Row<'_>, path: &str, label: String, note: String) -> Option<Bar> {
    let value = row.number(path)?;
    Some(Bar { label, variant: row.variant().to_owned(), value, note, spread: row.spread(path) })
}

/// A chart of bars; `None` without any.
fn bar_plot(heading: Heading<'_>, bars: &[Bar], caption: &'static str) -> Result<Option<Plot>, ChartError> {
    if bars.is_empty() {
        return Ok(None);
    }
    Ok(Some(Plot { svg: chart::bars(heading, bars)?, caption }))
}

fn ranges(run: &Loaded, path: &str, heading: Heading<'_>) -> Result<Option<String>, ChartError> {
    let rows: Vec<Range> = run
        .results()
        .filter_map(|row| {
            let low = row.number(&format!("{path}.p50"))?;
            let high = row.number(&format!("{path}.p99"))?;
            let spread = row.spread(&format!("{path}.p50"));
            let note = format!("{} to {}", table::micros(low), table::micros(high));
            Some(Range {
                label: label(&row, &[]),
                note,
                variant: row.variant().to_owned(),
                low,
                high,
                spread,
            })
        })
        .collect();
    if rows.is_empty() { Ok(None) } else { chart::ranges(heading, &rows).map(Some) }
}

fn heartbeats(run: &Loaded) -> Result<Plots, ChartError> {
    let title = "Heartbeat delay by design";
    let axis = "one way, from due to arrived (us, ms; logarithmic)";
    let one_way = ranges(run, "heartbeat.one_way_us", Heading { title, axis, unit: micros })?;
    let svg = match one_way {
        Some(svg) => Some(svg),
        None => {
            let axis = "round trip (us, ms; logarithmic)";
            ranges(run, "heartbeat.rtt_us", Heading { title, axis, unit: micros })?
        }
    };
    let delays = svg.map(|svg| Plot { svg, caption: "Further left is sooner." });
    let bars: Vec<Bar> = run
        .results()
        .filter_map(|row| {
            let used = row.number("link_utilisation").map(|share| format!(", {:.0} % used", share * 100.0));
            let note = table::bits_per_second(row.number("goodput_bps")?) + &used.unwrap_or_default();
            bar(&row, "goodput_bps", label(&row, &[]), note)
        })
        .collect();
    let heading =
        Heading { title: "Goodput of the load beside it", axis: "message payload (bit/s)", unit: bits };
    let goodput =
        bar_plot(heading, &bars, "What the heartbeats cost the load; the share of the link that is used.")?;
    let columns = &[
        "heartbeat.one_way_us.p50",
        "heartbeat.one_way_us.p99",
        "heartbeat.one_way_us.max",
        "heartbeat.rtt_us.p50",
        "goodput_bps",
        "link_utilisation",
        "heartbeat.sent",
        "heartbeat.received",
        "heartbeat.superseded",
    ];
    Ok((delays.into_iter().chain(goodput).collect(), columns))
}

/// Verdicts before this are drawn as if at this: the axis begins here.
const TIMELINE_FROM_US: f64 = 1_000.0;

fn truth(run: &Loaded) -> Result<Plots, ChartError> {
    let columns = &["verdict", "verdict_after_us", "answered", "sent", "false_verdicts"];
    let latest = run.results().filter_map(|row| row.number("verdict_after_us")).fold(0.0, f64::max);
    let length = run.parameter("seconds").map_or(10.0 * latest, |seconds| seconds * 1e6);
    let to = length.max(2.0 * latest).max(10.0 * TIMELINE_FROM_US);
    let rows: Vec<Told> = run
        .results()
        .filter_map(|row| {
            let verdict = row.number("verdict_after_us").zip(row.text("verdict"));
            Some(Told {
                label: format!("{}: {}", row.text("event")?, label(&row, &["event"])),
                verdict: verdict.map(|(after, verdict)| (after, verdict.to_owned())),
                is_right: row.text("expected").is_none_or(|expected| row.text("verdict") == Some(expected)),
            })
        })
        .collect();
    if rows.is_empty() {
        return Ok((Vec::new(), columns));
    }
    let heading = Heading {
        title: "What is said after something has happened",
        axis: "time since the event (ms, s; logarithmic)",
        unit: |value| micros(if value < 1e6 { (value / 1e3).round() * 1e3 } else { value }),
    };
    let svg = chart::timelines(heading, (TIMELINE_FROM_US, to), &rows)?;
    let caption = "Grey is the time in which a design misleads whoever asks it.";
    Ok((vec![Plot { svg, caption }], columns))
}

/// Lines of `y` over `x`, one for each label without `x`.
fn curves(run: &Loaded, x: &str, y: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for row in run.results() {
        let (Some(at), Some(value)) = (row.number(x), row.number(y)) else { continue };
        let name = label(&row, &[x]);
        match lines.iter_mut().find(|line| line.variant == name) {
            Some(line) => line.points.push((at, value, row.spread(y))),
            None => lines.push(Line { variant: name, points: vec![(at, value, row.spread(y))] }),
        }
    }
    lines.retain(|line| line.points.len() > 1);
    lines
}

fn throughput(run: &Loaded) -> Result<Plots, ChartError> {
    let mut plots = Vec::new();
    let by_loss = curves(run, "loss", "goodput_bps");
    if !by_loss.is_empty() {
        let heading = Heading { title: "Goodput by loss", axis: "goodput (bit/s)", unit: bits };
        let svg = chart::lines(heading, ("frames lost (%)", percent), &by_loss)?;
        plots.push(Plot { svg, caption: "Higher is better." });
    }
    let by_connections = curves(run, "connections", "cpu_ns_per_segment");
    if !by_connections.is_empty() {
        plots.push(cost_plot(&by_connections)?);
    }
    if plots.is_empty() {
        plots.extend(goodput_bars(run)?);
    }
    Ok((
        plots,
        &[
            "goodput_bps",
            "messages_per_second",
            "longest_stall_us",
            "cpu_ns_per_segment",
            "cpu_ns_per_byte",
            "retransmits",
            "share",
            "jain",
        ],
    ))
}

/// Of messages too the length is what they carry: by their number the large ones would be too short to be seen.
fn goodput_bars(run: &Loaded) -> Result<Option<Plot>, ChartError> {
    let messages = run.results().any(|row| row.number("messages_per_second").is_some());
    // A carrier is named by its variant, unless there are two of it.
    let shares_variant = |row: &Row<'_>, other: &Row<'_>| {
        row.variant() == other.variant() && row.text("link") != other.text("link")
    };
    let ambiguous = run.results().any(|row| run.results().any(|other| shares_variant(&row, &other)));
    let except: &[&str] = if ambiguous { &[] } else { &["link"] };
    let bars: Vec<Bar> = run
        .results()
        .filter_map(|row| {
            let number =
                row.number("messages_per_second").map(|number| format!(", {}/s", count(number.round())));
            let note = table::bits_per_second(row.number("goodput_bps")?) + &number.unwrap_or_default();
            bar(&row, "goodput_bps", label(&row, except), note)
        })
        .collect();
    let title = if messages { "Messages answered, by what they carry" } else { "Goodput" };
    let heading = Heading { title, axis: "payload (bit/s)", unit: bits };
    bar_plot(heading, &bars, "Longer is better.")
}

fn cost_plot(lines: &[Line]) -> Result<Plot, ChartError> {
    let heading = Heading { title: "Cost of a segment", axis: "processor time a segment (ns)", unit: nanos };
    let svg = chart::lines(heading, ("connections", count), lines)?;
    Ok(Plot { svg, caption: "Lower is better; a flat line scales." })
}

fn nanos(value: f64) -> String {
    if value < 1e3 { format!("{value:.0} ns") } else { micros(value / 1e3) }
}

fn round_trips(run: &Loaded) -> Result<Plots, ChartError> {
    let heading = Heading { title: "Round trip", axis: "round trip (us; logarithmic)", unit: micros };
    let svg = ranges(run, "rtt_us", heading)?;
    let plots = svg.map(|svg| Plot { svg, caption: "Further left is sooner; the raw port is the floor." });
    Ok((plots.into_iter().collect(), &["rtt_us.p50", "rtt_us.p99", "rtt_us.max", "rounds"]))
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
        let heading = Heading { title: "Memory of a connection", axis: "memory (bytes)", unit: bytes };
        let svg = chart::lines(heading, ("connections", count), &memory)?;
        plots.push(Plot { svg, caption: "Lower is better." });
    }
    Ok((plots, &["variant", "connections", "cpu_ns_per_segment", "bytes_per_connection"]))
}

/// A figure of a cluster: where it is, what it is called, its axis, and what is to be said of it.
type ClusterFigure = (&'static str, &'static str, &'static str, &'static str);

const CLUSTER: [ClusterFigure; 4] = [
    ("connections", "Connections of the cluster", "connections", "As the nodes count them."),
    (
        "packets_per_second",
        "Packets of an idle cluster",
        "packets/s",
        "What heartbeats alone cost the network.",
    ),
    ("bytes_per_second", "Bytes of an idle cluster", "bytes/s", "What heartbeats alone cost the network."),
    ("cpu_seconds", "Processor time of an idle cluster", "processor time (s)", "Of all nodes together."),
];

fn cluster(run: &Loaded) -> Result<Plots, ChartError> {
    let mut plots = Vec::new();
    for (path, title, axis, caption) in CLUSTER {
        let bars: Vec<Bar> = run
            .results()
            .filter_map(|row| {
                let value = row.number(path)?;
                bar(&row, path, label(&row, &["connections"]), count(value))
            })
            .collect();
        plots.extend(bar_plot(Heading { title, axis, unit: count }, &bars, caption)?);
    }
    Ok((plots, &["variant", "nodes", "connections", "packets_per_second", "bytes_per_second", "cpu_seconds"]))
}

fn detection(run: &Loaded) -> Result<Plots, ChartError> {
    let heading =
        Heading { title: "Time to detect", axis: "since the event (ms; logarithmic)", unit: micros };
    let svg = ranges(run, "detected_after_us", heading)?;
    let plots =
        svg.map(|svg| Plot { svg, caption: "Further left is sooner; false alarms are in the table." });
    Ok((
        plots.into_iter().collect(),
        &[
            "detected_after_us.p50",
            "detected_after_us.max",
            "trials",
            "missed",
            "false_positives",
            "calm_seconds",
        ],
    ))
}

fn pump(run: &Loaded) -> Result<Plots, ChartError> {
    let bars: Vec<Bar> = run
        .results()
        .filter_map(|row| {
            let path = "frames_per_second";
            bar(&row, path, label(&row, &[]), count(row.number(path)?.round()))
        })
        .collect();
    let heading = Heading { title: "Frames through the bare port", axis: "frames/s", unit: count };
    let plot = bar_plot(heading, &bars, "What the port does without TCP; longer is better.")?;
    Ok((plot.into_iter().collect(), &["frames_per_second", "bits_per_second", "cpu_ns_per_frame"]))
}
