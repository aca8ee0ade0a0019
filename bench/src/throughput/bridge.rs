//! stub being written
use std::time::Duration;
use clap::ValueEnum;
use outrider_stack::tcp::congestion::Algorithm;
use super::result::ThroughputResult;
use crate::error::BenchError;
use crate::progress::Progress;
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KernelCongestion { Cubic, Bbr }
impl KernelCongestion { pub(crate) fn name(self) -> &'static str { match self { Self::Cubic => "cubic", Self::Bbr => "bbr" } } }
pub(crate) struct Plan { pub(crate) rate_bits_per_second: u64, pub(crate) queue_bytes: u64, pub(crate) losses: Vec<f64>, pub(crate) congestion: Algorithm, pub(crate) peer_congestion: Vec<KernelCongestion>, pub(crate) length: Duration, pub(crate) seed: u64 }
impl Plan { pub(crate) fn duration(&self) -> Duration { self.length } }
pub(crate) fn run(_plan: &Plan, _progress: &Progress) -> Result<Vec<ThroughputResult>, BenchError> { Err(BenchError::failed("x")) }
