//! The kernel's tables of connections.

use super::check::{Check, Verdict};
use super::facts::Facts;
use super::resources::capacity;
use crate::measure::report::show::count as grouped;

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
