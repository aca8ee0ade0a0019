//! The body of the fuzz target `chunks`, without a fuzzer: seeded and bounded.

#[path = "../../fuzz/src/bounded.rs"]
mod bounded;
#[path = "../../fuzz/src/chunks.rs"]
mod chunks;
#[path = "../../fuzz/src/input.rs"]
mod input;

#[test]
fn any_stream_at_any_division_is_decoded_alike_or_refused_alike() {
    bounded::run(50_000, &chunks::examples(), chunks::run);
}
