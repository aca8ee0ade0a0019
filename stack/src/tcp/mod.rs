//! The TCP engine (RFC 9293), sans-IO. Start at [`connection::Connection`].
//!
//! One file per concern: `connection` (the API and the state), with input, acknowledgement, output, timeout and
//! handshake beside it; `flight` (what was sent, with its `payload`), `receiver`, `reassembly` and `sack_news` (what arrived, and what is told of it), `recovery` (RACK-TLP,
//! PRR), `rtt`, `rate`, `timers`; `congestion` behind its trait; `source` is the pull interface.

mod ack_delay;
mod config;
pub mod congestion;
pub mod connection;
mod ecn;
mod few;
pub(crate) mod flight;
pub(crate) mod maybe;
mod payload;
mod rate;
mod reassembly;
mod receiver;
mod recovery;
mod ring;
mod rtt;
mod sack_news;
pub mod segment;
pub mod sequence;
pub mod source;
pub mod state;
pub mod statistics;
mod timers;
pub mod trace;
pub mod wire;
