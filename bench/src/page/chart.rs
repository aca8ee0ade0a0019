//! Three kinds of chart, as SVG that scales to its container: ranges, lines and bars.

use plotters::coord::Shift;
use plotters::coord::ranged1d::SegmentValue;
use plotters::prelude::*;

/// Width of the drawing in its own units. Narrow on purpose: on a phone it is shown at three quarters of its size.
const WIDTH: u32 = 480;
/// Height of a chart of lines.
const LINES_HEIGHT: u32 = 320;
/// Height of one row of ranges or bars, and of what is around them.
const ROW_HEIGHT: u32 = 26;
const FRAME_HEIGHT: u32 = 96;
/// Room for a label, per character.
const CHARACTER_WIDTH: u32 = 7;
const LABEL_WIDTH_MAX: u32 = 190;
const FONT: &str = "sans-serif";
const TITLE_SIZE: i32 = 16;
const TEXT_SIZE: i32 = 13;

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
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// Name, written at its end.
    pub(crate) variant: String,
    /// x and y.
    pub(crate) points: Vec<(f64, f64)>,
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
}

/// The colour of a variant; unknown ones by their order among `others`.
fn colour(variant: &str, others: &[String]) -> RGBColor {
    let known = if variant == "outrider" { Some(0) } else { KNOWN.iter().position(|name| *name == variant) };
    let index = known.unwrap_or_else(|| {
        let strangers = others.iter().filter(|name| !KNOWN.contains(&name.as_str()) && *name != "outrider");
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

/// Draws onto a fresh SVG of `height`, under a title.
fn svg(title: &str, height: u32, draw: impl FnOnce(&Root<'_>) -> Drawn) -> Result<String, ChartError> {
    let mut text = String::new();
    let outcome = (|| {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        draw(&root)?;
        root.present()?;
        Ok::<(), Box<dyn std::error::Error>>(())
    })();
    match outcome {
        Ok(()) => Ok(text),
        Err(error) => Err(ChartError { title: title.to_owned(), reason: error.to_string() }),
    }
}

fn rows_height(rows: usize) -> u32 {
    FRAME_HEIGHT + ROW_HEIGHT * u32::try_from(rows).unwrap_or(u32::MAX).min(200)
}

fn row_label(labels: &[String], position: &SegmentValue<usize>) -> String {
    match position {
        SegmentValue::CenterOf(index) => labels.get(*index).cloned().unwrap_or_default(),
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    }
}

/// One row each: a dot at the median and a bar to the high percentile, on a logarithmic axis.
pub(crate) fn ranges(heading: Heading<'_>, rows: &[Range]) -> Result<String, ChartError> {
    let names = distinct(rows.iter().map(|row| &row.variant));
    // The first row is at the top.
    let rows: Vec<&Range> = rows.iter().rev().collect();
    let labels: Vec<String> = rows.iter().map(|row| row.label.clone()).collect();
    let (from, to) = decades(rows.iter().flat_map(|row| [row.low, row.high]));
    svg(heading.title, rows_height(rows.len()), |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .margin_right(24)
            .caption(heading.title, (FONT, TITLE_SIZE))
            .x_label_area_size(40)
            .y_label_area_size(label_width(labels.iter()))
            .build_cartesian_2d((from..to).log_scale(), (0..rows.len() - 1).into_segmented())?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .y_labels(rows.len())
            .label_style((FONT, TEXT_SIZE))
            .x_desc(heading.axis)
            .x_label_formatter(&|value| (heading.unit)(*value))
            .y_label_formatter(&|position| row_label(&labels, position))
            .draw()?;
        for (index, row) in rows.iter().enumerate() {
            let ink = colour(&row.variant, &names);
            let at = |value: f64| (value.max(from), SegmentValue::CenterOf(index));
            chart.draw_series([PathElement::new(vec![at(row.low), at(row.high)], ink.stroke_width(5))])?;
            chart.draw_series([Circle::new(at(row.low), 6, ink.filled())])?;
        }
        Ok(())
    })
}

/// Lines over logarithmic axes; x values that are not positive are put at the left edge.
pub(crate) fn lines(
    heading: Heading<'_>,
    x_axis: (&str, Unit),
    lines: &[Line],
) -> Result<String, ChartError> {
    let names = distinct(lines.iter().map(|line| &line.variant));
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let (mut left, right) = decades(all().map(|point| point.0));
    if all().any(|point| point.0 <= 0.0) {
        left /= 10.0;
    }
    let (bottom, top) = decades(all().map(|point| point.1));
    let place = |(x, y): (f64, f64)| (x.max(left), y.max(bottom));
    svg(heading.title, LINES_HEIGHT, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .margin_right(20)
            .caption(heading.title, (FONT, TITLE_SIZE))
            .x_label_area_size(40)
            .y_label_area_size(76)
            .build_cartesian_2d((left..right).log_scale(), (bottom..top).log_scale())?;
        let zero = all().any(|point| point.0 <= 0.0);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .label_style((FONT, TEXT_SIZE))
            .x_desc(x_axis.0)
            .y_desc(heading.axis)
            .x_label_formatter(&|x| if zero && *x <= left { "0".to_owned() } else { (x_axis.1)(*x) })
            .y_label_formatter(&|y| (heading.unit)(*y))
            .draw()?;
        for line in lines {
            let ink = colour(&line.variant, &names);
            let points: Vec<(f64, f64)> = line.points.iter().copied().map(place).collect();
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, ink.filled())))?;
            chart
                .draw_series(LineSeries::new(points, ink.stroke_width(3)))?
                .label(line.variant.clone())
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], ink.stroke_width(3)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font((FONT, TEXT_SIZE))
            .draw()?;
        Ok(())
    })
}

/// One bar a row, with a note behind it, on an axis from zero.
pub(crate) fn bars(heading: Heading<'_>, rows: &[Bar]) -> Result<String, ChartError> {
    let names = distinct(rows.iter().map(|row| &row.variant));
    let rows: Vec<&Bar> = rows.iter().rev().collect();
    let labels: Vec<String> = rows.iter().map(|row| row.label.clone()).collect();
    let longest = rows.iter().map(|row| row.value).fold(0.0, f64::max);
    // Room for the note behind the longest bar.
    let to = if longest > 0.0 { longest * 1.45 } else { 1.0 };
    svg(heading.title, rows_height(rows.len()), |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .margin_right(16)
            .caption(heading.title, (FONT, TITLE_SIZE))
            .x_label_area_size(40)
            .y_label_area_size(label_width(labels.iter()))
            .build_cartesian_2d(0.0..to, (0..rows.len() - 1).into_segmented())?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(4)
            .y_labels(rows.len())
            .label_style((FONT, TEXT_SIZE))
            .x_desc(heading.axis)
            .x_label_formatter(&|value| (heading.unit)(*value))
            .y_label_formatter(&|position| row_label(&labels, position))
            .draw()?;
        for (index, row) in rows.iter().enumerate() {
            let ink = colour(&row.variant, &names);
            let at = |value: f64| (value, SegmentValue::CenterOf(index));
            chart.draw_series([PathElement::new(vec![at(0.0), at(row.value)], ink.stroke_width(14))])?;
            let note = EmptyElement::at(at(row.value))
                + Text::new(row.note.clone(), (6, -7), (FONT, TEXT_SIZE).into_font());
            chart.draw_series([note])?;
        }
        Ok(())
    })
}
