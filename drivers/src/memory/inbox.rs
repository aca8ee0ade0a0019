//! [`Inbox`]: where senders leave frames for one port, a lock per burst; and [`Receiver`]: its reading end.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::link::Link;
use super::pool::{Buffer, Pool};
use crate::doorbell::Doorbell;
use crate::port::{ReceiveChecksum, RxFrame, TxOffload};
use crate::time::Instant;

/// A frame on its way.
#[derive(Debug)]
pub(super) struct Arrival {
    pub at: Instant,
    pub buffer: Buffer,
    pub length: u32,
    pub checksum: ReceiveChecksum,
}

impl Arrival {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length as usize]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.length as usize]
    }

    /// A second one like it.
    pub(super) fn copy(&self, pool: &mut Pool) -> Arrival {
        // As large as the first, not as long as the frame: it will go round like any other.
        let mut buffer = pool.take(self.buffer.len());
        buffer[..self.bytes().len()].copy_from_slice(self.bytes());
        Arrival { buffer, ..*self }
    }
}

/// What became of a burst left in an [`Inbox`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivery {
    /// Frames that found no room...
    pub overrun_frames: u64,
    /// ...and their bytes.
    pub overrun_bytes: u64,
    /// The sleeping receiver was woken.
    pub rung: bool,
}

/// Frames on their way to one port.
///
/// The sleeping protocol: before it sleeps the receiver publishes `wake_before`, the instant up to which it will
/// sleep anyway; a sender that leaves an earlier frame rings. Each side first publishes and then looks at what the
/// other published, with a sequentially consistent fence between, so at least one of them notices. A receiver that is
/// awake is not rung for, and the doorbell exists only once somebody asked for its descriptor: neither busy polling
/// nor virtual time makes a system call.
#[derive(Debug)]
pub(super) struct Inbox {
    incoming: Mutex<Vec<Arrival>>,
    /// Arrival of the earliest frame in `incoming`, in nanoseconds; `NEVER` if it is empty.
    earliest: AtomicU64,
    /// Bytes left here and not yet fetched, also those the receiver has taken out of `incoming`.
    held_bytes: AtomicUsize,
    held_bytes_max: AtomicUsize,
    /// Zero while the receiver is awake.
    wake_before: AtomicU64,
    sender_gone: AtomicBool,
    receiver_gone: AtomicBool,
    doorbell: OnceLock<Option<Doorbell>>,
    /// Set after the doorbell was rung, so that the receiver knows to clear it.
    rung: AtomicBool,
}

const NEVER: u64 = Instant::FAR_FUTURE.as_nanos();

impl Inbox {
    pub(super) fn new(held_bytes_max: usize) -> Self {
        Inbox {
            incoming: Mutex::default(),
            earliest: AtomicU64::new(NEVER),
            held_bytes: AtomicUsize::new(0),
            held_bytes_max: AtomicUsize::new(held_bytes_max),
            wake_before: AtomicU64::new(0),
            sender_gone: AtomicBool::new(false),
            receiver_gone: AtomicBool::new(false),
            doorbell: OnceLock::new(),
            rung: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_held_bytes_max(&self, bytes: usize) {
        self.held_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Leaves a burst; the buffers of frames that find no room go back to `pool`.
    pub(super) fn leave(&self, burst: impl Iterator<Item = Arrival>, pool: &mut Pool) -> Delivery {
        let mut delivery = Delivery::default();
        let held_bytes_max = self.held_bytes_max.load(Ordering::Relaxed);
        let held_before = self.held_bytes.load(Ordering::Relaxed);
        let (mut added_bytes, mut burst_earliest) = (0, NEVER);
        let mut incoming = self.lock();
        for arrival in burst {
            let length = arrival.length as usize;
            let held_bytes = held_before + added_bytes;
            // Like an idle link, an empty inbox takes any frame.
            if held_bytes > 0 && held_bytes + length > held_bytes_max {
                delivery.overrun_frames += 1;
                delivery.overrun_bytes += length as u64;
                pool.give(arrival.buffer);
            } else {
                added_bytes += length;
                burst_earliest = burst_earliest.min(arrival.at.as_nanos());
                incoming.push(arrival);
            }
        }
        self.held_bytes.fetch_add(added_bytes, Ordering::Relaxed);
        let earliest = self.earliest.load(Ordering::Relaxed).min(burst_earliest);
        self.earliest.store(earliest, Ordering::Release);
        drop(incoming);
        fence(Ordering::SeqCst);
        delivery.rung = self.wake_receiver(burst_earliest);
        delivery
    }

    fn wake_receiver(&self, earliest: u64) -> bool {
        let Some(Some(doorbell)) = self.doorbell.get() else { return false };
        if earliest >= self.wake_before.load(Ordering::Relaxed)
            || self.wake_before.swap(0, Ordering::Relaxed) == 0
        {
            return false;
        }
        self.ring(doorbell);
        true
    }

    fn ring(&self, doorbell: &Doorbell) {
        doorbell.ring();
        // After the ring, never before: a receiver that saw the flag too early would clear a bell that rings later.
        self.rung.store(true, Ordering::Release);
    }

    /// No more frames will be left here.
    pub(super) fn close_sender(&self) {
        self.sender_gone.store(true, Ordering::Release);
        if let Some(Some(doorbell)) = self.doorbell.get() {
            self.ring(doorbell);
        }
    }

    /// Nobody will fetch frames any more.
    pub(super) fn close_receiver(&self) {
        self.receiver_gone.store(true, Ordering::Release);
    }

    pub(super) fn receiver_gone(&self) -> bool {
        self.receiver_gone.load(Ordering::Acquire)
    }
}

/// Frames ordered by arrival; those of the same instant in the order they came.
#[derive(Debug, Default)]
struct Line {
    frames: VecDeque<Arrival>,
}

impl Line {
    fn push(&mut self, arrival: Arrival) {
        match self.frames.back() {
            Some(last) if last.at > arrival.at => {
                let place = self.frames.partition_point(|earlier| earlier.at <= arrival.at);
                self.frames.insert(place, arrival);
            }
            _ => self.frames.push_back(arrival),
        }
    }

    fn pop_due(&mut self, now: Instant) -> Option<Arrival> {
        if self.frames.front()?.at > now {
            return None;
        }
        self.frames.pop_front()
    }

    fn head(&self) -> Option<&Arrival> {
        self.frames.front()
    }
}

/// The way from a switch to a port: frames reach the switch, queue at its output, and travel on.
#[derive(Debug)]
struct Downlink {
    link: Link,
    /// Frames that have yet to arrive at the switch.
    inbound: Line,
}

/// The reading end of an [`Inbox`]; belongs to the port.
#[derive(Debug)]
pub(super) struct Receiver {
    inbox: Arc<Inbox>,
    /// Exchanged with `incoming`, so that frames leave it under one short lock.
    swap: Vec<Arrival>,
    line: Line,
    downlink: Option<Box<Downlink>>,
    /// The last budget was too small for all that was due.
    left_due: bool,
}

/// Frames and bytes handed over by one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fetched {
    pub frames: usize,
    pub bytes: usize,
}

impl Receiver {
    /// `downlink`: the last hop behind a switch; a cable has none.
    pub(super) fn new(inbox: Arc<Inbox>, downlink: Option<Link>) -> Self {
        let downlink = downlink.map(|link| Box::new(Downlink { link, inbound: Line::default() }));
        Receiver { inbox, swap: Vec::new(), line: Line::default(), downlink, left_due: false }
    }

    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Hands over what is due, `budget` frames at most.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        budget: usize,
        pool: &mut Pool,
        accept: &mut dyn FnMut(RxFrame<'_>),
    ) -> Fetched {
        self.inbox.wake_before.store(0, Ordering::Relaxed);
        if self.inbox.rung.load(Ordering::Acquire) {
            self.inbox.rung.store(false, Ordering::Relaxed);
            if let Some(Some(doorbell)) = self.inbox.doorbell.get() {
                doorbell.clear();
            }
        }
        self.collect();
        self.pass_switch(now, pool);
        let mut fetched = Fetched::default();
        while fetched.frames < budget {
            let Some(arrival) = self.line.pop_due(now) else { break };
            fetched.frames += 1;
            fetched.bytes += arrival.length as usize;
            accept(RxFrame {
                bytes: arrival.bytes(),
                checksum: arrival.checksum,
                left: TxOffload::default(),
            });
            pool.give(arrival.buffer);
        }
        if fetched.bytes > 0 {
            self.inbox.held_bytes.fetch_sub(fetched.bytes, Ordering::Relaxed);
        }
        self.left_due = self.line.head().is_some_and(|head| head.at <= now);
        fetched
    }

    /// Shows what is due, as far as it is known without a [`Self::receive`].
    pub(super) fn show_next(&mut self, now: Instant, budget: usize, show: &mut dyn FnMut(&[u8])) {
        self.collect();
        for arrival in self.line.frames.iter().take(budget) {
            if arrival.at > now {
                break;
            }
            show(arrival.bytes());
        }
    }

    /// Takes everything out of the inbox.
    fn collect(&mut self) {
        if self.inbox.earliest.load(Ordering::Acquire) == NEVER {
            return;
        }
        {
            let mut incoming = self.inbox.lock();
            core::mem::swap(&mut *incoming, &mut self.swap);
            self.inbox.earliest.store(NEVER, Ordering::Release);
        }
        let first = self.downlink.as_mut().map_or(&mut self.line, |downlink| &mut downlink.inbound);
        for arrival in self.swap.drain(..) {
            first.push(arrival);
        }
    }

    /// Sends what has reached the switch by `now` through its output queue.
    fn pass_switch(&mut self, now: Instant, pool: &mut Pool) {
        let Some(downlink) = &mut self.downlink else { return };
        if downlink.link.refresh(now) {
            self.inbox.set_held_bytes_max(downlink.link.config().held_limit());
        }
        let (mut lost_bytes, mut copied_bytes, mut any) = (0, 0, false);
        while let Some(mut arrival) = downlink.inbound.pop_due(now) {
            any = true;
            let Some(passage) = downlink.link.offer(arrival.at, arrival.bytes_mut()) else {
                lost_bytes += arrival.length as usize;
                pool.give(arrival.buffer);
                continue;
            };
            arrival.at = passage.at;
            // Both hops must vouch for it.
            if passage.checksum == ReceiveChecksum::Unverified {
                arrival.checksum = ReceiveChecksum::Unverified;
            }
            if passage.twice {
                copied_bytes += arrival.length as usize;
                self.line.push(arrival.copy(pool));
            }
            self.line.push(arrival);
        }
        if any {
            self.inbox.held_bytes.fetch_add(copied_bytes, Ordering::Relaxed);
            self.inbox.held_bytes.fetch_sub(lost_bytes, Ordering::Relaxed);
            downlink.link.publish();
        }
    }

    /// When the next frame already taken out of the inbox arrives, at the earliest.
    fn next_known(&self) -> Option<Instant> {
        let behind_switch = self.downlink.as_ref().and_then(|downlink| {
            let head = downlink.inbound.head()?;
            Some(downlink.link.arrival_at_best(head.at, head.length as usize))
        });
        let due = self.line.head().map(|head| head.at);
        behind_switch.into_iter().chain(due).min()
    }

    /// When the next frame arrives, at the earliest.
    pub(super) fn next_arrival(&self) -> Option<Instant> {
        let earliest = self.inbox.earliest.load(Ordering::Acquire);
        let incoming = (earliest != NEVER).then(|| {
            let at = Instant::from_nanos(earliest);
            self.downlink.as_ref().map_or(at, |downlink| downlink.link.arrival_at_best(at, 0))
        });
        incoming.into_iter().chain(self.next_known()).min()
    }

    /// Everything was fetched and nothing more will come.
    pub(super) fn exhausted(&self) -> bool {
        // The order matters: a sender leaves its last frames before it goes.
        self.inbox.sender_gone.load(Ordering::Acquire)
            && self.line.head().is_none()
            && self.inbox.earliest.load(Ordering::Acquire) == NEVER
    }

    /// Arms the doorbell: the caller is about to sleep on it, until [`Self::next_arrival`] at most.
    pub(super) fn readiness(&self) -> Option<BorrowedFd<'_>> {
        let doorbell = self.inbox.doorbell.get_or_init(|| Doorbell::new().ok()).as_ref()?;
        let next = self.next_known().map_or(NEVER, Instant::as_nanos);
        self.inbox.wake_before.store(next, Ordering::Release);
        fence(Ordering::SeqCst);
        let missed = self.inbox.earliest.load(Ordering::Acquire) < next
            || self.inbox.sender_gone.load(Ordering::Acquire);
        if (self.left_due || missed) && !self.inbox.rung.load(Ordering::Acquire) {
            self.inbox.ring(doorbell);
        }
        Some(doorbell.fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_orders_by_arrival_and_keeps_the_order_of_equals() {
        let mut line = Line::default();
        for (at, length) in [(5, 0), (9, 1), (7, 2), (9, 3), (5, 4), (1, 5)] {
            let buffer = vec![0; 8].into_boxed_slice();
            let at = Instant::from_nanos(at);
            line.push(Arrival { at, buffer, length, checksum: ReceiveChecksum::Valid });
        }
        assert!(line.pop_due(Instant::ZERO).is_none(), "nothing is due yet");
        let order: Vec<u32> =
            core::iter::from_fn(|| line.pop_due(Instant::from_nanos(8))).map(|a| a.length).collect();
        assert_eq!(order, [5, 0, 4, 2]);
        assert_eq!(line.head().unwrap().length, 1);
    }
}
