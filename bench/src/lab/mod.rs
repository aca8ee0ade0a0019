//! Labs: two ports, or two hosts of the kernel's own, and the link between them, taken down when dropped.

pub(crate) mod afxdp;
mod hosts;
mod memory;
pub(crate) mod middle;
pub(crate) mod tap;

use std::any::Any;
use std::net::IpAddr;

use clap::ValueEnum;
use outrider_drivers::port::Port;

pub(crate) use self::hosts::{DEVICES, Hosts};
use crate::error::BenchError;
use crate::host::is_root;
use crate::under_load::Point;

/// What carries frames between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LinkKind {
    /// The in-process cable, in real time; needs no root.
    Memory,
    /// Two TAP devices on a bridge in a private network namespace.
    Tap,
    /// AF_XDP on veth pairs.
    Afxdp,
    /// The kernel's own sockets.
    Kernel,
}

impl LinkKind {
    /// As options and results spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LinkKind::Memory => "memory",
            LinkKind::Tap => "tap",
            LinkKind::Afxdp => "afxdp",
            LinkKind::Kernel => "kernel",
        }
    }

    /// Refuses what this link cannot do.
    pub(crate) fn check(self, point: &Point) -> Result<(), BenchError> {
        match self {
            LinkKind::Memory => memory::check(point),
            LinkKind::Tap | LinkKind::Kernel | LinkKind::Afxdp => middle::check(point),
        }
    }
}

/// Two ports with a link between them, or two hosts.
pub(crate) struct Lab {
    hosts: Option<Hosts>,
    ports: Option<(Box<dyn Port>, Box<dyn Port>)>,
    /// What the link is made of besides the ports.
    _held: Box<dyn Any + Send>,
}

impl Lab {
    /// Builds the link of `point`. Where the hosts are the kernel's they get `addresses`.
    pub(crate) fn build(point: &Point, seed: u64, addresses: [(IpAddr, u8); 2]) -> Result<Self, BenchError> {
        match point.link {
            LinkKind::Kernel => Lab::between_hosts(point, addresses),
            _ => Lab::of_ports(point, seed),
        }
    }

    /// Builds the link of `point` with a port at each end.
    pub(crate) fn of_ports(point: &Point, seed: u64) -> Result<Self, BenchError> {
        point.link.check(point)?;
        match point.link {
            LinkKind::Memory => Ok(memory::build(point, seed)),
            LinkKind::Tap => tap::build(point, seed, false),
            LinkKind::Afxdp => afxdp::build(point),
            LinkKind::Kernel => {
                Err(BenchError::usage("--link kernel has no ports; memory, tap and afxdp have"))
            }
        }
    }

    /// Builds the link of `point`, which is of TAPs, with segmentation and checksum offload or without. Elsewhere a
    /// lab of TAPs has none: it shapes and loses single frames.
    pub(crate) fn of_taps(point: &Point, seed: u64, offload: bool) -> Result<Self, BenchError> {
        point.link.check(point)?;
        tap::build(point, seed, offload)
    }

    /// Builds the link of `point` with hosts of the kernel's at its ends, which get `addresses`.
    pub(crate) fn between_hosts(point: &Point, addresses: [(IpAddr, u8); 2]) -> Result<Self, BenchError> {
        point.link.check(point)?;
        let hosts = match point.link {
            LinkKind::Afxdp => afxdp::hosts(point)?,
            LinkKind::Kernel => {
                need_root("--link kernel", "--link memory shows the same over Outrider's own TCP")?;
                Hosts::of_kernel(point)?
            }
            other => {
                return Err(BenchError::usage(format!(
                    "--link {} has no kernel sockets at its ends; kernel and afxdp have",
                    other.name()
                )));
            }
        };
        let hosts = hosts.settled(addresses, point.congestion)?;
        Ok(Lab { hosts: Some(hosts), ports: None, _held: Box::new(()) })
    }

    /// Of two ports, and whatever has to live as long as they do.
    fn new(a: impl Port + 'static, b: impl Port + 'static, held: impl Any + Send) -> Self {
        Lab { hosts: None, ports: Some((Box::new(a), Box::new(b))), _held: Box::new(held) }
    }

    /// The hosts, if there are any: then nodes use the kernel's sockets in them.
    pub(crate) fn hosts(&self) -> Option<&Hosts> {
        self.hosts.as_ref()
    }

    /// Puts something in front of each port, if this lab has ports.
    pub(crate) fn wrap_ports(&mut self, mut wrap: impl FnMut(Box<dyn Port>) -> Box<dyn Port>) {
        self.ports = self.ports.take().map(|(a, b)| (wrap(a), wrap(b)));
    }

    /// The ports; each goes to a shard.
    ///
    /// # Panics
    /// When taken twice, or of a lab of hosts.
    pub(crate) fn take_ports(&mut self) -> (Box<dyn Port>, Box<dyn Port>) {
        self.ports.take().expect("the ports of a lab that has some are taken once")
    }
}

/// Refuses `what` without root; names what works without.
pub(crate) fn need_root(what: &str, instead: &str) -> Result<(), BenchError> {
    if is_root() {
        return Ok(());
    }
    Err(BenchError::failed(format!("{what} needs root (network administration); without it {instead}")))
}
