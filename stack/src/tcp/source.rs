//! The pull interface: where the bytes of a segment come from, and where received bytes go.

use core::fmt;
use core::ops::Range;
use core::time::Duration;

use bytes::Bytes;

use crate::time::Instant;

/// What, if anything, a source has to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Demand {
    /// Nothing.
    Nothing,
    /// Bytes that follow the ordinary rules.
    Data,
    /// Something out of band: it goes first, and may exceed the congestion window by one segment per round trip.
    Urgent,
}

/// What keeps the next byte from leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Blocked {
    /// Nothing: there is nothing to send, or it leaves now.
    #[default]
    Nothing = 0,
    /// The congestion window is full.
    CongestionWindow = 1,
    /// The peer's receive window is full.
    PeerWindow = 2,
    /// The peer's receive credit is spent (known to the session, not to TCP).
    Credit = 3,
    /// The pacing rate does not allow it yet.
    Pacing = 4,
    /// The port's transmit ring is full, or holds as much as it should.
    Port = 5,
}

/// The state of the sender at the instant a segment is cut: everything a heartbeat reports about TCP.
///
/// All byte counts are before the segment that is about to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SendState {
    /// `SND.NXT - SND.UNA` (RFC 9293): sent and not acknowledged cumulatively, SACKed bytes included.
    pub bytes_in_flight: u64,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// Bytes that the peer's window still allows beyond `SND.UNA`.
    pub peer_window: u64,
    /// Smoothed round-trip time (RFC 6298), `None` before the first sample.
    pub smoothed_rtt: Option<Duration>,
    /// Smallest round-trip time seen.
    pub rtt_min: Option<Duration>,
    /// Delivery rate in bytes per second, zero before the first estimate.
    pub delivery_rate: u64,
    /// Age of the oldest byte not acknowledged, since it was first sent; zero if there is none.
    pub oldest_unacked_age: Duration,
    /// Segments retransmitted since the connection began.
    pub retransmits: u64,
    /// What kept the last segment from leaving sooner.
    pub blocked: Blocked,
    /// Stream offset (0 is the SYN) of the first byte that will be cut.
    pub stream_offset: u64,
}

/// The segment being cut: an append-only writer with a fixed room.
pub trait Cut {
    /// Bytes that may still be appended.
    fn room(&self) -> usize;

    /// Whether only out-of-band bytes may be appended (the segment exceeds the congestion window).
    fn urgent_only(&self) -> bool;

    /// Appends `bytes`.
    ///
    /// # Panics
    /// If they exceed [`Cut::room`]: that is a bug of the source.
    fn append(&mut self, bytes: &[u8]);

    /// Appends `range` of `whole`, which stays as it is: a writer that can may keep a handle of it instead of a copy.
    ///
    /// # Panics
    /// If the range is not within `whole`, or as [`Self::append`].
    fn append_shared(&mut self, whole: &Bytes, range: Range<usize>) {
        self.append(&whole[range]);
    }
}

/// Where the bytes of the next segment come from. Implemented by a session.
pub trait SegmentSource {
    /// What there is to send at `now`. Called often; must be cheap and must not change what [`Self::cut`] would do.
    fn demand(&mut self, now: Instant) -> Demand;

    /// Cuts the next segment: appends whole units (chunks) of at most `cut.room()` bytes in total, in the order in
    /// which they shall be on the wire. Appending nothing withdraws the demand. What is appended here is sent,
    /// immutable, and retransmitted by the engine until acknowledged.
    fn cut(&mut self, now: Instant, state: &SendState, cut: &mut dyn Cut);

    /// When [`Self::demand`] may rise by the passing of time alone (the next heartbeat is due).
    fn next_demand(&self) -> Option<Instant>;

    /// Bytes that wait to be cut, without what the cut itself adds to them; `None` from a source that cannot tell at no
    /// cost. With those in flight they are the occupancy of the connection, for observers. And a last piece that is
    /// smaller than a segment leaves into a small window if all of it fits (RFC 9293 section 3.8.6.2.1, rule 2), and
    /// need not wait until the persist timer overrides.
    fn queued_bytes(&self) -> Option<u64> {
        None
    }

    /// The peer's TCP has acknowledged all bytes before stream offset `offset`.
    fn on_acked(&mut self, _now: Instant, _offset: u64) {}

    /// Whether the peer delivers what is urgent ahead of gaps: then it need not wait for retransmissions.
    fn urgent_overtakes(&self) -> bool {
        false
    }

    /// Whether the segment just cut is to be pushed (PSH, RFC 9293 section 3.9.1.2). `None` leaves it to the engine,
    /// which pushes when the source has nothing more to send.
    fn pushes(&self) -> Option<bool> {
        None
    }

    /// Whether what waits here is held back by the peer's receive credit ([`Blocked::Credit`]). For observers.
    fn is_out_of_credit(&self) -> bool {
        false
    }

    /// Round trip of the last heartbeat that was answered, where the source sends any. For observers.
    fn heartbeat_rtt(&self) -> Option<Duration> {
        None
    }

    /// Whether the source has sent its last byte and wants FIN to follow once [`Self::demand`] is `Nothing`.
    fn finished(&self) -> bool {
        false
    }
}

/// Whether the acknowledgement of received bytes may be delayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AckUrgency {
    /// By the rules of RFC 1122.
    #[default]
    Normal,
    /// Acknowledge at once (an out-of-band message arrived).
    Now,
}

/// What becomes of a segment that begins inside the advertised window and ends beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BeyondWindow {
    /// What fits is taken (RFC 9293 section 3.10.7.4).
    #[default]
    Trim,
    /// Nothing of it is taken, and the peer is told where the window is.
    Refuse,
    /// All of it is taken, if it is the next in order.
    Take,
}

/// The sink found the stream unusable (corrupt chunk, protocol violation). The engine resets the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinkFault;

impl fmt::Display for SinkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the receiver of the stream found it unusable")
    }
}

/// Where the next in-order bytes belong: see [`SegmentSink::place`].
#[derive(Debug)]
pub struct Place<'a> {
    /// They go to its end, into capacity that it has.
    pub buffer: &'a mut Vec<u8>,
    /// So many at most; no more than there is capacity for.
    pub bytes_max: usize,
}

/// Where received bytes go. Implemented by a session.
pub trait SegmentSink {
    /// The next in-order bytes, borrowed straight from the frame where possible. All of them are taken.
    ///
    /// # Errors
    /// [`SinkFault`] makes the engine reset the connection.
    fn deliver(&mut self, now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault>;

    /// Where the next bytes belong, if the sink knows and they are part of many: a transport that has to copy them anyway
    /// may put them there, and then calls [`Self::placed`] before anything else. Any other gives them to
    /// [`Self::deliver`].
    fn place(&mut self) -> Option<Place<'_>> {
        None
    }

    /// The next `bytes` in order have been appended to the buffer that [`Self::place`] gave.
    ///
    /// # Errors
    /// As [`Self::deliver`].
    fn placed(&mut self, _now: Instant, _bytes: usize) -> Result<AckUrgency, SinkFault> {
        Ok(AckUrgency::Normal)
    }

    /// Bytes that arrived ahead of a gap; they will come again through [`Self::deliver`]. `offset` is the stream
    /// offset of the first. Shown once per arrival; a sink may pick out what it can use before its turn.
    fn peek_ahead(&mut self, _now: Instant, _offset: u64, _bytes: &[u8]) -> AckUrgency {
        AckUrgency::Normal
    }

    /// Bytes the sink is ready to take in [`Self::deliver`] from here on: bounds the advertised window.
    /// Must never shrink by more than what was delivered since it was last read.
    fn room(&self) -> usize;

    /// What to do with a segment that begins inside the advertised window and ends beyond it.
    fn beyond_window(&self) -> BeyondWindow {
        BeyondWindow::Trim
    }

    /// The peer has sent FIN: no more bytes will come.
    fn on_peer_finished(&mut self, _now: Instant) {}

    /// Whether the acknowledgement of the peer's FIN may wait for something to ride on.
    fn finish_urgency(&self) -> AckUrgency {
        AckUrgency::Now
    }
}
