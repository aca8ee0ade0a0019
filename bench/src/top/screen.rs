//! The terminal while the live view has it.

use std::io::{Write, stdout};
use std::time::Duration;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, poll, read};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{cursor, execute, queue};

use super::board::Key;
use crate::error::BenchError;

/// Rows of a page.
const PAGE: isize = 10;
/// Smallest terminal that is drawn on.
const LINES_MIN: u16 = 4;

/// Gives the terminal back when dropped.
#[derive(Debug)]
pub(crate) struct Screen(());

fn unable(error: &std::io::Error) -> BenchError {
    BenchError::failed(format!("cannot use the terminal: {error}; try --once"))
}

impl Screen {
    /// Takes the terminal.
    pub(crate) fn take() -> Result<Self, BenchError> {
        enable_raw_mode().map_err(|error| unable(&error))?;
        let screen = Screen(());
        execute!(stdout(), EnterAlternateScreen, cursor::Hide).map_err(|error| unable(&error))?;
        Ok(screen)
    }

    /// Columns and lines.
    pub(crate) fn size(&self) -> (usize, usize) {
        let (columns, lines) = size().unwrap_or((80, 24));
        (usize::from(columns.max(1)), usize::from(lines.max(LINES_MIN)))
    }

    /// Draws `text`, as much of it as there is room for, and `bottom` in the last line.
    pub(crate) fn draw(&self, text: &str, bottom: &str) -> Result<(), BenchError> {
        let (columns, lines) = self.size();
        let cut = |line: &str| line.chars().take(columns).collect::<String>();
        let mut out = stdout().lock();
        let mut draw = || {
            for (row, line) in (0u16..).zip(text.lines().chain(std::iter::repeat(""))).take(lines - 1) {
                queue!(out, cursor::MoveTo(0, row), Print(cut(line)), Clear(ClearType::UntilNewLine))?;
            }
            let last = u16::try_from(lines - 1).unwrap_or(u16::MAX);
            queue!(
                out,
                cursor::MoveTo(0, last),
                SetAttribute(Attribute::Reverse),
                Print(format!("{:columns$}", cut(bottom))),
                SetAttribute(Attribute::Reset)
            )?;
            out.flush()
        };
        draw().map_err(|error| unable(&error))
    }

    /// The next key, if one comes within `patience`. Ctrl-C is `q`.
    pub(crate) fn key(&self, patience: Duration) -> Result<Option<Key>, BenchError> {
        if !poll(patience).map_err(|error| unable(&error))? {
            return Ok(None);
        }
        match read().map_err(|error| unable(&error))? {
            Event::Key(key) if key.kind != KeyEventKind::Release => Ok(meaning(key)),
            _ => Ok(None),
        }
    }
}

fn meaning(key: KeyEvent) -> Option<Key> {
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Letter('q')),
        KeyCode::Char(letter) => Some(Key::Letter(letter)),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Escape),
        KeyCode::Backspace => Some(Key::Backspace),
        KeyCode::Up => Some(Key::Scroll(-1)),
        KeyCode::Down => Some(Key::Scroll(1)),
        KeyCode::PageUp => Some(Key::Scroll(-PAGE)),
        KeyCode::PageDown => Some(Key::Scroll(PAGE)),
        KeyCode::Home => Some(Key::Scroll(isize::MIN)),
        KeyCode::End => Some(Key::Scroll(isize::MAX)),
        _ => None,
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing is left to be done if the terminal is gone.
        let _ = execute!(stdout(), cursor::Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}
