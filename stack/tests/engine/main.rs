//! Stories of two engines in virtual time.

mod pair;

mod congestion;
mod faults;
mod habits;
mod keepalive;
mod lifecycle;
mod path;
mod recovery;
mod windows;
