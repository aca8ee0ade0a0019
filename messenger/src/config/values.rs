//! Values that TOML has no type for: sizes, times, names. Each says what it takes when it is given something else.

use core::fmt;
use core::marker::PhantomData;
use core::str::FromStr;
use core::time::Duration;
use std::net::IpAddr;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use crate::link::Policy;

/// A number of bytes: `65536`, or `"64 KiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

const SIZE_EXPECTED: &str = "a number of bytes, such as 65536 or \"64 KiB\" (KiB, MiB, GiB)";

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl Visitor<'_> for Seen {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(SIZE_EXPECTED)
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Size, E> {
                let bytes = u64::try_from(value);
                bytes.map(Size).map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(|()| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

impl FromStr for Size {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, unit) = number_and_unit(text);
        let shift = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(()),
        };
        let number: u64 = number.parse().map_err(|_| ())?;
        number.checked_mul(1 << shift).map(Size).ok_or(())
    }
}

impl Size {
    /// As the builder takes it.
    pub(super) fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A length of time: `"200 ms"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl FromStr for Span {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, unit) = number_and_unit(text);
        let nanos_per_unit = match unit {
            "ns" => 1.0,
            "us" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "min" => 60e9,
            "h" => 3600e9,
            _ => return Err(()),
        };
        let number: f64 = number.parse().map_err(|_| ())?;
        let seconds = number * nanos_per_unit / 1e9;
        Duration::try_from_secs_f64(seconds).map(Span).map_err(|_| ())
    }
}

impl Text for Span {
    const EXPECTED: &'static str = "a time such as \"200 ms\" (ns, us, ms, s, min, h)";
}

/// A time, or `"never"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit(pub(super) Option<Duration>);

impl FromStr for Limit {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "never" { Ok(Limit(None)) } else { text.parse().map(|Span(time)| Limit(Some(time))) }
    }
}

impl Text for Limit {
    const EXPECTED: &'static str = "a time such as \"15 min\" (ns, us, ms, s, min, h), or \"never\"";
}

impl FromStr for NamedPolicy {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let found = Policy::ALL.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, policy)| NamedPolicy(policy)).ok_or(())
    }
}

/// One of the seven policies, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NamedPolicy(pub(super) Policy);

impl Text for NamedPolicy {
    const EXPECTED: &'static str = "lossy_client, lossless_client, stateless_server, stateless_registered_server, \
                                    stateful_server, lossless_peer or lossless_peer_reuse";
}

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network(pub(super) IpAddr, pub(super) u8);

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = text.split_once('/').ok_or(())?;
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = prefix.parse().map_err(|_| ())?;
        if prefix <= bits_max { Ok(Network(address, prefix)) } else { Err(()) }
    }
}

impl Text for Network {
    const EXPECTED: &'static str = "an address with its prefix length, such as \"10.0.0.3/24\"";
}

/// A probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Chance(pub(super) f64);

impl<'de> Deserialize<'de> for Chance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        if (0.0..=1.0).contains(&value) {
            return Ok(Chance(value));
        }
        Err(D::Error::invalid_value(Unexpected::Float(value), &"a probability from 0.0 to 1.0"))
    }
}

/// A value that is written as text.
pub(super) trait Text: FromStr {
    /// What text that may be.
    const EXPECTED: &'static str;
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: Text> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Reads a [`Text`]; for `deserialize_with`, and below for types of this module.
pub(super) fn text<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_str(TextVisitor(PhantomData))
}

macro_rules! deserialize_as_text {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                text(deserializer)
            }
        }
    )*};
}
deserialize_as_text!(Span, Limit, NamedPolicy, Network, super::Named, super::Controller);

/// `"64 KiB"` and `"64KiB"`: the number and what follows it.
fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}
