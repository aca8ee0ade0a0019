use core::hint::spin_loop;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::thread;

use super::*;

/// An owner whose bell can be looked at, and which notes what it refused.
#[derive(Default)]
struct Owner {
    rung: AtomicBool,
    rings: AtomicU64,
    refused: Mutex<Vec<u64>>,
}

impl Resident for Owner {
    type Command = u64;
    type Listener = u64;

    fn ring(&self) {
        self.rings.fetch_add(1, Ordering::Relaxed);
        self.rung.store(true, Ordering::SeqCst);
    }

    fn refuse(&self, command: u64) {
        self.refused.lock().unwrap().push(command);
    }
}

fn mailbox() -> Mailbox<Owner> {
    Mailbox::new(Owner::default())
}

const fn connection(index: u32) -> ConnectionId {
    ConnectionId { index, generation: 0 }
}

#[test]
fn what_is_left_is_taken_in_order() {
    let mailbox = mailbox();
    for n in 0..3 {
        mailbox.post(n).unwrap();
        mailbox.post_unlisten(10 + n);
        mailbox.wake(connection(20 + n as u32));
    }
    let commands: Vec<u64> = core::iter::from_fn(|| mailbox.take_command()).collect();
    let listeners: Vec<u64> = core::iter::from_fn(|| mailbox.take_unlisten()).collect();
    let wakes: Vec<u32> = core::iter::from_fn(|| mailbox.take_wake()).map(|id| id.index).collect();
    assert_eq!((commands, listeners, wakes), (vec![0, 1, 2], vec![10, 11, 12], vec![20, 21, 22]));
    assert!(!mailbox.should_stop());
    mailbox.post_stop();
    assert!(mailbox.should_stop());
}

#[test]
fn nobody_sleeps_over_what_was_left_and_one_ring_wakes() {
    let leave: [fn(&Mailbox<Owner>); 4] =
        [|m| m.post(1).unwrap(), |m| m.wake(connection(1)), |m| m.post_unlisten(1), |m| m.post_stop()];
    for leave in leave {
        let mailbox = mailbox();
        assert!(mailbox.prepare_sleep());
        leave(&mailbox);
        leave(&mailbox);
        assert_eq!(mailbox.resident().rings.load(Ordering::Relaxed), 1, "the second finds it woken");
        mailbox.end_sleep();
        assert!(!mailbox.prepare_sleep(), "there is something to do");
        leave(&mailbox);
        assert_eq!(mailbox.resident().rings.load(Ordering::Relaxed), 1, "it is awake");
    }
}

#[test]
fn the_owner_and_those_who_must_not_wait_get_a_command_back_that_finds_no_room() {
    let mailbox = mailbox();
    for n in 0..COMMANDS_MAX as u64 {
        mailbox.post(n).unwrap();
    }
    assert_eq!(mailbox.try_post(7), Err(Refused::Full(7)));
    assert!(!mailbox.is_own_thread());
    mailbox.set_thread();
    assert!(mailbox.is_own_thread());
    assert_eq!(mailbox.post(8), Err(Refused::Full(8)));
    thread::scope(|scope| {
        // Another thread waits until there is room.
        let other = scope.spawn(|| mailbox.post(9));
        assert_eq!(mailbox.take_command(), Some(0));
        assert_eq!(other.join().unwrap(), Ok(()));
    });
    assert_eq!(core::iter::from_fn(|| mailbox.take_command()).last(), Some(9));
}

#[test]
fn after_the_end_commands_come_back_and_wakes_go_nowhere() {
    let mailbox = mailbox();
    mailbox.post(1).unwrap();
    mailbox.wake(connection(1));
    mailbox.close();
    assert_eq!(*mailbox.resident().refused.lock().unwrap(), [1]);
    assert_eq!(mailbox.post(2), Err(Refused::Gone(2)));
    assert_eq!(mailbox.try_post(3), Err(Refused::Gone(3)));
    mailbox.wake(connection(2));
    mailbox.post_unlisten(1);
    assert!(mailbox.take_wake().is_none() && mailbox.take_unlisten().is_none());
    assert!(mailbox.is_gone());
}

/// Rounds of the stresses: enough that an order that is wrong for the length of a store buffer shows.
const ROUNDS: u64 = 100_000;

/// A different pause each time, so that the two threads meet everywhere.
fn pause(round: u64) {
    for _ in 0..round.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58 {
        spin_loop();
    }
}

/// The owner's side of a race: takes wakes until it has `ROUNDS`, and sleeps whenever it may. A sleep without a ring
/// after something was left, and the leaving has returned, would last for ever.
fn take_all(mailbox: &Mailbox<Owner>, left: &AtomicU64, taken: &AtomicU64) -> Result<(), String> {
    let owner = mailbox.resident();
    let mut count = 0;
    while count < ROUNDS {
        while mailbox.take_wake().is_some() {
            count += 1;
        }
        taken.store(count, Ordering::Release);
        pause(count);
        if count == ROUNDS || !mailbox.prepare_sleep() {
            continue;
        }
        while !owner.rung.swap(false, Ordering::SeqCst) {
            // Looked at before the bell is looked at once more: who left it has rung by then, or never will.
            let has_left = left.load(Ordering::Acquire);
            if has_left > count && !owner.rung.load(Ordering::SeqCst) {
                left.store(u64::MAX, Ordering::Release);
                return Err(format!("asleep over wake {has_left} of {ROUNDS}, and nobody has rung"));
            }
            thread::yield_now();
        }
        mailbox.end_sleep();
    }
    Ok(())
}

#[test]
fn a_wake_left_while_the_owner_goes_to_sleep_is_seen_or_rings() {
    let mailbox = mailbox();
    let (left, taken) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let owner = scope.spawn(|| take_all(&mailbox, &left, &taken));
        for round in 1..=ROUNDS {
            // One at a time: each finds the owner on its way to sleep.
            while taken.load(Ordering::Acquire) < round - 1 && left.load(Ordering::Acquire) != u64::MAX {
                thread::yield_now();
            }
            pause(!round);
            mailbox.wake(connection(round as u32));
            if left.fetch_max(round, Ordering::AcqRel) == u64::MAX {
                break;
            }
        }
        owner.join().unwrap().unwrap();
    });
}

#[test]
fn a_command_left_while_the_owner_ends_is_executed_or_refused_once() {
    for round in 0..300 {
        let mailbox = mailbox();
        let (mut executed, mut returned) = (Vec::new(), Vec::new());
        thread::scope(|scope| {
            let posters: Vec<_> = (0..2_u64)
                .map(|poster| {
                    let mailbox = &mailbox;
                    scope.spawn(move || {
                        let mut returned = Vec::new();
                        for n in 0..200 {
                            if let Err(Refused::Gone(command)) = mailbox.post(poster * 1000 + n) {
                                returned.push(command);
                            }
                        }
                        returned
                    })
                })
                .collect();
            while executed.len() < round {
                match mailbox.take_command() {
                    Some(command) => executed.push(command),
                    None => thread::yield_now(),
                }
            }
            mailbox.close();
            returned = posters.into_iter().flat_map(|poster| poster.join().unwrap()).collect();
        });
        assert!(mailbox.take_command().is_none(), "nothing is left that nobody would answer");
        let refused = core::mem::take(&mut *mailbox.resident().refused.lock().unwrap());
        let mut all = [executed, refused, returned].concat();
        all.sort_unstable();
        let posted: Vec<u64> = (0..200).chain(1000..1200).collect();
        assert_eq!(all, posted, "round {round}");
    }
}
