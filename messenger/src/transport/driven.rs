//! Sessions over a stack without a thread: its owner polls it, in virtual time as in real.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use outrider_stack::endpoint::{Acceptor, Endpoint};
use outrider_stack::net::{ListenOptions, ListenerId, Poll, Stack};
use outrider_stack::port::{Port, PortError};
use outrider_stack::time::{Clock, Instant};

use super::{ConnectRefused, Listening, Transport, TransportError};
use crate::Driven;

/// A stack that its owner polls, as the transport of messengers without threads of their own ([`Driven`]).
///
/// Nothing happens but in the owner's calls, so with a [`VirtualClock`](outrider_stack::time::VirtualClock) hundreds of
/// nodes run on one thread, each time the same. Connections dialled leave with the next [`Self::poll`].
pub struct DrivenStack {
    stack: Mutex<Stack>,
    clock: Arc<dyn Clock>,
    /// For what is to outlive a call and must not keep the stack.
    own: Weak<DrivenStack>,
}

impl DrivenStack {
    /// A transport over `stack`; `clock` gives the `now` of every poll.
    pub fn new(stack: Stack, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new_cyclic(|own| DrivenStack { stack: Mutex::new(stack), clock, own: Weak::clone(own) })
    }

    /// The stack. Must be given back before anything else here is called.
    pub fn stack(&self) -> MutexGuard<'_, Stack> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does all that the stack and the messengers on it can do now, and says when to call again: at the latest at
    /// [`Poll::next`], and when the port has a frame.
    ///
    /// # Errors
    /// The port failed for good.
    pub fn poll(
        &self,
        now: Instant,
        port: &mut dyn Port,
        messengers: &mut [Driven],
    ) -> Result<Poll, PortError> {
        let mut work = 0;
        loop {
            let polled = self.stack().poll(now, port)?;
            work += polled.work;
            // What the messengers do may wake endpoints, and what endpoints do may call for the messengers.
            let busy = messengers.iter().any(|messenger| messenger.has_work(now));
            let next = messengers.iter_mut().filter_map(|messenger| messenger.poll(now)).min();
            if !busy {
                return Ok(Poll { work, next: [polled.next, next].into_iter().flatten().min() });
            }
        }
    }
}

impl Transport for DrivenStack {
    fn connect(&self, remote: SocketAddr, endpoint: Box<dyn Endpoint>) -> Result<(), ConnectRefused> {
        self.stack().connect(self.clock.now(), remote, endpoint);
        Ok(())
    }

    fn listen_at(&self, local: SocketAddr, acceptor: Box<dyn Acceptor>) -> Result<Listening, TransportError> {
        let mut stack = self.stack();
        let id = stack.listen(local, ListenOptions::default(), acceptor);
        let id = id.map_err(|error| TransportError::Refused(Box::new(error)))?;
        let address = stack.listener_address(id).unwrap_or(local);
        Ok(Listening { address, guard: Box::new(Unlisten { stack: Weak::clone(&self.own), id }) })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

/// Ends the listening when it is dropped.
struct Unlisten {
    stack: Weak<DrivenStack>,
    id: ListenerId,
}

impl Drop for Unlisten {
    fn drop(&mut self) {
        if let Some(driven) = self.stack.upgrade() {
            let now = driven.clock.now();
            driven.stack().unlisten(now, self.id);
        }
    }
}
