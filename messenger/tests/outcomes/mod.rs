//! Which faults strike connections of which policy, and when: the cases of the table in `docs/messenger.md`.
#![allow(dead_code, unreachable_pub)] // Each test uses what it needs.

use outrider_messenger::Policy;

pub const DOCUMENT: &str = include_str!("../../../docs/messenger.md");

/// What is on its way when the fault strikes.
pub const STAGES: [&str; 6] = ["SYN", "SYN+ACK", "Connect", "answer", "Ready", "open"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The transport is reset.
    Reset,
    /// Nothing gets through for longer than TCP and handshake wait.
    Blackhole,
    /// The peer crashes and is back at once, knowing nothing.
    Restart,
    /// Both dial at once; of a client and a server, the client comes again while the server knows nothing of a loss.
    Race,
    /// The peer's process has crashed, and its host refuses connections for a while.
    Refuse,
}

pub const FAULTS: [(&str, Fault); 5] = [
    ("reset", Fault::Reset),
    ("blackhole", Fault::Blackhole),
    ("peer restart", Fault::Restart),
    ("race", Fault::Race),
    ("refuse", Fault::Refuse),
];

impl Fault {
    /// Whether the peer comes back without its memory.
    pub fn kills(self) -> bool {
        matches!(self, Fault::Restart | Fault::Refuse)
    }
}

/// The policies of the two hosts, and which of them the table is about. Host 1 dials.
pub fn hosts(policy: Policy) -> ([Policy; 2], u8) {
    if !policy.server {
        let mate = match (policy.lossy, policy.standby) {
            (true, _) => Policy::stateless_server(),
            (false, false) => Policy::stateful_server(),
            (false, true) => policy,
        };
        ([policy, mate], 1)
    } else if policy.lossy {
        ([Policy::lossy_client(), policy], 2)
    } else {
        ([Policy::lossless_client(), policy], 2)
    }
}

/// The callbacks that the document tabulates for a case, in their order.
pub fn expected_callbacks(policy: &str, fault: &str, stage: usize) -> Vec<&'static str> {
    let rows = DOCUMENT.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        let row = (cells.next()?, cells.next()?, cells.next()?, cells.next()?);
        (row.0 == policy && row.1 == fault).then_some(row)
    });
    let of = |name: &str| STAGES.iter().position(|stage| *stage == name);
    for (_, _, stages, outcome) in rows {
        let (first, last) = match stages.split_once(" to ") {
            _ if stages == "all" => (Some(0), Some(STAGES.len() - 1)),
            Some((first, last)) => (of(first), of(last)),
            None => (of(stages), of(stages)),
        };
        let (first, last) = (first.expect("a stage"), last.expect("a stage"));
        if (first..=last).contains(&stage) {
            let (callbacks, _) = outcome.split_once("; ").expect("callbacks; messages");
            return if callbacks == "nothing" { Vec::new() } else { callbacks.split(", ").collect() };
        }
    }
    panic!("docs/messenger.md tabulates nothing for {policy}, {fault}, {}", STAGES[stage]);
}
