//! The events of `deadpeer proxy`, for programs and for people. `docs/HTTP.md` shows one of each line.
//!
//! - `event`: the events between the first line and the last one;
//! - `access`: the lines of the access log;
//! - `record`: the first line, `listening`, and the last one, `summary`.

mod access;
mod event;
mod record;

pub use access::{AccessStream, NoRecord};
pub use event::{ProxyEncoder, ProxyStream};
pub use record::{Closing, Listening};

#[cfg(test)]
mod tests;
