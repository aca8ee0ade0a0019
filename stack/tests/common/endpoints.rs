//! Endpoints that send a known pattern, check what they receive against one, and note what they were told.

#![allow(dead_code, unreachable_pub)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use outrider_stack::endpoint::{Acceptor, Directive, Endpoint, Established, Waker};
use outrider_stack::tcp::connection::CloseReason;
use outrider_stack::tcp::source::{
    AckUrgency, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault,
};
use outrider_stack::time::Instant;

/// What an endpoint was told, for the test to look at.
#[derive(Debug, Default)]
pub struct Record {
    pub waker: Option<Waker>,
    pub established: Option<Established>,
    pub established_at: Option<Instant>,
    pub remote: Option<SocketAddr>,
    pub sent: u64,
    pub acked_offset: u64,
    pub received: u64,
    pub peer_finished: bool,
    pub wakes: u32,
    pub closed: Option<CloseReason>,
    pub closed_at: Option<Instant>,
    /// For the test to set, with a wake.
    pub abort: bool,
    /// Abort from within the cut that reaches this many bytes.
    pub abort_when_sent: Option<u64>,
    /// Consume nothing while set: room stays where it is.
    pub stopped: bool,
    unread: usize,
    pub blocked: Vec<outrider_stack::tcp::source::Blocked>,
}

/// Shared between an endpoint and the test.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<Record>>);

impl Notes {
    pub fn get(&self) -> MutexGuard<'_, Record> {
        self.0.lock().expect("no test panics while it holds a record")
    }
}

/// The byte at `offset` of the stream numbered `stream`.
pub fn pattern(stream: u64, offset: u64) -> u8 {
    (offset.wrapping_mul(31) ^ (offset >> 8).wrapping_mul(17) ^ stream) as u8
}

/// What an endpoint shall do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Bytes to send, of pattern `send_stream`.
    pub send_bytes: u64,
    pub send_stream: u64,
    /// What is received must be of this pattern.
    pub receive_stream: u64,
    /// Send FIN after the last byte; otherwise only once the peer has finished.
    pub finish: bool,
    /// Received bytes the sink takes before the test lets it consume.
    pub buffer_bytes: usize,
    /// Begin with a consumer that consumes nothing ([`Record::stopped`]).
    pub stopped: bool,
}

impl Plan {
    /// Sends `bytes` of pattern 1, expects pattern 2, finishes.
    pub fn client(bytes: u64) -> Plan {
        Plan {
            send_bytes: bytes,
            send_stream: 1,
            receive_stream: 2,
            finish: true,
            buffer_bytes: 1 << 20,
            stopped: false,
        }
    }

    /// Sends `bytes` of pattern 2, expects pattern 1, finishes.
    pub fn server(bytes: u64) -> Plan {
        Plan { send_stream: 2, receive_stream: 1, ..Plan::client(bytes) }
    }
}

/// Sends by its plan and checks content, order and the order of callbacks.
pub struct Checked {
    plan: Plan,
    notes: Notes,
    attached: bool,
}

impl Checked {
    pub fn new(plan: Plan, notes: &Notes) -> Box<Checked> {
        notes.get().stopped = plan.stopped;
        Box::new(Checked { plan, notes: notes.clone(), attached: false })
    }
}

impl SegmentSource for Checked {
    fn demand(&mut self, _now: Instant) -> Demand {
        let waiting = self.notes.get().sent < self.plan.send_bytes;
        if waiting { Demand::Data } else { Demand::Nothing }
    }

    fn cut(&mut self, _now: Instant, state: &SendState, cut: &mut dyn Cut) {
        let mut record = self.notes.get();
        record.blocked.push(state.blocked);
        if cut.urgent_only() {
            return;
        }
        let length = (self.plan.send_bytes - record.sent).min(cut.room() as u64);
        let bytes: Vec<u8> = (record.sent..record.sent + length)
            .map(|offset| pattern(self.plan.send_stream, offset))
            .collect();
        cut.append(&bytes);
        record.sent += length;
        let sent = record.sent;
        record.abort |= record.abort_when_sent.is_some_and(|limit| sent >= limit);
    }

    fn next_demand(&self) -> Option<Instant> {
        None
    }

    fn on_acked(&mut self, _now: Instant, offset: u64) {
        let mut record = self.notes.get();
        assert!(offset > record.acked_offset, "acknowledgements only move forward");
        record.acked_offset = offset;
    }

    fn finished(&self) -> bool {
        let record = self.notes.get();
        record.sent == self.plan.send_bytes && (self.plan.finish || record.peer_finished)
    }
}

impl SegmentSink for Checked {
    fn deliver(&mut self, _now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        let mut record = self.notes.get();
        assert!(record.established.is_some(), "data before on_established");
        assert!(!record.peer_finished && record.closed.is_none(), "data after the end");
        for (offset, byte) in (record.received..).zip(bytes) {
            assert_eq!(*byte, pattern(self.plan.receive_stream, offset), "wrong byte at {offset}");
        }
        record.received += bytes.len() as u64;
        if record.stopped {
            record.unread += bytes.len();
            assert!(record.unread <= self.plan.buffer_bytes, "more was delivered than there was room for");
        }
        Ok(AckUrgency::Normal)
    }

    fn room(&self) -> usize {
        self.plan.buffer_bytes - self.notes.get().unread
    }

    fn on_peer_finished(&mut self, _now: Instant) {
        let mut record = self.notes.get();
        assert!(!record.peer_finished, "the peer finishes once");
        record.peer_finished = true;
    }
}

impl Endpoint for Checked {
    fn on_attached(&mut self, _now: Instant, waker: Waker) {
        assert!(!std::mem::replace(&mut self.attached, true), "attached once");
        self.notes.get().waker = Some(waker);
    }

    fn on_established(&mut self, now: Instant, established: &Established) {
        assert!(self.attached, "attached before established");
        let mut record = self.notes.get();
        assert!(record.established.replace(*established).is_none(), "established once");
        record.established_at = Some(now);
    }

    fn on_wake(&mut self, _now: Instant) {
        let mut record = self.notes.get();
        record.wakes += 1;
        if !record.stopped {
            record.unread = 0;
        }
    }

    fn directive(&mut self) -> Directive {
        if self.notes.get().abort { Directive::Abort } else { Directive::Continue }
    }

    fn on_closed(&mut self, now: Instant, reason: CloseReason) {
        assert!(self.attached, "attached before closed");
        let mut record = self.notes.get();
        assert_eq!(record.closed, None, "closed once");
        record.closed = Some(reason);
        record.closed_at = Some(now);
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        let attached = self.attached;
        let closed = self.notes.get().closed.is_some();
        assert!(
            closed || !attached || std::thread::panicking(),
            "an endpoint is told of the end before it is dropped"
        );
    }
}

/// Accepts everybody with the same plan; one [`Notes`] per connection, in the order of their arrival.
#[derive(Clone)]
pub struct CheckedAcceptor {
    pub plan: Plan,
    pub accepted: Arc<Mutex<Vec<Notes>>>,
    pub refuse: bool,
}

impl CheckedAcceptor {
    pub fn new(plan: Plan) -> Self {
        CheckedAcceptor { plan, accepted: Arc::default(), refuse: false }
    }

    pub fn notes(&self) -> Vec<Notes> {
        self.accepted.lock().expect("no test panics while it holds the list").clone()
    }
}

impl Acceptor for CheckedAcceptor {
    fn accept(&mut self, _now: Instant, _local: SocketAddr, remote: SocketAddr) -> Option<Box<dyn Endpoint>> {
        if self.refuse {
            return None;
        }
        let notes = Notes::default();
        notes.get().remote = Some(remote);
        self.accepted.lock().expect("no test panics while it holds the list").push(notes.clone());
        Some(Checked::new(self.plan, &notes))
    }
}
