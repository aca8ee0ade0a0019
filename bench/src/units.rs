//! Quantities as people write them on a command line: `1gbit`, `50us`, `1MB`, `64KiB`, `0.1%`.
//!
//! Each is a newtype over the unit the rest of the tool computes in, parsed by `FromStr` and shown by `Display` in
//! the shortest spelling that parses back to the same value.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Bits per second; zero is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) u64);

/// A length of time, to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// A share of one, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share(pub(crate) f64);

/// Why a quantity could not be read; says what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub(crate) struct ParseUnitError(&'static str);

const RATE_UNITS: &[(&str, u64)] =
    &[("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000), ("bit", 1)];
const TIME_UNITS: &[(&str, u64)] = &[("ms", 1_000_000), ("us", 1_000), ("ns", 1), ("s", 1_000_000_000)];
const SIZE_UNITS: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

const RATE_WANTED: &str = "a rate such as 1gbit, 100mbit or unlimited";
const TIME_WANTED: &str = "a time with its unit, such as 50us, 10ms or 2s";
const SIZE_WANTED: &str = "a size such as 1MB, 64KiB or 1500";
const SHARE_WANTED: &str = "a share such as 0.1%, 1% or 0, at most 100%";

/// Splits `text` into number and unit and scales by the unit's factor. A bare number is scaled by `bare`, or refused
/// if there is none.
fn scaled(text: &str, units: &[(&str, u64)], bare: Option<u64>) -> Option<u64> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => bare?,
        unit => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    // Whole numbers stay exact; only a fraction goes through floating point.
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let value = number.parse::<f64>().ok()? * factor as f64;
    (value.is_finite() && value < u64::MAX as f64).then(|| value.round() as u64)
}

/// Shows `value` in the largest unit of `units` that divides it.
fn shown(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fitting =
        units.iter().filter(|(_, factor)| value != 0 && value.is_multiple_of(*factor)).max_by_key(|u| u.1);
    match fitting {
        Some((name, factor)) => write!(f, "{}{name}", value / factor),
        None => write!(f, "{value}{}", units.iter().find(|u| u.1 == 1).map_or("", |u| u.0)),
    }
}

impl FromStr for Rate {
    type Err = ParseUnitError;
    fn from_str(text: &str) -> Result<Self, ParseUnitError> {
        match text {
            "unlimited" | "0" => Ok(Rate(0)),
            text => scaled(text, RATE_UNITS, None).map(Rate).ok_or(ParseUnitError(RATE_WANTED)),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("unlimited") } else { shown(f, self.0, RATE_UNITS) }
    }
}

impl FromStr for Span {
    type Err = ParseUnitError;
    fn from_str(text: &str) -> Result<Self, ParseUnitError> {
        let bare = (text == "0").then_some(1);
        scaled(text, TIME_UNITS, bare)
            .map(|n| Span(Duration::from_nanos(n)))
            .ok_or(ParseUnitError(TIME_WANTED))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(f, u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX), TIME_UNITS)
    }
}

impl FromStr for Size {
    type Err = ParseUnitError;
    fn from_str(text: &str) -> Result<Self, ParseUnitError> {
        scaled(text, SIZE_UNITS, Some(1)).map(Size).ok_or(ParseUnitError(SIZE_WANTED))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(f, self.0, SIZE_UNITS)
    }
}

impl FromStr for Share {
    type Err = ParseUnitError;
    fn from_str(text: &str) -> Result<Self, ParseUnitError> {
        let wanted = ParseUnitError(SHARE_WANTED);
        let value = match text.strip_suffix('%') {
            Some(percent) => percent.parse::<f64>().map_err(|_| wanted)? / 100.0,
            None => text.parse::<f64>().map_err(|_| wanted)?,
        };
        if (0.0..=1.0).contains(&value) { Ok(Share(value)) } else { Err(wanted) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nine digits are more than any loss rate needs and hide that 0.1 % is not exact in binary.
        let percent = format!("{:.9}", self.0 * 100.0);
        let percent = percent.trim_end_matches('0').trim_end_matches('.');
        write!(f, "{percent}%")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_people_write_them() {
        assert_eq!("1gbit".parse(), Ok(Rate(1_000_000_000)));
        assert_eq!("2.5gbit".parse(), Ok(Rate(2_500_000_000)));
        assert_eq!("unlimited".parse(), Ok(Rate(0)));
        assert_eq!("50us".parse(), Ok(Span(Duration::from_micros(50))));
        assert_eq!("0".parse(), Ok(Span(Duration::ZERO)));
        assert_eq!("1.5ms".parse(), Ok(Span(Duration::from_micros(1500))));
        assert_eq!("1MB".parse(), Ok(Size(1_000_000)));
        assert_eq!("64KiB".parse(), Ok(Size(65_536)));
        assert_eq!("1500".parse(), Ok(Size(1500)));
        assert_eq!("0.1%".parse(), Ok(Share(0.001)));
        assert_eq!("0".parse(), Ok(Share(0.0)));
    }

    #[test]
    fn what_is_shown_reads_back_to_the_same_value() {
        for text in ["1gbit", "2500mbit", "unlimited", "7bit"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["50us", "10ms", "2s", "1500us", "3ns"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for text in ["1MB", "64KiB", "1MiB", "7B"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["0.1%", "0%", "1%", "100%", "0.0001%"] {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused_with_an_example_of_what_would_do() {
        for text in ["", "fast", "1", "1gb", "-1gbit", "1 gbit", "99999999999gbit", "1.2.3gbit"] {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
        for text in ["", "10", "10m", "ms", "-1ms"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
        for text in ["", "MB", "1mb", "1e3"] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
        for text in ["", "101%", "-1%", "2", "NaN", "inf", "%"] {
            assert!(text.parse::<Share>().is_err(), "{text:?}");
        }
        assert!("x".parse::<Rate>().unwrap_err().to_string().contains("1gbit"));
    }
}
