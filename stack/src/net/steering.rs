//! Which shard of a group owns a flow: a pure function of the 4-tuple that all shards agree on.
//!
//! Nobody looks an owner up, so there is nothing to share, to lock or to fill up. Where the NIC tells how it spreads
//! frames over its queues the function is the NIC's own, and a frame arrives where it belongs. Where it does not tell,
//! the function is a hash that is the same for both directions of a flow:
//!
//! - a device that learns from what is sent (TAP, and virtio over TAP) brings a flow to the queue that its owner sends
//!   from, after the first frame;
//! - a device that keeps queue numbers (veth) keeps a flow between two nodes with as many shards each on one queue all
//!   the way, since both find the same owner;
//! - with any other, frames are handed from the shard where they arrive to the owner: right, at the price of a copy.
//!
//! If the device does otherwise than it tells, or is told otherwise while it runs, the same applies.

use std::net::{IpAddr, SocketAddr};

use outrider_drivers::rss::Rss;

/// Who owns which flow in a group of shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    shards: usize,
    rss: Option<Rss>,
}

impl Steering {
    /// Shard `n` of `shards` is on queue `n` of a NIC that spreads frames as `rss` tells. Flows that it sends to a
    /// queue without a shard (and which therefore are handed over) belong to the shard of that number modulo `shards`.
    ///
    /// # Panics
    /// Without any shard.
    pub fn by_rss(shards: usize, rss: Rss) -> Self {
        assert!(shards > 0, "a group has at least one shard");
        Steering { shards, rss: Some(rss) }
    }

    /// Nothing is known of how frames are spread over the queues of `shards` shards.
    ///
    /// # Panics
    /// Without any shard.
    pub fn unknown(shards: usize) -> Self {
        assert!(shards > 0, "a group has at least one shard");
        Steering { shards, rss: None }
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// Whether frames are expected to arrive at the shard that owns their flow.
    pub fn is_known(&self) -> bool {
        self.rss.is_some() || self.shards == 1
    }

    /// The shard that owns the connection between `local` and `remote`.
    pub fn owner(&self, local: SocketAddr, remote: SocketAddr) -> usize {
        match &self.rss {
            // As a received frame has it: the remote end is its source.
            Some(rss) => rss.queue(rss.hash_tcp(remote, local)) as usize % self.shards,
            None => ((u128::from(symmetric_hash(local, remote)) * self.shards as u128) >> 64) as usize,
        }
    }

    /// Whether any flow can belong to `shard`: a NIC may be told to leave out queues.
    pub fn serves(&self, shard: usize) -> bool {
        match &self.rss {
            Some(rss) => rss.indirection().iter().any(|queue| *queue as usize % self.shards == shard),
            None => shard < self.shards,
        }
    }
}

/// The same for both directions, and without a key: the node at the other end must find the same. Who chooses his
/// addresses and ports with care can have one shard own all his flows, as he can with the known keys of most NICs.
fn symmetric_hash(one: SocketAddr, other: SocketAddr) -> u64 {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let addresses = bits(one.ip()) ^ bits(other.ip());
    let ports = u64::from(one.port() ^ other.port());
    mix(mix(addresses as u64 ^ (addresses >> 64) as u64) ^ ports)
}

/// Every bit of the result depends on every bit of the input (the finaliser of SplitMix64).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use outrider_drivers::rss::{DEFAULT_KEY, Rss};

    use super::Steering;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn flows() -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        let local = ["10.0.0.1:7077", "[fd00::1]:7077"].map(address);
        (0..2_000u16).map(move |number| {
            let local = local[usize::from(number % 2)];
            // A kernel gives out even ports first.
            let remote = SocketAddr::new(local.ip(), 32_768 + number * 2);
            (local, remote)
        })
    }

    #[test]
    fn the_owner_is_the_queue_on_which_the_frame_arrives() {
        // The first answer of the specification: 0x51ccc178 for a frame from the second to the first.
        let (local, remote) = (address("161.142.100.80:1766"), address("66.9.149.187:2794"));
        let table: Vec<u32> = (0..128).map(|entry| entry / 2 % 4).collect();
        let steering = Steering::by_rss(4, Rss::new(&DEFAULT_KEY, table.clone()).unwrap());
        assert_eq!(steering.owner(local, remote), table[0x78] as usize);
        assert_ne!(steering.owner(local, remote), Steering::by_rss(4, Rss::even(4)).owner(remote, local));
    }

    #[test]
    fn where_nothing_is_known_both_ends_of_a_flow_find_the_same_owner() {
        let steering = Steering::unknown(4);
        for (local, remote) in flows() {
            assert_eq!(steering.owner(local, remote), steering.owner(remote, local));
        }
    }

    #[test]
    fn flows_are_spread_over_all_shards() {
        for steering in
            [Steering::unknown(4), Steering::by_rss(4, Rss::even(4)), Steering::by_rss(4, Rss::even(8))]
        {
            let mut counts = [0; 4];
            for (local, remote) in flows() {
                counts[steering.owner(local, remote)] += 1;
            }
            assert!(counts.iter().all(|count| (350..650).contains(count)), "{counts:?}");
            assert!((0..4).all(|shard| steering.serves(shard)));
        }
    }

    #[test]
    fn a_queue_that_the_nic_leaves_out_owns_nothing() {
        let steering = Steering::by_rss(3, Rss::even(2));
        assert!(steering.serves(0) && steering.serves(1) && !steering.serves(2));
        assert!(flows().all(|(local, remote)| steering.owner(local, remote) < 2));
    }

    #[test]
    fn a_shard_alone_owns_everything() {
        for steering in [Steering::unknown(1), Steering::by_rss(1, Rss::even(4))] {
            assert!(steering.is_known());
            assert!(flows().all(|(local, remote)| steering.owner(local, remote) == 0));
        }
    }
}
