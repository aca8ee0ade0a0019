//! Somebody who floods a listener with SYNs.

#![allow(dead_code, unreachable_pub)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use outrider_drivers::memory::MemoryPort;
use outrider_drivers::port::{Port, TxOffload};
use outrider_drivers::rng::Rng;
use outrider_stack::tcp::segment::{Flags, Header, Options, Timestamps};
use outrider_stack::tcp::sequence::SeqNumber;
use outrider_stack::tcp::wire::{self, Emission, Ports};
use outrider_stack::time::Instant;
use smoltcp::wire::IpProtocol;

use super::raw;

/// The attacker sends so many frames every so often: 200000 SYNs a second and some guessed acknowledgements.
const BURST: u64 = 11;
const BURST_EVERY: Duration = Duration::from_micros(50);

/// Sends SYNs from invented addresses, on the link and beyond it, and guesses at cookies.
pub struct Attacker {
    port: MemoryPort,
    rng: Rng,
    target: [u8; 6],
    victim: SocketAddr,
    pub next: Instant,
    pub syns: u64,
}

impl Attacker {
    /// Floods `victim`, whose Ethernet address is `target`, from `next` on.
    pub fn new(port: MemoryPort, seed: u64, target: [u8; 6], victim: SocketAddr, next: Instant) -> Self {
        Attacker { port, rng: Rng::new(seed), target, victim, next, syns: 0 }
    }

    fn frame(&mut self, guess: bool) -> Vec<u8> {
        let rng = &mut self.rng;
        let [a, b, c, d] = rng.next_u32().to_be_bytes();
        let source = match rng.chance(0.5) {
            true => Ipv4Addr::new(10, 0, 1 + a % 200, 1 + b % 250),
            false => Ipv4Addr::new(20 + a % 100, b, c, 1 + d % 250),
        };
        let source = SocketAddr::new(IpAddr::V4(source), 1 + (rng.next_u32() as u16 >> 1));
        let timestamps = Timestamps { value: rng.next_u32(), echo: rng.next_u32() };
        let header = Header {
            seq: SeqNumber(rng.next_u32()),
            ack: guess.then(|| SeqNumber(rng.next_u32())),
            flags: Flags { syn: !guess, ..Flags::default() },
            window: 1_000,
            options: Options {
                timestamps: rng.chance(0.5).then_some(timestamps),
                segment_size_max: (!guess).then_some(1_460),
                ..Options::default()
            },
        };
        let target = self.victim;
        let emission = Emission {
            ports: Ports { source: source.port(), destination: target.port() },
            source: source.ip(),
            destination: target.ip(),
            checksum_offload: false,
        };
        let mut segment = vec![0; wire::header_length(&header)];
        wire::emit(&mut segment, &emission, &header, [&[], &[]]);
        raw::ip(self.target, source.ip(), target.ip(), IpProtocol::Tcp, 64, &segment)
    }

    pub fn burst(&mut self, now: Instant) {
        while self.port.receive(now, 64, &mut |_| {}).unwrap() > 0 {}
        for number in 0..BURST {
            let frame = self.frame(number == 0);
            let mut fill = |buffer: &mut [u8]| {
                buffer[..frame.len()].copy_from_slice(&frame);
                frame.len()
            };
            assert!(self.port.transmit(now, frame.len(), TxOffload::default(), &mut fill).unwrap());
            self.syns += u64::from(number != 0);
        }
        self.port.flush(now).unwrap();
        self.next = now + BURST_EVERY;
    }
}
