//! The wire between two hosts: frames that pass through the test's hands.
//!
//! It follows the bytes of one connection, and holds everything as soon as what a stage is named for comes by. Frames
//! are held, passed and swallowed whole and in order, so neither host can tell it from a network.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use outrider_drivers::doorbell::{Doorbell, poll_fds};
use outrider_drivers::port::{Port, PortError, TxOffload};
use outrider_stack::time::{Clock, MonotonicClock};

use super::PATIENCE;
use super::frame::{Frame, Segment, parse};
use super::stage::{Hit, Tracker};

/// Which of the two hosts: 0 dials.
pub(super) type Side = usize;

/// What becomes of TCP segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Pass,
    /// They are kept, in order.
    Hold,
    Swallow,
}

struct State {
    ports: [Option<Box<dyn Port>>; 2],
    mode: Mode,
    tracker: Option<Tracker>,
    hit: Option<Hit>,
    held: VecDeque<(Side, Vec<u8>)>,
    /// What waits for a host: for room, or until it is up.
    outbox: [VecDeque<Vec<u8>>; 2],
    /// Nothing is handed to this host.
    down: [bool; 2],
    /// Nothing of this host's gets on the wire.
    mute: [bool; 2],
    failed: Option<String>,
}

struct Shared {
    state: Mutex<State>,
    /// A stage was reached.
    changed: Condvar,
    bell: Doorbell,
    stop: AtomicBool,
}

/// The wire, with a thread of its own. Dropping it ends that.
pub(super) struct Wire {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// A wire with nobody at its ends.
    pub(super) fn start() -> Wire {
        let state = State {
            ports: [None, None],
            mode: Mode::Pass,
            tracker: None,
            hit: None,
            held: VecDeque::new(),
            outbox: Default::default(),
            down: [false; 2],
            mute: [false; 2],
            failed: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            bell: Doorbell::new().unwrap(),
            stop: AtomicBool::new(false),
        });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        });
        Wire { shared, thread: Some(thread) }
    }

    /// Does something to the wire between two frames; all that was sent before is on the wire by then.
    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.shared.state.lock().unwrap();
        state.pump();
        let result = work(&mut state);
        state.pump();
        drop(state);
        self.shared.changed.notify_all();
        self.shared.bell.ring();
        result
    }

    /// The wire of the next case: empty, and it holds everything once the stage is reached.
    pub(super) fn begin(&self, stage: usize) {
        self.with(|state| {
            state.mode = Mode::Pass;
            state.tracker = Some(Tracker::new(stage));
            state.hit = None;
            state.held.clear();
            state.outbox.iter_mut().for_each(VecDeque::clear);
        });
    }

    /// A host's end of the wire.
    pub(super) fn plug(&self, side: Side, port: Option<Box<dyn Port>>) {
        self.with(|state| state.ports[side] = port);
    }

    pub(super) fn set_down(&self, side: Side, down: bool) {
        self.with(|state| state.down[side] = down);
    }

    pub(super) fn set_mute(&self, side: Side, mute: bool) {
        self.with(|state| state.mute[side] = mute);
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        self.with(|state| state.mode = mode);
    }

    /// Waits until the stage is reached and everything is held, as long as `goes_on` says that it may yet come.
    pub(super) fn wait_for_stage(&self, mut goes_on: impl FnMut() -> bool) -> Option<Hit> {
        let mut state = self.shared.state.lock().unwrap();
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            assert!(state.failed.is_none(), "the wire: {:?}", state.failed);
            if let Some(hit) = state.hit {
                return Some(hit);
            }
            assert!(std::time::Instant::now() < until, "the stage is not reached");
            let look_again = std::time::Duration::from_millis(50);
            state = self.shared.changed.wait_timeout(state, look_again).unwrap().0;
            if state.hit.is_none() && !goes_on() {
                return None;
            }
        }
    }

    /// How many segments are held.
    pub(super) fn held(&self) -> usize {
        self.with(|state| state.held.len())
    }

    /// Hands over the `count` segments that are held longest, and goes on holding.
    pub(super) fn release(&self, count: usize) {
        self.with(|state| {
            for _ in 0..count.min(state.held.len()) {
                let (from, frame) = state.held.pop_front().expect("it is there");
                state.outbox[1 - from].push_back(frame);
            }
        });
    }

    /// Loses the resets that a host has sent since `before` segments were held.
    pub(super) fn lose_resets_since(&self, before: usize, side: Side) {
        let is_reset = |frame: &[u8]| matches!(parse(frame), Frame::Tcp(Segment { rst: true, .. }));
        self.with(|state| {
            let since = state.held.split_off(before.min(state.held.len()));
            let kept = since.into_iter().filter(|(from, frame)| *from != side || !is_reset(frame));
            state.held.extend(kept);
        });
    }

    /// Whether an attempt of this host's to connect is held.
    pub(super) fn holds_attempt_of(&self, side: Side) -> bool {
        let is_attempt = |frame: &[u8]| matches!(parse(frame), Frame::Tcp(Segment { syn: true, .. }));
        self.with(|state| state.held.iter().any(|(from, frame)| *from == side && is_attempt(frame)))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.bell.ring();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the wire has failed");
        }
    }
}

impl Shared {
    fn run(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            self.bell.clear();
            let mut state = self.state.lock().unwrap();
            let timeout = state.pump();
            let hit = state.hit.is_some();
            let fds = state.sleepers();
            drop(state);
            if hit {
                self.changed.notify_all();
            }
            let mut all = vec![self.bell.fd()];
            all.extend(fds.iter().map(AsFd::as_fd));
            poll_fds(&all, timeout).unwrap();
        }
    }
}

impl State {
    /// Takes every frame that has been sent and hands over what may be. When to look again, if the ports know.
    fn pump(&mut self) -> Option<std::time::Duration> {
        loop {
            let now = MonotonicClock.now();
            let mut frames = Vec::new();
            for side in 0..2 {
                let Some(port) = &mut self.ports[side] else { continue };
                let taken = port.receive(now, 64, &mut |frame| frames.push((side, frame.bytes.to_vec())));
                self.note(side, taken.err());
            }
            let any = !frames.is_empty();
            for (side, frame) in frames {
                self.take(side, frame);
            }
            if self.mode != Mode::Hold {
                for (from, frame) in core::mem::take(&mut self.held) {
                    if self.mode == Mode::Pass {
                        self.outbox[1 - from].push_back(frame);
                    }
                }
            }
            self.hand_over();
            if !any {
                let next =
                    |port: &Option<Box<dyn Port>>| port.as_ref().and_then(|port| port.next_arrival(now));
                let next = self.ports.iter().filter_map(next).min();
                let stuck = self.outbox.iter().zip(self.down).any(|(out, down)| !down && !out.is_empty());
                let stuck = stuck.then_some(std::time::Duration::from_millis(1));
                return next.map(|next| next.since(now)).into_iter().chain(stuck).min();
            }
        }
    }

    /// A frame has come from a host.
    fn take(&mut self, from: Side, frame: Vec<u8>) {
        if self.mute[from] {
            return;
        }
        let segment = match parse(&frame) {
            Frame::Arp => None,
            Frame::Tcp(segment) => Some(segment),
            Frame::Other => return,
        };
        let Some(segment) = segment else {
            // Who is where is no part of the play.
            self.outbox[1 - from].push_back(frame);
            return;
        };
        if let Some(tracker) = &mut self.tracker
            && let Some(hit) = tracker.follow(from, &segment)
        {
            self.tracker = None;
            self.hit = Some(hit);
            self.mode = Mode::Hold;
        }
        match self.mode {
            Mode::Pass => self.outbox[1 - from].push_back(frame),
            Mode::Hold => self.held.push_back((from, frame)),
            Mode::Swallow => {}
        }
    }

    fn hand_over(&mut self) {
        let now = MonotonicClock.now();
        for side in 0..2 {
            let Some(port) = self.ports[side].as_mut().filter(|_| !self.down[side]) else { continue };
            while let Some(frame) = self.outbox[side].front() {
                if port.transmit_room(now).frames == 0 {
                    break;
                }
                let taken = port.transmit(now, frame.len(), TxOffload::default(), &mut |buffer| {
                    buffer[..frame.len()].copy_from_slice(frame);
                    frame.len()
                });
                match taken {
                    Ok(true) => drop(self.outbox[side].pop_front()),
                    Ok(false) => break,
                    Err(error) => return self.note(side, Some(error)),
                }
            }
            let flushed = port.flush(now);
            self.note(side, flushed.err());
        }
    }

    /// A host that ends takes its end of the wire along; anything else must not happen.
    fn note(&mut self, side: Side, error: Option<PortError>) {
        match error {
            None => {}
            Some(PortError::Gone { .. }) => self.ports[side] = None,
            Some(error) => self.failed = Some(error.to_string()),
        }
    }

    /// What tells that a host has sent something. Copies: they are waited for without the lock.
    fn sleepers(&self) -> Vec<OwnedFd> {
        let fds = self.ports.iter().flatten().filter_map(|port| port.readiness());
        fds.map(|fd| fd.try_clone_to_owned().unwrap()).collect()
    }
}

/// For the failing case: what the wire knows.
impl core::fmt::Debug for Wire {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let state: MutexGuard<'_, State> = self.shared.state.lock().unwrap();
        f.debug_struct("Wire")
            .field("mode", &state.mode)
            .field("held", &state.held.len())
            .field("down", &state.down)
            .field("failed", &state.failed)
            .finish_non_exhaustive()
    }
}
