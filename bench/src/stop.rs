//! Running until someone says stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::error::BenchError;
use crate::node::now;

/// Between looks at whether a signal has come.
const STEP: Duration = Duration::from_millis(50);

/// What the signal handlers raise. One for the process, for signals are sent to processes.
static RAISED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Whether a signal has come since the process began to listen for them.
pub(crate) fn is_raised() -> bool {
    RAISED.get().is_some_and(|raised| raised.load(Ordering::Relaxed))
}

/// Sleeps for `length`.
///
/// # Errors
/// [`BenchError::Interrupted`] as soon as a signal has come.
pub(crate) fn sleep(length: Duration) -> Result<(), BenchError> {
    let end = now() + length;
    loop {
        check()?;
        let left = end - now();
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(STEP));
    }
}

/// For loops that wait by themselves.
///
/// # Errors
/// [`BenchError::Interrupted`] once a signal has come.
pub(crate) fn check() -> Result<(), BenchError> {
    if is_raised() { Err(BenchError::Interrupted) } else { Ok(()) }
}

/// Raised by SIGINT and SIGTERM. A second one ends the process at once.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Begins to listen for signals, if the process does not yet.
    pub(crate) fn on_signals() -> Result<Self, BenchError> {
        if let Some(raised) = RAISED.get() {
            return Ok(Stop(Arc::clone(raised)));
        }
        let raised = Arc::clone(RAISED.get_or_init(Arc::default));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down, and only then raises it.
            signal_hook::flag::register_conditional_default(signal, raised.clone())
                .and_then(|_| signal_hook::flag::register(signal, raised.clone()))
                .map_err(|error| BenchError::failed(format!("cannot listen for signals: {error}")))?;
        }
        Ok(Stop(raised))
    }

    /// Whether a signal has come.
    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits until a signal comes or `length` (if any) has passed, calling `each_second` with the time since the last
    /// call about every second; ends early when that fails.
    pub(crate) fn wait(
        &self,
        length: Option<Duration>,
        each_second: &mut dyn FnMut(Duration) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let began = now();
        let mut told = began;
        while !self.is_raised() {
            let left = length.map_or(STEP, |length| length.saturating_sub(now() - began));
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(STEP));
            let passed = now() - told;
            if passed >= Duration::from_secs(1) {
                told = now();
                each_second(passed)?;
            }
        }
        Ok(())
    }
}
