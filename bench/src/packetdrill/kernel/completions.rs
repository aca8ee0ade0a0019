//! Notices that a writer may have its buffer back (`MSG_ZEROCOPY`), in the socket's error queue.
//!
//! Nothing is copied or not copied here: Linux too copies what goes through a tunnel device, and says so.

use std::collections::VecDeque;

use super::calls::Stop;
use crate::packetdrill::language::{Expression, constant};

/// Pieces of a vector that one buffer takes without copying (`MAX_SKB_FRAGS`).
pub(super) const PIECES_MAX: usize = 17;
/// Notices kept, at most: later ones are lost, as where memory is short.
const QUEUE_MAX: usize = 4096;

/// Writes that wait for their acknowledgement, and the notices of those that have it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Completions {
    next: u32,
    /// Stream offset after each write, and its number.
    waiting: VecDeque<(u64, u32)>,
    /// First and last number of consecutive writes.
    notices: VecDeque<(u32, u32)>,
    /// How many writes were completed.
    pub(crate) completed: u64,
}

impl Completions {
    /// A write has put bytes up to `end` into the stream.
    pub(crate) fn begin(&mut self, end: u64) {
        self.waiting.push_back((end, self.next));
        self.next = self.next.wrapping_add(1);
    }

    /// Everything before `offset` is acknowledged.
    pub(crate) fn acknowledge_to(&mut self, offset: u64) {
        while let Some((_, number)) = self.waiting.front().copied().filter(|(end, _)| *end <= offset) {
            self.waiting.pop_front();
            self.completed += 1;
            let full = self.notices.len() >= QUEUE_MAX;
            match self.notices.back_mut() {
                Some(last) if last.1.wrapping_add(1) == number => last.1 = number,
                _ if full => {}
                _ => self.notices.push_back((number, number)),
            }
        }
    }

    /// Whether there is a notice to be fetched.
    pub(crate) fn has_notice(&self) -> bool {
        !self.notices.is_empty()
    }

    /// The first notice.
    pub(crate) fn take(&mut self) -> Option<(u32, u32)> {
        self.notices.pop_front()
    }
}

/// Compares a notice with what `recvmsg` of a script expects.
pub(super) fn check_notice(header: &Expression, (first, last): (u32, u32)) -> Result<(), Stop> {
    let found = [
        ("ee_errno", Some(0)),
        ("ee_origin", constant("SO_EE_ORIGIN_ZEROCOPY")),
        ("ee_type", Some(0)),
        ("ee_code", constant("SO_EE_CODE_ZEROCOPY_COPIED")),
        ("ee_info", Some(i64::from(first))),
        ("ee_data", Some(i64::from(last))),
    ];
    let wrong = |expected: &Expression| {
        let message = format!("recvmsg tells of the writes {first} to {last} (copied), expected {expected}");
        Err(Stop::Wrong(message))
    };
    let flags = header.field("msg_flags").and_then(Expression::value);
    if flags.is_some_and(|flags| Some(flags) != constant("MSG_ERRQUEUE")) {
        return wrong(header);
    }
    let items = match header.field("msg_control") {
        None | Some(Expression::Ellipsis) => return Ok(()),
        Some(Expression::List(items)) => items,
        Some(other) => return wrong(other),
    };
    let [item] = items.as_slice() else { return wrong(header) };
    let field = |name: &str| item.field(name).and_then(Expression::value);
    let data = item.field("cmsg_data").ok_or_else(|| super::calls::unknown(item))?;
    let kind = field("cmsg_level") == constant("CMSG_LEVEL_IP")
        && field("cmsg_type") == constant("CMSG_TYPE_RECVERR");
    let told = found.iter().all(|(name, value)| data.field(name).is_none_or(|field| field.value() == *value));
    if kind && told { Ok(()) } else { wrong(item) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_writes_make_one_notice_until_it_is_fetched() {
        let mut completions = Completions::default();
        [101, 201, 301].into_iter().for_each(|end| completions.begin(end));
        completions.acknowledge_to(100);
        assert!(!completions.has_notice(), "the last byte of the first write is still out");
        completions.acknowledge_to(201);
        assert_eq!(completions.take(), Some((0, 1)));
        assert_eq!(completions.take(), None);
        completions.acknowledge_to(999);
        assert_eq!((completions.take(), completions.completed), (Some((2, 2)), 3));
    }
}
