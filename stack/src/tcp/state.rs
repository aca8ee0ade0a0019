//! The state machine of a connection (RFC 9293 section 3.3.2) as one transition table.

/// Connection states. LISTEN lives in the listener, which has no connection yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// SYN sent, nothing heard.
    SynSent,
    /// SYN seen and answered, not yet acknowledged.
    SynReceived,
    /// Open both ways.
    Established,
    /// FIN sent, not acknowledged; the peer may still send.
    FinWait1,
    /// FIN sent and acknowledged; the peer may still send.
    FinWait2,
    /// The peer has finished; this end may still send.
    CloseWait,
    /// Both have sent FIN at once; ours is not acknowledged.
    Closing,
    /// The peer finished first, our FIN is not acknowledged.
    LastAck,
    /// Waiting for stray segments to die out.
    TimeWait,
    /// Gone.
    Closed,
}

/// What moves the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// A SYN without ACK crossed ours (simultaneous open).
    SynCrossed,
    /// Our SYN is acknowledged and the peer's SYN is known.
    HandshakeDone,
    /// Our FIN has left.
    FinSent,
    /// All of our stream including FIN is acknowledged.
    FinAcked,
    /// The peer's FIN was received in order.
    FinReceived,
    /// TIME-WAIT is over.
    TimeWaitOver,
    /// Reset, abort or timeout.
    Aborted,
}

impl State {
    /// Every state, for tests and tables.
    pub const ALL: [State; 10] = [
        State::SynSent,
        State::SynReceived,
        State::Established,
        State::FinWait1,
        State::FinWait2,
        State::CloseWait,
        State::Closing,
        State::LastAck,
        State::TimeWait,
        State::Closed,
    ];

    /// The state after `transition`; `None` where it cannot happen or changes nothing.
    pub const fn after(self, transition: Transition) -> Option<State> {
        use State as S;
        use Transition as T;
        match (self, transition) {
            (S::SynSent, T::SynCrossed) => Some(S::SynReceived),
            (S::SynSent | S::SynReceived, T::HandshakeDone) => Some(S::Established),
            (S::Established, T::FinSent) => Some(S::FinWait1),
            (S::Established, T::FinReceived) => Some(S::CloseWait),
            (S::FinWait1, T::FinAcked) => Some(S::FinWait2),
            (S::FinWait1, T::FinReceived) => Some(S::Closing),
            (S::FinWait2, T::FinReceived) => Some(S::TimeWait),
            (S::CloseWait, T::FinSent) => Some(S::LastAck),
            (S::Closing, T::FinAcked) => Some(S::TimeWait),
            (S::LastAck, T::FinAcked) => Some(S::Closed),
            (S::TimeWait, T::TimeWaitOver) => Some(S::Closed),
            (S::Closed, _) => None,
            (_, T::Aborted) => Some(S::Closed),
            _ => None,
        }
    }

    /// Whether new payload may be sent.
    pub const fn may_send(self) -> bool {
        matches!(self, State::Established | State::CloseWait)
    }

    /// Whether payload from the peer is still expected.
    pub const fn may_receive(self) -> bool {
        matches!(self, State::Established | State::FinWait1 | State::FinWait2)
    }

    /// Whether both SYNs are known and acknowledged.
    pub const fn is_synchronised(self) -> bool {
        !matches!(self, State::SynSent | State::SynReceived | State::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table, spelled out: rows are states, columns transitions in the order of `COLUMNS`.
    #[test]
    fn every_pair_goes_where_rfc_9293_says() {
        use State as S;
        use Transition as T;
        const COLUMNS: [T; 7] = [
            T::SynCrossed,
            T::HandshakeDone,
            T::FinSent,
            T::FinAcked,
            T::FinReceived,
            T::TimeWaitOver,
            T::Aborted,
        ];
        const X: Option<S> = None;
        const GONE: Option<S> = Some(S::Closed);
        let table: [(S, [Option<S>; 7]); 10] = [
            (S::SynSent, [Some(S::SynReceived), Some(S::Established), X, X, X, X, GONE]),
            (S::SynReceived, [X, Some(S::Established), X, X, X, X, GONE]),
            (S::Established, [X, X, Some(S::FinWait1), X, Some(S::CloseWait), X, GONE]),
            (S::FinWait1, [X, X, X, Some(S::FinWait2), Some(S::Closing), X, GONE]),
            (S::FinWait2, [X, X, X, X, Some(S::TimeWait), X, GONE]),
            (S::CloseWait, [X, X, Some(S::LastAck), X, X, X, GONE]),
            (S::Closing, [X, X, X, Some(S::TimeWait), X, X, GONE]),
            (S::LastAck, [X, X, X, GONE, X, X, GONE]),
            (S::TimeWait, [X, X, X, X, X, GONE, GONE]),
            (S::Closed, [X; 7]),
        ];
        assert_eq!(table.map(|row| row.0), S::ALL);
        for (state, row) in table {
            for (transition, expected) in COLUMNS.into_iter().zip(row) {
                assert_eq!(state.after(transition), expected, "{state:?} on {transition:?}");
            }
        }
    }
}
