//! `scale` measures memory and cost of connections that have the heartbeats they should have.

mod common;

use common::{json, run};
use serde_json::Value;

fn number(result: &Value, key: &str) -> f64 {
    result[key].as_f64().unwrap_or_else(|| panic!("{key}: {result:#}"))
}

#[test]
fn each_point_has_its_memory_and_as_many_heartbeats_as_the_others() {
    let report = json(&run("scale --connections 1,200 --heartbeats 2000 --json -"));
    assert_eq!((&report["experiment"], &report["link"]), (&"scale".into(), &"memory".into()));
    let results = report["results"].as_array().expect("a list");
    let points: Vec<(&str, u64)> = results
        .iter()
        .map(|result| {
            let variant = result["variant"].as_str().expect("a name");
            (variant, result["connections"].as_u64().expect("a count"))
        })
        .collect();
    let expected = ["engine", "session", "messenger"].map(|variant| [(variant, 1), (variant, 200)]);
    assert_eq!(points, expected.as_flattened());
    for result in results {
        assert!(number(result, "bytes_per_connection") > 500.0, "{result:#}");
        assert!(number(result, "blocks_per_connection") >= 1.0, "{result:#}");
        if result["variant"] == "engine" {
            assert!(result["cpu_ns_per_segment"].is_null() && result["heartbeats"].is_null(), "{result:#}");
            continue;
        }
        let beats = number(result, "heartbeats");
        let connections = number(result, "connections");
        assert!((beats - 2000.0).abs() <= connections, "{result:#}");
        // Each goes there and is echoed; acknowledgements come on top of that.
        assert!((2.0..=4.0).contains(&(number(result, "segments") / beats)), "{result:#}");
        assert!((number(result, "heartbeats_per_second") / connections - 1.0).abs() < 0.11, "{result:#}");
        for key in
            ["cpu_ns_per_segment", "cpu_seconds", "heartbeats_per_cpu_second", "core_share", "cost_over_one"]
        {
            assert!(number(result, key) > 0.0, "{key}: {result:#}");
        }
        let [least, most] = [0, 1].map(|index| result["cpu_ns_per_segment_spread"][index].as_f64());
        assert!(least.is_some() && least <= most, "{result:#}");
    }
    // What a messenger holds of a connection includes the session's, and that the engine's.
    let of_many = |index: usize| number(&results[2 * index + 1], "bytes_per_connection");
    assert!(of_many(0) < of_many(1) && of_many(1) < of_many(2), "{report:#}");
}
