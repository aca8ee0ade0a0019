//! What a connection survives, and who brings it back.

/// How the connections to peers of one kind behave. The names and their meaning are Ceph's.
///
/// Either side has a policy of its own. A connection is lossy if one of the two says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// The connection ends with its transport, and [`crate::Dispatcher::ms_handle_reset`] tells.
    pub lossy: bool,
    /// This side never dials: it waits for the peer to come back.
    pub server: bool,
    /// Without anything to send this side does not dial again after a loss.
    pub standby: bool,
    /// A peer that has lost its side of the session is told by [`crate::Dispatcher::ms_handle_remote_reset`], and what
    /// was meant for it is dropped. Otherwise what it had not acknowledged goes to its next life.
    pub reset_check: bool,
    /// Of a lossy server: there is one connection to each peer, and a new one takes the place of the old.
    pub registered: bool,
}

impl Policy {
    const LOSSLESS: Policy =
        Policy { lossy: false, server: false, standby: false, reset_check: false, registered: true };
    const LOSSY: Policy = Policy { lossy: true, registered: false, ..Policy::LOSSLESS };

    /// A client that starts afresh after a loss. Every dial makes a connection of its own.
    pub const fn lossy_client() -> Self {
        Policy::LOSSY
    }

    /// A client whose session survives: it dials again at once, and again and again.
    pub const fn lossless_client() -> Self {
        Policy { reset_check: true, ..Policy::LOSSLESS }
    }

    /// A server that remembers nothing of its clients.
    pub const fn stateless_server() -> Self {
        Policy { server: true, ..Policy::LOSSY }
    }

    /// A server that remembers nothing of its clients but that there is one connection to each.
    pub const fn stateless_registered_server() -> Self {
        Policy { registered: true, ..Policy::stateless_server() }
    }

    /// A server that keeps the session of each client until it comes back.
    pub const fn stateful_server() -> Self {
        Policy { server: true, standby: true, reset_check: true, ..Policy::LOSSLESS }
    }

    /// Either side may dial; a peer that restarted is sent what its last life had not acknowledged.
    pub const fn lossless_peer() -> Self {
        Policy { standby: true, ..Policy::LOSSLESS }
    }

    /// Either side may dial; a peer that restarted is a stranger, and its session begins anew.
    pub const fn lossless_peer_reuse() -> Self {
        Policy { standby: true, reset_check: true, ..Policy::LOSSLESS }
    }

    /// All seven, with their names.
    pub const ALL: [(&'static str, Policy); 7] = [
        ("lossy_client", Policy::lossy_client()),
        ("lossless_client", Policy::lossless_client()),
        ("stateless_server", Policy::stateless_server()),
        ("stateless_registered_server", Policy::stateless_registered_server()),
        ("stateful_server", Policy::stateful_server()),
        ("lossless_peer", Policy::lossless_peer()),
        ("lossless_peer_reuse", Policy::lossless_peer_reuse()),
    ];
}
