//! The only unsafe code: what the kernel offers, as safe functions that name no peer.
#![allow(unsafe_code)] // fenced in: every other module is compiled with `deny(unsafe_code)`

pub mod clock;
pub mod rlimit;
