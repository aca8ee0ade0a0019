//! The tool over AF_XDP ports, for real: needs root, and skips without.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

use common::{
    STUCK, Server, assert_heartbeat_result, bench, echo_through, figure, in_namespace, json,
    may_use_namespaces, must, pattern, run,
};
use outrider_drivers::interface::set_transmit_checksum_offload;
use outrider_drivers::netns::NetNamespace;
use serde_json::Value;

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

/// What our design is compared with has the kernel's sockets at both ends of the very same middle.
#[test]
fn heartbeats_over_sockets_cross_the_same_middle() {
    if !may_use_namespaces() {
        return;
    }
    let line = "oob --link afxdp --rate 100mbit --variant oob,lowat,separate --congestion cubic --seconds 1 --json -";
    let report = json(&run(line));
    let results = report["results"].as_array().expect("a list");
    let names: Vec<_> = results.iter().map(|result| &result["variant"]).collect();
    assert_eq!(names, ["oob", "lowat", "separate"]);
    results.iter().for_each(assert_heartbeat_result);
}

#[test]
fn bulk_is_set_against_the_bare_ports_and_the_kernel() {
    if !may_use_namespaces() {
        return;
    }
    let report = json(&run("throughput --link afxdp --seconds 0.3 --repeat 2 --json -"));
    assert_eq!(report["link"], "afxdp");
    let results = report["results"].as_array().expect("a list");
    for result in results {
        let number = |key: &str| result[key].as_f64().unwrap_or_else(|| panic!("{key}: {result:#}"));
        // 1448 bytes in each frame, for all alike.
        assert!((number("goodput_bps") / number("frames_per_second") - 11_584.0).abs() < 1e-3, "{result:#}");
        assert!(number("goodput_bps") > 0.0 && number("longest_stall_us") > 0.0, "{result:#}");
        assert_eq!(result["runs"]["goodput_bps"].as_array().map(Vec::len), Some(2), "{result:#}");
    }
    let named = |key: &str| -> Vec<String> {
        let list = report[if key == "of" { "ratios" } else { "results" }].as_array().expect("a list");
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or("-").replace('"', "");
        list.iter().map(|entry| format!("{} {}", text(entry, key), text(entry, "congestion"))).collect()
    };
    assert_eq!(named("variant"), ["outrider cubic", "outrider bbr", "raw -", "kernel -"]);
    assert_eq!(
        named("of"),
        [
            "outrider/raw cubic",
            "outrider/kernel cubic",
            "outrider/raw bbr",
            "outrider/kernel bbr",
            "outrider/outrider at congestion cubic bbr"
        ]
    );
}

/// Two nodes on the two ends of a veth pair, one for itself and one beside its kernel.
#[test]
fn serve_and_connect_over_afxdp() {
    if !may_use_namespaces() {
        return;
    }
    in_namespace(|| {
        let ip = |line: &str| must(&format!("ip {line}"));
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

/// Bytes of the load that must have come back before anything is tried beside it, and again while it is.
const LOAD_BYTES: u64 = 8 << 20;

/// Ends a stream, so that who writes it ends, and who reads it when all has come back; also when the test fails meanwhile.
struct Ending<'a>(&'a TcpStream);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        // Not both ways: Linux resets a connection on which something comes for whom nobody reads any more, and its reader
        // would be told so. What is on its way comes back first, and the peer's end ends the reader.
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

/// Sends the pattern through the echo at `address` over and over, and checks what comes back, while `beside` runs: it is
/// given a count of what has come back, which fails when the load has.
fn under_load(address: &str, beside: impl FnOnce(&dyn Fn() -> u64)) {
    let stream = TcpStream::connect(address).expect("the node listens");
    stream.set_read_timeout(Some(STUCK)).expect("a valid time");
    let (sent, back) = (pattern(1 << 20), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| while (&stream).write_all(&sent).is_ok() {});
        let checking = scope.spawn(|| {
            let (mut buffer, mut at) = (vec![0; 64 << 10], 0);
            loop {
                let length = (&stream).read(&mut buffer).expect("the load goes on");
                if length == 0 {
                    return;
                }
                for byte in &buffer[..length] {
                    assert_eq!(*byte, sent[at % sent.len()], "byte {at} of the load");
                    at += 1;
                }
                back.store(at as u64, Ordering::Relaxed);
            }
        });
        let _ending = Ending(&stream);
        let come_back = || {
            assert!(!checking.is_finished(), "the load has ended");
            back.load(Ordering::Relaxed)
        };
        while come_back() < LOAD_BYTES {
            std::thread::yield_now();
        }
        beside(&come_back);
    });
}

/// Answers each connection to `listener` with what it says, one after the other.
fn echo_for_ever(listener: &TcpListener) {
    for stream in listener.incoming() {
        let stream = stream.expect("a listener that is open");
        std::io::copy(&mut &stream, &mut &stream).expect("the peer takes all");
        // Gone already if the peer was quick.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

#[test]
fn beside_a_saturated_node_the_kernel_keeps_its_own_address_on_the_interface() {
    if !may_use_namespaces() {
        return;
    }
    in_namespace(|| {
        let peer = NetNamespace::create().expect("root may make namespaces");
        must(&format!("ip link add left0 type veth peer name right0 netns {}", peer.path().display()));
        must("ip address add 10.77.0.1/24 dev left0");
        must("ip link set left0 up");
        let listener = TcpListener::bind("10.77.0.1:7").expect("the kernel's own address");
        std::thread::spawn(move || echo_for_ever(&listener));
        let up = || {
            must("ip address add 10.77.0.9/24 dev right0");
            must("ip link set right0 up");
            // The node sees bare frames: their checksums must be written.
            set_transmit_checksum_offload("right0", false).expect("root may set it");
        };
        peer.run(up).expect("root may enter namespaces");
        let server = Server::start("serve --port afxdp:left0,shared --address 10.77.0.2/24 --bytes echo");
        let story = || {
            under_load("10.77.0.2:7", |come_back| {
                let before = come_back();
                // Both go on side by side until the load has moved as much again.
                while come_back() < before + LOAD_BYTES {
                    echo_through("10.77.0.1:7", 1 << 20);
                    // So many answers; a request that found a queue full is made up for by another.
                    must("ping -q -i 0.05 -c 5 -w 60 10.77.0.1");
                }
            });
        };
        peer.run(story).expect("root may enter namespaces");
        let told = server.stop();
        assert!(figure(&told, "tx_payload_bytes") >= 2 * LOAD_BYTES, "{told}");
    });
}
