//! See `bodies/clock.rs`; `tests/hostile.rs` runs the same on random input.

#![no_main]

#[path = "../bodies/clock.rs"]
mod body;
#[path = "../bodies/input.rs"]
mod input;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::check(bytes));
