//! The application's side of a stream: blocking reads and writes.

use core::time::Duration;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes};
use crossbeam::channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};

use super::endpoint::{Ends, PIECE_BYTES_MAX, Shared, pair};
use super::{StreamConfig, error_of};
use crate::endpoint::Established;
use crate::shard::{ConnectError, ShardHandle};

/// A blocking TCP socket over a shard. Dropping it sends FIN after everything written; bytes that arrive when
/// neither half is left reset the connection.
pub struct TcpStream {
    reader: ReadHalf,
    writer: WriteHalf,
}

/// The receiving half of a [`TcpStream`].
pub struct ReadHalf {
    shared: Arc<Shared>,
    /// `None` after the end, or after shutting down.
    received: Option<Receiver<Bytes>>,
    piece: Bytes,
    timeout: Option<Duration>,
    /// Bytes read since the endpoint was last told of the room.
    unreported_bytes: usize,
    report_bytes: usize,
}

/// The sending half of a [`TcpStream`]. Dropping it sends FIN after everything written.
pub struct WriteHalf {
    shared: Arc<Shared>,
    /// `None` after shutting down.
    to_send: Option<Sender<Bytes>>,
    timeout: Option<Duration>,
}

impl TcpStream {
    /// Connects to `remote` and waits for the handshake.
    ///
    /// # Errors
    /// `ConnectionRefused`, `TimedOut`, `HostUnreachable`, `AddrNotAvailable` (no free port or table entry),
    /// `NetworkDown` (the shard is gone), `WouldBlock` (called on the shard's own thread with its queue full).
    pub fn connect(shard: &ShardHandle, remote: SocketAddr, config: StreamConfig) -> io::Result<TcpStream> {
        let (endpoint, ends) = pair(&config);
        shard.connect(remote, Box::new(endpoint)).map_err(|error| {
            let kind = match error {
                ConnectError::Full(_) => io::ErrorKind::WouldBlock,
                ConnectError::PortGone(_) => io::ErrorKind::NetworkDown,
            };
            io::Error::new(kind, error.to_string())
        })?;
        let opened = ends.opened.clone();
        let stream = TcpStream::new(ends, &config);
        let opened = match config.connect_timeout {
            Some(timeout) => opened.recv_timeout(timeout),
            None => opened.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match opened {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(reason)) => {
                Err(error_of(reason).unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into()))
            }
            // Dropping the stream ends the connection as soon as it is made.
            Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::NetworkDown.into()),
        }
    }

    pub(super) fn new(ends: Ends, config: &StreamConfig) -> Self {
        let Ends { shared, to_send, received, opened: _ } = ends;
        TcpStream {
            reader: ReadHalf {
                shared: Arc::clone(&shared),
                received: Some(received),
                piece: Bytes::new(),
                timeout: None,
                unreported_bytes: 0,
                report_bytes: (config.receive_buffer_bytes / 4).max(1),
            },
            writer: WriteHalf { shared, to_send: Some(to_send), timeout: None },
        }
    }

    /// The two halves, for two threads.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        (self.reader, self.writer)
    }

    /// This end's address.
    pub fn local_address(&self) -> SocketAddr {
        self.established().local
    }

    /// The other end's address.
    pub fn peer_address(&self) -> SocketAddr {
        self.established().remote
    }

    fn established(&self) -> &Established {
        self.reader.shared.established().expect("applications get streams only once these are established")
    }

    /// How long a read waits before it fails with `TimedOut`; `None` waits without end.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.reader.set_timeout(timeout);
    }

    /// How long a write waits for room before it fails with `TimedOut`; `None` waits without end.
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.writer.set_timeout(timeout);
    }

    /// Ends one direction or both: after `Write` the peer sees the end of the stream once it has everything written;
    /// after `Read` what arrives is thrown away.
    pub fn shutdown(&mut self, how: Shutdown) {
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            self.reader.shutdown();
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            self.writer.shutdown();
        }
    }
}

impl Read for TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl Write for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl ReadHalf {
    /// See [`TcpStream::set_read_timeout`].
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    fn shutdown(&mut self) {
        self.shared.reader_gone.store(true, Ordering::Release);
        self.received = None;
        self.piece = Bytes::new();
        self.shared.wake();
    }

    /// The next bytes received, without copying them; empty at the end of the stream.
    ///
    /// # Errors
    /// As for reads: the connection ended in disorder, or nothing came within the timeout.
    pub fn read_piece(&mut self) -> io::Result<Bytes> {
        self.fill()?;
        let piece = std::mem::take(&mut self.piece);
        self.consumed(piece.len());
        Ok(piece)
    }

    /// Waits until there is something in `piece`, or the end has come.
    fn fill(&mut self) -> io::Result<()> {
        while self.piece.is_empty() {
            let Some(queue) = &self.received else { return Ok(()) };
            let next = match self.timeout {
                Some(timeout) => queue.recv_timeout(timeout),
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(piece) => self.piece = piece,
                Err(RecvTimeoutError::Timeout) => return Err(io::ErrorKind::TimedOut.into()),
                Err(RecvTimeoutError::Disconnected) => {
                    if let Some(last) = self.shared.last_piece.get()
                        && self.shared.unread_bytes.load(Ordering::Acquire) > 0
                    {
                        self.piece = last.clone();
                        continue;
                    }
                    return match self.shared.read_verdict().and_then(error_of) {
                        Some(error) => Err(error),
                        None => {
                            self.received = None;
                            Ok(())
                        }
                    };
                }
            }
            if self.shared.held_back.swap(false, Ordering::SeqCst) {
                self.shared.wake();
            }
        }
        Ok(())
    }

    fn consumed(&mut self, bytes: usize) {
        self.shared.unread_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.unreported_bytes += bytes;
        if self.unreported_bytes >= self.report_bytes {
            self.unreported_bytes = 0;
            self.shared.wake();
        }
    }
}

impl Read for ReadHalf {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.fill()?;
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        self.consumed(length);
        Ok(length)
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl WriteHalf {
    /// See [`TcpStream::set_write_timeout`].
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    fn shutdown(&mut self) {
        self.to_send = None;
        self.shared.wake();
    }

    /// Queues `piece` without copying it. Waits while the send buffer is full.
    ///
    /// # Errors
    /// As for writes. Nothing of the piece is sent then.
    pub fn write_piece(&mut self, piece: Bytes) -> io::Result<()> {
        let Some(queue) = &self.to_send else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let bytes = piece.len();
        self.shared.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        let sent = match self.timeout {
            Some(timeout) => queue.send_timeout(piece, timeout),
            None => queue.send(piece).map_err(|error| SendTimeoutError::Disconnected(error.0)),
        };
        if sent.is_err() {
            self.shared.written_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        match sent {
            Ok(()) => {
                self.shared.wake();
                Ok(())
            }
            Err(SendTimeoutError::Timeout(_)) => Err(io::ErrorKind::TimedOut.into()),
            Err(SendTimeoutError::Disconnected(_)) => {
                let error = self.shared.closed.get().copied().and_then(error_of);
                Err(error.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
            }
        }
    }
}

impl Write for WriteHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let length = bytes.len().min(PIECE_BYTES_MAX);
        self.write_piece(Bytes::copy_from_slice(&bytes[..length]))?;
        Ok(length)
    }

    /// Written bytes leave by themselves; there is nothing to flush.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        self.shutdown();
    }
}
