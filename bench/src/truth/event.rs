//! What is done to the peer or to the path, and what should be said of it.

use clap::ValueEnum;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Event {
    /// The peer's dispatcher blocks; its TCP and its heartbeats go on.
    ConsumerStopped,
    /// Nothing passes any more, in either direction.
    PathCut,
    /// Nothing passes from the one who sends the load.
    WayThereCut,
    /// Nothing passes back to it.
    WayBackCut,
    /// The peer's host stands still and is cut off: not even a reset comes.
    PeerKilled,
    /// The peer's threads stand still; they go on later.
    PeerPaused,
}

/// The verdict on a peer that does not take what it received.
pub(super) const STALLED: &str = "consumer stalled";
/// The verdict on a peer that is not heard of.
pub(super) const SILENT: &str = "silent";

impl Event {
    /// As results spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Event::ConsumerStopped => "consumer stopped",
            Event::PathCut => "path cut",
            Event::WayThereCut => "way there cut",
            Event::WayBackCut => "way back cut",
            Event::PeerKilled => "peer killed",
            Event::PeerPaused => "peer paused",
        }
    }

    /// The verdict that names the fault.
    pub(super) fn expected(self) -> &'static str {
        if self == Event::ConsumerStopped { STALLED } else { SILENT }
    }

    /// Whether nothing reaches the sender, and nothing the receiver.
    pub(super) fn cuts(self) -> [bool; 2] {
        match self {
            Event::ConsumerStopped | Event::PeerPaused => [false, false],
            Event::PathCut | Event::PeerKilled => [true, true],
            Event::WayThereCut => [false, true],
            Event::WayBackCut => [true, false],
        }
    }

    /// Whether only the path of the data is concerned, where heartbeats have a connection of their own.
    pub(super) fn spares_others(self) -> bool {
        matches!(self, Event::PathCut | Event::WayThereCut | Event::WayBackCut)
    }
}
