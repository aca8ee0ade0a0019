//! Own addresses and next hops.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::config::{StackConfig, StackError};

/// Addresses that the slow path (smoltcp's interface, see the feature in the workspace manifest) can answer for.
pub(super) const ADDRESSES_MAX: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Which addresses are ours, and through whom others are reached.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    networks: Vec<Network>,
    gateway_v4: Option<Ipv4Addr>,
    gateway_v6: Option<Ipv6Addr>,
}

/// How to reach a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Own address to use.
    pub(super) source: IpAddr,
    /// Whose Ethernet address the frames carry: the destination itself or a gateway.
    pub(super) next_hop: IpAddr,
}

impl Routes {
    pub(super) fn new(config: &StackConfig) -> Result<Self, StackError> {
        if config.addresses.is_empty() {
            return Err(StackError::NoAddress);
        }
        if config.addresses.len() > ADDRESSES_MAX {
            return Err(StackError::TooManyAddresses { count: config.addresses.len(), max: ADDRESSES_MAX });
        }
        let mut networks = Vec::new();
        for &(address, prefix) in &config.addresses {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            if !is_host(address) || address.is_loopback() || prefix > bits {
                return Err(StackError::BadAddress { address, prefix });
            }
            networks.push(Network { address, prefix });
        }
        let routes = Routes { networks, gateway_v4: config.gateway_v4, gateway_v6: config.gateway_v6 };
        let gateways = [config.gateway_v4.map(IpAddr::V4), config.gateway_v6.map(IpAddr::V6)];
        for gateway in gateways.into_iter().flatten() {
            if routes.is_ours(gateway) || routes.on_link(gateway).is_none() {
                return Err(StackError::GatewayOffLink { gateway });
            }
        }
        Ok(routes)
    }

    /// Whether `address` is one of our own.
    pub(super) fn is_ours(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.address == address)
    }

    /// Own address on the network that `address` is on, the longest prefix first.
    pub(super) fn on_link(&self, address: IpAddr) -> Option<IpAddr> {
        let containing = self.networks.iter().filter(|network| network.contains(address));
        containing.max_by_key(|network| network.prefix).map(|network| network.address)
    }

    /// Whether `address` is the broadcast address of one of our networks, or the limited one.
    pub(super) fn is_broadcast(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        address.is_broadcast()
            || self.networks.iter().any(|network| match network.address {
                IpAddr::V4(own) if network.prefix < 31 => {
                    own.to_bits() | (u32::MAX >> network.prefix) == address.to_bits()
                }
                _ => false,
            })
    }

    /// The route to `destination`; `None` if there is none (also for ourselves: there is no loopback).
    pub(super) fn to(&self, destination: IpAddr) -> Option<Route> {
        if self.is_ours(destination) || !is_host(destination) || self.is_broadcast(destination) {
            return None;
        }
        if let Some(source) = self.on_link(destination) {
            return Some(Route { source, next_hop: destination });
        }
        let next_hop = match destination {
            IpAddr::V4(_) => IpAddr::V4(self.gateway_v4?),
            IpAddr::V6(_) => IpAddr::V6(self.gateway_v6?),
        };
        Some(Route { source: self.on_link(next_hop)?, next_hop })
    }

    /// Whose Ethernet address the frames of a connection to `remote` carry: the gateway's, if they go through one.
    pub(super) fn next_hop(&self, remote: IpAddr, through_gateway: bool) -> IpAddr {
        let gateway = match remote {
            IpAddr::V4(_) => self.gateway_v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.gateway_v6.map(IpAddr::V6),
        };
        gateway.filter(|_| through_gateway).unwrap_or(remote)
    }

    /// The route back to a peer that sent to our address `source`; `None` if it cannot be reached.
    pub(super) fn back(&self, source: IpAddr, peer: IpAddr) -> Option<Route> {
        self.to(peer).map(|route| Route { source, ..route })
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }
}

/// Whether a single host may have this address (RFC 1122 section 3.2.1.3, RFC 4291 section 2).
pub(super) fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_multicast() && !address.is_broadcast() && address.octets()[0] != 0,
        IpAddr::V6(address) => {
            !address.is_multicast() && !address.is_unspecified() && address.to_ipv4_mapped().is_none()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{Route, Routes};
    use crate::net::config::{StackConfig, StackError};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn config() -> StackConfig {
        StackConfig::new([(ip("10.0.0.1"), 24), (ip("10.0.0.129"), 25), (ip("fd00::1"), 64)])
            .with_gateway(ip("10.0.0.254"))
    }

    #[test]
    fn neighbours_directly_others_through_the_gateway() {
        let routes = Routes::new(&config()).unwrap();
        let to = |text| routes.to(ip(text));
        assert_eq!(to("10.0.0.2"), Some(Route { source: ip("10.0.0.1"), next_hop: ip("10.0.0.2") }));
        assert_eq!(to("10.0.0.200"), Some(Route { source: ip("10.0.0.129"), next_hop: ip("10.0.0.200") }));
        assert_eq!(to("9.9.9.9"), Some(Route { source: ip("10.0.0.129"), next_hop: ip("10.0.0.254") }));
        assert_eq!(to("fd00::2"), Some(Route { source: ip("fd00::1"), next_hop: ip("fd00::2") }));
        assert_eq!(to("fd01::2"), None, "no IPv6 gateway");
    }

    #[test]
    fn nobody_connects_to_himself_or_to_a_group() {
        let routes = Routes::new(&config()).unwrap();
        for text in ["10.0.0.1", "10.0.0.255", "255.255.255.255", "224.0.0.1", "ff02::1", "0.0.0.0", "::"] {
            assert_eq!(routes.to(ip(text)), None, "{text}");
        }
    }

    #[test]
    fn bad_parameters_are_named() {
        let error = |config: StackConfig| Routes::new(&config).unwrap_err();
        assert_eq!(error(StackConfig::default()), StackError::NoAddress);
        let (address, prefix) = (ip("10.0.0.1"), 33);
        assert_eq!(error(StackConfig::new([(address, prefix)])), StackError::BadAddress { address, prefix });
        let gateway = ip("11.0.0.1");
        assert_eq!(error(config().with_gateway(gateway)), StackError::GatewayOffLink { gateway });
        let many: Vec<_> = (1..=9).map(|host| (ip(&format!("10.0.0.{host}")), 24)).collect();
        assert_eq!(error(StackConfig::new(many)), StackError::TooManyAddresses { count: 9, max: 8 });
    }
}
