//! The only unsafe code: what the kernel offers, as safe functions that name no peer.
//!
//! - [`clock`]: the clocks;
//! - [`tcp`]: socket options and `TCP_INFO`;
//! - [`epoll`]: readiness of many descriptors;
//! - [`hangup`]: whether anybody still reads;
//! - [`nowait`]: writing what goes without waiting;
//! - [`process`]: cores, costs and signals of processes;
//! - [`rlimit`]: how many descriptors there may be;
//! - [`wakeup`]: an eventfd by which other threads wake a ring;
//! - `uring`: the ring and its buffers;
//! - `engine`: what a loop works through: that ring, or epoll in its shape.
//!
//! Every unsafe block says who owns the memory and why it outlives the call or, for what the kernel
//! may write later, the last completion.
#![allow(unsafe_code)] // fenced in: every other module is compiled with `deny(unsafe_code)`

pub mod clock;
#[cfg(feature = "tracker")]
pub mod engine;
pub mod epoll;
pub mod hangup;
pub mod nowait;
pub mod process;
pub mod rlimit;
pub mod tcp;
#[cfg(feature = "tracker")]
pub mod uring;
pub mod wakeup;

/// An error's text without Rust's own "(os error N)", which says nothing to people.
#[must_use]
pub fn describe(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
