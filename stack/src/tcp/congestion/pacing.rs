//! Pacing of a controller that has a window and no model of the path's rate.

use core::time::Duration;

/// Pacing rate over window/srtt, in percent.
const SLOW_START_PERCENT: u128 = 200;
const AVOIDANCE_PERCENT: u128 = 120;

/// Bytes per second at which `window` leaves, so that it does not reach a shallow port as one burst: twice
/// window/srtt in slow start, 1.2 times afterwards. At least one.
pub(super) fn window_rate(window: u64, smoothed_rtt: Duration, in_slow_start: bool) -> u64 {
    let percent = if in_slow_start { SLOW_START_PERCENT } else { AVOIDANCE_PERCENT };
    let per_second = u128::from(window) * percent * 10_000_000 / smoothed_rtt.as_nanos().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX).max(1)
}
