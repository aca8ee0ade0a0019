//! `serve`: a node that waits for peers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use outrider_drivers::port::Port;
use outrider_messenger::transport::{Kernel, KernelConfig, Transport};
use outrider_messenger::{Connection, Dispatcher, EntityName, Message, OobMessage};
use outrider_stack::endpoint::Acceptor;
use outrider_stack::net::ListenOptions;
use outrider_stack::shard::{ShardGroup, ShardReport};
use outrider_stack::stream::discard::{DiscardAcceptor, DiscardCounters};
use outrider_stack::stream::echo::EchoAcceptor;
use outrider_stack::tcp::congestion::Algorithm;
use serde_json::{Map, Value, json};

use crate::cli::Common;
use crate::error::BenchError;
use crate::node::{Addressing, Node, NodeOptions, Running, spawn_group};
use crate::place::Place;
use crate::progress::Progress;
use crate::report::{Report, check_writable, print_stdout, publish};
use crate::runs::Conditions;
use crate::settings::Settings;
use crate::stop::Stop;
use crate::table;

/// Bytes that a plain TCP connection holds at most before its window closes.
const BYTES_HELD_MAX: usize = 1 << 20;

/// Where a messenger listens if nothing else is said.
const MESSENGER_PORT: u16 = 7077;

/// What plain TCP service is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Service {
    /// Bytes come back (RFC 862)
    Echo,
    /// Bytes are thrown away (RFC 863)
    Discard,
}

impl Service {
    /// The service's own port, by which tools that read captures know its payload for what it is.
    fn port(self) -> u16 {
        match self {
            Service::Echo => 7,
            Service::Discard => 9,
        }
    }

    fn acceptor(self) -> Box<dyn Acceptor> {
        match self {
            Service::Echo => Box::new(EchoAcceptor { ring_bytes: BYTES_HELD_MAX }),
            Service::Discard => {
                let counters = Arc::new(DiscardCounters::default());
                Box::new(DiscardAcceptor { counters, room_bytes: BYTES_HELD_MAX })
            }
        }
    }
}

/// Name, count and unit.
type Figure = (&'static str, u64, &'static str);

/// Options of `serve`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    settings: Settings,
    /// TCP port to listen on [default: 7077; with --bytes echo 7, with --bytes discard 9]
    #[arg(long, value_name = "PORT")]
    peer_port: Option<u16>,
    /// Speak plain TCP to any client instead of the messenger's protocol
    #[arg(long, value_enum)]
    bytes: Option<Service>,
    /// Congestion control: bbr, cubic or dctcp
    #[arg(long, default_value = "bbr")]
    congestion: Algorithm,
}

impl Arguments {
    fn listening_port(&self) -> u16 {
        self.peer_port.unwrap_or(self.bytes.map_or(MESSENGER_PORT, Service::port))
    }
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let common = &arguments.common;
    let place = &arguments.place;
    let congestion = arguments.congestion;
    check_writable(common)?;
    let stop = Stop::on_signals()?;
    let addressing = Addressing {
        address: (place.address().address, place.address().prefix),
        gateway: place.gateway,
        congestion,
        seed: common.seed,
    };
    let config = arguments.settings.read(place.kernel)?;
    if config.is_some() && arguments.bytes.is_some() {
        return Err(BenchError::usage("--config is for the messenger; --bytes speaks plain TCP without it"));
    }
    let ports = place.open(common.seed)?;
    let local = SocketAddr::new(place.address().address, arguments.listening_port());
    let served = match arguments.bytes {
        Some(service) => {
            let serving = serve_bytes(ports, &addressing, place.running("serve"), (local, service))?;
            arguments.announce(local)?;
            stop.wait(arguments.length(), &mut |_| Ok(()))?;
            (Vec::new(), serving.stop())
        }
        None => {
            let answering = Arc::new(Answering::default());
            let options = NodeOptions {
                name: EntityName::osd(0),
                bind: Some(local),
                dispatcher: answering.clone(),
                send_budget_bytes: None,
                health: None,
            };
            let running = place.running("osd.0");
            let node = Node::start_at(ports, &addressing, running, options, config.as_ref())?;
            arguments.announce(local)?;
            arguments.watch(&stop, &answering)?;
            (answering.figures(), node.stop())
        }
    };
    // Without --seconds a signal is the end that was meant.
    arguments.publish(served, stop.is_raised() && common.seconds.is_some())
}

/// Plain TCP while it is served.
struct Serving {
    _listening: Box<dyn Send>,
    shards: Option<ShardGroup>,
    /// The host's own sockets, where there is no shard; they end with it.
    _kernel: Option<Kernel>,
}

impl Serving {
    fn stop(self) -> Option<ShardReport> {
        self.shards.map(|shards| ShardReport::sum(shards.stop()))
    }
}

fn serve_bytes(
    ports: Option<Vec<Box<dyn Port>>>,
    addressing: &Addressing,
    running: Running,
    (local, service): (SocketAddr, Service),
) -> Result<Serving, BenchError> {
    let unable = |error: &dyn std::fmt::Display| {
        BenchError::failed(format!("cannot listen on {local}: {error}; see --peer-port"))
    };
    let Some(ports) = ports else {
        let kernel = Kernel::start(&KernelConfig::default()).map_err(|error| unable(&error))?;
        let listening = kernel.listen(local, service.acceptor()).map_err(|error| unable(&error))?;
        return Ok(Serving { _listening: listening, shards: None, _kernel: Some(kernel) });
    };
    let shards = spawn_group(ports, addressing, running)?;
    let listening = shards
        .handle()
        .listen(local, ListenOptions::default(), service.acceptor())
        .map_err(|error| unable(&error))?;
    Ok(Serving { _listening: Box::new(listening), shards: Some(shards), _kernel: None })
}

impl Arguments {
    fn length(&self) -> Option<Duration> {
        self.common.seconds.map(Duration::from_secs_f64)
    }

    fn announce(&self, local: SocketAddr) -> Result<(), BenchError> {
        print_stdout(&format!("listening on {local} ({})\n", self.place.carrier()))
    }

    /// Waits for the end, with a live line per second on a terminal.
    fn watch(&self, stop: &Stop, answering: &Answering) -> Result<(), BenchError> {
        let progress = Progress::new(self.length().unwrap_or_default());
        let mut before = 0;
        stop.wait(self.length(), &mut |passed| {
            progress.advance(passed);
            let bytes = answering.payload_bytes.load(Ordering::Relaxed);
            let rate = (bytes - before) as f64 * 8.0 / passed.as_secs_f64();
            before = bytes;
            progress.line(&format!(
                "received {}   heartbeats {}   sessions {}",
                table::bits_per_second(rate),
                answering.heartbeats.load(Ordering::Relaxed),
                answering.sessions.load(Ordering::Relaxed)
            ));
            Ok(())
        })
    }

    /// Prints what was served. A port that failed is an error after that.
    fn publish(
        &self,
        (mut figures, shard): (Vec<Figure>, Option<ShardReport>),
        interrupted: bool,
    ) -> Result<(), BenchError> {
        if let Some(shard) = &shard {
            figures.extend(shard.statistics.table().iter().map(|row| (row.name, row.value, row.unit)));
            figures.push(("port_rx_dropped", shard.port.rx_dropped, "frames"));
            figures.push(("port_tx_dropped", shard.port.tx_dropped, "frames"));
        }
        let rows: Vec<Vec<String>> = figures
            .iter()
            .filter(|(_, value, _)| *value > 0)
            .map(|(name, value, unit)| vec![(*name).to_owned(), value.to_string(), (*unit).to_owned()])
            .collect();
        let result: Map<String, Value> =
            figures.iter().map(|(name, value, _)| ((*name).to_owned(), json!(value))).collect();
        let parameters = [
            ("port", json!(self.place.carrier())),
            ("address", json!(self.place.address().to_string())),
            ("peer_port", json!(self.listening_port())),
            ("congestion", json!(self.congestion.name())),
            ("seed", json!(self.common.seed)),
        ];
        let parameters = parameters.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let report = Report::new("serve", self.place.carrier(), parameters, vec![result])
            .under(Conditions::once(interrupted), Vec::new());
        publish(&self.common, &report, &table::numbers(&["what", "count", "of"], &rows))?;
        match shard.and_then(|shard| shard.error) {
            Some(error) => Err(BenchError::failed(format!("{}: {error}", self.place.carrier()))),
            None => Ok(()),
        }
    }
}

/// Answers every message with itself. (Heartbeats are echoed by the messenger.)
#[derive(Debug, Default)]
struct Answering {
    sessions: AtomicU64,
    messages: AtomicU64,
    payload_bytes: AtomicU64,
    heartbeats: AtomicU64,
    parts: AtomicU64,
}

impl Answering {
    fn figures(&self) -> Vec<Figure> {
        let Answering { sessions, messages, payload_bytes, heartbeats, parts } = self;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("sessions", read(sessions), "sessions"),
            ("messages", read(messages), "messages"),
            ("payload_bytes", read(payload_bytes), "bytes"),
            ("heartbeats", read(heartbeats), "messages"),
            ("heartbeat_parts", read(parts), "parts"),
        ]
    }
}

impl Dispatcher for Answering {
    fn ms_dispatch(&self, connection: &Connection, message: Message) -> Result<(), Message> {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.payload_bytes.fetch_add(message.payload.len() as u64, Ordering::Relaxed);
        // A peer that went away gets no answer; its session ends by itself.
        let _ = connection.send_message(message);
        Ok(())
    }

    fn ms_dispatch_oob(&self, _: &Connection, message: OobMessage) {
        self.heartbeats.fetch_add(1, Ordering::Relaxed);
        self.parts.fetch_add(message.parts.len() as u64, Ordering::Relaxed);
    }

    fn ms_handle_accept(&self, _: &Connection) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }
}
