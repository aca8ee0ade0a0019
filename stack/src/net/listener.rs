//! Listeners: who accepts connections at which address, and how many may be half-open.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use slab::Slab;

use super::config::{ListenError, ListenOptions};
use super::routes::Routes;
use crate::endpoint::Acceptor;

/// Names a listener within one stack; never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenerId {
    slot: usize,
    serial: u64,
}

pub(super) struct Listener {
    pub(super) id: ListenerId,
    pub(super) local: SocketAddr,
    pub(super) backlog: usize,
    pub(super) half_open: usize,
    pub(super) acceptor: Box<dyn Acceptor>,
}

#[derive(Default)]
pub(super) struct Listeners {
    listeners: Slab<Listener>,
    by_address: HashMap<SocketAddr, usize>,
    next_serial: u64,
}

impl Listeners {
    /// Adds a listener. An unspecified address stands for all of our addresses of its family.
    pub(super) fn add(
        &mut self,
        local: SocketAddr,
        options: ListenOptions,
        acceptor: Box<dyn Acceptor>,
        routes: &Routes,
    ) -> Result<ListenerId, ListenError> {
        if !local.ip().is_unspecified() && !routes.is_ours(local.ip()) {
            return Err(ListenError::NotOurs { local });
        }
        if options.backlog == 0 {
            return Err(ListenError::NoBacklog);
        }
        if self.by_address.contains_key(&local) {
            return Err(ListenError::InUse { local });
        }
        self.next_serial += 1;
        let vacant = self.listeners.vacant_entry();
        let id = ListenerId { slot: vacant.key(), serial: self.next_serial };
        vacant.insert(Listener { id, local, backlog: options.backlog, half_open: 0, acceptor });
        self.by_address.insert(local, id.slot);
        Ok(id)
    }

    pub(super) fn remove(&mut self, id: ListenerId) -> Option<Listener> {
        self.get(id)?;
        let listener = self.listeners.remove(id.slot);
        self.by_address.remove(&listener.local);
        Some(listener)
    }

    pub(super) fn get(&self, id: ListenerId) -> Option<&Listener> {
        self.listeners.get(id.slot).filter(|listener| listener.id == id)
    }

    pub(super) fn get_mut(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.listeners.get_mut(id.slot).filter(|listener| listener.id == id)
    }

    /// The listener for a SYN to `local`: the one at the very address before the one for all addresses.
    pub(super) fn find(&mut self, local: SocketAddr) -> Option<&mut Listener> {
        let everywhere = match local.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let slot = self.by_address.get(&local);
        let slot = slot.or_else(|| self.by_address.get(&SocketAddr::new(everywhere, local.port())))?;
        self.listeners.get_mut(*slot)
    }

    /// Whether anybody listens at `port`, at whatever address.
    pub(super) fn uses_port(&self, port: u16) -> bool {
        self.listeners.iter().any(|(_, listener)| listener.local.port() == port)
    }

    pub(super) fn clear(&mut self) {
        self.listeners.clear();
        self.by_address.clear();
    }
}
