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
    assert_eq!(html.matches("<svg").count(), 2 + 1 + 1 + 2 + 4, "charts by experiment");
    for text in [
        "Heartbeat delay by design",
        "What is said after something has happened",
        "19 ms consumer stalled",
        "all is well, to the end",
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

/// Elements of HTML that have no end.
const VOID: [&str; 2] = ["meta", "link"];

/// Checks that every element that begins ends, in order, and that every attribute has its quotes.
fn assert_well_formed(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html.strip_prefix("<!DOCTYPE html>").expect("a page says what it is");
    while let Some(begin) = rest.find('<') {
        let text = &rest[..begin];
        assert!(!text.contains('>'), "a lone bracket in: {text}");
        let end = begin + rest[begin..].find('>').expect("every tag ends");
        let tag = &rest[begin + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "in {tag}");
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in {tag}");
        let name = tag.split([' ', '\n', '/']).next().unwrap_or_default();
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{tag}");
        if name == "style" {
            let end = rest.find("</style>").expect("the style sheet ends");
            rest = &rest[end + "</style>".len()..];
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never ended: {open:?}");
    for (at, _) in html.match_indices('&') {
        let entity = html[at + 1..].split(';').next().unwrap_or_default();
        assert!(entity.len() < 6 && !entity.contains(' '), "a lone ampersand: &{entity}");
    }
}

#[test]
fn every_element_of_the_page_ends() {
    assert_well_formed(&page(&samples()).unwrap());
}

/// What is written in a drawing.
fn texts(svg: &str) -> Vec<String> {
    let texts = svg.split("<text").skip(1).filter_map(|text| text.split_once('>'));
    texts.map(|(_, text)| text.split("</text>").next().unwrap_or_default().trim().to_owned()).collect()
}

#[test]
fn every_chart_has_a_title_a_legend_and_axes_with_units() {
    let html = page(&samples()).unwrap();
    let charts: Vec<&str> =
        html.split("<svg").skip(1).filter_map(|chart| chart.split("</svg>").next()).collect();
    for chart in &charts {
        let texts = texts(chart);
        let title = texts.first().expect("it says something");
        assert!(title.len() > 5 && chart.contains(&format!("aria-label=\"{title}\"")), "{texts:?}");
        let has = |wanted: &[&str]| texts.iter().any(|text| wanted.iter().any(|unit| text.contains(unit)));
        let units =
            ["(us", "(ms", "(ns)", "(s)", "(bit/s)", "(bytes)", "bytes/s", "packets/s", "connections"];
        assert!(has(&units), "no unit: {texts:?}");
        assert!(has(&["median", "all is well"]), "no legend: {texts:?}");
        assert!(has(&["oob", "outrider"]), "no variant is named: {texts:?}");
    }
    let runs = r#"{"experiment":"oob","results":[{"variant":"oob","goodput_bps":2e8,"runs":{"goodput_bps":[1e8,2e8,3e8]},
        "spread":{"goodput_bps":1.0}}]}"#;
    let html = page(&[run("oob.json", runs)]).unwrap();
    assert!(
        html.contains("thin line: the runs") && html.contains("(\u{b1}50\u{a0}%)"),
        "the spread is shown: {html}"
    );
}

/// The width of the drawing, and of each text where it begins or ends and how many letters it has.
fn extents(svg: &str) -> (f64, Vec<(f64, bool, String)>) {
    let attribute = |text: &str, name: &str| {
        let rest = text.split_once(&format!(" {name}=\""))?.1;
        rest.split('"').next().map(str::to_owned)
    };
    let number = |text: &str, name: &str| attribute(text, name).and_then(|number| number.parse().ok());
    let words = svg.split("<text").skip(1).filter_map(|text| {
        let (tag, rest) = text.split_once('>')?;
        let is_turned = attribute(tag, "transform").is_some();
        let anchor = attribute(tag, "text-anchor")?;
        let words = rest.split("</text>").next()?.trim().to_owned();
        (!is_turned && anchor != "middle").then_some((number(tag, "x")?, anchor == "end", words))
    });
    (number(svg, "width").expect("a drawing has a width"), words.collect())
}

#[test]
fn what_is_written_in_a_chart_ends_before_the_chart() {
    let slow = format!(
        r#"{{"experiment":"oob","link":"memory","results":[{},{}]}}"#,
        heartbeat("oob", 120.0, 2_830.0),
        heartbeat("separate over the kernel", 422_580.0, 450_630.0)
    );
    let html = page(&[samples(), vec![run("oob-slow.json", &slow)]].concat()).unwrap();
    let mut seen = 0;
    for chart in html.split("<svg").skip(1).filter_map(|chart| chart.split("</svg>").next()) {
        let (width, words) = extents(chart);
        for (x, ends, text) in words {
            // Seven units a letter are more than what a browser takes for most.
            let length = 7.0 * text.chars().count() as f64;
            let (from, to) = if ends { (x - length, x) } else { (x, x + length) };
            // A row's label may be cut at the left: it has no more room than that.
            assert!(to <= width && (ends || from >= 0.0), "{text:?} from {from} to {to} of {width}");
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} texts");
}

#[test]
fn nothing_at_all_is_drawn_at_the_bottom_of_the_axis() {
    let html = page(&samples()).unwrap();
    let chart = html.split("<svg").find(|chart| chart.contains("Goodput by loss")).expect("it is there");
    // smoltcp came to a stand: an axis without a zero would show it beside those that run.
    assert!(texts(chart).contains(&"0".to_owned()), "{:?}", texts(chart));
}

#[test]
fn experiments_of_a_kind_are_told_apart_and_the_plain_one_comes_first() {
    let folder = std::env::temp_dir().join(format!("outrider-page-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let result = |loss: f64| format!(r#"{{"variant":"oob","loss":{loss},"goodput_bps":1e8}}"#);
    let write = |name: &str, losses: &[f64]| {
        let results = losses.iter().map(|loss| result(*loss)).collect::<Vec<_>>().join(",");
        let text = format!(r#"{{"experiment":"oob","link":"memory","results":[{results}]}}"#);
        std::fs::write(folder.join(name), text).unwrap();
    };
    write("oob-loss.json", &[0.0, 0.01]);
    write("oob.json", &[0.0]);
    let loaded = load(&folder);
    std::fs::remove_dir_all(&folder).unwrap();
    let html = page(&loaded.unwrap().0).unwrap();
    let title = |text: &str| html.find(&format!("<h2>{text}</h2>")).expect(text);
    assert!(title("Heartbeats under load (memory)") < title("Heartbeats under load (memory), by loss"));
}

#[test]
fn what_was_interrupted_or_refused_or_left_out_is_told() {
    let text = r#"{"experiment":"oob","interrupted":true,"results":[],"ratios":[{"of":"fifo/oob","one_way_p50":null,
        "goodput":0.5,"bounds":{"one_way_p50":[0.9,1.2],"goodput":[0.4,0.6]},"inconclusive":{"one_way_p50":"they overlap"}}]}"#;
    let all =
        r#"{"experiment":"all","results":[{"variant":"oob-tap","status":"skipped","reason":"needs root"}]}"#;
    let html = page(&[run("oob.json", text), run("all.json", all)]).unwrap();
    for wanted in ["Interrupted", "inconclusive (0.90 to 1.20)", "0.50 (0.40 to 0.60)", "needs root"] {
        assert!(html.contains(wanted), "{wanted}: {html}");
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
