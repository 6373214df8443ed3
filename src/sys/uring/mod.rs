//! io_uring: one ring for one thread.
//!
//! [`Ring`] sets a ring up with the best flags that the kernel has, queues operations, submits and waits in one system
//! call, and returns completions as plain values. [`Token`] names the owner of a completion. [`Engine::lend_buffers`] lends
//! the kernel memory for received bytes. The loop uses a ring as an [`Engine`].

mod buffers;
mod error;
mod features;
mod ring;

pub use super::operations::{Completion, Engine, Token, Wait};
pub use error::RingError;
pub use features::RingFeatures;
pub use ring::{Ring, supported_operations};
