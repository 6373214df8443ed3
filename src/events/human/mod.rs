//! Events for people: one sentence a line.

pub mod tracker;
