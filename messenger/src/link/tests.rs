//! The table of links, fed by hand.
