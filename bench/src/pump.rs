//! Frames through the bare port, as fast as it takes them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use outrider_drivers::port::{Port, PortError, TxOffload};

use crate::error::BenchError;
use crate::host::cpu_seconds;
use crate::lab::Lab;
use crate::node::now;
use crate::stop;
use crate::under_load::Point;

/// Time for queues to fill before anything counts.
pub(crate) const WARM_UP: Duration = Duration::from_millis(200);
/// Frames between two doorbells at most.
const BURST_FRAMES: usize = 64;
/// An ethertype for experiments (IEEE 802), so that no kernel on the way takes a frame for its own.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    There,
    Back,
    Both,
}

/// One run.
pub(crate) struct Pump<'a> {
    pub(crate) point: &'a Point,
    /// Of each frame, Ethernet header included.
    pub(crate) frame_bytes: usize,
    pub(crate) length: Duration,
    pub(crate) seed: u64,
}

/// What all threads of a run share.
#[derive(Default)]
struct Counts {
    /// Frames count from here on.
    measuring: AtomicBool,
    stop: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
    longest_stall_nanos: AtomicU64,
}

/// What came of it.
pub(crate) struct Pumped {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Longest time in which nothing arrived, at the end that receives or at the worse of both.
    pub(crate) longest_stall: Duration,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    /// Names of the ports.
    pub(crate) ports: [String; 2],
}

impl Pump<'_> {
    /// Builds the link and pumps.
    pub(crate) fn run(&self, direction: Direction) -> Result<Pumped, BenchError> {
        let mut lab = Lab::of_ports(self.point, self.seed)?;
        let (a, b) = lab.take_ports();
        let ports = [a.info().name.clone(), b.info().name.clone()];
        let (to_b, to_a) = (self.frame(&*a, &*b), self.frame(&*b, &*a));
        let counts = Counts::default();
        let (sends_a, sends_b) = (direction != Direction::Back, direction != Direction::There);
        let (seconds, cpu_seconds) = std::thread::scope(|scope| {
            let ends = [(a, sends_a.then_some(to_b)), (b, sends_b.then_some(to_a))].map(|(port, frame)| {
                let counts = &counts;
                scope.spawn(move || pump(port, frame.as_deref(), counts))
            });
            // The ends are stopped whether or not a signal comes meanwhile.
            let warm = stop::sleep(WARM_UP);
            let (began, cpu) = (now(), cpu_seconds());
            counts.measuring.store(true, Ordering::SeqCst);
            let passed = warm.and_then(|()| stop::sleep(self.length));
            counts.measuring.store(false, Ordering::SeqCst);
            let measured = ((now() - began).as_secs_f64(), cpu_seconds() - cpu);
            counts.stop.store(true, Ordering::SeqCst);
            for end in ends {
                match end.join().expect("pumping does not panic") {
                    // The other end of a cable may be gone first.
                    Ok(()) | Err(PortError::Gone { .. }) => {}
                    Err(error) => return Err(BenchError::failed(error.to_string())),
                }
            }
            passed.map(|()| measured)
        })?;
        let Counts { sent, received, longest_stall_nanos, .. } = counts;
        let longest_stall = Duration::from_nanos(longest_stall_nanos.into_inner());
        let (sent, received) = (sent.into_inner(), received.into_inner());
        Ok(Pumped { sent, received, longest_stall, seconds, cpu_seconds, ports })
    }

    fn frame(&self, from: &dyn Port, to: &dyn Port) -> Vec<u8> {
        let mut frame = [&to.info().mac[..], &from.info().mac, &ETHERTYPE].concat();
        frame.resize(self.frame_bytes, 0x5a);
        frame
    }
}

/// Sends `frame` without end, if there is one, and counts what arrives.
fn pump(mut port: Box<dyn Port>, frame: Option<&[u8]>, counts: &Counts) -> Result<(), PortError> {
    let mut last_arrival = None;
    while !counts.stop.load(Ordering::Relaxed) {
        let mut sent = 0;
        if let Some(frame) = frame {
            let room = port.transmit_room(now()).frames.min(BURST_FRAMES);
            while sent < room
                && port.transmit(now(), frame.len(), TxOffload::default(), &mut |buffer| {
                    buffer.copy_from_slice(frame);
                    frame.len()
                })?
            {
                sent += 1;
            }
            port.flush(now())?;
        }
        let mut received = 0;
        port.receive(now(), BURST_FRAMES, &mut |frame| {
            received += u64::from(frame.bytes[12..14] == ETHERTYPE);
        })?;
        if counts.measuring.load(Ordering::Relaxed) {
            if received > 0 {
                let at = now();
                let gap = last_arrival.replace(at).map_or(Duration::ZERO, |last| at - last);
                let nanos = u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX);
                counts.longest_stall_nanos.fetch_max(nanos, Ordering::Relaxed);
            }
            counts.sent.fetch_add(sent as u64, Ordering::Relaxed);
            counts.received.fetch_add(received, Ordering::Relaxed);
        }
        if sent == 0 && received == 0 {
            std::thread::yield_now();
        }
    }
    Ok(())
}
