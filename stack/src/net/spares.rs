//! Memory for what is in flight, passed from connections that have nothing in flight to those that begin to send.

use core::time::Duration;

use crate::tcp::flight::Spare;
use crate::time::Instant;

/// How often it is seen what nobody needed.
const AGE: Duration = Duration::from_secs(10);
/// So much stays in any case.
const KEPT_MIN: usize = 64;

/// There is as much as ever was in flight at an instant, for connections may all send at once, and then again; but half
/// of what nobody has asked for in a while goes back.
#[derive(Debug, Default)]
pub(super) struct Spares {
    /// The last is the one used last.
    held: Vec<Spare>,
    /// Fewest there were since the last look.
    least: usize,
    look_at: Instant,
}

impl Spares {
    pub(super) fn take(&mut self) -> Option<Spare> {
        let spare = self.held.pop();
        self.least = self.least.min(self.held.len());
        spare
    }

    pub(super) fn give(&mut self, spare: Option<Spare>) {
        self.held.extend(spare);
    }

    /// Asks for the next `count`.
    pub(super) fn prefetch(&self, count: usize) {
        self.held.iter().rev().take(count).for_each(Spare::prefetch);
    }

    /// When [`Self::age`] has something to do.
    pub(super) fn next_look(&self) -> Option<Instant> {
        (self.held.len() > KEPT_MIN).then_some(self.look_at)
    }

    /// Gives back what nobody needed.
    pub(super) fn age(&mut self, now: Instant) {
        if now < self.look_at {
            return;
        }
        let unused = self.least.min(self.held.len().saturating_sub(KEPT_MIN));
        // Those at the beginning have not been used for longest.
        self.held.drain(..unused.div_ceil(2));
        if self.held.capacity() > 4 * self.held.len().max(KEPT_MIN) {
            self.held.shrink_to(2 * self.held.len());
        }
        self.least = self.held.len();
        self.look_at = now + AGE;
    }
}

#[cfg(test)]
mod tests {
    use super::{AGE, KEPT_MIN, Spares};
    use crate::tcp::flight::Flight;
    use crate::time::Instant;

    #[test]
    fn what_nobody_needs_goes_back_and_what_is_needed_stays() {
        let mut spares = Spares::default();
        let mut now = Instant::from_millis(1);
        for _ in 0..1_000 {
            let mut flight = Flight::new();
            flight.payload_mut().append(&[1; 10]);
            flight.acknowledge_to(11, |_| {});
            spares.give(flight.take_spare());
        }
        assert_eq!(spares.held.len(), 1_000);
        for _ in 0..20 {
            spares.age(now);
            let taken: Vec<_> = (0..300).map_while(|_| spares.take()).collect();
            assert_eq!(taken.len(), 300, "what is needed every time stays");
            taken.into_iter().for_each(|spare| spares.give(Some(spare)));
            now += AGE;
        }
        assert!((300..310).contains(&spares.held.len()), "{}", spares.held.len());
        while let Some(at) = spares.next_look() {
            now = now.max(at);
            spares.age(now);
        }
        assert_eq!(spares.held.len(), KEPT_MIN);
    }
}
