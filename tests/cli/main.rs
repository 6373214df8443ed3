//! The program as people and scripts meet it: arguments, messages, exit codes, output, signals.

mod arguments;
mod beating;
#[path = "../kernel/daemon.rs"]
mod daemon;
mod doctor;
mod document;
mod events;
mod latency;
mod outcome;
mod output;
mod refusals;
mod shapes;
mod signals;
#[path = "../kernel/skip.rs"]
mod skip;

/// As users start it.
const IO_NAME: &str = "auto";
