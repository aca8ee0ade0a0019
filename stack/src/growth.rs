//! Growth of what is kept for every connection.

/// So much more than is needed is asked for at a time, as a divisor.
const MARGIN_DIVISOR: usize = 4;
/// The least margin, items.
const MARGIN_MIN: usize = 16;

/// Lengthens `items` to `length` with `fill`, unless it is that long. A vector left to itself doubles, and on average a
/// quarter of it is then not in use; with a smaller margin each item is moved a few times more while connections open,
/// and the memory is there for good.
pub(crate) fn lengthen<T: Clone>(items: &mut Vec<T>, length: usize, fill: T) {
    if length > items.capacity() {
        items.reserve_exact(length - items.len() + (length / MARGIN_DIVISOR).max(MARGIN_MIN));
    }
    if length > items.len() {
        items.resize(length, fill);
    }
}

#[cfg(test)]
mod tests {
    use super::lengthen;

    #[test]
    fn little_is_asked_for_in_advance_and_not_often() {
        let mut items = Vec::new();
        let mut moves = 0;
        for length in 1..=10_000 {
            let before = items.capacity();
            lengthen(&mut items, length, 7u32);
            assert_eq!((items.len(), items[length - 1]), (length, 7));
            assert!(items.capacity() <= length + length / 4 + 16);
            moves += usize::from(items.capacity() != before);
        }
        assert!(moves < 40, "{moves}");
        lengthen(&mut items, 10, 8);
        assert_eq!(items.len(), 10_000);
    }
}
