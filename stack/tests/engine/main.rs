//! Stories of two engines in virtual time.

mod frames;
mod lending;
mod pair;
mod trouble;

mod congestion;
mod dump;
mod faults;
mod gaps;
mod habits;
mod keepalive;
mod lifecycle;
mod liveness;
mod path;
mod probing;
mod recovery;
mod regressions;
mod storms;
mod super_segments;
mod tail;
mod windows;
