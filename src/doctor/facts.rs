//! What is read, and from where.

use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use crate::reactor::{EngineChoice, probe};
use crate::sys::tcp::TickClock;
use crate::sys::{rlimit, uring};

/// What became of setting up a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingFacts {
    /// It stands, passed the self-test, and has these features.
    Works {
        /// Their names.
        features: Vec<String>,
        /// What it lacks, and which kernel has it.
        lacks: Option<String>,
    },
    /// The kernel or a profile forbids it.
    Forbidden(String),
    /// There is none, or it failed the self-test.
    Missing(String),
    /// Something ran out.
    Short(String),
}

/// A control group's limit on CPU time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    /// Cores' worth of it.
    pub cores: f64,
}

/// What is known about the machine and this process. `None`: not found.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // named after what they are read from; the units are in `checks`
pub struct Facts {
    pub kernel: String,
    pub architecture: &'static str,
    pub ring: RingFacts,
    pub operations: Vec<(&'static str, bool)>,
    pub io_uring_disabled: Option<u64>,
    pub seccomp: Option<u64>,
    pub root: bool,
    /// CAP_IPC_LOCK.
    pub locks_memory: bool,
    /// Soft limit in bytes; `None` is no limit.
    pub memlock: Option<u64>,
    pub nofile: u64,
    pub nr_open: Option<u64>,
    pub file_max: Option<u64>,
    pub tick: Duration,
    pub cores: usize,
    pub quota: Option<Quota>,
    pub memory: Option<u64>,
    pub cgroup_memory: Option<u64>,
    pub somaxconn: Option<u64>,
    pub syn_backlog: Option<u64>,
    /// `tcp_syncookies`: with 1 or 2 the backlog of handshakes is no limit.
    pub syn_cookies: Option<u64>,
    pub ports: Option<(u64, u64)>,
    /// Pages: low, pressure, high.
    pub tcp_mem: Option<[u64; 3]>,
    pub max_orphans: Option<u64>,
    /// Tracked connections, and how many may be.
    pub conntrack: Option<(u64, u64)>,
    /// Seconds.
    pub conntrack_established: Option<u64>,
    /// Seconds: `tcp_keepalive_time`.
    pub keepalive_time: Option<u64>,
}

impl Facts {
    /// Reads them here and now. Raises the soft limit on descriptors, as `deadpeer run` does.
    #[must_use]
    pub fn read() -> Facts {
        let ring = match probe(EngineChoice::Uring) {
            Ok(probed) => RingFacts::Works {
                features: probed.features.iter().map(ToString::to_string).collect(),
                lacks: probed.why_not,
            },
            Err(error) if error.is_forbidden() => RingFacts::Forbidden(error.to_string()),
            Err(error) if error.is_missing() => RingFacts::Missing(error.to_string()),
            Err(error) => RingFacts::Short(error.to_string()),
        };
        Facts {
            ring,
            operations: uring::supported_operations(),
            tick: TickClock::new().tick(),
            cores: std::thread::available_parallelism().map_or(1, usize::from), // as `run` counts them
            nofile: rlimit::raise_nofile().unwrap_or(0),
            ..Facts::read_from(Path::new("/"))
        }
    }

    /// Reads what stands in files, below another root: for tests.
    #[must_use]
    pub fn read_from(root: &Path) -> Facts {
        let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
        let of_status = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next().map(str::to_owned)
        };
        let capabilities =
            of_status("CapEff").and_then(|text| u64::from_str_radix(&text, 16).ok()).unwrap_or(0);
        // Those of a user namespace (a container without root) count only within it.
        let map = fs::read_to_string(root.join("proc/self/uid_map")).unwrap_or_default();
        let initial = map.split_whitespace().eq(["0", "0", "4294967295"]);
        let limits = fs::read_to_string(root.join("proc/self/limits")).unwrap_or_default();
        let memlock = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
        let memlock = memlock.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        let sysctl = |name: &str| number(root, &format!("proc/sys/{name}"));
        let all = |name: &str| -> Vec<u64> {
            let text = fs::read_to_string(root.join("proc/sys").join(name)).unwrap_or_default();
            text.split_whitespace().map_while(|word| word.parse().ok()).collect()
        };
        let ports = all("net/ipv4/ip_local_port_range");
        let tcp_mem = all("net/ipv4/tcp_mem");
        let tracked =
            sysctl("net/netfilter/nf_conntrack_count").zip(sysctl("net/netfilter/nf_conntrack_max"));
        let kernel = fs::read_to_string(root.join("proc/sys/kernel/osrelease")).unwrap_or_default();
        Facts {
            kernel: kernel.trim().to_owned(),
            architecture: std::env::consts::ARCH,
            ring: RingFacts::Missing("not looked at".into()),
            operations: Vec::new(),
            io_uring_disabled: sysctl("kernel/io_uring_disabled"),
            seccomp: of_status("Seccomp").and_then(|text| text.parse().ok()),
            root: of_status("Uid").is_some_and(|uid| uid == "0"),
            locks_memory: initial && capabilities & (1 << CAP_IPC_LOCK) != 0,
            memlock,
            nofile: 0,
            nr_open: sysctl("fs/nr_open"),
            file_max: sysctl("fs/file-max"),
            tick: Duration::from_millis(4),
            cores: 1,
            quota: quota(root),
            memory: meminfo(root),
            cgroup_memory: of_cgroups(root, "memory.max")
                .iter()
                .filter_map(|text| text.trim().parse().ok())
                .min(),
            somaxconn: sysctl("net/core/somaxconn"),
            syn_backlog: sysctl("net/ipv4/tcp_max_syn_backlog"),
            syn_cookies: sysctl("net/ipv4/tcp_syncookies"),
            ports: ports.first().copied().zip(ports.get(1).copied()),
            tcp_mem: <[u64; 3]>::try_from(tcp_mem).ok(),
            max_orphans: sysctl("net/ipv4/tcp_max_orphans"),
            conntrack: tracked,
            conntrack_established: sysctl("net/netfilter/nf_conntrack_tcp_timeout_established"),
            keepalive_time: sysctl("net/ipv4/tcp_keepalive_time"),
        }
    }
}

/// `linux/capability.h`.
const CAP_IPC_LOCK: u32 = 14;

fn number<T: FromStr>(root: &Path, path: &str) -> Option<T> {
    fs::read_to_string(root.join(path)).ok()?.trim().parse().ok()
}

fn meminfo(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
}

/// A file of this process's control group (version 2) and of those above, as far as they set a limit.
fn of_cgroups(root: &Path, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let Some(own) = text.lines().find_map(|line| line.strip_prefix("0::")) else { return found };
    let mounted = root.join("sys/fs/cgroup");
    let mut folder = mounted.join(own.trim_start_matches('/'));
    // A name with `..` in it leads out of what is mounted here.
    if own.contains("..") {
        folder.clone_from(&mounted);
    }
    loop {
        if let Ok(text) = fs::read_to_string(folder.join(name))
            && !text.starts_with("max")
        {
            found.push(text);
        }
        if folder == mounted || !folder.pop() {
            return found;
        }
    }
}

fn quota(root: &Path) -> Option<Quota> {
    let cores = |text: &String| {
        let mut words = text.split_whitespace().map(|word| word.parse::<f64>().ok());
        let (share, period) = (words.next()??, words.next()??);
        (period > 0.0).then_some(share / period)
    };
    let tightest = of_cgroups(root, "cpu.max").iter().filter_map(cores).min_by(f64::total_cmp)?;
    Some(Quota { cores: tightest })
}
