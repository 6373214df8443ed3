//! The events of `deadpeer run`, for programs and for people.
//!
//! - `event`: the events between the first line and the last one;
//! - `death`: `died`, its proof and its sentence;
//! - `record`: the first line, `listening`, and the last one, `summary`.

mod death;
mod event;
mod record;

pub use event::{TrackerEncoder, TrackerStream};
pub use record::{Closing, Listening};

#[cfg(test)]
mod tests;
