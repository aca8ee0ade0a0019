//! A messenger on kernel sockets that dials one on Outrider's own TCP, across a TAP device.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod stories;
#[path = "world/mixed.rs"]
mod world;

/// Whether it is the end on kernel sockets that dials.
const KERNEL_DIALS: bool = true;
