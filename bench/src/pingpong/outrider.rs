//! Our TCP over the ports: both ends are endpoints that run on their shards.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use outrider_drivers::port::PortError;
use outrider_drivers::time::Instant;
use outrider_stack::endpoint::{Endpoint, Established};
use outrider_stack::net::ListenOptions;
use outrider_stack::stream::echo::EchoAcceptor;
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::{
    AckUrgency, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault,
};

use super::{ANSWER_MAX, Plan, Rounds, WARM_UP};
use crate::error::BenchError;
use crate::lab::Lab;
use crate::measure::Latencies;
use crate::node::{Addressing, now, spawn_polling_shard};

const PREFIX: u8 = 24;
const ASKING: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
const ANSWERING: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
/// Of the echo service (RFC 862).
const PORT: u16 = 7;
/// Bytes either end is always ready to take.
const ROOM_BYTES: usize = 1 << 20;

pub(super) fn run(plan: &Plan<'_>) -> Result<Latencies, BenchError> {
    let mut lab = Lab::of_ports(plan.point, plan.seed)?;
    let (a, b) = lab.take_ports();
    let polling = plan.wait.polling();
    let congestion = plan.point.congestion;
    let addressing =
        |address, seed| Addressing { address: (address, PREFIX), gateway: None, congestion, seed };
    let answering = spawn_polling_shard(b, &addressing(ANSWERING, plan.seed.wrapping_add(1)), polling)?;
    let asking = spawn_polling_shard(a, &addressing(ASKING, plan.seed), polling)?;
    let address = SocketAddr::new(ANSWERING, PORT);
    let echo = Box::new(EchoAcceptor { ring_bytes: ROOM_BYTES });
    let listening = answering
        .handle()
        .listen(address, ListenOptions::default(), echo)
        .map_err(|error| BenchError::failed(format!("cannot listen on {address}: {error}")))?;
    let (done, rounds) = channel();
    let asker = Asker::new(plan.bytes, plan.length, done);
    asking
        .handle()
        .connect(address, Box::new(asker))
        .map_err(|error| BenchError::failed(format!("cannot connect to {address}: {error}")))?;
    let rounds = rounds.recv_timeout(WARM_UP + plan.length + ANSWER_MAX);
    drop(listening);
    if let Some(error) = asking.stop().error {
        return Err(BenchError::failed(error.to_string()));
    }
    match answering.stop().error {
        // The other end of a cable goes with the first.
        None | Some(PortError::Gone { .. }) => {}
        Some(error) => return Err(BenchError::failed(error.to_string())),
    }
    let rounds = rounds.map_err(|_| BenchError::failed(format!("{address} does not answer")))?;
    Ok(rounds.latencies)
}

/// Sends some bytes, waits until as many are back, and again.
struct Asker {
    bytes: usize,
    length: Duration,
    unsent: usize,
    unanswered: usize,
    began: Instant,
    rounds: Option<Rounds>,
    done: Sender<Rounds>,
    finished: bool,
    content: Vec<u8>,
}

impl Asker {
    fn new(bytes: usize, length: Duration, done: Sender<Rounds>) -> Self {
        let content = vec![0x5a; bytes];
        Asker {
            bytes,
            length,
            unsent: 0,
            unanswered: 0,
            began: Instant::ZERO,
            rounds: None,
            done,
            finished: false,
            content,
        }
    }

    fn ask(&mut self) {
        (self.unsent, self.unanswered) = (self.bytes, self.bytes);
    }
}

impl SegmentSource for Asker {
    fn demand(&mut self, _now: Instant) -> Demand {
        if self.unsent > 0 { Demand::Data } else { Demand::Nothing }
    }

    fn cut(&mut self, _now: Instant, _state: &SendState, cut: &mut dyn Cut) {
        if cut.urgent_only() {
            return;
        }
        if self.unsent == self.bytes {
            // The clock itself: the poll's `now` is a little old, and would flatter.
            self.began = now();
        }
        let length = self.unsent.min(cut.room());
        cut.append(&self.content[..length]);
        self.unsent -= length;
    }

    fn next_demand(&self) -> Option<Instant> {
        None
    }

    fn finished(&self) -> bool {
        self.finished
    }
}

impl SegmentSink for Asker {
    fn deliver(&mut self, _now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        self.unanswered = self.unanswered.checked_sub(bytes.len()).ok_or(SinkFault)?;
        if self.unanswered == 0
            && let Some(rounds) = &mut self.rounds
        {
            if rounds.record(self.began, now()) {
                self.ask();
            } else {
                self.finished = true;
                // Nobody waits any more if the run was given up.
                let _ = self.rounds.take().map(|rounds| self.done.send(rounds));
            }
        }
        Ok(AckUrgency::Normal)
    }

    fn room(&self) -> usize {
        ROOM_BYTES
    }
}

impl Endpoint for Asker {
    fn on_established(&mut self, _now: Instant, _established: &Established) {
        self.rounds = Some(Rounds::start(self.length));
        self.ask();
    }

    fn on_closed(&mut self, _now: Instant, _reason: CloseReason) {}
}
