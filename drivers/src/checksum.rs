//! The Internet checksum (RFC 1071) over whole frames, as fast as the processor allows.
//!
//! Written twice on x86-64, for any processor and for one with AVX2, and chosen when it runs: a segment of 1460 bytes
//! is summed twice on its way, once at each end, and without this that is a sixth of all the work on it.

/// The one's complement sum of the 16-bit words of `bytes`, in network order and not inverted; an odd last byte counts
/// as if a zero followed. Sums of pieces of even length may be combined by [`fold`].
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    // Headers are summed where they are looked at, without a call.
    if bytes.len() < VECTOR_BYTES_MIN { finish(0, bytes) } else { sum_long(bytes) }
}

/// [`sum`] of what is worth the vectors.
fn sum_long(bytes: &[u8]) -> u16 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as was just found out; the function has no other requirement.
        return unsafe { sum_avx2(bytes) };
    }
    finish(0, bytes)
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

/// [`copy`] of several pieces, one behind the other.
///
/// # Panics
/// If all together are not as long as `to`.
#[inline]
pub fn copy_all<'a>(to: &mut [u8], from: impl IntoIterator<Item = &'a [u8]>) -> u16 {
    let (mut at, mut total) = (0, 0);
    for piece in from {
        let sum = copy(&mut to[at..at + piece.len()], piece);
        // Behind an odd number of bytes the two of each word have changed places (RFC 1071 section 2, B).
        total += u64::from(if at % 2 == 1 { sum.swap_bytes() } else { sum });
        at += piece.len();
    }
    assert_eq!(at, to.len(), "what is copied must fit exactly");
    fold(total)
}

/// [`copy_all`] where nobody asks for the sum.
///
/// # Panics
/// Likewise.
#[inline]
pub fn gather<'a>(to: &mut [u8], from: impl IntoIterator<Item = &'a [u8]>) {
    let mut at = 0;
    for piece in from {
        to[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    assert_eq!(at, to.len(), "what is copied must fit exactly");
}

/// Adds the carries of a sum of 16-bit words back in until none is left (RFC 1071 section 1).
#[inline]
pub fn fold(sum: u64) -> u16 {
    // Each half is added to the other, so that the upper one gets the sum of both and the carry of the lower.
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// Below this the plain code is as fast.
const VECTOR_BYTES_MIN: usize = 128;

/// Bytes taken at a time; the sums of 32 bits below hold more than this before they overflow.
#[cfg(target_arch = "x86_64")]
const PIECE_BYTES: usize = 1 << 16;

/// [`sum`] with vectors of 32 bytes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(mut bytes: &[u8]) -> u16 {
    let mut total = 0;
    while let Some((piece, rest)) = bytes.split_at_checked(PIECE_BYTES) {
        // SAFETY: the whole of the piece, which is only read.
        total += unsafe { vectors_avx2::<false>(piece.as_ptr(), std::ptr::null_mut(), PIECE_BYTES / VECTOR) };
        bytes = rest;
    }
    let (vectors, rest) = bytes.as_chunks::<VECTOR>();
    // SAFETY: these vectors, which are only read.
    total += unsafe { vectors_avx2::<false>(vectors.as_ptr().cast(), std::ptr::null_mut(), vectors.len()) };
    finish(total, rest)
}

/// [`copy`], likewise. By hand, because the compiler makes two passes of it: one that copies, and one that adds.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn copy_avx2(mut to: &mut [u8], mut from: &[u8]) -> u16 {
    if let (Some(room), Some(last)) = (to.last_chunk_mut::<VECTOR>(), from.last_chunk()) {
        // What is left behind whole vectors, and some of what is in the last of them: of a known length, so no call.
        *room = *last;
    }
    let mut total = 0;
    while from.len() >= PIECE_BYTES {
        let (piece, rest) = from.split_at(PIECE_BYTES);
        let (room, room_rest) = to.split_at_mut(PIECE_BYTES);
        // SAFETY: a piece to read and one to write, in two slices that cannot overlap.
        total += unsafe { vectors_avx2::<true>(piece.as_ptr(), room.as_mut_ptr(), PIECE_BYTES / VECTOR) };
        (to, from) = (room_rest, rest);
    }
    let (vectors, rest) = from.as_chunks::<VECTOR>();
    let room_vectors = to.as_chunks_mut::<VECTOR>().0;
    assert_eq!(vectors.len(), room_vectors.len(), "both are equally long");
    let (source, target) = (vectors.as_ptr().cast(), room_vectors.as_mut_ptr().cast());
    // SAFETY: as many vectors to read as there are to write, in two slices that cannot overlap.
    total += unsafe { vectors_avx2::<true>(source, target, vectors.len()) };
    finish(total, rest)
}

/// Bytes of a vector.
#[cfg(target_arch = "x86_64")]
const VECTOR: usize = 32;
/// Vectors at a time: with fewer, counting them is a third of the work.
#[cfg(target_arch = "x86_64")]
const AT_A_TIME: usize = 8;
/// Sums that do not wait for each other.
#[cfg(target_arch = "x86_64")]
const SUMS: usize = 4;

/// The sum of the 16-bit words of so many vectors, at most [`PIECE_BYTES`], in the order of the machine, and with `COPY`
/// a copy of them at `target`.
///
/// Words are multiplied by one and added in pairs, the cheapest widening addition there is. The instruction takes them
/// as signed, so the sign bit is turned over first, which takes 0x8000 from each word, and given back at the end.
///
/// # Safety
/// `vectors` vectors can be read from `source`, and with `COPY` written to `target`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn vectors_avx2<const COPY: bool>(source: *const u8, target: *mut u8, vectors: usize) -> u64 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi16,
        _mm256_setzero_si256, _mm256_storeu_si256, _mm256_xor_si256,
    };
    let (sign, one) = (_mm256_set1_epi16(i16::MIN), _mm256_set1_epi16(1));
    let add = |sum: &mut __m256i, at: usize| {
        // SAFETY: inside of what the caller promises; an unaligned access is meant.
        let vector = unsafe { _mm256_loadu_si256(source.add(at * VECTOR).cast::<__m256i>()) };
        if COPY {
            // SAFETY: likewise.
            unsafe { _mm256_storeu_si256(target.add(at * VECTOR).cast::<__m256i>(), vector) };
        }
        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_xor_si256(vector, sign), one));
    };
    const { assert!(SUMS == 4 && AT_A_TIME == 8, "what is left over is taken bit by bit") };
    let mut sums = [_mm256_setzero_si256(); SUMS];
    let mut at = 0;
    while at + AT_A_TIME <= vectors {
        for offset in 0..AT_A_TIME {
            add(&mut sums[offset % SUMS], at + offset);
        }
        at += AT_A_TIME;
    }
    // Less than that is left: as many as each bit of the number says, without a loop. Of a loop the compiler makes a call
    // that copies, and vectors of vectors.
    if vectors & 4 != 0 {
        for (offset, sum) in sums.iter_mut().enumerate() {
            add(sum, at + offset);
        }
        at += 4;
    }
    if vectors & 2 != 0 {
        add(&mut sums[0], at);
        add(&mut sums[1], at + 1);
        at += 2;
    }
    if vectors & 1 != 0 {
        add(&mut sums[2], at);
    }
    let sum = _mm256_add_epi32(_mm256_add_epi32(sums[0], sums[1]), _mm256_add_epi32(sums[2], sums[3]));
    let mut lanes = [0i32; 8];
    // SAFETY: the array is as long as the vector; an unaligned access is meant.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast::<__m256i>(), sum) };
    // The words of a piece, 2^15 of them and each below 2^15, fit 32 bits together.
    let signed = i64::from(lanes.iter().sum::<i32>());
    let words = (vectors * VECTOR / 2) as i64;
    (signed + words * 0x8000) as u64
}

/// Adds bytes to a sum of words in the order of the machine (RFC 1071 section 2, B), and ends it. Mostly there are few:
/// a header, or what is left behind whole vectors, so the last of them are taken without a loop.
#[inline]
fn finish(mut total: u64, mut bytes: &[u8]) -> u16 {
    /// The carry is worth one: it is two to the power of 64, and one's complement takes all ones for none.
    fn add(total: &mut u64, word: u64) {
        let (sum, carry) = total.overflowing_add(word);
        *total = sum + u64::from(carry);
    }
    while let Some((words, rest)) = split_words::<4>(bytes) {
        words.iter().for_each(|word| add(&mut total, u64::from_ne_bytes(*word)));
        bytes = rest;
    }
    if let Some((words, rest)) = split_words::<2>(bytes) {
        words.iter().for_each(|word| add(&mut total, u64::from_ne_bytes(*word)));
        bytes = rest;
    }
    if let Some((word, rest)) = bytes.split_first_chunk() {
        add(&mut total, u64::from_ne_bytes(*word));
        bytes = rest;
    }
    if let Some((word, rest)) = bytes.split_first_chunk() {
        add(&mut total, u64::from(u32::from_ne_bytes(*word)));
        bytes = rest;
    }
    if let Some((word, rest)) = bytes.split_first_chunk() {
        add(&mut total, u64::from(u16::from_ne_bytes(*word)));
        bytes = rest;
    }
    if let [last] = bytes {
        add(&mut total, u64::from(u16::from_ne_bytes([*last, 0])));
    }
    u16::from_be(fold(total))
}

/// The first `N` words of 64 bits, and what follows.
fn split_words<const N: usize>(bytes: &[u8]) -> Option<(&[[u8; 8]; N], &[u8])> {
    let (words, rest) = bytes.split_at_checked(8 * N)?;
    Some((words.as_chunks().0.first_chunk()?, rest))
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
    fn pieces_of_any_length_give_the_sum_of_the_whole() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let bytes: Vec<u8> = (0..rng.below(3_000)).map(|_| rng.next_u64() as u8).collect();
            let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(rest.len().min(rng.below(700) as usize));
                pieces.push(piece);
                rest = behind;
            }
            let [mut summed, mut gathered] = [vec![0; bytes.len()], vec![0; bytes.len()]];
            assert_eq!(copy_all(&mut summed, pieces.iter().copied()), plain(&bytes), "seed {seed}");
            gather(&mut gathered, pieces);
            assert!(summed == bytes && gathered == bytes, "seed {seed}");
        }
    }

    #[test]
    fn carries_are_added_back_at_the_extremes() {
        for length in [0, 1, 2, 63, 64, 1_460, 65_535, 200_001] {
            let bytes = vec![0xff; length];
            assert_eq!(sum(&bytes), plain(&bytes), "{length}");
            assert_eq!(finish(0, &bytes), plain(&bytes), "{length}");
        }
        assert_eq!(fold(0), 0);
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0x1_0000), 1);
    }
}
