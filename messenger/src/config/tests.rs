use core::time::Duration;

use outrider_stack::net::StackConfig;
use outrider_stack::shard::Polling;

use super::*;
use crate::link::Policy;
use crate::transport::KernelConfig;

const EXAMPLE: &str = include_str!("../../../docs/outrider.example.toml");

fn problem(text: &str) -> (usize, String) {
    match Config::from_toml(text) {
        Err(ConfigError::Wrong { place, problem, path: None }) => (place.line, problem),
        other => panic!("{text}: {other:?}"),
    }
}

/// The example with the commented table in place of the one before it.
fn kernel_example() -> String {
    let (before, table) = EXAMPLE.split_once("# In place of").unwrap();
    let before = before.split_once("# What carries the connections").unwrap().0;
    let lines = table.lines().skip(1).map(|line| line.strip_prefix('#').unwrap_or(line).trim_start());
    before.to_owned() + &lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_holds_the_defaults() {
    let config = Config::from_toml(EXAMPLE).unwrap();
    assert_eq!(config.name(), Some(EntityName::osd(3)));
    let builder = MessengerBuilder::new(EntityName::osd(3));
    let default = builder
        .nonce(0x0123_4567_89AB_CDEF)
        .bind("10.0.0.3:6800".parse().unwrap())
        .dispatch_throttle(ThrottleLimits { bytes: 256 << 20, messages: 100_000 })
        .policy(EntityKind::Osd, Policy::lossless_peer())
        .policy(EntityKind::Client, Policy::stateful_server())
        .throttle(EntityKind::Client, ThrottleLimits { bytes: 100 << 20, messages: 1_000 })
        .inject(InjectConfig::default());
    let configured = MessengerBuilder::new(EntityName::osd(3)).configure(&config);
    assert_eq!(format!("{configured:#?}"), format!("{default:#?}"));
}

#[test]
fn the_example_holds_the_defaults_of_both_transports() {
    let config = Config::from_toml(EXAMPLE).unwrap();
    let Some(TransportConfig::Userspace(group)) = config.transport() else { panic!("{config:?}") };
    let mut stack = StackConfig::new([("10.0.0.3".parse().unwrap(), 24)]);
    stack = stack.with_gateway("10.0.0.1".parse().unwrap());
    stack.tcp.keepalive = group.shard.stack.tcp.keepalive;
    assert!(stack.tcp.keepalive.is_some_and(|keepalive| keepalive.probes_max == 5));
    assert_eq!(format!("{:#?}", group.shard.stack), format!("{stack:#?}"));
    assert_eq!((group.shard.polling, group.shard.seed), (Polling::default(), 1));
    let config = Config::from_toml(&kernel_example()).unwrap();
    let Some(TransportConfig::Kernel(kernel)) = config.transport() else { panic!("{config:?}") };
    let default = KernelConfig { congestion: Some("bbr".into()), ..KernelConfig::default() };
    assert_eq!(format!("{kernel:?}"), format!("{default:?}"));
}

#[test]
fn the_example_has_every_key_there_is() {
    let tables = ["", "[dispatch_throttle]\n", "[peers]\n", "[peers.osd]\n", "[backoff]\n", "[health]\n"];
    let more = ["[inject]\n", "[transport]\n", "[transport.kernel]\n", "[transport.userspace]\n"];
    let example = EXAMPLE.to_owned() + &kernel_example();
    let mut keys = 0;
    for table in tables.into_iter().chain(more) {
        let (_, problem) = problem(&format!("{table}nonsense = 1"));
        let (_, expected) = problem.split_once("expected ").unwrap_or_else(|| panic!("{problem}"));
        for key in expected.split('`').skip(1).step_by(2) {
            let there = [format!("\n{key} = "), format!("[{key}]"), format!("{key}]"), format!("{key}.")];
            // Kinds of peers are alike; the example's text names them.
            let known =
                there.iter().any(|form| example.contains(form)) || example.contains(&format!("{key}, "));
            assert!(known || example.contains(&format!("{key}.\n")), "{table}: {key} is not in the example");
            keys += 1;
        }
    }
    assert!(keys > 50, "{keys} keys");
}

#[test]
fn a_key_that_there_is_not_is_refused_by_name_and_line() {
    for (text, line, name) in [
        ("dispatch_thread = 2", 1, "dispatch_thread"),
        ("\n\n[health]\nsilence = 8.0", 4, "silence"),
        ("[peers.osd]\npolicy = \"lossless_peer\"\nthrotle = 1", 3, "throtle"),
        ("[peers.ods]\npolicy = \"lossless_peer\"", 1, "ods"),
        ("[transport.kernel]\nworkers = 2\nqueues = 1", 3, "queues"),
        ("[transport.userspace]\naddresses = [\"10.0.0.3/24\"]\nrto_maximum = \"1 s\"", 3, "rto_maximum"),
    ] {
        let (found_line, problem) = problem(text);
        assert!(problem.contains(&format!("`{name}`")) && problem.contains("expected"), "{problem}");
        assert_eq!(found_line, line, "{text}: {problem}");
    }
}

#[test]
fn a_value_that_makes_no_sense_is_refused_with_what_would() {
    for (text, line, hint) in [
        ("nonce = 1\nhandshake_timeout = \"10\"", 2, "ms"),
        ("handshake_timeout = 10", 1, "a time such as"),
        ("handshake_timeout = \"-1 s\"", 1, "a time such as"),
        ("idle_timeout = \"no\"", 1, "never"),
        ("send_budget = \"4 MB\"", 1, "MiB"),
        ("send_budget = -4", 1, "a number of bytes"),
        ("send_budget = \"99999999999 GiB\"", 1, "a number of bytes"),
        ("default_policy = \"lossy\"", 1, "lossless_peer_reuse"),
        ("name = \"osd\"", 1, "KIND.NUMBER"),
        ("bind = [\"10.0.0.3\"]", 1, "address"),
        ("[inject]\n\ndropped_pings = 1.5", 3, "0.0 to 1.0"),
        ("[dispatch_throttle]\nbytes = 1", 1, "messages"),
        ("[transport.userspace]\naddresses = [\"10.0.0.3/33\"]", 2, "10.0.0.3/24"),
        ("[transport.userspace]\ncongestion = \"reno\"\naddresses = []", 2, "cubic"),
        ("[transport.kernel]\n[transport.userspace]\naddresses = [\"10.0.0.3/24\"]", 2, "one transport"),
        ("nonce = ", 1, ""),
    ] {
        let (found_line, problem) = problem(text);
        assert!(problem.contains(hint), "{text}: {problem}");
        assert_eq!(found_line, line, "{text}: {problem}");
    }
}

#[test]
fn sizes_and_times_are_read_with_their_units() {
    let size = |text: &str| text.parse::<Size>().map(|size| size.0);
    assert_eq!([size("12 B"), size("3KiB"), size("1 GiB")], [Ok(12), Ok(3 << 10), Ok(1 << 30)]);
    assert_eq!([size("12"), size("1.5 MiB"), size("KiB")], [Err(()); 3]);
    let span = |text: &str| text.parse::<Span>().map(|span| span.0);
    assert_eq!(span("1.5 s"), Ok(Duration::from_millis(1_500)));
    assert_eq!(span("15min"), Ok(Duration::from_secs(900)));
    assert_eq!(
        [span("250 us"), span("90 ns")],
        [Ok(Duration::from_micros(250)), Ok(Duration::from_nanos(90))]
    );
    assert_eq!([span("s"), span("1 m"), span("1e3 s")], [Err(()); 3]);
}

#[test]
fn a_file_is_named_in_what_is_said_of_it() {
    let missing = Config::from_file("/nowhere/outrider.toml").unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere/outrider.toml: "), "{missing}");
    let path = std::env::temp_dir().join(format!("outrider-config-{}.toml", std::process::id()));
    std::fs::write(&path, "# a name with no kind\n  nmae = \"osd.3\"\n").unwrap();
    let error = Config::from_file(&path).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    let place = format!("{}: line 2, column 3: unknown field `nmae`, expected one of `name`", path.display());
    assert!(error.starts_with(&place), "{error}");
}
