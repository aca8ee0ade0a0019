//! Two hosts of the kernel's own: network namespaces, joined by veth pairs through a third namespace, whose bridge shapes
//! and loses what it forwards; or joined directly where there is nothing to shape.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use outrider_drivers::kernel_socket::set_congestion_control;
use outrider_drivers::netns::{NetNamespace, NetnsError};
use outrider_stack::tcp::congestion::Algorithm;

use super::{Lab, need_root};
use crate::error::BenchError;
use crate::place::run_tool;
use crate::under_load::Point;

/// The device of each host, inside its namespace.
pub(crate) const DEVICE: &str = "or0";
/// The other ends of the veth pairs, on the bridge.
const OUTER: [&str; 2] = ["br-a", "br-b"];
const BRIDGE: &str = "orbr";
/// Bucket of the shaper: at 1 Gbit/s a quarter of a millisecond, and above the MTU at any rate.
const BURST: &str = "32kb";
/// Drops are drawn out of this many.
const LOSS_STEPS: f64 = 1_000_000.0;

/// Two namespaces with a way between them. They vanish with their last user.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    /// One for each node, in the nodes' order. In each the network is on [`DEVICE`].
    pub(crate) namespaces: [NetNamespace; 2],
    /// What is on the way; held, for it vanishes with its namespace.
    _middle: Option<NetNamespace>,
}

/// Refuses what this lab cannot do.
pub(super) fn check(point: &Point) -> Result<(), BenchError> {
    if !point.delay.0.is_zero() {
        return Err(BenchError::usage(format!(
            "--delay {} cannot be made over kernel (that takes the kernel's netem); use --link memory, or --delay 0",
            point.delay
        )));
    }
    if point.congestion == Algorithm::Dctcp {
        return Err(BenchError::usage(
            "--congestion dctcp needs a link that marks, and the shaper of kernel does not; use --link memory",
        ));
    }
    Ok(())
}

/// Builds it, with an address for each host.
pub(super) fn build(point: &Point, addresses: [(IpAddr, u8); 2]) -> Result<Lab, BenchError> {
    need_root("--link kernel", "--link memory shows the same over Outrider's own TCP")?;
    Hosts::join(point, addresses).map(Lab::of_hosts)
}

impl Hosts {
    /// Two hosts, and between them what `point` says of rate, queue and loss.
    pub(crate) fn join(point: &Point, addresses: [(IpAddr, u8); 2]) -> Result<Self, BenchError> {
        let create = || NetNamespace::create().map_err(|error| unable(&error));
        let namespaces = [create()?, create()?];
        let shaped = point.rate.0 > 0 || point.loss.0 > 0.0;
        let middle = if shaped { Some(through_middle(point, &namespaces)?) } else { None };
        if !shaped {
            let peer = namespaces[1].path();
            let pair = format!("link add {DEVICE} type veth peer name {DEVICE} netns {}", peer.display());
            inside(&namespaces[0], || run_words("ip", &pair))?;
        }
        for (namespace, (address, prefix)) in namespaces.iter().zip(addresses) {
            inside(namespace, || {
                check_congestion(point.congestion)?;
                run_words("ip", &format!("address add {address}/{prefix} dev {DEVICE} nodad"))?;
                run_words("ip", &format!("link set {DEVICE} up"))?;
                forget_paths()
            })?;
        }
        Ok(Hosts { namespaces, _middle: middle })
    }

    /// Frame bytes that have arrived at the second host.
    pub(crate) fn received_bytes(&self) -> u64 {
        let read = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        self.namespaces[1].run(read).ok().and_then(|table| received(&table)).unwrap_or(0)
    }
}

/// The first figure of the device's line of `/proc/net/dev` (proc(5)).
fn received(table: &str) -> Option<u64> {
    let mut lines = table.lines().filter_map(|line| line.split_once(':'));
    let (_, figures) = lines.find(|(name, _)| name.trim() == DEVICE)?;
    figures.split_whitespace().next()?.parse().ok()
}

/// Joins the hosts by a bridge in a namespace between them, which shapes and loses.
fn through_middle(point: &Point, hosts: &[NetNamespace; 2]) -> Result<NetNamespace, BenchError> {
    let middle = NetNamespace::create().map_err(|error| unable(&error))?;
    inside(&middle, || {
        let ip = |line: &str| run_words("ip", line);
        ip(&format!("link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"))?;
        for (outer, host) in OUTER.iter().zip(hosts) {
            let path = host.path();
            ip(&format!("link add {outer} type veth peer name {DEVICE} netns {}", path.display()))?;
            offloads_off(outer)?;
            inside(host, || offloads_off(DEVICE))?;
            ip(&format!("link set {outer} master {BRIDGE} up"))?;
            if point.rate.0 > 0 {
                let shaper = format!("rate {}bit burst {BURST} limit {}", point.rate.0, point.queue.0);
                run_words("tc", &format!("qdisc add dev {outer} root tbf {shaper}"))?;
            }
        }
        ip(&format!("link set {BRIDGE} up"))?;
        if point.loss.0 > 0.0 { lose(point.loss.0) } else { Ok(()) }
    })?;
    Ok(middle)
}

/// Has the bridge of this namespace drop a share of what it forwards.
fn lose(share: f64) -> Result<(), BenchError> {
    let nft = |line: &str| run_tool("nft", &line.split_whitespace().collect::<Vec<_>>(), "nftables");
    let dropped = (share * LOSS_STEPS).round();
    nft("add table bridge lab")?;
    nft("add chain bridge lab forward { type filter hook forward priority 0 ; }")?;
    nft(&format!("add rule bridge lab forward numgen random mod {LOSS_STEPS} < {dropped} drop"))
}

/// Frames as they are on a wire: cut to the MTU, checksums written. Concerns the namespace in which this runs.
fn offloads_off(device: &str) -> Result<(), BenchError> {
    let line = format!("-K {device} tso off gso off gro off tx off rx off");
    run_tool("ethtool", &line.split_whitespace().collect::<Vec<_>>(), "ethtool")
}

/// Has the kernel forget what it learns of a path, so that no run profits from the one before. Concerns the namespace
/// in which this runs.
fn forget_paths() -> Result<(), BenchError> {
    std::fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1")
        .map_err(|error| BenchError::failed(format!("cannot set tcp_no_metrics_save in the lab: {error}")))
}

/// Refuses a congestion control that this kernel does not have.
fn check_congestion(congestion: Algorithm) -> Result<(), BenchError> {
    let name = congestion.name();
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| set_congestion_control(&socket, name))
        .map_err(|error| {
            BenchError::failed(format!(
                "this kernel has no congestion control {name}: {error}; try 'modprobe tcp_{name}', or give another \
                 --congestion"
            ))
        })
}

fn inside<T: Send>(
    namespace: &NetNamespace,
    work: impl FnOnce() -> Result<T, BenchError> + Send,
) -> Result<T, BenchError> {
    namespace.run(work).map_err(|error| unable(&error))?
}

fn unable(error: &NetnsError) -> BenchError {
    BenchError::failed(format!("no network namespace for --link kernel: {error}; --link memory needs none"))
}

fn run_words(tool: &str, line: &str) -> Result<(), BenchError> {
    run_tool(tool, &line.split_whitespace().collect::<Vec<_>>(), "iproute2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_bytes_are_those_of_the_device() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n    lo: 99 1 0 0\n   or0: 1514 1 0 0 0\n";
        assert_eq!(received(table), Some(1514));
        assert_eq!(received("or1: 5 5"), None);
    }
}
