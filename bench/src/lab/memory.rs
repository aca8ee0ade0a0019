//! The in-process cable in real time.

use outrider_drivers::memory::{LinkConfig, cable};
use outrider_stack::tcp::congestion::Algorithm;

use super::Lab;
use crate::error::BenchError;
use crate::under_load::Point;

/// Queue above which frames are marked for DCTCP: 20 full frames, the usual threshold at 1 Gbit/s.
const MARK_BYTES: usize = 20 * 1514;

/// Nothing but a queue that holds no frame is impossible here.
pub(super) fn check(point: &Point) -> Result<(), BenchError> {
    let frame_bytes = (LinkConfig::default().mtu + 14) as u64;
    if point.queue.0 < frame_bytes {
        return Err(BenchError::usage(format!(
            "--queue {} holds no frame; give {frame_bytes}B at least",
            point.queue
        )));
    }
    Ok(())
}

/// A cable that is alike both ways.
pub(super) fn build(point: &Point, seed: u64) -> Lab {
    let config = LinkConfig {
        rate_bits_per_second: point.rate.0,
        delay: point.delay.0,
        queue_bytes: usize::try_from(point.queue.0).unwrap_or(usize::MAX),
        loss: point.loss.0,
        ecn_mark_bytes: (point.congestion == Algorithm::Dctcp).then_some(MARK_BYTES),
        ..LinkConfig::default()
    };
    let (a, b) = cable(config.clone(), config, seed);
    Lab::new(a, b, ())
}
