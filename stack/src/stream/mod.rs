//! Plain byte streams on the engine, for applications that are not the messenger.
//!
//! [`TcpStream`] and [`TcpListener`] are blocking sockets for application threads. [`echo`] and [`discard`] are
//! endpoints that run wholly on the shard.

pub mod discard;
pub mod echo;
mod endpoint;
mod listener;
mod socket;

use core::time::Duration;
use std::io;

pub use listener::TcpListener;
pub use socket::{ReadHalf, TcpStream, WriteHalf};

use crate::tcp::connection::CloseReason;

/// Parameters of a stream. Memory per stream: about the sum of both buffers, when they are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// Bytes received and not yet read, at most: the receive window. Not below 64 KiB, which is what a handshake
    /// promises.
    pub receive_buffer_bytes: usize,
    /// Bytes written and not yet sent, at most, in pieces of up to 64 KiB.
    pub send_buffer_bytes: usize,
    /// How long [`TcpStream::connect`] waits; `None` waits for the stack's own verdict.
    pub connect_timeout: Option<Duration>,
}

impl Default for StreamConfig {
    fn default() -> Self {
        StreamConfig { receive_buffer_bytes: 1 << 20, send_buffer_bytes: 1 << 20, connect_timeout: None }
    }
}

/// What an application sees of the end of a connection; `None` for an orderly one.
fn error_of(reason: CloseReason) -> Option<io::Error> {
    use io::ErrorKind;
    let kind = match reason {
        CloseReason::Finished => return None,
        CloseReason::Refused => ErrorKind::ConnectionRefused,
        CloseReason::Reset => ErrorKind::ConnectionReset,
        CloseReason::Aborted | CloseReason::Unusable => ErrorKind::ConnectionAborted,
        CloseReason::ConnectTimeout | CloseReason::UserTimeout | CloseReason::KeepaliveTimeout => {
            ErrorKind::TimedOut
        }
        CloseReason::Unreachable => ErrorKind::HostUnreachable,
        CloseReason::PortGone => ErrorKind::NetworkDown,
        CloseReason::NoResources => ErrorKind::AddrNotAvailable,
    };
    Some(io::Error::new(kind, reason))
}
