//! Messages per second, by size and number in flight.
//!
//! What is measured: a client keeps so many requests outstanding on one connection; the server answers each with a
//! reply that has no payload, as soon as the request is complete, and the reply makes the client send the next. Both are
//! dispatched on the thread of their connection (`ms_fast_dispatch`), and so are they in Ceph's own benchmark of its
//! messenger. A message counts when its reply is back.

mod exchange;
mod result;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use outrider_messenger::transport::KernelConfig;
use outrider_stack::tcp::congestion::Algorithm;

use crate::error::BenchError;
use crate::lab::{Lab, LinkKind};
use crate::node::{Addressing, Node, NodeOptions};
use crate::progress::Progress;
use crate::runs::{Repeated, Session};
use crate::under_load::Point;
use crate::units::{Rate, Share, Size, Span};

use exchange::Exchange;
pub(crate) use result::{MessagesResult, ratios, tables};

/// A load: how large, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Payload of a request, bytes.
    pub(crate) message_bytes: usize,
    /// Requests outstanding.
    pub(crate) depth: usize,
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carrier {
    /// The link.
    pub(crate) link: LinkKind,
    /// Segmentation and checksum offload, where the link is of TAPs; on kernel sockets they are as the system has them.
    pub(crate) offload: bool,
}

impl Carrier {
    /// As tables spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Carrier { link: LinkKind::Tap, offload: false } => "plain tap",
            Carrier { link, .. } => link.name(),
        }
    }
}

/// What is measured when nothing else is said: the sizes and depths that Ceph's messenger was measured at.
pub(crate) const SHAPES: [Shape; 3] = [
    Shape { message_bytes: 4 << 10, depth: 32 },
    Shape { message_bytes: 64 << 10, depth: 32 },
    Shape { message_bytes: 1 << 20, depth: 8 },
];

/// Largest message and most of them.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Most requests outstanding.
pub(crate) const DEPTH_MAX: usize = 65_536;
/// Bytes outstanding at most: the client's budget and the server's credit have to hold them.
pub(crate) const OUTSTANDING_BYTES_MAX: usize = 1 << 30;

/// Before anything counts.
const WARM_UP: Duration = Duration::from_millis(300);

const PREFIX: u8 = 24;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));

/// What is to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Over what, in turn.
    pub(crate) carriers: Vec<Carrier>,
    /// What, one after the other.
    pub(crate) shapes: Vec<Shape>,
    /// Rate of the link; zero for as fast as it goes.
    pub(crate) rate: Rate,
    /// Queue at the bottleneck, where there is a rate.
    pub(crate) queue: Size,
    /// Congestion control of both ends.
    pub(crate) congestion: Algorithm,
    /// Measured in each run.
    pub(crate) length: Duration,
    /// Of the first turn; each further one takes the next.
    pub(crate) seed: u64,
}

impl Plan {
    /// Wall time that one run of each takes, for the progress bar.
    pub(crate) fn duration(&self) -> Duration {
        let runs = self.carriers.len() * self.shapes.len();
        (self.length + WARM_UP) * u32::try_from(runs).unwrap_or(u32::MAX)
    }

    fn point(&self, link: LinkKind) -> Point {
        Point {
            link,
            rate: self.rate,
            delay: Span(Duration::ZERO),
            queue: self.queue,
            loss: Share(0.0),
            interval: Span(Duration::ZERO),
            congestion: self.congestion,
            message_size: Size(0),
            send_budget: Size(0),
        }
    }

    /// Refuses what cannot work, before anything runs.
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        for shape in &self.shapes {
            let Shape { message_bytes, depth } = *shape;
            if message_bytes > MESSAGE_BYTES_MAX {
                let (given, most) = (Size(message_bytes as u64), Size(MESSAGE_BYTES_MAX as u64));
                return Err(BenchError::usage(format!("--size {given} is too large; {most} at most")));
            }
            if !(1..=DEPTH_MAX).contains(&depth) {
                return Err(BenchError::usage(format!("--depth {depth} is out of range; 1 to {DEPTH_MAX}")));
            }
            if message_bytes.saturating_mul(depth) > OUTSTANDING_BYTES_MAX {
                let most = Size(OUTSTANDING_BYTES_MAX as u64);
                return Err(BenchError::usage(format!(
                    "--size {} with --depth {depth} is more than {most} in flight; give less of either",
                    Size(message_bytes as u64)
                )));
            }
        }
        self.carriers.iter().try_for_each(|carrier| carrier.link.check(&self.point(carrier.link)))
    }

    /// Runs it. Results come by shape, and by link within.
    pub(crate) fn run(&self, session: &mut Session) -> Result<Vec<Repeated<MessagesResult>>, BenchError> {
        let mut results = Vec::new();
        for shape in &self.shapes {
            results.extend(session.medians(&self.carriers, |carrier, turn, progress| {
                let size = Size(shape.message_bytes as u64);
                progress.set(format!("{size} x {} over {}, run {turn}", shape.depth, carrier.name()));
                let round = self.round(*carrier, *shape, turn.seed(self.seed), progress)?;
                Ok(MessagesResult::of(*carrier, *shape, &round))
            })?);
        }
        Ok(results)
    }

    /// One round in a lab of its own.
    fn round(
        &self,
        carrier: Carrier,
        shape: Shape,
        seed: u64,
        progress: &Progress,
    ) -> Result<exchange::Round, BenchError> {
        let point = self.point(carrier.link);
        let mut lab = match carrier {
            Carrier { link: LinkKind::Tap, offload } => Lab::of_taps(&point, seed, offload)?,
            _ => Lab::build(&point, seed, [(CLIENT, PREFIX), (SERVER, PREFIX)])?,
        };
        let exchange = Exchange::new(shape, SERVER);
        let [client, server] = [exchange.client(), exchange.server()];
        let [client, server] = self.start_nodes(&mut lab, seed, [client, server])?;
        let connection = exchange.connect(&client)?;
        exchange.begin(&connection)?;
        let round = exchange.measure(WARM_UP, self.length, progress);
        connection.mark_down();
        client.stop_now();
        server.stop_now();
        round
    }

    fn start_nodes(
        &self,
        lab: &mut Lab,
        seed: u64,
        [client, server]: [NodeOptions; 2],
    ) -> Result<[Node; 2], BenchError> {
        let seeds = [seed.wrapping_mul(2), seed.wrapping_mul(2).wrapping_add(1)];
        if let Some(hosts) = lab.hosts() {
            let congestion = Some(self.congestion.name().to_owned());
            let config = KernelConfig { congestion, ..KernelConfig::default() };
            let [near, far] = &hosts.namespaces;
            let server = Node::start_on_kernel(Some(far), &config, seeds[1], server)?;
            let client = Node::start_on_kernel(Some(near), &config, seeds[0], client)?;
            return Ok([client, server]);
        }
        let (near, far) = lab.take_ports();
        let congestion = self.congestion;
        let addressing =
            |address, seed| Addressing { address: (address, PREFIX), gateway: None, congestion, seed };
        let server = Node::start(far, &addressing(SERVER, seeds[1]), server)?;
        let client = Node::start(near, &addressing(CLIENT, seeds[0]), client)?;
        Ok([client, server])
    }
}
