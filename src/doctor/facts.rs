//! What the checks are about, and where it is read.

use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use crate::reactor::{EngineChoice, probe};
use crate::sys::tcp::TickClock;
use crate::sys::{rlimit, uring};

/// The result of setting up an engine and testing the kernel on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineFacts {
    /// It was set up and passed the self-test.
    Works {
        /// The names of its features.
        features: Vec<String>,
        /// The missing features and the kernel that has them; `None` if none is missing.
        lacks: Option<String>,
    },
    /// The kernel or a seccomp profile forbids it. The text says what was tried, why it failed, and the cure.
    Forbidden(String),
    /// The kernel does not have it, or it failed the self-test.
    Missing(String),
    /// A resource ran out.
    Short(String),
}

impl EngineFacts {
    fn read(engine: EngineChoice) -> EngineFacts {
        match probe(engine) {
            Ok(probed) => EngineFacts::Works {
                features: probed.features.iter().map(ToString::to_string).collect(),
                lacks: probed.why_not,
            },
            Err(error) if error.is_forbidden() => EngineFacts::Forbidden(error.to_string()),
            Err(error) if error.is_missing() => EngineFacts::Missing(error.to_string()),
            Err(error) => EngineFacts::Short(error.to_string()),
        }
    }

    /// Whether the engine can be used.
    #[must_use]
    pub const fn works(&self) -> bool {
        matches!(self, EngineFacts::Works { .. })
    }
}

/// What is known about the machine and this process. `None` means that it was not found, unless said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The kernel's release, as `6.12.1`.
    pub kernel: String,
    /// The processor's architecture, as Rust names it.
    pub architecture: &'static str,
    /// Whether a ring can be set up.
    pub ring: EngineFacts,
    /// Whether epoll can be set up.
    pub epoll: EngineFacts,
    /// The operations of io_uring that the program uses, and whether the kernel has them.
    pub operations: Vec<(&'static str, bool)>,
    /// Sysctl `kernel.io_uring_disabled`.
    pub io_uring_disabled: Option<u64>,
    /// The seccomp mode of this process; 0 is no filter.
    pub seccomp: Option<u64>,
    /// Whether this process runs as root.
    pub root: bool,
    /// Whether this process has CAP_IPC_LOCK.
    pub locks_memory: bool,
    /// Soft limit on locked memory, in bytes; `None` is no limit.
    pub memlock: Option<u64>,
    /// Soft limit on descriptors, raised to the hard one.
    pub nofile: u64,
    /// Sysctl `fs.nr_open`: the highest limit on descriptors of a process.
    pub nr_open: Option<u64>,
    /// Sysctl `fs.file-max`: descriptors of the whole machine.
    pub file_max: Option<u64>,
    /// The kernel's timer tick.
    pub tick: Duration,
    /// Processors that this process may use.
    pub cores: usize,
    /// Threads of the `deadpeer run` that is judged; by default one for each core.
    pub threads: usize,
    /// The tightest quota of the control groups on processor time, in cores, above 0; `None` is no quota.
    pub quota: Option<f64>,
    /// Memory of the machine, in bytes.
    pub memory: Option<u64>,
    /// The tightest limit on memory of the control groups, in bytes; `None` is no limit.
    pub cgroup_memory: Option<u64>,
    /// Sysctl `net.core.somaxconn`.
    pub somaxconn: Option<u64>,
    /// Sysctl `net.ipv4.tcp_max_syn_backlog`.
    pub syn_backlog: Option<u64>,
    /// Sysctl `net.ipv4.tcp_syncookies`: with 1 or 2 the backlog of handshakes is no limit.
    pub syn_cookies: Option<u64>,
    /// Sysctl `net.ipv4.ip_local_port_range`: the first and the last port.
    pub ports: Option<(u64, u64)>,
    /// Sysctl `net.ipv4.tcp_mem`: low, pressure and high, in pages.
    pub tcp_mem: Option<[u64; 3]>,
    /// Sysctl `net.ipv4.tcp_max_orphans`.
    pub max_orphans: Option<u64>,
    /// Connections that conntrack holds, and how many it may hold.
    pub conntrack: Option<(u64, u64)>,
    /// Seconds after which conntrack forgets a quiet connection.
    pub conntrack_established: Option<u64>,
    /// Sysctl `net.ipv4.tcp_keepalive_time`, in seconds.
    pub keepalive_time: Option<u64>,
}

impl Facts {
    /// Reads all facts now. Raises the soft limit on descriptors, as `deadpeer run` does.
    #[must_use]
    pub fn read() -> Facts {
        let cores = std::thread::available_parallelism().map_or(1, usize::from); // as `run` counts them
        Facts {
            ring: EngineFacts::read(EngineChoice::Uring),
            epoll: EngineFacts::read(EngineChoice::Epoll),
            operations: uring::supported_operations(),
            tick: TickClock::new().tick(),
            cores,
            threads: cores,
            nofile: rlimit::raise_nofile().unwrap_or(0),
            ..Facts::read_from(Path::new("/"))
        }
    }

    /// Reads the facts that are in files below `root`, which is not `/` in tests. The others have the values of a machine
    /// that has none of them.
    #[must_use]
    pub fn read_from(root: &Path) -> Facts {
        let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
        let of_status = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next().map(str::to_owned)
        };
        let capabilities =
            of_status("CapEff").and_then(|text| u64::from_str_radix(&text, 16).ok()).unwrap_or(0);
        // The capabilities of a user namespace (a container without root) count only within it.
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
            ring: EngineFacts::Missing("not tried".into()),
            epoll: EngineFacts::Missing("not tried".into()),
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
            threads: 1,
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

/// The number of the capability in `linux/capability.h`.
const CAP_IPC_LOCK: u32 = 14;

fn number<T: FromStr>(root: &Path, path: &str) -> Option<T> {
    fs::read_to_string(root.join(path)).ok()?.trim().parse().ok()
}

fn meminfo(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
}

/// The texts of a limit's file in this process's control group (version 2) and in the groups above it; those that
/// say `max` are left out.
fn of_cgroups(root: &Path, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let Some(own) = text.lines().find_map(|line| line.strip_prefix("0::")) else { return found };
    let mounted = root.join("sys/fs/cgroup");
    let mut folder = mounted.join(own.trim_start_matches('/'));
    // A path with `..` in it leads out of what is mounted here.
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

fn quota(root: &Path) -> Option<f64> {
    let cores = |text: &String| {
        let mut words = text.split_whitespace().map(|word| word.parse::<f64>().ok());
        let (share, period) = (words.next()??, words.next()??);
        (period > 0.0).then_some(share / period)
    };
    of_cgroups(root, "cpu.max").iter().filter_map(cores).min_by(f64::total_cmp)
}
