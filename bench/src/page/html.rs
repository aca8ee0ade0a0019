//! The page's HTML. Everything that comes from a file is escaped.

use std::fmt::Write as _;

use serde_json::Value;

use super::plots::{self, Plot};
use super::results::Loaded;
use crate::table;

/// Rows of a table at most; the rest is counted.
const ROWS_MAX: usize = 400;

const STYLE: &str = "
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; margin: 0 auto; padding: 0 16px 48px; max-width: 60rem; }
h1 { font-size: 1.6rem; margin: 1.2em 0 .2em; }
h2 { font-size: 1.25rem; margin: 2em 0 .4em; border-top: 1px solid #ccc; padding-top: .8em; }
nav ul { padding-left: 1.2em; }
figure { margin: 1em 0; }
figure svg { display: block; width: 100%; max-width: 45rem; height: auto; }
figcaption, .note { color: #444; font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; margin: .6em 0; }
th, td { text-align: right; padding: .2em .7em; border-bottom: 1px solid #e2e2e2; white-space: nowrap; }
td.words, th.words { text-align: left; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; white-space: normal; }
dl { display: grid; grid-template-columns: max-content auto; gap: 0 1em; font-size: .85rem; }
dt { color: #555; } dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; margin: .4em 0; }
@media print {
  body { max-width: none; font-size: 11pt; }
  section { break-before: page; } section:first-of-type { break-before: auto; }
  figure, tr { break-inside: avoid; }
  .scroll { overflow: visible; } table { font-size: 7.5pt; } th, td { white-space: normal; padding: .1em .4em; }
  nav { display: none; }
}
";

/// One run on the page.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// Anchor.
    pub(crate) id: String,
    /// Heading.
    pub(crate) title: String,
    /// Charts.
    pub(crate) plots: Vec<Plot>,
    /// What matters of the results.
    pub(crate) results: Table,
    /// All figures.
    pub(crate) whole: Table,
    /// Variants set against each other.
    pub(crate) ratios: Table,
    /// Options as used.
    pub(crate) parameters: Vec<(String, Value)>,
    /// The machine.
    pub(crate) host: Vec<(String, Value)>,
    /// How quiet it was.
    pub(crate) noise: Vec<(String, Value)>,
    /// Whether a signal ended it before all was measured.
    pub(crate) interrupted: bool,
    /// Where it came from.
    pub(crate) source: String,
}

/// A table of JSON objects: a column for each member found, nested ones by their path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    left_out: usize,
}

impl Table {
    /// What matters of the results of a run: the variant, where it was measured, and `columns`; all there is without
    /// `columns`.
    pub(crate) fn of_results(run: &Loaded, columns: &[&str]) -> Self {
        let named: Vec<&str> = ["variant"].iter().chain(&plots::POINT_KEYS).chain(columns).copied().collect();
        Table::new(run.list("results"), &named, !columns.is_empty())
    }

    /// All figures of a run.
    pub(crate) fn of_all(run: &Loaded) -> Self {
        let named: Vec<&str> = ["variant"].iter().chain(&plots::POINT_KEYS).copied().collect();
        Table::new(run.list("results"), &named, false)
    }

    /// Ratios: a column for each figure, with what the runs allow.
    pub(crate) fn of_ratios(list: &[Value]) -> Self {
        let told: Vec<Value> = list.iter().map(ratio).collect();
        Table::new(&told, &["of"], false)
    }

    /// `first` are the columns to begin with, and the `only` ones if it says so.
    fn new(list: &[Value], first: &[&str], only: bool) -> Self {
        let hidden = |path: &str| HIDDEN.iter().any(|name| path.starts_with(name));
        let visible = |value: &Value| {
            let mut members = flatten(value);
            members.retain(|(path, _)| !hidden(path));
            members
        };
        let flat: Vec<Vec<(String, Value)>> = list.iter().map(visible).collect();
        let mut paths: Vec<String> = Vec::new();
        let found = flat.iter().flatten().map(|(path, _)| path);
        let wanted = first.iter().filter(|path| flat.iter().flatten().any(|(found, _)| found == *path));
        let rest = found.filter(|_| !only).cloned();
        for path in wanted.map(|path| (*path).to_owned()).chain(rest) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        let cell = |row: &[(String, Value)], path: &String| {
            let value = row.iter().find(|(found, _)| found == path).map(|(_, value)| value);
            value.map_or_else(String::new, |value| shown(path, value))
        };
        let rows =
            flat.iter().zip(list).take(ROWS_MAX).map(|(row, whole)| {
                paths.iter().map(|path| cell(row, path) + &spread(whole, path)).collect()
            });
        Table {
            rows: rows.collect(),
            header: paths.iter().map(|path| heading(path)).collect(),
            left_out: flat.len().saturating_sub(ROWS_MAX),
        }
    }

    fn write(&self, html: &mut String) {
        html.push_str("<div class=\"scroll\"><table><thead><tr>");
        for (index, name) in self.header.iter().enumerate() {
            let is_words = self.rows.iter().all(|row| row.get(index).is_none_or(|cell| !is_number(cell)));
            let class = if is_words { " class=\"words\"" } else { "" };
            let _ = write!(html, "<th{class}>{}</th>", escape(name));
        }
        html.push_str("</tr></thead><tbody>\n");
        for row in &self.rows {
            html.push_str("<tr>");
            for cell in row {
                let class = if is_number(cell) { "" } else { " class=\"words\"" };
                let _ = write!(html, "<td{class}>{}</td>", escape(cell));
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody></table></div>\n");
        if self.left_out > 0 {
            let _ = writeln!(html, "<p class=\"note\">{} more rows are in the JSON.</p>", self.left_out);
        }
    }
}

/// Whether a cell is aligned with the numbers of its column.
fn is_number(cell: &str) -> bool {
    cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit() || c == '-')
}

/// Members that are not columns: they are in other cells, or in the charts.
const HIDDEN: [&str; 3] = ["runs.", "spread.", "label"];

/// What stands behind a figure of several runs: from the least to the largest, over the median.
fn spread(result: &Value, path: &str) -> String {
    let spread = result.get("spread").and_then(|spread| spread.get(path)).and_then(Value::as_f64);
    spread.map_or_else(String::new, |share| format!(" (\u{b1}{:.0} %)", share * 50.0))
}

/// A ratio with its bounds in the same cells.
fn ratio(ratio: &Value) -> Value {
    let (Some(members), Some(bounds)) = (ratio.as_object(), ratio.get("bounds")) else {
        return ratio.clone();
    };
    let own = members.iter().filter(|(name, _)| *name != "bounds" && *name != "inconclusive");
    let cell = |name: &String, value: &Value| {
        let times = |value: &Value| table::times(value.as_f64().unwrap_or_default());
        let bounds = bounds.get(name).and_then(Value::as_array);
        let bounds = bounds.map(|bounds| bounds.iter().map(times).collect::<Vec<_>>().join(" to "));
        match (value, bounds) {
            (Value::Number(_), Some(bounds)) => Value::from(format!("{} ({bounds})", times(value))),
            (Value::Null, Some(bounds)) => Value::from(format!("inconclusive ({bounds})")),
            (value, _) => value.clone(),
        }
    };
    Value::Object(own.map(|(name, value)| (name.clone(), cell(name, value))).collect())
}

/// Members of an object by their path; lists stay as they are.
fn flatten(value: &Value) -> Vec<(String, Value)> {
    fn into(path: &str, value: &Value, out: &mut Vec<(String, Value)>) {
        let Value::Object(members) = value else {
            out.push((path.to_owned(), value.clone()));
            return;
        };
        for (name, member) in members {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            into(&path, member, out);
        }
    }
    let mut out = Vec::new();
    into("", value, &mut out);
    out
}

/// A column's name: words, without the unit that its cells carry.
fn heading(path: &str) -> String {
    let steps = path.split('.').map(|step| {
        let bare = ["_us", "_bps"].iter().find_map(|unit| step.strip_suffix(unit)).unwrap_or(step);
        bare.replace('_', " ")
    });
    steps.filter(|step| !step.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A value as people read it.
fn shown(path: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Array(list) => list.iter().map(|value| shown(path, value)).collect::<Vec<_>>().join(", "),
        Value::Object(_) => value.to_string(),
        Value::Number(number) => table::quantity(path, number.as_f64().unwrap_or_default()),
    }
}

/// Text that can be put between tags or quotes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

fn definitions(html: &mut String, title: &str, members: &[(String, Value)]) {
    if members.is_empty() {
        return;
    }
    let _ = write!(html, "<details><summary>{title}</summary><dl>");
    for (name, value) in members {
        let name_shown = escape(&heading(name));
        let _ = write!(html, "<dt>{name_shown}</dt><dd>{}</dd>", escape(&shown(name, value)));
    }
    html.push_str("</dl></details>\n");
}

fn section(html: &mut String, section: &Section) {
    let Section { id, title, plots, results, whole, ratios, parameters, host, noise, interrupted, source } =
        section;
    let _ = writeln!(html, "<section id=\"{}\"><h2>{}</h2>", escape(id), escape(title));
    if *interrupted {
        html.push_str("<p class=\"note\">Interrupted: these are the runs that were finished.</p>\n");
    }
    for Plot { svg, caption } in plots {
        let _ = writeln!(html, "<figure>{svg}<figcaption>{}</figcaption></figure>", escape(caption));
    }
    results.write(html);
    if !ratios.rows.is_empty() {
        html.push_str(
            "<p>Set against each other: how many times larger the first is, and between what the runs allow. \
             Inconclusive is what their spread, or the machine, could have made.</p>\n",
        );
        ratios.write(html);
    }
    if whole.header.len() > results.header.len() {
        html.push_str("<details><summary>All figures</summary>");
        whole.write(html);
        html.push_str("</details>\n");
    }
    definitions(html, "Parameters", parameters);
    definitions(html, "Host", host);
    definitions(html, "How quiet the machine was", noise);
    let _ = writeln!(html, "<p class=\"note\">From {}.</p></section>", escape(source));
}

/// The whole page.
pub(crate) fn document(sections: &[Section]) -> String {
    let mut html = String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    // No request for an icon either: the page needs no network.
    html.push_str("<link rel=\"icon\" href=\"data:,\">\n");
    let _ = write!(html, "<title>Outrider: measurements</title>\n<style>{STYLE}</style></head><body>\n");
    html.push_str("<h1>Outrider: measurements</h1>\n");
    html.push_str(
        "<p>Variants of one experiment took turns, several runs each; figures are medians, and \u{b1} is half of what \
         lies between the least and the largest run. Delays count from the instant a heartbeat was <em>due</em>, so a \
         late sender cannot hide.</p>\n<nav><ul>\n",
    );
    for Section { id, title, source, .. } in sections {
        let _ =
            writeln!(html, "<li><a href=\"#{}\">{}</a> ({})</li>", escape(id), escape(title), escape(source));
    }
    html.push_str("</ul></nav>\n");
    for each in sections {
        section(&mut html, each);
    }
    html.push_str("</body></html>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_file_says_cannot_become_markup() {
        let mut html = String::new();
        Table::new(&[json!({ "<b>": "<script>alert('x')</script> & \"y\"" })], &[], false).write(&mut html);
        assert!(!html.contains("<script>") && !html.contains("<b>"), "{html}");
        assert!(
            html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;y&quot;"),
            "{html}"
        );
    }

    #[test]
    fn cells_carry_the_unit_of_their_member() {
        assert_eq!(shown("heartbeat.one_way_us.p50", &json!(1500.0)), "1.50 ms");
        assert_eq!(shown("goodput_bps", &json!(9.2e8)), "920.0 Mbit/s");
        assert_eq!(shown("occupancy_bytes.max", &json!(4096)), "4 KiB");
        assert_eq!(shown("loss", &json!([0, 0.01])), "0, 0.010");
        assert_eq!(heading("heartbeat.one_way_us.p50"), "heartbeat one way p50");
    }

    #[test]
    fn wanted_columns_come_first_and_missing_cells_stay_empty() {
        let table = Table::new(&[json!({"a": 1, "b": 2}), json!({"b": 3, "c": 4})], &["b", "never"], false);
        assert_eq!(table.header, ["b", "a", "c"]);
        assert_eq!(table.rows[1], ["3", "", "4"]);
    }
}
