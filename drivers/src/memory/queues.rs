//! Hosts with several queues at a switch: which queue gets which frame.

use super::Rng;
use crate::rss::{FrameFlow, Rss};

/// How the NIC of a host spreads the frames it receives over its queues.
#[derive(Clone, Debug)]
pub enum QueueSteering {
    /// As this key and table have it, and the ports tell it ([`crate::port::Port::rss`]).
    Rss(Rss),
    /// By a hash of the flow, following from this seed, that nobody is told.
    Hidden(u64),
    /// Each frame anew, at random from this seed: the worst a network can do.
    Scattered(u64),
}

impl QueueSteering {
    /// What the NIC tells of it.
    pub(super) fn told(&self) -> Option<Rss> {
        match self {
            QueueSteering::Rss(rss) => Some(rss.clone()),
            QueueSteering::Hidden(_) | QueueSteering::Scattered(_) => None,
        }
    }
}

/// One host of several queues.
#[derive(Debug)]
struct Host {
    /// Where its queues are at the switch, in order.
    places: Vec<usize>,
    steering: QueueSteering,
    rng: Rng,
}

impl Host {
    fn queue(&mut self, frame: &[u8]) -> usize {
        let queues = self.places.len() as u64;
        let queue = match &self.steering {
            QueueSteering::Rss(rss) => u64::from(rss.queue_of_frame(frame)) % queues,
            QueueSteering::Hidden(seed) => hidden_hash(*seed, frame) % queues,
            QueueSteering::Scattered(_) => self.rng.below(queues),
        };
        self.places[queue as usize]
    }
}

/// A hash of the flow that has nothing to do with any that a stack may expect.
fn hidden_hash(seed: u64, frame: &[u8]) -> u64 {
    let (source, destination, ports) = match FrameFlow::read(frame) {
        Some(FrameFlow::Tcp { source, destination }) => {
            (source.ip(), destination.ip(), u64::from(source.port()) << 16 | u64::from(destination.port()))
        }
        Some(FrameFlow::Ip { source, destination }) => (source, destination, 0),
        None => return 0,
    };
    let bits = |address| match address {
        std::net::IpAddr::V4(address) => u128::from(address.to_bits()),
        std::net::IpAddr::V6(address) => address.to_bits(),
    };
    let words = [source, destination].map(bits).map(|bits| [bits as u64, (bits >> 64) as u64]);
    words.into_iter().flatten().chain([ports]).fold(seed, |hash, word| Rng::new(hash ^ word).next_u64())
}

/// The hosts of several queues at one switch. All others are at one place each, and are not here.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: Vec<Host>,
}

impl Hosts {
    /// The ports at `places` are the queues of one host.
    pub(super) fn add(&mut self, places: Vec<usize>, steering: QueueSteering) {
        let seed = match &steering {
            QueueSteering::Rss(_) => 0,
            QueueSteering::Hidden(seed) | QueueSteering::Scattered(seed) => *seed,
        };
        self.hosts.push(Host { places, steering, rng: Rng::new(seed) });
    }

    fn of(&mut self, place: usize) -> Option<&mut Host> {
        self.hosts.iter_mut().find(|host| host.places.contains(&place))
    }

    /// Whether both places are of one host.
    pub(super) fn are_one(&mut self, one: usize, other: usize) -> bool {
        one == other || self.of(one).is_some_and(|host| host.places.contains(&other))
    }

    /// The place of the queue that gets `frame`, which is for the host at `to`.
    pub(super) fn queue(&mut self, to: usize, frame: &[u8]) -> usize {
        self.of(to).map_or(to, |host| host.queue(frame))
    }

    /// Whether a frame to all, sent from the place `from`, goes to `to`: not back, and to one queue of a host.
    pub(super) fn floods(&mut self, to: usize, from: usize, frame: &[u8]) -> bool {
        if self.are_one(to, from) {
            return false;
        }
        match self.of(to) {
            None => true,
            // Asked once for each queue of the host, so it must not be drawn anew: the first queue stands for all.
            Some(host) if matches!(host.steering, QueueSteering::Scattered(_)) => host.places[0] == to,
            Some(host) => host.queue(frame) == to,
        }
    }

    /// The port at `place` is gone; the other queues of its host stay.
    pub(super) fn leave(&mut self, place: usize) {
        for host in &mut self.hosts {
            host.places.retain(|other| *other != place);
        }
        self.hosts.retain(|host| !host.places.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LinkConfig, MemoryPort, Switch};
    use super::*;
    use crate::port::{Port, TxOffload};
    use crate::time::Instant;

    const QUEUES: usize = 4;

    fn send(port: &mut MemoryPort, frame: &[u8]) {
        let mut fill = |buffer: &mut [u8]| {
            buffer[..frame.len()].copy_from_slice(frame);
            frame.len()
        };
        assert!(port.transmit(Instant::ZERO, frame.len(), TxOffload::default(), &mut fill).unwrap());
        port.flush(Instant::ZERO).unwrap();
    }

    fn received(port: &mut MemoryPort) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        port.receive(Instant::ZERO, 1_000, &mut |frame| frames.push(frame.bytes.to_vec())).unwrap();
        frames
    }

    /// An IPv4 TCP frame of the flow numbered `flow`, as far as a NIC reads it.
    fn flow_frame(to: [u8; 6], from: [u8; 6], flow: u8) -> Vec<u8> {
        let mut frame = [&to[..], &from, &[0x08, 0x00, 0x45]].concat();
        frame.resize(60, 0);
        frame[14 + 9] = 6;
        frame[14 + 12..][..8].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        frame[14 + 21] = flow;
        frame
    }

    /// A host with queues, and one without.
    fn lan(steering: QueueSteering) -> (Vec<MemoryPort>, MemoryPort) {
        let switch = Switch::new(1);
        let mut queues = switch.connect_queues(&LinkConfig::default(), steering, QUEUES);
        let mut peer = switch.connect(LinkConfig::default());
        // The switch learns where the host is.
        let hello = flow_frame([0xff; 6], queues[0].info().mac, 0);
        send(&mut queues[2], &hello);
        assert_eq!(received(&mut peer), [hello]);
        assert!(queues.iter_mut().all(|queue| received(queue).is_empty()), "not back to its sender");
        (queues, peer)
    }

    #[test]
    fn a_flow_stays_on_the_queue_that_its_hash_says() {
        let rss = Rss::even(QUEUES as u32);
        let (mut queues, mut peer) = lan(QueueSteering::Rss(rss.clone()));
        assert!(
            queues
                .iter()
                .all(|queue| queue.rss() == Some(rss.clone()) && queue.info().mac == queues[0].info().mac)
        );
        assert_eq!(peer.rss(), None);
        let mut used = [0; QUEUES];
        for flow in 0..64 {
            let frame = flow_frame(queues[0].info().mac, peer.info().mac, flow);
            send(&mut peer, &frame);
            let expected = rss.queue_of_frame(&frame) as usize;
            for (number, queue) in queues.iter_mut().enumerate() {
                assert_eq!(received(queue).len(), usize::from(number == expected));
            }
            used[expected] += 1;
        }
        assert!(used.iter().all(|flows| *flows > 0), "{used:?}");
    }

    #[test]
    fn a_hidden_hash_keeps_flows_together_and_a_scattering_one_does_not() {
        for (steering, keeps) in [(QueueSteering::Hidden(3), true), (QueueSteering::Scattered(3), false)] {
            let (mut queues, mut peer) = lan(steering);
            assert_eq!(queues[0].rss(), None);
            for flow in 0..16 {
                let frame = flow_frame(queues[0].info().mac, peer.info().mac, flow);
                (0..32).for_each(|_| send(&mut peer, &frame));
                let counts: Vec<usize> = queues.iter_mut().map(|queue| received(queue).len()).collect();
                assert_eq!(counts.iter().sum::<usize>(), 32);
                assert_eq!(counts.contains(&32), keeps, "{counts:?}");
            }
        }
    }

    #[test]
    fn a_frame_to_all_comes_to_one_queue_and_no_queue_hears_its_own_host() {
        for steering in
            [QueueSteering::Rss(Rss::even(4)), QueueSteering::Hidden(1), QueueSteering::Scattered(1)]
        {
            let (mut queues, mut peer) = lan(steering);
            let to_all = flow_frame([0xff; 6], peer.info().mac, 9);
            send(&mut peer, &to_all);
            assert_eq!(queues.iter_mut().map(|queue| received(queue).len()).sum::<usize>(), 1);
            let own = queues[0].info().mac;
            send(&mut queues[1], &flow_frame(own, own, 1));
            assert!(queues.iter_mut().all(|queue| received(queue).is_empty()));
        }
    }
}
