//! What `top` shows: two samples of a statistics segment, as a table of 80 columns.

mod sample;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use sample::Sample;
pub(crate) use view::View;
