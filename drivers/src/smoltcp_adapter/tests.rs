//! Stories about smoltcp on our ports and our stack's ports on smoltcp's devices.

use core::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::Loopback;
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::*;
use crate::memory::{LinkConfig, MemoryPort, cable};

/// A host that runs smoltcp on a port.
struct Host<P: Port> {
    device: PortDevice<P>,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
}

impl<P: Port> Host<P> {
    fn new(port: P, number: u8) -> Self {
        let mac = port.info().mac;
        let mut device = PortDevice::new(port);
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        config.random_seed = u64::from(number);
        let mut interface = Interface::new(config, &mut device, to_smoltcp(Instant::ZERO));
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, number), 24)).unwrap();
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; 65_536]);
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Host { device, interface, sockets, socket }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    fn poll(&mut self, now: Instant) {
        self.interface.poll(to_smoltcp(now), &mut self.device, &mut self.sockets);
        self.device.flush(now).unwrap();
    }

    fn next(&mut self, now: Instant) -> Option<Instant> {
        let timer = self.interface.poll_at(to_smoltcp(now), &self.sockets).map(from_smoltcp);
        timer.into_iter().chain(self.device.next_arrival(now)).min()
    }
}

/// `client` sends `bytes` to `server`, which checks them; returns when the last one is there.
fn transfer<P: Port, Q: Port>(mut client: Host<P>, mut server: Host<Q>, bytes: usize) -> Instant {
    server.socket().listen(80).unwrap();
    let socket = client.sockets.get_mut::<tcp::Socket<'_>>(client.socket);
    socket.connect(client.interface.context(), (IpAddress::v4(10, 0, 0, 2), 80), 50_000).unwrap();
    let (mut sent, mut received) = (0, 0);
    let mut now = Instant::ZERO;
    for _ in 0..1_000_000 {
        while client.socket().can_send() && sent < bytes {
            let chunk: Vec<u8> = (sent..bytes.min(sent + 1000)).map(|index| (index % 251) as u8).collect();
            sent += client.socket().send_slice(&chunk).unwrap();
        }
        let mut buffer = [0; 4096];
        while server.socket().can_recv() {
            let length = server.socket().recv_slice(&mut buffer).unwrap();
            for byte in &buffer[..length] {
                assert_eq!(*byte, (received % 251) as u8, "byte {received}");
                received += 1;
            }
        }
        if received == bytes {
            return now;
        }
        client.poll(now);
        server.poll(now);
        // Asked after both have sent: what one sent is what the other waits for.
        let next = client.next(now).into_iter().chain(server.next(now)).min();
        now = next.expect("somebody has something to do").max(now + Duration::from_micros(1));
    }
    panic!("{received} of {bytes} bytes after a million steps");
}

fn on_cable(seed: u64) -> (MemoryPort, MemoryPort) {
    let link = LinkConfig {
        rate_bits_per_second: 1_000_000_000,
        delay: Duration::from_micros(50),
        ..LinkConfig::default()
    };
    cable(link.clone(), link, seed)
}

#[test]
fn two_smoltcp_hosts_talk_over_our_cable() {
    const BYTES: usize = 1_000_000;
    let (a, b) = on_cable(1);
    let took = transfer(Host::new(a, 1), Host::new(b, 2), BYTES) - Instant::ZERO;
    // 8 ms at line rate, and smoltcp may hold back an acknowledgement for 10 ms; a loss would cost a second.
    assert!((8..100).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn a_port_made_a_device_made_a_port_still_carries_tcp() {
    let (a, b) = on_cable(2);
    let (mac_a, mac_b) = (a.info().mac, b.info().mac);
    let flushing = |port, mac| DevicePort::new(Flushing(PortDevice::new(port)), "again", mac).unwrap();
    let (a, b) = (flushing(a, mac_a), flushing(b, mac_b));
    assert_eq!((a.info().mtu, a.info().mac), (1500, mac_a));
    transfer(Host::new(a, 1), Host::new(b, 2), 100_000);
}

/// smoltcp's devices have no doorbell; this one rings its port's before it looks for frames.
struct Flushing(PortDevice<MemoryPort>);

impl Device for Flushing {
    type RxToken<'a> = PortRxToken<'a>;
    type TxToken<'a> = PortTxToken<'a, MemoryPort>;

    fn receive(&mut self, timestamp: SmoltcpInstant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        self.0.flush(from_smoltcp(timestamp)).unwrap();
        self.0.receive(timestamp)
    }

    fn transmit(&mut self, timestamp: SmoltcpInstant) -> Option<Self::TxToken<'_>> {
        self.0.transmit(timestamp)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.0.capabilities()
    }
}

#[test]
fn smoltcps_own_loopback_is_a_port() {
    let mut port = DevicePort::new(Loopback::new(Medium::Ethernet), "loopback", [2; 6]).unwrap();
    let send = |port: &mut DevicePort<Loopback>, fill: &mut dyn FnMut(&mut [u8]) -> usize| {
        port.transmit(Instant::ZERO, 100, TxOffload::default(), fill).unwrap()
    };
    assert!(!send(&mut port, &mut |_| 0), "nothing filled, nothing sent");
    for number in 1..=3 {
        assert!(port.transmit_room(Instant::ZERO).frames > 0);
        assert!(send(&mut port, &mut |buffer| {
            buffer[..60].fill(number);
            60
        }));
    }
    let mut seen = Vec::new();
    let got = port.receive(Instant::ZERO, 2, &mut |frame| seen.push((frame.bytes.len(), frame.bytes[0])));
    assert_eq!((got.unwrap(), seen), (2, vec![(60, 1), (60, 2)]), "the budget is kept");
    assert_eq!((port.statistics().tx_frames, port.statistics().rx_bytes), (3, 120));
}

#[test]
fn a_port_that_fails_is_reported_at_flush() {
    let (a, b) = on_cable(3);
    drop(b);
    let mut device = PortDevice::new(a);
    assert!(device.receive(to_smoltcp(Instant::ZERO)).is_none());
    assert!(matches!(device.flush(Instant::ZERO), Err(PortError::Gone { .. })));
}

#[test]
fn times_are_converted_with_care() {
    assert_eq!(to_smoltcp(Instant::from_nanos(1_999)).total_micros(), 1);
    assert_eq!(from_smoltcp(SmoltcpInstant::from_micros(7)), Instant::from_micros(7));
    assert_eq!(from_smoltcp(SmoltcpInstant::from_micros(-7)), Instant::ZERO);
    assert!(from_smoltcp(to_smoltcp(Instant::FAR_FUTURE)) <= Instant::FAR_FUTURE);
}
