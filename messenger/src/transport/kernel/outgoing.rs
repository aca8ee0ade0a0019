//! What has been cut and the kernel has not taken yet.

use std::io::{self, Write};

use outrider_stack::tcp::source::Cut;

/// The bytes of one cut, until the kernel has taken them all. Nothing else is cut meanwhile.
#[derive(Debug)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    taken: usize,
}

impl Outgoing {
    pub(super) fn new() -> Self {
        Outgoing { bytes: Vec::new(), taken: 0 }
    }

    /// Bytes that the kernel has not taken.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// A writer for the next cut.
    pub(super) fn begin(&mut self, room: usize, urgent_only: bool) -> Cutting<'_> {
        debug_assert_eq!(self.left(), 0, "nothing is cut while something is left");
        self.bytes.clear();
        self.taken = 0;
        Cutting { bytes: &mut self.bytes, room, urgent_only }
    }

    /// Offers what is left; returns how many bytes were taken.
    pub(super) fn write(&mut self, mut socket: impl Write) -> io::Result<usize> {
        let taken = socket.write(&self.bytes[self.taken..])?;
        self.taken += taken;
        Ok(taken)
    }
}

/// The cut in progress.
pub(super) struct Cutting<'a> {
    bytes: &'a mut Vec<u8>,
    room: usize,
    urgent_only: bool,
}

impl Cut for Cutting<'_> {
    fn room(&self) -> usize {
        self.room - self.bytes.len()
    }

    fn urgent_only(&self) -> bool {
        self.urgent_only
    }

    fn append(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "a source appends no more than there is room for");
        self.bytes.extend_from_slice(bytes);
    }
}
