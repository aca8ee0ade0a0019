//! The messenger over kernel sockets.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod stories;
#[path = "world/kernel.rs"]
mod world;
