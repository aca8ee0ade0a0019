//! A small seeded generator for everything that must be repeatable: faults on links, simulators, tests.
//!
//! xoshiro256++ with SplitMix64 to spread the seed, both by David Blackman and Sebastiano Vigna
//! ("Scrambled Linear Pseudorandom Number Generators", ACM TOMS 47(4), 2021; the authors put the algorithms in the
//! public domain). Not for secrets.

/// One step of SplitMix64: turns any seed, also zero, into well mixed bits.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// xoshiro256++. The same seed gives the same numbers on every machine and in every version of this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator for `seed`; any value is fine.
    pub fn new(seed: u64) -> Self {
        let mut spread = seed;
        Rng { state: std::array::from_fn(|_| split_mix(&mut spread)) }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let shifted = b << 17;
        let c = c ^ a;
        let d = d ^ b;
        self.state = [a ^ d, b ^ c, c ^ shifted, d.rotate_left(45)];
        result
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// A number below `bound`, which must not be zero. The bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below zero");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True with probability `probability`; never for zero or less (and not-a-number), always for one or more.
    pub fn chance(&mut self, probability: f64) -> bool {
        const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
        ((self.next_u64() >> 11) as f64) * UNIT < probability
    }

    /// Fills `bytes` with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }

    /// A generator of its own, seeded from this one, so that two users do not disturb each other's sequence.
    pub fn fork(&mut self) -> Rng {
        Rng::new(self.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_numbers_are_those_of_the_published_algorithm() {
        // The state 1, 2, 3, 4 and its first outputs, worked out by hand from the reference description:
        // rotl(1 + 4, 23) + 1, and so on.
        let mut rng = Rng { state: [1, 2, 3, 4] };
        assert_eq!(rng.next_u64(), (5_u64 << 23) + 1);
        assert_eq!(rng.state, [7, 0, 262_146, 6_u64.rotate_left(45)]);
    }

    #[test]
    fn same_seed_same_numbers_and_forks_differ() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        assert!((0..100).all(|_| a.next_u64() == b.next_u64()));
        let (mut c, mut d) = (a.fork(), a.fork());
        assert_ne!(c.next_u64(), d.next_u64());
        assert_ne!(Rng::new(0).next_u64(), Rng::new(1).next_u64());
    }

    #[test]
    fn chance_keeps_its_word_at_the_edges_and_roughly_between() {
        let mut rng = Rng::new(1);
        assert!((0..1000).all(|_| !rng.chance(0.0) && rng.chance(1.0) && !rng.chance(f64::NAN)));
        let hits = (0..100_000).filter(|_| rng.chance(0.25)).count();
        assert!((24_000..26_000).contains(&hits), "{hits} of 100000 at 25 %");
    }

    #[test]
    fn below_stays_below_and_fill_fills_odd_lengths() {
        let mut rng = Rng::new(3);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[rng.below(7) as usize] = true;
        }
        assert_eq!(seen, [true; 7]);
        let mut bytes = [0_u8; 13];
        rng.fill(&mut bytes);
        assert_ne!(bytes[8..], [0; 5]);
    }
}
