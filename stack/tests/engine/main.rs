//! Stories of two engines in virtual time.

mod pair;
mod trouble;

mod congestion;
mod faults;
mod habits;
mod keepalive;
mod lifecycle;
mod path;
mod recovery;
mod regressions;
mod storms;
mod super_segments;
mod windows;
