//! Two stacks on a cable in virtual time, for sessions to run over.
#![allow(dead_code, unreachable_pub)] // Each test uses what it needs.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use outrider_drivers::memory::{LinkConfig, LinkControl, MemoryPort, cable};
use outrider_drivers::port::Port;
use outrider_messenger::oob::OobRequest;
use outrider_messenger::session::{
    Admission, Endpoint, Released, Role, Session, SessionConfig, SessionEvent, SessionUser,
};
use outrider_messenger::{EntityName, Message, OobMessage, OobOp};
use outrider_stack::endpoint::{Acceptor, ConnectionId, Endpoint as StackEndpoint};
use outrider_stack::net::{ListenOptions, Stack, StackConfig};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::time::Instant;

/// The address at which the right-hand node listens.
pub const RIGHT: &str = "10.0.0.2:6800";

/// What a node has seen, for the test to look at.
#[derive(Default)]
pub struct Seen {
    pub ready_at: Option<Instant>,
    pub messages: Vec<(Instant, Message)>,
    pub oobs: Vec<OobMessage>,
    pub other: Vec<SessionEvent>,
    pub closed: Option<CloseReason>,
    /// Messages that have left the send budget.
    pub released: u64,
}

/// A node's part in the play: what it sends, what it registers, how slowly it consumes.
pub struct Script {
    pub config: SessionConfig,
    pub messages: Vec<Message>,
    pub ops: Vec<(OobOp, Duration)>,
    /// How long a message waits for its dispatch.
    pub dispatch_delay: Duration,
}

impl Script {
    pub fn new(id: u64) -> Self {
        Script {
            config: SessionConfig { seed: id, ..SessionConfig::new(EntityName::osd(id)) },
            messages: Vec::new(),
            ops: Vec::new(),
            dispatch_delay: Duration::ZERO,
        }
    }

    pub fn endpoint(self, role: Role) -> (Box<dyn StackEndpoint>, Arc<Mutex<Seen>>) {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut session = Session::new(self.config, role);
        for message in self.messages {
            session.send(message).expect("a new session takes messages");
        }
        for (op, interval) in self.ops {
            let callback = move |_: &_| Some(Bytes::from(op.0.to_le_bytes().to_vec()));
            let request = OobRequest::new(op, callback, interval).expect("a sound interval");
            session.register_oob(Instant::ZERO, request).expect("a new session takes ops");
        }
        let node =
            Node { seen: Arc::clone(&seen), dispatch_delay: self.dispatch_delay, waiting: VecDeque::new() };
        (Box::new(Endpoint::new(session, node)), seen)
    }
}

struct Node {
    seen: Arc<Mutex<Seen>>,
    dispatch_delay: Duration,
    /// When each message that waits will be dispatched.
    waiting: VecDeque<Instant>,
}

impl SessionUser for Node {
    fn refill(&mut self, now: Instant, session: &mut Session) {
        while self.waiting.front().is_some_and(|at| *at <= now) {
            self.waiting.pop_front();
            session.dispatched(1);
        }
    }

    fn on_event(&mut self, now: Instant, session: &mut Session, event: SessionEvent) {
        let mut seen = self.seen.lock().unwrap();
        match event {
            SessionEvent::Connect { .. } => {
                session.admit(now, Admission::lossy(7)).expect("the connection is there");
            }
            SessionEvent::Accepted { .. } => session.resume(now, None).expect("the connection is there"),
            SessionEvent::Ready(_) => seen.ready_at = Some(now),
            SessionEvent::Message { message, arrived_at, credit_bytes } => {
                seen.messages.push((now, message));
                if self.dispatch_delay.is_zero() {
                    session.dispatched_at_once(credit_bytes);
                } else {
                    session.queued_for_dispatch(arrived_at, credit_bytes);
                    self.waiting.push_back(now + self.dispatch_delay);
                }
            }
            SessionEvent::Oob(message) => seen.oobs.push(*message),
            other => seen.other.push(other),
        }
    }

    fn on_acked(&mut self, _now: Instant, _session: &mut Session, released: Released) {
        self.seen.lock().unwrap().released += released.messages;
    }

    fn on_closed(&mut self, _now: Instant, _session: &mut Session, reason: CloseReason) {
        self.seen.lock().unwrap().closed = Some(reason);
    }
}

/// Gives its one endpoint to the first connection.
struct Once(Option<Box<dyn StackEndpoint>>);

impl Acceptor for Once {
    fn accept(&mut self, _: Instant, _: SocketAddr, _: SocketAddr) -> Option<Box<dyn StackEndpoint>> {
        self.0.take()
    }
}

/// Two nodes on a cable. The left one dials.
pub struct World {
    pub now: Instant,
    pub left: Arc<Mutex<Seen>>,
    pub right: Arc<Mutex<Seen>>,
    pub links: [LinkControl; 2],
    pub left_connection: ConnectionId,
    stacks: [Stack; 2],
    ports: [Box<dyn Port>; 2],
}

impl World {
    /// `wrap` may put something around the left node's port, such as a capture.
    pub fn new(
        scripts: [Script; 2],
        links: [LinkConfig; 2],
        tune: impl Fn(&mut StackConfig),
        seed: u64,
        wrap: impl FnOnce(MemoryPort) -> Box<dyn Port>,
    ) -> World {
        let [left_script, right_script] = scripts;
        let [there, back] = links;
        let (left_port, right_port) = cable(there, back, seed);
        let links = [left_port.outgoing(), right_port.outgoing()];
        let stack = |host: u8, port: &dyn Port| {
            let mut config = StackConfig::new([(IpAddr::from([10, 0, 0, host]), 24)]);
            tune(&mut config);
            Stack::new(config, port.info(), seed ^ u64::from(host)).expect("a sound configuration")
        };
        let mut stacks = [stack(1, &left_port), stack(2, &right_port)];
        let dialler = Role::lossy_dialler(&left_script.config);
        let (left_endpoint, left) = left_script.endpoint(dialler);
        let (right_endpoint, right) = right_script.endpoint(Role::Acceptor);
        let address: SocketAddr = RIGHT.parse().unwrap();
        let acceptor = Box::new(Once(Some(right_endpoint)));
        stacks[1].listen(address, ListenOptions::default(), acceptor).expect("the address is free");
        let now = Instant::from_millis(1);
        let left_connection = stacks[0].connect(now, address, left_endpoint);
        let ports = [wrap(left_port), Box::new(right_port) as Box<dyn Port>];
        World { now, left, right, links, left_connection, stacks, ports }
    }

    /// Polls both stacks at this instant until neither has work, and moves to the next instant at which one has.
    /// Returns whether there is one.
    pub fn step(&mut self) -> bool {
        let next = loop {
            let (mut work, mut next) = (0, None);
            for (stack, port) in self.stacks.iter_mut().zip(&mut self.ports) {
                let poll = stack.poll(self.now, &mut **port).expect("the cable lasts");
                work += poll.work;
                next = [next, poll.next, port.next_arrival(self.now)].into_iter().flatten().min();
            }
            if work == 0 && next.is_none_or(|next| next > self.now) {
                break next;
            }
        };
        if let Some(next) = next {
            self.now = next;
        }
        next.is_some()
    }

    /// Steps until `done` or until `limit` has come. Returns whether it is done.
    pub fn run_until(&mut self, limit: Instant, mut done: impl FnMut(&World) -> bool) -> bool {
        while !done(self) {
            if self.now >= limit || !self.step() {
                return false;
            }
        }
        true
    }

    pub fn stacks(&self) -> &[Stack; 2] {
        &self.stacks
    }
}
