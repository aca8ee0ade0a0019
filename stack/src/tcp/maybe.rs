//! Optional values that take no more memory than the value: a connection has many, and is one of many.

use core::ops::{Deref, DerefMut};
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

impl Absent for u32 {
    /// Nor does a count of round trips in practice: it would be none for the time of one.
    const ABSENT: u32 = u32::MAX;
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

/// A [`Duration`] in four bytes, of nanoseconds. Longer ones count as 4.29 s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShortSpan(u32);

impl ShortSpan {
    pub(crate) const ZERO: Self = ShortSpan(0);

    pub(crate) fn get(self) -> Duration {
        Duration::from_nanos(u64::from(self.0))
    }
}

impl From<Duration> for ShortSpan {
    fn from(duration: Duration) -> Self {
        ShortSpan(u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX))
    }
}

/// Bytes in flight, or a bound of them, in four bytes.
///
/// TCP cannot have more than 2^30 bytes in flight (RFC 7323 section 2.3), so that a bound of four times as much, or
/// more, is none: it is read as `u64::MAX`, which stands for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlightBytes(u32);

impl FlightBytes {
    pub(crate) const ZERO: Self = FlightBytes(0);
    pub(crate) const UNBOUNDED: Self = FlightBytes(u32::MAX);

    pub(crate) fn get(self) -> u64 {
        if self == Self::UNBOUNDED { u64::MAX } else { u64::from(self.0) }
    }

    /// These, or `most` if they are more.
    pub(crate) fn at_most(self, most: u32) -> u32 {
        self.0.min(most)
    }

    /// What is left without `bytes`; no bound stays none.
    pub(crate) fn without(self, bytes: usize) -> Self {
        if self == Self::UNBOUNDED { self } else { FlightBytes(self.0.saturating_sub(bytes as u32)) }
    }
}

impl From<u64> for FlightBytes {
    fn from(bytes: u64) -> Self {
        FlightBytes(u32::try_from(bytes).unwrap_or(u32::MAX))
    }
}

/// A part that is made when it is first written to. Until then it reads as [`Unmade::UNMADE`], and takes a pointer.
#[derive(Debug)]
pub(crate) struct Lazily<T>(Option<Box<T>>);

/// What a part is that was not made yet.
pub(crate) trait Unmade: Sized + 'static {
    /// See the trait.
    const UNMADE: &'static Self;
}

impl<T> Lazily<T> {
    pub(crate) const fn unmade() -> Self {
        Lazily(None)
    }

    /// The part, to be changed if it was made.
    pub(crate) fn made_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }
}

impl<T: Unmade> Deref for Lazily<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::UNMADE)
    }
}

impl<T: Unmade + Clone> DerefMut for Lazily<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_with(|| Box::new(T::UNMADE.clone()))
    }
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

    #[test]
    fn what_does_not_fit_four_bytes_is_the_most_that_does() {
        assert_eq!(ShortSpan::from(Duration::from_millis(3_000)).get(), Duration::from_millis(3_000));
        assert_eq!(ShortSpan::from(Duration::MAX).get(), Duration::from_nanos(u64::from(u32::MAX)));
        assert_eq!(FlightBytes::from(1 << 30).get(), 1 << 30);
        assert_eq!(FlightBytes::from(1 << 32), FlightBytes::UNBOUNDED);
        assert_eq!(FlightBytes::UNBOUNDED.get(), u64::MAX);
        assert_eq!(FlightBytes::from(10).without(11), FlightBytes::ZERO);
        assert_eq!(FlightBytes::UNBOUNDED.without(10), FlightBytes::UNBOUNDED);
        assert_eq!((FlightBytes::from(10).at_most(7), FlightBytes::UNBOUNDED.at_most(7)), (7, 7));
    }

    impl Unmade for [u8; 3] {
        const UNMADE: &'static Self = &[7; 3];
    }

    #[test]
    fn a_part_is_made_when_it_is_written_to() {
        let mut part = Lazily::<[u8; 3]>::unmade();
        assert_eq!(*part, [7; 3]);
        assert!(part.made_mut().is_none());
        part[1] = 8;
        assert_eq!(*part, [7, 8, 7]);
        assert!(part.made_mut().is_some());
        assert_eq!(size_of::<Lazily<[u8; 3]>>(), size_of::<usize>());
    }
}
