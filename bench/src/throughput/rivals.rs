//! Two flows through one bottleneck: ours, or the kernel's, beside a competitor of the kernel's.
//!
//! Both senders are across the bridge of [`super::lab`] from one peer, so what they share is the token bucket towards
//! it and its queue. The kernel's own controllers against the same competitor say what is usual there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrider_stack::tcp::congestion::Algorithm;
use serde_json::{Map, Value, json};

use super::bridge::{await_first_byte, connect_ours, sleep_on};
use super::flow::Meter;
use super::kernel::{KernelEnd, Part};
use super::lab::{Hosts, KernelCongestion, Lab, PEER};
use super::result::{Fairness, ThroughputResult};
use crate::error::BenchError;
use crate::lab::middle::Wire;
use crate::lab::need_root;
use crate::node::now;
use crate::progress::Progress;
use crate::runs::{Repeated, Session};

const PORTS: [u16; 2] = [5_001, 5_002];
/// Time for the flows to find their shares, before measuring.
const WARM_UP: Duration = Duration::from_secs(2);

/// What is to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rate_bits_per_second: u64,
    pub(crate) queue_bytes: Vec<u64>,
    /// Of our flow, one after the other.
    pub(crate) congestion: Vec<Algorithm>,
    /// Of the kernel's flow in our place, one after the other.
    pub(crate) kernel_congestion: Vec<KernelCongestion>,
    pub(crate) competitor: KernelCongestion,
    pub(crate) length: Duration,
    pub(crate) seed: u64,
}

/// The flow beside the competitor.
#[derive(Clone, Copy, Debug)]
enum First {
    Ours(Algorithm),
    Kernel(KernelCongestion),
}

impl First {
    /// Whose stack it is, and its congestion control.
    fn name(self) -> (&'static str, &'static str) {
        match self {
            First::Ours(algorithm) => ("outrider", algorithm.name()),
            First::Kernel(congestion) => ("kernel", congestion.name()),
        }
    }
}

impl Plan {
    fn firsts(&self) -> Vec<First> {
        let ours = self.congestion.iter().copied().map(First::Ours);
        ours.chain(self.kernel_congestion.iter().copied().map(First::Kernel)).collect()
    }

    /// How long one run of each takes, about.
    pub(crate) fn duration(&self) -> Duration {
        let runs = u32::try_from(self.firsts().len() * self.queue_bytes.len()).unwrap_or(u32::MAX);
        (self.length + WARM_UP) * runs
    }
}

/// Measures all of it.
pub(crate) fn run(plan: &Plan, session: &mut Session) -> Result<Vec<Repeated<ThroughputResult>>, BenchError> {
    need_root("--competitor", "throughput --link memory runs one flow")?;
    let firsts = plan.firsts();
    let mut results = Vec::new();
    for queue_bytes in &plan.queue_bytes {
        results.extend(session.medians(&firsts, |first, turn, progress| {
            let (stack, congestion) = first.name();
            progress.set(format!("{stack} {congestion} queue {queue_bytes} B, run {turn}"));
            let plan = Plan { seed: turn.seed(plan.seed), ..plan.clone() };
            one(&plan, *queue_bytes, *first, progress)
        })?);
    }
    Ok(results)
}

/// One run in a lab of its own.
fn one(
    plan: &Plan,
    queue_bytes: u64,
    first: First,
    progress: &Progress,
) -> Result<ThroughputResult, BenchError> {
    let wire = Wire { rate_bits_per_second: plan.rate_bits_per_second, queue_bytes, loss: 0.0 };
    let (ours, kernels) = match first {
        First::Ours(_) => (Some(plan.seed), vec![plan.competitor]),
        First::Kernel(congestion) => (None, vec![congestion, plan.competitor]),
    };
    let mut lab = Lab::build(&wire, &Hosts { ours, kernels: &kernels, peer: plan.competitor })?;
    let meters = PORTS.map(|_| Arc::new(Meter::default()));
    let unused = Arc::new(Meter::default());
    let [remote, remote_of_competitor] = PORTS.map(|port| SocketAddr::new(PEER, port));
    let receivers = [
        KernelEnd::listen(&lab.peer, remote, Part::Receive, &meters[0])?,
        KernelEnd::listen(&lab.peer, remote_of_competitor, Part::Receive, &meters[1])?,
    ];
    // The sender of the first flow is one of the two; either ends when dropped.
    let (mut shard, mut kernel) = (None, None);
    match (first, lab.tap.take()) {
        (First::Ours(algorithm), Some(tap)) => {
            shard = Some(connect_ours(tap, algorithm, plan.seed, remote, Part::Send, &unused)?);
        }
        _ => kernel = Some(KernelEnd::connect(&lab.kernels[0], remote, Part::Send, &unused)?),
    }
    let host = lab.kernels.last().expect("the competitor's host was made");
    let competitor = KernelEnd::connect(host, remote_of_competitor, Part::Send, &unused)?;
    for meter in &meters {
        await_first_byte(meter)?;
    }
    sleep_on(WARM_UP, progress)?;
    let at = now();
    let before = meters.each_ref().map(|meter| meter.bytes());
    meters[0].begin(at);
    sleep_on(plan.length, progress)?;
    let end = now();
    let seconds = (end - at).as_secs_f64();
    let bytes = [0, 1].map(|index| meters[index].bytes() - before[index]);
    let [goodput_bps, competitor_bps] = bytes.map(|bytes| bytes as f64 * 8.0 / seconds);
    let longest_stall_us = meters[0].longest_stall(end).as_secs_f64() * 1e6;
    // The receivers go first: their resets end the senders.
    for receiver in receivers {
        receiver.finish()?;
    }
    drop((shard, kernel, competitor));
    let (variant, congestion) = first.name();
    let point: Map<String, Value> = [
        ("congestion".to_owned(), json!(congestion)),
        ("competitor".to_owned(), json!(plan.competitor.name())),
        ("queue_bytes".to_owned(), json!(queue_bytes)),
    ]
    .into_iter()
    .collect();
    Ok(ThroughputResult {
        fairness: Some(Fairness::of(goodput_bps, competitor_bps)),
        ..ThroughputResult::of_goodput(variant, point, goodput_bps, longest_stall_us, seconds)
    })
}
