//! The trace ring is written to the log when something goes wrong, and only then.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrider_stack::tcp::connection::Config;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::pair::Pair;

const SECOND: Duration = Duration::from_secs(1);

/// What was logged: message and trace of each event of the engine.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(String, String)>>>);

impl Log {
    /// Traces logged with this message.
    fn traces(&self, message: &str) -> Vec<String> {
        let entries = self.0.lock().expect("nobody panics while logging");
        entries.iter().filter(|(text, _)| text == message).map(|(_, trace)| trace.clone()).collect()
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    trace: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "trace" => self.trace = format!("{value:?}"),
            _ => {}
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "outrider::tcp"
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.lock().expect("nobody panics while logging").push((fields.message, fields.trace));
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// A pair that has exchanged something and is idle.
fn conversed(seed: u64) -> Pair {
    let mut pair = Pair::new(seed, Config { user_timeout: 10 * SECOND, ..Config::default() });
    pair.nodes[0].app.total = 3000;
    pair.establish();
    pair.run_until(SECOND, |pair| pair.nodes[1].app.received == 3000);
    pair.run_for(SECOND);
    pair
}

#[test]
fn nothing_is_logged_while_all_is_well() {
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        let mut pair = conversed(1);
        pair.nodes.iter_mut().for_each(|node| node.app.finish = true);
        pair.run_until(10 * SECOND, |pair| pair.closed(0) && pair.closed(1));
    });
    assert!(log.0.lock().expect("free").is_empty());
}

#[test]
fn a_reset_and_a_timeout_show_what_led_to_them() {
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        let mut pair = conversed(2);
        let now = pair.now;
        pair.nodes[0].tcp.as_mut().expect("open").abort(now);
        pair.run_until(SECOND, |pair| pair.closed(1));
    });
    let failed = log.traces("connection failed");
    assert_eq!(failed.len(), 1, "the end that was reset; the other one wanted it");
    assert!(failed[0].lines().count() >= 3, "the segments before it: {}", failed[0]);

    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        let mut pair = conversed(3);
        pair.paths[0].cut = true;
        pair.nodes[0].app.total += 1000;
        pair.run_until(20 * SECOND, |pair| pair.closed(0));
    });
    assert!(log.traces("retransmission timeout").len() >= 3);
    assert_eq!(log.traces("connection failed").len(), 1);
}

#[test]
fn a_panic_shows_the_traces_of_the_connections_it_drops() {
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        let caught = std::panic::catch_unwind(|| {
            let _pair = conversed(4);
            // What an assertion does, without its message on the terminal.
            std::panic::resume_unwind(Box::new("an assertion"));
        });
        assert!(caught.is_err());
    });
    assert_eq!(log.traces("dropped by a panic").len(), 2, "both ends");
}
