//! `all` goes on when an experiment fails, names what it left out and why, and `report` makes a page of what it wrote.

mod common;

use common::{bench, stderr};
use serde_json::Value;

fn status<'a>(summary: &'a Value, name: &str) -> &'a Value {
    let results = summary["results"].as_array().expect("a list");
    results.iter().find(|result| result["variant"] == name).unwrap_or_else(|| panic!("{name}: {summary:#}"))
}

#[test]
fn a_missing_tool_is_named_and_a_failure_does_not_end_the_rest() {
    let folder = std::env::temp_dir().join(format!("outrider-all-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    // It cannot write its result there, so it fails before it measures anything.
    std::fs::create_dir_all(folder.join("detect.json")).expect("a folder for temporary files");
    let output = bench()
        .args(["all", "--quick", "--only", "detect,oob-loss,throughput-offload"])
        .arg(&folder)
        // No tools are found there.
        .env("PATH", "/nonexistent")
        .output()
        .expect("the tool was built beside this test");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("1 of 3 experiments failed: detect"), "{}", stderr(&output));
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(told.lines().count(), 4, "a line for each, and what to do next: {told}");
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join(name)).expect("written")).expect("JSON")
    };
    let summary = read("all.json");
    assert_eq!(summary["experiment"], "all");
    assert_eq!(status(&summary, "oob-loss")["status"], "done");
    let failed = status(&summary, "detect");
    assert_eq!(failed["status"], "failed");
    assert!(failed["reason"].as_str().is_some_and(|reason| reason.contains("detect.json")), "{failed:#}");
    let skipped = status(&summary, "throughput-offload");
    assert_eq!(skipped["status"], "skipped");
    let reason = skipped["reason"].as_str().expect("a reason");
    assert!(reason.contains("needs root") || reason.contains("iproute2"), "{reason}");
    assert_eq!(read("oob-loss.json")["experiment"], "oob");

    let output = bench().arg("report").arg(&folder).output().expect("the tool was built beside this test");
    assert!(output.status.success(), "{}", stderr(&output));
    let page = std::fs::read_to_string(folder.join("report.html")).expect("written");
    assert!(page.contains("iproute2") || page.contains("needs root"), "what was left out is on the page");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}
