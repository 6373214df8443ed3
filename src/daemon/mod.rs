//! The daemon: what `deadpeer run` adds to the judgement.
//!
//! - [`voice`]: what the daemon's [sink](crate::sink) says, and each ring's way to it;
//! - [`jsonl`]: events for programs, one JSON object a line (`docs/EVENTS.md`);
//! - [`human`]: events for people, one sentence a line;
//! - [`latency_log`]: histograms for operators, interval by interval;
//! - [`counters`]: how many peers there are, for the status line.

pub mod counters;
pub mod human;
pub mod jsonl;
pub mod latency_log;
pub mod voice;
