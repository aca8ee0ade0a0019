//! `cluster` counts what its nodes have and do, and the counts follow from the seed.

mod common;

use common::{json, run};
use serde_json::Value;

/// The result of a design in a cluster of a size.
fn of<'a>(report: &'a Value, nodes: u64, variant: &str) -> &'a Value {
    let results = report["results"].as_array().expect("a list");
    let found = results.iter().find(|result| result["nodes"] == nodes && result["variant"] == variant);
    found.unwrap_or_else(|| panic!("{nodes}, {variant}: {report:#}"))
}

fn number(result: &Value, key: &str) -> f64 {
    result[key].as_f64().unwrap_or_else(|| panic!("{key}: {result:#}"))
}

const LINE: &str = "cluster --nodes 2,6 --interval 100ms --seconds 1 --json -";

#[test]
fn six_nodes_have_75_connections_with_separate_heartbeats_and_15_without() {
    let report = json(&run(LINE));
    assert_eq!((&report["experiment"], &report["link"]), (&"cluster".into(), &"memory".into()));
    assert_eq!(report["results"].as_array().map(Vec::len), Some(4));
    for (nodes, variant, connections, for_heartbeats) in
        [(2, "separate", 5, 4), (2, "oob", 1, 0), (6, "separate", 75, 60), (6, "oob", 15, 0)]
    {
        let result = of(&report, nodes, variant);
        assert_eq!(result["connections"], connections, "{result:#}");
        assert_eq!(result["heartbeat_connections"], for_heartbeats, "{result:#}");
        // Ten rounds: each node to each peer, on both heartbeat connections where there are two.
        let beats = nodes * (nodes - 1) * 10 * if variant == "separate" { 2 } else { 1 };
        assert_eq!(result["heartbeat"]["sent"], beats, "{result:#}");
        let answered = result["heartbeat"]["answered"].as_u64().expect("a count");
        assert!(answered.abs_diff(beats) <= nodes * nodes, "one is on its way on each at most: {result:#}");
        assert!(number(result, "packets_per_second") >= beats as f64, "{result:#}");
        assert_eq!(result["packets_per_second"], result["switched_per_second"], "{result:#}");
        assert!(number(result, "bytes_per_second") > 128.0 * beats as f64, "{result:#}");
        for key in ["cpu_seconds", "memory_bytes", "seconds"] {
            assert!(number(result, key) > 0.0, "{key}: {result:#}");
        }
    }
    let ratio = &of(&report, 6, "separate")["over_oob"];
    assert_eq!(number(ratio, "connections"), 5.0);
    assert!(number(ratio, "packets") > 2.0 && number(ratio, "bytes") > 1.5, "{ratio:#}");
}

#[test]
fn the_same_seed_gives_the_same_counts() {
    let counts = |report: &Value| -> Vec<Value> {
        let results = report["results"].as_array().expect("a list").iter();
        results
            .flat_map(|result| {
                ["connections", "packets_per_second", "bytes_per_second", "heartbeat"]
                    .map(|key| result[key].clone())
            })
            .collect()
    };
    assert_eq!(counts(&json(&run(LINE))), counts(&json(&run(LINE))));
}
