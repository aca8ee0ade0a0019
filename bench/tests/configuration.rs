//! `serve` and `connect` with a configuration file.

mod common;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use common::{assert_success, bench, run, stderr};

/// A configuration file that goes away with its value.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> File {
        let path = std::env::temp_dir().join(format!("outrider-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).expect("the directory for temporary files can be written");
        File(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("it is text")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All of 127.0.0.0/8 is this host, so a port need not be looked for.
fn address() -> String {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    format!("127.77.{high}.{low}")
}

#[test]
fn both_ends_are_what_their_files_say() {
    let server = File::new("server", "name = \"mon.7\"\ndefault_policy = \"stateless_server\"\n");
    let line = format!("serve --kernel --address {} --config {}", address(), server.path());
    let mut child = bench().args(line.split(' ')).stdout(Stdio::piped()).spawn().expect("it was built");
    let output = child.stdout.take().expect("it is piped");
    let _server = Server(child);
    let mut told = String::new();
    BufReader::new(output).read_line(&mut told).expect("it says where it listens");
    assert!(told.starts_with("listening on 127.77."), "{told}");
    let connect = |text: &str| {
        let client = File::new("client", text);
        let peer = format!("{}:7077", address());
        run(&format!(
            "connect --kernel --peer {peer} --config {} --seconds 0.3 --message-size 0",
            client.path()
        ))
    };
    let good = "[transport.kernel]\nworkers = 2\nchunk_time = \"200 us\"\n";
    assert_success("connect", &connect(good));
    let deaf = connect(&format!("{good}[inject]\ndropped_pings = 1.0\n"));
    assert!(stderr(&deaf).contains("no heartbeat came back"), "{}", stderr(&deaf));
    let odd = connect("[transport.kernel]\ncongestion = \"astrology\"\n");
    assert!(stderr(&odd).contains("no session with"), "{}", stderr(&odd));
}

#[test]
fn a_file_with_a_mistake_is_refused_in_one_line_that_says_where() {
    let place = format!("--address {}", address());
    for (name, text, wanted) in [
        ("typo", "\n[health]\nstaled_after = \"20 ms\"\n", "line 3, column 1: unknown field `staled_after`"),
        ("unit", "send_budget = \"4 MB\"\n", "line 1, column 15: "),
        ("other", "[transport.userspace]\naddresses = [\"10.0.0.3/24\"]\n", "it needs --port"),
    ] {
        let file = File::new(name, text);
        let output = run(&format!("serve --kernel {place} --config {}", file.path()));
        let told = stderr(&output);
        assert_eq!((output.status.code(), told.lines().count()), (Some(2), 1), "{told}");
        assert!(told.contains(file.path()) && told.contains(wanted), "{told}");
    }
    let output = run(&format!("serve --kernel {place} --config /nowhere.toml"));
    assert!(stderr(&output).contains("/nowhere.toml"), "{}", stderr(&output));
    let output = run(&format!("serve --kernel {place} --bytes echo --config /nowhere.toml"));
    assert_eq!(output.status.code(), Some(2));
}
