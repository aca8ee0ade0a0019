//! Progress for people at a terminal; silence in a pipe.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often a bar of steps shows that it is alive.
const TICK: Duration = Duration::from_millis(250);

/// A line at the bottom of the terminal that says what is going on, and lines above it that stay. Both go to
/// standard error, and only if that is a terminal.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Begins, with `seconds` of work ahead.
    pub(crate) fn new(total: Duration) -> Self {
        let bar = ProgressBar::new(u64::try_from(total.as_millis()).unwrap_or(u64::MAX));
        let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}");
        bar.set_style(style.expect("the template is a constant and valid"));
        Progress(bar)
    }

    /// Begins, with so many steps ahead that take no foreseeable time.
    pub(crate) fn of_steps(steps: usize) -> Self {
        let bar = ProgressBar::new(steps as u64);
        let style = ProgressStyle::with_template("{spinner} {pos} of {len}  {elapsed}  {msg}");
        bar.set_style(style.expect("the template is a constant and valid"));
        bar.enable_steady_tick(TICK);
        Progress(bar)
    }

    /// One of the steps is done.
    pub(crate) fn step(&self) {
        self.0.inc(1);
    }

    /// Takes the line away while `write` writes to the terminal.
    pub(crate) fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }

    /// What is going on now.
    pub(crate) fn set(&self, text: impl Into<String>) {
        self.0.set_message(text.into());
    }

    /// `time` more of the work is done.
    pub(crate) fn advance(&self, time: Duration) {
        self.0.inc(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: &str) {
        self.0.println(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
