//! Seven policies, five faults, each stage of a connection's life, over kernel sockets and over both kinds of TCP at
//! once: what comes of it is what `docs/messenger.md` tabulates, and nothing is left. The same in virtual time, between
//! two hosts on Outrider's own TCP: `sessions/policies.rs`.
//!
//! Needs root. `OUTRIDER_CASE=` with a part of a name (such as `race, answer`) plays fewer cases. Alone in its
//! process, for it counts descriptors and threads.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod events;
mod frame;
mod host;
#[path = "../outcomes/mod.rs"]
mod outcomes;
mod play;
mod recorder;
mod stage;
mod watch;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use outrider_drivers::netns::{NetNamespace, NetnsError};

use host::{Tcp, World};
use outcomes::Fault;
use play::{Case, Play};

/// Nothing takes this long; what is waited for in vain shall fail.
const PATIENCE: Duration = Duration::from_secs(120);
/// Worlds in which cases are played at the same time, for each column. Mostly they wait.
const WORLDS: usize = 6;
/// How long silence is borne where nothing shall end by it.
const LONG: Duration = Duration::from_secs(300);
/// How long it is borne where it is the fault, at first.
const SHORT: Duration = Duration::from_secs(1);
/// No machine stands still for so long.
const LONG_ENOUGH: Duration = Duration::from_secs(16);

const COLUMNS: [[Tcp; 2]; 3] =
    [[Tcp::Kernel, Tcp::Kernel], [Tcp::Kernel, Tcp::Userspace], [Tcp::Userspace, Tcp::Kernel]];

/// What failed, by name, and how many cases were played.
#[derive(Default)]
struct Tally {
    failed: Mutex<Vec<String>>,
    played: AtomicUsize,
}

/// Plays a case. A machine that stands still for longer than the time limits makes losses of its own: where these are
/// short the case is then played again with longer ones, in a new world.
fn play(world: &mut World, case: Case, port: &mut u16) -> bool {
    let mut silence = if case.fault.1 == Fault::Blackhole { SHORT } else { LONG };
    loop {
        *port += 1;
        let played = catch_unwind(AssertUnwindSafe(|| Play::new(world, case, *port, silence).run()));
        if let Ok(Ok(())) = played {
            return true;
        }
        if played.is_err() {
            // What the case has left is not for the next one.
            *world = World::new(world.tcp);
        }
        silence *= 4;
        if silence > LONG_ENOUGH {
            return false;
        }
        println!("{:?}: {}: once more, with time limits of {silence:?}", world.tcp, case.name());
    }
}

/// Plays cases of a column until none is left.
fn work(tcp: [Tcp; 2], cases: &[Case], next: &AtomicUsize, tally: &Tally) {
    let (mut world, mut port) = (World::new(tcp), 6_800);
    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
        tally.played.fetch_add(1, Ordering::Relaxed);
        if !play(&mut world, *case, &mut port) {
            tally.failed.lock().unwrap().push(format!("{tcp:?}: {}", case.name()));
        }
    }
}

fn left() -> (usize, usize) {
    let count = |path| std::fs::read_dir(path).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

fn is_root() -> bool {
    match NetNamespace::create() {
        Err(NetnsError::NoPrivilege { .. }) => {
            assert!(std::env::var_os("CI").is_none(), "under CI nothing is skipped: run as root");
            println!("skipped: needs root, for namespaces and TAP devices");
            false
        }
        namespace => namespace.is_ok() || panic!("{:?}", namespace.err()),
    }
}

#[test]
fn over_every_pair_of_transports_the_outcomes_are_as_the_document_tabulates() {
    if !is_root() {
        return;
    }
    let before = left();
    let chosen = std::env::var("OUTRIDER_CASE").unwrap_or_default();
    let cases: Vec<Case> = Case::all().into_iter().filter(|case| case.name().contains(&chosen)).collect();
    let (tally, start) = (Tally::default(), Instant::now());
    let next: [AtomicUsize; COLUMNS.len()] = Default::default();
    std::thread::scope(|scope| {
        for (tcp, next) in COLUMNS.into_iter().zip(&next) {
            for _ in 0..WORLDS {
                let (cases, tally) = (&cases, &tally);
                scope.spawn(move || work(tcp, cases, next, tally));
            }
        }
    });
    println!("{} cases in {:?}", tally.played.load(Ordering::Relaxed), start.elapsed());
    let failed = tally.failed.lock().unwrap();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    // A thread that was joined stays in /proc until the kernel has buried it.
    while left().0 > before.0 || left().1 > before.1 {
        assert!(
            start.elapsed() < PATIENCE * 3,
            "descriptors and threads: {before:?} before, {:?} now",
            left()
        );
        std::thread::yield_now();
    }
}
