//! Descriptors, processors and memory: how many connections fit.

use std::time::Duration;

use super::check::{Check, Verdict};
use super::facts::Facts;
use crate::limits;
use crate::measure::report::show::count as grouped;

/// A capacity below this is worth a warning: servers have more connections.
const FEW_CONNECTIONS: u64 = 10_000;

/// The number of connections that `deadpeer run` takes by default.
pub(super) fn capacity(facts: &Facts) -> u64 {
    let own = limits::RESERVED_FDS.saturating_add(3_u64.saturating_mul(facts.cores as u64));
    facts.nofile.saturating_sub(own).min(limits::MAX_PEERS as u64)
}

pub(super) fn descriptors(facts: &Facts) -> Check {
    let capacity = capacity(facts);
    let verdict = match capacity {
        0 => Verdict::Bad,
        few if few < FEW_CONNECTIONS => Verdict::Warn,
        _ => Verdict::Ok,
    };
    Check::new(
        "descriptors",
        verdict,
        format!("{}: room for {} connections", grouped(facts.nofile), grouped(capacity)),
        "`ulimit -n 1048576` (LimitNOFILE= in a unit, --ulimit nofile= for a container)",
    )
}

pub(super) fn machine_descriptors(facts: &Facts) -> Check {
    let name = "file-max";
    let (Some(each), Some(all)) = (facts.nr_open, facts.file_max) else { return Check::not_found(name) };
    let found = format!("{} on this machine, at most {} in one process", grouped(all), grouped(each));
    let verdict = if all < facts.nofile { Verdict::Warn } else { Verdict::Ok };
    Check::new(name, verdict, found, format!("`sysctl fs.file-max={}`", facts.nofile.saturating_mul(2)))
}

pub(super) fn tick(facts: &Facts) -> Check {
    let tick = facts.tick;
    let found = format!(
        "{} ms (HZ={}): a verdict on silence comes up to {} ms after its deadline",
        tick.as_millis(),
        (1.0 / tick.as_secs_f64()).round(),
        (2 * tick + Duration::from_millis(1)).as_millis()
    );
    Check::ok("tick", found)
}

pub(super) fn cores(facts: &Facts) -> Check {
    let name = "cores";
    let found = format!("{}: by default as many threads", facts.cores);
    match facts.quota {
        Some(quota) if quota.cores < 1.0 => Check::warn(
            name,
            format!("{found}, but a quota of {:.2} cores", quota.cores),
            "a throttled thread judges late and reports `stall`: raise cpu.max (CPUQuota=, --cpus) to 1 or more",
        ),
        Some(quota) => Check::ok(name, format!("{found}; a quota of {:.2} cores", quota.cores)),
        None => Check::ok(name, found),
    }
}

/// Memory of one connection: the kernel's socket, its armed poll, the tracker's record and unread heartbeats.
const CONNECTION_BYTES: u64 = 3_900 + 274 + 122 + 2_048;

pub(super) fn memory(facts: &Facts) -> Check {
    let name = "memory";
    let (limit, place) = match (facts.cgroup_memory, facts.memory) {
        (Some(group), Some(machine)) if group < machine => (group, "in this control group"),
        (Some(group), None) => (group, "in this control group"),
        (_, Some(machine)) => (machine, "in this machine"),
        (None, None) => return Check::not_found(name),
    };
    let fit = limit / CONNECTION_BYTES;
    let found = format!("{} MiB {place}: enough for {} connections", grouped(limit >> 20), grouped(fit));
    let verdict = if fit < capacity(facts) { Verdict::Warn } else { Verdict::Ok };
    Check::new(name, verdict, found, format!("use --max-connections {fit}, or add memory"))
}

pub(super) fn user(facts: &Facts) -> Check {
    Check::ok("user", if facts.root { "root; not needed" } else { "not root; no privilege is needed" })
}
