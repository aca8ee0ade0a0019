//! Real ports on real (virtual) interfaces: veth pairs between namespaces that the test makes. Need root.

mod errors;
mod filter;
mod lifetime;
mod modes;
mod shared;
mod traffic;

use core::time::Duration;
use std::process::Command;

use super::{AfXdp, AfXdpError, AfXdpOptions, AfXdpPort};
use crate::interface::set_transmit_checksum_offload;
use crate::netns::{self, NetNamespace};
use crate::port::{Port, PortError, TxOffload};
use crate::time::{Clock, Instant, MonotonicClock};

/// Longer than anything here takes on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two namespaces with a veth pair between them: `near0` in one, `far0` in the other.
struct Lab {
    near: NetNamespace,
    far: NetNamespace,
}

impl Lab {
    /// Both ends up, without addresses, so that nobody speaks unless spoken to. `None` (with a word) without root.
    fn new(queues: u32, mtu: usize) -> Option<Lab> {
        let (near, far) = (netns::for_test()?, netns::for_test()?);
        let lab = Lab { near, far };
        let end = |name: &str| format!("{name} mtu {mtu} numtxqueues {queues} numrxqueues {queues}");
        let line = format!("link add {} type veth peer name {}", end("near0"), end("far0"));
        lab.near(&line);
        let far = lab.far.path();
        let moved = lab.near.command("ip").args(["link", "set", "far0", "netns"]).arg(far).status().unwrap();
        assert!(moved.success());
        lab.near("link set near0 addrgenmode none up");
        lab.far("link set far0 addrgenmode none up");
        lab.near.run(|| set_transmit_checksum_offload("near0", false).unwrap()).unwrap();
        lab.far.run(|| set_transmit_checksum_offload("far0", false).unwrap()).unwrap();
        Some(lab)
    }

    fn near(&self, line: &str) {
        run(self.near.command("ip"), line);
    }

    fn far(&self, line: &str) {
        run(self.far.command("ip"), line);
    }

    fn open_near(&self, options: &AfXdpOptions) -> Result<Vec<AfXdpPort>, AfXdpError> {
        self.near.run(|| AfXdp::open("near0", options)).unwrap()
    }

    fn open_far(&self, options: &AfXdpOptions) -> Result<Vec<AfXdpPort>, AfXdpError> {
        self.far.run(|| AfXdp::open("far0", options)).unwrap()
    }

    /// One port at each end.
    fn pair(&self, options: &AfXdpOptions) -> (AfXdpPort, AfXdpPort) {
        let [near, far] =
            [self.open_near(options), self.open_far(options)].map(|ports| ports.unwrap().remove(0));
        (near, far)
    }
}

fn run(mut command: Command, line: &str) {
    let output = command.args(line.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn now() -> Instant {
    MonotonicClock.now()
}

/// Calls `step` until it says `true`; fails after [`PATIENCE`].
fn until(what: &str, mut step: impl FnMut() -> bool) {
    let start = now();
    while !step() {
        assert!(now() - start < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::yield_now();
    }
}

/// A frame of `length` bytes to everybody, of an ethertype for experiments, with a number and a pattern made of it.
fn numbered(number: u32, length: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.extend(number.to_be_bytes());
    frame.extend((frame.len()..length).map(|at| (at as u32).wrapping_mul(31).wrapping_add(number) as u8));
    frame
}

fn number_of(frame: &[u8]) -> Option<u32> {
    let rest = frame.strip_prefix(&[0xff; 6])?.get(6..)?.strip_prefix(&[0x88, 0xb5])?;
    Some(u32::from_be_bytes(*rest.first_chunk()?))
}

/// Hands `frame` over and rings; `false` if there was no room.
fn send(port: &mut AfXdpPort, frame: &[u8]) -> bool {
    let taken = port
        .transmit(now(), frame.len(), TxOffload::default(), &mut |buffer| {
            buffer.copy_from_slice(frame);
            frame.len()
        })
        .unwrap();
    port.flush(now()).unwrap();
    taken
}

/// What has arrived.
fn received(port: &mut AfXdpPort) -> Result<Vec<Vec<u8>>, PortError> {
    let mut frames = Vec::new();
    port.receive(now(), 64, &mut |frame| frames.push(frame.bytes.to_vec()))?;
    Ok(frames)
}

/// The next frame that satisfies `wanted`; others are skipped.
fn wait_for(port: &mut AfXdpPort, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut found = None;
    until(what, || {
        found = found.take().or_else(|| received(port).unwrap().into_iter().find(|frame| wanted(frame)));
        found.is_some()
    });
    found.expect("just found")
}
