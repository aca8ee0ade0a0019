//! Names of flows, and the numbers drawn from them by keyed hashes.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use siphasher::sip::SipHasher24;

use crate::tcp::sequence::SeqNumber;
use crate::time::Instant;

/// The 4-tuple of a connection, in a form that hashes quickly. IPv4 addresses are kept as IPv4-mapped ones, which
/// never appear on the wire as IPv6 (they are dropped as martians).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FlowKey {
    local: Bits,
    remote: Bits,
    ports: u32,
}

/// The bits of an address in four numbers, the highest first: one of 128 bits would have to lie on a multiple of its
/// size.
type Bits = [u32; 4];

fn joined(bits: Bits) -> u128 {
    bits.into_iter().fold(0, |joined, bits| joined << u32::BITS | u128::from(bits))
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u128(joined(self.local));
        hasher.write_u128(joined(self.remote));
        hasher.write_u32(self.ports);
    }
}

impl FlowKey {
    pub(super) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        FlowKey {
            local: to_bits(local.ip()),
            remote: to_bits(remote.ip()),
            ports: u32::from(local.port()) << 16 | u32::from(remote.port()),
        }
    }

    pub(super) fn local(&self) -> SocketAddr {
        SocketAddr::new(from_bits(self.local), (self.ports >> 16) as u16)
    }

    pub(super) fn remote(&self) -> SocketAddr {
        SocketAddr::new(from_bits(self.remote), self.ports as u16)
    }
}

/// What an IPv4-mapped address has above the IPv4 address (RFC 4291 section 2.5.5.2).
const V4_MAPPED: u32 = 0xffff;

fn to_bits(address: IpAddr) -> Bits {
    match address {
        IpAddr::V4(address) => [0, 0, V4_MAPPED, address.to_bits()],
        IpAddr::V6(address) => [3, 2, 1, 0].map(|place| (address.to_bits() >> (place * u32::BITS)) as u32),
    }
}

fn from_bits(bits: Bits) -> IpAddr {
    match bits {
        [0, 0, V4_MAPPED, address] => IpAddr::V4(Ipv4Addr::from_bits(address)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(joined(bits))),
    }
}

/// The secret of a stack, and what is derived from it. Who cannot read the secret cannot predict any of these.
#[derive(Clone, Copy)]
pub(super) struct Secret {
    seed: u64,
}

/// Keeps the hashes for different purposes apart.
#[derive(Clone, Copy)]
enum Purpose {
    Sequence = 1,
    Timestamp = 2,
    Port = 3,
}

impl Secret {
    pub(super) fn new(seed: u64) -> Self {
        Secret { seed }
    }

    fn hash(&self, purpose: Purpose, key: &FlowKey) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.seed, purpose as u64);
        hasher.write_u128(joined(key.local));
        hasher.write_u128(joined(key.remote));
        hasher.write_u32(key.ports);
        hasher.finish()
    }

    /// The initial sequence number (RFC 6528 section 3): a clock of 4 us ticks plus a keyed hash of the 4-tuple, so
    /// that numbers rise from one connection of a 4-tuple to the next and tell nothing about other 4-tuples.
    pub(super) fn initial_sequence(&self, now: Instant, key: &FlowKey) -> SeqNumber {
        let clock = (now.as_micros() / 4) as u32;
        SeqNumber(clock.wrapping_add(self.hash(Purpose::Sequence, key) as u32))
    }

    /// The offset of the timestamp clock (RFC 7323 section 5.4): fixed per 4-tuple, so that timestamps keep rising
    /// from one connection to the next, and unpredictable from outside.
    pub(super) fn timestamp_offset(&self, key: &FlowKey) -> u32 {
        self.hash(Purpose::Timestamp, key) as u32
    }

    /// Where the search for an ephemeral port begins (RFC 6056 section 3.3.3): a function of the 4-tuple without
    /// the local port.
    pub(super) fn port_offset(&self, local: IpAddr, remote: SocketAddr) -> u32 {
        self.hash(Purpose::Port, &FlowKey::new(SocketAddr::new(local, 0), remote)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::{FlowKey, Secret};
    use crate::time::Instant;

    #[test]
    fn keys_give_their_addresses_back() {
        for (local, remote) in [("10.0.0.1:7", "192.168.1.2:65535"), ("[fd00::1]:1", "[fe80::2]:80")] {
            let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
            let key = FlowKey::new(local, remote);
            assert_eq!((key.local(), key.remote()), (local, remote));
        }
    }

    #[test]
    fn initial_sequence_numbers_rise_with_time_and_differ_between_flows() {
        let secret = Secret::new(1);
        let local = "10.0.0.1:7".parse().unwrap();
        let first = FlowKey::new(local, "10.0.0.2:1".parse().unwrap());
        let second = FlowKey::new(local, "10.0.0.2:2".parse().unwrap());
        let at = |micros, key| secret.initial_sequence(Instant::from_micros(micros), key);
        assert_eq!(at(4_000, &first).distance(at(0, &first)), 1_000);
        assert_ne!(at(0, &first), at(0, &second));
        assert_ne!(at(0, &first), Secret::new(2).initial_sequence(Instant::ZERO, &first));
        assert_ne!(secret.timestamp_offset(&first), secret.timestamp_offset(&second));
    }
}
