//! The kernel and io_uring: what the program can wait on.

use super::check::{Check, Verdict};
use super::facts::{EngineFacts, Facts};
use crate::measure::report::show::count as grouped;
use crate::reactor::EngineChoice;

/// The engine that `deadpeer run --io` takes with this choice: `io_uring`, `epoll`, or `None` if it does not start.
pub(super) fn taken(facts: &Facts, io: EngineChoice) -> Option<&'static str> {
    match io {
        EngineChoice::Auto | EngineChoice::Uring if facts.ring.works() => Some("io_uring"),
        EngineChoice::Uring => None,
        EngineChoice::Auto | EngineChoice::Epoll => facts.epoll.works().then_some("epoll"),
    }
}

/// How serious it is that there is no ring, or no second one.
fn without_ring(facts: &Facts, io: EngineChoice) -> Verdict {
    match io {
        EngineChoice::Epoll => Verdict::Ok,
        EngineChoice::Auto if taken(facts, io).is_some() => Verdict::Warn,
        EngineChoice::Auto | EngineChoice::Uring => Verdict::Bad,
    }
}

/// The major and minor number of a kernel's release name.
pub(super) fn version(kernel: &str) -> Option<(u32, u32)> {
    let mut numbers = kernel.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn kernel(facts: &Facts) -> Check {
    let name = "kernel";
    let found = format!("Linux {} on {}", facts.kernel, facts.architecture);
    match version(&facts.kernel) {
        Some(version) if version >= (6, 12) => Check::ok(name, found),
        Some(version) if version >= (6, 1) => {
            Check::warn(name, found, "it runs; Linux 6.12 or newer can also wait for a batch of completions")
        }
        Some(_) => Check::warn(name, found, "deadpeer is not tested on this kernel; use Linux 6.1 or newer"),
        None => Check::warn(name, "its version is unknown", "use Linux 6.1 or newer"),
    }
}

pub(super) fn ring(facts: &Facts, io: EngineChoice) -> Check {
    let name = "io_uring";
    match &facts.ring {
        EngineFacts::Works { features, lacks } => {
            let found = format!("works and passed the self-test; features: {}", features.join(", "));
            match lacks {
                None => Check::ok(name, found),
                Some(lacks) => Check::warn(name, found, lacks.clone()),
            }
        }
        EngineFacts::Forbidden(why) | EngineFacts::Missing(why) | EngineFacts::Short(why) => {
            let (found, cure) = why.split_once("; ").unwrap_or((why.as_str(), "see io_uring_setup(2)"));
            let verdict = without_ring(facts, io);
            let cure = if why.contains("self-test: cannot") {
                "`ip link set lo up`, and allow TCP on the loopback interface".to_owned()
            } else if verdict == Verdict::Warn {
                format!("{cure}; until then `deadpeer run` uses epoll (--io auto)")
            } else if facts.epoll.works() {
                format!("{cure}; until then use `--io epoll`")
            } else {
                cure.to_owned()
            };
            Check::new(name, verdict, found, cure)
        }
    }
}

pub(super) fn epoll(facts: &Facts, io: EngineChoice) -> Check {
    let name = "epoll";
    let (EngineFacts::Forbidden(why) | EngineFacts::Missing(why) | EngineFacts::Short(why)) = &facts.epoll
    else {
        return Check::ok(name, "works and passed the self-test");
    };
    let (found, cure) = why.split_once("; ").unwrap_or((why.as_str(), "see epoll_create(2)"));
    let verdict = if taken(facts, io).is_some() { Verdict::Warn } else { Verdict::Bad };
    Check::new(name, verdict, found, cure)
}

pub(super) fn operations(facts: &Facts, io: EngineChoice) -> Check {
    let name = "operations";
    let of = |wanted: bool| -> Vec<_> {
        let matching = facts.operations.iter().filter(|&&(_, has)| has == wanted);
        matching.map(|&(name, _)| name).collect()
    };
    let (there, missing) = (of(true), of(false));
    if missing.is_empty() {
        let found = if there.is_empty() { "unknown without a ring".to_owned() } else { there.join(", ") };
        return Check::ok(name, found);
    }
    let found = format!("the kernel has no {}", missing.join(", "));
    Check::new(name, without_ring(facts, io), found, "use Linux 6.1 or newer")
}

pub(super) fn disabled(facts: &Facts, io: EngineChoice) -> Check {
    let name = "io_uring_disabled";
    let verdict = if facts.ring.works() { Verdict::Ok } else { without_ring(facts, io) };
    match facts.io_uring_disabled {
        None => Check::ok(name, "this kernel has no such sysctl"),
        Some(0) => Check::ok(name, "0: every process may use io_uring"),
        Some(1) => Check::new(
            name,
            verdict,
            "1: only CAP_SYS_ADMIN and the group in kernel.io_uring_group may use io_uring",
            "add the user to that group, or `sysctl kernel.io_uring_group=GID`",
        ),
        Some(value) => Check::new(
            name,
            verdict,
            format!("{value}: no process may use io_uring"),
            "`echo kernel.io_uring_disabled=0 > /etc/sysctl.d/90-io_uring.conf && sysctl --system`",
        ),
    }
}

pub(super) fn seccomp(facts: &Facts, io: EngineChoice) -> Check {
    let name = "seccomp";
    match facts.seccomp {
        None => Check::not_found(name),
        Some(0) => Check::ok(name, "no filter on this process"),
        Some(_) if facts.ring.works() => Check::ok(name, "a filter on this process, which allows io_uring"),
        Some(_) if io == EngineChoice::Epoll => Check::ok(name, "a filter on this process"),
        Some(_) => Check::warn(
            name,
            "a filter on this process, most likely the container's seccomp profile",
            "allow io_uring_setup, io_uring_enter and io_uring_register: \
             `deadpeer doctor --seccomp-profile > deadpeer.json`, then \
             `docker run --security-opt seccomp=deadpeer.json`",
        ),
    }
}

/// Locked memory of one ring with its queues, counted from Linux 6.14 on.
const RING_BYTES: u64 = 584 * 1_024;

pub(super) fn memlock(facts: &Facts, io: EngineChoice) -> Check {
    let name = "memlock";
    if version(&facts.kernel).is_some_and(|version| version < (6, 14)) {
        return Check::ok(name, "this kernel does not count rings as locked memory");
    }
    let Some(bytes) = facts.memlock else { return Check::ok(name, "no limit") };
    let size = format!("{} KiB", grouped(bytes / 1_024));
    if facts.locks_memory {
        return Check::ok(name, format!("{size}, which CAP_IPC_LOCK overrides"));
    }
    let (rings, needed) = (bytes / RING_BYTES, facts.threads as u64);
    // After a restart the rings of the process before may still count.
    let verdict = match io {
        EngineChoice::Epoll => Verdict::Ok,
        _ if rings >= needed.saturating_mul(2) => Verdict::Ok,
        EngineChoice::Uring if rings < needed => Verdict::Bad,
        _ => Verdict::Warn,
    };
    Check::new(
        name,
        verdict,
        format!("{size}: room for {rings} rings of this user; {needed} threads need one each"),
        "`ulimit -l unlimited` (LimitMEMLOCK=256M in a unit, --ulimit memlock=268435456 for a container)",
    )
}
