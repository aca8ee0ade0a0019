//! Sources copy what they send or lend it, and a connection has some of both in flight.

use bytes::Bytes;
use outrider_stack::tcp::source::Cut;

/// Appends `bytes`, which follow `before` others: copied, lent, or the header of a chunk copied and its body lent.
pub(crate) fn append(cut: &mut dyn Cut, before: u64, bytes: Vec<u8>) {
    const HEADER_BYTES: usize = 24;
    let bytes = Bytes::from(bytes);
    let copied = [bytes.len(), 0, HEADER_BYTES.min(bytes.len())][(before / 1000 % 3) as usize];
    cut.append(&bytes[..copied]);
    cut.append_shared(&bytes, copied..bytes.len());
}
