//! A short run without a fuzzer: random inputs, and valid ones with something changed.
#![allow(missing_docs, unreachable_pub)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use outrider_drivers::rng::Rng;

/// Longest random input, bytes.
const LENGTH_MAX: u64 = 600;

fn input(rng: &mut Rng, examples: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; rng.below(LENGTH_MAX) as usize];
    rng.fill(&mut bytes);
    if rng.chance(0.3) {
        return bytes;
    }
    let mut mutated = examples[rng.below(examples.len() as u64) as usize].clone();
    for _ in 0..rng.below(6) {
        let at = rng.below(mutated.len() as u64 + 1) as usize;
        match rng.below(4) {
            0 if at < mutated.len() => mutated[at] = rng.next_u64() as u8,
            1 => mutated.insert(at, rng.next_u64() as u8),
            2 => mutated.truncate(at.max(1)),
            _ => {
                let example = &examples[rng.below(examples.len() as u64) as usize];
                mutated.extend_from_slice(&example[rng.below(example.len() as u64) as usize..]);
            }
        }
    }
    if rng.chance(0.5) {
        mutated.extend_from_slice(&bytes);
    }
    mutated
}

/// Runs `body` for `count` seeds (or for the one in `OUTRIDER_SEED`), and says which one failed.
pub fn run(count: u64, examples: &[Vec<u8>], body: fn(&[u8])) {
    for example in examples {
        body(example);
    }
    let chosen =
        std::env::var("OUTRIDER_SEED").ok().map(|text| text.parse().expect("OUTRIDER_SEED is a number"));
    for seed in chosen.map_or(0..count, |seed: u64| seed..seed + 1) {
        let bytes = input(&mut Rng::new(seed), examples);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&bytes))) {
            eprintln!(
                "failed with seed {seed}; run only this one with OUTRIDER_SEED={seed}; the input: {bytes:?}"
            );
            resume_unwind(panic);
        }
    }
}
