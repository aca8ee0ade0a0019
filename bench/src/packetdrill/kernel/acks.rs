//! When Linux acknowledges at once: "quick" acknowledgements at the start of a stream, delayed ones once a
//! conversation goes back and forth.

use std::time::Duration;

use outrider_stack::tcp::source::AckUrgency;
use outrider_stack::time::Instant;

/// Acknowledgements sent at once at the start of a stream, at most.
const QUICK_MAX: u64 = 16;
/// Least delay of an acknowledgement.
const DELAY_MIN: Duration = Duration::from_millis(40);
/// What a segment of the peer is taken to be before one was seen.
const SEGMENT_SIZE_FIRST: u64 = 536;

/// The policy of one connection.
#[derive(Debug)]
pub(crate) struct AckPolicy {
    /// Acknowledgements still to be sent at once.
    quick: u64,
    /// The application answers what arrives: acknowledgements may wait for the answer.
    conversing: bool,
    /// The delay in use; zero before the first data.
    delay: Duration,
    last_received: Instant,
    /// Size of the peer's full segments as far as seen.
    pub(crate) segment_size: u64,
    segment_size_max: u64,
    window: u64,
    /// The script's injected packets are made of segments of this size (`--mss`).
    pub(crate) injected_size: u64,
    /// Bytes not acknowledged yet.
    unacked: u64,
    /// Among them something that the peer pushed.
    pushed: bool,
    /// More arrived than was offered, so no acknowledgement could open the window: the next one waits.
    overshot: bool,
    /// What a pause must exceed to start over.
    pub(crate) timeout: Duration,
}

impl AckPolicy {
    pub(crate) fn new(now: Instant) -> Self {
        AckPolicy {
            quick: 0,
            conversing: false,
            delay: Duration::ZERO,
            last_received: now,
            segment_size: SEGMENT_SIZE_FIRST,
            segment_size_max: 1460,
            window: 65_535,
            injected_size: u64::MAX,
            unacked: 0,
            pushed: false,
            overshot: false,
            timeout: Duration::from_secs(1),
        }
    }

    /// The window and the largest segment that this end has offered.
    pub(crate) fn offered(&mut self, window: u64, segment_size_max: u64) {
        self.window = window;
        self.segment_size_max = segment_size_max;
        self.segment_size = SEGMENT_SIZE_FIRST.min(segment_size_max);
    }

    fn start_quick(&mut self) {
        let count = (self.window / (2 * self.segment_size.max(1))).clamp(2, QUICK_MAX);
        self.quick = self.quick.max(count);
    }

    /// A segment with `length` bytes arrived: what a full segment of the peer is.
    pub(crate) fn note_length(&mut self, length: u64) {
        let length = length.min(self.injected_size);
        if length >= self.segment_size {
            self.segment_size = length.min(self.segment_size_max.max(1));
        }
    }

    /// `length` bytes arrived in order.
    pub(crate) fn on_data(&mut self, now: Instant, length: u64) -> AckUrgency {
        self.note_length(length);
        let pause = now - self.last_received;
        if self.delay.is_zero() {
            self.start_quick();
            self.delay = DELAY_MIN;
        } else if pause > self.timeout {
            self.start_quick();
        }
        self.last_received = now;
        self.unacked += length;
        if length > self.window {
            // Nothing can be said of the window that would make the peer go on.
            self.overshot = true;
            return AckUrgency::Normal;
        }
        if self.is_quick_now() || self.unacked > self.segment_size {
            AckUrgency::Now
        } else {
            AckUrgency::Normal
        }
    }

    /// Whether whatever arrives is acknowledged at once.
    pub(crate) fn is_quick_now(&self) -> bool {
        self.quick > 0 && !self.conversing
    }

    /// A segment with an acknowledgement is about to leave: until when it has to wait if it is nothing else.
    pub(crate) fn withhold(&mut self, now: Instant) -> Option<Instant> {
        core::mem::take(&mut self.overshot).then(|| now + self.delay)
    }

    /// A segment with an acknowledgement left.
    pub(crate) fn on_ack_sent(&mut self) {
        if self.unacked > 0 {
            self.quick = self.quick.saturating_sub(1);
        }
        self.unacked = 0;
        self.pushed = false;
    }

    /// A segment arrives: pushed, or shorter than a full one.
    pub(crate) fn note_push(&mut self, psh: bool, length: u64) {
        self.pushed |= length > 0 && (psh || length < self.segment_size);
    }

    /// Data left: an answer, if it came soon after what it answers.
    pub(crate) fn on_data_sent(&mut self, now: Instant) {
        if now - self.last_received < self.delay {
            self.conversing = true;
        }
    }

    /// The application has read everything. Says whether what is unacknowledged is to be acknowledged now.
    pub(crate) fn on_drained(&mut self) -> bool {
        self.unacked > 0 && self.pushed && !self.conversing
    }

    /// `TCP_QUICKACK`. Says whether what is unacknowledged is to be acknowledged now.
    pub(crate) fn set_quick(&mut self, quick: bool) -> bool {
        self.conversing = !quick;
        quick && self.unacked > 0
    }

    /// `TCP_QUICKACK` as read back.
    pub(crate) fn is_quick(&self) -> bool {
        !self.conversing
    }

    /// The delay in use, zero before the first data.
    pub(crate) fn delay(&self) -> Duration {
        self.delay
    }
}
