//! Who keeps a messenger going: its own threads, or its owner in virtual time.

use core::ops::ControlFlow;
use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use outrider_stack::time::Instant;

use super::core::Core;
use super::dispatch::{Item, run};
use super::messenger::Messenger;
use crate::transport::Transport;

/// Starts the thread that dials and minds the timers of connections without a transport. It ends when the messenger is
/// shut down and nothing is left of it.
pub(super) fn start(
    name: &str,
    core: Arc<Core>,
    carrier: Arc<dyn Transport>,
    bell: Receiver<()>,
) -> Result<JoinHandle<()>, std::io::Error> {
    let work = move || {
        loop {
            let now = core.clock.now();
            let ControlFlow::Continue(next) = core.control(&*carrier, now) else { break };
            let heard = match next {
                Some(next) => bell.recv_timeout(next.since(core.clock.now())),
                None => bell.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            // The core holds the other end.
            if heard == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
    };
    thread::Builder::new().name(format!("{name} control")).spawn(work)
}

/// A messenger without threads of its own: its owner calls [`Self::poll`]. Everything that the messenger does is then
/// done on the owner's thread, in an order that depends on nothing else, so tests run it in virtual time.
///
/// [`Messenger::wait`] must not be called on it; [`Self::is_done`] says when a shutdown is complete.
pub struct Driven {
    messenger: Messenger,
    queues: Vec<Receiver<Item>>,
    /// Rung when there may be something to do besides dispatching.
    bell: Receiver<()>,
    /// When something is due by itself; at once before the first poll.
    next: Option<Instant>,
    /// Taken off its queue, and waits for its injected delay.
    held: VecDeque<(Instant, Item)>,
    dispatches: bool,
}

impl Driven {
    pub(super) fn new(messenger: Messenger, queues: Vec<Receiver<Item>>, bell: Receiver<()>) -> Self {
        let next = Some(Instant::ZERO);
        Driven { messenger, queues, bell, next, held: VecDeque::new(), dispatches: true }
    }

    /// Does all that can be done now. When to call again at the latest, if the transport does nothing.
    pub fn poll(&mut self, now: Instant) -> Option<Instant> {
        let core = Arc::clone(self.messenger.core());
        while self.has_work(now) {
            while self.bell.try_recv().is_ok() {}
            let next = core.control(self.messenger.carrier(), now).continue_value().flatten();
            let dispatched = next != Some(now) && self.dispatch(now);
            let held = self.held.front().map(|(until, _)| *until).filter(|_| self.dispatches);
            let again = dispatched.then_some(now);
            self.next = next.into_iter().chain(held).chain(again).min();
        }
        self.next
    }

    /// Whether [`Self::poll`] would do something now. Costs next to nothing where it would not.
    pub fn has_work(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
            || !self.bell.is_empty()
            || (self.dispatches && self.queues.iter().any(|queue| !queue.is_empty()))
    }

    /// Whether [`Self::poll`] calls the dispatchers; a consumer that has stopped does not.
    pub fn set_dispatching(&mut self, on: bool) {
        self.dispatches = on;
        self.next = Some(Instant::ZERO);
    }

    /// Whether a shutdown is complete.
    pub fn is_done(&self) -> bool {
        let core = self.messenger.core();
        core.is_done(&core.lock())
    }

    /// Calls the dispatchers for what is queued; whether it did.
    fn dispatch(&mut self, now: Instant) -> bool {
        if !self.dispatches {
            return false;
        }
        let core = self.messenger.core();
        for queue in &self.queues {
            while let Ok(item) = queue.try_recv() {
                let delay =
                    core.injector.as_ref().map(|injector| injector.internal_delay()).unwrap_or_default();
                let due = self.held.back().map_or(now, |(last, _)| now.max(*last)) + delay;
                self.held.push_back((due, item));
            }
        }
        let mut any = false;
        while self.held.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, item)) = self.held.pop_front() {
                run(item, &core.chain);
                any = true;
            }
        }
        any
    }
}

impl Deref for Driven {
    type Target = Messenger;

    fn deref(&self) -> &Messenger {
        &self.messenger
    }
}
