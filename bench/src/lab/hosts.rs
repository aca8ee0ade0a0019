//! Two hosts of the kernel's own: network namespaces, joined by veth pairs through a third namespace, whose bridge shapes
//! and loses what it forwards; or joined directly where there is nothing to shape.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use outrider_drivers::kernel_socket::set_congestion_control;
use outrider_drivers::netns::NetNamespace;
use outrider_stack::tcp::congestion::Algorithm;

use super::LinkKind;
use super::middle::{self, Wire, forget_paths, inside, namespace_for, run_line};
use crate::error::BenchError;
use crate::under_load::Point;

/// The device of each host, inside its namespace, by the nodes' order.
pub(crate) const DEVICES: [&str; 2] = ["or0", "or1"];
/// The other ends of the veth pairs, on the bridge.
const OUTER: [&str; 2] = ["br-a", "br-b"];

/// Two namespaces with a way between them. They vanish with their last user.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    /// One for each node, in the nodes' order.
    pub(crate) namespaces: [NetNamespace; 2],
    /// What is on the way; held, for it vanishes with its namespace.
    _middle: Option<NetNamespace>,
}

impl Hosts {
    /// Two hosts on the bridge of `wire`, without addresses. Each device on the way is made ready by `prepare`.
    pub(super) fn on_bridge(
        link: LinkKind,
        wire: &Wire,
        prepare: fn(&str) -> Result<(), BenchError>,
    ) -> Result<Self, BenchError> {
        let (middle, namespaces) = (namespace_for(link)?, [namespace_for(link)?, namespace_for(link)?]);
        inside(&middle, || {
            wire.make_bridge()?;
            let mut plugs = namespaces.iter().zip(OUTER).zip(DEVICES);
            plugs.try_for_each(|((host, outer), inner)| wire.plug(host, [outer, inner], prepare))
        })?;
        Hosts { namespaces, _middle: Some(middle) }.up()
    }

    /// Two hosts on one veth pair, without addresses; offloads as the system has them.
    fn on_veth(link: LinkKind) -> Result<Self, BenchError> {
        let namespaces = [namespace_for(link)?, namespace_for(link)?];
        let [near, far] = DEVICES;
        let path = namespaces[1].path();
        let pair = format!("ip link add {near} type veth peer name {far} netns {}", path.display());
        inside(&namespaces[0], || run_line(&pair))?;
        Hosts { namespaces, _middle: None }.up()
    }

    fn up(self) -> Result<Self, BenchError> {
        let mut ends = self.namespaces.iter().zip(DEVICES);
        ends.try_for_each(|(host, device)| inside(host, || run_line(&format!("ip link set {device} up"))))?;
        Ok(self)
    }

    /// The hosts of `--link kernel`.
    pub(super) fn of_kernel(point: &Point) -> Result<Self, BenchError> {
        if point.rate.0 > 0 || point.loss.0 > 0.0 {
            Hosts::on_bridge(point.link, &Wire::of(point), middle::offloads_off)
        } else {
            Hosts::on_veth(point.link)
        }
    }

    /// Makes them ready for kernel sockets: gives each its address, and refuses a congestion control that this kernel
    /// does not have.
    pub(super) fn settled(
        self,
        addresses: [(IpAddr, u8); 2],
        congestion: Algorithm,
    ) -> Result<Self, BenchError> {
        for ((namespace, device), (address, prefix)) in self.namespaces.iter().zip(DEVICES).zip(addresses) {
            inside(namespace, || {
                check_congestion(congestion)?;
                run_line(&format!("ip address add {address}/{prefix} dev {device} nodad"))?;
                forget_paths()
            })?;
        }
        Ok(self)
    }

    /// Frame bytes that have arrived at the second host.
    pub(crate) fn received_bytes(&self) -> u64 {
        let read = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        self.namespaces[1].run(read).ok().and_then(|table| received(&table)).unwrap_or(0)
    }
}

/// The first figure of the second device's line of `/proc/net/dev` (proc(5)).
fn received(table: &str) -> Option<u64> {
    let mut lines = table.lines().filter_map(|line| line.split_once(':'));
    let (_, figures) = lines.find(|(name, _)| name.trim() == DEVICES[1])?;
    figures.split_whitespace().next()?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_bytes_are_those_of_the_device() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n    lo: 99 1 0 0\n   or1: 1514 1 0 0 0\n";
        assert_eq!(received(table), Some(1514));
        assert_eq!(received("or0: 5 5"), None);
    }
}
