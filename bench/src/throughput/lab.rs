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
use outrider_drivers::tap::Tap;

use crate::error::BenchError;
use crate::lab::middle::{self, Wire, forget_paths, inside, offloads_off, run_line};
use crate::lab::{LinkKind, tap};

pub(super) const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
pub(super) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
pub(super) const PREFIX: u8 = 24;
const NETWORK: &str = "10.77.0.0/24";
const OUR_DEVICE: &str = "or0";

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
        let create = || middle::namespace_for(LinkKind::Tap);
        let (middle, peer) = (create()?, create()?);
        let kernels: Vec<NetNamespace> = hosts.kernels.iter().map(|_| create()).collect::<Result<_, _>>()?;
        let tap = inside(&middle, || {
            wire.make_bridge()?;
            let tap = hosts.ours.map(|seed| tap::open(OUR_DEVICE, seed, false)).transpose()?;
            if tap.is_some() {
                wire.join(OUR_DEVICE)?;
            }
            // The first host takes our place where we are not there.
            for (number, (host, congestion)) in (1u8..).zip(kernels.iter().zip(hosts.kernels)) {
                let last = if number == 1 && tap.is_none() { 1 } else { number + 2 };
                let address = IpAddr::V4(Ipv4Addr::new(10, 77, 0, last));
                let devices = [&*format!("br-n{number}"), &*format!("kn{number}")];
                plug(wire, host, devices, address, *congestion)?;
            }
            plug(wire, &peer, ["br-b", "kb"], PEER, hosts.peer)?;
            Ok(tap)
        })?;
        Ok(Lab { _middle: middle, kernels, peer, tap })
    }
}

/// Joins `host` to the bridge, in whose namespace this runs, and gives it an address. The route chooses the congestion
/// control: the default of a namespace may be changed only to what the host allows everyone.
fn plug(
    wire: &Wire,
    host: &NetNamespace,
    [outer, inner]: [&str; 2],
    address: IpAddr,
    congestion: KernelCongestion,
) -> Result<(), BenchError> {
    wire.plug(host, [outer, inner], offloads_off)?;
    inside(host, || {
        run_line(&format!("ip address add {address}/{PREFIX} dev {inner}"))?;
        run_line(&format!("ip link set {inner} up"))?;
        choose_congestion(inner, address, congestion)
    })
}

/// Has connections of the kernel's over `device` be controlled by `congestion`. Runs inside its namespace.
pub(super) fn choose_congestion(
    device: &str,
    address: IpAddr,
    congestion: KernelCongestion,
) -> Result<(), BenchError> {
    let control = congestion.name();
    run_line(&format!("ip route change {NETWORK} dev {device} src {address} congctl {control}"))?;
    forget_paths()
}
