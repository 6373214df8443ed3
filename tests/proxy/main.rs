//! The proxy between real clients and real servers: what each side gets, what is told, and what it costs.
//!
//! Clients and servers are sockets of the tests' own, so that every byte is known, and how each connection ended.

mod abuse;
mod access;
mod acknowledging;
mod answers;
mod asking;
mod checks;
mod command;
#[path = "../kernel/daemon.rs"]
#[allow(dead_code)] // what only `run` needs
mod daemon;
mod dice;
mod draining;
mod events;
mod failures;
mod forwarded;
mod leaving;
mod million;
mod names;
mod namespace;
mod naming;
mod order;
#[path = "../cli/outcome.rs"]
mod outcome;
mod passed;
mod peer;
mod places;
mod pooled;
mod program;
mod silence;
#[path = "../kernel/skip.rs"]
mod skip;
mod stalls;
mod staying;
mod transparency;
mod tunnels;
mod unix;
mod upstream;
mod upstreams;
mod volume;
mod whole;

/// What `run` would wait on; the proxy is started on each.
const IO_NAME: &str = "auto";
