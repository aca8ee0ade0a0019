//! The run loop of a worker.

use core::time::Duration;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use outrider_drivers::thread::request_short_slice;
use outrider_drivers::timer::Timer;
use outrider_stack::endpoint::{Acceptor, ConnectionId, WakeTarget, Waker};
use outrider_stack::mailbox::{Refused, refuse};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::time::{Clock, Instant};
use outrider_stack::wheel::Wheel;
use slab::Slab;

use super::KernelConfig;
use super::command::{Command, Mailbox};
use super::connection::{Connection, Phase, Tools};
use super::failure::of_connecting;
use super::listener::{Accepted, ListenFailed, Listener, ListenerId};
use super::outgoing::Scratch;

/// Somebody has left something in the mailbox.
pub(super) const DOORBELL: Token = Token(0);
/// The timer.
const TIMER: Token = Token(1);
/// Even tokens from here on are connections, odd ones listeners.
const FIRST: usize = 2;

/// Events taken from epoll at a time.
const EVENTS_MAX: usize = 1_024;
/// Wakes and commands taken between two looks at epoll, so that neither can starve the sockets.
const INPUTS_PER_TURN: usize = 256;
/// Bytes read at a time: so many that a call is cheap for each, and so few that they stay in the cache.
const RECEIVE_BUFFER_BYTES: usize = 128 << 10;
/// So many bytes moved in a round of turns are bulk: what follows is polled for. A heartbeat alone is not.
const BULK_BYTES_MIN: usize = 16 << 10;
/// Before the next look at the sockets while much of a chunk is still to come and nothing is sent. A look at once would
/// find one segment, and to tell of it and to have it acknowledged takes the sender's time as well as this end's.
const LONG_LOOK_INTERVAL: Duration = Duration::from_micros(40);
/// A worker that shares its core wants it soon rather than for long.
const SCHEDULER_SLICE: Duration = Duration::from_micros(100);

/// One thread's part of the transport.
pub(super) struct Worker {
    poll: Poll,
    events: Events,
    timer: Timer,
    /// For when the timer is set.
    timer_at: Option<Instant>,
    number: usize,
    /// All workers, this one included.
    workers: Vec<Arc<Mailbox>>,
    mailbox: Arc<Mailbox>,
    clock: Arc<dyn Clock>,
    config: Arc<KernelConfig>,
    connections: Slab<Connection>,
    listeners: Slab<Listener>,
    generation: u32,
    /// Who gets the next connection that is accepted.
    next: usize,
    wheel: Wheel,
    fired: Vec<u32>,
    /// Connections whose turn it is.
    ready: VecDeque<usize>,
    buffer: Box<[u8]>,
    scratch: Scratch,
    last_bulk: Option<Bulk>,
}

/// Bytes that were moved in bulk.
#[derive(Clone, Copy, Debug)]
struct Bulk {
    at: Instant,
    /// Much of a chunk is still to come.
    awaits_long: bool,
}

impl Worker {
    pub(super) fn new(
        poll: Poll,
        number: usize,
        workers: Vec<Arc<Mailbox>>,
        config: Arc<KernelConfig>,
    ) -> std::io::Result<Self> {
        let timer = Timer::new()?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let mailbox = Arc::clone(&workers[number]);
        let clock = Arc::clone(&mailbox.resident().clock);
        let now = clock.now();
        Ok(Worker {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            timer,
            timer_at: None,
            number,
            workers,
            mailbox,
            clock,
            config,
            connections: Slab::new(),
            listeners: Slab::new(),
            generation: 0,
            next: number,
            wheel: Wheel::new(now),
            fired: Vec::new(),
            ready: VecDeque::new(),
            buffer: vec![0; RECEIVE_BUFFER_BYTES].into_boxed_slice(),
            scratch: Scratch::default(),
            last_bulk: None,
        })
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self) {
        self.mailbox.set_thread();
        if let Err(error) = request_short_slice(SCHEDULER_SLICE) {
            tracing::debug!(%error, "the scheduler keeps its own slice for the worker");
        }
        while !self.mailbox.should_stop() {
            self.take_inputs();
            self.fire_timers();
            self.accept();
            self.take_turns();
            if let Err(error) = self.wait() {
                tracing::error!(%error, "a worker of the kernel transport cannot wait for its sockets");
                break;
            }
        }
        let left: Vec<usize> = self.connections.iter().map(|(index, _)| index).collect();
        for index in left {
            self.close(index, CloseReason::Aborted);
        }
    }

    /// Executes what other threads left.
    fn take_inputs(&mut self) {
        for _ in 0..INPUTS_PER_TURN {
            let Some(id) = self.mailbox.take_wake() else { break };
            let index = id.index as usize;
            if let Some(connection) = self.connections.get_mut(index)
                && connection.waker.id() == id
            {
                connection.on_wake();
                self.enqueue(index);
            }
        }
        for _ in 0..INPUTS_PER_TURN {
            let Some(command) = self.mailbox.take_command() else { break };
            self.execute(command);
        }
        while let Some(id) = self.mailbox.take_unlisten() {
            if self.listeners.get(id.index).is_some_and(|listener| listener.id == id) {
                self.listeners.remove(id.index);
            }
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Connect { remote, mut endpoint } => match TcpStream::connect(remote) {
                Ok(stream) => {
                    let deadline = self.clock.now() + self.config.connect_timeout;
                    self.insert((stream, remote, endpoint), Phase::Connecting { deadline });
                }
                Err(error) => refuse(&mut *endpoint, self.clock.now(), of_connecting(&error)),
            },
            Command::Adopt { stream, remote, endpoint } => {
                self.insert((stream, remote, endpoint), Phase::Accepted);
            }
            Command::Listen { local, acceptor, reply } => {
                let listening = self.listen(local, acceptor);
                let id = listening.as_ref().ok().map(|(id, _)| *id);
                // If the asker is gone the listener has no guard, and must not stay.
                if reply.send(listening).is_err()
                    && let Some(id) = id
                {
                    self.listeners.remove(id.index);
                }
            }
        }
    }

    fn listen(
        &mut self,
        local: SocketAddr,
        acceptor: Box<dyn Acceptor>,
    ) -> Result<(ListenerId, SocketAddr), ListenFailed> {
        let failed = |source| ListenFailed { address: local, source };
        let mut socket = TcpListener::bind(local).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let generation = self.next_generation();
        let entry = self.listeners.vacant_entry();
        let token = Token(FIRST + 2 * entry.key() + 1);
        self.poll.registry().register(&mut socket, token, Interest::READABLE).map_err(failed)?;
        let id = ListenerId { index: entry.key(), generation };
        entry.insert(Listener::new(socket, id, address, acceptor));
        Ok((id, address))
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// Takes a socket and its endpoint.
    fn insert(&mut self, (mut stream, remote, mut endpoint): Accepted, phase: Phase) {
        let generation = self.next_generation();
        let entry = self.connections.vacant_entry();
        let index = entry.key();
        let token = Token(FIRST + 2 * index);
        let registered = Connection::configure(&stream, &self.config).and_then(|()| {
            self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
        });
        if let Err(error) = registered {
            tracing::warn!(%error, %remote, "a connection could not be set up");
            return refuse(&mut *endpoint, self.clock.now(), CloseReason::NoResources);
        }
        let id = ConnectionId { index: index as u32, generation };
        let waker = Waker::new(id, Arc::clone(&self.mailbox) as Arc<dyn WakeTarget>);
        endpoint.on_attached(self.clock.now(), waker.clone());
        entry.insert(Connection::new(stream, remote, phase, endpoint, waker, Arc::clone(&self.config)));
        self.enqueue(index);
    }

    fn enqueue(&mut self, index: usize) {
        if let Some(connection) = self.connections.get_mut(index)
            && !core::mem::replace(&mut connection.queued, true)
        {
            self.ready.push_back(index);
        }
    }

    fn fire_timers(&mut self) {
        let now = self.clock.now();
        let mut fired = core::mem::take(&mut self.fired);
        self.wheel.expire(now, &mut fired);
        for index in fired.drain(..) {
            self.enqueue(index as usize);
        }
        self.fired = fired;
    }

    /// Accepts who waits, and shares the connections out among the workers.
    fn accept(&mut self) {
        let now = self.clock.now();
        let mut accepted = Vec::new();
        for (_, listener) in &mut self.listeners {
            if listener.is_due(now) {
                listener.turn(now, &mut |connection| accepted.push(connection));
            }
        }
        for (stream, remote, endpoint) in accepted {
            let target = self.next % self.workers.len();
            self.next = target + 1;
            if target == self.number {
                self.insert((stream, remote, endpoint), Phase::Accepted);
                continue;
            }
            let command = Command::Adopt { stream, remote, endpoint };
            if let Err(refused) = self.workers[target].try_post(command) {
                let (Refused::Full(command) | Refused::Gone(command)) = refused;
                self.execute(command);
            }
        }
    }

    /// One turn for each connection that is ready.
    fn take_turns(&mut self) {
        let (mut moved, mut awaits_long, mut sent) = (0, false, false);
        let had_turns = !self.ready.is_empty();
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { break };
            let Some(connection) = self.connections.get_mut(index) else { continue };
            connection.queued = false;
            let (buffer, scratch) = (&mut self.buffer[..], &mut self.scratch);
            let mut tools = Tools { clock: &*self.clock, buffer, scratch, moved, awaits_long, sent };
            let turn = connection.turn(&mut tools);
            (moved, awaits_long, sent) = (tools.moved, tools.awaits_long, tools.sent);
            match turn {
                Ok(next) => {
                    let timer = index as u32;
                    match next.deadline {
                        Some(deadline) => self.wheel.arm(timer, deadline),
                        None => self.wheel.disarm(timer),
                    }
                    if next.again {
                        self.enqueue(index);
                    }
                }
                Err(reason) => self.close(index, reason),
            }
        }
        // Who sends must be there as soon as there is room again.
        let awaits_long = awaits_long && !sent;
        if moved >= BULK_BYTES_MIN {
            self.last_bulk = Some(Bulk { at: self.clock.now(), awaits_long });
        } else if had_turns && let Some(bulk) = &mut self.last_bulk {
            bulk.awaits_long = awaits_long;
        }
    }

    /// Forgets a connection, then tells its endpoint.
    fn close(&mut self, index: usize, reason: CloseReason) {
        let Some(connection) = self.connections.try_remove(index) else { return };
        self.wheel.disarm(index as u32);
        connection.end(self.clock.now(), reason);
        // It has given a descriptor back.
        for (_, listener) in &mut self.listeners {
            listener.retry_at = None;
        }
    }

    /// Waits for events until there is something to do, and notes what they tell.
    fn wait(&mut self) -> std::io::Result<()> {
        let polled = if !self.may_sleep() {
            self.poll.poll(&mut self.events, Some(Duration::ZERO))
        } else if self.mailbox.prepare_sleep() {
            self.set_timer()?;
            let polled = self.poll.poll(&mut self.events, None);
            self.mailbox.end_sleep();
            polled
        } else {
            return Ok(());
        };
        match polled {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in &self.events {
            let Some(number) = event.token().0.checked_sub(FIRST) else {
                if event.token() == TIMER {
                    self.timer_at = None;
                }
                continue;
            };
            let index = number / 2;
            if number % 2 == 1 {
                if let Some(listener) = self.listeners.get_mut(index) {
                    listener.ready = true;
                }
            } else if let Some(connection) = self.connections.get_mut(index) {
                connection.on_event(event);
                if !core::mem::replace(&mut connection.queued, true) {
                    self.ready.push_back(index);
                }
            }
        }
        Ok(())
    }

    fn may_sleep(&self) -> bool {
        if !self.ready.is_empty() {
            return false;
        }
        let now = self.clock.now();
        if self.listeners.iter().any(|(_, listener)| listener.is_due(now)) {
            return false;
        }
        let Some(bulk) = self.last_bulk.filter(|bulk| now.since(bulk.at) < self.config.spin) else {
            return true;
        };
        loop {
            // Not a bare spin: the peer or the application may be waiting for this very core.
            std::thread::yield_now();
            if !bulk.awaits_long || self.clock.now().since(now) >= LONG_LOOK_INTERVAL {
                return false;
            }
        }
    }

    /// Sets the timer for the next thing that is due by time alone. One that fires too early does no harm, so it is
    /// left as it is when it does.
    fn set_timer(&mut self) -> std::io::Result<()> {
        let retries = self.listeners.iter().filter(|(_, listener)| listener.ready);
        let retry = retries.filter_map(|(_, listener)| listener.retry_at).min();
        let next = [self.wheel.next_deadline(), retry].into_iter().flatten().min();
        if let Some(next) = next
            && self.timer_at.is_none_or(|at| next < at)
        {
            self.timer.set(next)?;
            self.timer_at = Some(next);
        }
        Ok(())
    }
}

impl Drop for Worker {
    /// Also after a panic of an endpoint: whoever still has commands for this worker is refused.
    fn drop(&mut self) {
        self.mailbox.close();
    }
}
