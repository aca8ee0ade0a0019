//! The tables `[transport.kernel]` and `[transport.userspace]`.

use std::net::IpAddr;

use outrider_stack::net::StackConfig;
use outrider_stack::shard::{GroupConfig, Polling, ShardConfig};
use outrider_stack::tcp::connection::{Keepalive, MtuProbing};
use serde::Deserialize;
use toml::Spanned;

use super::Controller;
use super::values::{Network, Size, Span};
use crate::transport::KernelConfig;

/// What shall carry the connections of a messenger, as a [`super::Config`] says.
#[derive(Clone)]
pub enum TransportConfig {
    /// The kernel's sockets: for [`crate::transport::Kernel::start`].
    Kernel(KernelConfig),
    /// Outrider's own TCP, on ports that the file does not know: for [`crate::transport::Userspace::on_ports`].
    Userspace(Box<GroupConfig>),
}

impl core::fmt::Debug for TransportConfig {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            TransportConfig::Kernel(config) => config.fmt(f),
            TransportConfig::Userspace(config) => config.shard.stack.fmt(f),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TransportTable {
    kernel: Option<KernelTable>,
    userspace: Option<Spanned<UserspaceTable>>,
}

impl TransportTable {
    /// The one that is there; where the trouble is if both are.
    pub(super) fn choose(self) -> Result<Option<TransportConfig>, (usize, String)> {
        match (self.kernel, self.userspace) {
            (None, None) => Ok(None),
            (Some(kernel), None) => Ok(Some(TransportConfig::Kernel(kernel.config()))),
            (None, Some(table)) => Ok(Some(TransportConfig::Userspace(Box::new(table.into_inner().group())))),
            (Some(_), Some(table)) => {
                let problem =
                    "both `transport.kernel` and `transport.userspace`: a messenger has one transport";
                Err((table.span().start, problem.to_owned()))
            }
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KernelTable {
    workers: Option<usize>,
    unsent_low_water: Option<Size>,
    chunk_time: Option<Span>,
    chunk_min: Option<Size>,
    chunk_max: Option<Size>,
    congestion: Option<String>,
    connect_timeout: Option<Span>,
    user_timeout: Option<Span>,
    finish_timeout: Option<Span>,
    spin: Option<Span>,
}

impl KernelTable {
    fn config(self) -> KernelConfig {
        let KernelTable {
            workers,
            unsent_low_water,
            chunk_time,
            chunk_min,
            chunk_max,
            congestion,
            connect_timeout,
            user_timeout,
            finish_timeout,
            spin,
        } = self;
        let default = KernelConfig::default();
        let low_water = |size: Size| u32::try_from(size.0).unwrap_or(u32::MAX);
        KernelConfig {
            workers: workers.unwrap_or(default.workers),
            unsent_low_water_bytes: unsent_low_water.map(low_water).or(default.unsent_low_water_bytes),
            chunk_time: chunk_time.map_or(default.chunk_time, |span| span.0),
            chunk_bytes_min: chunk_min.map_or(default.chunk_bytes_min, Size::bytes),
            chunk_bytes_max: chunk_max.map_or(default.chunk_bytes_max, Size::bytes),
            congestion: congestion.or(default.congestion),
            connect_timeout: connect_timeout.map_or(default.connect_timeout, |span| span.0),
            user_timeout: user_timeout.map_or(default.user_timeout, |span| span.0),
            finish_timeout: finish_timeout.map_or(default.finish_timeout, |span| span.0),
            spin: spin.map_or(default.spin, |span| span.0),
        }
    }
}

/// How shards wait.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Waiting {
    Busy,
    Adaptive,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Probing {
    Off,
    BlackHole,
    Always,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeepaliveTable {
    idle: Span,
    interval: Span,
    probes_max: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserspaceTable {
    addresses: Vec<Network>,
    #[serde(default)]
    gateways: Vec<IpAddr>,
    polling: Option<Waiting>,
    spin: Option<Span>,
    #[serde(default)]
    cores: Vec<usize>,
    seed: Option<u64>,
    congestion: Option<Controller>,
    ecn: Option<bool>,
    mtu_probing: Option<Probing>,
    receive_window_max: Option<Size>,
    rto_initial: Option<Span>,
    rto_min: Option<Span>,
    user_timeout: Option<Span>,
    ack_delay_max: Option<Span>,
    syn_retries: Option<u32>,
    time_wait: Option<Span>,
    keepalive: Option<KeepaliveTable>,
    connections_max: Option<usize>,
    port_queue_max: Option<Span>,
}

impl UserspaceTable {
    fn group(self) -> GroupConfig {
        let stack = self.stack();
        let mut shard = ShardConfig::new("userspace", stack);
        shard.polling = match (self.polling, self.spin, shard.polling) {
            (Some(Waiting::Busy), _, _) => Polling::Busy,
            (_, Some(Span(spin)), _) => Polling::Adaptive { spin },
            (_, None, default) => default,
        };
        shard.seed = self.seed.unwrap_or(shard.seed);
        GroupConfig { cores: self.cores, ..GroupConfig::new(shard) }
    }

    fn stack(&self) -> StackConfig {
        let addresses: Vec<_> =
            self.addresses.iter().map(|Network(address, prefix)| (*address, *prefix)).collect();
        let mut stack = StackConfig::new(addresses);
        stack = self.gateways.iter().fold(stack, |stack, gateway| stack.with_gateway(*gateway));
        stack.connections_max = self.connections_max.unwrap_or(stack.connections_max);
        stack.port_queue_max = self.port_queue_max.map_or(stack.port_queue_max, |span| span.0);
        let tcp = &mut stack.tcp;
        tcp.algorithm = self.congestion.map_or(tcp.algorithm, |Controller(algorithm)| algorithm);
        tcp.ecn = self.ecn.unwrap_or(tcp.ecn);
        tcp.mtu_probing = match self.mtu_probing {
            None => tcp.mtu_probing,
            Some(Probing::Off) => MtuProbing::Off,
            Some(Probing::BlackHole) => MtuProbing::BlackHole,
            Some(Probing::Always) => MtuProbing::Always,
        };
        let window = |size: Size| u32::try_from(size.0).unwrap_or(u32::MAX);
        tcp.receive_window_max = self.receive_window_max.map_or(tcp.receive_window_max, window);
        tcp.rto_initial = self.rto_initial.map_or(tcp.rto_initial, |span| span.0);
        tcp.rto_min = self.rto_min.map_or(tcp.rto_min, |span| span.0);
        tcp.user_timeout = self.user_timeout.map_or(tcp.user_timeout, |span| span.0);
        tcp.ack_delay_max = self.ack_delay_max.map_or(tcp.ack_delay_max, |span| span.0);
        tcp.syn_retries = self.syn_retries.unwrap_or(tcp.syn_retries);
        tcp.time_wait = self.time_wait.map_or(tcp.time_wait, |span| span.0);
        tcp.keepalive = self.keepalive.map_or(tcp.keepalive, |table| {
            let KeepaliveTable { idle: Span(idle), interval: Span(interval), probes_max } = table;
            Some(Keepalive { idle, interval, probes_max })
        });
        stack
    }
}
