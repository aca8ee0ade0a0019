//! The measuring tool of Outrider.
#![forbid(unsafe_code)]
fn main() {}
