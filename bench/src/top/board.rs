//! What the keys of the live view do.

use super::choice::{Filter, Sort};

/// A key, as far as it means anything here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// A letter.
    Letter(char),
    /// The end of what is being written.
    Enter,
    /// Back out of it.
    Escape,
    /// Takes the last letter away.
    Backspace,
    /// So many rows down; up if negative.
    Scroll(isize),
}

/// What the user of the live view has chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Board {
    /// The order.
    pub(crate) sort: Sort,
    /// What is shown.
    pub(crate) filter: Filter,
    /// Rows passed over at the top.
    pub(crate) offset: usize,
    /// Nothing new is shown.
    pub(crate) paused: bool,
    /// A filter that is being written.
    writing: Option<String>,
    /// What was wrong with the last one.
    complaint: Option<String>,
}

/// Longest filter that can be written.
const FILTER_LETTERS_MAX: usize = 60;

impl Board {
    /// The choices of the command line.
    pub(crate) fn new(sort: Sort, filter: Filter) -> Self {
        Board { sort, filter, ..Board::default() }
    }

    /// Does what `key` asks for; false if the view is to end. Of `rows` connections.
    pub(crate) fn press(&mut self, key: Key, rows: usize) -> bool {
        if let Some(text) = &mut self.writing {
            match key {
                Key::Letter(letter) if text.chars().count() < FILTER_LETTERS_MAX => text.push(letter),
                Key::Backspace => drop(text.pop()),
                Key::Enter => self.take_filter(),
                Key::Escape => self.writing = None,
                Key::Letter(_) | Key::Scroll(_) => {}
            }
            return true;
        }
        self.complaint = None;
        match key {
            Key::Letter('q') | Key::Escape => return false,
            Key::Letter('s') => self.sort = self.sort.next(),
            Key::Letter('b') => self.filter.toggle_blocked(),
            Key::Letter('/') => self.writing = Some(self.filter.to_string()),
            Key::Letter('p' | ' ') => self.paused = !self.paused,
            Key::Letter('0') => (self.offset, self.filter) = (0, Filter::default()),
            Key::Scroll(by) => {
                self.offset = self.offset.saturating_add_signed(by).min(rows.saturating_sub(1));
            }
            Key::Letter(_) | Key::Enter | Key::Backspace => {}
        }
        true
    }

    fn take_filter(&mut self) {
        let text = self.writing.take().unwrap_or_default();
        match text.parse() {
            Ok(filter) => (self.filter, self.offset) = (filter, 0),
            Err(complaint) => self.complaint = Some(complaint),
        }
    }

    /// The line at the bottom.
    pub(crate) fn line(&self) -> String {
        if let Some(text) = &self.writing {
            return format!("filter: {text}_   (shard=0 port=7077 blocked cwnd 10.0.0.2)");
        }
        if let Some(complaint) = &self.complaint {
            return complaint.clone();
        }
        let paused = if self.paused { "PAUSED  " } else { "" };
        let filter = if self.filter.is_empty() { "all".to_owned() } else { self.filter.to_string() };
        format!("{paused}s sort: {}  / filter: {filter}  b blocked  p pause  0 all  q quit", self.sort.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(board: &mut Board, keys: &str) -> bool {
        keys.chars().all(|key| board.press(if key == '\n' { Key::Enter } else { Key::Letter(key) }, 10))
    }

    #[test]
    fn keys_sort_and_filter_and_end() {
        let mut board = Board::default();
        assert!(press(&mut board, "s/port=7077 10.0\nb"));
        assert_eq!(
            (board.sort, board.filter.to_string().as_str()),
            (Sort::Occupancy, "port=7077 10.0 blocked")
        );
        assert!(press(&mut board, "b0"), "{board:?}");
        assert!(board.filter.is_empty());
        board.press(Key::Scroll(100), 10);
        assert_eq!(board.offset, 9, "no further than the last row");
        board.press(Key::Scroll(-100), 10);
        assert_eq!(board.offset, 0);
        assert!(!press(&mut board, "q"));
    }

    #[test]
    fn a_letter_of_a_filter_is_no_command_and_a_wrong_filter_is_told() {
        let mut board = Board::default();
        assert!(press(&mut board, "/quiz"));
        assert!(board.line().contains("quiz"));
        assert!(board.press(Key::Escape, 0), "it only ends the writing");
        assert!(board.filter.is_empty());
        assert!(press(&mut board, "/port=x\n"));
        assert!(board.line().contains("'x' is no port") && board.filter.is_empty(), "{}", board.line());
        for letter in "/".chars().chain("y".repeat(200).chars()) {
            board.press(Key::Letter(letter), 0);
        }
        assert!(board.line().len() < 200, "what is written has an end");
    }

    #[test]
    fn every_order_comes_round() {
        let mut sort = Sort::Traffic;
        let names: Vec<&str> = (0..6)
            .map(|_| {
                sort = sort.next();
                sort.name()
            })
            .collect();
        assert_eq!(names, ["occupancy", "heartbeat", "rtt", "retransmits", "blocked", "traffic"]);
    }
}
