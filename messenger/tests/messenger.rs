//! The messenger over Outrider's own TCP.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod stories;
#[path = "world/userspace.rs"]
mod world;
