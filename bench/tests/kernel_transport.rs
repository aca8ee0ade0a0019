//! The kernel transport through the tool: heartbeats by variant, messages per second, two nodes on this host's sockets.

mod common;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Stdio;

use common::{assert_heartbeat_result, assert_success, bench, json, may_use_namespaces, run, stderr};
use serde_json::Value;

fn results(report: &Value) -> &Vec<Value> {
    report["results"].as_array().expect("a list")
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key}: {value:#}"))
}

#[test]
fn heartbeats_travel_in_three_ways_over_kernel_sockets() {
    if !may_use_namespaces() {
        return;
    }
    let line = "oob --link kernel --rate 200mbit --congestion cubic --variant lowat,separate,fifo --seconds 1 --json -";
    let report = json(&run(line));
    assert_eq!(report["link"], "kernel");
    let results = results(&report);
    let variants: Vec<&str> = results.iter().filter_map(|result| result["variant"].as_str()).collect();
    assert_eq!(variants, ["lowat", "separate", "fifo"]);
    assert_heartbeat_result(&results[0]);
    assert_heartbeat_result(&results[2]);
    // The connection of the heartbeats knows nothing of the load: that is what is wrong with it.
    let occupancy = |result: &Value| result["occupancy_bytes"]["p50"].as_u64().expect("a count");
    assert!(occupancy(&results[1]) < 64 << 10 && occupancy(&results[0]) > 64 << 10, "{report:#}");
    let delay = |result: &Value| number(&result["heartbeat"]["one_way_us"], "p50");
    assert!(delay(&results[2]) > 2.0 * delay(&results[0]), "behind the data it takes longer: {report:#}");
}

#[test]
fn a_heartbeat_may_have_a_connection_of_its_own_over_any_link() {
    let report = json(&run("oob --rate 200mbit --variant oob,separate --seconds 0.5 --repeat 1 --json -"));
    assert_eq!(report["ratios"][0]["of"], "separate/oob");
    assert!(number(&results(&report)[1]["heartbeat"], "received") > 0.0, "{report:#}");
}

#[test]
fn messages_are_counted_by_size_and_number_in_flight() {
    let line = "throughput --link memory --size 0,4KiB,64KiB --depth 1,16,4 --rate 1gbit --seconds 0.3";
    let output = run(&format!("{line} --json -"));
    let report = json(&output);
    assert_eq!(report["experiment"], "throughput");
    assert_eq!(report["parameters"]["message_bytes"], serde_json::json!([0, 4096, 65536]));
    let results = results(&report);
    assert_eq!(results.len(), 3);
    for (result, (bytes, depth)) in results.iter().zip([(0, 1), (4096, 16), (65536, 4)]) {
        assert_eq!(result["variant"], "userspace");
        assert_eq!((&result["message_bytes"], &result["depth"]), (&bytes.into(), &depth.into()));
        let rate = number(result, "messages_per_second");
        assert!(
            rate > 0.0 && rate * f64::from(bytes) * 8.0 < 1e9,
            "no more than the link carries: {result:#}"
        );
        assert!(number(result, "cpu_us_per_message") > 0.0, "{result:#}");
    }
    assert!(stderr(&output).contains("messages/s"));
}

#[test]
fn messages_over_tap_have_offloads_unless_told_otherwise() {
    if !may_use_namespaces() {
        return;
    }
    let load = "--size 64KiB --depth 4 --seconds 0.2 --json -";
    for (line, offloads) in [("--link tap", &["on"][..]), ("--link tap --offload on,off", &["off", "on"])] {
        let report = json(&run(&format!("throughput {line} {load}")));
        let results = results(&report);
        let told: Vec<&str> = results.iter().filter_map(|result| result["offload"].as_str()).collect();
        assert_eq!(told, offloads);
        assert!(results.iter().all(|result| number(result, "messages_per_second") > 0.0), "{report:#}");
        if let [_, _] = results[..] {
            assert_eq!(report["ratios"][0]["of"], "tap/plain tap");
        }
    }
}

#[test]
fn links_are_set_beside_each_other() {
    if !may_use_namespaces() {
        return;
    }
    let report = json(&run("throughput --link tap,kernel --seconds 0.2 --repeat 1 --json -"));
    assert_eq!(report["link"], "tap,kernel");
    let names: Vec<(&str, f64)> = results(&report)
        .iter()
        .map(|result| (result["link"].as_str().expect("a name"), number(result, "message_bytes")))
        .collect();
    let sizes = [4096.0, 65536.0, 1048576.0];
    let expected: Vec<_> = sizes.iter().flat_map(|size| [("tap", *size), ("kernel", *size)]).collect();
    assert_eq!(names, expected);
    assert_eq!(report["ratios"].as_array().map(Vec::len), Some(3), "{report:#}");
    assert_eq!(report["ratios"][0]["of"], "kernel/tap");
}

#[test]
fn two_nodes_meet_on_this_hosts_own_sockets() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = free.expect("loopback has free ports").port().to_string();
    let mut serve = bench()
        .args(["serve", "--kernel", "--address", "127.0.0.1", "--seconds", "60", "--peer-port", &port])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tool was built beside this test");
    let mut told = String::new();
    let output = serve.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut told).expect("it says where it listens");
    assert!(told.contains("127.0.0.1") && told.contains("kernel"), "{told}");
    let line = format!("connect --kernel --peer 127.0.0.1:{port} --seconds 0.5 --json -");
    let connected = run(&line);
    serve.kill().expect("it runs");
    serve.wait().expect("it ends");
    assert_success(&line, &connected);
    let report = json(&connected);
    assert_eq!(report["link"], "kernel");
    let result = &results(&report)[0];
    assert!(
        number(result, "goodput_bps") > 0.0 && number(&result["heartbeat"], "received") > 0.0,
        "{result:#}"
    );
}

#[test]
fn what_cannot_work_is_refused_in_one_line() {
    for (line, wanted) in [
        ("throughput --size 4KiB,64KiB --depth 1,2,3", "--depth"),
        ("throughput --size 4KiB --depth 0", "--depth 0"),
        ("throughput --size 1GiB", "--size"),
        ("throughput --size 64MiB --depth 100", "in flight"),
        ("throughput --depth 4", "--size"),
        ("serve --kernel --port tap:or0 --address 10.77.0.2/24", "--port"),
        ("connect --kernel --peer 127.0.0.1:1 --capture x", "--capture"),
        ("serve --address 10.77.0.2/24", "--port"),
        ("serve --kernel --address somewhere", "10.77.0.2/24"),
    ] {
        let output = run(line);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{line}: {told}");
        assert_eq!(told.lines().count(), 1, "{line}: {told}");
        assert!(told.starts_with("error: ") && told.contains(wanted), "{line}: {told}");
    }
}
