//! Fields that are next to nothing while there is nothing in them: most connections are idle most of the time.

use core::ops::{Deref, DerefMut};
use core::slice;
use core::time::Duration;
use std::collections::VecDeque;

use outrider_stack::time::Instant;

/// An instant or none, in eight bytes. None is [`Instant::FAR_FUTURE`], which never comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(Instant);

impl Moment {
    /// None.
    pub(crate) const NEVER: Moment = Moment(Instant::FAR_FUTURE);

    /// The instant, if there is one.
    #[inline]
    pub(crate) fn get(self) -> Option<Instant> {
        Some(self.0).filter(|at| *at != Instant::FAR_FUTURE)
    }

    /// Whether there is none.
    #[inline]
    pub(crate) fn is_never(self) -> bool {
        self == Moment::NEVER
    }

    /// Whether it has come.
    #[inline]
    pub(crate) fn is_due(self, now: Instant) -> bool {
        !self.is_never() && self.0 <= now
    }

    /// The sooner of this and `other`.
    #[inline]
    pub(crate) fn or_sooner(self, other: impl Into<Moment>) -> Moment {
        Moment(self.0.min(other.into().0))
    }
}

impl Default for Moment {
    fn default() -> Self {
        Moment::NEVER
    }
}

impl From<Instant> for Moment {
    #[inline]
    fn from(at: Instant) -> Self {
        Moment(at)
    }
}

impl From<Option<Instant>> for Moment {
    fn from(at: Option<Instant>) -> Self {
        Moment(at.unwrap_or(Instant::FAR_FUTURE))
    }
}

/// A time that has been measured or none, in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(u64);

impl Span {
    /// None.
    pub(crate) const NONE: Span = Span(u64::MAX);

    /// The time, if there is one.
    pub(crate) fn get(self) -> Option<Duration> {
        (self != Span::NONE).then(|| Duration::from_nanos(self.0))
    }
}

impl From<Duration> for Span {
    /// A time of 584 years and more is taken for one nanosecond less.
    fn from(time: Duration) -> Self {
        Span(nanos_of(time).min(u64::MAX - 1))
    }
}

/// Nanoseconds of a time, saturating, and not by way of the 128 bits of [`Duration::as_nanos`].
#[inline]
pub(crate) const fn nanos_of(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos() as u64)
}

/// First in, first out. Eight bytes while it is empty: its memory is taken with the first entry and given back with the
/// last, in one piece where there never was a second.
pub(crate) struct SparseQueue<T>(Option<Box<Entries<T>>>);

struct Entries<T> {
    /// The one that the queue began with, until it is taken.
    first: Option<T>,
    rest: VecDeque<T>,
}

impl<T> Default for SparseQueue<T> {
    fn default() -> Self {
        SparseQueue(None)
    }
}

impl<T> SparseQueue<T> {
    pub(crate) fn push_back(&mut self, entry: T) {
        match &mut self.0 {
            Some(entries) => entries.rest.push_back(entry),
            None => self.0 = Some(Box::new(Entries { first: Some(entry), rest: VecDeque::new() })),
        }
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let entries = self.0.as_mut()?;
        let entry = entries.first.take().or_else(|| entries.rest.pop_front());
        if entries.rest.is_empty() {
            self.0 = None;
        }
        entry
    }

    pub(crate) fn front(&self) -> Option<&T> {
        let entries = self.0.as_ref()?;
        entries.first.as_ref().or_else(|| entries.rest.front())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flat_map(|entries| entries.first.iter().chain(&entries.rest))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |entries| usize::from(entries.first.is_some()) + entries.rest.len())
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }
}

/// A list that most often has one entry, which needs no memory of its own then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Few<T> {
    One(T),
    /// Any other number.
    Many(Vec<T>),
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Few::Many(Vec::new())
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Few::One(entry) => slice::from_ref(entry),
            Few::Many(entries) => entries,
        }
    }
}

impl<T> DerefMut for Few<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Few::One(entry) => slice::from_mut(entry),
            Few::Many(entries) => entries,
        }
    }
}

impl<T> Few<T> {
    pub(crate) fn push(&mut self, entry: T) {
        *self = match core::mem::take(self) {
            Few::One(first) => Few::Many(vec![first, entry]),
            Few::Many(entries) if entries.is_empty() => Few::One(entry),
            Few::Many(mut entries) => {
                entries.push(entry);
                Few::Many(entries)
            }
        };
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        match self {
            Few::One(entry) if keep(entry) => {}
            Few::One(_) => *self = Few::default(),
            Few::Many(entries) => entries.retain(keep),
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Few::default();
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

    #[test]
    fn a_span_is_a_time_or_none() {
        for time in [Duration::ZERO, Duration::from_nanos(1_234_567_890_123)] {
            assert_eq!(Span::from(time).get(), Some(time));
            assert_eq!(nanos_of(time), time.as_nanos() as u64);
        }
        assert_eq!(Span::NONE.get(), None);
        assert!(Span::from(Duration::MAX).get().is_some());
        assert_eq!(size_of::<Span>(), 8);
    }

    #[test]
    fn a_queue_that_is_refilled_before_it_is_empty_keeps_its_order() {
        let mut queue = SparseQueue::default();
        let mut taken = Vec::new();
        for entry in 0..10 {
            queue.push_back(entry);
            if entry % 3 == 1 {
                taken.extend(queue.pop_front());
                assert_eq!(queue.front(), queue.iter().next());
                assert_eq!(queue.iter().count(), queue.len());
            }
        }
        taken.extend(core::iter::from_fn(|| queue.pop_front()));
        assert_eq!(taken, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_few_are_a_slice_whatever_their_number() {
        let mut few = Few::default();
        assert!(few.is_empty());
        for number in 1..=3 {
            few.push(Box::new(number));
            assert_eq!(few.len(), number);
            few.iter_mut().for_each(|entry| **entry += 10);
        }
        assert_eq!(few.iter().map(|entry| **entry).collect::<Vec<_>>(), [31, 22, 13]);
        few.retain(|entry| **entry != 22);
        assert_eq!(few.iter().map(|entry| **entry).collect::<Vec<_>>(), [31, 13]);
        few.clear();
        few.push(Box::new(1));
        assert!(matches!(few, Few::One(_)));
        few.retain(|_| false);
        assert!(few.is_empty());
    }
}
