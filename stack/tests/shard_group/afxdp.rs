//! The same over AF_XDP: a veth pair of four queues between two namespaces. Needs root.

use std::process::Command;

use outrider_drivers::afxdp::{AfXdp, AfXdpOptions};
use outrider_drivers::netns::{NetNamespace, NetnsError};

use super::*;

const CONNECTIONS: usize = 1_000;

/// A namespace, or a word on why there is none.
fn namespace() -> Option<NetNamespace> {
    match NetNamespace::create() {
        Ok(namespace) => Some(namespace),
        Err(NetnsError::NoPrivilege { .. }) => {
            assert!(std::env::var_os("CI").is_none(), "under CI nothing is skipped: run as root");
            println!("skipped: needs root");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn ip(mut command: Command, line: &str) {
    let output = command.args(line.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A port on each queue of an interface of `namespace`, which is brought up without a word from its kernel.
fn ports_of(namespace: &NetNamespace, interface: &str) -> Vec<Box<dyn Port>> {
    ip(namespace.command("ip"), &format!("link set {interface} addrgenmode none up"));
    let open = || AfXdp::open(interface, &AfXdpOptions::default());
    let ports = namespace.run(open).unwrap().unwrap();
    assert_eq!(ports.len(), SHARDS);
    ports.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect()
}

#[test]
fn a_thousand_connections_over_four_queues_of_an_interface() {
    let (Some(near), Some(far)) = (namespace(), namespace()) else { return };
    let queues = format!("numtxqueues {SHARDS} numrxqueues {SHARDS}");
    let pair =
        format!("link add near0 {queues} type veth peer name far0 {queues} netns {}", far.path().display());
    ip(near.command("ip"), &pair);
    // Both ends are up before either port looks at its interface.
    ip(far.command("ip"), "link set far0 addrgenmode none up");
    let polling = Polling::Adaptive { spin: Duration::ZERO };
    let server = spawn_group(ports_of(&near, "near0"), config(1, polling)).unwrap();
    let client = spawn_group(ports_of(&far, "far0"), config(2, polling)).unwrap();
    exchange(&server, &client, CONNECTIONS);
    for group in [&client, &server] {
        // No driver tells how veth spreads flows, so that some frames came to the wrong shard.
        check(&group.handle().statistics(), CONNECTIONS as u64, true);
    }
    for group in [client, server] {
        assert!(ShardReport::sum(group.stop()).error.is_none());
    }
}
