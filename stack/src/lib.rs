//! Userspace TCP/IP that pulls: the messenger is asked for bytes only when a segment may leave now.
//!
//! Contract of this crate:
//! - [`tcp`] is the engine: sans-IO, deterministic; `now` and seeds are arguments; no thread, no clock, no global.
//! - [`net`] puts many connections on one [`outrider_drivers::port::Port`]: flow table, neighbours, slow path, listeners.
//! - [`shard`] is the thread that owns one port queue and every connection on it; other threads reach it by commands
//!   that they leave in its [`mailbox`].
//! - [`stream`] gives ordinary byte-stream sockets on top, for applications that are not the messenger.
//! - Every queue is bounded; every refusal is a typed error or a counter; no input from the wire panics.

#![forbid(unsafe_code)]

pub mod endpoint;
mod growth;
pub mod mailbox;
pub mod net;
pub mod shard;
pub mod stream;
pub mod tcp;
pub mod wheel;

pub use outrider_drivers::{port, time};
