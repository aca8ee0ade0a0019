//! The writing side: [`Publication`] makes the segment, a [`Publisher`] for each shard keeps it up to date.

use core::time::Duration;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrider_drivers::port::{PortInfo, PortStatistics};
use outrider_drivers::segment::{SegmentWriter, process_start};

use super::read::{Reader, WriterState};
use super::record::{ConnectionRecord, ShardRecord};
use super::{
    CONNECTIONS_MAX, HEADER_WORDS, Layout, MAGIC, SHARDS_MAX, VERSION, header, layout_mark, to_words,
};
use crate::net::Stack;
use crate::time::{Clock, Instant, MonotonicClock};

/// Time between two looks at what has changed.
const EVERY: Duration = Duration::from_millis(10);
/// Connections of a shard that are shown, if nothing else is said.
const CONNECTIONS_DEFAULT: usize = 256;
/// How the files of segments begin and end, where nobody says otherwise.
pub(super) const FILE_PREFIX: &str = "outrider-";
pub(super) const FILE_SUFFIX: &str = ".statistics";

/// Where statistics are published, and how many connections are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Name of the node, for people.
    pub name: String,
    /// The file; `None` for one with a name of its own in the first of [`directories`] that takes it.
    pub path: Option<PathBuf>,
    /// Connections of each shard that are shown at most.
    pub connections_max: usize,
}

/// Why statistics cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The file cannot be made.
    #[error("cannot publish statistics in {path}: {source}; choose another file")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process publishes there.
    #[error("cannot publish statistics in {path}: process {pid} does; choose another file")]
    InUse {
        /// The file.
        path: PathBuf,
        /// Who has it.
        pid: u32,
    },
    /// More shards or connections than a segment has room for.
    #[error(
        "statistics of {shards} shards with {connections} connections each cannot be published: at most \
         {SHARDS_MAX} and {CONNECTIONS_MAX}, at least one of each"
    )]
    Size {
        /// How many shards.
        shards: usize,
        /// How many connections of each.
        connections: usize,
    },
}

/// Where segments are looked for and put, the first first: the user's run-time folder, the system's, and memory.
pub fn directories() -> Vec<PathBuf> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    own.into_iter().chain([PathBuf::from("/run/outrider"), PathBuf::from("/dev/shm")]).collect()
}

impl Publication {
    /// Of the node `name`, in a file of its own.
    pub fn new(name: impl Into<String>) -> Self {
        Publication { name: name.into(), path: None, connections_max: CONNECTIONS_DEFAULT }
    }

    /// The same in the file `path`.
    pub fn at(self, path: impl Into<PathBuf>) -> Self {
        Publication { path: Some(path.into()), ..self }
    }

    /// Makes the segment, and a publisher for each shard, which is on the port with this description. The file goes
    /// away with the last of them.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publishers(&self, ports: &[PortInfo]) -> Result<Vec<Publisher>, PublishError> {
        let (shards, connections) = (ports.len(), self.connections_max);
        if !(1..=SHARDS_MAX).contains(&shards) || !(1..=CONNECTIONS_MAX).contains(&connections) {
            return Err(PublishError::Size { shards, connections });
        }
        let layout = Layout { shards, connections_max: connections };
        let segment = Arc::new(self.create(layout)?);
        self.introduce(&segment, layout);
        let publisher = |(shard, port)| Publisher::new(&segment, layout, shard, port);
        Ok(ports.iter().enumerate().map(publisher).collect())
    }

    fn create(&self, layout: Layout) -> Result<SegmentWriter, PublishError> {
        let failed = |path: &Path, source| PublishError::File { path: path.to_owned(), source };
        if let Some(path) = &self.path {
            make_way(path)?;
            return SegmentWriter::create(path, layout.words()).map_err(|source| failed(path, source));
        }
        // A name that other folders and tools can live with.
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
        let name: String = self.name.chars().map(plain).take(64).collect();
        let pid = std::process::id();
        let mut last = None;
        for (number, folder) in directories().iter().flat_map(|folder| (0..8).map(move |n| (n, folder))) {
            let distinct = if number == 0 { String::new() } else { format!("-{number}") };
            let path = folder.join(format!("{FILE_PREFIX}{name}-{pid}{distinct}{FILE_SUFFIX}"));
            // /run/outrider may have to be made; where that is not possible the file will say so.
            let _ = std::fs::create_dir(folder);
            match SegmentWriter::create(&path, layout.words()) {
                Ok(writer) => return Ok(writer),
                Err(source) => last = Some(failed(&path, source)),
            }
        }
        Err(last.expect("there are folders to try"))
    }

    /// Fills in the header; the magic last, by which a reader knows that the rest is there.
    fn introduce(&self, segment: &SegmentWriter, layout: Layout) {
        let mut words = [0; HEADER_WORDS];
        let pid = std::process::id();
        words[header::VERSION] = VERSION;
        words[header::LAYOUT_MARK] = layout_mark();
        words[header::SHARDS] = layout.shards as u64;
        words[header::CONNECTIONS_MAX] = layout.connections_max as u64;
        words[header::PID] = u64::from(pid);
        // Without /proc nobody can tell whether this process still is; a reader says so.
        words[header::PROCESS_START] = process_start(pid).unwrap_or_default();
        words[header::CREATED_AT] = MonotonicClock.now().as_nanos();
        let name = to_words::<{ header::NAME_WORDS }>(&self.name);
        words[header::NAME..][..header::NAME_WORDS].copy_from_slice(&name);
        for (at, word) in words.into_iter().enumerate() {
            segment.store(at, word);
        }
        segment.store(header::MAGIC, MAGIC);
    }
}

/// Removes the segment of a process that is no more; one that still runs keeps it.
fn make_way(path: &Path) -> Result<(), PublishError> {
    let Ok(reader) = Reader::open(path) else { return Ok(()) };
    match reader.writer() {
        WriterState::Running => Err(PublishError::InUse { path: path.to_owned(), pid: reader.header().pid }),
        WriterState::Gone => {
            std::fs::remove_file(path).map_err(|source| PublishError::File { path: path.to_owned(), source })
        }
    }
}

/// Publishes one shard. Belongs to its thread.
pub struct Publisher {
    segment: Arc<SegmentWriter>,
    layout: Layout,
    shard: usize,
    record: ShardRecord,
    /// What was last written of each connection, without the time.
    written: Vec<[u64; ConnectionRecord::WORDS]>,
    /// Slots from here on were never used.
    used: usize,
    last: Option<Instant>,
    /// Something may have happened since.
    stale: bool,
}

impl Publisher {
    fn new(segment: &Arc<SegmentWriter>, layout: Layout, shard: usize, port: &PortInfo) -> Self {
        let publisher = Publisher {
            segment: Arc::clone(segment),
            layout,
            shard,
            record: ShardRecord::new(port),
            written: vec![ConnectionRecord::EMPTY; layout.connections_max],
            used: 0,
            last: None,
            stale: false,
        };
        publisher.write_shard();
        publisher
    }

    /// Where the segment is.
    pub fn path(&self) -> &Path {
        self.segment.path()
    }

    /// Something may have changed.
    pub fn touch(&mut self) {
        self.stale = true;
    }

    /// When to call [`Self::publish`]: at once if that is past, never while nothing has changed.
    pub fn due(&self) -> Option<Instant> {
        self.stale.then(|| self.last.map_or(Instant::ZERO, |last| last + EVERY))
    }

    /// Writes what has changed: the shard, and those of its connections that are shown.
    pub fn publish(
        &mut self,
        now: Instant,
        stack: &Stack,
        port: PortStatistics,
        cpu_time: Duration,
        sleeps: u64,
    ) {
        self.last = Some(now);
        self.stale = false;
        let record = &mut self.record;
        (record.updated_at, record.cpu_time, record.sleeps) = (now, cpu_time, sleeps);
        (record.stack, record.port) = (*stack.statistics(), port);
        record.connections = stack.connection_count();
        self.write_shard();
        let mut shown = 0;
        for slot in 0..self.layout.connections_max {
            // Neither used before nor now, and all there are have been seen.
            if slot >= self.used && shown >= self.record.connections {
                break;
            }
            let report = stack.connection_report(now, slot as u32);
            shown += usize::from(report.is_some());
            let words = report.map_or(ConnectionRecord::EMPTY, |report| {
                ConnectionRecord { updated_at: Instant::ZERO, report }.to_words()
            });
            if words != self.written[slot] {
                self.written[slot] = words;
                self.used = self.used.max(slot + 1);
                let at = self.layout.connection(self.shard, slot);
                self.segment.write_record(at, &ConnectionRecord::stamped(words, now));
            }
        }
    }

    fn write_shard(&self) {
        self.segment.write_record(self.layout.shard(self.shard), &self.record.to_words());
    }
}

impl Drop for Publisher {
    /// The shard has ended: its last counters stay as long as the others of its group run.
    fn drop(&mut self) {
        self.record.running = false;
        self.record.connections = 0;
        self.write_shard();
        for slot in 0..self.used {
            let at = self.layout.connection(self.shard, slot);
            self.segment.write_record(at, &ConnectionRecord::EMPTY);
        }
    }
}
