//! The bodies of the fuzz targets `wire`, `engine` and `frames`, without a fuzzer: seeded and bounded.

#[path = "../../fuzz/src/bounded.rs"]
mod bounded;
#[path = "../../fuzz/src/engine.rs"]
mod engine;
#[path = "../../fuzz/src/frames.rs"]
mod frames;
#[path = "../../fuzz/src/input.rs"]
mod input;
#[path = "../../fuzz/src/wire.rs"]
mod wire;

#[test]
fn any_bytes_are_a_segment_or_an_error_and_a_segment_is_written_as_it_was_read() {
    bounded::run(50_000, &wire::examples(), wire::run);
}

#[test]
fn no_sequence_of_events_panics_the_engine_or_breaks_its_promises() {
    bounded::run(5_000, &engine::examples(), engine::run);
}

#[test]
fn no_frame_panics_a_stack() {
    bounded::run(2_000, &frames::examples(), frames::run);
}
