//! Stories of two engines in virtual time.

mod pair;

mod faults;
mod lifecycle;
mod recovery;
mod windows;
