//! Waiting for something to have happened.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// Not everything that is waited for tells of itself: then it is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Rung by whatever a case may wait for.
#[derive(Clone, Default)]
pub(super) struct Events(Arc<(Mutex<u64>, Condvar)>);

impl Events {
    pub(super) fn ring(&self) {
        *self.0.0.lock().unwrap() += 1;
        self.0.1.notify_all();
    }

    /// Waits until something holds. Gives up after [`PATIENCE`], and then says what `found` tells.
    pub(super) fn until(&self, what: &str, mut holds: impl FnMut() -> bool, found: impl FnOnce() -> String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = *self.0.0.lock().unwrap();
            if holds() {
                return;
            }
            assert!(Instant::now() < deadline, "waited in vain: {what}: {}", found());
            let count = self.0.0.lock().unwrap();
            drop(self.0.1.wait_timeout_while(count, LOOK_AGAIN, |count| *count == before).unwrap());
        }
    }
}
