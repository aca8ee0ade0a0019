//! The last things that happened on a connection: always on, fixed in size, read when something went wrong.

use core::fmt;

use super::segment::Header;
use crate::time::Instant;

/// Entries kept. With 16 bytes each this is what a connection pays whether or not anybody ever looks.
const ENTRIES: usize = 32;

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
enum What {
    #[default]
    Nothing,
    Sent,
    Retransmitted,
    Received,
    Loss,
    Timeout,
    TailProbe,
    Undo,
}

/// One entry: sequence numbers as on the wire.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Microseconds of the clock, wrapping after 71 minutes.
    at_us: u32,
    sequence: u32,
    acknowledgement: u32,
    length: u16,
    what: What,
    flags: u8,
}

/// The ring of entries. `Display` prints them oldest first, one a line.
#[derive(Clone, Debug)]
pub struct Trace {
    entries: [Entry; ENTRIES],
    next: usize,
}

impl Default for Trace {
    fn default() -> Self {
        Trace { entries: [Entry::default(); ENTRIES], next: 0 }
    }
}

const FLAG_LETTERS: [(u8, char); 6] = [(1, 'S'), (2, 'F'), (4, 'R'), (8, 'P'), (16, 'E'), (32, 'W')];

impl Trace {
    fn push(&mut self, now: Instant, entry: Entry) {
        self.entries[self.next % ENTRIES] = Entry { at_us: now.as_micros() as u32, ..entry };
        self.next = self.next.wrapping_add(1);
    }

    fn of_header(what: What, header: &Header, length: usize) -> Entry {
        let flags = header.flags;
        let bits = [flags.syn, flags.fin, flags.rst, flags.psh, flags.ece, flags.cwr];
        Entry {
            at_us: 0,
            sequence: header.seq.0,
            acknowledgement: header.ack.map_or(0, |ack| ack.0),
            length: u16::try_from(length).unwrap_or(u16::MAX),
            what,
            flags: bits.iter().enumerate().map(|(index, bit)| u8::from(*bit) << index).sum(),
        }
    }

    pub(crate) fn sent(&mut self, now: Instant, header: &Header, length: usize, again: bool) {
        let what = if again { What::Retransmitted } else { What::Sent };
        self.push(now, Trace::of_header(what, header, length));
    }

    pub(crate) fn received(&mut self, now: Instant, header: &Header, length: usize) {
        self.push(now, Trace::of_header(What::Received, header, length));
    }

    fn note(&mut self, now: Instant, what: What, bytes: u64) {
        let length = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.push(now, Entry { what, length, ..Entry::default() });
    }

    pub(crate) fn loss(&mut self, now: Instant, bytes: u64) {
        self.note(now, What::Loss, bytes);
    }

    pub(crate) fn timeout(&mut self, now: Instant, bytes_in_flight: u64) {
        self.note(now, What::Timeout, bytes_in_flight);
    }

    pub(crate) fn tail_probe(&mut self, now: Instant) {
        self.note(now, What::TailProbe, 0);
    }

    pub(crate) fn undo(&mut self, now: Instant) {
        self.note(now, What::Undo, 0);
    }

    /// See [`super::connection::Connection::touch`].
    pub(crate) fn touch(&self) -> u64 {
        u64::from(self.entries[self.next % ENTRIES].at_us)
    }

    /// Whether anything was recorded.
    pub fn is_empty(&self) -> bool {
        self.next == 0
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.next.min(ENTRIES);
        for index in self.next - count..self.next {
            let entry = &self.entries[index % ENTRIES];
            write!(f, "{:>4}.{:06} {:?}", entry.at_us / 1_000_000, entry.at_us % 1_000_000, entry.what)?;
            match entry.what {
                What::Sent | What::Retransmitted | What::Received => {
                    let letters: String = FLAG_LETTERS
                        .iter()
                        .filter(|(bit, _)| entry.flags & bit != 0)
                        .map(|(_, letter)| letter)
                        .collect();
                    writeln!(
                        f,
                        " {letters}. seq {} len {} ack {}",
                        entry.sequence, entry.length, entry.acknowledgement
                    )?;
                }
                What::Loss | What::Timeout => writeln!(f, " {} bytes", entry.length)?,
                _ => writeln!(f)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::sequence::SeqNumber;

    #[test]
    fn the_newest_entries_are_kept_oldest_first() {
        let mut trace = Trace::default();
        assert!(trace.is_empty());
        for number in 0..100u32 {
            let header = Header { seq: SeqNumber(number), ..Header::default() };
            trace.sent(Instant::from_millis(u64::from(number)), &header, 10, false);
        }
        trace.timeout(Instant::from_millis(100), 7);
        let text = trace.to_string();
        assert_eq!(text.lines().count(), ENTRIES);
        assert!(text.lines().next().is_some_and(|line| line.contains("seq 69 ")), "{text}");
        assert!(text.ends_with("Timeout 7 bytes\n"), "{text}");
        assert_eq!(size_of::<Entry>(), 16);
    }
}
