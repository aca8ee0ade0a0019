//! `all`: every experiment that this machine allows, one after the other, into a folder.
//!
//! Each runs as a child process of its own, so that one that fails or hangs takes nothing with it.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use clap::{Args, CommandFactory};
use serde::Serialize;
use serde_json::json;

use crate::cli::Cli;
use crate::error::BenchError;
use crate::host::is_root;
use crate::node::now;
use crate::place::run_tool;
use crate::progress::Progress;
use crate::report::{Report, print_stdout, save};
use crate::stop::Stop;

/// Options of `all`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Folder for the results; made if it does not exist, and results of the same names in it are replaced
    #[arg(value_name = "DIR", default_value = "results")]
    folder: PathBuf,
    /// Shorter runs: under ten minutes altogether
    #[arg(long)]
    quick: bool,
    /// Seed of every experiment
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Only these experiments, by the names of their files (list)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
}

/// What an experiment needs besides this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Network namespaces, devices.
    Root,
    /// A program.
    Tool { name: &'static str, package: &'static str },
}

const IP: Need = Need::Tool { name: "ip", package: "iproute2" };
const TC: Need = Need::Tool { name: "tc", package: "iproute2" };
const ETHTOOL: Need = Need::Tool { name: "ethtool", package: "ethtool" };

/// One experiment.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// Of its files.
    name: &'static str,
    needs: &'static [Need],
    /// The command line.
    command: &'static str,
    /// What is added to it, or replaces its options, with `--quick`.
    quick: &'static str,
}

const LAB: &[Need] = &[Need::Root, IP, TC];
const AFXDP: &[Need] = &[Need::Root, IP, TC, ETHTOOL];

const STEPS: &[Step] = &[
    Step {
        name: "oob",
        needs: &[],
        command: "oob --rate 100mbit,300mbit,1gbit --variant oob,fifo,separate",
        quick: "--seconds 1",
    },
    Step {
        name: "oob-loss",
        needs: &[],
        command: "oob --loss 0,0.1%,1% --variant oob",
        quick: "--seconds 1",
    },
    Step {
        name: "oob-congestion",
        needs: &[],
        command: "oob --congestion bbr,cubic,dctcp --variant oob",
        quick: "--seconds 1",
    },
    Step { name: "oob-tap", needs: LAB, command: "oob --link tap", quick: "--seconds 1" },
    Step { name: "oob-afxdp", needs: AFXDP, command: "oob --link afxdp", quick: "--seconds 1" },
    Step {
        name: "oob-kernel",
        needs: LAB,
        command: "oob --link kernel --variant lowat,separate,fifo --congestion cubic",
        quick: "--seconds 1",
    },
    Step { name: "truth", needs: &[], command: "truth", quick: "--seconds 1" },
    Step {
        name: "detect",
        needs: &[],
        command: "detect --interval 10ms --loss 0,1% --load full --repeat 8",
        quick: "--repeat 3",
    },
    Step { name: "throughput", needs: &[], command: "throughput", quick: "--seconds 0.5" },
    Step {
        name: "throughput-connections",
        needs: &[],
        command: "throughput --connections 1,10000",
        quick: "--turn 64KiB,4KiB --pattern turn --seconds 0.5",
    },
    Step {
        name: "throughput-tap",
        needs: LAB,
        command: "throughput --link tap --loss 0,0.1%,1%",
        quick: "--loss 0,1% --peer-congestion cubic --seconds 0.5",
    },
    Step {
        name: "throughput-offload",
        needs: LAB,
        command: "throughput --link tap --offload on,off",
        quick: "--seconds 0.5",
    },
    Step {
        name: "throughput-afxdp",
        needs: AFXDP,
        command: "throughput --link afxdp",
        quick: "--seconds 0.5",
    },
    Step {
        name: "throughput-messages",
        needs: LAB,
        command: "throughput --link tap,kernel",
        quick: "--seconds 0.3",
    },
    Step { name: "pingpong-memory", needs: &[], command: "pingpong --link memory", quick: "--seconds 0.3" },
    Step { name: "pingpong-afxdp", needs: AFXDP, command: "pingpong --link afxdp", quick: "--seconds 0.3" },
    Step { name: "pump-memory", needs: &[], command: "pump --link memory", quick: "--seconds 0.2" },
    Step { name: "pump", needs: AFXDP, command: "pump --link tap,afxdp", quick: "--seconds 0.2" },
    Step { name: "scale", needs: &[], command: "scale", quick: "--connections 1,100,10000,100000" },
    Step { name: "cluster", needs: &[], command: "cluster --nodes 6,30,100", quick: "" },
];

/// How long an experiment may take: far more than it should.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
const PATIENCE_QUICK: Duration = Duration::from_secs(150);
/// How long one may take to end when told to.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// Between looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(50);

/// What became of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Done,
    Failed,
    Skipped,
    Interrupted,
}

/// One line of the summary.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    variant: &'static str,
    status: Status,
    /// Why it failed or was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    seconds: f64,
    command: String,
}

/// Runs them.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let steps = arguments.steps()?;
    let folder = &arguments.folder;
    std::fs::create_dir_all(folder).map_err(|error| {
        BenchError::failed(format!("cannot make {}: {error}; give another DIR", folder.display()))
    })?;
    let stop = Stop::on_signals()?;
    let progress = Progress::of_steps(steps.len());
    let mut outcomes = Vec::new();
    for step in &steps {
        progress.set(step.name);
        let outcome = arguments.take(step, &stop)?;
        progress.suspend(|| print_stdout(&outcome.told()))?;
        progress.step();
        let interrupted = outcome.status == Status::Interrupted;
        outcomes.push(outcome);
        if interrupted {
            break;
        }
    }
    drop(progress);
    let parameters = [("quick", json!(arguments.quick)), ("seed", json!(arguments.seed))];
    let parameters = parameters.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let report = Report::new("all", "", parameters, outcomes);
    save(&folder.join("all.json"), &report)?;
    print_stdout(&format!("next: bench report {}\n", folder.display()))?;
    if stop.is_raised() {
        return Err(BenchError::Interrupted);
    }
    let failed: Vec<&str> = of_status(&report.results, Status::Failed).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(BenchError::failed(format!(
        "{} of {} experiments failed: {}; see their .txt files in {}",
        failed.len(),
        report.results.len(),
        failed.join(", "),
        folder.display()
    )))
}

fn of_status(outcomes: &[Outcome], status: Status) -> impl Iterator<Item = &'static str> {
    outcomes.iter().filter(move |outcome| outcome.status == status).map(|outcome| outcome.variant)
}

impl Outcome {
    fn told(&self) -> String {
        let Outcome { variant, status, reason, seconds, .. } = self;
        let reason = reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        let word = format!("{status:?}").to_lowercase();
        if *status == Status::Skipped {
            format!("{variant:<20} {word}{reason}\n")
        } else {
            format!("{variant:<20} {word} after {seconds:.0} s{reason}\n")
        }
    }
}

impl Arguments {
    fn steps(&self) -> Result<Vec<Step>, BenchError> {
        let known = |name: &&String| STEPS.iter().any(|step| step.name == name.as_str());
        if let Some(unknown) = self.only.iter().find(|name| !known(name)) {
            let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
            return Err(BenchError::usage(format!(
                "--only {unknown} is no experiment; give one of {}",
                names.join(", ")
            )));
        }
        let wanted = |step: &&Step| self.only.is_empty() || self.only.iter().any(|name| name == step.name);
        Ok(STEPS.iter().filter(wanted).copied().collect())
    }

    /// Does a step, unless the machine does not allow it.
    fn take(&self, step: &Step, stop: &Stop) -> Result<Outcome, BenchError> {
        let json = self.folder.join(format!("{}.json", step.name));
        let words = words(step, self.quick, self.seed);
        let command = format!("bench {}", words.join(" "));
        let outcome =
            |status, reason, seconds| Outcome { variant: step.name, status, reason, seconds, command };
        // What an earlier run left would be taken for this one's.
        let _ = std::fs::remove_file(&json);
        if let Some(reason) = missing(step) {
            return Ok(outcome(Status::Skipped, Some(reason), 0.0));
        }
        let began = now();
        let text = self.folder.join(format!("{}.txt", step.name));
        let mut child = start(&words, &json, &text)?;
        let patience = if self.quick { PATIENCE_QUICK } else { PATIENCE };
        let ended = wait(&mut child, stop, patience)?;
        let seconds = (now() - began).as_secs_f64();
        Ok(match ended {
            _ if stop.is_raised() => outcome(Status::Interrupted, None, seconds),
            None => {
                let reason = format!("not done after {} s", patience.as_secs());
                outcome(Status::Failed, Some(reason), seconds)
            }
            Some(status) if status.success() => outcome(Status::Done, None, seconds),
            Some(status) => outcome(Status::Failed, Some(last_error(&text, status)), seconds),
        })
    }
}

/// The words of a step's command line. With `--quick` its options replace those of the same name.
fn words(step: &Step, quick: bool, seed: u64) -> Vec<String> {
    let mut words: Vec<&str> = step.command.split_whitespace().collect();
    let added: Vec<&str> = if quick { step.quick.split_whitespace().collect() } else { Vec::new() };
    for option in added.iter().filter(|word| word.starts_with("--")) {
        if let Some(at) = words.iter().position(|word| word == option) {
            words.drain(at..(at + 2).min(words.len()));
        }
    }
    let seed = seed.to_string();
    words.into_iter().chain(added).chain(["--seed", &seed]).map(str::to_owned).collect()
}

/// Why a step cannot be done here.
fn missing(step: &Step) -> Option<String> {
    let name = step.command.split_whitespace().next().unwrap_or_default();
    if Cli::command().find_subcommand(name).is_none() {
        return Some(format!("this build has no command '{name}'"));
    }
    step.needs.iter().find_map(|need| match *need {
        Need::Root if is_root() => None,
        Need::Root => Some("needs root".to_owned()),
        Need::Tool { name, package } => {
            let found = std::env::var_os("PATH")
                .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()));
            (!found).then(|| format!("needs {name}; install the package {package}"))
        }
    })
}

fn start(words: &[String], json: &Path, text: &Path) -> Result<Child, BenchError> {
    let cannot = |what: &str, error: &std::io::Error| BenchError::failed(format!("cannot {what}: {error}"));
    let output = File::create(text).map_err(|error| cannot(&format!("write {}", text.display()), &error))?;
    let errors = output.try_clone().map_err(|error| cannot("share a file", &error))?;
    let program = std::env::current_exe().map_err(|error| cannot("find this program", &error))?;
    Command::new(program)
        .args(words)
        .arg("--json")
        .arg(json)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        // A terminal's interrupt comes to this process, which passes it on: a child that got both would end at once.
        .process_group(0)
        .spawn()
        .map_err(|error| cannot("start an experiment", &error))
}

/// Waits for the child; `None` if it was ended because it took too long. Passes a signal on.
fn wait(child: &mut Child, stop: &Stop, patience: Duration) -> Result<Option<ExitStatus>, BenchError> {
    let unable =
        |error: std::io::Error| BenchError::failed(format!("cannot wait for an experiment: {error}"));
    let mut deadline = now() + patience;
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait().map_err(unable)? {
            return Ok((!told || stop.is_raised()).then_some(status));
        }
        let late = now() >= deadline;
        if late && told {
            child.kill().and_then(|()| child.wait()).map_err(unable)?;
            return Ok(None);
        }
        if (late || stop.is_raised()) && !told {
            told = true;
            deadline = now() + END_PATIENCE;
            // Should it have ended by itself meanwhile, there is nobody to be told.
            let _ = run_tool("sh", &["-c", "kill -TERM \"$0\"", &child.id().to_string()], "dash");
        }
        std::thread::sleep(LOOK);
    }
}

/// The last error that a child wrote.
fn last_error(text: &Path, status: ExitStatus) -> String {
    let written = std::fs::read_to_string(text).unwrap_or_default();
    let error = written.lines().rev().find_map(|line| line.strip_prefix("error: "));
    error.map_or_else(|| status.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn every_command_line_is_one_that_this_program_reads() {
        for step in STEPS {
            if missing(step).is_some_and(|reason| reason.contains("has no command")) {
                continue;
            }
            for quick in [false, true] {
                let words = words(step, quick, 7);
                let line = std::iter::once("bench".to_owned()).chain(words);
                assert!(Cli::try_parse_from(line).is_ok(), "{} (quick: {quick})", step.name);
            }
        }
    }

    #[test]
    fn quick_options_replace_those_of_the_same_name() {
        let step = Step {
            name: "x",
            needs: &[],
            command: "oob --loss 0,1% --seconds 5",
            quick: "--seconds 1 --loss 0",
        };
        assert_eq!(words(&step, true, 2).join(" "), "oob --seconds 1 --loss 0 --seed 2");
        assert_eq!(words(&step, false, 2).join(" "), "oob --loss 0,1% --seconds 5 --seed 2");
    }

    #[test]
    fn what_is_missing_is_named() {
        let tool = Need::Tool { name: "no-such-tool", package: "nowhere" };
        let needs: &'static [Need] = Box::leak(Box::new([tool]));
        let step = Step { name: "x", needs, command: "oob", quick: "" };
        assert_eq!(missing(&step).as_deref(), Some("needs no-such-tool; install the package nowhere"));
        let step = Step { name: "x", needs: &[], command: "teleport", quick: "" };
        assert_eq!(missing(&step).as_deref(), Some("this build has no command 'teleport'"));
    }

    #[test]
    fn names_of_files_are_unique() {
        for (index, step) in STEPS.iter().enumerate() {
            assert!(STEPS[..index].iter().all(|other| other.name != step.name), "{}", step.name);
        }
    }
}
