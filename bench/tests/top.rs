//! `top` reads what another process publishes: here the test's.

mod common;

use std::net::IpAddr;

use common::{run, stderr};
use outrider_drivers::memory::{LinkConfig, cable};
use outrider_stack::net::{ListenOptions, StackConfig};
use outrider_stack::shard::segment::Publication;
use outrider_stack::shard::{GroupConfig, ShardConfig, spawn_group};
use outrider_stack::stream::echo::EchoAcceptor;
use outrider_stack::stream::{StreamConfig, TcpStream};

fn group(host: u8, publication: Option<Publication>) -> GroupConfig {
    let address: IpAddr = format!("10.0.0.{host}").parse().expect("an address");
    let stack = StackConfig::new([(address, 24)]);
    GroupConfig { publication, ..GroupConfig::new(ShardConfig::new(format!("host {host}"), stack)) }
}

#[test]
fn a_running_node_is_shown_within_eighty_columns() {
    let path = std::env::temp_dir().join(format!("outrider-bench-top-{}", std::process::id()));
    let (a, b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    let publication = Publication::new("osd.7").at(&path);
    let server = spawn_group(vec![Box::new(a)], group(1, Some(publication))).expect("the server starts");
    let client = spawn_group(vec![Box::new(b)], group(2, None)).expect("the client starts");
    let local = "10.0.0.1:4000".parse().expect("an address");
    let acceptor = Box::new(EchoAcceptor { ring_bytes: 1 << 16 });
    let listener = server.handle().listen(local, ListenOptions::default(), acceptor).expect("it listens");
    let stream = TcpStream::connect(&client.handle().shards()[0], listener.local(), StreamConfig::default());
    let _stream = stream.expect("it connects");

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
    client.stop();
    server.stop();
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
