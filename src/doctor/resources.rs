//! Descriptors, processors, memory and the kernel's tables: how many connections fit.

use std::time::Duration;

use super::check::{Check, Verdict};
use super::facts::Facts;
use crate::limits;
use crate::measure::report::show::count as grouped;

/// A capacity below this is worth a warning: servers have more connections.
const FEW_CONNECTIONS: u64 = 10_000;

/// The number of connections that `deadpeer run` takes by default.
pub(super) fn capacity(facts: &Facts) -> u64 {
    let own = limits::RESERVED_FDS.saturating_add(3_u64.saturating_mul(facts.threads as u64));
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
        Some(quota) if quota < 1.0 => Check::warn(
            name,
            format!("{found}, but a quota of {quota:.2} cores"),
            "a throttled thread judges late and reports `stall`: raise cpu.max (CPUQuota=, --cpus) to 1 or more",
        ),
        Some(quota) => Check::ok(name, format!("{found}; a quota of {quota:.2} cores")),
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

pub(super) fn backlog(facts: &Facts) -> Check {
    Check::at_least(
        "somaxconn",
        facts.somaxconn,
        4_096,
        "connections of each thread may wait to be accepted",
        "`sysctl net.core.somaxconn=65535`, then restart: listen(2) reads it",
    )
}

pub(super) fn syn_backlog(facts: &Facts) -> Check {
    if facts.syn_cookies.is_some_and(|cookies| cookies > 0) {
        return Check::ok("syn-backlog", "no limit: tcp_syncookies is on");
    }
    let cure = "`sysctl net.ipv4.tcp_max_syn_backlog=65535`";
    Check::at_least("syn-backlog", facts.syn_backlog, 1_024, "handshakes may be under way", cure)
}

/// Pages that the unread 16-byte heartbeats of one connection take, below a low-water mark of 1,024 bytes: half of one.
const CONNECTIONS_PER_PAGE: u64 = 2;

pub(super) fn tcp_memory(facts: &Facts) -> Check {
    let name = "tcp_mem";
    let Some([_, pressure, high]) = facts.tcp_mem else { return Check::not_found(name) };
    let connections = pressure.saturating_mul(CONNECTIONS_PER_PAGE);
    let found = format!(
        "{} MiB until TCP saves memory, {} MiB at most: unread heartbeats of {} connections",
        grouped(pressure / 256),
        grouped(high / 256),
        grouped(connections)
    );
    let verdict = if connections < capacity(facts) { Verdict::Warn } else { Verdict::Ok };
    Check::new(
        name,
        verdict,
        found,
        "raise net.ipv4.tcp_mem (three numbers, in pages), or use a smaller --unread",
    )
}

pub(super) fn orphans(facts: &Facts) -> Check {
    let cure = "`sysctl net.ipv4.tcp_max_orphans=65536`";
    Check::at_least(
        "orphans",
        facts.max_orphans,
        8_192,
        "closed sockets may wait for their last answer",
        cure,
    )
}

pub(super) fn conntrack(facts: &Facts) -> Check {
    let name = "conntrack";
    let Some((count, most)) = facts.conntrack else { return Check::ok(name, "not loaded") };
    let found = format!("{} of {} connections tracked", grouped(count), grouped(most));
    if let Some(seconds) = facts.conntrack_established.filter(|&seconds| seconds < 600) {
        return Check::warn(
            name,
            format!("{found}; a quiet connection is forgotten after {seconds} s"),
            "`sysctl net.netfilter.nf_conntrack_tcp_timeout_established=432000`",
        );
    }
    let verdict = if most.saturating_sub(count) < capacity(facts) { Verdict::Warn } else { Verdict::Ok };
    let room = capacity(facts).saturating_mul(2);
    let cure = format!("`sysctl net.netfilter.nf_conntrack_max={room}`, or do not track this port");
    Check::new(name, verdict, found, cure)
}

pub(super) fn ports(facts: &Facts) -> Check {
    let Some((low, high)) = facts.ports else { return Check::not_found("ports") };
    let count = grouped(high.saturating_add(1).saturating_sub(low));
    let found = format!("{low}-{high}: `bench` and `beat` can open {count} connections to one address");
    Check::ok("ports", found)
}

pub(super) fn keepalive(facts: &Facts) -> Check {
    let Some(seconds) = facts.keepalive_time else { return Check::not_found("keepalive") };
    let found = format!("{} s is the system's default; each connection gets the policy's", grouped(seconds));
    Check::ok("keepalive", found)
}
