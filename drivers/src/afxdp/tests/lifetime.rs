//! Interfaces that go away, and processes that are killed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use super::*;
use crate::afxdp::bpf::testing::{Object, identifiers};
use crate::afxdp::{Attach, Take};
use crate::doorbell::poll_fds;

fn is_gone(result: &Result<Vec<Vec<u8>>, PortError>) -> bool {
    matches!(result, Err(PortError::Gone { port }) if port == "afxdp:near0:0")
}

#[test]
fn a_deleted_interface_ends_the_port_and_wakes_who_sleeps_on_it() {
    let Some(lab) = Lab::new(1, 1500) else { return };
    let mut port = lab.open_near(&AfXdpOptions::default()).unwrap().remove(0);
    let deleting = std::thread::scope(|scope| {
        let deleting = scope.spawn(|| lab.far("link delete far0"));
        // As a shard does: look, and sleep until the descriptor says something.
        let start = now();
        while !is_gone(&received(&mut port)) {
            poll_fds(&[port.readiness().unwrap()], Some(PATIENCE)).unwrap();
            assert!(now() - start < PATIENCE, "nobody woke the sleeper");
        }
        deleting.join()
    });
    deleting.unwrap();
    assert!(is_gone(&received(&mut port)), "and it stays gone");
    let sent = port.transmit(now(), 60, TxOffload::default(), &mut |_| 60);
    assert!(matches!(sent, Err(PortError::Gone { .. })), "{sent:?}");
}

#[test]
fn a_port_that_is_never_slept_on_notices_too() {
    let Some(lab) = Lab::new(1, 1500) else { return };
    let mut port = lab.open_near(&AfXdpOptions::default()).unwrap().remove(0);
    lab.near("link delete near0");
    until("the port to notice", || is_gone(&received(&mut port)));
}

#[test]
fn an_interface_that_is_down_for_a_while_keeps_its_port() {
    let Some(lab) = Lab::new(1, 1500) else { return };
    let (mut near, mut far) = lab.pair(&AfXdpOptions::default());
    lab.near("link set near0 down");
    assert!(send(&mut near, &numbered(7, 60)), "kept for later");
    assert!(near.next_arrival(now()).is_some(), "it wants to ring again");
    assert_eq!(received(&mut near).unwrap(), Vec::<Vec<u8>>::new());
    lab.near("link set near0 up");
    until("the frame", || {
        received(&mut near).unwrap();
        received(&mut far).unwrap().iter().any(|frame| number_of(frame) == Some(7))
    });
    assert!(near.afxdp_statistics().tx_down > 0);
    assert_eq!(near.next_arrival(now()), None);
}

/// Set for a process that is to hold ports until it is killed: `generic` or `native`, then `shared` or `dedicated`.
const HOLD: &str = "OUTRIDER_TEST_HOLD_AFXDP";
const OPENED: &str = "ports opened";

/// Not a test of its own: the child of the test below.
#[test]
fn hold_ports_until_killed() {
    let Ok(how) = std::env::var(HOLD) else { return };
    let attach = if how.contains("generic") { Attach::Generic } else { Attach::Native };
    let take = if how.contains("shared") {
        Take::Shared(vec!["10.9.0.3".parse().unwrap()])
    } else {
        Take::Dedicated
    };
    let _ports = AfXdp::open("near0", &AfXdpOptions { attach, take, ..AfXdpOptions::default() }).unwrap();
    println!("{OPENED}");
    loop {
        std::thread::park();
    }
}

/// Identifiers of what a process holds: its programs, maps and links, from proc(5) fdinfo.
fn held_by(child: &Child, key: &str) -> BTreeSet<u32> {
    let folder = format!("/proc/{}/fdinfo", child.id());
    let entries = std::fs::read_dir(folder).unwrap();
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok());
    let value = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().parse().ok()
    };
    texts.filter_map(value).collect()
}

#[test]
fn a_killed_process_leaves_no_program_map_or_link_and_the_next_start_succeeds() {
    for how in ["native dedicated", "generic dedicated", "native shared"] {
        let Some(lab) = Lab::new(1, 1500) else { return };
        lab.near("address add 10.9.0.2/24 dev near0");
        lab.far("address add 10.9.0.1/24 dev far0");
        let mut child = lab
            .near
            .command(std::env::current_exe().unwrap())
            .args(["--exact", "afxdp::tests::lifetime::hold_ports_until_killed", "--nocapture"])
            .env(HOLD, how)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains(OPENED)), "{how}: the child failed");
        let objects = [
            (Object::Program, held_by(&child, "prog_id")),
            (Object::Map, held_by(&child, "map_id")),
            (Object::Link, held_by(&child, "link_id")),
        ];
        for (object, held) in &objects {
            assert!(!held.is_empty(), "{how}: {object:?}");
            assert!(identifiers(*object).iter().any(|id| held.contains(id)), "{how}: {object:?}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for (object, held) in objects {
            until("what the process held to go", || identifiers(object).iter().all(|id| !held.contains(id)));
        }
        let links = lab.near.command("ip").args(["-d", "link", "show", "near0"]).output().unwrap();
        let links = String::from_utf8(links.stdout).unwrap();
        assert!(!links.contains("xdp"), "{how}: {links}");
        let ping = ["-c", "1", "-W", "10", "10.9.0.2"];
        let ping = lab.far.command("ping").args(ping).output().expect("iputils-ping");
        assert!(ping.status.success(), "{how}: the kernel has its interface back");
        lab.open_near(&AfXdpOptions::default()).unwrap();
    }
}
