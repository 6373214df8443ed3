//! The system calls as safe functions, and the only unsafe code. Nothing here knows of peers.
//!
//! - [`clock`]: the clocks;
//! - [`tcp`]: socket options and `TCP_INFO`;
//! - `unix`: Unix stream sockets;
//! - [`epoll`]: readiness of many descriptors;
//! - [`hangup`]: whether written bytes still have a reader;
//! - [`nowait`]: writes that do not wait;
//! - `passed`: listening sockets of the service manager;
//! - [`process`]: cores, costs and signals of processes;
//! - [`rlimit`]: how many descriptors there may be;
//! - [`wakeup`]: an eventfd by which other threads wake a loop;
//! - `uring`: the ring and its buffers;
//! - `engine`: what a loop works through: that ring, or epoll in its shape;
//! - `operations`: what both do, and what it completes with.
//!
//! Every unsafe block says which value owns the memory and why it outlives the call, or, where the kernel writes
//! later, the last completion.
#![allow(unsafe_code)] // fenced in: every other module is compiled with `deny(unsafe_code)`

pub mod clock;
#[cfg(feature = "tracker")]
pub mod engine;
pub mod epoll;
pub mod hangup;
pub mod nowait;
#[cfg(feature = "tracker")]
mod operations;
#[cfg(feature = "cli")]
pub mod passed;
pub mod process;
pub mod rlimit;
pub mod tcp;
#[cfg(feature = "tracker")]
pub mod unix;
#[cfg(feature = "tracker")]
pub mod uring;
#[cfg(feature = "hosted")]
pub mod uring_stream;
pub mod wakeup;

/// An error's text without Rust's own "(os error N)", which says nothing to people.
#[must_use]
pub fn describe(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error ").next().unwrap_or_default().to_owned()
}
