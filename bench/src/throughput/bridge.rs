//! Our stack against the kernel's, across a bridge, beside the kernel against itself.
//!
//! ```text
//! our shard - TAP or0 -+
//!                      +- bridge (drops) - br-b = veth = kb (the peer, kernel TCP)
//! kernel - ka = veth - br-a -+
//! ```
//!
//! Both variants cross the same bridge, the same random drops in both directions, and the same token bucket on the way
//! out of it; segmentation and checksum offload are off at every veth, so that all frames are of at most 1500 bytes
//! for both. Each run has a lab of its own, in namespaces that vanish with it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant as WallInstant};

use clap::ValueEnum;
use outrider_drivers::netns::NetNamespace;
use outrider_drivers::tap::{Tap, TapOptions};
use outrider_drivers::time::process_cpu_time;
use outrider_stack::shard::Shard;
use outrider_stack::tcp::congestion::Algorithm;
use serde_json::{Map, Value, json};

use super::flow::{Flow, Meter, Supply};
use super::kernel::{KernelEnd, Part};
use super::result::ThroughputResult;
use crate::error::BenchError;
use crate::lab::need_root;
use crate::node::{Addressing, now, spawn_shard};
use crate::place::run_tool;
use crate::progress::Progress;

const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
const PREFIX: u8 = 24;
const NETWORK: &str = "10.77.0.0/24";
const TCP_PORT: u16 = 5_001;
/// Bytes our receiver is always ready to take: like the kernel's largest default receive buffer (tcp_rmem).
const ROOM_BYTES: usize = 6 << 20;
/// Bucket of the shaper: several frames, and a millisecond and less at the rates that make sense here.
const BURST: &str = "32kb";
/// Drops are drawn out of this many.
const LOSS_STEPS: f64 = 1_000_000.0;
/// Time for the start of a connection to be over, before measuring.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long the first byte may take.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// Congestion control of the kernel, as it spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KernelCongestion {
    /// RFC 9438.
    Cubic,
    /// BBR version 1.
    Bbr,
    /// NewReno.
    Reno,
}

impl KernelCongestion {
    /// As the kernel, options and results spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            KernelCongestion::Cubic => "cubic",
            KernelCongestion::Bbr => "bbr",
            KernelCongestion::Reno => "reno",
        }
    }
}

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
const DIRECTIONS: [(Part, &str); 2] = [(Part::Send, "send"), (Part::Receive, "receive")];

impl Plan {
    /// How long it takes, about.
    pub(crate) fn duration(&self) -> Duration {
        let runs = self.losses.len() * self.peer_congestion.len() * DIRECTIONS.len() * VARIANTS.len();
        (self.length + WARM_UP) * u32::try_from(runs).unwrap_or(u32::MAX)
    }
}

/// Measures all of it.
pub(crate) fn run(plan: &Plan, progress: &Progress) -> Result<Vec<ThroughputResult>, BenchError> {
    need_root("--link tap", "--link memory compares with smoltcp")?;
    let mut results = Vec::new();
    for loss in &plan.losses {
        for congestion in &plan.peer_congestion {
            for (part, direction) in DIRECTIONS {
                for (variant, name) in VARIANTS {
                    progress.set(format!("{name} {direction} {} loss {loss}", congestion.name()));
                    let point: Map<String, Value> = [
                        ("direction".to_owned(), json!(direction)),
                        ("peer_congestion".to_owned(), json!(congestion.name())),
                        ("loss".to_owned(), json!(loss)),
                    ]
                    .into_iter()
                    .collect();
                    let found = one(plan, *loss, *congestion, part, variant, progress)?;
                    results.push(found.result(name, point));
                }
            }
        }
    }
    Ok(results)
}

/// The end across the bridge from the peer. Ends when dropped.
enum Near {
    Ours(Shard),
    Kernel(KernelEnd),
}

impl Near {
    fn retransmits(&self) -> Option<u64> {
        let Near::Ours(shard) = self else { return None };
        Some(shard.handle().statistics().connections.iter().map(|one| one.send.retransmits).sum())
    }
}

/// One run in a lab of its own.
fn one(
    plan: &Plan,
    loss: f64,
    congestion: KernelCongestion,
    part: Part,
    variant: Variant,
    progress: &Progress,
) -> Result<Found, BenchError> {
    let lab = Lab::build(plan, loss, congestion, variant)?;
    let received = Arc::new(Meter::default());
    let unused = Arc::new(Meter::default());
    let (near_meter, peer_meter, peer_part) = match part {
        Part::Send => (&unused, &received, Part::Receive),
        Part::Receive => (&received, &unused, Part::Send),
    };
    let remote = SocketAddr::new(PEER, TCP_PORT);
    let peer = KernelEnd::listen(&lab.peer, remote, peer_part, peer_meter)?;
    let near = match lab.tap {
        None => Near::Kernel(KernelEnd::connect(&lab.near, remote, part, near_meter)?),
        Some(tap) => {
            let addressing = Addressing {
                address: (OURS, PREFIX),
                gateway: None,
                congestion: plan.congestion,
                seed: plan.seed,
            };
            let shard = spawn_shard(Box::new(tap), &addressing)?;
            let supply = if part == Part::Send { Supply::Endless } else { Supply::None };
            let flow = Flow { supply, meter: Arc::clone(near_meter), room_bytes: ROOM_BYTES };
            shard
                .handle()
                .connect(remote, Box::new(flow))
                .map_err(|_| BenchError::failed("our stack took no connection; its port is gone"))?;
            Near::Ours(shard)
        }
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
struct Found {
    bytes: u64,
    time: Duration,
    cpu: Duration,
    longest_stall: Duration,
    retransmits: Option<u64>,
}

impl Found {
    fn result(&self, variant: &'static str, point: Map<String, Value>) -> ThroughputResult {
        let seconds = self.time.as_secs_f64();
        ThroughputResult {
            variant,
            point,
            goodput_bps: self.bytes as f64 * 8.0 / seconds,
            frames_per_second: None,
            cpu_ns_per_byte: (self.bytes > 0).then(|| self.cpu.as_nanos() as f64 / self.bytes as f64),
            cpu_ns_per_segment: None,
            longest_stall_us: self.longest_stall.as_secs_f64() * 1e6,
            cpu_seconds: self.cpu.as_secs_f64(),
            seconds,
            segments: None,
            retransmits: self.retransmits,
            queue_drops: None,
        }
    }
}

fn measure(
    length: Duration,
    received: &Meter,
    near: &Near,
    progress: &Progress,
) -> Result<Found, BenchError> {
    let began = WallInstant::now();
    while received.bytes() == 0 {
        if began.elapsed() > FIRST_BYTE_MAX {
            return Err(BenchError::failed(format!(
                "nothing arrived within {} s; try a lower --loss",
                FIRST_BYTE_MAX.as_secs()
            )));
        }
        std::thread::sleep(LOOK);
    }
    std::thread::sleep(WARM_UP);
    progress.advance(WARM_UP);
    let (at, bytes, cpu, again) = (now(), received.bytes(), process_cpu_time(), near.retransmits());
    received.begin(at);
    while now() - at < length {
        let slice = LOOK.min(length.saturating_sub(now() - at));
        std::thread::sleep(slice);
        progress.advance(slice);
    }
    let end = now();
    Ok(Found {
        bytes: received.bytes() - bytes,
        time: end - at,
        cpu: process_cpu_time() - cpu,
        longest_stall: received.longest_stall(end),
        retransmits: near.retransmits().zip(again).map(|(now, then)| now.saturating_sub(then)),
    })
}

/// The bridge and what hangs on it.
struct Lab {
    /// Where the bridge is; held, for it vanishes with its namespace.
    _middle: NetNamespace,
    /// Where the kernel's near end is.
    near: NetNamespace,
    /// Where the peer is.
    peer: NetNamespace,
    /// Our end.
    tap: Option<Tap>,
}

impl Lab {
    fn build(
        plan: &Plan,
        loss: f64,
        congestion: KernelCongestion,
        variant: Variant,
    ) -> Result<Self, BenchError> {
        let unable = |error: &dyn std::fmt::Display| {
            BenchError::failed(format!("no lab for --link tap: {error}; --link memory needs none"))
        };
        let create = || NetNamespace::create().map_err(|error| unable(&error));
        let (middle, near, peer) = (create()?, create()?, create()?);
        let tap = middle
            .run(|| {
                words("ip", "link add orbr type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
                let tap = match variant {
                    Variant::Outrider => {
                        let options =
                            TapOptions { name: Some("or0".into()), seed: plan.seed, ..TapOptions::default() };
                        Some(Tap::open(&options).map_err(|error| unable(&error))?)
                    }
                    Variant::Kernel => {
                        plug(&near, "br-a", "ka", OURS, congestion)?;
                        None
                    }
                };
                plug(&peer, "br-b", "kb", PEER, congestion)?;
                join(plan, loss, if tap.is_some() { "or0" } else { "br-a" })?;
                Ok::<_, BenchError>(tap)
            })
            .map_err(|error| unable(&error))??;
        Ok(Lab { _middle: middle, near, peer, tap })
    }
}

/// Makes a veth from the bridge's namespace, in which this runs, to `host`, and gives it an address there. The route
/// chooses the congestion control: the default of a namespace may be changed only to what the host allows everyone.
fn plug(
    host: &NetNamespace,
    outer: &str,
    inner: &str,
    address: IpAddr,
    congestion: KernelCongestion,
) -> Result<(), BenchError> {
    let path = host.path();
    words("ip", &format!("link add {outer} type veth peer name {inner} netns {}", path.display()))?;
    offloads_off(outer)?;
    let inside = || {
        offloads_off(inner)?;
        words("ip", &format!("address add {address}/{PREFIX} dev {inner}"))?;
        words("ip", &format!("link set {inner} up"))?;
        let control = congestion.name();
        words("ip", &format!("route change {NETWORK} dev {inner} src {address} congctl {control}"))?;
        forget_paths()
    };
    host.run(inside).map_err(|error| BenchError::failed(format!("cannot enter the lab: {error}")))?
}

/// Frames as they are on a wire: cut to the MTU, checksums written.
fn offloads_off(device: &str) -> Result<(), BenchError> {
    let line = format!("-K {device} tso off gso off gro off tx off rx off");
    run_tool("ethtool", &line.split_whitespace().collect::<Vec<_>>(), "ethtool")
}

/// Joins `near` and the peer's veth by the bridge, which shapes and loses. Runs inside the bridge's namespace.
fn join(plan: &Plan, loss: f64, near: &str) -> Result<(), BenchError> {
    for device in [near, "br-b"] {
        words("ip", &format!("link set {device} master orbr up"))?;
        if plan.rate_bits_per_second > 0 {
            let shaper =
                format!("rate {}bit burst {BURST} limit {}", plan.rate_bits_per_second, plan.queue_bytes);
            words("tc", &format!("qdisc add dev {device} root tbf {shaper}"))?;
        }
    }
    words("ip", "link set orbr up")?;
    if loss > 0.0 {
        let nft = |line: &str| run_tool("nft", &line.split_whitespace().collect::<Vec<_>>(), "nftables");
        let dropped = (loss * LOSS_STEPS).round();
        nft("add table bridge lab")?;
        nft("add chain bridge lab forward { type filter hook forward priority 0 ; }")?;
        nft(&format!("add rule bridge lab forward numgen random mod {LOSS_STEPS} < {dropped} drop"))?;
    }
    Ok(())
}

fn words(tool: &str, line: &str) -> Result<(), BenchError> {
    run_tool(tool, &line.split_whitespace().collect::<Vec<_>>(), "iproute2")
}

/// Has the kernel forget what it learns of a path, so that no run profits from the one before. Concerns the namespace
/// in which this runs.
fn forget_paths() -> Result<(), BenchError> {
    std::fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1")
        .map_err(|error| BenchError::failed(format!("cannot set tcp_no_metrics_save in the lab: {error}")))
}
