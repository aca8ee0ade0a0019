//! Bulk over AF_XDP: our stack at both ends, beside the bare ports and the kernel's TCP at both ends of the same lab.
//!
//! All three have one thread that sends and one that receives, on a lab of their own each, and take turns. What is
//! compared is frames that arrive at the far end in a second: for the bare ports frames of [`FRAME_BYTES`], for either
//! TCP its goodput in units of what such a frame carries. Acknowledgements, which go the other way, do not count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrider_stack::net::ListenOptions;
use outrider_stack::shard::{ListenerGuard, Shard};
use outrider_stack::tcp::congestion::Algorithm;
use serde_json::Map;

use super::bridge::{self, Near, ROOM_BYTES, TCP_PORT, WARM_UP};
use super::flow::{Flow, Meter, Supply};
use super::kernel::{KernelEnd, Part};
use super::lab::{KernelCongestion, OURS, PEER, PREFIX, choose_congestion};
use super::result::{ThroughputResult, median_of};
use crate::error::BenchError;
use crate::lab::middle::inside;
use crate::lab::{DEVICES, Lab};
use crate::node::{Addressing, spawn_polling_shard};
use crate::pingpong::Wait;
use crate::progress::Progress;
use crate::pump::{Direction, Pump};
use crate::under_load::Point;

/// A full frame on the lab's MTU of 1500, and what it carries behind the headers of Ethernet, IPv4 and TCP with
/// timestamps.
const FRAME_BYTES: usize = 1514;
const FRAME_PAYLOAD_BYTES: usize = FRAME_BYTES - 14 - 20 - 32;

/// What is to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) point: Point,
    /// How our shards wait for frames.
    pub(crate) wait: Wait,
    /// Of the kernel's ends.
    pub(crate) peer_congestion: KernelCongestion,
    pub(crate) length: Duration,
    /// Runs of each variant.
    pub(crate) repeat: u32,
    pub(crate) seed: u64,
}

/// Who is at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Outrider,
    Raw,
    Kernel,
}

const VARIANTS: [(Variant, &str); 3] =
    [(Variant::Outrider, "outrider"), (Variant::Raw, "raw"), (Variant::Kernel, "kernel")];

impl Plan {
    /// How long it takes, about.
    pub(crate) fn duration(&self) -> Duration {
        let runs = VARIANTS.len() as u32 * self.repeat;
        (self.length + WARM_UP) * runs
    }

    /// Our congestion control.
    pub(crate) fn congestion(&self) -> Algorithm {
        self.point.congestion
    }
}

/// Measures all of it: the variants by turns, each round in another order.
pub(crate) fn run(plan: &Plan, progress: &Progress) -> Result<Vec<ThroughputResult>, BenchError> {
    let mut runs = VARIANTS.map(|_| Vec::new());
    for turn in 0..plan.repeat {
        for place in 0..VARIANTS.len() {
            let index = (place + turn as usize) % VARIANTS.len();
            let (variant, name) = VARIANTS[index];
            progress.set(format!("{name}, run {} of {}", turn + 1, plan.repeat));
            let result = match variant {
                Variant::Outrider => plan.ours(name, progress),
                Variant::Raw => plan.raw(name, progress),
                Variant::Kernel => plan.kernel(name, progress),
            };
            runs[index].push(result?);
        }
    }
    Ok(runs.into_iter().filter_map(median_of).collect())
}

/// States the goodput of a TCP in frames.
fn in_frames(result: ThroughputResult) -> ThroughputResult {
    let frames_per_second = result.goodput_bps / (FRAME_PAYLOAD_BYTES * 8) as f64;
    ThroughputResult { frames_per_second: Some(frames_per_second), ..result }
}

impl Plan {
    fn ours(&self, name: &'static str, progress: &Progress) -> Result<ThroughputResult, BenchError> {
        let mut lab = Lab::of_ports(&self.point, self.seed)?;
        let (near, far) = lab.take_ports();
        let remote = SocketAddr::new(PEER, TCP_PORT);
        let received = Arc::new(Meter::default());
        let spawn = |port, address, seed| {
            let congestion = self.congestion();
            let addressing = Addressing { address: (address, PREFIX), gateway: None, congestion, seed };
            spawn_polling_shard(port, &addressing, self.wait.polling())
        };
        let receiver = spawn(far, PEER, self.seed.wrapping_add(1))?;
        let sender = spawn(near, OURS, self.seed)?;
        let listening = listen(&receiver, remote, &received)?;
        let flow = Flow { supply: Supply::Endless, meter: Arc::default(), room_bytes: ROOM_BYTES };
        sender
            .handle()
            .connect(remote, Box::new(flow))
            .map_err(|error| BenchError::failed(format!("cannot connect to {remote}: {error}")))?;
        let near = Near::Ours(sender);
        let found = bridge::measure(self.length, &received, &near, progress)?;
        drop(listening);
        let Near::Ours(sender) = near else { unreachable!("it was made so above") };
        for report in [sender.stop(), receiver.stop()] {
            if let Some(error) = report.error {
                return Err(BenchError::failed(error.to_string()));
            }
        }
        Ok(in_frames(found.result(name, Map::new())))
    }

    fn raw(&self, name: &'static str, progress: &Progress) -> Result<ThroughputResult, BenchError> {
        let pump =
            Pump { point: &self.point, frame_bytes: FRAME_BYTES, length: self.length, seed: self.seed };
        let pumped = pump.run(Direction::There)?;
        progress.advance(self.length + WARM_UP);
        let frames_per_second = pumped.received as f64 / pumped.seconds;
        let bytes = pumped.received * FRAME_PAYLOAD_BYTES as u64;
        Ok(ThroughputResult {
            variant: name,
            point: Map::new(),
            goodput_bps: frames_per_second * (FRAME_PAYLOAD_BYTES * 8) as f64,
            frames_per_second: Some(frames_per_second),
            cpu_ns_per_byte: (bytes > 0).then(|| pumped.cpu_seconds * 1e9 / bytes as f64),
            cpu_ns_per_segment: None,
            longest_stall_us: pumped.longest_stall.as_secs_f64() * 1e6,
            cpu_seconds: pumped.cpu_seconds,
            seconds: pumped.seconds,
            segments: None,
            retransmits: None,
            queue_drops: None,
            runs: None,
            fairness: None,
        })
    }

    fn kernel(&self, name: &'static str, progress: &Progress) -> Result<ThroughputResult, BenchError> {
        let addresses = [(OURS, PREFIX), (PEER, PREFIX)];
        let lab = Lab::between_hosts(&self.point, addresses)?;
        let hosts = lab.hosts().expect("a lab between hosts has them");
        for ((host, device), (address, _)) in hosts.namespaces.iter().zip(DEVICES).zip(addresses) {
            inside(host, || choose_congestion(device, address, self.peer_congestion))?;
        }
        let [near, far] = &hosts.namespaces;
        let remote = SocketAddr::new(PEER, TCP_PORT);
        let received = Arc::new(Meter::default());
        let receiver = KernelEnd::listen(far, remote, Part::Receive, &received)?;
        let sender = KernelEnd::connect(near, remote, Part::Send, &Arc::default())?;
        let found = bridge::measure(self.length, &received, &Near::Kernel(sender), progress)?;
        receiver.finish()?;
        Ok(in_frames(found.result(name, Map::new())))
    }
}

/// Has `shard` take connections at `address` and count what arrives on them.
fn listen(shard: &Shard, address: SocketAddr, meter: &Arc<Meter>) -> Result<ListenerGuard, BenchError> {
    let flow = Flow { supply: Supply::None, meter: Arc::clone(meter), room_bytes: ROOM_BYTES };
    shard
        .handle()
        .listen(address, ListenOptions::default(), Box::new(flow))
        .map_err(|error| BenchError::failed(format!("cannot listen on {address}: {error}")))
}
