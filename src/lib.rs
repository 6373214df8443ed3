//! Knows which of a server's TCP connections are still alive.

pub mod bench;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod driver;
pub mod frame;
pub mod limits;
pub mod liveness;
pub mod measure;
mod outbox;
pub mod sys;
pub mod time;
pub mod wheel;
