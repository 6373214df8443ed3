//! The stream of events: what `deadpeer run` and `deadpeer proxy` write.
//!
//! - [`sink`]: the queue between the loops and the output, and the thread that writes;
//! - [`encoder`]: the encoder of both services, and its filter;
//! - [`body`]: the fields of an event for programs, or its sentence for people;
//! - [`json`]: the envelope of lines for programs (`docs/EVENTS.md`);
//! - [`human`]: the layout of lines for people, and the status line;
//! - [`start`]: what the first lines of both services have;
//! - [`tracker`], [`proxy`]: each service's events: their fields and their sentences;
//! - [`counters`]: the counts of the status line.
//!
//! The fields and the sentence of an event stand in one file, so that a new event changes one file here.
//!
//! # Example
//!
//! ```
//! use deadpeer::events::encoder::{Filter, Format};
//! use deadpeer::events::human::Screen;
//! use deadpeer::events::tracker::{TrackerEncoder, TrackerStream};
//! use deadpeer::liveness::{Event, EventKind};
//! use deadpeer::time::{Instant, WallClock};
//! use deadpeer::tracking::LocalAddresses;
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! let held = Duration::from_millis(1_234);
//! let stall = Event { at: Instant::from_nanos(5_000_000), subject: None, kind: EventKind::Stall { held } };
//! for (format, line) in [
//!     (
//!         Format::JsonLines,
//!         concat!(
//!             r#"{"event":"stall","seq":0,"thread":0,"held_ms":1234,"mono_ns":5000000,"#,
//!             r#""time":"1970-01-01T00:00:00.005000Z"}"#,
//!         ),
//!     ),
//!     (
//!         Format::Human { colour: false, screen: Screen::None },
//!         "00:00:00.005Z  stall        our own loop was held up for 1.234 s; \
//!          every deadline is put off by as much (thread 0)",
//!     ),
//! ] {
//!     let stream = TrackerStream::new(Arc::new(LocalAddresses::new()));
//!     let mut encoder = TrackerEncoder::new(stream, format, Filter::default());
//!     encoder.set_clock(WallClock::fixed(0));
//!     let mut out = Vec::new();
//!     encoder.event(0, &stall, &mut out);
//!     assert_eq!(String::from_utf8(out).unwrap(), format!("{line}\n"));
//! }
//! ```

pub mod body;
pub mod counters;
pub mod encoder;
pub mod human;
pub mod json;
pub mod proxy;
pub mod sink;
pub mod start;
pub mod tracker;

/// The name and the version of the program.
pub(crate) const PROGRAM: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests;
