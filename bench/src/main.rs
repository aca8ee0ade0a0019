//! The measuring tool of Outrider.
//!
//! Contract: every command prints a table for people, writes JSON with `--json`, shows progress on a terminal only,
//! ends by itself or on SIGINT or SIGTERM with what was finished, leaves nothing behind, and exits with 0 (done), 1 (the
//! experiment failed), 2 (bad arguments) or 130 (interrupted). An error is one line on standard error: what, where, what
//! to do.

#![forbid(unsafe_code)]

mod afxdp_spec;
mod cli;
mod cluster;
mod commands;
mod error;
mod host;
mod lab;
mod measure;
mod messages;
mod node;
mod noise;
mod packetdrill;
mod page;
#[cfg(feature = "peers")]
mod peers;
mod pingpong;
mod place;
mod progress;
mod pump;
mod report;
mod runs;
mod scale;
mod settings;
mod stop;
mod table;
mod throughput;
mod top;
mod truth;
mod under_load;
mod units;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use outrider_drivers::allocation::CountingAllocator;

use crate::cli::{Cli, Command};
use crate::error::{BenchError, one_line};

/// Counts what is allocated where an experiment asks for it, and only then.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let outcome = match &cli.command {
        Command::Demo(arguments) => commands::demo::run(arguments),
        Command::Oob(arguments) => commands::oob::run(arguments),
        Command::Serve(arguments) => commands::serve::run(arguments),
        Command::Connect(arguments) => commands::connect::run(arguments),
        Command::Truth(arguments) => commands::truth::run(arguments),
        Command::Detect(arguments) => commands::detect::run(arguments),
        Command::Cluster(arguments) => commands::cluster::run(arguments),
        Command::Scale(arguments) => commands::scale::run(arguments),
        Command::Throughput(arguments) => commands::throughput::run(arguments),
        Command::Pump(arguments) => commands::pump::run(arguments),
        Command::Pingpong(arguments) => commands::pingpong::run(arguments),
        Command::Packetdrill(arguments) => commands::packetdrill::run(arguments),
        Command::All(arguments) => commands::all::run(arguments),
        Command::Top(arguments) => commands::top::run(arguments),
        Command::Report(arguments) => commands::report::run(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&error.to_string()));
            error.exit_code()
        }
    }
}

/// Prints help where it was asked for; otherwise says in one line what is wrong with the arguments.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            eprintln!("error: no command given; try 'bench --help', or 'bench demo'");
            BenchError::usage("").exit_code()
        }
        _ => {
            let text = error.to_string();
            let told = text.split("\nUsage:").next().unwrap_or(&text);
            let told = told.split("\nFor more information").next().unwrap_or(told);
            eprintln!("{}; try --help", one_line(told));
            BenchError::usage("").exit_code()
        }
    }
}
