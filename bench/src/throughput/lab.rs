//! The lab of the experiments over `tap`: hosts on a bridge that shapes and loses, in namespaces of their own.
//!
//! ```text
//! our shard - TAP or0 ----+
//!                         +- bridge (drops) - br-b = veth = kb (the peer, kernel TCP)
//! kernel 0 - kn0 = br-n0 -+
//! ```
//!
//! Every port of the bridge shapes what leaves it by a token bucket of its own, so the one towards the peer is what
//! flows to the peer share. Segmentation and checksum offload are off at every veth: all frames are of at most
//! 1500 bytes, whoever sends.

use std::net::{IpAddr, Ipv4Addr};

use clap::ValueEnum;
use outrider_drivers::netns::NetNamespace;
use outrider_drivers::tap::{Tap, TapOptions};

use crate::error::BenchError;
use crate::place::run_tool;

pub(super) const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
pub(super) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
pub(super) const PREFIX: u8 = 24;
const NETWORK: &str = "10.77.0.0/24";
/// Bucket of the shaper: several frames, and a millisecond and less at the rates that make sense here.
const BURST: &str = "32kb";
/// Drops are drawn out of this many.
const LOSS_STEPS: f64 = 1_000_000.0;

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

/// What the bridge does to frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    /// Zero for no limit.
    pub(super) rate_bits_per_second: u64,
    pub(super) queue_bytes: u64,
    /// Share of the frames dropped, each way.
    pub(super) loss: f64,
}

/// Who hangs on the bridge besides the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hosts<'a> {
    /// Our end, with the seed of its MAC address.
    pub(super) ours: Option<u64>,
    /// The kernel's, by their congestion control.
    pub(super) kernels: &'a [KernelCongestion],
    /// Congestion control of the peer.
    pub(super) peer: KernelCongestion,
}

/// The bridge and what hangs on it.
pub(super) struct Lab {
    /// Where the bridge is; held, for it vanishes with its namespace.
    _middle: NetNamespace,
    /// Where the kernel's near ends are.
    pub(super) kernels: Vec<NetNamespace>,
    /// Where the peer is.
    pub(super) peer: NetNamespace,
    /// Our end.
    pub(super) tap: Option<Tap>,
}

impl Lab {
    pub(super) fn build(wire: &Wire, hosts: &Hosts<'_>) -> Result<Self, BenchError> {
        let unable = |error: &dyn std::fmt::Display| {
            BenchError::failed(format!("no lab for --link tap: {error}; --link memory needs none"))
        };
        let create = || NetNamespace::create().map_err(|error| unable(&error));
        let (middle, peer) = (create()?, create()?);
        let kernels: Vec<NetNamespace> = hosts.kernels.iter().map(|_| create()).collect::<Result<_, _>>()?;
        let tap = middle
            .run(|| {
                words("ip", "link add orbr type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
                words("ip", "link set orbr up")?;
                let mut tap = None;
                if let Some(seed) = hosts.ours {
                    let options = TapOptions { name: Some("or0".into()), seed, ..TapOptions::default() };
                    tap = Some(Tap::open(&options).map_err(|error| unable(&error))?);
                    join(wire, "or0")?;
                }
                // The first host takes our place where we are not there.
                for (number, (host, congestion)) in (1u8..).zip(kernels.iter().zip(hosts.kernels)) {
                    let last = if number == 1 && tap.is_none() { 1 } else { number + 2 };
                    let address = IpAddr::V4(Ipv4Addr::new(10, 77, 0, last));
                    let outer = format!("br-n{number}");
                    plug(host, &outer, &format!("kn{number}"), address, *congestion)?;
                    join(wire, &outer)?;
                }
                plug(&peer, "br-b", "kb", PEER, hosts.peer)?;
                join(wire, "br-b")?;
                lose(wire.loss)?;
                Ok::<_, BenchError>(tap)
            })
            .map_err(|error| unable(&error))??;
        Ok(Lab { _middle: middle, kernels, peer, tap })
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
        choose_congestion(inner, address, congestion)
    };
    host.run(inside).map_err(|error| BenchError::failed(format!("cannot enter the lab: {error}")))?
}

/// Has connections of the kernel's over `device` be controlled by `congestion`. Runs inside its namespace.
pub(super) fn choose_congestion(
    device: &str,
    address: IpAddr,
    congestion: KernelCongestion,
) -> Result<(), BenchError> {
    let control = congestion.name();
    words("ip", &format!("route change {NETWORK} dev {device} src {address} congctl {control}"))?;
    forget_paths()
}

/// Frames as they are on a wire: cut to the MTU, checksums written.
fn offloads_off(device: &str) -> Result<(), BenchError> {
    let line = format!("-K {device} tso off gso off gro off tx off rx off");
    run_tool("ethtool", &line.split_whitespace().collect::<Vec<_>>(), "ethtool")
}

/// Joins `device` to the bridge, which shapes what it sends there. Runs inside the bridge's namespace.
fn join(wire: &Wire, device: &str) -> Result<(), BenchError> {
    words("ip", &format!("link set {device} master orbr up"))?;
    if wire.rate_bits_per_second > 0 {
        let shaper =
            format!("rate {}bit burst {BURST} limit {}", wire.rate_bits_per_second, wire.queue_bytes);
        words("tc", &format!("qdisc add dev {device} root tbf {shaper}"))?;
    }
    Ok(())
}

/// Drops frames on the way through the bridge. Runs inside its namespace.
fn lose(loss: f64) -> Result<(), BenchError> {
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
