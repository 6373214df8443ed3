//! All checks together: whether `deadpeer run` starts, and on which engine.

use super::check::{Check, Verdict};
use super::facts::{EngineFacts, Facts};
use super::{engine, resources};
use crate::reactor::EngineChoice;

/// What a machine offers to `deadpeer run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The engine that was asked for.
    pub io: EngineChoice,
    /// The engine that `run` takes: `io_uring` or `epoll`; `None` if it does not start for the want of one.
    pub engine: Option<&'static str>,
    /// Every check, in the order in which a start meets them.
    pub checks: Vec<Check>,
    /// The exit code of `deadpeer run` at its start: 0 if it starts, 77 where io_uring is forbidden, 71 where it is
    /// missing, 78 if no connection fits the limit on descriptors, otherwise 1.
    pub exit_code: u8,
}

impl Diagnosis {
    /// The most serious verdict of all checks.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok)
    }

    /// The number of checks with this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|check| check.verdict == verdict).count()
    }
}

/// Judges the facts for `deadpeer run --io` with this choice. Reads nothing else.
#[must_use]
pub fn examine(facts: &Facts, io: EngineChoice) -> Diagnosis {
    let checks = vec![
        engine::kernel(facts),
        engine::ring(facts, io),
        engine::operations(facts, io),
        engine::disabled(facts, io),
        engine::seccomp(facts, io),
        engine::memlock(facts, io),
        engine::epoll(facts, io),
        resources::descriptors(facts),
        resources::machine_descriptors(facts),
        resources::tick(facts),
        resources::cores(facts),
        resources::memory(facts),
        resources::backlog(facts),
        resources::syn_backlog(facts),
        resources::tcp_memory(facts),
        resources::orphans(facts),
        resources::conntrack(facts),
        resources::ports(facts),
        resources::keepalive(facts),
        resources::user(facts),
    ];
    let engine = engine::taken(facts, io);
    let bad = checks.iter().any(|check| check.verdict == Verdict::Bad);
    let needed = if io == EngineChoice::Uring { &facts.ring } else { &facts.epoll };
    let exit_code = match needed {
        _ if !bad => 0,
        _ if resources::capacity(facts) == 0 => 78,
        EngineFacts::Forbidden(_) => 77,
        EngineFacts::Missing(_) => 71,
        EngineFacts::Short(_) | EngineFacts::Works { .. } => 1,
    };
    Diagnosis { io, engine, checks, exit_code }
}
