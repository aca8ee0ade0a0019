//! The Internet checksum (RFC 1071) over whole frames, as fast as the processor allows.
//!
//! Compiled twice on x86-64, for any processor and for one with AVX2, and chosen when it runs: a segment of 1460 bytes
//! is summed twice on its way, once at each end, and without this that is a sixth of all the work on it.

/// The one's complement sum of the 16-bit words of `bytes`, in network order and not inverted; an odd last byte counts
/// as if a zero followed. Sums of pieces of even length may be combined by [`fold`].
pub fn sum(bytes: &[u8]) -> u16 {
    if bytes.len() < VECTOR_BYTES_MIN {
        return finish(0, bytes);
    }
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as was just found out; the function has no other requirement.
        return unsafe { sum_avx2(bytes) };
    }
    sum_words(bytes)
}

/// Copies `from` to `to` and returns the [`sum`] of it: one pass over the bytes instead of two.
///
/// # Panics
/// If the two are not equally long.
pub fn copy(to: &mut [u8], from: &[u8]) -> u16 {
    assert_eq!(to.len(), from.len(), "what is copied must fit exactly");
    #[cfg(target_arch = "x86_64")]
    if from.len() >= VECTOR_BYTES_MIN && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as was just found out; the function has no other requirement.
        return unsafe { copy_avx2(to, from) };
    }
    to.copy_from_slice(from);
    sum(from)
}

/// Adds the carries of a sum of 16-bit words back in until none is left (RFC 1071 section 1).
pub fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// Below this the plain code is as fast.
const VECTOR_BYTES_MIN: usize = 128;

/// [`sum_words`], compiled for AVX2: the compiler then adds eight words at a time.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(bytes: &[u8]) -> u16 {
    sum_words(bytes)
}

/// By hand, because the compiler makes two passes of it: one that copies, and one that adds.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn copy_avx2(to: &mut [u8], from: &[u8]) -> u16 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi64, _mm256_and_si256, _mm256_loadu_si256, _mm256_set1_epi64x,
        _mm256_setzero_si256, _mm256_srli_epi64, _mm256_storeu_si256,
    };
    let (blocks, rest) = from.as_chunks::<64>();
    let (rooms, room) = to.as_chunks_mut::<64>();
    let low = _mm256_set1_epi64x(0xffff_ffff);
    let mut sums = [_mm256_setzero_si256(); 4];
    for (room, block) in rooms.iter_mut().zip(blocks) {
        let (source, target) = (block.as_ptr().cast::<__m256i>(), room.as_mut_ptr().cast::<__m256i>());
        // SAFETY: both are 64 bytes long, so two vectors of 32 bytes lie within each; unaligned accesses are meant.
        let (first, second) = unsafe {
            let vectors = (_mm256_loadu_si256(source), _mm256_loadu_si256(source.add(1)));
            _mm256_storeu_si256(target, vectors.0);
            _mm256_storeu_si256(target.add(1), vectors.1);
            vectors
        };
        sums[0] = _mm256_add_epi64(sums[0], _mm256_and_si256(first, low));
        sums[1] = _mm256_add_epi64(sums[1], _mm256_srli_epi64::<32>(first));
        sums[2] = _mm256_add_epi64(sums[2], _mm256_and_si256(second, low));
        sums[3] = _mm256_add_epi64(sums[3], _mm256_srli_epi64::<32>(second));
    }
    let sum = _mm256_add_epi64(_mm256_add_epi64(sums[0], sums[1]), _mm256_add_epi64(sums[2], sums[3]));
    let mut lanes = [0u64; 4];
    // SAFETY: the array is as long as the vector; an unaligned access is meant.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast::<__m256i>(), sum) };
    room.copy_from_slice(rest);
    finish(lanes.iter().sum(), rest)
}

/// Adds 32-bit words in the order of the machine (RFC 1071 section 2, B) into independent 64-bit sums, which cannot
/// overflow below 2^32 words each.
#[inline(always)]
fn sum_words(bytes: &[u8]) -> u16 {
    const LANES: usize = 16;
    let (blocks, rest) = bytes.as_chunks::<{ 4 * LANES }>();
    let mut sums = [0u64; LANES];
    for block in blocks {
        let words = block.as_chunks::<4>().0;
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum += u64::from(u32::from_ne_bytes(*word));
        }
    }
    finish(sums.iter().sum(), rest)
}

/// Adds the last bytes to the sum of the 32-bit words before them.
#[inline(always)]
fn finish(mut total: u64, bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_ne_bytes(*word);
        total += (word >> 32) + (word & 0xffff_ffff);
    }
    let (words, rest) = rest.as_chunks::<2>();
    for word in words {
        total += u64::from(u16::from_ne_bytes(*word));
    }
    if let [last] = rest {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u16::from_be(fold(total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// The definition, word by word.
    fn plain(bytes: &[u8]) -> u16 {
        let words = bytes.chunks(2).map(|pair| {
            let low = pair.get(1).copied().unwrap_or(0);
            u64::from(u16::from_be_bytes([pair[0], low]))
        });
        let mut sum: u64 = words.sum();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u16
    }

    #[test]
    fn every_length_and_alignment_gives_the_sum_by_definition() {
        let mut rng = Rng::new(1);
        let bytes: Vec<u8> = (0..2_100).map(|_| rng.next_u64() as u8).collect();
        for start in 0..5 {
            for end in start..bytes.len() {
                let part = &bytes[start..end];
                assert_eq!(sum(part), plain(part), "{start}..{end}");
                let mut room = vec![0; part.len()];
                assert_eq!(copy(&mut room, part), plain(part), "{start}..{end}");
                assert!(room == part, "{start}..{end}");
            }
        }
    }

    #[test]
    fn carries_are_added_back_at_the_extremes() {
        for length in [0, 1, 2, 63, 64, 1_460, 65_535] {
            let bytes = vec![0xff; length];
            assert_eq!(sum(&bytes), plain(&bytes), "{length}");
            assert_eq!(sum_words(&bytes), plain(&bytes), "{length}");
        }
        assert_eq!(fold(0), 0);
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0x1_0000), 1);
    }
}
