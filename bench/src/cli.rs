//! The command line: what clap reads, and nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    all, cluster, connect, demo, detect, oob, packetdrill, pingpong, pump, report, scale, serve, throughput,
    top, truth,
};

/// Everything on the command line.
#[derive(Debug, Parser)]
#[command(name = "bench", version, about = "The measuring tool of Outrider", long_about = None)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands, one file each under `commands/`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Heartbeats under a saturating load on an in-process 1 Gbit/s cable, out of band and in order; needs no root
    Demo(demo::Arguments),
    /// The same experiment by link, rate, delay, queue, loss, congestion control and interval
    Oob(oob::Arguments),
    /// A node that waits for peers: a messenger that echoes messages, or plain TCP (`--bytes`)
    Serve(serve::Arguments),
    /// A messenger that dials a peer, loads it and watches its heartbeats
    Connect(connect::Arguments),
    /// What each design says when the consumer stops, the path is cut, the peer dies or is paused
    Truth(truth::Arguments),
    /// How soon a kill or a stall is named by interval, load and loss, and how often one is that is not there
    Detect(detect::Arguments),
    /// What a cluster's heartbeats cost on connections of their own and on the data connections
    Cluster(cluster::Arguments),
    /// Memory and cost of 1 to 100,000 connections, each with a heartbeat a second, on one core
    Scale(scale::Arguments),
    /// Bulk goodput, stalls and processor time per segment, beside smoltcp's TCP or the kernel's
    Throughput(throughput::Arguments),
    /// The raw port, without TCP: frames per second each way
    Pump(pump::Arguments),
    /// Round trips: the raw port, our TCP over it, and the kernel's TCP, in one run
    Pingpong(pingpong::Arguments),
    /// Runs packetdrill scripts against the engine, in virtual time
    Packetdrill(packetdrill::Arguments),
    /// Every experiment that this machine allows, into a folder of JSON files for `report`
    All(all::Arguments),
    /// What a running node does: its ports, shards and connections, live
    Top(top::Arguments),
    /// One self-contained HTML page with plots from a folder of JSON results
    Report(report::Arguments),
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Write the result as JSON to this file; `-` is standard output, and the table then goes to standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Seed of everything that is drawn: losses, initial sequence numbers, cookies
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// How long to measure, in seconds: each variant at each point of an experiment, or the life of a node
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
}

/// Shortest and longest measurement in seconds.
const SECONDS_MIN: f64 = 0.1;
const SECONDS_MAX: f64 = 86_400.0;

fn seconds(text: &str) -> Result<f64, String> {
    let wanted = format!("expected a number of seconds from {SECONDS_MIN} to {SECONDS_MAX}");
    let value: f64 = text.parse().map_err(|_| wanted.clone())?;
    if (SECONDS_MIN..=SECONDS_MAX).contains(&value) { Ok(value) } else { Err(wanted) }
}

/// The command that `line` gives.
#[cfg(test)]
pub(crate) fn parse(command: &str, line: &str) -> Command {
    let words = ["bench", command].into_iter().chain(line.split_whitespace());
    Cli::try_parse_from(words).expect("a test gives a line that is read").command
}

/// Asserts that `line` was refused as what cannot be honoured.
#[cfg(test)]
pub(crate) fn assert_usage<T: std::fmt::Debug>(line: &str, outcome: &Result<T, crate::error::BenchError>) {
    assert!(matches!(outcome, Err(crate::error::BenchError::Usage(_))), "{line}: {outcome:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_measurement_has_a_sensible_length() {
        assert_eq!(seconds("2.5"), Ok(2.5));
        for text in ["0", "-1", "NaN", "inf", "x", "1e9"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
