//! Plain TCP and ping between the kernel of this host and `serve` on a TAP device, each test in a network namespace of
//! its own; and `connect` against `serve`.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{Server, assert_success, bench, echo_through, figure, in_namespace, may_use_namespaces, must};
use serde_json::Value;

/// Bytes sent each way.
const TRANSFER_BYTES: usize = 4 << 20;
/// Of the echo service that `serve` runs.
const ADDRESS: &str = "10.77.0.2:7";

/// Of the two rules that lose frames, how many have not lost any.
fn rules_that_dropped_nothing() -> usize {
    let output = Command::new("nft").args(["list", "ruleset"]).output().expect("nft made the rules");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.matches("counter packets").count(), 2, "{text}");
    text.matches("counter packets 0 ").count()
}

/// Sends the pattern through the echo and compares what comes back, to the end of the stream.
fn transfer() {
    echo_through(ADDRESS, TRANSFER_BYTES);
}

struct RemoveAtEnd<'a>(&'a Path);

impl Drop for RemoveAtEnd<'_> {
    fn drop(&mut self) {
        // Not there if the server never started.
        let _ = std::fs::remove_file(self.0);
    }
}

/// A second opinion on every header and checksum in the capture.
fn tshark_finds_every_packet_well_formed(capture: &Path) {
    let options = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"];
    let output =
        Command::new("tshark").arg("-r").arg(capture).args(options).args(["-q", "-z", "expert"]).output();
    let Ok(output) = output else {
        assert!(std::env::var_os("CI").is_none(), "CI must have tshark");
        println!("skipped: needs tshark");
        return;
    };
    assert_success("tshark", &output);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("Connection establish request"), "it saw the connections: {told}");
    for wrong in ["Malformed", "Bad checksum", "Bad TCP", "Bad IP", "Errors ("] {
        assert!(!told.contains(wrong), "{told}");
    }
}

fn echo_at_loss(percent: u32) {
    if !may_use_namespaces() {
        return;
    }
    let capture = std::env::temp_dir().join(format!("outrider-{}-{percent}.pcapng", std::process::id()));
    let _removed = RemoveAtEnd(&capture);
    let written = capture.display().to_string();
    in_namespace(move || {
        let server = Server::start(&format!(
            "serve --port tap:or0 --address 10.77.0.2/24 --host-address 10.77.0.1/24 --bytes echo --capture {written}"
        ));
        if percent > 0 {
            must("nft add table netdev lab");
            for hook in ["ingress", "egress"] {
                must(&format!(
                    "nft add chain netdev lab {hook} {{ type filter hook {hook} device or0 priority 0 ; }}"
                ));
                must(&format!(
                    "nft add rule netdev lab {hook} meta protocol ip numgen random mod 100 < {percent} counter drop"
                ));
            }
        }
        transfer();
        transfer();
        if percent > 0 {
            assert_eq!(rules_that_dropped_nothing(), 0, "the lossy link lost nothing");
        }
        let told = server.stop();
        assert_eq!(figure(&told, "established"), 2, "{told}");
        assert_eq!(figure(&told, "closed_in_order") + figure(&told, "closed_otherwise"), 2, "{told}");
        assert!(figure(&told, "tx_payload_bytes") >= 2 * TRANSFER_BYTES as u64, "{told}");
    });
    tshark_finds_every_packet_well_formed(&capture);
}

#[test]
fn the_kernel_gets_back_what_it_sent() {
    echo_at_loss(0);
}

#[test]
fn the_kernel_gets_back_what_it_sent_when_one_frame_in_a_hundred_is_lost_each_way() {
    echo_at_loss(1);
}

/// Frames that crossed the device, from our side and from the kernel's.
fn frames_each_way(device: &str) -> (u64, u64) {
    let output = Command::new("ip").args(["-j", "-s", "link", "show", device]).output().expect("iproute2");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packets = |way: &str| told[0]["stats64"][way]["packets"].as_u64().expect("a count");
    (packets("rx"), packets("tx"))
}

#[test]
fn sixty_four_mebibytes_come_back_in_frames_of_many_segments() {
    if !may_use_namespaces() {
        return;
    }
    const BYTES: usize = 64 << 20;
    in_namespace(|| {
        let server = Server::start(
            "serve --port tap:or0 --address 10.77.0.2/24 --host-address 10.77.0.1/24 --bytes echo",
        );
        echo_through(ADDRESS, BYTES);
        let (ours, kernels) = frames_each_way("or0");
        let told = server.stop();
        assert!(figure(&told, "tx_payload_bytes") >= BYTES as u64, "{told}");
        // With 1448 bytes in each it would take 46,347 segments each way.
        let segments = figure(&told, "tx_segments");
        assert!(segments > 40_000, "{told}");
        assert!(ours * 4 < segments, "{ours} frames of ours carried {segments} segments: {told}");
        assert!(kernels < 40_000, "{kernels} frames of the kernel's");
    });
}

#[test]
fn ping_is_answered() {
    if !may_use_namespaces() {
        return;
    }
    in_namespace(|| {
        let server = Server::start(
            "serve --port tap:or0 --address 10.77.0.2/24 --host-address 10.77.0.1/24 --bytes discard",
        );
        must("ping -c 3 -i 0.2 -W 5 10.77.0.2");
        must("ping -c 1 -W 5 -s 1400 10.77.0.2");
        server.stop();
    });
}

#[test]
fn a_second_node_on_the_same_device_is_told_that_it_is_in_use() {
    if !may_use_namespaces() {
        return;
    }
    in_namespace(|| {
        let line = "serve --port tap:or0 --address 10.77.0.2/24 --bytes echo";
        let server = Server::start(line);
        let second: Output = bench().args(line.split_whitespace()).output().expect("built");
        let told = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(second.status.code(), Some(1), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains("tap:or0"), "{told}");
        server.stop();
    });
}

#[test]
fn a_peer_that_does_not_listen_or_does_not_exist_is_told_apart() {
    if !may_use_namespaces() {
        return;
    }
    in_namespace(|| {
        for (peer, wanted) in [("10.77.0.1:7077", "refused"), ("10.77.0.9:7077", "unreachable")] {
            let line = format!(
                "connect --port tap:or0 --address 10.77.0.2/24 --host-address 10.77.0.1/24 --peer {peer}"
            );
            let output = bench().args(line.split_whitespace()).output().expect("built");
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{told}");
            assert_eq!(told.lines().count(), 1, "{told}");
            assert!(told.contains(wanted) && told.contains(peer), "{told}");
        }
    });
}

#[test]
fn two_messengers_talk_across_a_bridge() {
    if !may_use_namespaces() {
        return;
    }
    in_namespace(|| {
        must("ip link add orbr type bridge stp_state 0 forward_delay 0");
        for device in ["or0", "or1"] {
            must(&format!("ip tuntap add {device} mode tap"));
            must(&format!("ip link set {device} master orbr up"));
        }
        must("ip link set orbr up");
        let server = Server::start("serve --port tap:or0 --address 10.77.0.2/24");
        let line = "connect --port tap:or1 --address 10.77.0.3/24 --peer 10.77.0.2:7077 --seconds 1 --json -";
        let output = bench().args(line.split_whitespace()).output().expect("built");
        assert_success(line, &output);
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let result = &report["results"][0];
        assert!(result["heartbeat"]["received"].as_u64().is_some_and(|n| n > 0), "{report:#}");
        assert!(result["heartbeat"]["rtt_us"]["p50"].as_f64().is_some_and(|n| n > 0.0), "{report:#}");
        assert!(result["goodput_bps"].as_f64().is_some_and(|n| n > 0.0), "{report:#}");
        let told = server.stop();
        assert!(figure(&told, "heartbeats") > 0 && figure(&told, "messages") > 0, "{told}");
    });
}
