//! Errors of the API, one enum per operation.

use std::net::SocketAddr;

use crate::message::Message;
use crate::session::RECEIVE_CREDIT_BYTES_MIN;
use crate::transport::TransportError;

/// Why a message was not taken by [`crate::Connection::send_message`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The connection is closed; connect anew.
    #[error("the connection is closed")]
    Closed(Message),
    /// Above the limit of this end or of the peer.
    #[error("message of {} bytes; at most {limit} are allowed", .message.payload.len())]
    TooLarge {
        /// The message.
        message: Message,
        /// The lower of the two ends' limits.
        limit: usize,
    },
}

/// Why a message was not taken by [`crate::Connection::try_send_message`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError {
    /// The send budget is spent; try again when the peer has acknowledged more.
    #[error("the send budget is spent")]
    Full(Message),
    /// The connection is closed; connect anew.
    #[error("the connection is closed")]
    Closed(Message),
    /// Above the limit of this end or of the peer.
    #[error("message of {} bytes is above the limit", .0.payload.len())]
    TooLarge(Message),
}

/// Why [`crate::Messenger::connect_to`] failed at once. Later failures come through the dispatcher.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// [`crate::Messenger::shutdown`] was called.
    #[error("the messenger is shut down")]
    ShutDown,
    /// The policy for such peers is a server's: they dial, this end does not.
    #[error("this end serves such peers and does not dial them")]
    ServesOnly,
    /// The transport took no connection.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// Why a messenger did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The builder was given no transport.
    #[error("no transport given; call MessengerBuilder::transport")]
    NoTransport,
    /// The builder was given no dispatcher.
    #[error("no dispatcher given; call MessengerBuilder::dispatcher")]
    NoDispatcher,
    /// No dispatch thread.
    #[error("dispatch_threads is 0; at least one is needed")]
    NoDispatchThreads,
    /// A limit that the session cannot work with.
    #[error("receive_credit_bytes is {0}; at least {RECEIVE_CREDIT_BYTES_MIN} are needed")]
    CreditTooSmall(usize),
    /// A limit that the wire format cannot express.
    #[error("message_bytes_max is {0}; at most {max} can be announced", max = u32::MAX)]
    MessageLimitTooLarge(usize),
    /// An address could not be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: TransportError,
    },
    /// A dispatch thread could not be started.
    #[error("cannot start a dispatch thread: {0}")]
    Thread(#[source] std::io::Error),
}
