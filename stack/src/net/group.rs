//! Shards of one host: what arrives at one of them and belongs to another.
//!
//! All shards of a group have the same addresses and the same secrets, and one queue of the port each. A flow belongs
//! to the shard that [`Steering`] names, and what belongs to no flow (ARP, NDP, pings) to the first. A frame that
//! arrives elsewhere is copied into a buffer that goes round and left in the owner's inbox: a bounded queue without
//! locks. The own flow table is asked first, so this costs nothing where frames arrive at their owner.
//!
//! What the first shard hears of neighbours it tells the others by notes, and a shard that gets an answer that it
//! asked for tells it to those that have yet to ask.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use crossbeam::queue::ArrayQueue;
use outrider_drivers::port::{ReceiveChecksum, RxFrame, TxOffload};

use super::Stack;
use super::frame::Mac;
use super::key::FlowKey;
use super::neighbours::Outcome;
use super::steering::Steering;
use crate::time::Instant;

/// Frames that may wait in an inbox. What belongs to no flow takes half of it at most.
const FRAMES_MAX: usize = 1_024;
/// Notes about neighbours that may wait.
const NOTES_MAX: usize = 256;
/// The shard to which belongs what belongs to no flow.
const FIRST: usize = 0;

/// A frame for another shard.
#[derive(Debug)]
struct Handed {
    bytes: Vec<u8>,
    checksum: ReceiveChecksum,
    left: TxOffload,
    /// Whose buffer it is.
    from: usize,
}

/// What a shard knows about a neighbour.
#[derive(Clone, Copy, Debug)]
struct Note {
    address: IpAddr,
    mac: Mac,
    /// Believed only by a shard that asked.
    solicited: bool,
}

/// How a shard that may be asleep is told that something waits for it.
pub type Bell = Box<dyn Fn() + Send + Sync>;

/// What others leave for one shard.
struct Inbox {
    frames: ArrayQueue<Handed>,
    notes: ArrayQueue<Note>,
    /// Buffers of this shard that came back.
    spare: ArrayQueue<Vec<u8>>,
    bell: OnceLock<Bell>,
}

/// A shard's part in its group: goes into its stack by [`Stack::join`].
pub struct Member {
    index: usize,
    steering: Steering,
    inboxes: Arc<[Inbox]>,
    /// Shards that were left something since they were last rung for.
    left_for: Vec<bool>,
}

impl Member {
    /// The members of a group, one for each shard, in order.
    pub fn group(steering: &Steering) -> Vec<Member> {
        let inbox = |_| Inbox {
            frames: ArrayQueue::new(FRAMES_MAX),
            notes: ArrayQueue::new(NOTES_MAX),
            spare: ArrayQueue::new(FRAMES_MAX),
            bell: OnceLock::new(),
        };
        let inboxes: Arc<[Inbox]> = (0..steering.shards()).map(inbox).collect();
        let member = |index| Member {
            index,
            steering: steering.clone(),
            inboxes: Arc::clone(&inboxes),
            left_for: vec![false; inboxes.len()],
        };
        (0..inboxes.len()).map(member).collect()
    }

    /// Its number in the group.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Has `bell` rung, at the end of a poll of another shard, when something was left for this one. Without a bell
    /// (in virtual time) whoever polls the stacks polls all of them. Only the first call has an effect.
    pub fn set_bell(&self, bell: Bell) {
        self.inboxes[self.index].bell.get_or_init(|| bell);
    }

    /// Whether something was left for this shard.
    pub fn has_mail(&self) -> bool {
        let inbox = self.inbox();
        !inbox.frames.is_empty() || !inbox.notes.is_empty()
    }

    fn inbox(&self) -> &Inbox {
        &self.inboxes[self.index]
    }

    /// Leaves a copy of `frame` for the shard `to`, unless `limit` frames wait there.
    fn leave(&mut self, to: usize, frame: &RxFrame<'_>, limit: usize) -> bool {
        if self.inboxes[to].frames.len() >= limit {
            return false;
        }
        let mut bytes = self.inbox().spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(frame.bytes);
        let handed = Handed { bytes, checksum: frame.checksum, left: frame.left, from: self.index };
        match self.inboxes[to].frames.push(handed) {
            Ok(()) => {
                self.left_for[to] = true;
                true
            }
            Err(handed) => {
                self.put_back(handed);
                false
            }
        }
    }

    /// Returns a buffer to the shard it came from.
    fn put_back(&self, handed: Handed) {
        // If that shard has enough of them this one is freed.
        let _ = self.inboxes[handed.from].spare.push(handed.bytes);
    }

    /// Tells all others; returns how many had no room for it.
    fn tell(&mut self, note: Note) -> u64 {
        let mut lost = 0;
        for to in (0..self.inboxes.len()).filter(|to| *to != self.index) {
            match self.inboxes[to].notes.push(note) {
                Ok(()) => self.left_for[to] = true,
                Err(_) => lost += 1,
            }
        }
        lost
    }

    /// Rings for those that were left something.
    fn ring(&mut self) {
        for (inbox, left) in self.inboxes.iter().zip(&mut self.left_for) {
            if std::mem::take(left)
                && let Some(bell) = inbox.bell.get()
            {
                bell();
            }
        }
    }
}

impl Stack {
    /// Makes the stack one of a group. All stacks of a group must be made with the same configuration, seed, MTU and
    /// Ethernet address; before the first poll.
    pub fn join(&mut self, member: Member) {
        self.member = Some(member);
    }

    /// Whether another shard left something that the next poll will see to.
    pub fn has_mail(&self) -> bool {
        self.member.as_ref().is_some_and(Member::has_mail)
    }

    /// Whether a flow would be this shard's.
    pub(super) fn owns(&self, key: &FlowKey) -> bool {
        self.owner_elsewhere(key).is_none()
    }

    fn owner_elsewhere(&self, key: &FlowKey) -> Option<usize> {
        let member = self.member.as_ref()?;
        let owner = member.steering.owner(key.local(), key.remote());
        (owner != member.index).then_some(owner)
    }

    /// Hands `frame`, about a flow that this shard does not have, to the shard that owns it. Returns whether another
    /// does; the frame is then dealt with, be it that it found no room.
    pub(super) fn hand_to_owner(&mut self, key: &FlowKey, frame: &RxFrame<'_>) -> bool {
        let Some(owner) = self.owner_elsewhere(key) else { return false };
        self.hand_over(owner, frame, FRAMES_MAX);
        true
    }

    /// Hands a frame that belongs to no flow to the shard that sees to those. Returns whether that is another.
    pub(super) fn hand_to_first(&mut self, frame: &RxFrame<'_>) -> bool {
        let elsewhere = self.member.as_ref().is_some_and(|member| member.index != FIRST);
        if elsewhere {
            self.hand_over(FIRST, frame, FRAMES_MAX / 2);
        }
        elsewhere
    }

    fn hand_over(&mut self, to: usize, frame: &RxFrame<'_>, limit: usize) {
        let Some(member) = &mut self.member else { return };
        if member.leave(to, frame, limit) {
            self.statistics.handed_over += 1;
        } else {
            self.statistics.rx_dropped_hand_over += 1;
        }
    }

    /// Sees to what other shards left, `budget` frames at most; returns how much it was.
    pub(super) fn receive_handed(&mut self, now: Instant, budget: usize) -> usize {
        let mut work = 0;
        while let Some(note) = self.member.as_ref().and_then(|member| member.inbox().notes.pop()) {
            self.on_note(now, note);
            work += 1;
            if work >= NOTES_MAX {
                break;
            }
        }
        for _ in 0..budget {
            let Some(handed) = self.member.as_ref().and_then(|member| member.inbox().frames.pop()) else {
                break;
            };
            self.statistics.handed_in += 1;
            self.sort(now, &RxFrame { bytes: &handed.bytes, checksum: handed.checksum, left: handed.left });
            if let Some(member) = &self.member {
                member.put_back(handed);
            }
            work += 1;
        }
        work
    }

    /// Wakes the shards that were left something.
    pub(super) fn ring_others(&mut self) {
        if let Some(member) = &mut self.member {
            member.ring();
        }
    }

    /// The first shard of a group heard something of a neighbour; it has yet to learn it itself. An answer is for
    /// whoever asked; if the first shard did, all may know it.
    pub(super) fn tell_heard(&mut self, address: IpAddr, mac: Mac, solicited: bool) {
        let solicited = solicited && !self.neighbours.has(address);
        self.tell(Note { address, mac, solicited });
    }

    fn tell(&mut self, note: Note) {
        if let Some(member) = &mut self.member {
            self.statistics.neighbour_notes_lost += member.tell(note);
        }
    }

    fn on_note(&mut self, now: Instant, note: Note) {
        let Note { address, mac, solicited } = note;
        let Some(outcome) = self.neighbours.learn(now, address, mac, solicited) else { return };
        if solicited && matches!(outcome, Outcome::Resolved(_)) {
            // It was this shard that asked: the others may know it too.
            self.tell(Note { solicited: false, ..note });
        }
        self.on_neighbour(now, outcome);
    }
}
