//! `bench packetdrill`: our scripts pass, broken ones fail with both packets, unsupported ones are refused by name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn packetdrill(paths: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.arg("packetdrill").args(paths);
    command.output().expect("the tool starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ours() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../stack/tests/packetdrill")
}

/// Writes `script` to a file of its own, runs it, and gives the exit status and standard output.
fn run_script(name: &str, script: &str) -> (Option<i32>, String) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packetdrill");
    fs::create_dir_all(&folder).expect("the folder for test scripts");
    let path = folder.join(format!("{name}.pkt"));
    fs::write(&path, script).expect("the test script");
    let output = packetdrill(&[&path]);
    (output.status.code(), text(&output.stdout).replace(&format!("{}", path.display()), "FILE"))
}

const CONNECTED: &str = "`./defaults.sh`
   0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
  +0 bind(3, ..., ...) = 0
  +0 listen(3, 1) = 0
  +0 < S 0:0(0) win 65535 <mss 1000>
  +0 > S. 0:0(0) ack 1 <mss 1460>
 +.1 < . 1:1(0) ack 1 win 65535
  +0 accept(3, ..., ...) = 4
";

#[test]
fn every_script_of_ours_passes() {
    let output = packetdrill(&[&ours()]);
    let report = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{report}");
    let totals = report.lines().last().expect("a line with the totals");
    let passed = report.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(passed >= 40, "{passed} scripts");
    assert_eq!(totals, format!("{passed} passed, 0 failed, 0 skipped"));
}

#[test]
fn the_same_script_gives_the_same_report_every_time() {
    let script = format!("{CONNECTED}  +0 write(4, ..., 5000) = 5000\n  +0 > . 1:1001(1000) ack 1 win 1\n");
    let first = run_script("again", &script);
    assert_eq!(first.0, Some(1));
    assert_eq!(first, run_script("again", &script));
}

#[test]
fn a_wrong_expectation_fails_with_its_line_and_both_packets() {
    let script = format!("{CONNECTED}  +0 write(4, ..., 100) = 100\n  +0 > P. 1:201(200) ack 1 win 77\n");
    let (status, report) = run_script("wrong", &script);
    assert_eq!(status, Some(1), "{report}");
    assert!(report.starts_with("not ok FILE\n  line 10: "), "{report}");
    assert!(report.contains("expected: 0.100000 > P. 1:201(200) ack 1 win 77"), "{report}");
    assert!(report.contains("actual:   "), "{report}");
    let script =
        format!("{CONNECTED}  +0 write(4, ..., 100) = 100\n  +0 > . 1:101(100) ack 1 <nop,nop,sack 1:2>\n");
    let (_, report) = run_script("wrong-options", &script);
    assert!(report.contains("expected: 0.100000 > . 1:101(100) ack 1 <nop,nop,sack 1:2>"), "{report}");
    assert!(report.contains("actual:   0.100000 > P. 1:101(100) ack 1 win 65535"), "{report}");
    assert!(report.ends_with("0 passed, 1 failed, 0 skipped\n"), "{report}");
}

#[test]
fn a_packet_that_does_not_come_or_comes_at_another_time_fails() {
    let (status, report) = run_script("silence", &format!("{CONNECTED}  +1 > . 1:1(0) ack 1\n"));
    assert_eq!(status, Some(1), "{report}");
    assert!(report.contains("nothing left until"), "{report}");
    let late = format!("{CONNECTED}  +0 write(4, ..., 10) = 10\n +.1 > P. 1:11(10) ack 1\n");
    let (status, report) = run_script("early", &late);
    assert_eq!(status, Some(1), "{report}");
    assert!(report.contains("left at 0.100000, expected at 0.200000"), "{report}");
}

#[test]
fn a_wrong_result_of_a_call_fails_with_both_results() {
    let (status, report) = run_script("call", &format!("{CONNECTED}  +0 read(4, ..., 10) = 5\n"));
    assert_eq!(status, Some(1));
    assert!(report.contains("line 9: read blocks"), "{report}");
    let (_, report) = run_script("errno", &format!("{CONNECTED}  +0 shutdown(3, SHUT_WR) = -1 EPIPE (x)\n"));
    assert!(report.contains("shutdown returned 0, expected -1 EPIPE"), "{report}");
    let (_, report) = run_script(
        "assertion",
        &format!("{CONNECTED}  +0 %{{ assert tcpi_snd_cwnd == 3, tcpi_snd_cwnd }}%\n"),
    );
    assert!(report.contains("`assert tcpi_snd_cwnd == 3, tcpi_snd_cwnd` does not hold: 10"), "{report}");
}

#[test]
fn what_is_not_supported_is_skipped_by_name_and_never_passed() {
    for (name, statement, what) in [
        ("udp", "+0 > udp (100)", "udp packet"),
        ("fast-open", "+0 < S 0:0(0) win 65535 <mss 1000,FO abcd1234,nop,nop>", "TCP option FO"),
        ("sendfile", "+0 sendfile(4, 5, [0], 100) = 100", "sendfile from something that is no file"),
        ("option", "+0 setsockopt(4, SOL_TCP, TCP_REPAIR, [1], 4) = 0", "TCP_REPAIR"),
        ("flag", "+0 send(4, ..., 10, MSG_OOB) = 10", "MSG_OOB"),
        ("python", "+0 %{ for i in range(3): print(i) }%", "`for`"),
        ("name", "+0 %{ assert tcpi_rehash == 0 }%", "tcpi_rehash"),
        ("shell", "+0 `iptables -A INPUT -j DROP`", "iptables"),
        ("sysctl", "+0 `sysctl -q net.ipv4.tcp_recovery=0`", "tcp_recovery=0"),
        ("dsack", "+0 `sysctl -q net.ipv4.tcp_dsack=0`", "tcp_dsack=0"),
        ("congestion", "+0 `sysctl -q net.ipv4.tcp_congestion_control=vegas`", "vegas"),
        ("accurate-ecn", "+0 > SAEW 0:0(0)", "accurate ECN"),
    ] {
        let (status, report) = run_script(name, &format!("{CONNECTED}  {statement}\n  +0 close(4) = 0\n"));
        assert_eq!(status, Some(0), "{name}: {report}");
        let wanted = "skipped FILE: line 9: unsupported statement";
        assert!(report.starts_with(wanted) && report.contains(what), "{name}: {report}");
        assert!(report.ends_with("0 passed, 0 failed, 1 skipped\n"), "{name}: {report}");
    }
}

#[test]
fn what_is_no_script_fails_with_line_and_column() {
    for (name, script, wanted) in [
        ("word", "0 socket(...) = 3\n+0 nonsense\n", "line 2, column"),
        ("time", "0 socket(...) = 3\n-5 close(3) = 0\n", "line 2, column 1"),
        ("flags", "0 < Q 0:0(0) win 1\n", "line 1, column 5"),
        ("sum", "0 < . 1:5(10) ack 1 win 1\n", "line 1, column 7"),
        ("padding", "0 < S 0:0(0) win 1 <mss 1000,sackOK>\n", "pad them with nop"),
        ("window", "0 < S 0:0(0)\n", "needs a window"),
        ("comment", "/* no end\n", "line 1, column 1"),
        ("bracket", "0 bind(3, [1, 2) = 0\n", "line 1, column"),
        ("backwards", "1 socket(...) = 3\n0.5 close(3) = 0\n", "time goes back"),
    ] {
        let (status, report) = run_script(name, script);
        assert_eq!(status, Some(1), "{name}: {report}");
        assert!(report.starts_with("not ok FILE\n") && report.contains(wanted), "{name}: {report}");
    }
    let missing = packetdrill(&[Path::new("no/such/script.pkt")]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stdout).contains("cannot be read"), "{}", text(&missing.stdout));
}

#[test]
fn without_a_file_the_arguments_are_wrong() {
    assert_eq!(packetdrill(&[]).status.code(), Some(2));
}
