//! What the experiment found, for machines and for people.

use serde::Serialize;

use crate::table::{bytes, numbers};

/// So many connections of one kind. What is of a connection is of one end of it: half of what both hold.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ScaleResult {
    /// What is on the connections.
    pub(crate) variant: &'static str,
    /// How many there are.
    pub(crate) connections: usize,
    /// What one end holds, as it asked for it; by the counting allocator.
    pub(crate) bytes_per_connection: f64,
    /// In so many blocks.
    pub(crate) blocks_per_connection: f64,
    /// The same by the growth of the process, with what the system's allocator adds.
    pub(crate) resident_bytes_per_connection: f64,
    /// Processor time of both ends, the switch between them and the clock that moves from event to event, over the segments
    /// sent, measured really; `null` where there are no heartbeats.
    pub(crate) cpu_ns_per_segment: Option<f64>,
    /// The smallest and the largest of the parts that it was measured in.
    pub(crate) cpu_ns_per_segment_spread: Option<(f64, f64)>,
    /// That over the same with the fewest connections of the run.
    pub(crate) cost_over_one: Option<f64>,
    /// Heartbeats for each second of virtual time.
    pub(crate) heartbeats_per_second: Option<f64>,
    /// Heartbeats for each second of processor time.
    pub(crate) heartbeats_per_cpu_second: Option<f64>,
    /// What the heartbeats of these connections take of one core.
    pub(crate) core_share: Option<f64>,
    /// Heartbeats measured.
    pub(crate) heartbeats: Option<u64>,
    /// Segments that carried them, their echoes and the acknowledgements.
    pub(crate) segments: Option<u64>,
    /// Processor time measured.
    pub(crate) cpu_seconds: Option<f64>,
    /// Virtual time measured.
    pub(crate) seconds: Option<f64>,
}

/// Sets each cost against that with the fewest connections of the same variant.
pub(crate) fn compare(results: &mut [ScaleResult]) {
    let few = |variant: &str| {
        let of_variant = results.iter().filter(|result| result.variant == variant);
        of_variant.min_by_key(|result| result.connections).and_then(|result| result.cpu_ns_per_segment)
    };
    let over: Vec<Option<f64>> = results
        .iter()
        .map(|result| Some(result.cpu_ns_per_segment? / few(result.variant).filter(|cost| *cost > 0.0)?))
        .collect();
    results.iter_mut().zip(over).for_each(|(result, over)| result.cost_over_one = over);
}

/// The tables: memory, then cost.
pub(crate) fn tables(results: &[ScaleResult]) -> String {
    let mut memory = Vec::new();
    let mut cost = Vec::new();
    for result in results {
        let name = format!("{} x {}", result.connections, result.variant);
        let size = |value: f64| format!("{:.0} B", value.max(0.0));
        memory.push(vec![
            name.clone(),
            size(result.bytes_per_connection),
            format!("{:.1}", result.blocks_per_connection),
            size(result.resident_bytes_per_connection),
            bytes((result.bytes_per_connection.max(0.0) * 2.0 * result.connections as f64) as u64),
        ]);
        let (Some(nanos), Some((least, most))) =
            (result.cpu_ns_per_segment, result.cpu_ns_per_segment_spread)
        else {
            continue;
        };
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.0}"));
        cost.push(vec![
            name,
            format!("{nanos:.0} ns"),
            format!("{least:.0} to {most:.0}"),
            result.cost_over_one.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            number(result.heartbeats_per_second),
            number(result.heartbeats_per_cpu_second),
            result.core_share.map_or_else(String::new, |share| format!("{:.3} %", share * 100.0)),
        ]);
    }
    let mut text = "\nMemory of one end of an idle connection, by a counting allocator\n".to_owned();
    text += &numbers(&["connections", "an end", "in blocks", "resident", "all ends"], &memory);
    if !cost.is_empty() {
        text += "\nHeartbeats: processor time of a segment, both ends and the switch\n";
        text += &numbers(
            &["connections", "a segment", "parts", "over fewest", "beats/s", "beats/CPU s", "of a core"],
            &cost,
        );
    }
    text
}
