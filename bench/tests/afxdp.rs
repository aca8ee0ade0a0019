//! The tool over AF_XDP ports, for real: needs root, and skips without.

mod common;

use common::{assert_heartbeat_result, assert_success, bench, in_namespace, json, may_use_namespaces, run};

#[test]
fn pump_counts_frames_over_every_link() {
    if !may_use_namespaces() {
        return;
    }
    let report = json(&run("pump --frame 60,1514 --seconds 0.2 --repeat 1 --json -"));
    let results = report["results"].as_array().expect("a list");
    assert_eq!(results.len(), 3 * 2 * 3, "links, sizes, directions");
    for result in results {
        assert!(result["frames_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{result:#}");
        assert!(result["received"].as_u64() > Some(0), "{result:#}");
    }
}

#[test]
fn pump_is_held_to_the_rate_of_the_middle() {
    if !may_use_namespaces() {
        return;
    }
    let report = json(&run(
        "pump --link afxdp --frame 1514 --rate 20mbit --queue 30kB --seconds 1 --repeat 1 --json -",
    ));
    for result in report["results"].as_array().expect("a list") {
        let ways = if result["direction"] == "both" { 2.0 } else { 1.0 };
        let rate = result["bits_per_second"].as_f64().expect("a number");
        // The bucket and the queue hold some of what was sent before the measurement.
        assert!(rate < 1.5 * 20e6 * ways, "{result:#}");
    }
}

#[test]
fn pingpong_sets_the_carriers_against_each_other() {
    if !may_use_namespaces() {
        return;
    }
    let report = json(&run("pingpong --seconds 0.5 --repeat 1 --json -"));
    let results = report["results"].as_array().expect("a list");
    let names: Vec<_> = results.iter().map(|result| (&result["poll"], &result["variant"])).collect();
    assert_eq!(results.len(), 6, "{names:?}");
    for result in results {
        assert!(result["rounds"].as_u64() > Some(0), "{result:#}");
        assert!(result["rtt_us"]["p50"].as_f64().is_some_and(|rtt| rtt > 0.0), "{result:#}");
    }
    let ratios: Vec<_> =
        report["ratios"].as_array().expect("a list").iter().map(|ratio| &ratio["of"]).collect();
    assert_eq!(ratios, ["outrider/raw", "kernel/outrider", "outrider/raw", "kernel/outrider"]);
}

#[test]
fn heartbeats_under_load_over_afxdp() {
    if !may_use_namespaces() {
        return;
    }
    let report = json(&run("oob --link afxdp --rate 100mbit --variant oob --seconds 1 --repeat 1 --json -"));
    assert_heartbeat_result(&report["results"][0]);
}

/// Two nodes on the two ends of a veth pair, one for itself and one beside its kernel.
#[test]
fn serve_and_connect_over_afxdp() {
    if !may_use_namespaces() {
        return;
    }
    in_namespace(|| {
        let ip = |line: &str| {
            let output = std::process::Command::new("ip").args(line.split_whitespace()).output();
            assert_success(line, &output.expect("iproute2"));
        };
        ip("link add left0 type veth peer name right0");
        ip("link set left0 addrgenmode none up");
        ip("link set right0 addrgenmode none up");
        let place = "--port afxdp:left0,dedicated --address 10.77.0.2/24";
        let mut serving = bench()
            .args(["serve", "--seconds", "30"])
            .args(place.split_whitespace())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("the tool was built beside this test");
        let mut line = String::new();
        let stdout = serving.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
        assert!(line.contains("listening on 10.77.0.2"), "{line}");
        let output = run(
            "connect --port afxdp:right0 --address 10.77.0.3/24 --peer 10.77.0.2:7077 --seconds 1 --json -",
        );
        let report = json(&output);
        assert!(report["results"][0]["heartbeat"]["received"].as_u64() > Some(0), "{report:#}");
        serving.kill().expect("it runs");
        serving.wait().expect("it was killed");
    });
}
