//! The bodies of the fuzz targets: plain functions of bytes. `stack/tests/fuzz_bodies.rs` and
//! `messenger/tests/fuzz_bodies.rs` include the same files and run them over seeded inputs, so that every test run
//! exercises them without a fuzzer.

#![forbid(unsafe_code)]

pub mod chunks;
pub mod engine;
pub mod frames;
pub mod input;
pub mod wire;
