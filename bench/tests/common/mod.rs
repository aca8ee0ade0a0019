//! What the tests of the tool share: running it, and skipping where the machine does not allow a test.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// A transfer that has not moved for so long is stuck: far above any retransmission timeout that 1 % loss can cause.
pub(crate) const STUCK: Duration = Duration::from_secs(60);

/// The tool under test.
pub(crate) fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bench"))
}

/// Runs the tool with the words of `line`.
pub(crate) fn run(line: &str) -> Output {
    bench().args(line.split_whitespace()).output().expect("the tool was built beside this test")
}

/// Standard error as text.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output as JSON.
pub(crate) fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

/// Whether this test may make network namespaces; says that it skips otherwise, and fails instead under CI.
pub(crate) fn may_use_namespaces() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id is part of every Linux");
    let root = String::from_utf8_lossy(&id.stdout).trim() == "0";
    if !root {
        assert!(std::env::var_os("CI").is_none(), "under CI nothing is skipped: run as root");
        println!("skipped: needs root");
    }
    root
}

/// Asserts that `result` is a heartbeat result as the contract has it, of an experiment in which everything came
/// through.
pub(crate) fn assert_heartbeat_result(result: &Value) {
    for key in ["goodput_bps", "cpu_seconds", "seconds"] {
        assert!(result[key].as_f64().is_some_and(|n| n > 0.0), "{key}: {result:#}");
    }
    let utilisation = result["link_utilisation"].as_f64().expect("the link has a rate");
    assert!(utilisation > 0.0 && utilisation < 1.05, "{result:#}");
    let heartbeat = &result["heartbeat"];
    for key in ["sent", "received"] {
        assert!(heartbeat[key].as_u64().is_some_and(|n| n > 0), "{key}: {result:#}");
    }
    assert!(heartbeat["superseded"].is_u64(), "{result:#}");
    assert!(heartbeat["received"].as_u64() <= heartbeat["sent"].as_u64(), "{result:#}");
    for histogram in ["one_way_us", "rtt_us"] {
        let keys = ["p50", "p90", "p99", "p999", "max"];
        let values: Vec<f64> =
            keys.iter().map(|key| heartbeat[histogram][key].as_f64().expect("a percentile")).collect();
        assert!(values[0] > 0.0 && values.is_sorted(), "{histogram}: {result:#}");
    }
    let occupancy = &result["occupancy_bytes"];
    assert!(occupancy["p50"].as_u64() <= occupancy["max"].as_u64(), "{result:#}");
    assert!(occupancy["max"].as_u64().is_some_and(|n| n > 0), "{result:#}");
}

/// Asserts that a command succeeded; shows what it said otherwise.
pub(crate) fn assert_success(line: &str, output: &Output) {
    assert!(output.status.success(), "{line}: {}", stderr(output));
}

/// Runs `story` on a thread with a network namespace of its own, which everything it starts shares and which vanishes
/// with them.
pub(crate) fn in_namespace(story: impl FnOnce() + Send + 'static) {
    let namespace = outrider_drivers::netns::NetNamespace::create().expect("root may make namespaces");
    namespace.run(story).expect("root may enter namespaces");
}

/// Runs a command that must succeed.
pub(crate) fn must(line: &str) {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command");
    let output = Command::new(program).args(words).output().unwrap_or_else(|e| panic!("{line}: {e}"));
    assert_success(line, &output);
}

/// A running `bench serve`; killed if the test fails.
pub(crate) struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Server {
    /// Starts it and waits until it listens.
    pub(crate) fn start(line: &str) -> Self {
        let mut child = bench()
            .args(line.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tool was built beside this test");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut told = String::new();
        out.read_line(&mut told).expect("readable");
        assert!(told.starts_with("listening on 10.77.0.2:"), "{told:?}, {:?}", child.try_wait());
        Server { child, out }
    }

    /// Ends it as a user would and returns what it printed after the first line.
    pub(crate) fn stop(mut self) -> String {
        must(&format!("kill -TERM {}", self.child.id()));
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("readable");
        let status = self.child.wait().expect("it was started");
        assert!(status.success(), "{status}: {rest}");
        rest
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone after `stop`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The count that the table of `serve` gives for `name`.
pub(crate) fn figure(table: &str, name: &str) -> u64 {
    let row = table.lines().find(|line| line.split_whitespace().next() == Some(name));
    let count = row.and_then(|row| row.split_whitespace().nth(1)).and_then(|count| count.parse().ok());
    count.unwrap_or(0)
}

/// Bytes that no shift or repetition of themselves equals.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Sends the pattern through the echo at `address` and compares what comes back, to the end of the stream.
pub(crate) fn echo_through(address: &str, bytes: usize) {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(STUCK)).expect("a valid time");
    stream.set_write_timeout(Some(STUCK)).expect("a valid time");
    let sent = pattern(bytes);
    let mut back = Vec::with_capacity(bytes);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&sent).expect("the echo takes all");
            stream.shutdown(Shutdown::Write).expect("an open connection");
        });
        (&stream).read_to_end(&mut back).expect("the echo gives all back and ends in order");
    });
    assert_eq!(back.len(), sent.len());
    let first_difference = || back.iter().zip(&sent).position(|(a, b)| a != b);
    assert_eq!(Sha256::digest(&back), Sha256::digest(&sent), "byte {:?} differs", first_difference());
}
