//! `demo` and `oob` do what the contract of their output says.

mod common;

use common::{assert_heartbeat_result, bench, json, may_use_namespaces, run, stderr};
use serde_json::Value;

fn variants(report: &Value) -> Vec<&str> {
    report["results"].as_array().expect("a list").iter().filter_map(|r| r["variant"].as_str()).collect()
}

#[test]
fn the_demo_gives_both_variants_and_their_ratio() {
    let output = run("demo --seconds 0.5 --repeat 2 --json -");
    let report = json(&output);
    assert_eq!(report["experiment"], "demo");
    assert_eq!(report["link"], "memory");
    assert!(report["host"]["cpus"].as_u64().is_some_and(|n| n > 0));
    assert!(report["host"]["kernel"].is_string() && report["host"]["commit"].is_string());
    assert_eq!(report["parameters"]["rate_bps"], 1_000_000_000);
    assert_eq!(report["parameters"]["seed"], 1);
    assert_eq!(variants(&report), ["oob", "fifo"]);
    for result in report["results"].as_array().expect("a list") {
        assert_heartbeat_result(result);
    }
    assert_eq!(report["ratios"][0]["of"], "fifo/oob");
    // Ops that are due together ride together; a busy machine may register them apart, but never more than three.
    let parts = report["results"][0]["heartbeat"]["parts_per_message"].as_f64().expect("a number");
    assert!((1.0..=3.0).contains(&parts), "{parts}");
    // With JSON on standard output the table goes to standard error, and a pipe sees no progress.
    let told = stderr(&output);
    assert!(told.contains("Heartbeat delay") && told.contains("fifo/oob"), "{told}");
    assert!(!told.contains('\r') && !told.contains("goodput at"), "{told}");
}

#[test]
fn a_list_gives_one_result_per_value_named_by_it() {
    let folder = std::env::temp_dir().join(format!("outrider-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    let file = folder.join("oob.json");
    let output = bench()
        .args("oob --rate 200mbit --loss 0,0.5% --variant oob --seconds 0.5 --repeat 1 --json".split(' '))
        .arg(&file)
        .output()
        .expect("the tool was built beside this test");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Heartbeat delay"));
    let report: Value = serde_json::from_slice(&std::fs::read(&file).expect("written")).expect("JSON");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    let results = report["results"].as_array().expect("a list");
    assert_eq!(results.len(), 2);
    assert_eq!(results[0]["loss"], 0.0);
    assert_eq!(results[1]["loss"], 0.005);
    assert!(results[1]["retransmits"].as_u64().is_some_and(|n| n > 0), "{report:#}");
    results.iter().for_each(assert_heartbeat_result);
}

#[test]
fn the_same_runs_over_tap_devices() {
    if !may_use_namespaces() {
        return;
    }
    let report = json(&run("oob --link tap --rate 200mbit --loss 0,0.5% --seconds 1 --repeat 1 --json -"));
    assert_eq!(report["link"], "tap");
    let results = report["results"].as_array().expect("a list");
    assert_eq!(variants(&report), ["oob", "fifo", "oob", "fifo"]);
    results.iter().for_each(assert_heartbeat_result);
    assert!(results[2]["retransmits"].as_u64().is_some_and(|n| n > 0), "{report:#}");
}
