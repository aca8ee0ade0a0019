//! What `top` shows: two samples of a statistics segment, as a table of 80 columns.

mod board;
mod choice;
mod rows;
mod sample;
mod screen;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use board::Board;
pub(crate) use choice::{Filter, Sort};
pub(crate) use sample::Sample;
pub(crate) use screen::Screen;
pub(crate) use view::View;
