//! What the first lines of both services have: the process, its engine, and the room that it has.

use std::fmt;

use crate::events::PROGRAM;
use crate::events::body::Shown;
use crate::events::human::{Count, HumanEncoder};
use crate::reactor::Address;
use crate::time::Instant;

/// A start, as the first line of either service reports it.
#[derive(Clone, Debug)]
pub struct Start {
    /// The addresses listened on, with the ports that the kernel chose. At least one.
    pub addresses: Vec<Address>,
    /// The process's id.
    pub pid: u32,
    /// `io_uring` or `epoll`.
    pub engine: &'static str,
    /// The set-up features that this kernel granted.
    pub features: Vec<&'static str>,
    /// Why the engine is no better one, and what to do about it.
    pub why_not: Option<String>,
    /// The number of threads, each with an engine of its own.
    pub threads: usize,
    /// `standard`, `strict` or `custom`.
    pub policy_name: &'static str,
    /// Connections, or clients, at once, over all threads.
    pub capacity: usize,
    /// When all loops were ready.
    pub at: Instant,
}

impl Start {
    /// Appends the lines for people: two of the service, then what may be expected of the engine. `host` names the
    /// runtime that waits for the engine, if that is not a thread of its own; `thing` is what there is room for.
    pub(super) fn human(
        &self,
        [listens, rules]: [fmt::Arguments<'_>; 2],
        (host, thing): (Option<&str>, &'static str),
        human: &mut HumanEncoder,
        out: &mut Vec<u8>,
    ) {
        human.plain(format_args!("{PROGRAM} listens on {listens}"), out);
        human.plain(rules, out);
        let host = host.map_or_else(String::new, |host| format!(" in {host}"));
        let features = match self.features.as_slice() {
            [] => String::new(),
            features => format!(" ({})", features.join(", ")),
        };
        let (threads, room) = (Count(self.threads as u64, "thread"), Count(self.capacity as u64, thing));
        human.plain(format_args!("{}{host}{features}, {threads}, room for {room}", self.engine), out);
        if let Some(why_not) = &self.why_not {
            human.plain(format_args!("why not better: {why_not}"), out);
        }
    }
}

/// The addresses in one line.
pub(super) fn list(addresses: &[Address]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The addresses as an array of strings.
pub(super) fn shown(addresses: &[Address]) -> Vec<Shown<&Address>> {
    addresses.iter().map(Shown).collect()
}

/// The start that the samples of both services have.
#[cfg(test)]
pub(super) fn sample() -> Start {
    Start {
        addresses: vec![Address::Ip("127.0.0.1:8080".parse().unwrap())],
        pid: 4_711,
        engine: "io_uring",
        features: vec!["defer_taskrun", "no_sqarray", "min_wait", "no_iowait", "restricted"],
        why_not: None,
        threads: 2,
        policy_name: "standard",
        capacity: 9_965,
        at: Instant::ZERO,
    }
}
