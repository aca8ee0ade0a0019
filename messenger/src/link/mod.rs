//! Logical connections: what an application holds, which outlives the connections of the transport.
//!
//! [`Table`] is the state machine of all logical connections of one messenger. Sans-IO: events in, [`Action`]s out, and
//! `now` is an argument. A message never passes through it. It decides which transport connection a session is on, who
//! dials when, what a restart of the peer means, and it keeps a session's [`crate::session::Carry`] while no connection
//! has it.
//!
//! Words: a *link* is a logical connection, a *transport* one connection of the transport, dialled or accepted.

mod backoff;
mod loss;
mod policy;
mod table;
#[cfg(test)]
mod tests;
mod transports;

use crate::codec::{CloseCode, SessionTerms};
use crate::session::{Admission, Released};

pub use backoff::Backoff;
pub use policy::Policy;
pub use table::{Table, TableConfig};

/// Names a logical connection. Never reused within a messenger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// Names a transport connection. Never reused within a messenger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransportId(pub u64);

/// What the application is told of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Notice {
    /// Ready, on a transport that this end dialled.
    Connected,
    /// Ready, on a transport that the peer dialled.
    Accepted,
    /// It has ended.
    Reset,
    /// The peer has lost its side of the session, which begins anew.
    RemoteReset,
    /// Nobody listens, or the peer refuses this end.
    Refused,
}

/// Why a transport ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody listens at the address.
    Refused,
    /// The peer closed, with its reason if it gave one.
    Closed(Option<CloseCode>),
    /// The two sides' counts do not belong together.
    Mismatch,
    /// Nothing was said for long, and this end closed.
    Idle,
    /// Anything else.
    Lost,
}

/// What is to be done. Actions on one link come in order.
#[derive(Debug)]
pub enum Action {
    /// Dial: a transport of this name, with a session of [`crate::session::Role::Dialler`].
    Dial {
        /// For which link.
        link: LinkId,
        /// The name of the transport to be.
        transport: TransportId,
        /// Where to.
        address: std::net::SocketAddr,
        /// What to say.
        terms: SessionTerms,
    },
    /// Answer the claim of an accepted transport. If that fails, [`Table::down`] gets the carry back.
    Admit {
        /// Which.
        transport: TransportId,
        /// Whose session it is.
        link: LinkId,
        /// How.
        admission: Box<Admission>,
    },
    /// Refuse the claim of an accepted transport.
    Decline {
        /// Which.
        transport: TransportId,
        /// The reason to give.
        code: CloseCode,
    },
    /// Reset the transport; what it carries comes back by [`Table::down`].
    Release {
        /// Which.
        transport: TransportId,
    },
    /// Tell the application.
    Notify {
        /// Of which link.
        link: LinkId,
        /// What.
        notice: Notice,
    },
    /// What was queued for the peer is dropped, also what no session has taken yet.
    Discarded {
        /// Of which link.
        link: LinkId,
        /// What the session had.
        released: Released,
    },
    /// The link is gone.
    Ended {
        /// Which.
        link: LinkId,
        /// What the application is told, if anything.
        notice: Option<Notice>,
    },
}
