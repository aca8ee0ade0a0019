//! Which transport is for which link, found from either side.

use std::collections::{BTreeMap, BTreeSet};

use super::{LinkId, TransportId};

/// The transports of all links. A link has a few at most: the one that has its session, one that is to have it, an
/// attempt of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Transports {
    links: BTreeMap<TransportId, LinkId>,
    /// The same by link, so that to end one does not take longer the more others there are.
    of_links: BTreeSet<(LinkId, TransportId)>,
}

impl Transports {
    /// The link of a transport.
    pub(super) fn link(&self, transport: TransportId) -> Option<LinkId> {
        self.links.get(&transport).copied()
    }

    /// The transports of a link, oldest first.
    pub(super) fn of(&self, link: LinkId) -> Vec<TransportId> {
        let all = (link, TransportId(u64::MIN))..=(link, TransportId(u64::MAX));
        self.of_links.range(all).map(|(_, transport)| *transport).collect()
    }

    /// `transport` is for `link` from now on.
    pub(super) fn insert(&mut self, transport: TransportId, link: LinkId) {
        if let Some(before) = self.links.insert(transport, link) {
            self.of_links.remove(&(before, transport));
        }
        self.of_links.insert((link, transport));
    }

    /// Forgets a transport; returns its link.
    pub(super) fn remove(&mut self, transport: TransportId) -> Option<LinkId> {
        let link = self.links.remove(&transport)?;
        self.of_links.remove(&(link, transport));
        Some(link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_tell_the_same() {
        let mut transports = Transports::default();
        for (transport, link) in [(5, 1), (2, 1), (3, 2), (9, 0)] {
            transports.insert(TransportId(transport), LinkId(link));
        }
        assert_eq!(transports.of(LinkId(1)), [TransportId(2), TransportId(5)]);
        transports.insert(TransportId(5), LinkId(2));
        assert_eq!(transports.of(LinkId(1)), [TransportId(2)]);
        assert_eq!(transports.of(LinkId(2)), [TransportId(3), TransportId(5)]);
        assert_eq!(transports.link(TransportId(5)), Some(LinkId(2)));
        assert_eq!(transports.remove(TransportId(3)), Some(LinkId(2)));
        assert_eq!(transports.remove(TransportId(3)), None);
        assert_eq!(transports.of(LinkId(2)), [TransportId(5)]);
        assert_eq!(transports.of(LinkId(7)), []);
    }
}
