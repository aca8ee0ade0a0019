//! A messenger on Outrider's own TCP that dials one on kernel sockets, across a TAP device.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod stories;
#[path = "world/mixed.rs"]
mod world;

/// Whether it is the end on kernel sockets that dials.
const KERNEL_DIALS: bool = false;
