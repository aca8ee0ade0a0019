//! The TCP engine (RFC 9293), sans-IO.

pub mod congestion;
pub mod connection;
pub mod segment;
pub mod sequence;
pub mod source;
pub mod wire;
