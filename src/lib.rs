//! Knows which of a server's TCP connections are still alive.

pub mod bench;
pub mod cli;
pub mod client;
pub mod doctor;
pub mod driver;
pub mod events;
pub mod frame;
pub mod hosted;
pub mod http;
pub mod limits;
pub mod liveness;
pub mod measure;
mod partial_frame;
pub mod proxy;
pub mod sys;
pub mod time;
pub mod watch;
pub mod wheel;

/// The short programs of the document are compiled; the long ones are run by `tests/embedding`.
#[cfg(doctest)]
#[doc = include_str!("../docs/EMBEDDING.md")]
struct Embedding;
