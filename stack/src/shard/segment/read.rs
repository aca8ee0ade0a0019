//! The reading side, of any process.

use std::io;
use std::path::{Path, PathBuf};

use outrider_drivers::segment::{SegmentReader, Torn, process_start};

use super::publish::{FILE_PREFIX, FILE_SUFFIX};
use super::record::{ConnectionRecord, ShardRecord};
use super::{
    CONNECTIONS_MAX, HEADER_WORDS, Layout, MAGIC, SHARDS_MAX, VERSION, directories, from_words, header,
    layout_mark,
};
use crate::time::Instant;

/// What the header of a segment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name of the node.
    pub name: String,
    /// The process that writes.
    pub pid: u32,
    /// When it began to publish, on the clock of the shards.
    pub created_at: Instant,
    /// How many shards there are.
    pub shards: usize,
    /// Connections of each shard that are shown at most.
    pub connections_max: usize,
    process_start: u64,
}

/// Whether anybody still writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterState {
    /// The process runs.
    Running,
    /// It has ended without removing the file: it was killed.
    Gone,
}

/// Why a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else.
    #[error("{path} is no statistics segment of Outrider")]
    NoSegment {
        /// The file.
        path: PathBuf,
    },
    /// It means other things by its words than this program.
    #[error("{path} was written by another version of Outrider; read it with the program that wrote it")]
    OtherVersion {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a segment.
pub struct Reader {
    segment: SegmentReader,
    layout: Layout,
    header: Header,
}

impl Reader {
    /// Opens the segment in the file `path`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let to_path = || path.to_owned();
        let segment =
            SegmentReader::open(path).map_err(|source| ReadError::File { path: to_path(), source })?;
        if segment.load(header::MAGIC) != MAGIC {
            return Err(ReadError::NoSegment { path: to_path() });
        }
        if segment.load(header::VERSION) != VERSION || segment.load(header::LAYOUT_MARK) != layout_mark() {
            return Err(ReadError::OtherVersion { path: to_path() });
        }
        let words: Vec<u64> = (0..HEADER_WORDS).map(|at| segment.load(at)).collect();
        let bounded = |at: usize, max| usize::try_from(words[at]).ok().filter(|n| (1..=max).contains(n));
        let layout = bounded(header::SHARDS, SHARDS_MAX)
            .zip(bounded(header::CONNECTIONS_MAX, CONNECTIONS_MAX))
            .map(|(shards, connections_max)| Layout { shards, connections_max })
            .filter(|layout| layout.words() <= segment.len());
        let Some(layout) = layout else { return Err(ReadError::NoSegment { path: to_path() }) };
        let header = Header {
            name: from_words(&words[header::NAME..][..header::NAME_WORDS]),
            pid: words[header::PID] as u32,
            created_at: Instant::from_nanos(words[header::CREATED_AT]),
            shards: layout.shards,
            connections_max: layout.connections_max,
            process_start: words[header::PROCESS_START],
        };
        Ok(Reader { segment, layout, header })
    }

    /// What it says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the writer still runs: the process of that number that began at that time. (A reader in another PID
    /// namespace sees other processes, and finds it gone.)
    pub fn writer(&self) -> WriterState {
        match process_start(self.header.pid) {
            Ok(start) if start == self.header.process_start => WriterState::Running,
            _ => WriterState::Gone,
        }
    }

    /// The shard numbered `shard`.
    ///
    /// # Errors
    /// [`Torn`]: the writer was stopped or killed in the middle of it.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn shard(&self, shard: usize) -> Result<ShardRecord, Torn> {
        assert!(shard < self.layout.shards, "there are {} shards", self.layout.shards);
        let mut words = [0; ShardRecord::WORDS];
        self.segment.read_record(self.layout.shard(shard), &mut words)?;
        Ok(ShardRecord::from_words(&words))
    }

    /// The connections of the shard numbered `shard` that are shown; one that is torn is left out.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn connections(&self, shard: usize) -> impl Iterator<Item = ConnectionRecord> {
        assert!(shard < self.layout.shards, "there are {} shards", self.layout.shards);
        (0..self.layout.connections_max).filter_map(move |slot| {
            let mut words = ConnectionRecord::EMPTY;
            self.segment.read_record(self.layout.connection(shard, slot), &mut words).ok()?;
            ConnectionRecord::from_words(&words)
        })
    }

    /// The files in [`directories`] that look like segments by their names, the latest first.
    pub fn list() -> Vec<PathBuf> {
        let files = directories().into_iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        let mut found: Vec<_> = files
            .flatten()
            .filter(|file| {
                let name = file.file_name();
                let name = name.to_string_lossy();
                name.starts_with(FILE_PREFIX) && name.ends_with(FILE_SUFFIX)
            })
            .filter_map(|file| Some((file.metadata().ok()?.modified().ok(), file.path())))
            .collect();
        found.sort();
        found.dedup();
        found.into_iter().rev().map(|(_, path)| path).collect()
    }
}
