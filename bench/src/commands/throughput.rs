//! `throughput`: bulk transfer, and segments on many connections.

use std::time::Duration;

use clap::{Args, ValueEnum};
use outrider_drivers::memory::LinkConfig;
use outrider_stack::tcp::congestion::Algorithm;
use serde_json::{Map, Value, json};

use crate::cli::Common;
use crate::commands::messages;
use crate::commands::pump::bare_point;
use crate::error::BenchError;
use crate::lab::LinkKind;
use crate::pingpong::Wait;
use crate::report::{Report, check_writable, publish};
use crate::runs::{Conditions, REPEAT, Repeated, Repeating, Session};
use crate::throughput::afxdp;
use crate::throughput::bridge;
use crate::throughput::lab::KernelCongestion;
use crate::throughput::memory::{self, Pattern, Scene, Stack, Turn, Work};
use crate::throughput::offload;
use crate::throughput::result::{ThroughputResult, fairness_table, ratios, tables};
use crate::throughput::rivals;
use crate::units::{Rate, Share, Size, Span};

/// Measured in each run unless `--seconds` says otherwise: of virtual time over memory, of real over tap.
const MEMORY_SECONDS: f64 = 2.0;
const TAP_SECONDS: f64 = 2.0;
/// The same with a competitor, in which shares change slowly.
const RIVALS_SECONDS: f64 = 6.0;
/// Bottleneck over tap, unless the options say otherwise.
const TAP_RATE: Rate = Rate(200_000_000);
const TAP_QUEUE: Size = Size(1_000_000);
/// Ours over AF_XDP, unless the options say otherwise: one that fills the link, and one that keeps queues short.
const AFXDP_CONGESTION: [Algorithm; 2] = [Algorithm::Cubic, Algorithm::Bbr];
/// Values of a list at most.
const VALUES_MAX: usize = 64;
/// Connections at most: each end that connects has a port of its own.
const CONNECTIONS_MAX: usize = 16_000;
/// The receive window of TCP is at most 2^30 bytes (RFC 7323 section 2.3); below this a single connection crawls.
const WINDOW_BYTES: std::ops::RangeInclusive<u64> = 8 << 10..=1 << 30;
/// A turn of less is hardly a message; one of more would fill the queue of the link when eight come at once.
const TURN_BYTES_RANGE: std::ops::RangeInclusive<u64> = 64..=128 << 10;

/// Options of `throughput`. Those marked (list) take several values separated by commas: one result for each.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// What carries the frames: memory, in virtual time and beside smoltcp; tap, beside the kernel; afxdp, beside the
    /// bare ports and the kernel; with --size, or several of them, or kernel: messages in real time (list)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "memory")]
    link: Vec<LinkKind>,
    /// Rate of the bottleneck (default: 10gbit over memory, 200mbit over tap, none over afxdp)
    #[arg(long)]
    rate: Option<Rate>,
    /// Delay, one way (default: 50us over memory; tap has none)
    #[arg(long)]
    delay: Option<Span>,
    /// Queue at the bottleneck (default: 2MB over memory, 1MB over tap; list with --competitor)
    #[arg(long, value_delimiter = ',')]
    queue: Vec<Size>,
    /// Share of frames lost, each way (list)
    #[arg(long, value_delimiter = ',', default_value = "0,0.1%,1%,3%")]
    loss: Vec<Share>,
    /// Largest receive window of ours, and both buffers of smoltcp's sockets (memory)
    #[arg(long, default_value = "1MiB")]
    window: Size,
    /// Instead of one bulk connection, so many that send in turn (list; memory)
    #[arg(long, value_delimiter = ',', conflicts_with = "loss")]
    connections: Vec<usize>,
    /// How many turns of --connections come at an instant: burst, eight; turn, one, so that no segment shares its way with
    /// the next, with one connection as with many (list; memory)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "burst,turn", requires = "connections")]
    pattern: Vec<Pattern>,
    /// What each of --connections is given at its turn; 1448B is a segment (list; memory)
    #[arg(long, value_delimiter = ',', default_value = "64KiB,4KiB,1448B", requires = "connections")]
    turn: Vec<Size>,
    /// Whose TCP (list; memory)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "outrider,smoltcp")]
    variant: Vec<Stack>,
    /// Time between two looks of a host at its port and timers; 0: it sees each frame at its instant (memory)
    #[arg(long, default_value = "10us")]
    poll: Span,
    /// Our congestion control: bbr, cubic or dctcp (list over afxdp and with --competitor; default: bbr, over afxdp
    /// cubic,bbr)
    #[arg(long, value_delimiter = ',')]
    congestion: Vec<Algorithm>,
    /// How our shards wait for frames (afxdp)
    #[arg(long, value_enum, default_value = "adaptive")]
    wait: Wait,
    /// Congestion control of the kernel's ends (list; tap; with --offload the first)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "cubic,bbr")]
    peer_congestion: Vec<KernelCongestion>,
    #[command(flatten)]
    messages: messages::Options,
    /// A flow of the kernel's with this congestion control shares the bottleneck with ours, and with one of the
    /// kernel's for each --peer-congestion (tap)
    #[arg(long, value_enum, conflicts_with_all = ["loss", "connections"])]
    competitor: Option<KernelCongestion>,
    /// Instead of across a bridge, over one TAP without limit, with the kernel on its other side, once with segmentation
    /// and checksum offload and once without (list; tap). Of messages over tap: with it unless this says otherwise
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with_all = ["loss", "connections", "competitor", "rate"])]
    offload: Vec<Switch>,
    #[command(flatten)]
    repeating: Repeating,
}

/// A value of `--offload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    if arguments.messages.are_wanted(&arguments.link) {
        check_writable(&arguments.common)?;
        let setting = messages::Setting {
            links: arguments.link.clone(),
            offloads: arguments.offloads(),
            rate: arguments.rate,
            queue: arguments.queue.first().copied(),
            congestion: arguments.congestion(),
        };
        return messages::run(&arguments.messages, &setting, &arguments.common, &arguments.repeating);
    }
    arguments.check()?;
    check_writable(&arguments.common)?;
    match arguments.link() {
        LinkKind::Afxdp => over_afxdp(arguments),
        LinkKind::Tap if !arguments.offload.is_empty() => with_offloads(arguments),
        LinkKind::Tap => match arguments.competitor {
            Some(competitor) => beside_competitor(arguments, competitor),
            None => over_tap(arguments),
        },
        _ => over_memory(arguments),
    }
}

impl Arguments {
    /// Refuses what cannot work, before anything runs.
    fn check(&self) -> Result<(), BenchError> {
        let usage = |text: String| Err(BenchError::usage(text));
        match self.link() {
            LinkKind::Memory => {}
            LinkKind::Tap if self.delay.is_some_and(|delay| !delay.0.is_zero()) => {
                return usage("--delay cannot be made over tap; use --link memory".to_owned());
            }
            LinkKind::Tap if !self.connections.is_empty() => {
                return usage("--connections is measured in virtual time; use --link memory".to_owned());
            }
            LinkKind::Tap => {}
            LinkKind::Afxdp => self.check_over_afxdp()?,
            LinkKind::Kernel => return usage("--link kernel carries messages here; give --size".to_owned()),
        }
        if self.competitor.is_none() {
            self.check_alone()?;
        } else if self.link() != LinkKind::Tap {
            return usage("--competitor is a flow of the kernel's; use --link tap".to_owned());
        }
        if !self.offload.is_empty() && self.link() != LinkKind::Tap {
            return usage("--offload is of a TAP; use --link tap".to_owned());
        }
        if self.loss.len().max(self.connections.len()).max(self.turn.len()) > VALUES_MAX {
            return usage(format!("a list has more than {VALUES_MAX} values; give fewer"));
        }
        if let Some(loss) = self.loss.iter().find(|loss| loss.0 > 0.5) {
            return usage(format!("--loss {loss} lets no connection open; give 50% at most"));
        }
        if let Some(count) = self.connections.iter().find(|count| !(1..=CONNECTIONS_MAX).contains(*count)) {
            return usage(format!("--connections {count} is out of range; 1 to {CONNECTIONS_MAX}"));
        }
        if let Some(turn) = self.turn.iter().find(|turn| !TURN_BYTES_RANGE.contains(&turn.0)) {
            let (least, most) = (Size(*TURN_BYTES_RANGE.start()), Size(*TURN_BYTES_RANGE.end()));
            return usage(format!("--turn {turn} is out of range; {least} to {most}"));
        }
        if !WINDOW_BYTES.contains(&self.window.0) {
            let (least, most) = (Size(*WINDOW_BYTES.start()), Size(*WINDOW_BYTES.end()));
            return usage(format!("--window {} is out of range; {least} to {most}", self.window));
        }
        let frame_bytes = (LinkConfig::default().mtu + 14) as u64;
        if let Some(queue) = self.queue.iter().find(|queue| queue.0 < frame_bytes) {
            return usage(format!("--queue {queue} holds no frame; give {frame_bytes}B at least"));
        }
        Ok(())
    }

    /// The one link of an experiment that has one.
    fn link(&self) -> LinkKind {
        self.link.first().copied().unwrap_or(LinkKind::Memory)
    }

    /// Refuses what the lab of AF_XDP does not make.
    fn check_over_afxdp(&self) -> Result<(), BenchError> {
        let usage = |text: &str| Err(BenchError::usage(text.to_owned()));
        if self.delay.is_some_and(|delay| !delay.0.is_zero()) {
            return usage("--delay cannot be made over afxdp; use --link memory");
        }
        if !self.connections.is_empty() {
            return usage("--connections is measured in virtual time; use --link memory");
        }
        if self.congestion.contains(&Algorithm::Dctcp) {
            return usage("--congestion dctcp needs a link that marks; give bbr or cubic");
        }
        Ok(())
    }

    /// What takes a list only beside a competitor.
    fn check_alone(&self) -> Result<(), BenchError> {
        let usage = |text: &str| Err(BenchError::usage(text.to_owned()));
        match (self.congestion.as_slice(), self.queue.len()) {
            ([Algorithm::Dctcp], _) => usage("--congestion dctcp needs a link that marks; give bbr or cubic"),
            ([] | [_], 0 | 1) => Ok(()),
            ([] | [_], _) => usage("--queue takes a list only with --competitor; give one"),
            (_, 0 | 1) if self.link() == LinkKind::Afxdp => Ok(()),
            _ => usage("--congestion takes a list only with --competitor or over afxdp; give one"),
        }
    }

    /// Our congestion control, where there is one.
    fn congestion(&self) -> Algorithm {
        self.congestion.first().copied().unwrap_or_default()
    }

    /// Ours, where several are compared.
    fn own_congestion(&self) -> Vec<Algorithm> {
        if self.congestion.is_empty() { vec![self.congestion()] } else { self.congestion.clone() }
    }

    /// The kernel's congestion control, where there is one.
    fn first_peer_congestion(&self) -> KernelCongestion {
        self.peer_congestion.first().copied().unwrap_or(KernelCongestion::Cubic)
    }

    fn queue(&self, default: Size) -> Size {
        self.queue.first().copied().unwrap_or(default)
    }

    /// What is set against it comes first, whatever the order on the command line.
    fn offloads(&self) -> Vec<bool> {
        let mut offloads: Vec<bool> = self.offload.iter().map(|switch| *switch == Switch::On).collect();
        offloads.sort_unstable();
        offloads.dedup();
        offloads
    }

    fn length(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(self.common.seconds.unwrap_or(seconds))
    }

    fn session(&self, once: Duration) -> Result<Session, BenchError> {
        Session::begin("throughput", &self.repeating, REPEAT, once)
    }

    fn peer_congestion(&self) -> Vec<&'static str> {
        self.peer_congestion.iter().map(|name| name.name()).collect()
    }

    /// `parameters` of the JSON: those that every experiment here has, and its own.
    fn parameters<const N: usize>(&self, length: Duration, own: [(&str, Value); N]) -> Map<String, Value> {
        let common = [
            ("seed", json!(self.common.seed)),
            ("seconds", json!(length.as_secs_f64())),
            ("repeat", json!(self.repeating.runs(REPEAT))),
        ];
        own.into_iter().chain(common).map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// What `--connections` do: each size of a turn, in each pattern, with each number of them.
    fn turns(&self) -> impl Iterator<Item = Turn> {
        let patterns =
            || self.turn.iter().flat_map(|turn| self.pattern.iter().map(move |pattern| (turn, pattern)));
        patterns().flat_map(|(turn, pattern)| {
            let counts = self.connections.iter();
            counts.map(|connections| Turn { connections: *connections, pattern: *pattern, bytes: turn.0 })
        })
    }

    /// The values of `--loss`.
    fn losses(&self) -> Vec<f64> {
        self.loss.iter().map(|loss| loss.0).collect()
    }
}

fn over_memory(arguments: &Arguments) -> Result<(), BenchError> {
    let rate = arguments.rate.unwrap_or(Rate(10_000_000_000));
    let delay = arguments.delay.unwrap_or(Span(Duration::from_micros(50)));
    let queue = arguments.queue(Size(2_000_000));
    let length = arguments.length(MEMORY_SECONDS);
    let scene = |loss: f64, name: Map<String, Value>| Scene {
        link: LinkConfig {
            rate_bits_per_second: rate.0,
            delay: delay.0,
            queue_bytes: usize::try_from(queue.0).unwrap_or(usize::MAX),
            loss,
            ..LinkConfig::default()
        },
        window_bytes: u32::try_from(arguments.window.0).unwrap_or(u32::MAX),
        poll_every: arguments.poll.0,
        congestion: arguments.congestion(),
        seed: arguments.common.seed,
        name,
    };
    let by_turns = !arguments.connections.is_empty();
    let work: Vec<(Scene, Work)> = if by_turns {
        arguments.turns().map(|turn| (scene(0.0, turn.name()), Work::Turns(turn))).collect()
    } else {
        let named = |loss: f64| [("loss".to_owned(), json!(loss))].into_iter().collect();
        let losses = arguments.loss.iter();
        losses.map(|loss| (scene(loss.0, named(loss.0)), Work::Bulk(length))).collect()
    };
    let stacks = u32::try_from(arguments.variant.len()).unwrap_or(u32::MAX);
    let mut session = arguments.session(work.iter().map(|(_, work)| work.length() * stacks).sum())?;
    let mut results = Vec::new();
    for (scene, work) in &work {
        results.extend(memory::run(scene, &arguments.variant, *work, &mut session)?);
    }
    let mut parameters = arguments.parameters(
        length,
        [
            ("rate_bps", json!(rate.0)),
            ("queue_bytes", json!(queue.0)),
            ("congestion", json!(arguments.congestion().name())),
            ("delay_us", json!(delay.0.as_secs_f64() * 1e6)),
            ("window_bytes", json!(arguments.window.0)),
            ("poll_us", json!(arguments.poll.0.as_secs_f64() * 1e6)),
        ],
    );
    if by_turns {
        parameters.insert("connections".into(), json!(arguments.connections));
        let patterns: Vec<_> = arguments.pattern.iter().map(|pattern| pattern.name()).collect();
        parameters.insert("pattern".into(), json!(patterns));
        parameters
            .insert("turn_bytes".into(), json!(arguments.turn.iter().map(|turn| turn.0).collect::<Vec<_>>()));
    } else {
        parameters.insert("loss".into(), json!(arguments.losses()));
    }
    let title = if by_turns { "Each connection in turn" } else { "Bulk, in virtual time" };
    let key = if by_turns { "connections" } else { "loss" };
    publish_results(arguments, (title, key), parameters, results, session.end())
}

fn over_afxdp(arguments: &Arguments) -> Result<(), BenchError> {
    let (rate, queue) = (arguments.rate.unwrap_or(Rate(0)), arguments.queue(TAP_QUEUE));
    let length = arguments.length(TAP_SECONDS);
    let congestion = match arguments.congestion.as_slice() {
        [] => AFXDP_CONGESTION.to_vec(),
        chosen => chosen.to_vec(),
    };
    let spelled: Vec<&str> = congestion.iter().map(|one| one.name()).collect();
    let plan = afxdp::Plan {
        point: bare_point(LinkKind::Afxdp, rate, queue),
        congestion,
        wait: arguments.wait,
        peer_congestion: arguments.first_peer_congestion(),
        length,
        seed: arguments.common.seed,
    };
    let mut session = arguments.session(plan.duration())?;
    let results = afxdp::run(&plan, &mut session)?;
    let parameters = arguments.parameters(
        length,
        [
            ("rate_bps", json!(rate.0)),
            ("queue_bytes", json!(queue.0)),
            ("congestion", json!(spelled)),
            ("wait", json!(plan.wait.name())),
            ("peer_congestion", json!(plan.peer_congestion.name())),
        ],
    );
    let heading = ("Bulk, over AF_XDP at both ends", "congestion");
    publish_results(arguments, heading, parameters, results, session.end())
}

fn over_tap(arguments: &Arguments) -> Result<(), BenchError> {
    let rate = arguments.rate.unwrap_or(TAP_RATE);
    let queue = arguments.queue(TAP_QUEUE);
    let length = arguments.length(TAP_SECONDS);
    let plan = bridge::Plan {
        rate_bits_per_second: rate.0,
        queue_bytes: queue.0,
        losses: arguments.losses(),
        congestion: arguments.congestion(),
        peer_congestion: arguments.peer_congestion.clone(),
        length,
        seed: arguments.common.seed,
    };
    let mut session = arguments.session(plan.duration())?;
    let results = bridge::run(&plan, &mut session)?;
    let parameters = arguments.parameters(
        length,
        [
            ("rate_bps", json!(rate.0)),
            ("queue_bytes", json!(queue.0)),
            ("loss", json!(plan.losses)),
            ("congestion", json!(plan.congestion.name())),
            ("peer_congestion", json!(arguments.peer_congestion())),
        ],
    );
    publish_results(arguments, ("Bulk, across a bridge", "loss"), parameters, results, session.end())
}

fn with_offloads(arguments: &Arguments) -> Result<(), BenchError> {
    let length = arguments.length(TAP_SECONDS);
    let plan = offload::Plan {
        offloads: arguments.offloads(),
        congestion: arguments.congestion(),
        peer_congestion: arguments.first_peer_congestion(),
        length,
        seed: arguments.common.seed,
    };
    let mut session = arguments.session(plan.duration())?;
    let results = offload::run(&plan, &mut session)?;
    let spelled: Vec<&str> = plan.offloads.iter().map(|offload| offload::spelled(*offload)).collect();
    let parameters = arguments.parameters(
        length,
        [
            ("offload", json!(spelled)),
            ("congestion", json!(plan.congestion.name())),
            ("peer_congestion", json!(plan.peer_congestion.name())),
        ],
    );
    let heading = ("Bulk, over one TAP without limit", "offload");
    publish_results(arguments, heading, parameters, results, session.end())
}

fn beside_competitor(arguments: &Arguments, competitor: KernelCongestion) -> Result<(), BenchError> {
    let rate = arguments.rate.unwrap_or(TAP_RATE);
    let queues = if arguments.queue.is_empty() { vec![TAP_QUEUE] } else { arguments.queue.clone() };
    let length = arguments.length(RIVALS_SECONDS);
    let plan = rivals::Plan {
        rate_bits_per_second: rate.0,
        queue_bytes: queues.iter().map(|queue| queue.0).collect(),
        congestion: arguments.own_congestion(),
        kernel_congestion: arguments.peer_congestion.clone(),
        competitor,
        length,
        seed: arguments.common.seed,
    };
    let mut session = arguments.session(plan.duration())?;
    let results = rivals::run(&plan, &mut session)?;
    let own: Vec<&str> = plan.congestion.iter().map(|name| name.name()).collect();
    let parameters = arguments.parameters(
        length,
        [
            ("rate_bps", json!(rate.0)),
            ("queue_bytes", json!(plan.queue_bytes)),
            ("congestion", json!(own)),
            ("peer_congestion", json!(arguments.peer_congestion())),
            ("competitor", json!(competitor.name())),
        ],
    );
    let title = format!("One bottleneck, shared with a {} flow of the kernel's", competitor.name());
    let table = fairness_table(&title, &results);
    let report = Report::new("throughput", arguments.link().name(), parameters, results);
    publish(&arguments.common, &report.under(session.end(), Vec::new()), &table)
}

/// Shows the results under a title; the key is what sets a variant against itself.
fn publish_results(
    arguments: &Arguments,
    (title, key): (&str, &str),
    parameters: Map<String, Value>,
    results: Vec<Repeated<ThroughputResult>>,
    conditions: Conditions,
) -> Result<(), BenchError> {
    let virtual_time = arguments.link() == LinkKind::Memory;
    let ratios = ratios(&results, key, virtual_time, conditions.noise_relative());
    let table = tables(title, &results, &ratios);
    let report =
        Report::new("throughput", arguments.link().name(), parameters, results).under(conditions, ratios);
    publish(&arguments.common, &report, &table)?;
    match report.results.iter().find(|result| result.goodput_bps <= 0.0 && result.variant != "smoltcp") {
        Some(result) => Err(BenchError::failed(format!(
            "{} delivered nothing at {}; see the table",
            result.variant,
            Value::Object(result.point.clone())
        ))),
        None => Ok(()),
    }
}
