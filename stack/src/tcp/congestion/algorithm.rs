//! The choice of a controller, by name.

use core::fmt;
use core::str::FromStr;

use super::CongestionControl;
use super::bbr::Bbr;
use super::cubic::Cubic;
use super::dctcp::Dctcp;
use super::reno::Reno;

/// Which controller a connection uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Algorithm {
    /// CUBIC (RFC 9438) with HyStart++ (RFC 9406).
    Cubic,
    /// BBR (draft-ietf-ccwg-bbr).
    #[default]
    Bbr,
    /// DCTCP (RFC 8257): for fabrics whose switches mark; brings ECN with it.
    Dctcp,
    /// Reno (RFC 5681). Not among [`Self::ALL`], so no option names it: for comparison with stacks that use it.
    Reno,
}

impl Algorithm {
    /// Every algorithm to choose from, in the order in which help texts name them.
    pub const ALL: &'static [Algorithm] = &[Algorithm::Bbr, Algorithm::Cubic, Algorithm::Dctcp];

    /// Name as options and reports spell it; [`FromStr`] reads those of [`Self::ALL`] back.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Cubic => "cubic",
            Algorithm::Bbr => "bbr",
            Algorithm::Dctcp => "dctcp",
            Algorithm::Reno => "reno",
        }
    }

    /// A controller for a new connection whose segments carry `segment_size` bytes and whose first flight is
    /// `initial_window_segments` of them (RFC 6928: 10). Both are taken as 1 if they are 0. `seed` decides whatever
    /// the controller randomises; the same seed gives the same answers to the same calls.
    pub fn build(
        self,
        segment_size: u64,
        initial_window_segments: u32,
        seed: u64,
    ) -> Box<dyn CongestionControl> {
        match self {
            Algorithm::Cubic => Box::new(Cubic::new(segment_size, initial_window_segments)),
            Algorithm::Bbr => Box::new(Bbr::new(segment_size, initial_window_segments, seed)),
            Algorithm::Dctcp => Box::new(Dctcp::new(segment_size, initial_window_segments)),
            Algorithm::Reno => Box::new(Reno::new(segment_size, initial_window_segments)),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is not one of [`Algorithm::ALL`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown congestion control algorithm `{given}`: use one of {}", names())]
pub struct ParseAlgorithmError {
    /// What was given.
    pub given: String,
}

fn names() -> String {
    Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Algorithm {
    type Err = ParseAlgorithmError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Algorithm::ALL
            .iter()
            .copied()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| ParseAlgorithmError { given: name.to_owned() })
    }
}
