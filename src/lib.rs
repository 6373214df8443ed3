//! Knows which of a server's TCP connections are still alive.

pub mod limits;
pub mod liveness;
pub mod sys;
pub mod time;
pub mod wheel;
