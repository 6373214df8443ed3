//! io_uring: one ring of one thread.
//!
//! [`Ring`] sets the ring up with the best flags that the kernel has, queues operations, submits and
//! waits in one system call, and hands completions out as plain values. [`Token`] names what a
//! completion belongs to. [`BufferPool`] lends the kernel memory for bytes that matter.
//! [`self_test`] holds the kernel against what the rest of the program relies on.

mod buffers;
mod ring;
mod self_test;
mod token;

pub use buffers::BufferPool;
pub use ring::{Completion, Ring, RingCounters, RingError, RingFeatures, Wait};
pub use self_test::{SelfTestError, self_test};
pub use token::Token;
