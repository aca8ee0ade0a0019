//! Explicit congestion notification: what a receiver echoes and a sender marks (RFC 3168, RFC 8257).

use std::collections::VecDeque;

/// Acknowledgements that may wait because the mark changed between them. More changes than this within one burst
/// are merged; the estimate of the peer suffers a little, nothing else does.
const PENDING_MAX: usize = 8;

/// How received marks are echoed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EchoStyle {
    /// ECE from the first mark until the sender's CWR (RFC 3168 section 6.1.3).
    Classic,
    /// ECE says of exactly the bytes it acknowledges whether they were marked (RFC 8257 section 3.2).
    Precise,
}

/// An acknowledgement that must leave on its own since the bytes after it have another mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MarkedAck {
    /// RCV.NXT it states.
    pub(crate) next: u64,
    /// ECE.
    pub(crate) echo: bool,
}

/// ECN state of a connection on which it was negotiated.
#[derive(Clone, Debug)]
pub(crate) struct Ecn {
    style: EchoStyle,
    /// ECE of the acknowledgements that leave now.
    echo: bool,
    pending: VecDeque<MarkedAck>,
    /// The window was reduced and the next new data says so by CWR.
    pub(crate) reduced: bool,
    /// No further reduction until this offset is acknowledged: once a round trip (RFC 3168 section 6.1.2).
    pub(crate) reduced_until: u64,
}

impl Ecn {
    pub(crate) fn new(style: EchoStyle) -> Self {
        Ecn { style, echo: false, pending: VecDeque::new(), reduced: false, reduced_until: 0 }
    }

    /// ECE for an acknowledgement that leaves now.
    pub(crate) fn echo(&self) -> bool {
        self.echo
    }

    /// A segment with payload arrived, `marked` or not, with the sender's CWR or not; `next` is RCV.NXT before it,
    /// `unacked` whether bytes before it still wait for their acknowledgement. Says whether to acknowledge at once.
    pub(crate) fn on_payload(&mut self, marked: bool, cwr: bool, next: u64, unacked: bool) -> bool {
        match self.style {
            EchoStyle::Classic => {
                if cwr {
                    self.echo = false;
                }
                self.echo |= marked;
                marked
            }
            EchoStyle::Precise => {
                let changed = marked != self.echo;
                if changed && unacked && self.pending.len() < PENDING_MAX {
                    self.pending.push_back(MarkedAck { next, echo: self.echo });
                }
                self.echo = marked;
                changed
            }
        }
    }

    /// The next acknowledgement that must leave on its own.
    pub(crate) fn take_pending(&mut self) -> Option<MarkedAck> {
        self.pending.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classic_echo_lasts_until_the_sender_says_it_reduced() {
        let mut ecn = Ecn::new(EchoStyle::Classic);
        ecn.on_payload(true, false, 1, false);
        ecn.on_payload(false, false, 2, false);
        assert!(ecn.echo());
        ecn.on_payload(false, true, 3, false);
        assert!(!ecn.echo());
        ecn.on_payload(true, true, 4, false);
        assert!(ecn.echo(), "a new mark on the very segment with CWR counts");
    }

    #[test]
    fn precise_echo_splits_an_acknowledgement_where_the_mark_changes() {
        let mut ecn = Ecn::new(EchoStyle::Precise);
        assert!(!ecn.on_payload(false, false, 1, false));
        assert!(ecn.on_payload(true, false, 1001, true));
        assert_eq!(ecn.take_pending(), Some(MarkedAck { next: 1001, echo: false }));
        assert!(!ecn.on_payload(true, false, 2001, true));
        assert_eq!(ecn.take_pending(), None);
        assert!(ecn.echo());
    }
}
