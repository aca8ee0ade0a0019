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
use serde_json::{Map, json};

use super::bridge::{self, Near, ROOM_BYTES, TCP_PORT, WARM_UP};
use super::flow::{Flow, Meter, Supply};
use super::kernel::{KernelEnd, Part};
use super::lab::{KernelCongestion, OURS, PEER, PREFIX, choose_congestion};
use super::result::ThroughputResult;
use crate::error::BenchError;
use crate::lab::middle::inside;
use crate::lab::{DEVICES, Lab};
use crate::node::{Addressing, spawn_polling_shard};
use crate::pingpong::Wait;
use crate::progress::Progress;
use crate::pump::{Direction, Pump};
use crate::runs::{Repeated, Session};
use crate::under_load::Point;

/// A full frame on the lab's MTU of 1500, and what it carries behind the headers of Ethernet, IPv4 and TCP with
/// timestamps.
const FRAME_BYTES: usize = 1514;
const FRAME_PAYLOAD_BYTES: usize = FRAME_BYTES - 14 - 20 - 32;

/// What is to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) point: Point,
    /// Ours, by turns.
    pub(crate) congestion: Vec<Algorithm>,
    /// How our shards wait for frames.
    pub(crate) wait: Wait,
    /// Of the kernel's ends.
    pub(crate) peer_congestion: KernelCongestion,
    pub(crate) length: Duration,
    pub(crate) seed: u64,
}

/// Who is at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Outrider(Algorithm),
    Raw,
    Kernel,
}

impl Variant {
    fn name(self) -> &'static str {
        match self {
            Variant::Outrider(_) => "outrider",
            Variant::Raw => "raw",
            Variant::Kernel => "kernel",
        }
    }
}

impl Plan {
    fn variants(&self) -> Vec<Variant> {
        let ours = self.congestion.iter().map(|algorithm| Variant::Outrider(*algorithm));
        ours.chain([Variant::Raw, Variant::Kernel]).collect()
    }

    /// How long one run of each takes, about.
    pub(crate) fn duration(&self) -> Duration {
        let runs = u32::try_from(self.variants().len()).unwrap_or(u32::MAX);
        (self.length + WARM_UP) * runs
    }
}

/// Measures all of it.
pub(crate) fn run(plan: &Plan, session: &mut Session) -> Result<Vec<Repeated<ThroughputResult>>, BenchError> {
    session.medians(&plan.variants(), |variant, turn, progress| {
        progress.set(format!("{}, run {turn}", variant.name()));
        let plan = Plan { seed: turn.seed(plan.seed), ..plan.clone() };
        match variant {
            Variant::Outrider(congestion) => plan.ours(*congestion, progress),
            Variant::Raw => plan.raw(progress),
            Variant::Kernel => plan.kernel(progress),
        }
    })
}

/// States the goodput in frames.
fn in_frames(result: ThroughputResult) -> ThroughputResult {
    let frames_per_second = result.goodput_bps / (FRAME_PAYLOAD_BYTES * 8) as f64;
    ThroughputResult { frames_per_second: Some(frames_per_second), ..result }
}

impl Plan {
    fn ours(&self, congestion: Algorithm, progress: &Progress) -> Result<ThroughputResult, BenchError> {
        let mut lab = Lab::of_ports(&self.point, self.seed)?;
        let (near, far) = lab.take_ports();
        let remote = SocketAddr::new(PEER, TCP_PORT);
        let received = Arc::new(Meter::default());
        let spawn = |port, address, seed| {
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
        for report in [near.stop(), Some(receiver.stop())] {
            if let Some(error) = report.and_then(|report| report.error) {
                return Err(BenchError::failed(error.to_string()));
            }
        }
        let key = [("congestion".to_owned(), json!(congestion.name()))];
        Ok(in_frames(found.result("outrider", key.into_iter().collect())))
    }

    fn raw(&self, progress: &Progress) -> Result<ThroughputResult, BenchError> {
        let pump =
            Pump { point: &self.point, frame_bytes: FRAME_BYTES, length: self.length, seed: self.seed };
        let pumped = pump.run(Direction::There)?;
        progress.advance(self.length + WARM_UP);
        let frames_per_second = pumped.received as f64 / pumped.seconds;
        let bytes = pumped.received * FRAME_PAYLOAD_BYTES as u64;
        let goodput_bps = frames_per_second * (FRAME_PAYLOAD_BYTES * 8) as f64;
        let stall_us = pumped.longest_stall.as_secs_f64() * 1e6;
        Ok(in_frames(ThroughputResult {
            cpu_ns_per_byte: (bytes > 0).then(|| pumped.cpu_seconds * 1e9 / bytes as f64),
            cpu_seconds: pumped.cpu_seconds,
            ..ThroughputResult::of_goodput("raw", Map::new(), goodput_bps, stall_us, pumped.seconds)
        }))
    }

    fn kernel(&self, progress: &Progress) -> Result<ThroughputResult, BenchError> {
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
        let key = [("peer_congestion".to_owned(), json!(self.peer_congestion.name()))];
        Ok(in_frames(found.result("kernel", key.into_iter().collect())))
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
