//! `top` reads what another process publishes: here the test's.

mod common;

use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{run, stderr};
use outrider_drivers::memory::{LinkConfig, cable};
use outrider_stack::net::{ListenOptions, StackConfig};
use outrider_stack::shard::segment::Publication;
use outrider_stack::shard::{GroupConfig, ShardConfig, ShardGroup, spawn_group};
use outrider_stack::stream::echo::EchoAcceptor;
use outrider_stack::stream::{StreamConfig, TcpStream};

fn group(host: u8, publication: Option<Publication>) -> GroupConfig {
    let address: IpAddr = format!("10.0.0.{host}").parse().expect("an address");
    let stack = StackConfig::new([(address, 24)]);
    GroupConfig { publication, ..GroupConfig::new(ShardConfig::new(format!("host {host}"), stack)) }
}

/// A node of this process that publishes, and a client with one connection to it.
struct Node {
    path: PathBuf,
    server: ShardGroup,
    client: ShardGroup,
    _kept: Box<dyn std::any::Any>,
}

impl Node {
    fn start(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("outrider-bench-top-{name}-{}", std::process::id()));
        let (a, b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
        let publication = Publication::new("osd.7").at(&path);
        let server = spawn_group(vec![Box::new(a)], group(1, Some(publication))).expect("the server starts");
        let client = spawn_group(vec![Box::new(b)], group(2, None)).expect("the client starts");
        let local = "10.0.0.1:4000".parse().expect("an address");
        let acceptor = Box::new(EchoAcceptor { ring_bytes: 1 << 16 });
        let listener = server.handle().listen(local, ListenOptions::default(), acceptor).expect("it listens");
        let stream =
            TcpStream::connect(&client.handle().shards()[0], listener.local(), StreamConfig::default());
        let kept = Box::new((listener, stream.expect("it connects")));
        Node { path, server, client, _kept: kept }
    }

    fn stop(self) {
        self.client.stop();
        self.server.stop();
    }
}

#[test]
fn keys_sort_and_filter_the_live_view_on_a_pseudo_terminal() {
    let node = Node::start("live");
    let shown = node.path.display();
    let tool = env!("CARGO_BIN_EXE_bench");
    let line = format!("stty cols 80 rows 24; '{tool}' top '{shown}' --interval 50ms");
    // script(1) gives the command a terminal of its own, whose keys are what comes to its standard input.
    let mut script = Command::new("script");
    script.args(["-qfec", &line, "/dev/null"]).env("TERM", "xterm");
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = script.spawn().expect("script is part of every Debian");
    let mut keys = child.stdin.take().expect("it was asked for");
    let mut screen = child.stdout.take().expect("it was asked for");
    let mut seen = String::new();
    let mut wait_for = |wanted: &str| {
        // What a key changed is drawn after it; what was there before has been taken away.
        let mut buffer = [0; 4096];
        while !seen.contains(wanted) {
            let length = screen.read(&mut buffer).expect("the terminal can be read");
            assert!(length > 0 && seen.len() < 1 << 20, "it does not show {wanted}: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        seen.clear();
    };
    let mut press = |text: &str| {
        keys.write_all(text.as_bytes()).and_then(|()| keys.flush()).expect("the terminal takes keys");
    };
    wait_for(" 4000 10.0.0.2:");
    press("s");
    wait_for("sort: occupancy");
    press("/port=9\r");
    wait_for("0 of 1 connections fit port=9");
    press("0");
    wait_for(" 4000 10.0.0.2:");
    press("q");
    assert!(child.wait().expect("a child of ours").success());
    node.stop();
}

#[test]
fn a_running_node_is_shown_within_eighty_columns() {
    let node = Node::start("once");
    let path = node.path.clone();

    // Published within some milliseconds; the tool looks for a tenth of a second at a time.
    let line = format!("top {} --once --interval 100ms", path.display());
    let text = loop {
        let output = run(&line);
        assert!(output.status.success(), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).expect("text");
        if !text.contains("no connections") {
            break text;
        }
    };
    let shown = text.lines().filter(|line| !line.contains(&*path.to_string_lossy()));
    assert!(shown.clone().all(|line| line.chars().count() <= 80), "{text}");
    for wanted in ["osd.7", "cable:0", " 4000 10.0.0.2:"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    node.stop();
    let output = run(&line);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot read"), "{}", stderr(&output));
}

#[test]
fn a_file_that_is_no_segment_is_refused() {
    let output = run("top /dev/null --once");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
}
