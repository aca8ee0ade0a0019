//! A file of 64-bit words in memory that one process writes and others read: records under sequence locks.
//!
//! The writer never waits, and a reader never sees half a record. A record is a sequence number and the words after
//! it: the number is odd while the words are being written, and another afterwards. Each record has one writer.
//!
//! The file must not be made shorter while it is mapped: a process that touches what is gone is killed by SIGBUS. The
//! writer here never does.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

/// Bytes of a word.
const WORD_BYTES: usize = size_of::<u64>();
/// The largest segment, words.
pub const WORDS_MAX: usize = 1 << 27;
/// Whoever may see the file may read it: it says no more than ss(8) shows to all.
const FILE_MODE: u32 = 0o644;
/// Times a reader tries again when the writer comes between.
const TRIES_MAX: usize = 1_000;

/// The record was being written at every try. A writer is done within a microsecond, unless it was stopped or killed
/// in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record is being written, and its writer does not come to an end")]
pub struct Torn;

/// A mapped file, as words.
struct Words {
    map: MmapRaw,
    words: usize,
}

impl Words {
    fn new(map: MmapRaw) -> Self {
        let words = map.len() / WORD_BYTES;
        Words { map, words }
    }

    fn all(&self) -> &[AtomicU64] {
        // SAFETY: the mapping begins at a page, so it is aligned for words, and is `words` of them long while `self`
        // lives. All accesses, of this process and of others that use this module, are atomic, and a mapping for
        // reading only is only loaded from, which the two users of this type see to.
        unsafe { core::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), self.words) }
    }
}

/// The writing side. The file goes away with it; a writer that is killed leaves it behind.
pub struct SegmentWriter {
    words: Words,
    path: PathBuf,
}

impl SegmentWriter {
    /// Makes the file, of `words` zeroes.
    ///
    /// # Errors
    /// When there is a file of that name already, or the system refuses.
    pub fn create(path: &Path, words: usize) -> io::Result<Self> {
        if words == 0 || words > WORDS_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let mut options = OpenOptions::new();
        // New, or not at all: in a folder that all may write to nobody can put a link in its place.
        let file = options.read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        let mapped = file
            .set_len((words * WORD_BYTES) as u64)
            .and_then(|()| MmapOptions::new().len(words * WORD_BYTES).map_raw(&file));
        match mapped {
            Ok(map) => Ok(SegmentWriter { words: Words::new(map), path: path.to_owned() }),
            Err(error) => {
                // It is of no use to anybody; if it cannot be removed the first error says more.
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one word that belongs to no record. What was written before is seen by who sees it.
    ///
    /// # Panics
    /// Beyond the end.
    pub fn store(&self, at: usize, word: u64) {
        self.words.all()[at].store(word, Ordering::Release);
    }

    /// Writes the record at `at`: its sequence number there, `words` behind it. Only one thread at a time may write a
    /// record.
    ///
    /// # Panics
    /// Beyond the end.
    pub fn write_record(&self, at: usize, words: &[u64]) {
        let record = &self.words.all()[at..=at + words.len()];
        let (sequence, body) = record.split_first().expect("a record has a sequence number");
        let before = sequence.load(Ordering::Relaxed);
        sequence.store(before | 1, Ordering::Relaxed);
        // No word may become visible before the odd number is.
        fence(Ordering::Release);
        for (place, word) in body.iter().zip(words) {
            place.store(*word, Ordering::Relaxed);
        }
        sequence.store((before | 1).wrapping_add(1), Ordering::Release);
    }
}

impl Drop for SegmentWriter {
    fn drop(&mut self) {
        // Somebody may have removed it, and then there is nothing to do.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The reading side, of any process.
pub struct SegmentReader {
    words: Words,
}

impl SegmentReader {
    /// Maps the file for reading.
    ///
    /// # Errors
    /// When it is not there, is empty or too long, or may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let bytes = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        if !metadata.is_file() || !(WORD_BYTES..=WORDS_MAX * WORD_BYTES).contains(&bytes) {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let map = MmapOptions::new().len(bytes).map_raw_read_only(&file)?;
        Ok(SegmentReader { words: Words::new(map) })
    }

    /// How many words there are.
    pub fn len(&self) -> usize {
        self.words.words
    }

    /// Never: a segment has at least one word.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One word that belongs to no record; zero beyond the end.
    pub fn load(&self, at: usize) -> u64 {
        self.words.all().get(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Reads the record at `at` into `into`, whole.
    ///
    /// # Errors
    /// [`Torn`] if the writer does not come to an end.
    ///
    /// # Panics
    /// Beyond the end.
    pub fn read_record(&self, at: usize, into: &mut [u64]) -> Result<(), Torn> {
        let record = &self.words.all()[at..=at + into.len()];
        let (sequence, body) = record.split_first().expect("a record has a sequence number");
        for _ in 0..TRIES_MAX {
            let before = sequence.load(Ordering::Acquire);
            if before & 1 == 1 {
                std::thread::yield_now();
                continue;
            }
            for (word, place) in into.iter_mut().zip(body) {
                *word = place.load(Ordering::Relaxed);
            }
            // The words must have been read before the number is looked at again.
            fence(Ordering::Acquire);
            if sequence.load(Ordering::Relaxed) == before {
                return Ok(());
            }
        }
        Err(Torn)
    }
}

/// When the process `pid` began, in the kernel's ticks since boot: with the number of the process it names it for
/// good, since numbers are used again.
///
/// # Errors
/// When there is no such process.
pub fn process_start(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name of the command, in parentheses, may hold anything; field 22 counts from the number before it.
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let start = after_name.split(' ').nth(19).and_then(|field| field.parse().ok());
    start.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("outrider-segment-test-{name}-{}", std::process::id()))
    }

    /// Words that follow from the first, so that a mixture of two is recognised.
    fn record(count: u64) -> [u64; 40] {
        let mut rng = crate::rng::Rng::new(count);
        core::array::from_fn(|place| if place == 0 { count } else { rng.next_u64() })
    }

    #[test]
    fn a_reader_never_sees_half_of_one_record_and_half_of_another() {
        const WRITES: u64 = 200_000;
        let writer = SegmentWriter::create(&path("torn"), 2 * 41).unwrap();
        writer.write_record(41, &record(0));
        let (done, started) = (AtomicBool::new(false), std::sync::Barrier::new(3));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    // A mapping of its own, as another process would have.
                    let reader = SegmentReader::open(writer.path()).unwrap();
                    started.wait();
                    let (mut last, mut words) = (0, [0; 40]);
                    while !done.load(Ordering::Relaxed) {
                        if reader.read_record(41, &mut words).is_ok() {
                            assert_eq!(words, record(words[0]), "a mixture");
                            assert!(words[0] >= last, "never an older one");
                            last = words[0];
                        }
                    }
                });
            }
            started.wait();
            for count in 1..=WRITES {
                writer.write_record(41, &record(count));
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut words = [0; 40];
        SegmentReader::open(writer.path()).unwrap().read_record(41, &mut words).unwrap();
        assert_eq!(words, record(WRITES));
    }

    #[test]
    fn a_record_whose_writer_was_killed_in_the_middle_is_said_to_be_torn() {
        let writer = SegmentWriter::create(&path("killed"), 8).unwrap();
        writer.write_record(0, &[1, 2, 3]);
        let reader = SegmentReader::open(writer.path()).unwrap();
        let mut words = [0; 3];
        assert_eq!(reader.read_record(0, &mut words), Ok(()));
        assert_eq!(words, [1, 2, 3]);
        // As far as a writer gets.
        writer.store(0, reader.load(0) | 1);
        writer.store(2, 7);
        assert_eq!(reader.read_record(0, &mut words), Err(Torn));
        writer.write_record(0, &[4, 5, 6]);
        assert_eq!(reader.read_record(0, &mut words), Ok(()), "the next writer mends it");
    }

    #[test]
    fn the_file_lives_as_long_as_its_writer_and_is_nobody_elses() {
        let path = path("life");
        let writer = SegmentWriter::create(&path, 4).unwrap();
        let again = SegmentWriter::create(&path, 4).err().map(|error| error.kind());
        assert_eq!(again, Some(io::ErrorKind::AlreadyExists));
        let reader = SegmentReader::open(&path).unwrap();
        writer.store(3, 9);
        drop(writer);
        assert_eq!((reader.len(), reader.load(3), reader.load(4)), (4, 9, 0), "still mapped");
        assert_eq!(SegmentReader::open(&path).err().map(|error| error.kind()), Some(io::ErrorKind::NotFound));
    }

    #[test]
    fn what_is_no_segment_is_refused() {
        for words in [0, WORDS_MAX + 1] {
            assert!(SegmentWriter::create(&path("size"), words).is_err(), "{words}");
        }
        assert!(SegmentReader::open(&std::env::temp_dir()).is_err());
        assert!(SegmentReader::open(Path::new("/dev/null")).is_err());
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = process_start(std::process::id()).unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        assert!(process_start(child.id()).unwrap() >= own);
        child.wait().unwrap();
        assert!(process_start(child.id()).is_err());
    }
}
