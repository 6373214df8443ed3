//! The program that measured, and the machine.

use serde::{Deserialize, Serialize};

use crate::measure::recorded::Recorded;

/// The deadpeer that measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its version, as in Cargo.toml.
    pub version: String,
    /// Its build: `release` or `debug`.
    pub build: String,
    /// The commit that it was built from. `None`: unknown, as in older files.
    #[serde(default)]
    pub commit: Option<String>,
    /// The engine of the trackers that were measured. `None`: unknown, as in older files.
    #[serde(default)]
    pub engine: Option<EngineUsed>,
}

/// The I/O engine that a tracker ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineUsed {
    /// The name in `--io`: `io_uring`, `epoll` or `tokio-uring`.
    pub name: String,
    /// The kernel features that the engine used, such as `multishot-poll`.
    pub features: Vec<String>,
    /// The reason for a fallback: why io_uring could not be used. `None`: the engine was the wanted one.
    pub why_not: Option<String>,
}

/// The machine and its limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The release of the kernel, as `uname -r` prints it.
    pub kernel: String,
    /// The name of the processor in /proc/cpuinfo.
    pub cpu: String,
    /// The number of cores that the process may use.
    pub cores: u32,
    /// The memory of the machine.
    pub memory_bytes: u64,
    /// Whether the processor reports a hypervisor.
    pub virtual_machine: bool,
    /// The kernel's tick (1/HZ): the grain of `tcpi_last_data_recv`.
    pub tick_ns: u64,
    /// The hard RLIMIT_NOFILE.
    pub descriptors: u64,
    /// The soft RLIMIT_MEMLOCK. `None`: unlimited.
    pub memlock_bytes: Option<u64>,
    /// Whether the bench ran as root.
    pub root: bool,
    /// The load average of the minute before the start, in thousandths.
    pub load_thousandths: u64,
    /// The cores that the tracker or the compared servers ran on. Empty: not pinned.
    pub server_cores: Vec<u32>,
    /// The cores that load and injectors ran on. Empty: not pinned.
    pub load_cores: Vec<u32>,
    /// The time that the machine takes for a death without a tracker. `None`: not measured.
    pub bare_recv: Option<BareRecv>,
}

/// One thread that waits in `recv` for one FIN, before anything else runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BareRecv {
    /// From the scheduled `close(2)` to the return of the `recv`.
    pub latency: Recorded,
    /// From the scheduled instant to the `close(2)`; a part of `latency`.
    pub injector_late: Recorded,
}
