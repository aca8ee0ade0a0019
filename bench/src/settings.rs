//! `--config`: what a node is besides its place, by a file.

use std::path::PathBuf;

use clap::Args;
use outrider_messenger::config::{Config, TransportConfig};
use outrider_messenger::transport::KernelConfig;
use outrider_stack::shard::{GroupConfig, ShardConfig};
use outrider_stack::tcp::connection::Config as TcpConfig;

use crate::error::BenchError;

/// The option.
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Messenger and transport as a TOML file says (docs/outrider.example.toml); the options say where the node is
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Settings {
    /// Reads the file, if there is one. `on_kernel`: the node is on the kernel's sockets.
    pub(crate) fn read(&self, on_kernel: bool) -> Result<Option<Config>, BenchError> {
        let Some(path) = &self.config else { return Ok(None) };
        let config = Config::from_file(path).map_err(|error| BenchError::usage(error.to_string()))?;
        let wrong = match config.transport() {
            Some(TransportConfig::Kernel(_)) if !on_kernel => "transport.kernel; it needs --kernel",
            Some(TransportConfig::Userspace(_)) if on_kernel => "transport.userspace; it needs --port",
            _ => return Ok(Some(config)),
        };
        Err(BenchError::usage(format!("{} has {wrong}", path.display())))
    }
}

/// The kernel's parameters, by the file or by default.
pub(crate) fn kernel(config: Option<&Config>) -> KernelConfig {
    match config.and_then(Config::transport) {
        Some(TransportConfig::Kernel(kernel)) => kernel.clone(),
        _ => KernelConfig::default(),
    }
}

/// What the file says of the shards, if it does.
pub(crate) fn userspace(config: Option<&Config>) -> Option<&GroupConfig> {
    match config.and_then(Config::transport) {
        Some(TransportConfig::Userspace(group)) => Some(group),
        _ => None,
    }
}

/// Makes of `shard`, which knows its place, what the file says: all but addresses, cores, and what the port's MTU fixes.
pub(crate) fn adjust(shard: &mut ShardConfig, file: &GroupConfig) {
    let stack = &mut shard.stack;
    let segment_size_max = stack.tcp.segment_size_max;
    stack.tcp = TcpConfig { segment_size_max, ..file.shard.stack.tcp.clone() };
    stack.connections_max = file.shard.stack.connections_max;
    stack.port_queue_max = file.shard.stack.port_queue_max;
}
