//! Scripts with faults in them: whatever a script says, it ends in one of the four outcomes, never in a panic.

use std::path::Path;
use std::{fs, panic};

use super::Outcome;

/// With the tolerance of the public tool.
fn run_text(text: &str) -> Outcome {
    super::run_text(text, super::TOLERANCE_US_DEFAULT)
}

/// A small generator (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// Every number in `line` that starts at a random place, changed.
fn change_number(line: &str, random: &mut Random) -> String {
    let starts: Vec<usize> =
        line.char_indices().filter(|(_, c)| c.is_ascii_digit()).map(|(at, _)| at).collect();
    let Some(&at) = starts.get(random.below(starts.len())) else { return line.to_owned() };
    let digits = ["0", "1", "7", "999", "65535", "4294967295", ""];
    format!("{}{}{}", &line[..at], digits[random.below(digits.len())], &line[at + 1..])
}

fn mutate(text: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..1 + random.below(3) {
        let at = random.below(lines.len());
        let other = random.below(lines.len());
        match random.below(5) {
            0 => {
                lines.remove(at);
            }
            1 => lines.insert(at, lines[other].clone()),
            2 => lines.swap(at, other),
            _ => lines[at] = change_number(&lines[at], random),
        }
        if lines.is_empty() {
            break;
        }
    }
    // A wait of many days is of no interest here.
    lines.retain(|line| !line.trim_start().trim_start_matches('+').starts_with("999"));
    lines.join("\n")
}

#[test]
fn no_script_makes_runner_or_engine_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../stack/tests/packetdrill");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("our scripts")
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    let mut seen = [0usize; 4];
    for (index, path) in paths.iter().enumerate() {
        let text = fs::read_to_string(path).expect("a script");
        for seed in 0..40u64 {
            let mut random = Random((index as u64 * 1000 + seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let script = mutate(&text, &mut random);
            let outcome = panic::catch_unwind(|| run_text(&script));
            let outcome = outcome.unwrap_or_else(|_| panic!("seed {seed} of {}:\n{script}", path.display()));
            seen[match outcome {
                Outcome::Passed => 0,
                Outcome::Failed { .. } => 1,
                Outcome::Skipped { .. } => 2,
                Outcome::Unreadable { .. } => 3,
            }] += 1;
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0 && seen[3] > 0, "faults of every kind: {seen:?}");
}

const UNCONNECTED: &str = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n\
    +0 setsockopt(3, SOL_TCP, TCP_MAXSEG, [1200], 4) = 0\n";

#[test]
fn the_segment_size_of_an_unconnected_socket_is_what_was_set_or_the_default() {
    let asked = |size: u16| {
        run_text(&format!("{UNCONNECTED}+0 getsockopt(3, SOL_TCP, TCP_MAXSEG, [{size}], [4]) = 0\n"))
    };
    assert_eq!(asked(1200), Outcome::Passed, "newer Linux");
    assert_eq!(asked(536), Outcome::Passed, "older Linux");
    assert!(matches!(asked(1100), Outcome::Failed { line: 3, .. }), "{:?}", asked(1100));
}

#[test]
fn what_a_queue_that_refuses_would_change_is_skipped() {
    let refuses = "0 `tc qdisc replace dev tun0 root pfifo limit 0`\n";
    let skipped = |rest: &str| run_text(&format!("{refuses}{rest}"));
    assert_eq!(run_text(refuses), Outcome::Passed);
    for rest in ["+0 %{ assert tcpi_probes == 1 }%\n", "+1 `tc qdisc del dev tun0 root`\n"] {
        let outcome = skipped(rest);
        assert!(matches!(outcome, Outcome::Skipped { line: 2, .. }), "{rest}: {outcome:?}");
    }
}

#[test]
fn what_matters_only_with_sack_is_skipped_only_with_sack() {
    let socket = "+0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n";
    for parameter in ["tcp_recovery", "tcp_dsack"] {
        let with = run_text(&format!("0 `sysctl -q net.ipv4.{parameter}=0`\n{socket}"));
        assert!(
            matches!(&with, Outcome::Skipped { line: 1, what } if what.contains(parameter)),
            "{parameter}: {with:?}"
        );
        let without =
            format!("0 `sysctl -q net.ipv4.{parameter}=0\nsysctl -q net.ipv4.tcp_sack=0`\n{socket}");
        assert_eq!(run_text(&without), Outcome::Passed, "{parameter}");
    }
}

#[test]
fn a_path_too_small_for_any_segment_is_taken_as_the_smallest() {
    let script = "--mtu=10\n0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 listen(3, 1) = 0\n\
        +0 < S 0:0(0) win 1000 <mss 1000,sackOK,TS val 1 ecr 0>\n\
        +0 > S. 0:0(0) ack 1 <mss 88,sackOK,TS val 1 ecr 1>\n";
    assert_eq!(run_text(script), Outcome::Passed);
}

#[test]
fn the_tolerance_given_holds_where_the_script_has_none() {
    let script = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n+0 listen(3, 1) = 0\n\
        +0 < S 0:0(0) win 1000 <mss 1000>\n+.01 > S. 0:0(0) ack 1 <...>\n";
    assert!(matches!(super::run_text(script, super::TOLERANCE_US_DEFAULT), Outcome::Failed { line: 4, .. }));
    assert_eq!(super::run_text(script, 20_000), Outcome::Passed);
    let own = format!("--tolerance_usecs=5000\n{script}");
    assert!(matches!(super::run_text(&own, 20_000), Outcome::Failed { line: 5, .. }));
}
