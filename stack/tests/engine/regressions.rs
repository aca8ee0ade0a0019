//! What once went wrong, one story each.
