//! The stream of events: what `deadpeer run` and `deadpeer proxy` write.
//!
//! - [`sink`]: the queue between the loops and the output, and the thread that writes;
//! - [`tracker`]: the encoder of a tracker's events, and each loop's way to the sink;
//! - [`proxy`]: the encoder of the proxy's events;
//! - [`json`]: events for programs, one JSON object a line (`docs/EVENTS.md`);
//! - [`human`]: events for people, one sentence a line;
//! - [`counters`]: the counts of the status line.

pub mod counters;
pub mod human;
pub mod json;
pub mod proxy;
pub mod sink;
pub mod tracker;
