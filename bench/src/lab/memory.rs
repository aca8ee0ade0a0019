//! The in-process cable in real time.

use outrider_drivers::memory::{LinkConfig, cable};

use super::Lab;
use crate::error::BenchError;
use crate::under_load::Point;

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
        ..LinkConfig::default()
    };
    let (a, b) = cable(config.clone(), config, seed);
    Lab::new(a, b, ())
}
