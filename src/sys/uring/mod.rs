//! io_uring: one ring of one thread.
//!
//! [`Ring`] sets the ring up with the best flags that the kernel has, queues operations, submits and
//! waits in one system call, and hands completions out as plain values. [`Token`] names what a
//! completion belongs to. [`Ring::lend_buffers`] lends the kernel memory for bytes that matter.
//! The loop knows it only as an [`Engine`](super::engine::Engine).

mod buffers;
mod error;
mod features;
mod ring;

pub use super::engine::{Completion, Counters, Lent, Token, Wait};
pub use error::RingError;
pub use features::RingFeatures;
pub use ring::{Ring, supported_operations};
