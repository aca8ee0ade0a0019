//! What segmentation and checksum offload are worth: our stack and the kernel's on the two sides of one TAP, with no
//! shaper between them, with offloads and without.
//!
//! ```text
//! our shard - TAP or0 = the kernel's or0 (the peer, kernel TCP)
//! ```
//!
//! Each run has a TAP and a namespace of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrider_drivers::netns::NetNamespace;
use outrider_drivers::tap::{Tap, TapOptions};
use outrider_stack::tcp::congestion::Algorithm;
use serde_json::{Map, Value, json};

use super::bridge::{self, DIRECTIONS, Near, TCP_PORT, WARM_UP};
use super::flow::Meter;
use super::kernel::{KernelEnd, Part};
use super::lab::{KernelCongestion, PEER, PREFIX, choose_congestion};
use super::result::ThroughputResult;
use crate::error::BenchError;
use crate::lab::middle::{inside, namespace_for, run_line};
use crate::lab::{LinkKind, need_root};
use crate::progress::Progress;
use crate::runs::{Repeated, Session};

const DEVICE: &str = "or0";

/// What is to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// With offloads, and without: the one to compare with first.
    pub(crate) offloads: Vec<bool>,
    /// Of our end.
    pub(crate) congestion: Algorithm,
    /// Of the kernel's end.
    pub(crate) peer_congestion: KernelCongestion,
    pub(crate) length: Duration,
    pub(crate) seed: u64,
}

impl Plan {
    /// How long one run of each takes, about.
    pub(crate) fn duration(&self) -> Duration {
        let runs = u32::try_from(self.offloads.len() * DIRECTIONS.len()).unwrap_or(u32::MAX);
        (self.length + WARM_UP) * runs
    }
}

/// How options and results spell it.
pub(crate) fn spelled(offload: bool) -> &'static str {
    if offload { "on" } else { "off" }
}

/// Measures all of it.
pub(crate) fn run(plan: &Plan, session: &mut Session) -> Result<Vec<Repeated<ThroughputResult>>, BenchError> {
    need_root("--link tap", "--link memory compares with smoltcp")?;
    let mut results = Vec::new();
    for (part, direction) in DIRECTIONS {
        results.extend(session.medians(&plan.offloads, |offload, turn, progress| {
            let name = spelled(*offload);
            progress.set(format!("{direction}, offload {name}, run {turn}"));
            let point: Map<String, Value> =
                [("direction".to_owned(), json!(direction)), ("offload".to_owned(), json!(name))]
                    .into_iter()
                    .collect();
            let plan = Plan { seed: turn.seed(plan.seed), ..plan.clone() };
            one(&plan, part, *offload, point, progress)
        })?);
    }
    Ok(results)
}

/// Makes the TAP, and gives the kernel's side the peer's address.
fn open(namespace: &NetNamespace, plan: &Plan, offload: bool) -> Result<Tap, BenchError> {
    let make = || {
        let name = Some(DEVICE.to_owned());
        let options = TapOptions { name, offload, seed: plan.seed, ..TapOptions::default() };
        let tap = Tap::open(&options)
            .map_err(|error| BenchError::failed(format!("cannot open the TAP device {DEVICE}: {error}")))?;
        run_line(&format!("ip address add {PEER}/{PREFIX} dev {DEVICE}"))?;
        choose_congestion(DEVICE, PEER, plan.peer_congestion)?;
        Ok(tap)
    };
    inside(namespace, make)
}

/// One run on a TAP of its own.
fn one(
    plan: &Plan,
    part: Part,
    offload: bool,
    point: Map<String, Value>,
    progress: &Progress,
) -> Result<ThroughputResult, BenchError> {
    let namespace = namespace_for(LinkKind::Tap)?;
    let tap = open(&namespace, plan, offload)?;
    let received = Arc::new(Meter::default());
    let unused = Arc::new(Meter::default());
    let (our_meter, peer_meter, peer_part) = match part {
        Part::Send => (&unused, &received, Part::Receive),
        Part::Receive => (&received, &unused, Part::Send),
    };
    let remote = SocketAddr::new(PEER, TCP_PORT);
    let peer = KernelEnd::listen(&namespace, remote, peer_part, peer_meter)?;
    let shard = bridge::connect_ours(tap, plan.congestion, plan.seed, remote, part, our_meter)?;
    let ours = Near::Ours(shard);
    let result = bridge::measure(plan.length, &received, &ours, progress)?.result("outrider", point);
    // The receiver goes first: its reset ends the sender, which leaves no socket behind that still tries.
    if part == Part::Send {
        peer.finish()?;
        drop(ours);
    } else {
        drop(ours);
        peer.finish()?;
    }
    Ok(result)
}
