//! `throughput` in messages: by size and number in flight, over one link beside another.

use std::time::Duration;

use clap::Args;
use outrider_stack::tcp::congestion::Algorithm;
use serde_json::{Map, Value, json};

use crate::cli::Common;
use crate::error::BenchError;
use crate::lab::LinkKind;
use crate::messages::{Carrier, Plan, SHAPES, Shape, ratios, tables};
use crate::report::{Report, publish};
use crate::runs::{REPEAT, Repeating, Session};
use crate::units::{Rate, Size};

/// Measured in each run unless `--seconds` says otherwise.
const SECONDS: f64 = 1.0;
/// Queue at the bottleneck unless `--queue` says otherwise, where there is a rate.
const QUEUE: Size = Size(1_000_000);

/// Options of `throughput` that make it count messages.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Count messages of this payload, each answered by the peer (list; default with several links or over kernel:
    /// 4KiB,64KiB,1MiB)
    #[arg(long, value_name = "SIZE", value_delimiter = ',')]
    size: Vec<Size>,
    /// So many messages in flight: one value for all sizes, or one for each (default 32,32,8)
    #[arg(long, value_name = "N", value_delimiter = ',', requires = "size")]
    depth: Vec<usize>,
}

/// What the experiment takes of the command's other options.
pub(crate) struct Setting {
    pub(crate) links: Vec<LinkKind>,
    /// Of the TAPs: with segmentation and checksum offload or without, or both in turn.
    pub(crate) offloads: Vec<bool>,
    pub(crate) rate: Option<Rate>,
    pub(crate) queue: Option<Size>,
    pub(crate) congestion: Algorithm,
}

impl Setting {
    fn carriers(&self) -> Vec<Carrier> {
        let offloads: &[bool] = if self.offloads.is_empty() { &[true] } else { &self.offloads };
        let of_link = |link: &LinkKind| {
            let offloads = if *link == LinkKind::Tap { offloads } else { &[true] };
            offloads.iter().map(|offload| Carrier { link: *link, offload: *offload }).collect::<Vec<_>>()
        };
        self.links.iter().flat_map(of_link).collect()
    }
}

impl Options {
    /// Whether messages are to be counted.
    pub(crate) fn are_wanted(&self, links: &[LinkKind]) -> bool {
        !self.size.is_empty() || links.len() > 1 || links.contains(&LinkKind::Kernel)
    }

    fn shapes(&self) -> Result<Vec<Shape>, BenchError> {
        if self.size.is_empty() {
            return Ok(SHAPES.to_vec());
        }
        let depths = match self.depth.as_slice() {
            [] => vec![SHAPES[0].depth; self.size.len()],
            [one] => vec![*one; self.size.len()],
            many if many.len() == self.size.len() => many.to_vec(),
            many => {
                return Err(BenchError::usage(format!(
                    "--depth has {} values and --size {}; give one depth, or one for each size",
                    many.len(),
                    self.size.len()
                )));
            }
        };
        let bytes = |size: &Size| usize::try_from(size.0).unwrap_or(usize::MAX);
        let shapes = self.size.iter().zip(depths);
        Ok(shapes.map(|(size, depth)| Shape { message_bytes: bytes(size), depth }).collect())
    }
}

/// Runs it.
pub(crate) fn run(
    options: &Options,
    setting: &Setting,
    common: &Common,
    repeating: &Repeating,
) -> Result<(), BenchError> {
    let plan = Plan {
        carriers: setting.carriers(),
        shapes: options.shapes()?,
        rate: setting.rate.unwrap_or(Rate(0)),
        queue: setting.queue.unwrap_or(QUEUE),
        congestion: setting.congestion,
        length: Duration::from_secs_f64(common.seconds.unwrap_or(SECONDS)),
        seed: common.seed,
    };
    plan.check()?;
    let mut session = Session::begin("throughput", repeating, REPEAT, plan.duration())?;
    let results = plan.run(&mut session)?;
    let conditions = session.end();
    let names: Vec<&str> = plan.carriers.iter().map(|carrier| carrier.name()).collect();
    let ratios = ratios(&results, conditions.noise_relative());
    let table = tables(&results, &ratios);
    let mut parameters = parameters(&plan);
    parameters.insert("repeat".into(), json!(repeating.runs(REPEAT)));
    let report = Report::new("throughput", names.join(","), parameters, results);
    publish(common, &report.under(conditions, ratios), &table)
}

fn parameters(plan: &Plan) -> Map<String, Value> {
    let sizes: Vec<usize> = plan.shapes.iter().map(|shape| shape.message_bytes).collect();
    let depths: Vec<usize> = plan.shapes.iter().map(|shape| shape.depth).collect();
    let parameters = [
        ("message_bytes", json!(sizes)),
        ("depth", json!(depths)),
        ("rate_bps", json!(plan.rate.0)),
        ("queue_bytes", json!(plan.queue.0)),
        ("congestion", json!(plan.congestion.name())),
        ("seed", json!(plan.seed)),
        ("seconds", json!(plan.length.as_secs_f64())),
    ];
    parameters.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
