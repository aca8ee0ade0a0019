//! Two TAP devices of this process on a bridge in a private network namespace. The kernel shapes and loses frames on
//! the way: a token bucket on what it sends to each device, a random drop on what the bridge forwards.

use outrider_drivers::netns::{NetNamespace, NetnsError};
use outrider_drivers::tap::{Tap, TapOptions};
use outrider_stack::tcp::congestion::Algorithm;

use super::{Lab, need_root};
use crate::error::BenchError;
use crate::place::run_tool;
use crate::under_load::Point;

/// The devices, by the nodes' order.
const DEVICES: [&str; 2] = ["or0", "or1"];
const BRIDGE: &str = "orbr";
/// Bucket of the shaper: at 1 Gbit/s a quarter of a millisecond, and above the MTU at any rate.
const BURST: &str = "32kb";
/// Drops are drawn out of this many.
const LOSS_STEPS: f64 = 1_000_000.0;

/// Refuses what this lab cannot do.
pub(super) fn check(point: &Point) -> Result<(), BenchError> {
    if !point.delay.0.is_zero() {
        return Err(BenchError::usage(format!(
            "--delay {} cannot be made over {} (that takes the kernel's netem); use --link memory, or --delay 0",
            point.delay,
            point.link.name()
        )));
    }
    if point.congestion == Algorithm::Dctcp {
        return Err(BenchError::usage(format!(
            "--congestion dctcp needs a link that marks, and the shaper of {} does not; use --link memory",
            point.link.name()
        )));
    }
    Ok(())
}

/// Builds it. It vanishes with the devices and the namespace.
pub(super) fn build(point: &Point, seed: u64, offload: bool) -> Result<Lab, BenchError> {
    need_root("--link tap", "--link memory shows the same")?;
    let namespace = NetNamespace::create().map_err(|error| unable(&error))?;
    let made = namespace.run(|| {
        let taps = [open(DEVICES[0], seed, offload)?, open(DEVICES[1], seed.wrapping_add(1), offload)?];
        join(DEVICES, point)?;
        Ok::<_, BenchError>(taps)
    });
    let [a, b] = made.map_err(|error| unable(&error))??;
    Ok(Lab::new(a, b, namespace))
}

fn unable(error: &NetnsError) -> BenchError {
    BenchError::failed(format!("no network namespace for --link tap: {error}; --link memory needs none"))
}

fn open(name: &str, seed: u64, offload: bool) -> Result<Tap, BenchError> {
    let options = TapOptions { name: Some(name.to_owned()), seed, offload, ..TapOptions::default() };
    Tap::open(&options)
        .map_err(|error| BenchError::failed(format!("cannot open the TAP device {name}: {error}")))
}

/// Joins devices by a bridge that shapes and loses as `point` says. Runs inside the namespace.
pub(super) fn join(devices: [&str; 2], point: &Point) -> Result<(), BenchError> {
    let ip = |line: &str| run_words("ip", line, "iproute2");
    ip(&format!("link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"))?;
    for device in devices {
        ip(&format!("link set {device} master {BRIDGE} up"))?;
    }
    ip(&format!("link set {BRIDGE} up"))?;
    if point.rate.0 > 0 {
        for device in devices {
            let shaper = format!("rate {}bit burst {BURST} limit {}", point.rate.0, point.queue.0);
            run_words("tc", &format!("qdisc add dev {device} root tbf {shaper}"), "iproute2")?;
        }
    }
    if point.loss.0 > 0.0 {
        let nft = |line: &str| run_words("nft", line, "nftables");
        let dropped = (point.loss.0 * LOSS_STEPS).round();
        nft("add table bridge lab")?;
        nft("add chain bridge lab forward { type filter hook forward priority 0 ; }")?;
        nft(&format!("add rule bridge lab forward numgen random mod {LOSS_STEPS} < {dropped} drop"))?;
    }
    Ok(())
}

pub(super) fn run_words(tool: &str, line: &str, package: &str) -> Result<(), BenchError> {
    run_tool(tool, &line.split_whitespace().collect::<Vec<_>>(), package)
}
