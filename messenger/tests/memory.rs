//! What an idle session holds. In a process of its own, because it counts what that process allocates.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outrider_drivers::allocation::CountingAllocator;
use outrider_messenger::oob::OobRequest;
use outrider_messenger::session::{Admission, Role, Session, SessionConfig, SessionEvent};
use outrider_messenger::{EntityName, Message, OobOp, priority};
use outrider_stack::endpoint::Established;
use outrider_stack::tcp::source::{Cut, Demand, SendState};
use outrider_stack::time::Instant;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// Pairs of sessions: enough that what is allocated once, whatever their number, does not show.
const PAIRS: usize = 500;
const SEGMENT_BYTES: usize = 1448;
const INTERVAL: Duration = Duration::from_secs(1);
/// What a session may hold while nothing is on its way, bytes: itself and all that it has allocated.
const IDLE_BYTES_MAX: usize = 730;

struct Segment(Vec<u8>);

impl Cut for Segment {
    fn room(&self) -> usize {
        SEGMENT_BYTES - self.0.len()
    }

    fn urgent_only(&self) -> bool {
        false
    }

    fn append(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// One end of a pair.
struct End {
    session: Session,
    stream_offset: u64,
}

impl End {
    fn new(config: &Arc<SessionConfig>, role: Role, seed: u64) -> End {
        End { session: Session::with_seed(Arc::clone(config), role, seed), stream_offset: 1 }
    }

    /// Answers what the session asks, and dispatches what it brings.
    fn attend(&mut self, now: Instant, lossy: bool) {
        while let Some(event) = self.session.poll_event() {
            match event {
                SessionEvent::Connect { .. } => {
                    let admission = Admission { lossy, ..Admission::lossy(1) };
                    self.session.admit(now, admission).expect("it has just asked");
                }
                SessionEvent::Accepted { .. } => self.session.resume(now, None).expect("it has just asked"),
                SessionEvent::Message { credit_bytes, .. } => self.session.dispatched_at_once(credit_bytes),
                SessionEvent::Ready(_) | SessionEvent::Oob(_) | SessionEvent::KeepaliveAck(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Cuts a segment for `to`, which has it at once. Whether there was one.
    fn send(&mut self, now: Instant, to: &mut End, lossy: bool) -> bool {
        if self.session.demand(now) == Demand::Nothing {
            return false;
        }
        let mut segment = Segment(Vec::new());
        let state = SendState { stream_offset: self.stream_offset, ..SendState::default() };
        self.session.cut(now, &state, &mut segment);
        self.stream_offset += segment.0.len() as u64;
        let mut rest = &segment.0[..];
        while !rest.is_empty() {
            let delivery = to.session.deliver(now, rest).expect("the stream is sound");
            rest = &rest[delivery.taken..];
            to.attend(now, lossy);
        }
        self.session.on_acked(now, self.stream_offset);
        let _ = self.session.take_released();
        true
    }
}

/// Sessions in pairs, both ends of each here.
struct Pairs {
    ends: Vec<[End; 2]>,
    lossy: bool,
}

impl Pairs {
    /// Sessions that are open and have a heartbeat each way.
    fn open(now: Instant, lossy: bool) -> Pairs {
        let [left, right] =
            [1, 2].map(|id| Arc::new(SessionConfig { nonce: id, ..SessionConfig::new(EntityName::osd(id)) }));
        let Role::Dialler(terms) = Role::lossy_dialler(&left) else { panic!("it dials") };
        let role = Role::Dialler(outrider_messenger::codec::SessionTerms { lossy, ..terms });
        let address = "10.0.0.1:6800".parse().expect("an address");
        let established = Established { local: address, remote: address, segment_size: SEGMENT_BYTES };
        let mut pairs = Pairs { ends: Vec::with_capacity(PAIRS), lossy };
        for seed in 0..PAIRS as u64 {
            let mut pair = [End::new(&left, role, seed), End::new(&right, Role::Acceptor, seed)];
            pair.iter_mut().for_each(|end| end.session.on_established(now, &established));
            pairs.ends.push(pair);
        }
        pairs.settle(now);
        for end in pairs.ends.iter_mut().flatten() {
            let request = OobRequest::new(OobOp::PING, |_| Some(Bytes::new()), INTERVAL);
            end.session.register_oob(now, request.expect("a sound interval")).expect("the session is open");
        }
        pairs
    }

    /// Passes segments until nobody has any.
    fn settle(&mut self, now: Instant) {
        for [left, right] in &mut self.ends {
            while left.send(now, right, self.lossy) | right.send(now, left, self.lossy) {}
        }
    }

    /// Lets two rounds of heartbeats pass, and the acknowledgements that wait.
    fn rest(&mut self, now: &mut Instant) {
        for _ in 0..20 {
            *now += INTERVAL / 10;
            self.settle(*now);
        }
    }
}

/// Bytes that a session holds on average, after `before`.
fn bytes_each(before: outrider_drivers::allocation::Held) -> usize {
    let held = usize::try_from(ALLOCATOR.held().since(before).bytes).expect("sessions hold something");
    held / (2 * PAIRS)
}

#[test]
fn an_idle_session_is_small_and_traffic_leaves_nothing_behind() {
    ALLOCATOR.start();
    for lossy in [true, false] {
        let before = ALLOCATOR.held();
        let mut now = Instant::from_millis(1);
        let mut pairs = Pairs::open(now, lossy);
        pairs.rest(&mut now);
        let idle = bytes_each(before);
        assert!(
            idle <= IDLE_BYTES_MAX,
            "lossy {lossy}: {idle} bytes, {} of them itself",
            size_of::<Session>()
        );
        for (index, end) in pairs.ends.iter_mut().flatten().enumerate() {
            for priority in [priority::LOW, priority::DEFAULT, priority::HIGH, priority::HIGHEST] {
                let payload = vec![0; 3_000 + index % 7 * 500];
                let message = Message::new(1, payload).with_priority(priority);
                end.session.send(message).expect("the session is open");
            }
            end.session.send_keepalive();
        }
        let full = bytes_each(before);
        assert!(full > idle + 4 * 3_000, "lossy {lossy}: {full} bytes with messages queued");
        pairs.rest(&mut now);
        let after = bytes_each(before);
        assert!(after <= idle + 8, "lossy {lossy}: {after} bytes after traffic, {idle} before");
        let beats: Vec<u64> =
            pairs.ends.iter().flatten().map(|end| end.session.oob_statistics().received).collect();
        assert!(beats.iter().all(|received| *received >= 3), "{beats:?}");
    }
}
