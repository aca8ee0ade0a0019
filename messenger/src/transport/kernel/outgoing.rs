//! What has been cut and the kernel has not taken yet.

use core::ops::Range;
use std::io::{self, IoSlice, Write};

use bytes::Bytes;
use outrider_stack::tcp::source::Cut;

/// A piece of a message at least this long is written from where it is. A shorter one is copied beside its header: that
/// costs less than a slice of its own does in the kernel.
const SHARED_BYTES_MIN: usize = 8 << 10;
/// Slices given to the kernel at a time. A cut that has more of them is written in several calls.
const SLICES_MAX: usize = 64;
/// A buffer that has grown beyond this is given back when it is empty.
const SCRATCH_BYTES_MAX: usize = 256 << 10;

/// Where cuts are put together. One for all connections of a worker: an idle connection holds none.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    copied: Vec<u8>,
    pieces: Vec<Piece>,
}

/// A part of a cut, in the order of the stream.
#[derive(Debug)]
enum Piece {
    /// The next so many of the copied bytes.
    Copied(usize),
    Shared(Bytes),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Copied(length) => *length,
            Piece::Shared(bytes) => bytes.len(),
        }
    }
}

/// The bytes of one cut, until the kernel has taken them all. Nothing else is cut meanwhile.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    scratch: Scratch,
    /// Bytes in all.
    bytes: usize,
    /// Of them the kernel has taken.
    taken: usize,
    /// Pieces that it has taken whole.
    pieces_done: usize,
    /// Copied bytes in these.
    copied_done: usize,
    /// Bytes taken of the piece after them.
    piece_taken: usize,
}

impl Outgoing {
    /// Bytes that the kernel has not taken.
    pub(super) fn left(&self) -> usize {
        self.bytes - self.taken
    }

    /// A writer for the next cut, which is put together in `scratch`.
    pub(super) fn begin(&mut self, scratch: &mut Scratch, room: usize, urgent_only: bool) -> Cutting<'_> {
        debug_assert_eq!(self.left(), 0, "nothing is cut while something is left");
        *self = Outgoing { scratch: core::mem::take(scratch), ..Outgoing::default() };
        Cutting { outgoing: self, room, urgent_only }
    }

    /// The cut has been taken wholly, or nothing was cut: the scratch is free for the next, of whatever connection.
    pub(super) fn give_back(&mut self, scratch: &mut Scratch) {
        debug_assert_eq!(self.left(), 0, "what is left is still to be written");
        let Scratch { mut copied, mut pieces } = core::mem::take(self).scratch;
        copied.clear();
        pieces.clear();
        if (scratch.copied.capacity()..=SCRATCH_BYTES_MAX).contains(&copied.capacity()) {
            *scratch = Scratch { copied, pieces };
        }
    }

    /// Offers what is left; returns how many bytes were taken.
    pub(super) fn write(&mut self, mut socket: impl Write) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let (mut count, mut copied, mut skip) = (0, self.copied_done, self.piece_taken);
        for (slice, piece) in slices.iter_mut().zip(&self.scratch.pieces[self.pieces_done..]) {
            let bytes = match piece {
                Piece::Copied(length) => {
                    let bytes = &self.scratch.copied[copied..copied + length];
                    copied += length;
                    bytes
                }
                Piece::Shared(bytes) => bytes,
            };
            *slice = IoSlice::new(&bytes[core::mem::take(&mut skip)..]);
            count += 1;
        }
        let taken = socket.write_vectored(&slices[..count])?;
        self.on_taken(taken);
        Ok(taken)
    }

    fn on_taken(&mut self, bytes: usize) {
        self.taken += bytes;
        self.piece_taken += bytes;
        while let Some(piece) = self.scratch.pieces.get_mut(self.pieces_done)
            && piece.len() <= self.piece_taken
        {
            self.piece_taken -= piece.len();
            self.pieces_done += 1;
            match piece {
                Piece::Copied(length) => self.copied_done += *length,
                // The message may be released before the rest is written.
                Piece::Shared(bytes) => *bytes = Bytes::new(),
            }
        }
    }
}

/// The cut in progress.
pub(super) struct Cutting<'a> {
    outgoing: &'a mut Outgoing,
    room: usize,
    urgent_only: bool,
}

impl Cutting<'_> {
    fn count(&mut self, bytes: usize) {
        assert!(bytes <= self.room(), "a source appends no more than there is room for");
        self.outgoing.bytes += bytes;
    }
}

impl Cut for Cutting<'_> {
    fn room(&self) -> usize {
        self.room - self.outgoing.bytes
    }

    fn urgent_only(&self) -> bool {
        self.urgent_only
    }

    fn append(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        let scratch = &mut self.outgoing.scratch;
        scratch.copied.extend_from_slice(bytes);
        match scratch.pieces.last_mut() {
            Some(Piece::Copied(length)) => *length += bytes.len(),
            _ => scratch.pieces.push(Piece::Copied(bytes.len())),
        }
    }

    fn append_shared(&mut self, whole: &Bytes, range: Range<usize>) {
        if range.len() < SHARED_BYTES_MIN {
            return self.append(&whole[range]);
        }
        self.count(range.len());
        self.outgoing.scratch.pieces.push(Piece::Shared(whole.slice(range)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes at most so many bytes at a time.
    struct Narrow {
        bytes: Vec<u8>,
        most: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let before = self.bytes.len();
            for slice in slices {
                let room = self.most - (self.bytes.len() - before);
                self.bytes.extend_from_slice(&slice[..room.min(slice.len())]);
            }
            Ok(self.bytes.len() - before)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Cuts headers and pieces of a message in turn; returns what the kernel should get.
    fn cut(outgoing: &mut Outgoing, scratch: &mut Scratch, pieces: usize) -> Vec<u8> {
        let message: Bytes = (0..40_000_u32).map(|n| n as u8).collect();
        let mut expected = Vec::new();
        let mut cutting = outgoing.begin(scratch, 1 << 30, false);
        for n in 0..pieces {
            let header = [n as u8; 24];
            cutting.append(&header[..12]);
            cutting.append(&header[12..]);
            let range = n..n + if n % 3 == 2 { 100 } else { SHARED_BYTES_MIN + n };
            cutting.append_shared(&message, range.clone());
            expected.extend_from_slice(&header);
            expected.extend_from_slice(&message[range]);
        }
        assert_eq!(cutting.room(), (1 << 30) - expected.len());
        expected
    }

    #[test]
    fn a_cut_reaches_the_kernel_in_order_however_little_it_takes_at_a_time() {
        for (pieces, most) in [(4, 1), (5, 7), (5, 8_193), (100, 50_000), (100, usize::MAX), (0, 1)] {
            let (mut outgoing, mut scratch) = (Outgoing::default(), Scratch::default());
            let expected = cut(&mut outgoing, &mut scratch, pieces);
            let mut kernel = Narrow { bytes: Vec::new(), most };
            while outgoing.left() > 0 {
                assert_eq!(outgoing.left(), expected.len() - kernel.bytes.len());
                assert!(outgoing.write(&mut kernel).unwrap() > 0);
            }
            assert!(kernel.bytes == expected, "{pieces} pieces, {most} bytes at a time");
        }
    }

    #[test]
    fn long_pieces_are_kept_and_short_ones_copied() {
        let (mut outgoing, mut scratch) = (Outgoing::default(), Scratch::default());
        let message = Bytes::from(vec![1; 2 * SHARED_BYTES_MIN]);
        let mut cutting = outgoing.begin(&mut scratch, 1 << 20, false);
        cutting.append_shared(&message, 0..SHARED_BYTES_MIN - 1);
        cutting.append_shared(&message, 0..SHARED_BYTES_MIN);
        assert!(!message.is_unique(), "the long piece is a handle of the message");
        assert_eq!(outgoing.scratch.copied.len(), SHARED_BYTES_MIN - 1);
        outgoing.write(Narrow { bytes: Vec::new(), most: usize::MAX }).unwrap();
        assert!(message.is_unique(), "the kernel has its own copy now");
    }

    #[test]
    fn an_idle_connection_holds_no_memory_and_the_next_cut_has_it() {
        let (mut outgoing, mut scratch) = (Outgoing::default(), Scratch::default());
        cut(&mut outgoing, &mut scratch, 10);
        while outgoing.left() > 0 {
            outgoing.write(Narrow { bytes: Vec::new(), most: usize::MAX }).unwrap();
        }
        outgoing.give_back(&mut scratch);
        assert_eq!((outgoing.scratch.copied.capacity(), outgoing.scratch.pieces.capacity()), (0, 0));
        let capacity = scratch.copied.capacity();
        assert!(capacity > 0 && scratch.copied.is_empty() && scratch.pieces.is_empty());
        let mut other = Outgoing::default();
        other.begin(&mut scratch, 100, true).append(b"x");
        assert_eq!(other.scratch.copied.capacity(), capacity);
        // A connection without bytes does not take the place of what another has given back.
        other.write(Narrow { bytes: Vec::new(), most: 1 }).unwrap();
        other.give_back(&mut scratch);
        outgoing.give_back(&mut scratch);
        assert_eq!(scratch.copied.capacity(), capacity);
    }
}
