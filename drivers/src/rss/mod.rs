//! Receive-side scaling: how a NIC with several queues chooses the one that a frame arrives on.
//!
//! The NIC hashes addresses and ports of the frame with a secret key (the Toeplitz hash) and looks the hash up in an
//! indirection table of queues. Who knows both, by [`of_interface`], knows where a frame will arrive.

mod ethtool;
mod flow;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use self::ethtool::{RssError, of_interface};
pub use self::flow::FrameFlow;

/// Longest input: two IPv6 addresses and two ports.
const INPUT_BYTES_MAX: usize = 2 * 16 + 2 * 2;
/// Shortest key: the hash of a byte takes the 32 bits from the byte's own place on, and 8 more.
pub const KEY_BYTES_MIN: usize = INPUT_BYTES_MAX + 4;
/// Entries an indirection table may have; the largest that NICs have is 4096.
pub const INDIRECTION_MAX: usize = 65_536;

/// The key that the specification of receive-side scaling uses in its examples, and many NICs by default.
pub const DEFAULT_KEY: [u8; KEY_BYTES_MIN] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Key and indirection table of a NIC. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Rss {
    shared: Arc<Shared>,
}

#[derive(PartialEq, Eq)]
struct Shared {
    key: Vec<u8>,
    indirection: Vec<u32>,
    /// The hash is linear: that of an input is the exclusive or of those of its bytes, each at its place.
    bytes: Vec<[u32; 256]>,
}

/// Why a key and a table are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRss {
    /// The key does not reach over the longest input.
    #[error("a key of {length} bytes is shorter than the {KEY_BYTES_MIN} that IPv6 with ports needs")]
    ShortKey {
        /// Its length, bytes.
        length: usize,
    },
    /// The table is empty or larger than any NIC's.
    #[error("an indirection table has 1 to {INDIRECTION_MAX} entries, not {length}")]
    TableLength {
        /// Its length, entries.
        length: usize,
    },
}

impl Rss {
    /// The NIC with this key and this table of queues.
    ///
    /// # Errors
    /// See [`BadRss`].
    pub fn new(key: &[u8], indirection: Vec<u32>) -> Result<Self, BadRss> {
        if key.len() < KEY_BYTES_MIN {
            return Err(BadRss::ShortKey { length: key.len() });
        }
        if indirection.is_empty() || indirection.len() > INDIRECTION_MAX {
            return Err(BadRss::TableLength { length: indirection.len() });
        }
        let bytes = (0..INPUT_BYTES_MAX).map(|place| table(key, place)).collect();
        Ok(Rss { shared: Arc::new(Shared { key: key.to_vec(), indirection, bytes }) })
    }

    /// The default key over `queues` queues in turn, in a table of 128 entries: what most drivers begin with.
    ///
    /// # Panics
    /// Without any queue.
    pub fn even(queues: u32) -> Self {
        assert!(queues > 0, "a NIC has a queue");
        let table = (0..128).map(|entry| entry % queues).collect();
        Rss::new(&DEFAULT_KEY, table).expect("the default key is long enough and the table is not empty")
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.shared.key
    }

    /// The queue of each hash, by the hash modulo the length.
    pub fn indirection(&self) -> &[u32] {
        &self.shared.indirection
    }

    /// The hash of a TCP frame from `source` to `destination`, as the frame has them; zero if they are of different
    /// families.
    pub fn hash_tcp(&self, source: SocketAddr, destination: SocketAddr) -> u32 {
        let (hash, place) = self.hash_addresses(source.ip(), destination.ip());
        let [a, b] = source.port().to_be_bytes();
        let [c, d] = destination.port().to_be_bytes();
        [a, b, c, d].into_iter().zip(place..).fold(hash, |hash, (byte, place)| hash ^ self.byte(place, byte))
    }

    /// The hash of a frame of another protocol, which takes the addresses alone.
    pub fn hash_ip(&self, source: IpAddr, destination: IpAddr) -> u32 {
        self.hash_addresses(source, destination).0
    }

    /// The queue for frames with this hash.
    pub fn queue(&self, hash: u32) -> u32 {
        let indirection = &self.shared.indirection;
        indirection[hash as usize % indirection.len()]
    }

    /// The queue on which a frame arrives. What is not IP has no hash, and goes where hash zero does.
    pub fn queue_of_frame(&self, frame: &[u8]) -> u32 {
        let hash = match FrameFlow::read(frame) {
            Some(FrameFlow::Tcp { source, destination }) => self.hash_tcp(source, destination),
            Some(FrameFlow::Ip { source, destination }) => self.hash_ip(source, destination),
            None => 0,
        };
        self.queue(hash)
    }

    /// The hash of the addresses, and the place where the input goes on.
    fn hash_addresses(&self, source: IpAddr, destination: IpAddr) -> (u32, usize) {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                (self.hash_at(0, &source.octets()) ^ self.hash_at(4, &destination.octets()), 8)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                (self.hash_at(0, &source.octets()) ^ self.hash_at(16, &destination.octets()), 32)
            }
            _ => (0, 0),
        }
    }

    fn hash_at(&self, place: usize, bytes: &[u8]) -> u32 {
        bytes.iter().zip(place..).fold(0, |hash, (byte, place)| hash ^ self.byte(place, *byte))
    }

    fn byte(&self, place: usize, byte: u8) -> u32 {
        self.shared.bytes[place][usize::from(byte)]
    }
}

/// The hash of every value of the byte at `place`: the exclusive or of the 32 bits of the key that begin at each of
/// its one bits.
fn table(key: &[u8], place: usize) -> [u32; 256] {
    let window = key[place..place + 5].iter().fold(0_u64, |window, byte| window << 8 | u64::from(*byte));
    core::array::from_fn(|value| {
        let ones = (0..8).filter(|bit| value & (0x80 >> bit) != 0);
        ones.fold(0, |hash, bit| hash ^ (window >> (8 - bit)) as u32)
    })
}

/// Without the key: it is a secret of the host.
impl core::fmt::Debug for Rss {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let queues = self.shared.indirection.iter().max().map_or(0, |queue| queue + 1);
        f.debug_struct("Rss")
            .field("entries", &self.shared.indirection.len())
            .field("queues", &queues)
            .finish_non_exhaustive()
    }
}
