//! What the tests of the tool share: running it, and skipping where the machine does not allow a test.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::process::{Command, Output};

use serde_json::Value;

/// The tool under test.
pub(crate) fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bench"))
}

/// Runs the tool with the words of `line`.
pub(crate) fn run(line: &str) -> Output {
    bench().args(line.split_whitespace()).output().expect("the tool was built beside this test")
}

/// Standard error as text.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output as JSON.
pub(crate) fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

/// Whether this test may make network namespaces; says that it skips otherwise, and fails instead under CI.
pub(crate) fn may_use_namespaces() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id is part of every Linux");
    let root = String::from_utf8_lossy(&id.stdout).trim() == "0";
    if !root {
        assert!(std::env::var_os("CI").is_none(), "under CI nothing is skipped: run as root");
        println!("skipped: needs root");
    }
    root
}

/// Asserts that `result` is a heartbeat result as the contract has it, of an experiment in which everything came
/// through.
pub(crate) fn assert_heartbeat_result(result: &Value) {
    for key in ["goodput_bps", "cpu_seconds", "seconds"] {
        assert!(result[key].as_f64().is_some_and(|n| n > 0.0), "{key}: {result:#}");
    }
    let utilisation = result["link_utilisation"].as_f64().expect("the link has a rate");
    assert!(utilisation > 0.0 && utilisation < 1.05, "{result:#}");
    let heartbeat = &result["heartbeat"];
    for key in ["sent", "received"] {
        assert!(heartbeat[key].as_u64().is_some_and(|n| n > 0), "{key}: {result:#}");
    }
    assert!(heartbeat["superseded"].is_u64(), "{result:#}");
    assert!(heartbeat["received"].as_u64() <= heartbeat["sent"].as_u64(), "{result:#}");
    for histogram in ["one_way_us", "rtt_us"] {
        let keys = ["p50", "p90", "p99", "p999", "max"];
        let values: Vec<f64> =
            keys.iter().map(|key| heartbeat[histogram][key].as_f64().expect("a percentile")).collect();
        assert!(values[0] > 0.0 && values.is_sorted(), "{histogram}: {result:#}");
    }
    let occupancy = &result["occupancy_bytes"];
    assert!(occupancy["p50"].as_u64() <= occupancy["max"].as_u64(), "{result:#}");
    assert!(occupancy["max"].as_u64().is_some_and(|n| n > 0), "{result:#}");
}

/// Asserts that a command succeeded; shows what it said otherwise.
pub(crate) fn assert_success(line: &str, output: &Output) {
    assert!(output.status.success(), "{line}: {}", stderr(output));
}

/// Runs `story` on a thread with a network namespace of its own, which everything it starts shares and which vanishes
/// with them.
pub(crate) fn in_namespace(story: impl FnOnce() + Send + 'static) {
    let namespace = outrider_drivers::netns::NetNamespace::create().expect("root may make namespaces");
    namespace.run(story).expect("root may enter namespaces");
}
