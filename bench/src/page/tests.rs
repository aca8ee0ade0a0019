//! The page from results of every experiment.

use super::*;

fn run(file: &str, text: &str) -> Loaded {
    Loaded::parse(file, text).expect("the sample is a result")
}

fn heartbeat(variant: &str, p50: f64, p99: f64) -> String {
    format!(
        r#"{{"variant":"{variant}","rate_bps":1000000000,"goodput_bps":9.1e8,"link_utilisation":0.97,
            "heartbeat":{{"sent":9,"received":9,"one_way_us":{{"p50":{p50},"p99":{p99}}}}}}}"#
    )
}

fn samples() -> Vec<Loaded> {
    let oob = format!(
        r#"{{"experiment":"oob","link":"memory","parameters":{{"seed":1}},"host":{{"cpus":2}},"results":[{},{}],
            "ratios":[{{"of":"fifo/oob","one_way_p50":280.0}}]}}"#,
        heartbeat("oob", 120.0, 900.0),
        heartbeat("fifo", 32_000.0, 39_000.0)
    );
    let rest = [
        (
            "truth.json",
            r#"{"experiment":"truth","results":[
            {"variant":"oob","event":"consumer stopped","verdict":"consumer stalled","verdict_after_us":19000,"answered":9,"sent":9},
            {"variant":"separate","event":"consumer stopped","verdict":null,"verdict_after_us":null,"answered":9,"sent":9}]}"#,
        ),
        (
            "throughput.json",
            r#"{"experiment":"throughput","link":"memory","results":[
            {"variant":"outrider","loss":0,"goodput_bps":9.5e9},{"variant":"outrider","loss":0.01,"goodput_bps":8.2e9},
            {"variant":"smoltcp","loss":0,"goodput_bps":9.6e9},{"variant":"smoltcp","loss":0.01,"goodput_bps":0.0}]}"#,
        ),
        (
            "scale.json",
            r#"{"experiment":"scale","results":[
            {"variant":"oob","connections":1,"cpu_ns_per_segment":600,"bytes_per_connection":9000},
            {"variant":"oob","connections":100000,"cpu_ns_per_segment":800,"bytes_per_connection":1900}]}"#,
        ),
        (
            "cluster.json",
            r#"{"experiment":"cluster","results":[
            {"variant":"separate","nodes":6,"connections":75,"packets_per_second":600,"bytes_per_second":60000,"cpu_seconds":0.5},
            {"variant":"oob","nodes":6,"connections":15,"packets_per_second":150,"bytes_per_second":15000,"cpu_seconds":0.12}]}"#,
        ),
        ("serve.json", r#"{"experiment":"serve","link":"tap:or0","results":[{"sessions":1}]}"#),
    ];
    let mut runs = vec![run("oob.json", &oob)];
    runs.extend(rest.map(|(file, text)| run(file, text)));
    runs
}

#[test]
fn a_page_of_every_experiment_has_its_charts_and_needs_nothing_else() {
    let html = page(&samples()).unwrap();
    assert_eq!(html.matches("<svg").count(), 2 + 1 + 1 + 2 + 3, "charts by experiment");
    for text in [
        "Heartbeat delay by design",
        "consumer stopped: time until it is told",
        "consumer stalled after 19.00 ms",
        "no verdict",
        "Goodput by loss",
        "Memory of a connection",
        "tap:or0",
        "fifo/oob",
    ] {
        assert!(html.contains(text), "{text}");
    }
    // Self-contained: nothing is fetched. (The name space of SVG is a name.)
    let without_names = html.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!without_names.contains(outside), "{outside}");
    }
}

#[test]
fn the_same_results_make_the_same_page() {
    assert_eq!(page(&samples()).unwrap(), page(&samples()).unwrap());
}

#[test]
fn what_is_no_result_is_no_run() {
    for text in ["", "[]", "{}", r#"{"experiment":"oob"}"#, r#"{"experiment":1,"results":[]}"#] {
        assert!(Loaded::parse("x.json", text).is_none(), "{text}");
    }
    assert!(page(&[run("x.json", r#"{"experiment":"oob","results":[]}"#)]).unwrap().contains("x.json"));
}
