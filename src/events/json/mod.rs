//! Events for programs: JSON Lines, one object a line.

pub mod tracker;
