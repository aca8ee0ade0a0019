//! Two AF_XDP ports on veth pairs, and a namespace in the middle that shapes and loses.
//!
//! ```text
//! port or0 = veth = mid0 -+
//!                         +- bridge: token bucket on what it sends to each end, random drops
//! port or1 = veth = mid1 -+
//! ```
//!
//! AF_XDP transmits past the queueing discipline of its own interface, so that the shaper has to be in the middle. The
//! kernel's own ends, for comparison, hang on the very same bridge, each in a namespace of its own.

use outrider_drivers::afxdp::{AfXdp, AfXdpOptions, AfXdpPort};
use outrider_drivers::interface::set_transmit_checksum_offload;
use outrider_drivers::netns::{NetNamespace, NetnsError};

use super::{Lab, need_root, tap};
use crate::error::BenchError;
use crate::under_load::Point;

/// The ends, by the nodes' order, and what they are plugged into.
const ENDS: [&str; 2] = ["or0", "or1"];
const MIDDLE: [&str; 2] = ["mid0", "mid1"];

/// Builds it. It vanishes with the ports and the namespace.
pub(super) fn build(point: &Point) -> Result<Lab, BenchError> {
    let (a, b, middle) = ports(point, &AfXdpOptions::default())?;
    Ok(Lab::new(a, b, middle))
}

/// The two ports, and the namespace they live in.
pub(crate) fn ports(
    point: &Point,
    options: &AfXdpOptions,
) -> Result<(AfXdpPort, AfXdpPort, NetNamespace), BenchError> {
    let middle = middle(point)?;
    let [a, b] = middle.run(|| ENDS.map(|end| open(end, options))).map_err(|error| unable(&error))?;
    Ok((a?, b?, middle))
}

fn open(interface: &str, options: &AfXdpOptions) -> Result<AfXdpPort, BenchError> {
    let ports = AfXdp::open(interface, options)
        .map_err(|error| BenchError::failed(format!("cannot open an AF_XDP port: {error}")))?;
    ports.into_iter().next().ok_or_else(|| BenchError::failed(format!("{interface} has no queue")))
}

/// The kernel's own hosts at both ends of the same middle.
pub(crate) struct KernelEnds {
    /// Each host's namespace, by the nodes' order.
    pub(crate) hosts: [NetNamespace; 2],
    _middle: NetNamespace,
}

impl KernelEnds {
    /// Builds them; each gets its address of `addresses` (with prefix length).
    pub(crate) fn build(point: &Point, addresses: [&str; 2]) -> Result<Self, BenchError> {
        let middle = middle(point)?;
        let host = || NetNamespace::create().map_err(|error| unable(&error));
        let hosts = [host()?, host()?];
        for ((host, end), address) in hosts.iter().zip(ENDS).zip(addresses) {
            let path = host.path();
            let moving = middle.run(|| ip(&format!("link set {end} netns {}", path.display())));
            moving.map_err(|error| unable(&error))??;
            let setting = host.run(|| {
                ip(&format!("address add {address} dev {end}"))?;
                ip(&format!("link set {end} up"))
            });
            setting.map_err(|error| unable(&error))??;
        }
        Ok(KernelEnds { hosts, _middle: middle })
    }
}

/// A namespace with both veth pairs and the bridge. The ends have no addresses: their kernel says nothing.
fn middle(point: &Point) -> Result<NetNamespace, BenchError> {
    need_root("--link afxdp", "--link memory shows the same")?;
    let middle = NetNamespace::create().map_err(|error| unable(&error))?;
    let made = middle.run(|| {
        for (end, plug) in ENDS.iter().zip(MIDDLE) {
            ip(&format!("link add {end} type veth peer name {plug}"))?;
            for side in [*end, plug] {
                ip(&format!("link set {side} addrgenmode none up"))?;
                // Whoever speaks here finishes his checksums: a port sees bare frames.
                set_transmit_checksum_offload(side, false).map_err(|error| {
                    BenchError::failed(format!("cannot turn checksum offload of {side} off: {error}"))
                })?;
            }
        }
        tap::join(MIDDLE, point)
    });
    made.map_err(|error| unable(&error))??;
    Ok(middle)
}

fn ip(line: &str) -> Result<(), BenchError> {
    tap::run_words("ip", line, "iproute2")
}

fn unable(error: &NetnsError) -> BenchError {
    BenchError::failed(format!("no network namespace for --link afxdp: {error}; --link memory needs none"))
}
