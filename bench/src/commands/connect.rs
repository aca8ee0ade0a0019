//! `connect`: a messenger that dials a peer, loads it, and watches its heartbeats.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use outrider_drivers::port::Port;
use outrider_messenger::config::Config;
use outrider_messenger::{Connection, EntityName};
use outrider_stack::tcp::congestion::Algorithm;
use serde_json::{Map, json};

use crate::cli::Common;
use crate::error::BenchError;
use crate::host::cpu_seconds;
use crate::node::{Addressing, Node, NodeOptions, SessionSignals, now};
use crate::place::Place;
use crate::progress::Progress;
use crate::report::{Heartbeat, HeartbeatResult, Report, check_writable, publish};
use crate::runs::{Conditions, Repeated};
use crate::settings::Settings;
use crate::stop::Stop;
use crate::table;
use crate::under_load::{self, Departures, Load, RightOfWay, Sender, Tally, Variant};
use crate::units::{Size, Span};

/// Options of `connect`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    settings: Settings,
    /// The node that runs `bench serve`
    #[arg(long, value_name = "ADDRESS:PORT")]
    peer: SocketAddr,
    /// Payload of a message of the load; 0 sends heartbeats only
    #[arg(long, default_value = "64KiB")]
    message_size: Size,
    /// Between heartbeats
    #[arg(long, default_value = "10ms")]
    interval: Span,
    /// Congestion control: bbr, cubic or dctcp
    #[arg(long, default_value = "bbr")]
    congestion: Algorithm,
    /// How long to wait for the session
    #[arg(long, value_name = "TIME", default_value = "10s")]
    patience: Span,
}

/// The session and all that counts it.
struct Session {
    connection: Connection,
    tally: Arc<Tally>,
    departures: Arc<Departures>,
    signals: Arc<SessionSignals>,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let common = &arguments.common;
    let place = &arguments.place;
    let addressing = Addressing {
        address: (place.address().address, place.address().prefix),
        gateway: place.gateway,
        congestion: arguments.congestion,
        seed: common.seed,
    };
    check_writable(common)?;
    let stop = Stop::on_signals()?;
    let config = arguments.settings.read(place.kernel)?;
    let ports = place.open(common.seed)?;
    let (session, node) = arguments.dial(ports, &addressing, config.as_ref())?;
    let result = arguments.measure(&stop, &session);
    session.connection.mark_down();
    let shard = node.stop();
    let result = result?;
    if let Some(error) = shard.and_then(|shard| shard.error) {
        return Err(BenchError::failed(format!("{}: {error}", place.carrier())));
    }
    // Without --seconds a signal is the end that was meant.
    arguments.publish(result, stop.is_raised() && common.seconds.is_some())
}

impl Arguments {
    fn dial(
        &self,
        ports: Option<Vec<Box<dyn Port>>>,
        addressing: &Addressing,
        config: Option<&Config>,
    ) -> Result<(Session, Node), BenchError> {
        let (tally, departures) = (Arc::new(Tally::default()), Arc::new(Departures::default()));
        let signals = Arc::new(SessionSignals::default());
        let dispatcher = Sender {
            tally: tally.clone(),
            departures: departures.clone(),
            session: signals.clone(),
            samples_occupancy: true,
        };
        let options = NodeOptions {
            name: EntityName::client(u64::from(std::process::id())),
            bind: None,
            dispatcher: Arc::new(dispatcher),
            send_budget_bytes: None,
            health: None,
        };
        let running = self.place.running(&options.name.to_string());
        let node = Node::start_at(ports, addressing, running, options, config)?;
        let connection = node
            .messenger()
            .connect_to(self.peer)
            .map_err(|error| BenchError::failed(format!("cannot connect to {}: {error}", self.peer)))?;
        let advice = "check that 'bench serve' runs there and that a way leads there";
        if let Err(error) = signals.wait(&connection, self.patience.0, advice) {
            connection.mark_down();
            node.stop();
            return Err(error);
        }
        Ok((Session { connection, tally, departures, signals }, node))
    }

    fn measure(&self, stop: &Stop, session: &Session) -> Result<HeartbeatResult, BenchError> {
        let Session { connection, tally, departures, signals } = session;
        let (began, cpu) = (now(), cpu_seconds());
        tally.window.open(began);
        let registrations = under_load::register(connection, self.interval.0, tally, departures)?;
        let bytes = usize::try_from(self.message_size.0).unwrap_or(usize::MAX);
        let right_of_way = Arc::new(RightOfWay::default());
        let load = if bytes == 0 { None } else { Some(Load::start(connection, bytes, &right_of_way)?) };

        let length = self.common.seconds.map(Duration::from_secs_f64);
        let progress = Progress::new(length.unwrap_or_default());
        let mut before = 0;
        let outcome = stop.wait(length, &mut |passed| {
            progress.advance(passed);
            let payload = tally.payload_bytes();
            progress.line(&self.live_line(
                connection,
                tally,
                (payload - before) as f64 * 8.0 / passed.as_secs_f64(),
            ));
            before = payload;
            if signals.lost.is_raised() {
                return Err(BenchError::failed(format!("the connection to {} was lost", self.peer)));
            }
            Ok(())
        });
        let seconds = (now() - began).as_secs_f64();
        let payload_bytes = tally.payload_bytes();
        let cpu_seconds = cpu_seconds() - cpu;
        let retransmits = connection.occupancy().send.retransmits;
        drop(registrations);
        connection.mark_down();
        if let Some(load) = load {
            load.join();
        }
        outcome?;

        let (counts, samples) = (tally.counts(), tally.distributions());
        Ok(HeartbeatResult {
            variant: Variant::Oob.name(),
            point: Map::new(),
            goodput_bps: payload_bytes as f64 * 8.0 / seconds,
            link_utilisation: None,
            heartbeat: Heartbeat {
                sent: counts.sent,
                received: samples.rtt.count(),
                superseded: counts.superseded,
                parts_per_message: under_load::OPS.len() as f64,
                one_way_us: None,
                rtt_us: samples.rtt.percentiles(),
            },
            occupancy_bytes: samples.occupancy.spread(),
            cpu_seconds,
            seconds,
            retransmits,
        })
    }

    fn live_line(&self, connection: &Connection, tally: &Tally, goodput_bps: f64) -> String {
        let recent = tally.take_recent();
        let delays = match recent.rtt.percentiles() {
            Some(rtt) => format!("RTT p50 {:>9}  max {:>9}", table::micros(rtt.p50), table::micros(rtt.max)),
            None => "no echo".to_owned(),
        };
        let send = connection.occupancy().send;
        format!(
            "heartbeat {delays}   echoed {:>12}   unsent {:>9}   in flight {:>9}   {:?}",
            table::bits_per_second(goodput_bps),
            table::bytes(send.unsent_bytes),
            table::bytes(send.bytes_in_flight),
            send.blocked
        )
    }

    fn publish(&self, result: HeartbeatResult, interrupted: bool) -> Result<(), BenchError> {
        let parameters = [
            ("port", json!(self.place.carrier())),
            ("address", json!(self.place.address().to_string())),
            ("peer", json!(self.peer.to_string())),
            ("message_bytes", json!(self.message_size.0)),
            ("interval_us", json!(self.interval.0.as_secs_f64() * 1e6)),
            ("congestion", json!(self.congestion.name())),
            ("seed", json!(self.common.seed)),
        ];
        let parameters = parameters.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let report = Report::new("connect", self.place.carrier(), parameters, vec![Repeated::once(result)])
            .under(Conditions::once(interrupted), Vec::new());
        publish(&self.common, &report, &table::heartbeats(&report.results, &[]))?;
        match report.results.first() {
            Some(result) if result.heartbeat.received == 0 => {
                Err(BenchError::failed(format!("no heartbeat came back from {}", self.peer)))
            }
            _ => Ok(()),
        }
    }
}
