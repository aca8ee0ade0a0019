//! Other transports beside ours: each is measured as ours is.

#![cfg(feature = "peers")]

mod common;

use common::{json, may_use_namespaces, run, stderr};

#[test]
fn each_transport_carries_load_and_heartbeats_at_once() {
    if !may_use_namespaces() {
        return;
    }
    let line = "oob --link kernel --rate 100mbit --queue 100KB --congestion cubic \
                --variant lowat,quinn-stream,quinn-datagram,h2 --seconds 0.5 --repeat 1 --json -";
    let output = run(line);
    let report = json(&output);
    let results = report["results"].as_array().expect("a list");
    let names: Vec<&str> = results.iter().filter_map(|result| result["variant"].as_str()).collect();
    assert_eq!(names, ["lowat", "quinn-stream", "quinn-datagram", "h2"]);
    for result in results {
        let heartbeat = &result["heartbeat"];
        let count = |key: &str| heartbeat[key].as_u64().expect("a count");
        assert!(count("received") > 0 && count("received") <= count("sent"), "{result:#}");
        assert!(heartbeat["rtt_us"]["p50"].as_f64().is_some_and(|delay| delay > 0.0), "{result:#}");
        // What HTTP/2's library does not tell is not made up.
        assert_eq!(heartbeat["one_way_us"].is_null(), result["variant"] == "h2", "{result:#}");
        let goodput = result["goodput_bps"].as_f64().expect("a rate");
        assert!(goodput > 0.0 && goodput < 105e6, "{result:#}");
        let utilisation = result["link_utilisation"].as_f64().expect("the link has a rate");
        assert!(utilisation > 0.0 && utilisation < 1.05, "{result:#}");
    }
    assert!(stderr(&output).contains("quinn encrypts"), "{}", stderr(&output));
}

#[test]
fn a_transport_that_wants_the_kernels_sockets_says_so() {
    let output = run("oob --link memory --variant h2");
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.lines().count() == 1 && told.contains("--link kernel"), "{told}");
}
