//! The last things that happened on a connection: always on, fixed in size, read when something went wrong.

use core::fmt;

use super::segment::Header;
use crate::time::Instant;

/// Entries kept. With 8 bytes each this is what a connection pays whether or not anybody ever looks.
const ENTRIES: usize = 16;

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Sent,
    Retransmitted,
    Received,
    Loss,
    Timeout,
    TailProbe,
    Undo,
}

const WHATS: [What; 7] =
    [What::Sent, What::Retransmitted, What::Received, What::Loss, What::Timeout, What::TailProbe, What::Undo];

/// One entry, in one number; from the lowest bit on: what and flags ([`What`] times 32), how long after the entry before
/// it ([`Elapsed`]), the length, and the low 24 bits of a sequence number as on the wire: that of the first byte if the
/// segment has any, else the acknowledgement number.
#[derive(Clone, Copy, Debug, Default)]
struct Entry(u64);

const FLAG_BITS: u32 = 5;
const FLAG_LETTERS: [char; FLAG_BITS as usize] = ['S', 'F', 'R', 'P', 'E'];
const WHAT_BITS: u32 = 8;
const ELAPSED_BITS: u32 = 16;
const LENGTH_BITS: u32 = 16;
const NUMBER_BITS: u32 = 24;

/// A time in fifteen bits of microseconds, or, as the highest bit says, of milliseconds.
fn elapsed(since: u64, now: u64) -> u64 {
    const VALUE_MAX: u64 = (1 << (ELAPSED_BITS - 1)) - 1;
    let micros = now.saturating_sub(since);
    if micros <= VALUE_MAX { micros } else { (micros / 1_000).min(VALUE_MAX) | (VALUE_MAX + 1) }
}

impl Entry {
    fn new(what: What, flags: u64, length: usize, number: u32) -> Entry {
        let length = (length as u64).min((1 << LENGTH_BITS) - 1);
        let number = u64::from(number) & ((1 << NUMBER_BITS) - 1);
        let after = (what as u64) << FLAG_BITS | flags;
        Entry(
            after | length << (WHAT_BITS + ELAPSED_BITS) | number << (WHAT_BITS + ELAPSED_BITS + LENGTH_BITS),
        )
    }

    fn of_header(what: What, header: &Header, length: usize) -> Entry {
        let flags = header.flags;
        let bits = [flags.syn, flags.fin, flags.rst, flags.psh, flags.ece | flags.cwr];
        let bits = bits.iter().enumerate().map(|(index, bit)| u64::from(*bit) << index).sum();
        let has_sequence = length > 0 || flags.syn || flags.fin || flags.rst;
        let number = header.ack.filter(|_| !has_sequence).unwrap_or(header.seq);
        Entry::new(what, bits, length, number.0)
    }

    fn field(self, shift: u32, bits: u32) -> u64 {
        self.0 >> shift & ((1 << bits) - 1)
    }

    fn what(self) -> What {
        WHATS[self.field(FLAG_BITS, WHAT_BITS - FLAG_BITS) as usize % WHATS.len()]
    }

    fn elapsed_micros(self) -> u64 {
        let value = self.field(WHAT_BITS, ELAPSED_BITS - 1);
        let is_millis = self.field(WHAT_BITS + ELAPSED_BITS - 1, 1) == 1;
        if is_millis { value * 1_000 } else { value }
    }

    fn length(self) -> u64 {
        self.field(WHAT_BITS + ELAPSED_BITS, LENGTH_BITS)
    }

    fn number(self) -> u64 {
        self.field(WHAT_BITS + ELAPSED_BITS + LENGTH_BITS, NUMBER_BITS)
    }
}

/// The ring of entries. `Display` prints them oldest first, one a line.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Trace {
    /// When the newest was made, microseconds; and in the lowest bits how many there are, or, beyond the first round,
    /// [`ENTRIES`] and the place of the next.
    newest: u64,
    entries: [Entry; ENTRIES],
}

/// Bits of [`Trace::newest`] for the count.
const COUNT_BITS: u32 = (2 * ENTRIES).trailing_zeros();

impl Trace {
    fn count(&self) -> usize {
        self.newest as usize % (2 * ENTRIES)
    }

    fn newest_at(&self) -> u64 {
        self.newest >> COUNT_BITS
    }

    fn push(&mut self, now: Instant, entry: Entry) {
        let now = now.as_micros();
        let count = self.count();
        let after = if count == 0 { 0 } else { elapsed(self.newest_at(), now) };
        self.entries[count % ENTRIES] = Entry(entry.0 | after << WHAT_BITS);
        let count = if count + 1 < 2 * ENTRIES { count + 1 } else { ENTRIES };
        self.newest = now << COUNT_BITS | count as u64;
    }

    pub(crate) fn sent(&mut self, now: Instant, header: &Header, length: usize, again: bool) {
        let what = if again { What::Retransmitted } else { What::Sent };
        self.push(now, Entry::of_header(what, header, length));
    }

    pub(crate) fn received(&mut self, now: Instant, header: &Header, length: usize) {
        self.push(now, Entry::of_header(What::Received, header, length));
    }

    fn note(&mut self, now: Instant, what: What, bytes: u64) {
        self.push(now, Entry::new(what, 0, usize::try_from(bytes).unwrap_or(usize::MAX), 0));
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

    /// Whether anything was recorded.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// The entries, oldest first, each with its time in microseconds.
    fn timed(&self) -> impl Iterator<Item = (u64, Entry)> {
        let next = self.count();
        let count = next.min(ENTRIES);
        let at = move |age: usize| self.entries[(next + ENTRIES - 1 - age) % ENTRIES];
        let later: u64 = (0..count).map(|age| at(age).elapsed_micros()).sum();
        let mut time = self.newest_at().saturating_sub(later);
        (0..count).rev().map(move |age| {
            time += at(age).elapsed_micros();
            (time, at(age))
        })
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at_us, entry) in self.timed() {
            write!(f, "{:>4}.{:06} {:?}", at_us / 1_000_000, at_us % 1_000_000, entry.what())?;
            match entry.what() {
                What::Sent | What::Retransmitted | What::Received => {
                    let flags = entry.field(0, FLAG_BITS);
                    let set = FLAG_LETTERS.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1);
                    let letters: String = set.map(|(_, letter)| letter).collect();
                    let is_bare = entry.length() == 0 && letters.chars().all(|letter| letter == 'E');
                    let name = if is_bare { "ack" } else { "seq" };
                    writeln!(f, " {letters}. {name} {} len {}", entry.number(), entry.length())?;
                }
                What::Loss | What::Timeout => writeln!(f, " {} bytes", entry.length())?,
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
        let first = format!("   0.0{:02}000 Sent . seq {} len 10", 101 - ENTRIES, 101 - ENTRIES);
        assert_eq!(text.lines().next(), Some(first.as_str()), "{text}");
        assert!(text.ends_with("   0.100000 Timeout 7 bytes\n"), "{text}");
        assert_eq!((size_of::<Entry>(), size_of::<Trace>()), (8, 8 * ENTRIES + 8));
    }

    #[test]
    fn an_entry_tells_what_it_was_about() {
        let mut trace = Trace::default();
        let mut header = Header { seq: SeqNumber(0x0100_0007), ack: Some(SeqNumber(9)), ..Header::default() };
        header.flags.psh = true;
        trace.sent(Instant::from_micros(5_000_000), &header, 1448, true);
        header.flags.psh = false;
        trace.received(Instant::from_micros(5_032_767), &header, 0);
        header.flags.fin = true;
        trace.received(Instant::from_micros(7_032_767), &header, 0);
        trace.loss(Instant::from_micros(7_032_767), 1 << 20);
        let expected = [
            "   5.000000 Retransmitted P. seq 7 len 1448",
            "   5.032767 Received . ack 9 len 0",
            "   7.032767 Received F. seq 7 len 0",
            "   7.032767 Loss 65535 bytes",
        ];
        assert_eq!(trace.to_string().lines().collect::<Vec<_>>(), expected);
    }
}
