//! Where a node is on the network: its port and its address, as options spell them.

use std::fmt;
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrider_drivers::capture::Capture;
use outrider_drivers::port::Port;
use outrider_drivers::tap::{Tap, TapOptions};

use crate::error::{BenchError, one_line};
use crate::lab::need_root;
use crate::node::now;

/// Longest name of a network interface in bytes (IFNAMSIZ less the terminator).
const INTERFACE_NAME_MAX: usize = 15;
/// Bytes of each frame that a capture keeps: zero for all.
const WHOLE_FRAMES: usize = 0;

/// `--port`: what carries a node's frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortSpec {
    /// A TAP device, made if there is none of this name.
    Tap(String),
}

/// Why an option could not be read; says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ParseError(String);

impl FromStr for PortSpec {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "tap" if valid_interface(rest) => Ok(PortSpec::Tap(rest.to_owned())),
            "tap" => Err(ParseError(format!(
                "{rest:?} is no interface name; give tap:NAME with 1 to {INTERFACE_NAME_MAX} letters, digits, - or _"
            ))),
            "afxdp" => Err(ParseError("afxdp ports are not available yet; tap:NAME is".into())),
            "memory" => {
                Err(ParseError("a memory port would have no peer; use tap:NAME, or the command demo".into()))
            }
            _ => Err(ParseError("expected tap:NAME".into())),
        }
    }
}

fn valid_interface(name: &str) -> bool {
    (1..=INTERFACE_NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortSpec::Tap(name) = self;
        write!(f, "tap:{name}")
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
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest {
            return Err(ParseError(format!("prefix {prefix} is longer than {longest} bits")));
        }
        Ok(Cidr { address, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Options of a node's place in the network.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Place {
    /// What carries the frames: tap:NAME
    #[arg(long)]
    pub(crate) port: PortSpec,
    /// This node's address and prefix length
    #[arg(long)]
    pub(crate) address: Cidr,
    /// Router to everything outside the prefix
    #[arg(long)]
    pub(crate) gateway: Option<IpAddr>,
    /// Address to give to the kernel's side of the TAP device; without it, set that side up yourself
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) host_address: Option<Cidr>,
    /// Write every frame to this pcapng file
    #[arg(long, value_name = "FILE")]
    pub(crate) capture: Option<std::path::PathBuf>,
}

impl Place {
    /// Opens the port.
    pub(crate) fn open(&self, seed: u64) -> Result<Box<dyn Port>, BenchError> {
        need_root(&format!("--port {}", self.port), "'bench demo' runs on an in-process cable")?;
        let PortSpec::Tap(name) = &self.port;
        let options = TapOptions { name: Some(name.clone()), offload: true, seed, ..TapOptions::default() };
        let tap = Tap::open(&options)
            .map_err(|error| BenchError::failed(format!("cannot open {}: {error}", self.port)))?;
        if let Some(address) = &self.host_address {
            run_ip(&["address", "replace", &address.to_string(), "dev", name])?;
        }
        match &self.capture {
            Some(path) => capture(tap, path),
            None => Ok(Box::new(tap)),
        }
    }
}

fn capture(tap: Tap, path: &Path) -> Result<Box<dyn Port>, BenchError> {
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
    let capture = Capture::new(tap, file, WHOLE_FRAMES).with_epoch_offset(offset);
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
        assert_eq!("tap:or0".parse(), Ok(PortSpec::Tap("or0".into())));
        for text in
            ["", "tap", "tap:", "tap:a/b", "tap:a b", "tap:sixteen-letters-", "memory", "afxdp:eth0", "eth0"]
        {
            assert!(text.parse::<PortSpec>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_comes_with_its_prefix() {
        let cidr: Cidr = "10.77.0.2/24".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.77.0.2/24");
        assert_eq!("fd00::2/64".parse::<Cidr>().unwrap().prefix, 64);
        for text in ["", "10.77.0.2", "10.77.0.2/33", "10.77.0/24", "fd00::/129", "10.77.0.2/x"] {
            assert!(text.parse::<Cidr>().is_err(), "{text:?}");
        }
    }
}
