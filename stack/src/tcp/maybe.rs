//! Optional values that take no more memory than the value: a connection has many, and is one of many.

use core::time::Duration;

use crate::time::Instant;

/// A type with a value that stands for none: one that never occurs.
pub(crate) trait Absent: Copy + PartialEq {
    /// That value.
    const ABSENT: Self;
}

impl Absent for u64 {
    /// Neither a stream offset nor a number of nanoseconds gets there.
    const ABSENT: u64 = u64::MAX;
}

impl Absent for Instant {
    const ABSENT: Instant = Instant::FAR_FUTURE;
}

/// A [`Duration`] in eight bytes, of nanoseconds; some 580 years at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span(u64);

impl Span {
    pub(crate) fn get(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        let nanos = duration.as_secs().saturating_mul(1_000_000_000);
        Span(nanos.saturating_add(u64::from(duration.subsec_nanos())).min(u64::MAX - 1))
    }
}

impl Absent for Span {
    const ABSENT: Span = Span(u64::MAX);
}

/// An [`Option`] without a discriminant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Maybe<T>(T);

impl<T: Absent> Maybe<T> {
    pub(crate) const NONE: Self = Maybe(T::ABSENT);

    pub(crate) fn some(value: T) -> Self {
        Maybe(value)
    }

    pub(crate) fn get(self) -> Option<T> {
        if self.0 == T::ABSENT { None } else { Some(self.0) }
    }

    pub(crate) fn is_none(self) -> bool {
        self.0 == T::ABSENT
    }

    /// What it is, or else `value`, which it then is.
    pub(crate) fn get_or_insert(&mut self, value: T) -> T {
        let value = self.get().unwrap_or(value);
        *self = Maybe(value);
        value
    }

    /// Sets it to `value` and returns what it was.
    pub(crate) fn replace(&mut self, value: T) -> Option<T> {
        core::mem::replace(self, Maybe(value)).get()
    }
}

impl<T: Absent> Default for Maybe<T> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<T: Absent> From<Option<T>> for Maybe<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::NONE, Maybe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_an_option_of_half_the_size() {
        let mut at = Maybe::<Instant>::default();
        assert!(at.is_none() && at.get().is_none());
        assert_eq!(at.replace(Instant::from_millis(1)), None);
        assert_eq!(at.replace(Instant::from_millis(2)), Some(Instant::from_millis(1)));
        assert_eq!(at, Maybe::from(Some(Instant::from_millis(2))));
        assert_eq!(Maybe::<u64>::from(None), Maybe::NONE);
        assert_eq!(Maybe::some(0u64).get(), Some(0));
        let mut number = Maybe::<u64>::default();
        assert_eq!((number.get_or_insert(3), number.get_or_insert(4)), (3, 3));
        assert_eq!(Span::from(Duration::from_micros(5)).get(), Duration::from_micros(5));
        assert!(!Maybe::some(Span::from(Duration::MAX)).is_none());
        assert_eq!(2 * size_of::<Maybe<Instant>>(), size_of::<Option<Instant>>());
    }
}
