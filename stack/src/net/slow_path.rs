//! Everything that is not TCP: a smoltcp interface without sockets, behind two bounded queues.
//!
//! It answers ARP requests, pings and neighbour solicitations. It never sees TCP, and keeps a neighbour cache of its
//! own for its answers.

use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::config::StackConfig;
use super::frame::{ETHERNET_BYTES, Mac};
use super::routes::ADDRESSES_MAX;
use crate::time::Instant;

/// The interface and its queues. Input: [`Self::offer`], then [`Self::poll`]; output: [`Self::take`] until `None`.
pub(super) struct SlowPath {
    interface: Interface,
    sockets: SocketSet<'static>,
    device: QueueDevice,
}

struct QueueDevice {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
    frames_max: usize,
    mtu: usize,
}

impl SlowPath {
    /// `config` has passed the checks of [`super::routes::Routes`].
    pub(super) fn new(config: &StackConfig, mac: Mac, mtu: usize, seed: u64) -> Self {
        let mut device = QueueDevice {
            incoming: VecDeque::new(),
            outgoing: VecDeque::new(),
            frames_max: config.slow_path_frames_max,
            mtu,
        };
        let mut parameters = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        parameters.random_seed = seed;
        let mut interface = Interface::new(parameters, &mut device, SmolInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            for &(address, prefix) in config.addresses.iter().take(ADDRESSES_MAX) {
                let fits = addresses.push(IpCidr::new(address.into(), prefix)).is_ok();
                assert!(fits, "ADDRESSES_MAX is what the feature iface-max-addr-count-8 allows");
            }
        });
        let routes = interface.routes_mut();
        // Two routes at most, one per family: smoltcp's table holds that many by default.
        if let Some(gateway) = config.gateway_v4 {
            routes.add_default_ipv4_route(gateway).expect("the route table was empty");
        }
        if let Some(gateway) = config.gateway_v6 {
            routes.add_default_ipv6_route(gateway).expect("the route table had one entry at most");
        }
        SlowPath { interface, sockets: SocketSet::new(Vec::new()), device }
    }

    /// Queues a frame; `false` if the queue is full and the frame is lost.
    pub(super) fn offer(&mut self, frame: &[u8]) -> bool {
        let fits = self.device.incoming.len() < self.device.frames_max;
        if fits {
            self.device.incoming.push_back(frame.to_vec());
        }
        fits
    }

    /// Works off the queue.
    pub(super) fn poll(&mut self, now: Instant) {
        if self.device.incoming.is_empty() {
            return;
        }
        let now = SmolInstant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
        self.interface.poll(now, &mut self.device, &mut self.sockets);
    }

    /// The next frame to transmit.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        self.device.outgoing.pop_front()
    }

    /// Addresses it answers for.
    #[cfg(test)]
    fn addresses(&self) -> Vec<std::net::IpAddr> {
        self.interface.ip_addrs().iter().map(|cidr| cidr.address().into()).collect()
    }
}

impl Device for QueueDevice {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _now: SmolInstant) -> Option<(Incoming, Outgoing<'_>)> {
        if self.outgoing.len() >= self.frames_max {
            return None;
        }
        let frame = self.incoming.pop_front()?;
        Some((Incoming(frame), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _now: SmolInstant) -> Option<Outgoing<'_>> {
        (self.outgoing.len() < self.frames_max).then_some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_BYTES;
        capabilities
    }
}

struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::SlowPath;
    use crate::net::config::StackConfig;
    use crate::net::control::{self, Heard};
    use crate::net::frame::ETHERNET_BYTES;
    use crate::time::Instant;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn answers_arp_for_every_one_of_eight_addresses_and_drops_what_does_not_fit() {
        let addresses: Vec<_> = (1..=8).map(|host| (ip(&format!("10.0.0.{host}")), 24)).collect();
        let config = StackConfig { slow_path_frames_max: 8, ..StackConfig::new(addresses.clone()) };
        let mut slow_path = SlowPath::new(&config, [2, 0, 0, 0, 0, 1], 1500, 1);
        assert_eq!(slow_path.addresses(), addresses.iter().map(|(address, _)| *address).collect::<Vec<_>>());
        for (address, _) in &addresses {
            assert!(
                slow_path.offer(&control::request([2, 0, 0, 0, 0, 9], ip("10.0.0.99"), *address).unwrap())
            );
        }
        assert!(!slow_path.offer(&[0; 60]), "the ninth does not fit");
        slow_path.poll(Instant::ZERO);
        for (address, _) in addresses {
            let frame = slow_path.take().unwrap();
            let answer = control::read_arp(&frame[ETHERNET_BYTES..]);
            assert_eq!(answer, Some(Heard::Answer { address, mac: [2, 0, 0, 0, 0, 1] }));
        }
        assert_eq!(slow_path.take(), None);
    }
}
