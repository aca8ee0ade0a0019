//! What is on the way in a lab of the kernel's devices: a bridge in a network namespace, which shapes what it sends to
//! each device by a token bucket of its own, and drops a share of what it forwards.
//!
//! The tools run in the namespace of the calling thread, unless a function says otherwise.

use std::io::ErrorKind;

use outrider_drivers::netns::{NetNamespace, NetnsError};
use outrider_stack::tcp::congestion::Algorithm;

use super::LinkKind;
use crate::error::BenchError;
use crate::place::run_tool;
use crate::under_load::Point;

const BRIDGE: &str = "orbr";
/// Bucket of the shaper: at 1 Gbit/s a quarter of a millisecond, and above the MTU at any rate.
const BURST: &str = "32kb";
/// Drops are drawn out of this many.
const LOSS_STEPS: f64 = 1_000_000.0;

/// What the way does to frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire {
    /// Zero for no limit.
    pub(crate) rate_bits_per_second: u64,
    pub(crate) queue_bytes: u64,
    /// Share of the frames dropped, each way.
    pub(crate) loss: f64,
}

impl Wire {
    /// What `point` says of it.
    pub(crate) fn of(point: &Point) -> Self {
        Wire { rate_bits_per_second: point.rate.0, queue_bytes: point.queue.0, loss: point.loss.0 }
    }

    /// Makes the bridge, without devices yet.
    pub(crate) fn make_bridge(&self) -> Result<(), BenchError> {
        run_line(&format!("ip link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"))?;
        run_line(&format!("ip link set {BRIDGE} up"))?;
        pass_by_firewall()?;
        if self.loss > 0.0 {
            let dropped = (self.loss * LOSS_STEPS).round();
            run_line("nft add table bridge lab")?;
            run_line("nft add chain bridge lab forward { type filter hook forward priority 0 ; }")?;
            run_line(&format!(
                "nft add rule bridge lab forward numgen random mod {LOSS_STEPS} < {dropped} drop"
            ))?;
        }
        Ok(())
    }

    /// Joins `device` to the bridge, which shapes what it sends there.
    pub(crate) fn join(&self, device: &str) -> Result<(), BenchError> {
        run_line(&format!("ip link set {device} master {BRIDGE} up"))?;
        if self.rate_bits_per_second > 0 {
            let (rate, queue) = (self.rate_bits_per_second, self.queue_bytes);
            run_line(&format!(
                "tc qdisc add dev {device} root tbf rate {rate}bit burst {BURST} limit {queue}"
            ))?;
        }
        Ok(())
    }

    /// Makes a veth pair from the bridge to `host`, where it is called `inner`. Both ends are made ready by `prepare`,
    /// each in its namespace.
    pub(crate) fn plug(
        &self,
        host: &NetNamespace,
        [outer, inner]: [&str; 2],
        prepare: fn(&str) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let path = host.path();
        run_line(&format!("ip link add {outer} type veth peer name {inner} netns {}", path.display()))?;
        prepare(outer)?;
        inside(host, || prepare(inner))?;
        self.join(outer)
    }
}

/// Has the bridge bridge, and no more: where br_netfilter is loaded, frames of IP would take the way of routed packets
/// through the firewall's hooks, and cost half as much again as other frames.
fn pass_by_firewall() -> Result<(), BenchError> {
    for family in ["iptables", "ip6tables", "arptables"] {
        let switch = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        match std::fs::write(&switch, "0") {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(BenchError::failed(format!("cannot set {switch} in the lab: {error}")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Refuses what no lab of the kernel's devices can do.
pub(super) fn check(point: &Point) -> Result<(), BenchError> {
    let link = point.link.name();
    if !point.delay.0.is_zero() {
        return Err(BenchError::usage(format!(
            "--delay {} cannot be made over {link} (that takes the kernel's netem); use --link memory, or --delay 0",
            point.delay
        )));
    }
    if point.congestion == Algorithm::Dctcp {
        return Err(BenchError::usage(format!(
            "--congestion dctcp needs a link that marks, and the shaper of {link} does not; use --link memory"
        )));
    }
    Ok(())
}

/// Frames as they are on a wire: cut to the MTU, checksums written.
pub(crate) fn offloads_off(device: &str) -> Result<(), BenchError> {
    run_line(&format!("ethtool -K {device} tso off gso off gro off tx off rx off"))
}

/// Has the kernel forget what it learns of a path, so that no run profits from the one before.
pub(crate) fn forget_paths() -> Result<(), BenchError> {
    std::fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1")
        .map_err(|error| BenchError::failed(format!("cannot set tcp_no_metrics_save in the lab: {error}")))
}

/// A namespace for a lab of `link`.
pub(crate) fn namespace_for(link: LinkKind) -> Result<NetNamespace, BenchError> {
    NetNamespace::create().map_err(|error| {
        let link = link.name();
        BenchError::failed(format!(
            "no network namespace for --link {link}: {error}; --link memory needs none"
        ))
    })
}

/// Runs `work` in a namespace of a lab.
pub(crate) fn inside<T: Send>(
    namespace: &NetNamespace,
    work: impl FnOnce() -> Result<T, BenchError> + Send,
) -> Result<T, BenchError> {
    namespace.run(work).map_err(|error| cannot_enter(&error))?
}

pub(crate) fn cannot_enter(error: &NetnsError) -> BenchError {
    BenchError::failed(format!("cannot enter the lab: {error}"))
}

/// Runs a line of a tool that labs are made with.
pub(crate) fn run_line(line: &str) -> Result<(), BenchError> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (tool, arguments) = words.split_first().expect("a line names a tool");
    let package = match *tool {
        "ip" | "tc" => "iproute2",
        "nft" => "nftables",
        tool => tool,
    };
    run_tool(tool, arguments, package)
}
