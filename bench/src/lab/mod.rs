//! Labs: two ports and the link between them, taken down when dropped.

pub(crate) mod afxdp;
mod memory;
mod tap;

use std::any::Any;

use clap::ValueEnum;
use outrider_drivers::port::Port;

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
            LinkKind::Tap => tap::check(point),
            LinkKind::Afxdp => tap::check(point),
            LinkKind::Kernel => Err(BenchError::usage(format!(
                "--link {} is not available yet; memory, tap and afxdp are",
                self.name()
            ))),
        }
    }
}

/// Two ports with a link between them.
pub(crate) struct Lab {
    ports: Option<(Box<dyn Port>, Box<dyn Port>)>,
    /// What the link is made of besides the ports.
    _held: Box<dyn Any + Send>,
}

impl Lab {
    /// Builds the link of `point`.
    pub(crate) fn build(point: &Point, seed: u64) -> Result<Self, BenchError> {
        point.link.check(point)?;
        match point.link {
            LinkKind::Tap => tap::build(point, seed),
            LinkKind::Afxdp => afxdp::build(point),
            _ => Ok(memory::build(point, seed)),
        }
    }

    /// Of two ports, and whatever has to live as long as they do.
    fn new(a: impl Port + 'static, b: impl Port + 'static, held: impl Any + Send) -> Self {
        Lab { ports: Some((Box::new(a), Box::new(b))), _held: Box::new(held) }
    }

    /// The ports; each goes to a shard.
    ///
    /// # Panics
    /// When taken twice.
    pub(crate) fn take_ports(&mut self) -> (Box<dyn Port>, Box<dyn Port>) {
        self.ports.take().expect("the ports of a lab are taken once")
    }
}

/// Refuses `what` without root; names what works without.
pub(crate) fn need_root(what: &str, instead: &str) -> Result<(), BenchError> {
    if is_root() {
        return Ok(());
    }
    Err(BenchError::failed(format!("{what} needs root (network administration); without it {instead}")))
}
