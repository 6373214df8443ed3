//! The ways to die on a real kernel: what a verdict must be in each case that one machine can make.
//!
//! Most tests run a driver on a thread of their own and are its peers; those that need a machine to
//! vanish run the daemon in a network namespace. Every stream of events is held against the contract
//! at its end: up first, exactly one death, nothing after it. Here by a ring; `tests/kernel_epoll` and
//! `tests/kernel_hosted` run the same files otherwise.

use deadpeer::reactor::EngineChoice;

mod daemon;
mod endings;
mod frames;
mod limits;
mod listeners;
mod path;
mod processes;
mod silence;
mod skip;
mod storms;
mod watch;
mod watcher;

const IO: EngineChoice = EngineChoice::Uring;
const IO_NAME: &str = "uring";
const HOSTED: bool = false;
