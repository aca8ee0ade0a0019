//! What is about to be needed is asked for before: memory that is not in the cache is then waited for once, not line by
//! line as each is met.

/// Bytes that the cache fetches at a time.
pub const LINE_BYTES: usize = 64;

/// Asks for the lines of the cache that hold `value`, and does not wait for them. Where the processor has no such
/// instruction that is known here, nothing happens.
#[inline]
pub fn prefetch<T: ?Sized>(value: &T) {
    prefetch_part(value, 0, size_of_val(value));
}

/// [`prefetch`] for `bytes` of `value` from its byte `from` on, as far as it is that long.
#[inline]
pub fn prefetch_part<T: ?Sized>(value: &T, from: usize, bytes: usize) {
    let end = from.saturating_add(bytes).min(size_of_val(value));
    if from >= end {
        return;
    }
    let begin = (&raw const *value).cast::<i8>();
    let first = begin.addr().wrapping_add(from) / LINE_BYTES;
    let last = begin.addr().wrapping_add(end - 1) / LINE_BYTES;
    for line in 0..=last - first {
        prefetch_line(begin.wrapping_add(from + line * LINE_BYTES));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch_line(at: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every processor of this architecture has the instruction (SSE), and it reads nothing that a program could
    // see: at an address that is not mapped it does nothing.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn prefetch_line(_at: *const i8) {}

#[cfg(test)]
mod tests {
    use super::{prefetch, prefetch_part};

    #[test]
    fn any_value_and_any_part_of_it_may_be_asked_for() {
        prefetch(&());
        prefetch("");
        prefetch(&[0u8; 1000][..]);
        prefetch(&Box::new(5u64));
        for (from, bytes) in [(0, 0), (0, usize::MAX), (99, 1), (100, 1), (usize::MAX, usize::MAX)] {
            prefetch_part(&[7u8; 100], from, bytes);
        }
    }
}
