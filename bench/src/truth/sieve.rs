//! A port that can be made to lose what arrives: everything, or one TCP connection.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use outrider_drivers::port::{Port, PortError, PortInfo, PortStatistics, RxFrame, TransmitRoom, TxOffload};
use outrider_drivers::rss::Rss;
use outrider_drivers::time::Instant;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket};

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    Nothing,
    Everything,
    /// The connection with this TCP port at either end.
    Connection(u16),
}

/// Sets what a [`Sieve`] loses, from any thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Mesh(Arc<AtomicU32>);

/// What `Mesh` holds besides port numbers.
const NOTHING: u32 = 0;
const EVERYTHING: u32 = 1 << 16;

impl Mesh {
    pub(super) fn set(&self, lost: Lost) {
        let code = match lost {
            Lost::Nothing => NOTHING,
            Lost::Everything => EVERYTHING,
            Lost::Connection(port) => u32::from(port),
        };
        self.0.store(code, Ordering::Release);
    }

    fn loses(&self, frame: &[u8]) -> bool {
        match self.0.load(Ordering::Acquire) {
            NOTHING => false,
            EVERYTHING => true,
            port => tcp_ports(frame).is_some_and(|ports| ports.map(u32::from).contains(&port)),
        }
    }
}

/// The ports of a TCP segment over IPv4, which is all that the experiment uses.
fn tcp_ports(frame: &[u8]) -> Option<[u16; 2]> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    if packet.next_header() != IpProtocol::Tcp {
        return None;
    }
    let segment = TcpPacket::new_checked(packet.payload()).ok()?;
    Some([segment.src_port(), segment.dst_port()])
}

/// The port behind the mesh.
pub(super) struct Sieve {
    pub(super) inner: Box<dyn Port>,
    pub(super) mesh: Mesh,
}

impl Port for Sieve {
    fn info(&self) -> &PortInfo {
        self.inner.info()
    }

    fn receive(
        &mut self,
        now: Instant,
        budget: usize,
        accept: &mut dyn FnMut(RxFrame<'_>),
    ) -> Result<usize, PortError> {
        let mesh = &self.mesh;
        self.inner.receive(now, budget, &mut |frame| {
            if !mesh.loses(frame.bytes) {
                accept(frame);
            }
        })
    }

    fn show_next(&mut self, now: Instant, budget: usize, show: &mut dyn FnMut(&[u8])) {
        self.inner.show_next(now, budget, show);
    }

    fn transmit_room(&mut self, now: Instant) -> TransmitRoom {
        self.inner.transmit_room(now)
    }

    fn transmit(
        &mut self,
        now: Instant,
        length_max: usize,
        offload: TxOffload,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<bool, PortError> {
        self.inner.transmit(now, length_max, offload, fill)
    }

    fn flush(&mut self, now: Instant) -> Result<(), PortError> {
        self.inner.flush(now)
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.inner.readiness()
    }

    fn next_arrival(&self, now: Instant) -> Option<Instant> {
        self.inner.next_arrival(now)
    }

    fn next_room(&self, now: Instant) -> Option<Instant> {
        self.inner.next_room(now)
    }

    fn rss(&self) -> Option<Rss> {
        self.inner.rss()
    }

    fn statistics(&self) -> PortStatistics {
        self.inner.statistics()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_drivers::memory::{LinkConfig, cable};
    use std::time::Duration;

    /// An Ethernet frame with the headers of a TCP segment between these ports.
    fn frame(source: u16, destination: u16) -> Vec<u8> {
        let mut bytes = vec![0; 54];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        frame.set_ethertype(EthernetProtocol::Ipv4);
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        packet.set_version(4);
        packet.set_header_len(20);
        packet.set_total_len(40);
        packet.set_next_header(IpProtocol::Tcp);
        let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
        segment.set_src_port(source);
        segment.set_dst_port(destination);
        segment.set_header_len(20);
        bytes
    }

    /// What comes out of the sieve, of a connection from port 40000, one from 40001, and something that is not TCP.
    fn passes(lost: Lost) -> Vec<usize> {
        let frames = [frame(40_000, 7077), frame(7077, 40_001), vec![0xff; 60]];
        let (mut near, far) = cable(LinkConfig::default(), LinkConfig::default(), 1);
        let mesh = Mesh::default();
        let mut sieve = Sieve { inner: Box::new(far), mesh: mesh.clone() };
        mesh.set(lost);
        let at = Instant::from_millis(1);
        for frame in &frames {
            let sent = near.transmit(at, frame.len(), TxOffload::default(), &mut |buffer| {
                buffer[..frame.len()].copy_from_slice(frame);
                frame.len()
            });
            assert!(sent.unwrap());
        }
        near.flush(at).unwrap();
        let mut passed = Vec::new();
        let received = sieve.receive(at + Duration::from_secs(1), 8, &mut |frame| {
            passed.extend(frames.iter().position(|sent| sent == frame.bytes));
        });
        assert_eq!(received.unwrap(), frames.len());
        passed
    }

    #[test]
    fn a_sieve_loses_what_it_is_told_to_and_nothing_else() {
        assert_eq!(passes(Lost::Nothing), [0, 1, 2]);
        assert_eq!(passes(Lost::Connection(40_000)), [1, 2]);
        assert_eq!(passes(Lost::Connection(40_001)), [0, 2]);
        assert_eq!(passes(Lost::Everything), [0usize; 0]);
    }
}
