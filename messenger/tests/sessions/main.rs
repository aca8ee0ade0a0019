//! Whole messengers in virtual time: what connections survive, what they tell, and what they cost.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod cluster;
mod driven;
mod lossless;
#[path = "../outcomes/mod.rs"]
mod outcomes;
mod policies;
mod preemption;
mod stress;
