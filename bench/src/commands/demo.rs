//! `demo`: the main job in one command, without root.

use std::time::Duration;

use clap::Args;
use outrider_stack::tcp::congestion::Algorithm;
use serde_json::{Map, json};

use crate::cli::Common;
use crate::commands::oob::{heartbeat_report, parameters};
use crate::error::BenchError;
use crate::lab::LinkKind;
use crate::report::{check_writable, publish};
use crate::runs::{REPEAT, Repeating, Session};
use crate::under_load::{self, Experiment, Point, Variant};
use crate::units::{Rate, Share, Size, Span};

/// Measured in each run unless `--seconds` says otherwise.
const SECONDS: f64 = 2.5;

/// The setting of the demo: it has no options of its own, so that its figures can be compared.
const POINT: Point = Point {
    link: LinkKind::Memory,
    rate: Rate(1_000_000_000),
    delay: Span(Duration::from_micros(50)),
    queue: Size(1_000_000),
    loss: Share(0.0),
    interval: Span(Duration::from_millis(10)),
    congestion: Algorithm::Bbr,
    message_size: Size(64 << 10),
    send_budget: Size(4 << 20),
};

const VARIANTS: [Variant; 2] = [Variant::Oob, Variant::Fifo];

/// Options of `demo`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    repeating: Repeating,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let common = &arguments.common;
    check_writable(common)?;
    let experiment = Experiment {
        point: POINT,
        name: Map::new(),
        variants: &VARIANTS,
        length: Duration::from_secs_f64(common.seconds.unwrap_or(SECONDS)),
        seed: common.seed,
        live: true,
    };
    let mut session = Session::begin("demo", &arguments.repeating, REPEAT, experiment.duration())?;
    session.progress().line(&format!(
        "Two nodes on an in-process cable, {}, {} one way, {} queue; {} messages saturate one direction; \
         heartbeats of three ops every {}",
        POINT.rate, POINT.delay, POINT.queue, POINT.message_size, POINT.interval
    ));
    let results = experiment.run(&mut session)?;
    let conditions = session.end();

    let mut parameters = parameters(&[POINT], &VARIANTS, common, experiment.length);
    parameters.insert("repeat".into(), json!(arguments.repeating.runs(REPEAT)));
    let report = heartbeat_report("demo", POINT.link.name(), parameters, results, conditions);
    publish(common, &report, &crate::table::heartbeats(&report.results, &report.ratios))?;
    under_load::check(&report.results)
}
