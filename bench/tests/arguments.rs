//! Wrong arguments: exit status 2, and one line that says what to do.

mod common;

use common::{run, stderr};

/// Runs the tool; it must refuse with `status` and one line that contains `wanted`.
fn refused(line: &str, status: i32, wanted: &str) {
    let output = run(line);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(status), "{line}: {text}");
    assert_eq!(text.lines().count(), 1, "{line}: {text}");
    assert!(text.starts_with("error: ") && text.contains(wanted), "{line}: {text}");
    assert!(output.stdout.is_empty(), "{line}");
}

#[test]
fn a_wrong_option_is_refused_in_one_line() {
    refused("", 2, "bench demo");
    refused("dmeo", 2, "demo");
    refused("demo --sed 1", 2, "--seed");
    refused("demo --seconds soon", 2, "number of seconds");
    refused("oob --rate fast", 2, "1gbit");
    refused("oob --loss 200%", 2, "0.1%");
    refused("oob --delay 50", 2, "50us");
    refused("oob --link wire", 2, "memory");
    refused("oob --congestion vegas", 2, "bbr, cubic, dctcp");
    refused("serve --port eth0 --address 10.77.0.2/24", 2, "tap:NAME");
    refused("serve --port tap:or0 --address 10.77.0.2", 2, "10.77.0.2/24");
    refused("connect --port tap:or0 --address 10.77.0.2/24", 2, "--peer");
}

#[test]
fn what_does_not_exist_yet_is_refused_with_what_does() {
    refused("oob --variant lowat", 2, "--link kernel");
}

#[cfg(not(feature = "peers"))]
#[test]
fn a_transport_that_was_not_built_in_is_refused_with_how_to_build_it() {
    for variant in ["quinn-stream", "quinn-datagram", "h2"] {
        let line = format!("oob --link kernel --variant {variant}");
        refused(&line, 2, &format!("--features peers -- {line}"));
    }
}

#[test]
fn what_cannot_work_is_refused_before_anything_runs() {
    refused("oob --link tap --delay 1ms", 2, "--link memory");
    refused("oob --link tap --congestion dctcp", 2, "--link memory");
    refused("oob --link kernel --delay 1ms", 2, "--link memory");
    refused("oob --link kernel --congestion dctcp", 2, "--link memory");
    refused("oob --link afxdp --delay 1ms", 2, "--link memory");
    refused("serve --port afxdp:eth0,fast --address 10.77.0.2/24", 2, "dedicated");
    refused("pump --frame 20", 2, "60 to 1514");
    refused("pump --link kernel", 2, "afxdp");
    refused("pingpong --size 2000", 2, "1400B");
    refused("pingpong --link tap --variant kernel", 2, "--link afxdp");
    refused("oob --interval 1us", 2, "1ms");
    refused("oob --queue 100B", 2, "--queue");
    refused("truth --seconds 0.1", 2, "--seconds");
    refused("detect --repeat 0", 2, "--repeat");
    refused("detect --event consumer-stopped --load none", 2, "--load full");
    refused("truth --variant lowat", 2, "--link kernel");
    refused("truth --link kernel --variant h2", 2, "oob --link kernel");
    refused("truth --event earthquake", 2, "consumer-stopped");
    refused("cluster --nodes 1", 2, "2 to 250");
    refused("scale --connections 0", 2, "1 to 200000");
    refused("demo --json no/such/folder/result.json", 1, "--json");
}

#[test]
fn help_is_no_error() {
    for line in [
        "--help",
        "demo --help",
        "oob --help",
        "truth --help",
        "detect --help",
        "serve --help",
        "connect --help",
        "pump --help",
        "pingpong --help",
        "--version",
    ] {
        let output = run(line);
        assert!(output.status.success(), "{line}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{line}");
    }
}
