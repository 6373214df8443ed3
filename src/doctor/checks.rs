//! What the facts mean: one function a check.

use std::time::Duration;

use super::facts::{Facts, RingFacts};
use crate::limits;
use crate::measure::report::show::count as grouped;

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It runs, with less.
    Warn,
    /// It does not run, or not as it should.
    Bad,
}

impl Verdict {
    /// The word of the text and the JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its stable name.
    pub name: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to type, where something is to be done.
    pub cure: Option<String>,
}

/// Every check, in the order of what comes first at a start.
#[must_use]
pub fn examine(facts: &Facts) -> Vec<Check> {
    vec![
        kernel(facts),
        ring(facts),
        operations(facts),
        disabled(facts),
        seccomp(facts),
        memlock(facts),
        descriptors(facts),
        machine_descriptors(facts),
        tick(facts),
        cores(facts),
        memory(facts),
        backlog(facts),
        syn_backlog(facts),
        tcp_memory(facts),
        orphans(facts),
        conntrack(facts),
        ports(facts),
        keepalive(facts),
        user(facts),
    ]
}

/// 0 if `deadpeer run` would run well, 77 where something is forbidden and 71 where something is missing.
#[must_use]
pub fn exit_code(facts: &Facts, checks: &[Check]) -> u8 {
    match (&facts.ring, checks.iter().any(|check| check.verdict == Verdict::Bad)) {
        (_, false) => 0,
        (RingFacts::Forbidden(_), true) => 77,
        (_, true) => 71,
    }
}

fn check(name: &'static str, verdict: Verdict, found: impl Into<String>, cure: impl Into<String>) -> Check {
    let cure = (verdict != Verdict::Ok).then(|| cure.into());
    Check { name, verdict, found: found.into(), cure }
}

fn well(name: &'static str, found: impl Into<String>) -> Check {
    check(name, Verdict::Ok, found, "")
}

fn not_found(name: &'static str) -> Check {
    well(name, "not found")
}

/// What is fine from `enough` on.
fn at_least(name: &'static str, value: Option<u64>, enough: u64, what: &str, cure: &str) -> Check {
    match value {
        None => not_found(name),
        Some(value) if value >= enough => well(name, format!("{} {what}", grouped(value))),
        Some(value) => check(name, Verdict::Warn, format!("{} {what}", grouped(value)), cure),
    }
}

pub(super) fn version(kernel: &str) -> Option<(u32, u32)> {
    let mut numbers = kernel.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(facts: &Facts) -> Check {
    let found = format!("Linux {} on {}", facts.kernel, facts.architecture);
    match version(&facts.kernel) {
        Some(version) if version >= (6, 12) => well("kernel", found),
        Some(version) if version >= (6, 1) => {
            check("kernel", Verdict::Warn, found, "runs; Linux 6.12 or newer waits for batches too")
        }
        Some(_) => check("kernel", Verdict::Warn, found, "not tested; run on Linux 6.1 or newer"),
        None => check("kernel", Verdict::Warn, "of an unknown version", "run on Linux 6.1 or newer"),
    }
}

fn ring(facts: &Facts) -> Check {
    let name = "io_uring";
    match &facts.ring {
        RingFacts::Works { features, lacks: None } => {
            well(name, format!("works; self-test passed; {}", features.join(", ")))
        }
        RingFacts::Works { features, lacks: Some(lacks) } => {
            let found = format!("works; self-test passed; {}", features.join(", "));
            check(name, Verdict::Warn, found, lacks.clone())
        }
        RingFacts::Forbidden(why) | RingFacts::Missing(why) | RingFacts::Short(why) => {
            let (found, cure) = why.split_once("; ").unwrap_or((why.as_str(), "see io_uring_setup(2)"));
            let meanwhile = if why.contains("self-test: cannot") {
                ""
            } else {
                "; until then `deadpeer run` takes epoll (--io auto)"
            };
            let cure = if why.contains("self-test: cannot") {
                "`ip link set lo up`, and allow TCP on loopback"
            } else {
                cure
            };
            let cure = format!("{cure}{meanwhile}");
            check(name, Verdict::Bad, found, cure)
        }
    }
}

fn operations(facts: &Facts) -> Check {
    let names: Vec<_> = facts.operations.iter().map(|&(name, _)| name).collect();
    let lacking: Vec<_> = facts.operations.iter().filter(|&&(_, has)| !has).map(|&(name, _)| name).collect();
    if names.is_empty() {
        return well("operations", "not asked for: there is no ring");
    }
    if lacking.is_empty() {
        return well("operations", names.join(", "));
    }
    check("operations", Verdict::Bad, format!("without {}", lacking.join(", ")), "run on Linux 6.1 or newer")
}

fn disabled(facts: &Facts) -> Check {
    let name = "io_uring_disabled";
    match facts.io_uring_disabled {
        None => well(name, "there is no such sysctl: not forbidden by it"),
        Some(0) => well(name, "0: everybody may"),
        Some(1) => {
            let verdict =
                if matches!(facts.ring, RingFacts::Forbidden(_)) { Verdict::Bad } else { Verdict::Ok };
            check(
                name,
                verdict,
                "1: only CAP_SYS_ADMIN and the group in kernel.io_uring_group",
                "put the user into that group, or `sysctl kernel.io_uring_group=GID`",
            )
        }
        Some(value) => check(
            name,
            Verdict::Bad,
            format!("{value}: nobody may"),
            "`echo kernel.io_uring_disabled=0 > /etc/sysctl.d/90-io_uring.conf && sysctl --system`",
        ),
    }
}

fn seccomp(facts: &Facts) -> Check {
    let name = "seccomp";
    match (facts.seccomp, &facts.ring) {
        (None, _) => not_found(name),
        (Some(0), _) => well(name, "no filter on this process"),
        (Some(_), RingFacts::Works { .. }) => well(name, "a filter, which lets io_uring through"),
        (Some(_), _) => check(
            name,
            Verdict::Warn,
            "a filter on this process, most likely the container's profile",
            "allow io_uring_setup, io_uring_enter and io_uring_register: \
             `docker run --security-opt seccomp=docs/seccomp.json`",
        ),
    }
}

/// Of a ring with its queues, charged from 6.14 on.
const RING_BYTES: u64 = 584 * 1_024;

fn memlock(facts: &Facts) -> Check {
    let name = "memlock";
    if version(&facts.kernel).is_some_and(|version| version < (6, 14)) {
        return well(name, "this kernel does not count rings as locked memory");
    }
    let Some(bytes) = facts.memlock else { return well(name, "no limit") };
    if facts.locks_memory {
        return well(name, format!("{} KiB, which CAP_IPC_LOCK makes void", grouped(bytes / 1_024)));
    }
    let rings = bytes / RING_BYTES;
    let found = format!("{} KiB: room for {rings} rings of this user", grouped(bytes / 1_024));
    // A restart may meet the rings of the process before.
    let verdict = match rings {
        0 => Verdict::Bad,
        rings if rings < 2_u64.saturating_mul(facts.cores as u64) => Verdict::Warn,
        _ => Verdict::Ok,
    };
    check(
        name,
        verdict,
        found,
        "`ulimit -l unlimited` (LimitMEMLOCK=256M in a unit, --ulimit memlock=268435456 in a container)",
    )
}

/// Below it nobody deploys this.
const FEW_CONNECTIONS: u64 = 10_000;

/// How many connections `deadpeer run` would take.
pub(super) fn capacity(facts: &Facts) -> u64 {
    let own = limits::RESERVED_FDS.saturating_add(3_u64.saturating_mul(facts.cores as u64));
    facts.nofile.saturating_sub(own).min(limits::MAX_PEERS as u64)
}

fn descriptors(facts: &Facts) -> Check {
    let capacity = capacity(facts);
    let found = format!("{}: room for {} connections", grouped(facts.nofile), grouped(capacity));
    let verdict = match capacity {
        0 => Verdict::Bad,
        few if few < FEW_CONNECTIONS => Verdict::Warn,
        _ => Verdict::Ok,
    };
    check(
        "descriptors",
        verdict,
        found,
        "`ulimit -n 1048576` (LimitNOFILE= in a unit, --ulimit nofile= in a container)",
    )
}

fn machine_descriptors(facts: &Facts) -> Check {
    let name = "file-max";
    let (Some(each), Some(all)) = (facts.nr_open, facts.file_max) else { return not_found(name) };
    let found = format!("{} for the machine, {} for a process at most", grouped(all), grouped(each));
    let verdict = if all < facts.nofile { Verdict::Warn } else { Verdict::Ok };
    check(name, verdict, found, format!("`sysctl fs.file-max={}`", facts.nofile.saturating_mul(2)))
}

fn tick(facts: &Facts) -> Check {
    let tick = facts.tick;
    let found = format!(
        "{} ms (HZ={}): verdicts on silence come up to {} ms after their deadline",
        tick.as_millis(),
        (1.0 / tick.as_secs_f64()).round(),
        (2 * tick + Duration::from_millis(1)).as_millis()
    );
    well("tick", found)
}

fn cores(facts: &Facts) -> Check {
    let name = "cores";
    let found = format!("{}: as many threads by default", facts.cores);
    match facts.quota {
        Some(quota) if quota.cores < 1.0 => check(
            name,
            Verdict::Warn,
            format!("{found}, but a quota of {:.2} of a core", quota.cores),
            "a thread that is throttled judges late and says `stall`: raise cpu.max (CPUQuota=, --cpus) to 1 or more",
        ),
        Some(quota) => well(name, format!("{found}; a quota of {:.2}", quota.cores)),
        None => well(name, found),
    }
}

/// A socket of the kernel's, its armed poll, our record, and unread beats: what a connection holds.
const CONNECTION_BYTES: u64 = 3_900 + 274 + 122 + 2_048;

fn memory(facts: &Facts) -> Check {
    let name = "memory";
    let (limit, whose) = match (facts.cgroup_memory, facts.memory) {
        (Some(group), Some(machine)) if group < machine => (group, "in this control group"),
        (Some(group), None) => (group, "in this control group"),
        (_, Some(machine)) => (machine, "in this machine"),
        (None, None) => return not_found(name),
    };
    let fit = limit / CONNECTION_BYTES;
    let found = format!("{} MiB {whose}: enough for {} connections", grouped(limit >> 20), grouped(fit));
    let capacity = capacity(facts);
    let verdict = if fit < capacity { Verdict::Warn } else { Verdict::Ok };
    check(name, verdict, found, format!("take --max-connections {fit}, or give it more"))
}

fn backlog(facts: &Facts) -> Check {
    let cure = "`sysctl net.core.somaxconn=65535`, then start: it is read by listen(2)";
    at_least(
        "somaxconn",
        facts.somaxconn,
        4_096,
        "connections may wait to be accepted, for each thread",
        cure,
    )
}

fn syn_backlog(facts: &Facts) -> Check {
    if facts.syn_cookies.is_some_and(|cookies| cookies > 0) {
        return well("syn-backlog", "no limit: tcp_syncookies is on");
    }
    let cure = "`sysctl net.ipv4.tcp_max_syn_backlog=65535`";
    at_least("syn-backlog", facts.syn_backlog, 1_024, "handshakes may be under way", cure)
}

fn tcp_memory(facts: &Facts) -> Check {
    let name = "tcp_mem";
    let Some([_, pressure, high]) = facts.tcp_mem else { return not_found(name) };
    // Of 16-byte beats below a low-water mark of 1,024 bytes.
    let connections = pressure.saturating_mul(4_096) / 2_048;
    let found = format!(
        "{} MiB before TCP is short of memory, {} at most: unread beats of {} connections",
        grouped(pressure / 256),
        grouped(high / 256),
        grouped(connections)
    );
    let verdict = if connections < capacity(facts) { Verdict::Warn } else { Verdict::Ok };
    check(
        name,
        verdict,
        found,
        "raise net.ipv4.tcp_mem (three numbers, in pages), or take a smaller --unread",
    )
}

fn orphans(facts: &Facts) -> Check {
    let cure = "`sysctl net.ipv4.tcp_max_orphans=65536`";
    at_least("orphans", facts.max_orphans, 8_192, "closed sockets may wait for their last answer", cure)
}

fn conntrack(facts: &Facts) -> Check {
    let name = "conntrack";
    let Some((count, most)) = facts.conntrack else { return well(name, "not loaded: nothing to fill up") };
    let found = format!("{} of {} connections tracked", grouped(count), grouped(most));
    if facts.conntrack_established.is_some_and(|seconds| seconds < 600) {
        let found = format!(
            "{found}, and quiet ones are forgotten after {} s",
            facts.conntrack_established.unwrap_or(0)
        );
        return check(
            name,
            Verdict::Warn,
            found,
            "`sysctl net.netfilter.nf_conntrack_tcp_timeout_established=432000`",
        );
    }
    let verdict = if most.saturating_sub(count) < capacity(facts) { Verdict::Warn } else { Verdict::Ok };
    check(
        name,
        verdict,
        found,
        format!(
            "`sysctl net.netfilter.nf_conntrack_max={}`, or do not track this port",
            capacity(facts).saturating_mul(2)
        ),
    )
}

fn ports(facts: &Facts) -> Check {
    match facts.ports {
        None => not_found("ports"),
        Some((low, high)) => well(
            "ports",
            format!(
                "{low}-{high}: {} connections from one address to another (for `bench` and `beat`)",
                grouped(high.saturating_add(1).saturating_sub(low))
            ),
        ),
    }
}

fn keepalive(facts: &Facts) -> Check {
    match facts.keepalive_time {
        None => not_found("keepalive"),
        Some(seconds) => well(
            "keepalive",
            format!(
                "{} s by default, which does not matter: each connection gets its policy's",
                grouped(seconds)
            ),
        ),
    }
}

fn user(facts: &Facts) -> Check {
    well("user", if facts.root { "root; no privilege is needed" } else { "not root; none is needed" })
}
