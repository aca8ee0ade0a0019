//! Reads captures that [`Capture`](super::Capture) wrote, for tests and reports. Files of other programs belong in
//! Wireshark.

use super::Direction;
use super::format::{
    ALIGNMENT_BYTES, BYTE_ORDER_MAGIC, ENHANCED_PACKET, EPB_FLAGS, FLAG_OUTBOUND, INTERFACE_DESCRIPTION,
    SECTION_HEADER,
};
use crate::time::Instant;

/// Type and two lengths.
const BLOCK_BYTES_MIN: usize = 12;

/// A frame in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it passed.
    pub at: Instant,
    /// Which way.
    pub direction: Direction,
    /// What was kept of it.
    pub bytes: &'a [u8],
    /// How long it was.
    pub original_bytes: usize,
}

/// Why a capture cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The file does not begin with a section header.
    #[error("not a pcapng file")]
    NotPcapng,
    /// It was written on a machine of the other byte order.
    #[error("a capture of the other byte order")]
    ByteOrder,
    /// The file ends within a block, or a block contradicts itself.
    #[error("broken block at byte {offset}")]
    Broken {
        /// Where the block begins.
        offset: usize,
    },
}

/// The frames of a capture in the order in which they were recorded.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    file: &'a [u8],
    offset: usize,
}

/// Reads the capture `file`.
///
/// # Errors
/// When it does not begin like a pcapng file of this machine's byte order.
pub fn records(file: &[u8]) -> Result<Records<'_>, ReadError> {
    if word(file, 0) != Some(SECTION_HEADER) {
        return Err(ReadError::NotPcapng);
    }
    if word(file, 8) != Some(BYTE_ORDER_MAGIC) {
        return Err(ReadError::ByteOrder);
    }
    Ok(Records { file, offset: 0 })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

impl<'a> Records<'a> {
    /// The next block: its type and its body.
    fn block(&mut self) -> Option<(u32, &'a [u8])> {
        let rest = &self.file[self.offset..];
        let (kind, length) = (word(rest, 0)?, word(rest, 4)? as usize);
        if length < BLOCK_BYTES_MIN || !length.is_multiple_of(ALIGNMENT_BYTES) {
            return None;
        }
        let block = rest.get(..length)?;
        if word(block, length - ALIGNMENT_BYTES)? as usize != length {
            return None;
        }
        self.offset += length;
        Some((kind, &block[8..length - ALIGNMENT_BYTES]))
    }
}

/// The body of an enhanced packet block.
fn packet(body: &[u8]) -> Option<Record<'_>> {
    let stamp = u64::from(word(body, 4)?) << 32 | u64::from(word(body, 8)?);
    let (kept, original) = (word(body, 12)? as usize, word(body, 16)? as usize);
    let bytes = body.get(20..)?.get(..kept)?;
    // Ours is the first option, right behind the padded frame.
    let options = body.get(20 + kept.next_multiple_of(ALIGNMENT_BYTES)..)?;
    let code = u16::from_ne_bytes(*options.first_chunk()?);
    let flags = if code == EPB_FLAGS { word(options, 4)? } else { return None };
    let direction = if flags & FLAG_OUTBOUND == 0 { Direction::Inbound } else { Direction::Outbound };
    Some(Record { at: Instant::from_nanos(stamp), direction, bytes, original_bytes: original })
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.offset < self.file.len() {
            let offset = self.offset;
            let record = match self.block() {
                Some((SECTION_HEADER | INTERFACE_DESCRIPTION, _)) => continue,
                Some((ENHANCED_PACKET, body)) => packet(body),
                _ => None,
            };
            let Some(record) = record else {
                self.offset = self.file.len();
                return Some(Err(ReadError::Broken { offset }));
            };
            return Some(Ok(record));
        }
        None
    }
}
