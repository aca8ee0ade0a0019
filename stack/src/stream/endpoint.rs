//! The shard's side of a [`super::TcpStream`].

use core::mem;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Buf, Bytes, BytesMut};
use crossbeam::channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};

use super::{StreamConfig, TcpStream};
use crate::endpoint::{Directive, Endpoint, Established, Waker};
use crate::tcp::connection::CloseReason;
use crate::tcp::source::{AckUrgency, Cut, Demand, SegmentSink, SegmentSource, SendState, SinkFault};
use crate::time::Instant;

/// A written piece at most.
pub(super) const PIECE_BYTES_MAX: usize = 64 << 10;
/// Received pieces that may wait for the reader; what arrives beyond them is put together in a larger one.
const RECEIVED_PIECES_MAX: usize = 64;
/// What the window of a SYN-ACK promises.
const RECEIVE_BUFFER_MIN: usize = 64 << 10;

/// What both sides of a stream look at.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) waker: OnceLock<Waker>,
    pub(super) closed: OnceLock<CloseReason>,
    /// Received bytes for which there was no room in the queue when the connection ended.
    pub(super) last_piece: OnceLock<Bytes>,
    /// Bytes written that the endpoint has not fetched yet.
    pub(super) written_bytes: AtomicUsize,
    /// Bytes received and not yet read.
    pub(super) unread_bytes: AtomicUsize,
    /// The endpoint holds received bytes that the full queue did not take: the reader wakes it.
    pub(super) held_back: AtomicBool,
    /// Nobody will read any more: what arrives is thrown away.
    pub(super) reader_gone: AtomicBool,
    peer_finished: AtomicBool,
    established: OnceLock<Established>,
}

impl Shared {
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    pub(super) fn established(&self) -> Option<&Established> {
        self.established.get()
    }

    /// Why no more bytes will come: `None` if they all came.
    pub(super) fn read_verdict(&self) -> Option<CloseReason> {
        if self.peer_finished.load(Ordering::Acquire) {
            return None;
        }
        self.closed.get().copied().filter(|reason| *reason != CloseReason::Finished)
    }
}

/// The application's ends of the queues.
pub(super) struct Ends {
    pub(super) shared: Arc<Shared>,
    pub(super) to_send: Sender<Bytes>,
    pub(super) received: Receiver<Bytes>,
    /// Gets its one message when the handshake has succeeded or failed.
    pub(super) opened: Receiver<Result<(), CloseReason>>,
}

/// The endpoint: bytes go both ways through bounded queues, nothing here waits.
pub(super) struct StreamEndpoint {
    shared: Arc<Shared>,
    to_send: Receiver<Bytes>,
    sending: Bytes,
    writer_gone: bool,
    received: Option<Sender<Bytes>>,
    held: BytesMut,
    receive_buffer_bytes: usize,
    opened: Sender<Result<(), CloseReason>>,
    /// A stream to be handed to the application when the handshake is complete.
    accepted: Option<Accepted>,
    directive: Directive,
}

/// A stream on its way to [`super::TcpListener::accept`].
pub(super) struct Accepted {
    pub(super) queue: Sender<(TcpStream, SocketAddr)>,
    pub(super) stream: TcpStream,
}

pub(super) fn pair(config: &StreamConfig) -> (StreamEndpoint, Ends) {
    let shared = Arc::new(Shared::default());
    let (to_send, sending) = bounded(config.send_buffer_bytes.div_ceil(PIECE_BYTES_MAX).max(1));
    let (received, reading) = bounded(RECEIVED_PIECES_MAX);
    let (opened, has_opened) = bounded(1);
    let endpoint = StreamEndpoint {
        shared: Arc::clone(&shared),
        to_send: sending,
        sending: Bytes::new(),
        writer_gone: false,
        received: Some(received),
        held: BytesMut::new(),
        receive_buffer_bytes: config.receive_buffer_bytes.max(RECEIVE_BUFFER_MIN),
        opened,
        accepted: None,
        directive: Directive::Continue,
    };
    (endpoint, Ends { shared, to_send, received: reading, opened: has_opened })
}

impl StreamEndpoint {
    /// Has the endpoint hand `accepted` over once it is established.
    pub(super) fn with_accepted(self, accepted: Accepted) -> Self {
        StreamEndpoint { accepted: Some(accepted), ..self }
    }

    /// Gets the next written piece once the last is used up.
    fn fetch(&mut self) {
        while self.sending.is_empty() && !self.writer_gone {
            match self.to_send.try_recv() {
                Ok(piece) => {
                    self.shared.written_bytes.fetch_sub(piece.len(), Ordering::Relaxed);
                    self.sending = piece;
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.writer_gone = true,
            }
        }
    }

    /// Hands what is held to the reader, as far as the queue takes it.
    fn hand_over(&mut self) {
        let Some(queue) = &self.received else { return };
        if self.held.is_empty() {
            return;
        }
        let mut piece = self.held.split().freeze();
        // The second try is for a reader that emptied the queue before it could see the mark.
        for marked in [false, true] {
            match queue.try_send(piece) {
                Ok(()) => return,
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(returned)) => piece = returned,
            }
            if !marked {
                self.shared.held_back.store(true, Ordering::SeqCst);
            }
        }
        self.held = BytesMut::from(piece);
    }

    fn reader_gone(&self) -> bool {
        self.shared.reader_gone.load(Ordering::Acquire)
    }

    /// Lets the reader see the end, once it has been given everything.
    fn finish_reading(&mut self) {
        if self.held.is_empty() && self.shared.peer_finished.load(Ordering::Relaxed) {
            self.received = None;
        }
    }
}

impl SegmentSource for StreamEndpoint {
    fn demand(&mut self, _now: Instant) -> Demand {
        self.fetch();
        if self.sending.is_empty() { Demand::Nothing } else { Demand::Data }
    }

    fn cut(&mut self, _now: Instant, _state: &SendState, cut: &mut dyn Cut) {
        if cut.urgent_only() {
            return;
        }
        loop {
            self.fetch();
            let length = self.sending.len().min(cut.room());
            if length == 0 {
                return;
            }
            cut.append(&self.sending[..length]);
            self.sending.advance(length);
        }
    }

    fn next_demand(&self) -> Option<Instant> {
        None
    }

    fn finished(&self) -> bool {
        self.writer_gone && self.sending.is_empty()
    }

    fn queued_bytes(&self) -> Option<u64> {
        let written = self.shared.written_bytes.load(Ordering::Relaxed);
        Some((self.sending.len() + written) as u64)
    }
}

impl SegmentSink for StreamEndpoint {
    fn deliver(&mut self, _now: Instant, bytes: &[u8]) -> Result<AckUrgency, SinkFault> {
        if self.reader_gone() {
            // Nobody will ever read this. If nobody writes either, the peer shall know (RFC 9293 section 3.6.1).
            if self.writer_gone {
                self.directive = Directive::Abort;
            }
            return Ok(AckUrgency::Normal);
        }
        self.shared.unread_bytes.fetch_add(bytes.len(), Ordering::AcqRel);
        self.held.extend_from_slice(bytes);
        self.hand_over();
        Ok(AckUrgency::Normal)
    }

    fn room(&self) -> usize {
        if self.reader_gone() {
            return self.receive_buffer_bytes;
        }
        self.receive_buffer_bytes.saturating_sub(self.shared.unread_bytes.load(Ordering::Acquire))
    }

    fn on_peer_finished(&mut self, _now: Instant) {
        self.shared.peer_finished.store(true, Ordering::Release);
        self.hand_over();
        self.finish_reading();
    }
}

impl Endpoint for StreamEndpoint {
    fn on_attached(&mut self, _now: Instant, waker: Waker) {
        // An endpoint is attached once.
        let _ = self.shared.waker.set(waker);
    }

    fn on_established(&mut self, _now: Instant, established: &Established) {
        let _ = self.shared.established.set(*established);
        // The application may have given up waiting.
        let _ = self.opened.try_send(Ok(()));
        if let Some(Accepted { queue, stream }) = self.accepted.take()
            && queue.try_send((stream, established.remote)).is_err()
        {
            // Others took the last places since the acceptor looked, or the listener is gone.
            self.directive = Directive::Abort;
        }
    }

    fn on_wake(&mut self, _now: Instant) {
        self.hand_over();
        self.finish_reading();
        self.fetch();
    }

    fn directive(&mut self) -> Directive {
        mem::take(&mut self.directive)
    }

    fn on_closed(&mut self, _now: Instant, reason: CloseReason) {
        self.hand_over();
        if !self.held.is_empty() {
            let _ = self.shared.last_piece.set(self.held.split().freeze());
        }
        let _ = self.shared.closed.set(reason);
        let _ = self.opened.try_send(Err(reason));
        // Dropping the queues, after the reason is known, lets both halves see the end.
        self.received = None;
    }
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
