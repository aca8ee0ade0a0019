//! Bytes that arrived ahead of a gap, bounded.

use std::collections::BTreeMap;

/// A piece grows by what continues it up to this size, so that pieces are about as many as there are holes.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// Out-of-order bytes by stream offset. Pieces do not overlap; pieces that touch are reported as one range.
#[derive(Debug)]
pub(crate) struct Reassembly {
    pieces: BTreeMap<u64, Vec<u8>>,
    bytes: usize,
    bytes_max: usize,
    pieces_max: usize,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insert {
    /// At least one byte was new.
    Stored,
    /// All of it was held already.
    Duplicate,
    /// A bound was reached; nothing was kept.
    Refused,
}

impl Reassembly {
    pub(crate) fn new(bytes_max: usize, pieces_max: usize) -> Self {
        Reassembly { pieces: BTreeMap::new(), bytes: 0, bytes_max, pieces_max }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps what is new of `bytes` at `offset`.
    pub(crate) fn insert(&mut self, offset: u64, bytes: &[u8]) -> Insert {
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        let mut stored = false;
        let mut refused = false;
        // Walk the pieces that overlap `offset..end` and fill the holes between them.
        while at < end {
            let before =
                self.pieces.range(..=at).next_back().map(|(start, piece)| start + piece.len() as u64);
            if let Some(covered) = before.filter(|covered| *covered > at) {
                at = covered;
                continue;
            }
            let hole_end = self.pieces.range(at..end).next().map_or(end, |(start, _)| *start);
            let slice = &bytes[(at - offset) as usize..(hole_end - offset) as usize];
            if !self.keep(at, slice) {
                refused = true;
                break;
            }
            stored = true;
            at = hole_end;
        }
        match (stored, refused) {
            (true, _) => Insert::Stored,
            (false, true) => Insert::Refused,
            (false, false) => Insert::Duplicate,
        }
    }

    /// Stores new bytes that overlap nothing, if the bounds allow.
    fn keep(&mut self, at: u64, bytes: &[u8]) -> bool {
        if self.bytes + bytes.len() > self.bytes_max {
            return false;
        }
        let full = self.pieces.len() >= self.pieces_max;
        let continued = self.pieces.range_mut(..at).next_back().filter(|(start, piece)| {
            **start + piece.len() as u64 == at && piece.len() + bytes.len() <= PIECE_BYTES_MAX
        });
        match continued {
            Some((_, piece)) => piece.extend_from_slice(bytes),
            None if full => return false,
            None => {
                self.pieces.insert(at, bytes.to_vec());
            }
        }
        self.bytes += bytes.len();
        true
    }

    /// Takes the piece that continues the stream at `next`, and how many of its first bytes are old.
    pub(crate) fn take_at(&mut self, next: u64) -> Option<(usize, Vec<u8>)> {
        loop {
            let entry = self.pieces.first_entry()?;
            if *entry.key() > next {
                return None;
            }
            let (start, piece) = entry.remove_entry();
            self.bytes -= piece.len();
            let old = (next - start) as usize;
            if old < piece.len() {
                return Some((old, piece));
            }
        }
    }

    /// The first range held that lies before `next`, cut off there: what arrived in order and was held already.
    pub(crate) fn covered_before(&self, next: u64) -> Option<(u64, u64)> {
        let start = *self.pieces.first_key_value()?.0;
        let (_, end) = self.range_around(start).filter(|_| start < next)?;
        Some((start, end.min(next)))
    }

    /// The contiguous range that holds `offset`.
    pub(crate) fn range_around(&self, offset: u64) -> Option<(u64, u64)> {
        let (start, piece) = self.pieces.range(..=offset).next_back()?;
        let (mut start, mut end) = (*start, start + piece.len() as u64);
        if end <= offset {
            return None;
        }
        while let Some((earlier, piece)) = self.pieces.range(..start).next_back() {
            if earlier + piece.len() as u64 != start {
                break;
            }
            start = *earlier;
        }
        while let Some(piece) = self.pieces.get(&end) {
            end += piece.len() as u64;
        }
        Some((start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(from: u64, to: u64) -> Vec<u8> {
        (from..to).map(|i| i as u8).collect()
    }

    fn ranges(r: &Reassembly) -> Vec<(u64, u64)> {
        let mut all: Vec<_> = r.pieces.keys().filter_map(|start| r.range_around(*start)).collect();
        all.dedup();
        all
    }

    #[test]
    fn overlapping_pieces_are_kept_once() {
        let mut r = Reassembly::new(1 << 20, 64);
        assert_eq!(r.insert(100, &bytes(100, 200)), Insert::Stored);
        assert_eq!(r.insert(300, &bytes(300, 400)), Insert::Stored);
        assert_eq!(ranges(&r), [(100, 200), (300, 400)]);
        assert_eq!(r.insert(150, &bytes(150, 350)), Insert::Stored);
        assert_eq!(ranges(&r), [(100, 400)]);
        assert_eq!(r.bytes(), 300);
        assert_eq!(r.insert(120, &bytes(120, 380)), Insert::Duplicate);
        let (mut next, mut all) = (110, Vec::new());
        while let Some((old, piece)) = r.take_at(next) {
            next += (piece.len() - old) as u64;
            all.extend_from_slice(&piece[old..]);
        }
        assert_eq!(all, bytes(110, 400));
        assert!(r.is_empty() && r.bytes() == 0);
    }

    #[test]
    fn bounds_on_bytes_and_on_pieces_hold() {
        let mut r = Reassembly::new(100, 3);
        assert_eq!(r.insert(10, &bytes(10, 111)), Insert::Refused);
        for start in [10, 20, 30] {
            assert_eq!(r.insert(start, &bytes(start, start + 5)), Insert::Stored);
        }
        assert_eq!(r.insert(40, &bytes(40, 45)), Insert::Refused);
        assert_eq!(r.bytes(), 15);
    }
}
