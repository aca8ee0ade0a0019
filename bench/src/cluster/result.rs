//! What the experiment found, for machines and for people.

use serde::Serialize;

use super::heartbeats::Beats;
use crate::table::{bytes, numbers};

/// One design in a cluster of one size.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ClusterResult {
    /// How heartbeats travelled.
    pub(crate) variant: &'static str,
    /// Nodes of the cluster.
    pub(crate) nodes: usize,
    /// Connections that the nodes' stacks have.
    pub(crate) connections: usize,
    /// Those of them that are for heartbeats alone, as the nodes' messengers have them.
    pub(crate) heartbeat_connections: usize,
    /// Frames that the nodes' ports sent, for each second of virtual time.
    pub(crate) packets_per_second: f64,
    /// Their bytes, Ethernet headers included.
    pub(crate) bytes_per_second: f64,
    /// Frames as the switch counts them.
    pub(crate) switched_per_second: f64,
    /// Heartbeats sent while measuring, and those that the peers answered.
    pub(crate) heartbeat: Beats,
    /// Processor time of all nodes, the switch included, measured really.
    pub(crate) cpu_seconds: f64,
    /// The same of one node.
    pub(crate) cpu_seconds_per_node: PerNode,
    /// What the whole cluster had allocated when all its connections were open.
    pub(crate) memory_bytes: u64,
    /// Virtual time measured.
    pub(crate) seconds: f64,
    /// How many times more than out of band in a cluster of this size, where both were run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) over_oob: Option<Over>,
}

/// The nodes beside each other.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct PerNode {
    /// Median.
    pub(crate) p50: f64,
    /// Largest.
    pub(crate) max: f64,
}

/// One design over another in clusters of one size.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Over {
    /// Of the connections.
    pub(crate) connections: f64,
    /// Of the packets per second.
    pub(crate) packets: f64,
    /// Of the bytes per second.
    pub(crate) bytes: f64,
    /// Of the processor time.
    pub(crate) cpu: f64,
}

/// Sets every other design against `oob` where that was run too.
pub(crate) fn compare(results: &mut [ClusterResult]) {
    let over = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    let bases: Vec<ClusterResult> =
        results.iter().filter(|result| result.variant == "oob").cloned().collect();
    for result in results.iter_mut().filter(|result| result.variant != "oob") {
        let base = bases.iter().find(|base| base.nodes == result.nodes);
        result.over_oob = base.map(|base| Over {
            connections: over(result.connections as f64, base.connections as f64),
            packets: over(result.packets_per_second, base.packets_per_second),
            bytes: over(result.bytes_per_second, base.bytes_per_second),
            cpu: over(result.cpu_seconds, base.cpu_seconds),
        });
    }
}

/// The tables: what there is, what it costs, and the ratios.
pub(crate) fn tables(results: &[ClusterResult]) -> String {
    let mut counts = Vec::new();
    let mut costs = Vec::new();
    for result in results {
        let name = format!("{} nodes, {}", result.nodes, result.variant);
        counts.push(vec![
            name.clone(),
            result.connections.to_string(),
            result.heartbeat_connections.to_string(),
            format!("{:.0}", result.packets_per_second),
            format!("{:.0}", result.bytes_per_second),
            result.heartbeat.sent.to_string(),
            result.heartbeat.answered.to_string(),
        ]);
        let per_second = |cpu: f64| format!("{:.2} ms", cpu / result.seconds * 1e3);
        costs.push(vec![
            name,
            format!("{:.3}", result.cpu_seconds),
            per_second(result.cpu_seconds),
            per_second(result.cpu_seconds_per_node.p50),
            per_second(result.cpu_seconds_per_node.max),
            bytes(result.memory_bytes / result.nodes.max(1) as u64),
        ]);
    }
    let mut text = "\nConnections and packets, as the nodes count them (a second is virtual)\n".to_owned();
    text += &numbers(
        &["cluster", "connections", "for heartbeats", "packets/s", "bytes/s", "heartbeats", "answered"],
        &counts,
    );
    text += "\nProcessor time, measured really, and memory\n";
    text += &numbers(
        &["cluster", "CPU s", "CPU a virtual second", "a node: p50", "max", "memory a node"],
        &costs,
    );
    for result in results {
        let Some(Over { connections, packets, bytes, cpu }) = result.over_oob else { continue };
        text += &format!(
            "\n{} nodes, {}/oob: {connections:.1} times the connections, {packets:.1} the packets, {bytes:.1} the \
             bytes, {cpu:.1} the processor time\n",
            result.nodes, result.variant
        );
    }
    text
}
