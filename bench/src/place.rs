//! Where a node is on the network: its port and its address, as options spell them.

use std::fmt;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrider_drivers::afxdp::AfXdp;
use outrider_drivers::capture::Capture;
use outrider_drivers::port::Port;
use outrider_drivers::tap::{Tap, TapOptions};
use outrider_stack::shard::segment::Publication;

use crate::afxdp_spec::AfXdpSpec;
use crate::error::{BenchError, one_line};
use crate::lab::need_root;
use crate::node::{Running, now};
use crate::pingpong::Wait;

/// Longest name of a network interface in bytes (IFNAMSIZ less the terminator).
const INTERFACE_NAME_MAX: usize = 15;
/// Bytes of each frame that a capture keeps: zero for all.
const WHOLE_FRAMES: usize = 0;

/// `--port`: what carries a node's frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortSpec {
    /// A TAP device, made if there is none of this name.
    Tap(TapSpec),
    /// A queue of an interface, by AF_XDP.
    AfXdp(AfXdpSpec),
}

/// A TAP device as options spell it: `NAME[:QUEUES][,plain]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TapSpec {
    name: String,
    /// How many, a shard each.
    queues: usize,
    /// Checksums and segmentation are left to the kernel where it can.
    offload: bool,
}

/// Shards of a node at most.
const TAP_QUEUES_MAX: usize = 64;

impl FromStr for TapSpec {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (place, offload) = match text.strip_suffix(",plain") {
            Some(place) => (place, false),
            None => (text, true),
        };
        let (name, queues) = place.split_once(':').unwrap_or((place, "1"));
        if !valid_interface(name) {
            return Err(ParseError(format!(
                "{name:?} is no interface name; give tap:NAME with 1 to {INTERFACE_NAME_MAX} letters, digits, - or _"
            )));
        }
        match queues.parse() {
            Ok(queues) if (1..=TAP_QUEUES_MAX).contains(&queues) => {
                Ok(TapSpec { name: name.to_owned(), queues, offload })
            }
            _ => Err(ParseError(format!(
                "{queues:?} is no number of queues; give tap:NAME:QUEUES with 1 to {TAP_QUEUES_MAX}"
            ))),
        }
    }
}

impl fmt::Display for TapSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tap:{}", self.name)?;
        if self.queues != 1 {
            write!(f, ":{}", self.queues)?;
        }
        if self.offload { Ok(()) } else { f.write_str(",plain") }
    }
}

/// Why an option could not be read; says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ParseError(pub(crate) String);

impl FromStr for PortSpec {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "tap" => rest.parse().map(PortSpec::Tap),
            "afxdp" => rest.parse().map(PortSpec::AfXdp),
            "memory" => Err(ParseError(
                "a memory port would have no peer; use tap:NAME or afxdp:IF, or the command demo".into(),
            )),
            _ => Err(ParseError("expected tap:NAME[:QUEUES] or afxdp:IF[:QUEUES]".into())),
        }
    }
}

pub(crate) fn valid_interface(name: &str) -> bool {
    (1..=INTERFACE_NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortSpec::Tap(spec) => write!(f, "{spec}"),
            PortSpec::AfXdp(spec) => write!(f, "{spec}"),
        }
    }
}

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    /// The address.
    pub(crate) address: IpAddr,
    /// Prefix length in bits.
    pub(crate) prefix: u8,
}

impl FromStr for Cidr {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wanted = || ParseError("expected an address with its prefix, such as 10.77.0.2/24".into());
        let (address, prefix) = text.split_once('/').ok_or_else(wanted)?;
        let address: IpAddr = address.parse().map_err(|_| wanted())?;
        let prefix: u8 = prefix.parse().map_err(|_| wanted())?;
        let longest = longest_prefix(address);
        if prefix > longest {
            return Err(ParseError(format!("prefix {prefix} is longer than {longest} bits")));
        }
        Ok(Cidr { address, prefix })
    }
}

fn longest_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// An address with its prefix, or alone: then it is a network of its own.
fn located(text: &str) -> Result<Cidr, ParseError> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(Cidr { address, prefix: longest_prefix(address) }),
        Err(_) => text.parse(),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

const PORT_HELP: &str = "What carries the frames: tap:NAME[:QUEUES][,plain] with a number of queues, plain being \
    without offloads; or afxdp:IF[:QUEUES][,MODE...] with queues such as 0 or 0-3, and modes shared (default) or \
    dedicated, native or generic, copy or zerocopy, busy";

/// Options of a node's place in the network.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Place {
    /// What carries the frames.
    #[arg(long, required_unless_present = "kernel", help = PORT_HELP)]
    pub(crate) port: Option<PortSpec>,
    /// Use this host's own TCP sockets instead of a port; needs no root
    #[arg(long, conflicts_with_all = ["port", "gateway", "host_address", "capture", "poll", "cores"])]
    pub(crate) kernel: bool,
    /// This node's address and prefix length; with --kernel one of this host's own, the prefix may be left out
    /// [default with --kernel: 0.0.0.0]
    #[arg(long, required_unless_present = "kernel", value_parser = located)]
    pub(crate) address: Option<Cidr>,
    /// Router to everything outside the prefix
    #[arg(long)]
    pub(crate) gateway: Option<IpAddr>,
    /// Address to give to the kernel's side of the device; without it, set that side up yourself
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) host_address: Option<Cidr>,
    /// Write every frame to this pcapng file
    #[arg(long, value_name = "FILE")]
    pub(crate) capture: Option<std::path::PathBuf>,
    /// What an idle shard does: busy looks without end and takes a core, adaptive looks for a moment and then sleeps
    #[arg(long, value_enum, default_value_t = Wait::Adaptive)]
    pub(crate) poll: Wait,
    /// Processors for the shards, one each, such as 2,3 [default: the scheduler chooses]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub(crate) cores: Vec<usize>,
    /// Publish statistics in this file for 'bench top' [default: one of its own where 'bench top' looks; off: nowhere]
    #[arg(long, value_name = "FILE")]
    pub(crate) statistics: Option<std::path::PathBuf>,
}

/// The file name that stands for none.
const OFF: &str = "off";

impl Place {
    /// Where the node is.
    pub(crate) fn address(&self) -> Cidr {
        self.address.unwrap_or(Cidr { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0 })
    }

    /// What carries the node, as results spell it.
    pub(crate) fn carrier(&self) -> String {
        self.port.as_ref().map_or_else(|| "kernel".to_owned(), PortSpec::to_string)
    }

    /// How the shards of the node `name` run.
    pub(crate) fn running(&self, name: &str) -> Running {
        let publication = match &self.statistics {
            Some(path) if path.as_os_str() == OFF => None,
            Some(path) => Some(Publication::new(name).at(path)),
            None => Some(Publication::new(name)),
        };
        Running { polling: self.poll.polling(), cores: self.cores.clone(), publication }
    }

    /// Opens the port, one of a queue each; `None` for the host's own sockets.
    pub(crate) fn open(&self, seed: u64) -> Result<Option<Vec<Box<dyn Port>>>, BenchError> {
        match &self.port {
            Some(port) => self.open_ports(port, seed).map(Some),
            None => Ok(None),
        }
    }

    fn open_ports(&self, port: &PortSpec, seed: u64) -> Result<Vec<Box<dyn Port>>, BenchError> {
        let place = self.address();
        if place.prefix == longest_prefix(place.address) && self.gateway.is_none() {
            return Err(BenchError::usage(format!(
                "--address {} has no prefix, so nobody could be reached; give it as {}/24 or so",
                place.address, place.address
            )));
        }
        match port {
            PortSpec::Tap(tap) => {
                need_root(
                    &format!("--port {port}"),
                    "--kernel uses the host's sockets, and 'bench demo' runs on an in-process cable",
                )?;
                let TapSpec { name, queues, offload } = tap;
                let options = TapOptions {
                    name: Some(name.clone()),
                    queues: *queues,
                    offload: *offload,
                    seed,
                    ..TapOptions::default()
                };
                let taps = Tap::open_queues(&options).map_err(|error| cannot_open(port, &error))?;
                self.finish(port, name, taps)
            }
            PortSpec::AfXdp(spec) => {
                // Not root but three capabilities: what lacks says so itself.
                let ports = AfXdp::open(&spec.interface, &spec.options(place.address));
                let ports = ports.map_err(|error| cannot_open(port, &error))?;
                for each in &ports {
                    eprintln!("{}", each.details());
                }
                self.finish(port, &spec.interface, ports)
            }
        }
    }

    /// Sets the kernel's side up and puts the capture around the port.
    fn finish(
        &self,
        spec: &PortSpec,
        interface: &str,
        ports: Vec<impl Port + 'static>,
    ) -> Result<Vec<Box<dyn Port>>, BenchError> {
        if let Some(address) = &self.host_address {
            run_ip(&["address", "replace", &address.to_string(), "dev", interface])?;
        }
        match &self.capture {
            Some(path) if ports.len() == 1 => ports.into_iter().map(|port| capture(port, path)).collect(),
            Some(_) => Err(BenchError::usage(format!("--capture takes one queue, and {spec} has several"))),
            None => Ok(ports.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect()),
        }
    }
}

fn cannot_open(port: &PortSpec, error: &dyn std::error::Error) -> BenchError {
    BenchError::failed(format!("cannot open {port}: {error}"))
}

fn capture(port: impl Port + 'static, path: &Path) -> Result<Box<dyn Port>, BenchError> {
    let file = File::create(path).map_err(|error| {
        BenchError::failed(format!(
            "cannot write the capture {}: {error}; choose another --capture",
            path.display()
        ))
    })?;
    // Stamps count from the boot of the host; tools show dates when they count from the Unix epoch.
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since_boot = Duration::from_nanos(now().as_nanos());
    let offset = since_epoch.saturating_sub(since_boot);
    let capture = Capture::new(port, file, WHOLE_FRAMES).with_epoch_offset(offset);
    Ok(Box::new(capture))
}

/// Runs iproute2's `ip`.
pub(crate) fn run_ip(arguments: &[&str]) -> Result<(), BenchError> {
    run_tool("ip", arguments, "iproute2")
}

/// Runs a tool of the system that comes in `package`; its error output becomes ours.
pub(crate) fn run_tool(tool: &str, arguments: &[&str], package: &str) -> Result<(), BenchError> {
    let line = || format!("{tool} {}", arguments.join(" "));
    let output = Command::new(tool).args(arguments).output().map_err(|error| {
        BenchError::failed(format!("cannot run '{}': {error}; install the package {package}", line()))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = one_line(&String::from_utf8_lossy(&output.stderr));
    Err(BenchError::failed(format!("'{}' failed: {said}", line())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_named_by_kind_and_interface() {
        for text in ["tap:or0", "tap:or0:4", "tap:or0,plain", "tap:or0:2,plain"] {
            assert_eq!(text.parse::<PortSpec>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "tap",
            "tap:",
            "tap:a/b",
            "tap:a b",
            "tap:sixteen-letters-",
            "tap:or0:0",
            "tap:or0:x",
            "tap:or0,fast",
            "memory",
            "afxdp:a/b",
            "eth0",
        ] {
            assert!(text.parse::<PortSpec>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_comes_with_its_prefix() {
        let cidr: Cidr = "10.77.0.2/24".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.77.0.2/24");
        assert_eq!("fd00::2/64".parse::<Cidr>().unwrap().prefix, 64);
        assert_eq!(located("10.77.0.2").unwrap().to_string(), "10.77.0.2/32");
        assert!(located("10.77.0.2/24").unwrap().prefix == 24 && located("host").is_err());
        for text in ["", "10.77.0.2", "10.77.0.2/33", "10.77.0/24", "fd00::/129", "10.77.0.2/x"] {
            assert!(text.parse::<Cidr>().is_err(), "{text:?}");
        }
    }
}
