//! `truth` says what the contract of its output promises, and the designs what they can know.

mod common;

use common::{json, may_use_namespaces, run, stderr};
use serde_json::Value;

/// The result of a variant for an event.
fn of<'a>(report: &'a Value, event: &str, variant: &str) -> &'a Value {
    let results = report["results"].as_array().expect("a list");
    let found = results.iter().find(|result| result["event"] == event && result["variant"] == variant);
    found.unwrap_or_else(|| panic!("{event}, {variant}: {report:#}"))
}

fn count(result: &Value, key: &str) -> u64 {
    result[key].as_u64().unwrap_or_else(|| panic!("{key}: {result:#}"))
}

/// Asserts that the verdict was `wanted`, within a bound that a crowded machine keeps too.
fn assert_told(result: &Value, wanted: &str) {
    assert_eq!(result["verdict"], wanted, "{result:#}");
    assert_eq!(result["expected"], wanted, "{result:#}");
    let intervals = result["verdict_after_intervals"].as_f64().expect("a number");
    assert!(intervals > 0.0 && intervals < 20.0, "{result:#}");
    let micros = result["verdict_after_us"].as_f64().expect("a number");
    assert!((micros / 20_000.0 - intervals).abs() < 0.001, "{result:#}");
}

/// Asserts that nothing was said, and that nearly every heartbeat was answered meanwhile.
fn assert_green(result: &Value) {
    assert!(result["verdict"].is_null() && result["verdict_after_us"].is_null(), "{result:#}");
    assert!(count(result, "answered") * 2 > count(result, "sent"), "{result:#}");
}

/// Intervals long enough that a crowded machine keeps them.
const SETTING: &str = "--seconds 1.5 --rate 100mbit --interval 20ms --grace 370ms --json -";

#[test]
fn heartbeats_on_the_data_connection_name_each_fault_and_separate_ones_do_not() {
    let output = run(&format!("truth {SETTING}"));
    let report = json(&output);
    assert_eq!((&report["experiment"], &report["link"]), (&"truth".into(), &"memory".into()));
    assert_eq!(report["parameters"]["grace_us"], 370_000.0);
    assert_eq!(report["results"].as_array().map(Vec::len), Some(12));
    assert_told(of(&report, "consumer stopped", "oob"), "consumer stalled");
    let during = &of(&report, "consumer stopped", "oob")["heartbeat_during"];
    assert!(
        during["one_way_us"]["p50"].as_f64().is_some_and(|p50| p50 > 0.0),
        "heartbeats go on: {during:#}"
    );
    for event in ["path cut", "way there cut", "way back cut", "peer killed", "peer paused"] {
        assert_told(of(&report, event, "oob"), "silent");
        assert_eq!(count(of(&report, event, "oob"), "answered"), 0, "{event}");
    }
    for event in ["consumer stopped", "path cut", "way there cut", "way back cut"] {
        assert_green(of(&report, event, "separate"));
    }
    for event in ["peer killed", "peer paused"] {
        assert_eq!(of(&report, event, "separate")["verdict"], "silent");
    }
    let told = stderr(&output);
    assert!(told.contains("consumer stopped, oob") && told.contains("all is well"), "{told}");
}

#[test]
fn the_kernels_sockets_are_cut_by_the_firewall_and_heartbeats_beside_them_stay_green() {
    if !may_use_namespaces() {
        return;
    }
    let events = "--event path-cut,peer-killed";
    let report = json(&run(&format!("truth {SETTING} --link kernel --variant lowat,separate {events}")));
    assert_told(of(&report, "path cut", "lowat"), "silent");
    assert_told(of(&report, "peer killed", "lowat"), "silent");
    assert_green(of(&report, "path cut", "separate"));
    assert_eq!(of(&report, "peer killed", "separate")["verdict"], "silent");
}

#[test]
fn detect_counts_trials_and_misses_and_false_positives() {
    let options = "--interval 20ms --loss 0 --load full --rate 100mbit --repeat 2 --grace 370ms --json -";
    let report = json(&run(&format!("detect {options}")));
    assert_eq!(report["experiment"], "detect");
    for (event, variant, missed) in [
        ("peer killed", "oob", 0),
        ("peer killed", "separate", 0),
        ("consumer stopped", "oob", 0),
        ("consumer stopped", "separate", 2),
    ] {
        let result = of(&report, event, variant);
        assert_eq!((count(result, "trials"), count(result, "missed")), (2, missed), "{result:#}");
        assert_eq!(result["detected_after_us"]["p50"].as_f64().is_some(), missed == 0, "{result:#}");
        assert!(result["false_positives"].is_u64() && result["calm_seconds"] == 1.0, "{result:#}");
    }
}
