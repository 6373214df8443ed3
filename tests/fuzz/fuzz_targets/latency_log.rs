//! See `bodies/latency_log.rs`; `tests/hostile.rs` runs the same on random input.

#![no_main]

#[path = "../bodies/latency_log.rs"]
mod body;
#[path = "../bodies/input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::check(bytes));
