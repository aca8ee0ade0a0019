//! The statistics segment: what a stack does, as another mapping and another process read it.

// Helpers of tests may unwrap like tests.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::endpoints::{Checked, CheckedAcceptor, Notes, Plan};
use common::{Pair, address, gigabit};
use outrider_drivers::memory::{LinkConfig, cable};
use outrider_drivers::port::Port;
use outrider_stack::net::{ListenOptions, Phase, Stack};
use outrider_stack::shard::segment::{Publication, PublishError, Publisher, ReadError, Reader, WriterState};

const SERVER: &str = "10.0.0.2:4000";

/// A file of this test's own.
fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("outrider-stack-test-{name}-{}", std::process::id()))
}

fn publish(pair: &Pair, publisher: &mut Publisher) {
    let port = pair.a.port.statistics();
    publisher.publish(pair.now, &pair.a.stack, port, Duration::from_millis(3), 4);
}

fn connect(stack: &mut Stack, pair_now: outrider_stack::time::Instant, plan: Plan) -> Notes {
    let notes = Notes::default();
    stack.connect(pair_now, address(SERVER), Checked::new(plan, &notes));
    notes
}

#[test]
fn what_is_read_is_what_the_stack_says() {
    let mut pair = Pair::new(1, gigabit());
    let acceptor = CheckedAcceptor::new(Plan { stopped: true, finish: false, ..Plan::server(0) });
    pair.b.stack.listen(address(SERVER), ListenOptions::default(), Box::new(acceptor)).unwrap();
    let publication = Publication::new("osd.3").at(path("says"));
    let mut publishers = publication.publishers(&[pair.a.port.info().clone()]).unwrap();
    let publisher = &mut publishers[0];
    let reader = Reader::open(publisher.path()).unwrap();
    assert_eq!((reader.header().name.as_str(), reader.header().shards), ("osd.3", 1));
    assert_eq!(reader.header().pid, std::process::id());
    assert_eq!((reader.writer(), reader.connections(0).count()), (WriterState::Running, 0));

    let now = pair.now;
    // One that sends until the peer's buffer is full, and one with nothing to say.
    let busy = connect(&mut pair.a.stack, now, Plan { finish: false, ..Plan::client(1 << 30) });
    connect(&mut pair.a.stack, now, Plan { finish: false, ..Plan::client(0) });
    pair.run_for(Duration::from_millis(5));
    publish(&pair, publisher);
    let (first, written) = (reader.shard(0).unwrap(), pair.now);
    assert_eq!((first.updated_at, first.running, first.connections), (written, true, 2));
    assert_eq!((first.stack, first.port), (*pair.a.stack.statistics(), pair.a.port.statistics()));
    assert_eq!((first.port_name.as_str(), first.mtu, first.sleeps), ("cable:0", 1_500, 4));

    pair.run_for(Duration::from_millis(5));
    publish(&pair, publisher);
    let shown: Vec<_> = reader.connections(0).collect();
    assert_eq!(shown.len(), 2);
    for connection in &shown {
        let index = connection.report.summary.id.index;
        let said = pair.a.stack.connection_report(pair.now, index).unwrap();
        assert_eq!(connection.report.statistics, said.statistics);
        assert_eq!(connection.report.summary.send, said.summary.send);
        assert_eq!(connection.report.summary.phase, Phase::Established);
        assert_eq!(connection.report.summary.remote, address(SERVER));
    }
    assert_eq!(shown[0].report.statistics.payload_bytes_sent, busy.get().sent);
    let updated = [shown[0].updated_at, shown[1].updated_at];
    assert_eq!(updated, [pair.now, written], "what has not changed is not written again");

    pair.a.stack.abort_all(pair.now);
    pair.run_for(Duration::from_millis(5));
    publish(&pair, publisher);
    assert_eq!((reader.connections(0).count(), reader.shard(0).unwrap().connections), (0, 0));
}

#[test]
fn connections_beyond_the_bound_are_counted_and_not_shown() {
    let mut pair = Pair::new(1, gigabit());
    let acceptor = CheckedAcceptor::new(Plan { finish: false, ..Plan::server(0) });
    pair.b.stack.listen(address(SERVER), ListenOptions::default(), Box::new(acceptor)).unwrap();
    let publication = Publication { connections_max: 3, ..Publication::new("small").at(path("bound")) };
    let mut publishers = publication.publishers(&[pair.a.port.info().clone()]).unwrap();
    let now = pair.now;
    let plan = Plan { finish: false, ..Plan::client(0) };
    let notes: Vec<Notes> = (0..5).map(|_| connect(&mut pair.a.stack, now, plan)).collect();
    pair.run_for(Duration::from_millis(5));
    publish(&pair, &mut publishers[0]);
    let reader = Reader::open(publishers[0].path()).unwrap();
    assert_eq!((reader.connections(0).count(), reader.shard(0).unwrap().connections), (3, 5));
    // When one that is shown ends its place is free for the next.
    notes[1].get().abort = true;
    let waker = notes[1].get().waker.clone().unwrap();
    waker.wake();
    pair.run_for(Duration::from_millis(5));
    publish(&pair, &mut publishers[0]);
    assert_eq!((reader.connections(0).count(), reader.shard(0).unwrap().connections), (2, 4));
}

#[test]
fn a_shard_that_has_ended_says_so_as_long_as_another_runs() {
    let (a, b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    let publication = Publication::new("two").at(path("ended"));
    let ports = [a.info().clone(), b.info().clone()];
    let mut publishers = publication.publishers(&ports).unwrap();
    let reader = Reader::open(publishers[0].path()).unwrap();
    drop(publishers.remove(0));
    assert_eq!([0, 1].map(|shard| reader.shard(shard).unwrap().running), [false, true]);
    assert!(publication.path.as_ref().unwrap().exists());
    drop(publishers);
    assert!(!publication.path.unwrap().exists(), "the last one takes the file away");
}

#[test]
fn no_more_is_published_than_there_is_room_for() {
    let (a, _b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    let publication = Publication::new("x").at(path("size"));
    let none = Publication { connections_max: 0, ..publication.clone() };
    assert!(matches!(none.publishers(&[a.info().clone()]), Err(PublishError::Size { .. })));
    assert!(matches!(publication.publishers(&[]), Err(PublishError::Size { .. })));
    let nowhere = Publication::new("x").at("/proc/no/such/folder");
    assert!(matches!(nowhere.publishers(&[a.info().clone()]), Err(PublishError::File { .. })));
}

#[test]
fn what_is_no_segment_is_not_read() {
    let path = path("other");
    std::fs::write(&path, [7; 4_096]).unwrap();
    assert!(matches!(Reader::open(&path), Err(ReadError::NoSegment { .. })));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(Reader::open(&path), Err(ReadError::File { .. })));
}

/// Told the file to publish in, this test is the other process; otherwise it has nothing to do.
const CHILD: &str = "OUTRIDER_SEGMENT_CHILD";

#[test]
fn the_other_process_publishes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let (a, _b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    let publication = Publication::new("child").at(path);
    let _publishers = publication.publishers(&[a.info().clone()]).unwrap();
    println!("published");
    // Until it is killed; or until the parent is gone.
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
}

#[test]
fn a_writer_that_was_killed_is_told_from_one_that_runs() {
    let path = path("killed");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_other_process_publishes_until_it_is_killed", "--nocapture"])
        .env(CHILD, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    assert!(output.lines().any(|line| line.unwrap().contains("published")));
    let reader = Reader::open(&path).unwrap();
    assert_eq!((reader.writer(), reader.header().pid), (WriterState::Running, child.id()));
    assert_eq!(reader.shard(0).unwrap().port_name, "cable:0");
    let (a, _b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    let publication = Publication::new("next").at(&path);
    let refused = publication.publishers(&[a.info().clone()]);
    assert!(matches!(refused, Err(PublishError::InUse { pid, .. }) if pid == child.id()));

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(reader.writer(), WriterState::Gone);
    assert!(reader.shard(0).unwrap().running, "it could not say so itself");
    assert_eq!(Reader::open(&path).unwrap().writer(), WriterState::Gone, "the file stays");
    let publishers = publication.publishers(&[a.info().clone()]).unwrap();
    assert_eq!(Reader::open(publishers[0].path()).unwrap().header().name, "next", "and makes way");
}
