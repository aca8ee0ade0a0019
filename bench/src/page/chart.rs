//! Four kinds of chart, as SVG that scales to its container: ranges, lines, bars and timelines. Each has its title and
//! its legend above it.

use std::ops::Add;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, SegmentValue, SegmentedCoord, ValueFormatter};
use plotters::coord::types::RangedCoordusize;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::html::escape;

/// Width of the drawing in its own units. Narrow on purpose: on a phone it is shown at three quarters of its size.
const WIDTH: u32 = 480;
/// Height of a chart of lines.
const LINES_HEIGHT: u32 = 320;
/// Height of one row of ranges, bars or timelines, and of the axis below them.
const ROW_HEIGHT: u32 = 26;
const AXIS_HEIGHT: u32 = 56;
/// Height of the title, and of a line of the legend.
const TITLE_HEIGHT: u32 = 30;
const LEGEND_HEIGHT: u32 = 20;
/// Room for a label, per character.
const CHARACTER_WIDTH: u32 = 7;
const LABEL_WIDTH_MAX: u32 = 190;
const MARGIN: u32 = 8;
/// Half of the last label of an axis is to the right of it.
const MARGIN_RIGHT: u32 = 36;
/// Marks of a linear axis, about.
const X_LABELS: usize = 4;
const Y_LABELS: usize = 6;
const FONT: &str = "sans-serif";
const TITLE_SIZE: i32 = 16;
const TEXT_SIZE: i32 = 14;

/// Told apart by people who see few colours as well (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// Designs that always have the same colour.
const KNOWN: [&str; 6] = ["oob", "fifo", "lowat", "separate", "kernel", "smoltcp"];
/// What this stack is called where it is not set against other ways to send heartbeats: the first of these colours.
const OWN: [&str; 2] = ["outrider", "userspace"];

/// A chart that could not be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chart \"{title}\" cannot be drawn: {reason}")]
pub(crate) struct ChartError {
    /// Its title.
    title: String,
    /// What the drawing library said.
    reason: String,
}

/// How a quantity is written at an axis.
pub(crate) type Unit = fn(f64) -> String;

/// Title and axis of a chart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heading<'a> {
    /// What it shows.
    pub(crate) title: &'a str,
    /// What the axis of values is.
    pub(crate) axis: &'a str,
    /// How its values are written.
    pub(crate) unit: Unit,
}

/// What the runs of a value lie between, where there were several.
pub(crate) type Spread = Option<(f64, f64)>;

/// From a median to a high percentile.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Range {
    /// Name of the row.
    pub(crate) label: String,
    /// Whose colour it has.
    pub(crate) variant: String,
    /// Median.
    pub(crate) low: f64,
    /// High percentile.
    pub(crate) high: f64,
    /// What is written behind it.
    pub(crate) note: String,
    /// Medians of the runs.
    pub(crate) spread: Spread,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// Name in the legend.
    pub(crate) variant: String,
    /// x and y.
    pub(crate) points: Vec<(f64, f64, Spread)>,
}

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bar {
    /// Name of the row.
    pub(crate) label: String,
    /// Whose colour it has.
    pub(crate) variant: String,
    /// Length.
    pub(crate) value: f64,
    /// What is written behind it.
    pub(crate) note: String,
    /// Values of the runs.
    pub(crate) spread: Spread,
}

/// What was said from an event on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    /// Name of the row.
    pub(crate) label: String,
    /// When something was said other than that all is well, and what.
    pub(crate) verdict: Option<(f64, String)>,
    /// Whether it names what had happened.
    pub(crate) is_right: bool,
}

/// The colour of a variant; unknown ones by their order among `others`.
fn colour(variant: &str, others: &[String]) -> RGBColor {
    let known = |name: &str| {
        if OWN.contains(&name) { Some(0) } else { KNOWN.iter().position(|known| *known == name) }
    };
    let index = known(variant).unwrap_or_else(|| {
        let strangers = others.iter().filter(|name| known(name).is_none());
        KNOWN.len() + strangers.take_while(|name| *name != variant).count()
    });
    COLOURS[index % COLOURS.len()]
}

fn distinct<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for name in names {
        if !seen.contains(name) {
            seen.push(name.clone());
        }
    }
    seen
}

/// Limits of a logarithmic axis around positive values: whole decades.
fn decades(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let positive = values.filter(|value| *value > 0.0);
    let low = positive.clone().fold(f64::INFINITY, f64::min);
    let high = positive.fold(0.0, f64::max);
    if high == 0.0 {
        return (1.0, 10.0);
    }
    let (from, to) = (10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil()));
    if from < to { (from, to) } else { (from, from * 10.0) }
}

fn label_width<'a>(labels: impl Iterator<Item = &'a String>) -> u32 {
    let longest = labels.map(|label| label.chars().count()).max().unwrap_or(0);
    (u32::try_from(longest).unwrap_or(u32::MAX).saturating_mul(CHARACTER_WIDTH) + 12).min(LABEL_WIDTH_MAX)
}

type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// What a legend explains: a colour, or in words what a mark means.
#[derive(Clone, Debug)]
enum Legend {
    Colour(String, RGBColor),
    Words(&'static str),
}

impl Legend {
    fn of_variants(names: &[String]) -> Vec<Self> {
        names.iter().map(|name| Legend::Colour(name.clone(), colour(name, names))).collect()
    }

    fn text(&self) -> &str {
        match self {
            Legend::Colour(text, _) => text,
            Legend::Words(text) => text,
        }
    }

    fn width(&self) -> u32 {
        let swatch = if matches!(self, Legend::Colour(..)) { 18 } else { 0 };
        swatch + CHARACTER_WIDTH * u32::try_from(self.text().chars().count()).unwrap_or(u32::MAX / 64) + 14
    }
}

/// Where each entry of a legend is: its line, and how far from the left.
fn places(legend: &[Legend]) -> Vec<(u32, u32)> {
    let (mut line, mut left) = (0, MARGIN);
    let mut places = Vec::new();
    for entry in legend {
        if left > MARGIN && left + entry.width() > WIDTH {
            (line, left) = (line + 1, MARGIN);
        }
        places.push((line, left));
        left += entry.width();
    }
    places
}

/// Draws a chart of `height` onto a fresh SVG, under its title and legend.
fn svg(
    title: &str,
    legend: &[Legend],
    height: u32,
    draw: impl FnOnce(&Root<'_>) -> Drawn,
) -> Result<String, ChartError> {
    let places = places(legend);
    let lines = places.last().map_or(0, |(line, _)| line + 1);
    let top = TITLE_HEIGHT + LEGEND_HEIGHT * lines;
    let mut text = String::new();
    let outcome = (|| {
        let root = SVGBackend::with_string(&mut text, (WIDTH, top + height)).into_drawing_area();
        root.fill(&WHITE)?;
        let (head, body) = root.split_vertically(top);
        head.draw(&Text::new(title.to_owned(), at(MARGIN, 8), (FONT, TITLE_SIZE).into_font()))?;
        for (entry, (line, left)) in legend.iter().zip(places) {
            let y = TITLE_HEIGHT + LEGEND_HEIGHT * line;
            let mut text_left = left;
            if let Legend::Colour(_, ink) = entry {
                let swatch = [at(left, y + 2), at(left + 12, y + 14)];
                head.draw(&Rectangle::new(swatch, ink.filled()))?;
                text_left += 18;
            }
            head.draw(&Text::new(
                entry.text().to_owned(),
                at(text_left, y + 2),
                (FONT, TEXT_SIZE).into_font(),
            ))?;
        }
        draw(&body)?;
        root.present()?;
        Ok::<(), Box<dyn std::error::Error>>(())
    })();
    match outcome {
        // Whoever has the page read out hears what it is.
        Ok(()) => {
            Ok(text.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{}\" ", escape(title)), 1))
        }
        Err(error) => Err(ChartError { title: title.to_owned(), reason: error.to_string() }),
    }
}

fn at(x: u32, y: u32) -> (i32, i32) {
    (i32::try_from(x).unwrap_or(i32::MAX), i32::try_from(y).unwrap_or(i32::MAX))
}

fn rows_height(rows: usize) -> u32 {
    AXIS_HEIGHT + ROW_HEIGHT * u32::try_from(rows).unwrap_or(u32::MAX).min(200)
}

fn row_label(labels: &[String], position: &SegmentValue<usize>) -> String {
    match position {
        SegmentValue::CenterOf(index) => labels.get(*index).cloned().unwrap_or_default(),
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    }
}

/// Where the values of a chart of rows are.
type Rows<'a, 'b, X> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, SegmentedCoord<RangedCoordusize>>>;

/// A chart with one labelled row each, the first at the top: `draw` is given where, and the index from below.
fn rows<X>(
    root: &Root<'_>,
    heading: Heading<'_>,
    labels: &[String],
    axis: X,
    draw: impl FnOnce(&mut Rows<'_, '_, X::CoordDescType>) -> Drawn,
) -> Drawn
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let labels: Vec<String> = labels.iter().rev().cloned().collect();
    let mut chart = ChartBuilder::on(root)
        .margin(MARGIN)
        .margin_right(MARGIN_RIGHT)
        .x_label_area_size(40)
        .y_label_area_size(label_width(labels.iter()))
        .build_cartesian_2d(axis, (0..labels.len().saturating_sub(1)).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(X_LABELS)
        .y_labels(labels.len())
        .label_style((FONT, TEXT_SIZE))
        .x_desc(heading.axis)
        .x_label_formatter(&|value| (heading.unit)(*value))
        .y_label_formatter(&|position| row_label(&labels, position))
        .draw()?;
    draw(&mut chart)
}

/// A thin line from the least to the largest of several runs.
fn whisker<C>(points: [C; 2]) -> PathElement<C> {
    PathElement::new(points, BLACK.stroke_width(1))
}

/// Something drawn in pixels at a place of the chart.
type Mark<'a, C, E> = <EmptyElement<C, SVGBackend<'a>> as Add<E>>::Output;

/// The end of such a line.
fn cap<'a, C>(at: C) -> Mark<'a, C, PathElement<(i32, i32)>> {
    EmptyElement::at(at) + PathElement::new([(0, -5), (0, 5)], BLACK.stroke_width(1))
}

/// Words behind a mark.
fn note<'a, C>(at: C, text: &str) -> Mark<'a, C, Text<'static, (i32, i32), String>> {
    EmptyElement::at(at) + Text::new(text.to_owned(), (NOTE_GAP as i32, -7), (FONT, TEXT_SIZE).into_font())
}

/// From a mark to the words behind it.
const NOTE_GAP: u32 = 8;
/// An axis is at most so many times as long as what is on it, however long the words.
const STRETCH_MAX: f64 = 4.0;

/// Pixels of a row between the labels and the right margin.
fn plot_width(labels: &[String]) -> f64 {
    f64::from(WIDTH - MARGIN - MARGIN_RIGHT - label_width(labels.iter()))
}

/// Pixels of a text, about.
fn text_width(text: &str) -> f64 {
    f64::from(CHARACTER_WIDTH) * text.chars().count() as f64
}

/// How long an axis must be that the notes behind its marks, given with the length of the axis up to them, end before
/// the drawing does.
fn stretched<'a>(width: f64, marks: impl Iterator<Item = (f64, &'a String)>) -> f64 {
    let needed = |(length, note): (f64, &String)| {
        let room = width + f64::from(MARGIN_RIGHT) - f64::from(NOTE_GAP) - text_width(note);
        length * (width / room.max(width / STRETCH_MAX)).max(1.0)
    };
    marks.map(needed).fold(0.0, f64::max)
}

const RUNS: Legend = Legend::Words("thin line: the runs");

fn legend(names: &[String], words: &'static str, spreads: bool) -> Vec<Legend> {
    let mut legend = Legend::of_variants(names);
    legend.push(Legend::Words(words));
    legend.extend(spreads.then_some(RUNS));
    legend
}

/// One row each: a dot at the median and a bar to the high percentile, on a logarithmic axis.
pub(crate) fn ranges(heading: Heading<'_>, ranges: &[Range]) -> Result<String, ChartError> {
    let names = distinct(ranges.iter().map(|row| &row.variant));
    let labels: Vec<String> = ranges.iter().map(|row| row.label.clone()).collect();
    let (from, _) = decades(ranges.iter().flat_map(|row| [row.low, row.high]));
    let end = |row: &Range| row.spread.map_or(row.high, |(_, most)| most.max(row.high));
    let marks = ranges.iter().map(|row| ((end(row).max(from) / from).ln(), &row.note));
    // A decade at least: an axis has two marks or more.
    let to = from * stretched(plot_width(&labels), marks).max(10f64.ln()).exp();
    let legend = legend(&names, "dot: median, bar: to p99", ranges.iter().any(|row| row.spread.is_some()));
    svg(heading.title, &legend, rows_height(labels.len()), |root| {
        rows(root, heading, &labels, (from..to).log_scale(), |chart| {
            for (index, row) in ranges.iter().rev().enumerate() {
                let ink = colour(&row.variant, &names);
                let at = |value: f64| (value.clamp(from, to), SegmentValue::CenterOf(index));
                chart.draw_series([PathElement::new([at(row.low), at(row.high)], ink.stroke_width(5))])?;
                chart.draw_series([Circle::new(at(row.low), 6, ink.filled())])?;
                if let Some((least, most)) = row.spread {
                    chart.draw_series([whisker([at(least), at(most)])])?;
                    chart.draw_series([at(least), at(most)].map(cap))?;
                }
                chart.draw_series([note(at(end(row)), &row.note)])?;
            }
            Ok(())
        })
    })
}

/// Values that span more than this many times are drawn on a logarithmic axis, unless one is zero: that has none.
const LINEAR_MAX: f64 = 20.0;

/// The colour of a line: that of the variant its name begins with, paler for a second line of it.
fn line_colours(names: &[String]) -> Vec<RGBColor> {
    let variant = |name: &String| name.split(' ').next().unwrap_or_default().to_owned();
    let variants = distinct(names.iter().map(variant).collect::<Vec<_>>().iter());
    let pale = |shade: u8, times: usize| {
        let light = f64::from(255 - shade) * (1.0 - 0.5f64.powi(i32::try_from(times).unwrap_or(i32::MAX)));
        shade.saturating_add(light as u8)
    };
    let ink = |(index, name): (usize, &String)| {
        let before = names[..index].iter().filter(|other| variant(other) == variant(name)).count();
        let RGBColor(red, green, blue) = colour(&variant(name), &variants);
        RGBColor(pale(red, before), pale(green, before), pale(blue, before))
    };
    names.iter().enumerate().map(ink).collect()
}

/// Lines over the values of x that there are, in equal steps.
pub(crate) fn lines(
    heading: Heading<'_>,
    x_axis: (&str, Unit),
    lines: &[Line],
) -> Result<String, ChartError> {
    let names = distinct(lines.iter().map(|line| &line.variant));
    let inks = line_colours(&names);
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let spreads = all().any(|point| point.2.is_some());
    let mut legend: Vec<Legend> =
        names.iter().zip(&inks).map(|(name, ink)| Legend::Colour(name.clone(), *ink)).collect();
    legend.push(Legend::Words("dot: median"));
    legend.extend(spreads.then_some(RUNS));
    let values =
        || all().flat_map(|(_, y, spread)| [y, spread.map_or(y, |s| s.0), spread.map_or(y, |s| s.1)]);
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let draw = LineDrawing { heading, x_axis, lines, names: &names, inks: &inks };
    svg(heading.title, &legend, LINES_HEIGHT, |root| {
        if least <= 0.0 || most / least <= LINEAR_MAX {
            draw.onto(root, 0.0..if most > 0.0 { most * 1.1 } else { 1.0 }, 0.0)
        } else {
            let (bottom, top) = decades(values());
            draw.onto(root, (bottom..top).log_scale(), bottom)
        }
    })
}

/// What is needed to draw lines, whatever the axis.
struct LineDrawing<'a> {
    heading: Heading<'a>,
    x_axis: (&'a str, Unit),
    lines: &'a [Line],
    names: &'a [String],
    inks: &'a [RGBColor],
}

impl LineDrawing<'_> {
    /// Draws them over an axis of values that begins at `bottom`.
    fn onto<Y>(&self, root: &Root<'_>, axis: Y, bottom: f64) -> Drawn
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let mut steps: Vec<f64> =
            self.lines.iter().flat_map(|line| &line.points).map(|point| point.0).collect();
        steps.sort_by(f64::total_cmp);
        steps.dedup();
        let labels: Vec<String> = steps.iter().map(|x| (self.x_axis.1)(*x)).collect();
        let mut chart = ChartBuilder::on(root)
            .margin(MARGIN)
            .margin_right(MARGIN_RIGHT)
            .x_label_area_size(40)
            .y_label_area_size(90)
            .build_cartesian_2d((0..steps.len().saturating_sub(1)).into_segmented(), axis)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .label_style((FONT, TEXT_SIZE))
            .x_labels(steps.len())
            .y_labels(Y_LABELS)
            .x_desc(self.x_axis.0)
            .y_desc(self.heading.axis)
            .x_label_formatter(&|x| row_label(&labels, x))
            .y_label_formatter(&|y| (self.heading.unit)(*y))
            .draw()?;
        for line in self.lines {
            let index = self.names.iter().position(|name| *name == line.variant).unwrap_or(0);
            let ink = self.inks[index];
            let place = |x: f64, y: f64| {
                let step = steps.iter().position(|step| *step == x).unwrap_or(0);
                (SegmentValue::CenterOf(step), y.max(bottom))
            };
            let points: Vec<_> = line.points.iter().map(|(x, y, _)| place(*x, *y)).collect();
            chart.draw_series(points.iter().cloned().map(|point| Circle::new(point, 5, ink.filled())))?;
            chart.draw_series(LineSeries::new(points, ink.stroke_width(3)))?;
            let spreads = line.points.iter().filter_map(|(x, _, spread)| Some((*x, (*spread)?)));
            let whiskers = spreads.map(|(x, (least, most))| whisker([place(x, least), place(x, most)]));
            chart.draw_series(whiskers)?;
        }
        Ok(())
    }
}

/// One bar a row, with a note behind it, on an axis from zero.
pub(crate) fn bars(heading: Heading<'_>, bars: &[Bar]) -> Result<String, ChartError> {
    let names = distinct(bars.iter().map(|row| &row.variant));
    let labels: Vec<String> = bars.iter().map(|row| row.label.clone()).collect();
    let most = |bar: &Bar| bar.spread.map_or(bar.value, |(_, most)| most.max(bar.value));
    let longest = stretched(plot_width(&labels), bars.iter().map(|bar| (most(bar), &bar.note)));
    let to = if longest > 0.0 { longest } else { 1.0 };
    let legend = legend(&names, "bar: median", bars.iter().any(|bar| bar.spread.is_some()));
    svg(heading.title, &legend, rows_height(labels.len()), |root| {
        rows(root, heading, &labels, 0.0..to, |chart| {
            for (index, bar) in bars.iter().rev().enumerate() {
                let ink = colour(&bar.variant, &names);
                let at = |value: f64| (value, SegmentValue::CenterOf(index));
                chart.draw_series([PathElement::new([at(0.0), at(bar.value)], ink.stroke_width(14))])?;
                if let Some((least, most)) = bar.spread {
                    chart.draw_series([whisker([at(least), at(most)])])?;
                    chart.draw_series([at(least), at(most)].map(cap))?;
                }
                chart.draw_series([note(at(most(bar)), &bar.note)])?;
            }
            Ok(())
        })
    })
}

/// Words in a bar, after a place of it or before.
fn words<'a, C>(
    at: C,
    text: &str,
    colour: &'static RGBColor,
    before: bool,
) -> Mark<'a, C, Text<'static, (i32, i32), String>> {
    let (left, side) = if before { (-6, HPos::Right) } else { (6, HPos::Left) };
    let style = TextStyle::from((FONT, TEXT_SIZE).into_font()).color(colour).pos(Pos::new(side, VPos::Top));
    EmptyElement::at(at) + Text::new(text.to_owned(), (left, -7), style)
}

const ALL_WELL: RGBColor = RGBColor(200, 200, 200);
const RIGHT: RGBColor = COLOURS[2];
const WRONG: RGBColor = COLOURS[1];

/// One row each from an event on: how long it is still said that all is well, and what is said then. The axis is
/// logarithmic, from `from` to the end of the event.
pub(crate) fn timelines(
    heading: Heading<'_>,
    (from, to): (f64, f64),
    told: &[Told],
) -> Result<String, ChartError> {
    let labels: Vec<String> = told.iter().map(|row| row.label.clone()).collect();
    let legend = [
        Legend::Colour("still says that all is well".to_owned(), ALL_WELL),
        Legend::Colour("names the fault".to_owned(), RIGHT),
        Legend::Colour("names another".to_owned(), WRONG),
    ];
    let width = plot_width(&labels);
    svg(heading.title, &legend, rows_height(labels.len()), |root| {
        rows(root, heading, &labels, (from..to).log_scale(), |chart| {
            for (index, row) in told.iter().rev().enumerate() {
                let at = |value: f64| (value.clamp(from, to), SegmentValue::CenterOf(index));
                let until = row.verdict.as_ref().map_or(to, |(after, _)| *after);
                chart.draw_series([PathElement::new([at(from), at(until)], ALL_WELL.stroke_width(18))])?;
                let Some((after, verdict)) = &row.verdict else {
                    chart.draw_series([words(at(from), "all is well, to the end", &BLACK, false)])?;
                    continue;
                };
                let ink = if row.is_right { RIGHT } else { WRONG };
                chart.draw_series([PathElement::new([at(*after), at(to)], ink.stroke_width(18))])?;
                let text = format!("{} {verdict}", (heading.unit)(*after));
                let room = width * (to / after.clamp(from, to)).ln() / (to / from).ln();
                let fits = text_width(&text) + f64::from(NOTE_GAP) <= room;
                chart.draw_series([if fits {
                    words(at(*after), &text, &WHITE, false)
                } else {
                    words(at(to), &text, &BLACK, true)
                }])?;
            }
            Ok(())
        })
    })
}
