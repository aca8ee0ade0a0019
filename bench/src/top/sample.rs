//! One look at a segment.

use std::collections::HashMap;

use outrider_drivers::time::Instant;
use outrider_stack::endpoint::ConnectionId;
use outrider_stack::shard::segment::{ConnectionRecord, Reader, ShardRecord};

/// Shards and connections as they were found. Every record is whole; all are from within some milliseconds.
#[derive(Debug)]
pub(crate) struct Sample {
    /// When.
    pub(crate) at: Instant,
    /// The shards, in order; none for one whose writer was killed in the middle.
    pub(crate) shards: Vec<Option<ShardRecord>>,
    /// The connections that are shown, by shard and name.
    pub(crate) connections: HashMap<(usize, ConnectionId), ConnectionRecord>,
}

impl Sample {
    /// Looks now.
    pub(crate) fn take(reader: &Reader, at: Instant) -> Self {
        let shards = 0..reader.header().shards;
        let connections = shards.clone().flat_map(|shard| {
            reader
                .connections(shard)
                .map(move |connection| ((shard, connection.report.summary.id), connection))
        });
        Sample {
            at,
            connections: connections.collect(),
            shards: shards.map(|shard| reader.shard(shard).ok()).collect(),
        }
    }

    /// Seconds since `before`; at least a millisecond, so that a rate can be taken.
    pub(crate) fn seconds_since(&self, before: &Sample) -> f64 {
        (self.at - before.at).as_secs_f64().max(1e-3)
    }
}
