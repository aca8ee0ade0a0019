//! An interrupt ends an experiment in order: what was finished is told, and the exit status says that it is not all.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use common::{bench, may_use_namespaces, stderr};
use serde_json::Value;

/// A folder of this test that is not there when it begins, and not when it ends well.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("outrider-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    folder
}

fn start(line: &str, json: &Path) -> Child {
    let mut command = bench();
    command.args(line.split_whitespace()).arg("--json").arg(json);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the tool was built beside this test")
}

/// Sends a signal to a child of ours, by its id.
fn signal(child: &Child, name: &str) {
    let sent =
        Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &child.id().to_string()]).status();
    assert!(sent.expect("every Linux has a shell").success());
}

/// Interrupts the command again and again, later each time, until a run was finished before the signal: how long that
/// takes is the machine's affair. Returns what the last one said.
fn interrupt(line: &str, name: &str, json: &Path) -> (Output, Value) {
    for doubling in 0..8 {
        let mut child = start(line, json);
        std::thread::sleep(Duration::from_millis(500 << doubling));
        assert!(child.try_wait().expect("a child of ours").is_none(), "{line}: it should take minutes");
        signal(&child, name);
        let output = child.wait_with_output().expect("a child of ours");
        if output.status.code().is_none() {
            // A machine so busy that the process did not even listen for signals yet.
            continue;
        }
        assert_eq!(output.status.code(), Some(130), "{line}: {:?} {}", output.status, stderr(&output));
        let written = std::fs::read(json).expect("the result is written");
        let report: Value = serde_json::from_slice(&written).expect("JSON");
        assert_eq!(report["interrupted"], true, "{report:#}");
        if report["results"].as_array().is_some_and(|results| !results.is_empty()) {
            return (output, report);
        }
    }
    panic!("{line}: no run was finished in two minutes");
}

#[test]
fn finished_runs_are_kept_and_the_result_says_that_it_is_not_all() {
    let folder = folder("interrupt");
    for (line, name) in [
        ("oob --seconds 0.2 --repeat 100 --loss 0,1%,2%", "INT"),
        ("throughput --seconds 0.1 --repeat 100", "TERM"),
        ("truth --seconds 0.5 --repeat 100 --grace 50ms --event path-cut", "INT"),
    ] {
        let (output, report) = interrupt(line, name, &folder.join("result.json"));
        let result = &report["results"][0];
        assert!(result["label"].is_string() && result["variant"].is_string(), "{result:#}");
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(told.contains("Interrupted") && told.contains(result["label"].as_str().unwrap()), "{told}");
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    }
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}

#[test]
fn a_lab_vanishes_with_the_interrupted_command() {
    if !may_use_namespaces() {
        return;
    }
    let folder = folder("interrupt-lab");
    common::in_namespace(move || {
        let links = || {
            let output = Command::new("ip").args(["-o", "link"]).output().expect("ip is installed");
            String::from_utf8_lossy(&output.stdout).lines().count()
        };
        let before = links();
        for link in ["tap", "kernel", "afxdp"] {
            let line = format!("oob --link {link} --variant oob --seconds 0.2 --repeat 100");
            interrupt(&line, "INT", &folder.join("result.json"));
        }
        assert_eq!(links(), before);
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
    });
}

#[test]
fn all_passes_the_signal_on_and_says_how_far_it_came() {
    let folder = folder("interrupt-all");
    let mut command = bench();
    command.args(["all", "--only", "oob,truth"]).arg(&folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the tool was built beside this test");
    // Its first experiment begins by making this file, and takes minutes.
    while !folder.join("oob.txt").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&child, "TERM");
    let output = child.wait_with_output().expect("a child of ours");
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let summary: Value =
        serde_json::from_slice(&std::fs::read(folder.join("all.json")).expect("written")).expect("JSON");
    let results = summary["results"].as_array().expect("a list");
    assert_eq!(results.len(), 1, "nothing is begun after the signal: {summary:#}");
    assert_eq!((&results[0]["variant"], &results[0]["status"]), (&"oob".into(), &"interrupted".into()));
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}
