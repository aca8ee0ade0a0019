//! The statistics segment: a file in memory in which the shards of a process publish what they do, for others to read
//! while they run (`bench top`). [`Publication`] makes it, [`Reader`] reads it.
//!
//! Each shard writes its own records every 10 ms at most, and only those that changed; nobody waits for anybody. See
//! [`outrider_drivers::segment`] for how a reader gets whole records.
//!
//! ```text
//! word 0       header: HEADER_WORDS, written once, the magic last
//!      32      shard 0, shard 1, ...                  SHARD_WORDS each, with their sequence number
//!      ...     connections of shard 0, of shard 1...  connections_max each, CONNECTION_WORDS with sequence number
//! ```
//!
//! Words are of 64 bits in the byte order of the machine. A connection beyond `connections_max` of its shard is not
//! shown; the shard says how many it has in truth.

mod publish;
mod read;
mod record;

pub use publish::{Publication, PublishError, Publisher, directories};
pub use read::{Header, ReadError, Reader, WriterState};
pub use record::{ConnectionRecord, ShardRecord};

/// "OUTRIDER", read as a big-endian number.
const MAGIC: u64 = u64::from_be_bytes(*b"OUTRIDER");
/// Changes when the meaning of a word does. The list of counters has its own mark, [`layout_mark`].
const VERSION: u64 = 2;
const HEADER_WORDS: usize = 32;
/// Most shards and most connections of each that a segment has room for.
const SHARDS_MAX: usize = 1_024;
const CONNECTIONS_MAX: usize = 65_536;

/// Places in the header.
mod header {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = 1;
    pub(super) const LAYOUT_MARK: usize = 2;
    pub(super) const SHARDS: usize = 3;
    pub(super) const CONNECTIONS_MAX: usize = 4;
    pub(super) const PID: usize = 5;
    pub(super) const PROCESS_START: usize = 6;
    /// Nanoseconds of the clock of the shards.
    pub(super) const CREATED_AT: usize = 7;
    /// Bytes of UTF-8 and then zeroes.
    pub(super) const NAME: usize = 8;
    pub(super) const NAME_WORDS: usize = 8;
}

/// Where the records of a segment are, words from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    shards: usize,
    connections_max: usize,
}

impl Layout {
    fn shard(&self, shard: usize) -> usize {
        HEADER_WORDS + shard * (1 + ShardRecord::WORDS)
    }

    fn connection(&self, shard: usize, slot: usize) -> usize {
        self.shard(self.shards) + (shard * self.connections_max + slot) * (1 + ConnectionRecord::WORDS)
    }

    fn words(&self) -> usize {
        self.connection(self.shards, 0)
    }
}

/// Follows from the names of all counters and the sizes of the records: two programs with the same mark mean the same
/// by each word (FNV-1a, 64 bits).
fn layout_mark() -> u64 {
    use crate::net::StackStatistics;
    use crate::tcp::statistics::ConnectionStatistics;
    let sizes = [ShardRecord::WORDS, ConnectionRecord::WORDS].into_iter().flat_map(usize::to_le_bytes);
    let names = StackStatistics::NAMES.iter().chain(ConnectionStatistics::NAMES);
    let bytes = names.flat_map(|name| name.bytes().chain([0])).chain(sizes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |mark: u64, byte| {
        (mark ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Text in words, cut to fit at a character's end.
fn to_words<const N: usize>(text: &str) -> [u64; N] {
    let fits = text.floor_char_boundary(N * 8);
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(text.as_bytes()[..fits].chunks(8)) {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(padded);
    }
    words
}

/// The text in these words, up to the first zero.
fn from_words(words: &[u64]) -> String {
    let bytes: Vec<u8> =
        words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
