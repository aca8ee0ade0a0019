//! Ethernet frames in and out.
//!
//! Contract of this crate:
//! - [`port::Port`] is the one trait: bursts of frames in and out, a doorbell, a readiness descriptor, statistics.
//! - Nothing here knows TCP. A port may drop, delay or reorder frames like any network; it never panics on one.
//! - Time is an argument ([`time::Instant`]); only [`time`] reads clocks, for those who run in real time.
//! - Every queue is bounded, and every frame that is not delivered is counted somewhere in [`port::PortStatistics`].
//! - This is the only crate with `unsafe`; each block says why it is sound.

#![deny(unsafe_op_in_unsafe_fn)]

pub mod afxdp;
pub mod allocation;
pub mod busy_poll;
pub mod cache;
pub mod capture;
pub mod checksum;
pub mod doorbell;
pub mod interface;
pub mod kernel_socket;
pub mod memory;
pub mod netns;
pub mod offload;
pub mod port;
pub mod rng;
pub mod rss;
pub mod segment;
pub mod smoltcp_adapter;
pub mod tap;
pub mod thread;
pub mod time;
pub mod timer;
