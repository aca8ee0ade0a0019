//! `throughput` does what the contract of its output says.

mod common;

use common::{json, may_use_namespaces, run, stderr};
use serde_json::Value;

fn results(report: &Value) -> &Vec<Value> {
    report["results"].as_array().expect("a list")
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key}: {value:#}"))
}

fn find<'a>(report: &'a Value, variant: &str, key: &str, value: f64) -> &'a Value {
    let found = results(report).iter().find(|r| r["variant"] == variant && r[key].as_f64() == Some(value));
    found.unwrap_or_else(|| panic!("{variant} at {key} {value}: {report:#}"))
}

/// What a result says of virtual time alone: processor time differs from run to run.
fn without_cpu(report: &Value) -> Vec<Value> {
    let strip = |result: &Value| {
        let mut result = result.clone();
        let fields = result.as_object_mut().expect("an object");
        fields.retain(|name, _| !name.starts_with("cpu_"));
        result
    };
    results(report).iter().map(strip).collect()
}

#[test]
fn bulk_in_virtual_time_keeps_its_goodput_under_loss_and_follows_from_the_seed() {
    let line = "throughput --rate 1gbit --loss 0,0.1%,1% --seconds 0.3 --repeat 1 --seed 7 --json -";
    let output = run(line);
    let report = json(&output);
    assert_eq!(report["experiment"], "throughput");
    assert_eq!(report["link"], "memory");
    assert_eq!(report["parameters"]["rate_bps"], 1_000_000_000);
    assert_eq!(results(&report).len(), 6);
    // smoltcp may well deliver nothing for the whole of its shortest retransmission timeout, a second.
    for result in results(&report).iter().filter(|r| r["variant"] == "outrider" || r["loss"] == 0.0) {
        for key in ["goodput_bps", "frames_per_second", "seconds", "cpu_seconds"] {
            assert!(number(result, key) > 0.0, "{key}: {result:#}");
        }
        assert!(result["longest_stall_us"].is_f64(), "{result:#}");
    }
    // Of 1514 bytes on the wire 1448 are payload: 0.956 of the rate at most.
    let lossless = number(find(&report, "outrider", "loss", 0.0), "goodput_bps");
    assert!((0.85e9..0.96e9).contains(&lossless), "{report:#}");
    for (loss, share) in [(0.001, 0.9), (0.01, 0.6)] {
        let result = find(&report, "outrider", "loss", loss);
        assert!(number(result, "goodput_bps") > share * lossless, "{result:#}");
        assert!(number(result, "longest_stall_us") < 20_000.0, "{result:#}");
        assert!(number(result, "retransmits") > 0.0, "{result:#}");
    }
    let smoltcp = find(&report, "smoltcp", "loss", 0.0);
    assert!(number(smoltcp, "goodput_bps") > 0.85e9, "the peer is given a fair chance: {smoltcp:#}");
    let of = |wanted: &str| {
        let ratios = report["ratios"].as_array().expect("a list");
        ratios.iter().filter(|ratio| ratio["of"] == wanted).count()
    };
    assert_eq!(of("outrider/smoltcp"), 3, "{report:#}");
    assert_eq!(of("outrider/outrider at loss 0.0"), 2, "{report:#}");
    let told = stderr(&output);
    assert!(told.contains("longest stall") && !told.contains('\r'), "{told}");

    assert_eq!(without_cpu(&report), without_cpu(&json(&run(line))), "the same seed gives the same result");
    let other = json(&run(&line.replace("--seed 7", "--seed 8")));
    assert_ne!(without_cpu(&report), without_cpu(&other), "another seed loses other frames");
}

#[test]
fn segments_are_spread_over_as_many_connections_as_asked_for() {
    let report = json(&run("throughput --connections 1,50 --pattern turn --turn 1448B --repeat 1 --json -"));
    assert_eq!(results(&report).len(), 4);
    for result in results(&report) {
        assert!(number(result, "cpu_ns_per_segment") > 0.0, "{result:#}");
        assert!(number(result, "goodput_bps") > 3e9, "some 4 Gbit/s are fed: {result:#}");
    }
    assert_eq!(report["ratios"][2]["of"], "outrider/outrider at connections 1");

    let report = json(&run("throughput --connections 20 --turn 16KiB,1448B --variant outrider --json -"));
    let results = results(&report);
    let points: Vec<String> =
        results.iter().map(|result| format!("{} {}", result["turn_bytes"], result["pattern"])).collect();
    assert_eq!(points, ["16384 \"burst\"", "16384 \"turn\"", "1448 \"burst\"", "1448 \"turn\""]);
    for result in results {
        assert!(number(result, "goodput_bps") > 3e9, "some 5 Gbit/s is fed: {result:#}");
    }
}

#[test]
fn round_trips_over_the_in_process_cable_end_in_order() {
    let report = json(&run("pingpong --link memory --seconds 0.2 --repeat 2 --json -"));
    assert_eq!(results(&report).len(), 4, "raw and ours, busy and adaptive: {report:#}");
    for result in results(&report) {
        assert_eq!(result["runs"]["rtt_us.p50"].as_array().map(Vec::len), Some(2), "{result:#}");
    }
}

#[test]
fn a_competitor_shares_the_bottleneck_and_the_shares_are_told() {
    if !may_use_namespaces() {
        return;
    }
    let line = "throughput --link tap --rate 50mbit --queue 100KB --competitor cubic --congestion cubic \
                --peer-congestion cubic --seconds 0.5 --repeat 1 --json -";
    let report = json(&run(line));
    assert_eq!(report["parameters"]["competitor"], "cubic");
    let variants: Vec<&str> =
        results(&report).iter().filter_map(|result| result["variant"].as_str()).collect();
    assert_eq!(variants, ["outrider", "kernel"]);
    for result in results(&report) {
        let (first, second) = (number(result, "goodput_bps"), number(result, "competitor_goodput_bps"));
        assert!(first > 0.0 && second > 0.0 && first + second < 60e6, "{result:#}");
        assert!((number(result, "share") - first / (first + second)).abs() < 1e-6, "{result:#}");
        assert!((0.5..=1.0).contains(&number(result, "jain")), "{result:#}");
    }
}

#[test]
fn across_a_bridge_both_directions_are_set_against_the_kernel() {
    if !may_use_namespaces() {
        return;
    }
    let line = "throughput --link tap --rate 50mbit --loss 0,1% --peer-congestion cubic --seconds 0.5 --repeat 2 --json -";
    let report = json(&run(line));
    assert_eq!(report["link"], "tap");
    assert_eq!(report["parameters"]["repeat"], 2);
    assert_eq!(results(&report).len(), 8);
    for result in results(&report) {
        let goodput = number(result, "goodput_bps");
        assert!(goodput > 0.0 && goodput < 60e6, "{result:#}");
        assert!(result["direction"] == "send" || result["direction"] == "receive", "{result:#}");
        assert_eq!(result["peer_congestion"], "cubic");
        assert_eq!(result["runs"]["goodput_bps"].as_array().map(Vec::len), Some(2), "{result:#}");
    }
    let lossy = find(&report, "outrider", "loss", 0.01);
    assert!(number(lossy, "retransmits") > 0.0, "{lossy:#}");
}

#[test]
fn over_one_tap_offloads_are_set_against_none() {
    if !may_use_namespaces() {
        return;
    }
    let report = json(&run("throughput --link tap --offload on,off --seconds 0.3 --repeat 1 --json -"));
    assert_eq!(results(&report).len(), 4);
    for result in results(&report) {
        assert!(number(result, "goodput_bps") > 0.0, "{result:#}");
        assert!(result["offload"] == "on" || result["offload"] == "off", "{result:#}");
    }
    let ratios = report["ratios"].as_array().expect("a list");
    assert_eq!(ratios.len(), 2, "one for each direction: {report:#}");
    assert!(ratios.iter().all(|ratio| ratio["offload"] == "on"), "{report:#}");
}

#[test]
fn what_cannot_work_is_refused_in_one_line() {
    for (line, wanted) in [
        ("throughput --link afxdp --delay 1ms", "--link memory"),
        ("throughput --link afxdp --connections 10", "--link memory"),
        ("throughput --link afxdp --congestion dctcp", "marks"),
        ("throughput --link tap --delay 1ms", "--link memory"),
        ("throughput --link tap --connections 10", "--link memory"),
        ("throughput --competitor cubic", "--link tap"),
        ("throughput --link tap --competitor cubic --loss 1%", "--loss"),
        ("throughput --link tap --congestion bbr,cubic", "--competitor"),
        ("throughput --link tap --queue 1MB,1MB", "--competitor"),
        ("throughput --link tap --repeat 0", "--repeat"),
        ("throughput --connections 0", "--connections 0"),
        ("throughput --connections 5 --turn 1B", "--turn"),
        ("throughput --connections 1 --loss 1%", "--loss"),
        ("throughput --loss 60%", "--loss"),
        ("throughput --offload on", "--link tap"),
        ("throughput --link tap --offload on --rate 1gbit", "--rate"),
        ("throughput --window 1KiB", "--window"),
        ("throughput --queue 100B", "--queue"),
        ("throughput --congestion dctcp", "dctcp"),
        ("throughput --peer-congestion vegas", "cubic"),
    ] {
        let output = run(line);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{line}: {told}");
        assert_eq!(told.lines().count(), 1, "{line}: {told}");
        assert!(told.starts_with("error: ") && told.contains(wanted), "{line}: {told}");
        assert!(output.stdout.is_empty(), "{line}");
    }
}
