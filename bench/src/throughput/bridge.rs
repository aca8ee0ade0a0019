//! Our stack against the kernel's, across a bridge ([`super::lab`]), beside the kernel against itself.
//!
//! Both variants cross the same bridge, the same random drops in both directions, and the same token bucket on the way
//! out of it. Each run has a lab of its own, in namespaces that vanish with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant as WallInstant};

use outrider_drivers::tap::Tap;
use outrider_drivers::time::process_cpu_time;
use outrider_stack::shard::{Shard, ShardReport};
use outrider_stack::tcp::congestion::Algorithm;
use serde_json::{Map, Value, json};

use super::flow::{Flow, Meter, Supply};
use super::kernel::{KernelEnd, Part};
use super::lab::{Hosts, KernelCongestion, Lab, OURS, PEER, PREFIX};
use super::result::ThroughputResult;
use crate::error::BenchError;
use crate::lab::middle::Wire;
use crate::lab::need_root;
use crate::node::{Addressing, now, spawn_shard};
use crate::progress::Progress;
use crate::runs::{Repeated, Session};
use crate::stop;

pub(super) const TCP_PORT: u16 = 5_001;
/// Bytes our receiver is always ready to take: like the kernel's largest default receive buffer (tcp_rmem).
pub(super) const ROOM_BYTES: usize = 6 << 20;
/// Time for the start of a connection to be over, before measuring.
pub(super) const WARM_UP: Duration = Duration::from_secs(1);
/// How long the first byte may take.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// What is to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rate_bits_per_second: u64,
    pub(crate) queue_bytes: u64,
    pub(crate) losses: Vec<f64>,
    /// Of our end.
    pub(crate) congestion: Algorithm,
    /// Of the kernel's ends.
    pub(crate) peer_congestion: Vec<KernelCongestion>,
    pub(crate) length: Duration,
    pub(crate) seed: u64,
}

/// Who is across the bridge from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Outrider,
    Kernel,
}

const VARIANTS: [(Variant, &str); 2] = [(Variant::Outrider, "outrider"), (Variant::Kernel, "kernel")];
/// What that end does: it sends to the peer, or receives from it.
pub(super) const DIRECTIONS: [(Part, &str); 2] = [(Part::Send, "send"), (Part::Receive, "receive")];

impl Plan {
    /// How long one run of each takes, about.
    pub(crate) fn duration(&self) -> Duration {
        let runs = self.losses.len() * self.peer_congestion.len() * DIRECTIONS.len() * VARIANTS.len();
        (self.length + WARM_UP) * u32::try_from(runs).unwrap_or(u32::MAX)
    }
}

/// Measures all of it.
pub(crate) fn run(plan: &Plan, session: &mut Session) -> Result<Vec<Repeated<ThroughputResult>>, BenchError> {
    need_root("--link tap", "--link memory compares with smoltcp")?;
    let mut results = Vec::new();
    for loss in &plan.losses {
        for congestion in &plan.peer_congestion {
            for (part, direction) in DIRECTIONS {
                let scene = Scene { loss: *loss, congestion: *congestion, part, direction };
                results.extend(compare(plan, &scene, session)?);
            }
        }
    }
    Ok(results)
}

/// One point.
#[derive(Clone, Copy, Debug)]
struct Scene {
    loss: f64,
    /// Of the kernel's ends.
    congestion: KernelCongestion,
    /// Of the end across the bridge from the peer.
    part: Part,
    direction: &'static str,
}

/// Both variants at one point, by turns.
fn compare(
    plan: &Plan,
    scene: &Scene,
    session: &mut Session,
) -> Result<Vec<Repeated<ThroughputResult>>, BenchError> {
    let point: Map<String, Value> = [
        ("direction".to_owned(), json!(scene.direction)),
        ("peer_congestion".to_owned(), json!(scene.congestion.name())),
        ("loss".to_owned(), json!(scene.loss)),
    ]
    .into_iter()
    .collect();
    session.medians(&VARIANTS, |(variant, name), turn, progress| {
        let Scene { direction, congestion, loss, .. } = scene;
        progress.set(format!("{name} {direction} {} loss {loss}, run {turn}", congestion.name()));
        let plan = Plan { seed: turn.seed(plan.seed), ..plan.clone() };
        Ok(one(&plan, scene, *variant, progress)?.result(name, point.clone()))
    })
}

/// The end across the bridge from the peer. Ends when dropped.
pub(super) enum Near {
    Ours(Shard),
    Kernel(KernelEnd),
}

impl Near {
    /// Ends it; a shard of ours leaves a report.
    pub(super) fn stop(self) -> Option<ShardReport> {
        match self {
            Near::Ours(shard) => Some(shard.stop()),
            Near::Kernel(_) => None,
        }
    }

    fn retransmits(&self) -> Option<u64> {
        let Near::Ours(shard) = self else { return None };
        Some(shard.handle().statistics().connections.iter().map(|one| one.send.retransmits).sum())
    }
}

/// Begins a connection of ours to `remote` on a shard of its own.
pub(super) fn connect_ours(
    tap: Tap,
    congestion: Algorithm,
    seed: u64,
    remote: SocketAddr,
    part: Part,
    meter: &Arc<Meter>,
) -> Result<Shard, BenchError> {
    let addressing = Addressing { address: (OURS, PREFIX), gateway: None, congestion, seed };
    let shard = spawn_shard(Box::new(tap), &addressing)?;
    let supply = if part == Part::Send { Supply::Endless } else { Supply::None };
    let flow = Flow { supply, meter: Arc::clone(meter), room_bytes: ROOM_BYTES };
    shard
        .handle()
        .connect(remote, Box::new(flow))
        .map_err(|_| BenchError::failed("our stack took no connection; its port is gone"))?;
    Ok(shard)
}

/// One run in a lab of its own.
fn one(plan: &Plan, scene: &Scene, variant: Variant, progress: &Progress) -> Result<Found, BenchError> {
    let &Scene { loss, congestion, part, .. } = scene;
    let Plan { rate_bits_per_second, queue_bytes, .. } = *plan;
    let wire = Wire { rate_bits_per_second, queue_bytes, loss };
    let (ours, kernels) = match variant {
        Variant::Outrider => (Some(plan.seed), Vec::new()),
        Variant::Kernel => (None, vec![congestion]),
    };
    let mut lab = Lab::build(&wire, &Hosts { ours, kernels: &kernels, peer: congestion })?;
    let received = Arc::new(Meter::default());
    let unused = Arc::new(Meter::default());
    let (near_meter, peer_meter, peer_part) = match part {
        Part::Send => (&unused, &received, Part::Receive),
        Part::Receive => (&received, &unused, Part::Send),
    };
    let remote = SocketAddr::new(PEER, TCP_PORT);
    let peer = KernelEnd::listen(&lab.peer, remote, peer_part, peer_meter)?;
    let near = match lab.tap.take() {
        None => Near::Kernel(KernelEnd::connect(&lab.kernels[0], remote, part, near_meter)?),
        Some(tap) => Near::Ours(connect_ours(tap, plan.congestion, plan.seed, remote, part, near_meter)?),
    };
    let found = measure(plan.length, &received, &near, progress)?;
    // The receiver goes first: its reset ends the sender, which leaves no socket behind that still tries.
    match (part, near) {
        (Part::Send, near) => {
            peer.finish()?;
            drop(near);
        }
        (Part::Receive, Near::Kernel(near)) => {
            near.finish()?;
            peer.finish()?;
        }
        (Part::Receive, near) => {
            drop(near);
            peer.finish()?;
        }
    }
    Ok(found)
}

/// What a run found.
pub(super) struct Found {
    bytes: u64,
    time: Duration,
    cpu: Duration,
    longest_stall: Duration,
    retransmits: Option<u64>,
}

impl Found {
    pub(super) fn result(&self, variant: &'static str, point: Map<String, Value>) -> ThroughputResult {
        let seconds = self.time.as_secs_f64();
        let goodput_bps = self.bytes as f64 * 8.0 / seconds;
        let longest_stall_us = self.longest_stall.as_secs_f64() * 1e6;
        ThroughputResult {
            cpu_ns_per_byte: (self.bytes > 0).then(|| self.cpu.as_nanos() as f64 / self.bytes as f64),
            cpu_seconds: self.cpu.as_secs_f64(),
            retransmits: self.retransmits,
            ..ThroughputResult::of_goodput(variant, point, goodput_bps, longest_stall_us, seconds)
        }
    }
}

pub(super) fn await_first_byte(received: &Meter) -> Result<(), BenchError> {
    let began = WallInstant::now();
    while received.bytes() == 0 {
        if began.elapsed() > FIRST_BYTE_MAX {
            return Err(BenchError::failed(format!(
                "nothing arrived within {} s; try a lower --loss",
                FIRST_BYTE_MAX.as_secs()
            )));
        }
        stop::sleep(LOOK)?;
    }
    Ok(())
}

/// Sleeps for `length`, and lets the progress show it.
pub(super) fn sleep_on(length: Duration, progress: &Progress) -> Result<(), BenchError> {
    let begin = now();
    while now() - begin < length {
        let slice = LOOK.min(length.saturating_sub(now() - begin));
        stop::sleep(slice)?;
        progress.advance(slice);
    }
    Ok(())
}

pub(super) fn measure(
    length: Duration,
    received: &Meter,
    near: &Near,
    progress: &Progress,
) -> Result<Found, BenchError> {
    await_first_byte(received)?;
    sleep_on(WARM_UP, progress)?;
    let (at, bytes, cpu, again) = (now(), received.bytes(), process_cpu_time(), near.retransmits());
    received.begin(at);
    sleep_on(length, progress)?;
    let end = now();
    Ok(Found {
        bytes: received.bytes() - bytes,
        time: end - at,
        cpu: process_cpu_time() - cpu,
        longest_stall: received.longest_stall(end),
        retransmits: near.retransmits().zip(again).map(|(now, then)| now.saturating_sub(then)),
    })
}
