//! Configuration by a TOML file: everything that [`MessengerBuilder`] takes but code.
//!
//! Every key may be left out: then it is as the builder has it. A key that there is not, and a value that makes no
//! sense, are refused with line, column and what would be right. `docs/outrider.example.toml` has every key.

mod transport;
mod values;

#[cfg(test)]
mod tests;

use core::fmt;
use core::str::FromStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use outrider_stack::tcp::congestion::Algorithm;
use serde::Deserialize;

use crate::api::{MessengerBuilder, ThrottleLimits};
use crate::health::HealthConfig;
use crate::inject::InjectConfig;
use crate::link::Backoff;
use crate::name::{EntityKind, EntityName};
pub use transport::TransportConfig;
use transport::TransportTable;
use values::{Chance, Limit, NamedPolicy, Size, Span, Text};

/// What a file says.
///
/// [`MessengerBuilder::configure`] gives it to a messenger; [`Self::transport`] says what shall carry its connections.
#[derive(Clone, Debug)]
pub struct Config {
    file: File,
    transport: Option<TransportConfig>,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something in it is not TOML, not a key, or not a value of its key.
    #[error("{}{place}: {problem}", Prefix(.path))]
    Wrong {
        /// Which file, if it was one.
        path: Option<PathBuf>,
        /// Where.
        place: Place,
        /// What, and what would be right.
        problem: String,
    },
}

/// A place in a text, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character within it.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

struct Prefix<'a>(&'a Option<PathBuf>);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(path) => write!(f, "{}: ", path.display()),
            None => Ok(()),
        }
    }
}

impl Place {
    fn of(text: &str, at: usize) -> Place {
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    pub fn from_toml(text: &str) -> Result<Config, ConfigError> {
        let wrong = |at: usize, problem: String| ConfigError::Wrong {
            path: None,
            place: Place::of(text, at),
            problem,
        };
        let mut file: File = toml::from_str(text)
            .map_err(|error| wrong(error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
        let transport = match file.transport.take() {
            Some(table) => table.choose().map_err(|(at, problem)| wrong(at, problem))?,
            None => None,
        };
        Ok(Config { file, transport })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Config, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Config::from_toml(&text).map_err(|error| match error {
            ConfigError::Wrong { place, problem, .. } => {
                ConfigError::Wrong { path: Some(path.to_owned()), place, problem }
            }
            error @ ConfigError::Read { .. } => error,
        })
    }

    /// Who the messenger is, if the file says so.
    pub fn name(&self) -> Option<EntityName> {
        self.file.name.map(|Named(name)| name)
    }

    /// What shall carry the connections, if the file says so.
    pub fn transport(&self) -> Option<&TransportConfig> {
        self.transport.as_ref()
    }

    /// Gives `builder` all that the file says of a messenger.
    pub(crate) fn apply(&self, mut builder: MessengerBuilder) -> MessengerBuilder {
        let file = &self.file;
        builder = given(builder, file.nonce, MessengerBuilder::nonce);
        builder = file.bind.iter().fold(builder, |builder, address| builder.bind(*address));
        builder = given(builder, file.dispatch_threads, MessengerBuilder::dispatch_threads);
        builder = given(builder, file.default_policy, |b, NamedPolicy(policy)| b.default_policy(policy));
        builder = given(builder, file.send_budget, |b, size| b.send_budget_bytes(size.bytes()));
        builder = given(builder, file.receive_credit, |b, size| b.receive_credit_bytes(size.bytes()));
        builder = given(builder, file.message_max, |b, size| b.message_bytes_max(size.bytes()));
        builder = given(builder, file.handshake_timeout, |b, Span(limit)| b.handshake_timeout(limit));
        builder = given(builder, file.idle_timeout, |b, Limit(limit)| b.idle_timeout(limit));
        builder = given(builder, file.server_standby_max, |b, Span(limit)| b.server_standby_max(limit));
        builder = given(builder, file.dispatch_throttle, |b, limits| b.dispatch_throttle(limits.limits()));
        for (kind, peers) in file.peers.by_kind() {
            builder = given(builder, peers.policy, |b, NamedPolicy(policy)| b.policy(kind, policy));
            builder = given(builder, peers.throttle, |b, limits| b.throttle(kind, limits.limits()));
        }
        builder = given(builder, file.backoff.as_ref(), |b, table| b.backoff(table.backoff()));
        builder = given(builder, file.health.as_ref(), |b, table| b.health(table.config()));
        given(builder, file.inject.as_ref(), |b, table| b.inject(table.config()))
    }
}

/// Hands on what the file has.
fn given<T>(
    builder: MessengerBuilder,
    value: Option<T>,
    set: impl FnOnce(MessengerBuilder, T) -> MessengerBuilder,
) -> MessengerBuilder {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    name: Option<Named>,
    nonce: Option<u64>,
    bind: Vec<SocketAddr>,
    dispatch_threads: Option<usize>,
    default_policy: Option<NamedPolicy>,
    send_budget: Option<Size>,
    receive_credit: Option<Size>,
    message_max: Option<Size>,
    handshake_timeout: Option<Span>,
    idle_timeout: Option<Limit>,
    server_standby_max: Option<Span>,
    dispatch_throttle: Option<ThrottleTable>,
    peers: PeersTable,
    backoff: Option<BackoffTable>,
    health: Option<HealthTable>,
    inject: Option<InjectTable>,
    transport: Option<TransportTable>,
}

/// An entity's name.
#[derive(Clone, Copy, Debug)]
struct Named(EntityName);

impl FromStr for Named {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().map(Named).map_err(|_| ())
    }
}

impl Text for Named {
    const EXPECTED: &'static str = "KIND.NUMBER with KIND one of mon, mds, osd, client, mgr";
}

/// A congestion controller's name.
#[derive(Clone, Copy, Debug)]
struct Controller(Algorithm);

impl FromStr for Controller {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().map(Controller).map_err(|_| ())
    }
}

impl Text for Controller {
    const EXPECTED: &'static str = "bbr, cubic or dctcp";
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ThrottleTable {
    bytes: Size,
    messages: u64,
}

impl ThrottleTable {
    fn limits(self) -> ThrottleLimits {
        ThrottleLimits { bytes: self.bytes.0, messages: self.messages }
    }
}

/// What holds for peers of a kind.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PeerTable {
    policy: Option<NamedPolicy>,
    throttle: Option<ThrottleTable>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PeersTable {
    mon: PeerTable,
    mds: PeerTable,
    osd: PeerTable,
    client: PeerTable,
    mgr: PeerTable,
}

impl PeersTable {
    fn by_kind(&self) -> [(EntityKind, PeerTable); 5] {
        let PeersTable { mon, mds, osd, client, mgr } = *self;
        [
            (EntityKind::Mon, mon),
            (EntityKind::Mds, mds),
            (EntityKind::Osd, osd),
            (EntityKind::Client, client),
            (EntityKind::Mgr, mgr),
        ]
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BackoffTable {
    min: Option<Span>,
    max: Option<Span>,
}

impl BackoffTable {
    fn backoff(&self) -> Backoff {
        let BackoffTable { min, max } = self;
        let default = Backoff::default();
        Backoff { min: min.map_or(default.min, |min| min.0), max: max.map_or(default.max, |max| max.0) }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HealthTable {
    silence_suspicion: Option<f64>,
    stalled_after: Option<Span>,
    congested_after: Option<Span>,
}

impl HealthTable {
    fn config(&self) -> HealthConfig {
        let HealthTable { silence_suspicion, stalled_after, congested_after } = self;
        let default = HealthConfig::default();
        HealthConfig {
            silence_suspicion: silence_suspicion.unwrap_or(default.silence_suspicion),
            stalled_after: stalled_after.map_or(default.stalled_after, |span| span.0),
            congested_after: congested_after.map_or(default.congested_after, |span| span.0),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct InjectTable {
    seed: Option<u64>,
    socket_failures: Option<u32>,
    delay_probability: Option<Chance>,
    delay_max: Option<Span>,
    dropped_pings: Option<Chance>,
    internal_delay_probability: Option<Chance>,
    internal_delay_max: Option<Span>,
}

impl InjectTable {
    fn config(&self) -> InjectConfig {
        let InjectTable {
            seed,
            socket_failures,
            delay_probability,
            delay_max,
            dropped_pings,
            internal_delay_probability,
            internal_delay_max,
        } = self;
        let chance = |given: &Option<Chance>| given.map_or(0.0, |chance| chance.0);
        let time = |given: &Option<Span>| given.map_or(core::time::Duration::ZERO, |span| span.0);
        InjectConfig {
            seed: seed.unwrap_or_default(),
            socket_failures: socket_failures.unwrap_or_default(),
            delay_probability: chance(delay_probability),
            delay_max: time(delay_max),
            dropped_pings: chance(dropped_pings),
            internal_delay_probability: chance(internal_delay_probability),
            internal_delay_max: time(internal_delay_max),
        }
    }
}
