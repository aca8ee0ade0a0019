//! Points in time as every layer below `bench` takes them: an argument, never a reading.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

/// A point in time: nanoseconds since an epoch that whoever supplies `now` chooses.
///
/// In real time it is `CLOCK_MONOTONIC` (see [`MonotonicClock`]), which all processes of one host share, so that
/// departure times in heartbeats can be compared across processes. In virtual time it starts at [`Instant::ZERO`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The epoch.
    pub const ZERO: Instant = Instant(0);
    /// Later than anything that happens.
    pub const FAR_FUTURE: Instant = Instant(u64::MAX);

    /// The instant `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Instant(nanos)
    }

    /// The instant `micros` microseconds after the epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Instant(micros * 1_000)
    }

    /// The instant `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Instant(millis * 1_000_000)
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// Time passed since `earlier`, zero if `earlier` is in fact later (a clock may jump back).
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The nanoseconds of a duration, saturating. Not by way of the 128 bits that [`Duration::as_nanos`] has: every segment
/// adds and compares a dozen times.
const fn nanos_of(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos() as u64)
}

impl Add<Duration> for Instant {
    type Output = Instant;
    /// Saturates at [`Instant::FAR_FUTURE`].
    fn add(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_add(nanos_of(rhs)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    /// Saturates at [`Instant::ZERO`].
    fn sub(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_sub(nanos_of(rhs)))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    /// Same as [`Instant::since`].
    fn sub(self, rhs: Instant) -> Duration {
        self.since(rhs)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// Where a run loop gets its `now` from.
pub trait Clock: Send + Sync {
    /// The present instant; never goes back.
    fn now(&self) -> Instant;
}

/// `CLOCK_MONOTONIC`, shared by all processes of the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    fn now(&self) -> Instant {
        Instant(read_clock(libc::CLOCK_MONOTONIC))
    }
}

/// A clock that stands still until its owner sets it: virtual time.
#[derive(Debug, Default)]
pub struct VirtualClock(AtomicU64);

impl VirtualClock {
    /// It is `now` from here on.
    pub fn set(&self, now: Instant) {
        self.0.store(now.as_nanos(), Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// Processor time the calling thread has used since it started.
pub fn thread_cpu_time() -> Duration {
    Duration::from_nanos(read_clock(libc::CLOCK_THREAD_CPUTIME_ID))
}

/// Processor time all threads of this process have used since it started.
pub fn process_cpu_time() -> Duration {
    Duration::from_nanos(read_clock(libc::CLOCK_PROCESS_CPUTIME_ID))
}

/// Nanoseconds on one of the clocks that exist on every Linux.
fn read_clock(clock: libc::clockid_t) -> u64 {
    let mut reading = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `reading` is a valid, writable timespec for the duration of the call, and the callers name clocks that
    // exist on every Linux, so the call cannot fail.
    let status = unsafe { libc::clock_gettime(clock, &mut reading) };
    assert_eq!(status, 0, "clock_gettime cannot fail for a clock that every Linux has");
    reading.tv_sec as u64 * 1_000_000_000 + reading.tv_nsec as u64
}
