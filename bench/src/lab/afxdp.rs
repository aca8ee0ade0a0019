//! Two AF_XDP ports on veth pairs, and a namespace in the middle that shapes and loses.
//!
//! ```text
//! port or0 = veth = br-a -+
//!                         +- bridge: token bucket on what it sends to each end, random drops
//! port or1 = veth = br-b -+
//! ```
//!
//! AF_XDP transmits past the queueing discipline of its own interface, so that the shaper has to be in the middle. Each
//! port has a namespace of its own, which may be a host of the kernel's instead: the comparison has the very same way.

use outrider_drivers::afxdp::{AfXdp, AfXdpOptions, AfXdpPort};
use outrider_drivers::interface::set_transmit_checksum_offload;

use super::hosts::{DEVICES, Hosts};
use super::middle::{Wire, inside, run_line};
use super::{Lab, need_root};
use crate::error::BenchError;
use crate::under_load::Point;

/// Builds it. It vanishes with the ports and the namespaces.
pub(super) fn build(point: &Point) -> Result<Lab, BenchError> {
    let hosts = hosts(point)?;
    let [a, b] = &hosts.namespaces;
    let [a, b] = [(a, DEVICES[0]), (b, DEVICES[1])].map(|(host, end)| inside(host, || open(end)));
    Ok(Lab::new(a?, b?, hosts))
}

fn open(interface: &str) -> Result<AfXdpPort, BenchError> {
    let ports = AfXdp::open(interface, &AfXdpOptions::default())
        .map_err(|error| BenchError::failed(format!("cannot open an AF_XDP port: {error}")))?;
    ports.into_iter().next().ok_or_else(|| BenchError::failed(format!("{interface} has no queue")))
}

/// Both ends and the way between them. Neither has an address yet: its kernel says nothing.
pub(super) fn hosts(point: &Point) -> Result<Hosts, BenchError> {
    need_root("--link afxdp", "--link memory shows the same")?;
    Hosts::on_bridge(point.link, &Wire::of(point), bare)
}

/// Whoever speaks here finishes his checksums, since a port sees bare frames; and nobody speaks unasked.
fn bare(device: &str) -> Result<(), BenchError> {
    run_line(&format!("ip link set {device} addrgenmode none"))?;
    set_transmit_checksum_offload(device, false)
        .map_err(|error| BenchError::failed(format!("cannot turn checksum offload of {device} off: {error}")))
}
