//! Fields that are next to nothing while there is nothing in them: most connections are idle most of the time.

use std::collections::VecDeque;

use outrider_stack::time::Instant;

/// An instant or none, in eight bytes. None is [`Instant::FAR_FUTURE`], which never comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(Instant);

impl Moment {
    /// None.
    pub(crate) const NEVER: Moment = Moment(Instant::FAR_FUTURE);

    /// The instant, if there is one.
    pub(crate) fn get(self) -> Option<Instant> {
        Some(self.0).filter(|at| *at != Instant::FAR_FUTURE)
    }

    /// Whether there is none.
    pub(crate) fn is_never(self) -> bool {
        self == Moment::NEVER
    }

    /// Whether it has come.
    pub(crate) fn is_due(self, now: Instant) -> bool {
        !self.is_never() && self.0 <= now
    }

    /// The sooner of this and `at`.
    pub(crate) fn or_sooner(self, at: Instant) -> Moment {
        Moment(self.0.min(at))
    }
}

impl Default for Moment {
    fn default() -> Self {
        Moment::NEVER
    }
}

impl From<Instant> for Moment {
    fn from(at: Instant) -> Self {
        Moment(at)
    }
}

impl From<Option<Instant>> for Moment {
    fn from(at: Option<Instant>) -> Self {
        Moment(at.unwrap_or(Instant::FAR_FUTURE))
    }
}

/// First in, first out. Eight bytes while it is empty: its memory is taken with the first entry and given back with the
/// last.
#[expect(clippy::box_collection, reason = "eight bytes while it is empty are what it is for")]
pub(crate) struct SparseQueue<T>(Option<Box<VecDeque<T>>>);

impl<T> Default for SparseQueue<T> {
    fn default() -> Self {
        SparseQueue(None)
    }
}

impl<T> SparseQueue<T> {
    pub(crate) fn push_back(&mut self, entry: T) {
        self.0.get_or_insert_default().push_back(entry);
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let queue = self.0.as_mut()?;
        let entry = queue.pop_front();
        if queue.is_empty() {
            self.0 = None;
        }
        entry
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.0.as_ref()?.front()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flat_map(|queue| queue.iter())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_an_instant_or_none() {
        let at = Instant::from_millis(5);
        assert_eq!(Moment::from(at).get(), Some(at));
        assert_eq!(Moment::from(None).get(), None);
        assert!(Moment::from(at).is_due(at) && !Moment::from(at).is_due(Instant::ZERO));
        assert!(!Moment::NEVER.is_due(Instant::FAR_FUTURE));
        assert!(Moment::NEVER.or_sooner(at) == Moment::from(at));
        assert_eq!(size_of::<Moment>(), 8);
    }

    #[test]
    fn a_queue_keeps_its_order_and_no_memory_once_it_is_empty() {
        let mut queue = SparseQueue::default();
        assert!(queue.is_empty() && queue.front().is_none() && queue.pop_front().is_none());
        (0..3).for_each(|entry| queue.push_back(entry));
        assert_eq!((queue.len(), queue.front()), (3, Some(&0)));
        assert_eq!(queue.iter().copied().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!([queue.pop_front(), queue.pop_front(), queue.pop_front()], [Some(0), Some(1), Some(2)]);
        assert!(queue.0.is_none());
        assert_eq!(size_of::<SparseQueue<u64>>(), 8);
    }
}
