//! Frames through the bare ports.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outrider_drivers::doorbell::poll_fds;
use outrider_drivers::port::{Port, PortError, TxOffload};
use outrider_drivers::time::Instant;

use super::{ANSWER_MAX, Plan, Rounds, Wait};
use crate::error::BenchError;
use crate::lab::Lab;
use crate::measure::Latencies;
use crate::node::{SPIN, now};

/// An ethertype for experiments (IEEE 802), so that no kernel on the way takes a frame for its own.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const ETHERNET_HEADER_BYTES: usize = 14;
const FRAME_BYTES_MIN: usize = 60;
/// A sleeper looks at whether it shall end this often.
const LOOK: Duration = Duration::from_millis(20);

/// One end: a port that knows its peer.
struct End {
    port: Box<dyn Port>,
    frame: Vec<u8>,
    wait: Wait,
}

pub(super) fn run(plan: &Plan<'_>) -> Result<Latencies, BenchError> {
    let mut lab = Lab::of_ports(plan.point, plan.seed)?;
    let (a, b) = lab.take_ports();
    let [mac_a, mac_b] = [a.info().mac, b.info().mac];
    let length = (ETHERNET_HEADER_BYTES + plan.bytes).max(FRAME_BYTES_MIN);
    let end = |port, to: [u8; 6], from: [u8; 6]| {
        let mut frame = [&to[..], &from, &ETHERTYPE].concat();
        frame.resize(length, 0x5a);
        End { port, frame, wait: plan.wait }
    };
    let (mut asking, mut answering) = (end(a, mac_b, mac_a), end(b, mac_a, mac_b));
    let stop = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let answers = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if answering.await_frame(now() + LOOK)? {
                    answering.send()?;
                }
            }
            Ok::<_, PortError>(())
        });
        let asked = ask(&mut asking, plan.length);
        stop.store(true, Ordering::Relaxed);
        let answered = answers.join().expect("answering does not panic");
        asked.and_then(|rounds| answered.map(|()| rounds))
    });
    match asked.map_err(|error| BenchError::failed(error.to_string()))? {
        Some(rounds) => Ok(rounds.latencies),
        None => Err(BenchError::failed(format!("no answer within {ANSWER_MAX:?}: a frame was lost"))),
    }
}

/// Rounds until the time is over; `None` if an answer fails to come.
fn ask(end: &mut End, length: Duration) -> Result<Option<Rounds>, PortError> {
    let mut rounds = Rounds::start(length);
    loop {
        let began = now();
        end.send()?;
        if !end.await_frame(began + ANSWER_MAX)? {
            return Ok(None);
        }
        if !rounds.record(began, now()) {
            return Ok(Some(rounds));
        }
    }
}

impl End {
    fn send(&mut self) -> Result<(), PortError> {
        let frame = &self.frame;
        let mut fill = |buffer: &mut [u8]| {
            buffer.copy_from_slice(frame);
            frame.len()
        };
        while !self.port.transmit(now(), frame.len(), TxOffload::default(), &mut fill)? {
            self.port.transmit_room(now());
        }
        self.port.flush(now())
    }

    /// Waits for the peer's frame, until `deadline` at most.
    fn await_frame(&mut self, deadline: Instant) -> Result<bool, PortError> {
        let began = now();
        loop {
            let mut found = false;
            let at = now();
            let frames = self.port.receive(at, 16, &mut |frame| {
                found |= frame.bytes.get(12..14) == Some(&ETHERTYPE);
            })?;
            if found || at >= deadline {
                return Ok(found);
            }
            if frames > 0 {
                continue;
            }
            if self.wait == Wait::Busy || at - began < SPIN {
                std::thread::yield_now();
                continue;
            }
            let next = self.port.next_arrival(at).map_or(deadline, |next| next.min(deadline));
            let fds: Vec<_> = self.port.readiness().into_iter().collect();
            poll_fds(&fds, Some(next - at)).map_err(|source| PortError::Io {
                port: self.port.info().name.clone(),
                operation: "waiting for the port",
                source,
            })?;
        }
    }
}
